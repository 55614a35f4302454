//! The metadata of files. Content cannot be uploaded here.

use serde_json::{json, Map, Value};

use super::classic::{Hooks, Kind, Occasion, Operation, Words};
use super::fields::{Dangling, Field, FieldType, MetadataLimits, Target};
use super::filter::Filter;
use crate::errors::ApiError;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 };
const ASSETS: Target = Target { path: "assets", dangling: Dangling::Listed("Asset ids not found") };

/// The resource.
pub static KIND: Kind = Kind {
    path: "files",
    noun: "File",
    acl: "filesAcl",
    fields: &[
        Field::external_id(),
        Field::text("name", 1, 256).required().immutable(),
        Field::text("directory", 0, 512),
        Field::text("source", 0, 128),
        Field::text("mimeType", 0, 256),
        Field::metadata(&METADATA),
        Field::new("assetIds", FieldType::References { target: ASSETS, max: 1000 }).not_null(),
        Field::data_set(Dangling::Inline("Invalid dataSetIds")),
        Field::timestamp("sourceCreatedTime"),
        Field::timestamp("sourceModifiedTime"),
        Field::new("securityCategories", FieldType::Integers).not_null(),
        Field::new("labels", FieldType::Labels { max: 10 }).not_null(),
        Field::new("geoLocation", FieldType::GeoLocation),
    ],
    defaults: || Map::from_iter([("uploaded".to_owned(), json!(false))]),
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words {
        unknown_id: "File ids not found",
        unknown_external_id: "Files ids not found",
        repeated_id: "Duplicate ids",
        repeated_external_id: "Duplicate external ids",
        same: "Duplicate ids",
        names_follow: true,
    },
    nulls: true,
    keeps_unchanged: false,
    has_id: true,
    operations: &[
        Operation::CreateOne,
        Operation::Get,
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::Partitions,
    ],
    filters: &[
        ("name", Filter::Equal),
        ("directoryPrefix", Filter::Prefix("directory")),
        ("mimeType", Filter::Equal),
        ("metadata", Filter::Metadata),
        ("assetIds", Filter::AssetIds("assetIds", 100)),
        ("assetExternalIds", Filter::AssetExternalIds("assetIds", 100)),
        ("rootAssetIds", Filter::AssetSubtrees("assetIds", 100)),
        ("dataSetIds", Filter::DataSets(100)),
        ("assetSubtreeIds", Filter::AssetSubtrees("assetIds", 100)),
        ("source", Filter::Equal),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("uploadedTime", Filter::Range { nullable: false }),
        ("sourceCreatedTime", Filter::Range { nullable: false }),
        ("sourceModifiedTime", Filter::Range { nullable: false }),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("uploaded", Filter::Equal),
        ("labels", Filter::Labels),
        ("geoLocation", Filter::NotEmulated),
    ],
    hooks: Hooks { admit, dress, ..Hooks::NONE },
};

fn admit(file: &Map<String, Value>, create: bool) -> Result<(), ApiError> {
    if file.get("assetIds").and_then(Value::as_array).is_some_and(Vec::is_empty) && create {
        Err(ApiError::bad_request("assetIds: size must be between 1 and 1000, got 0"))
    } else {
        Ok(())
    }
}

/// Adds empty fields as recorded: the answer to a create shows empty labels, that to an update empty metadata.
fn dress(file: &mut Map<String, Value>, occasion: Occasion) {
    let empty_labels = file.get("labels").and_then(Value::as_array).is_none_or(Vec::is_empty);
    match occasion {
        Occasion::Create if empty_labels => drop(file.insert("labels".into(), json!([]))),
        _ if empty_labels => drop(file.shift_remove("labels")),
        _ => {}
    }
    if occasion == Occasion::Update && !file.contains_key("metadata") {
        file.insert("metadata".into(), json!({}));
    }
}
