//! Events.

use serde_json::{Map, Value};

use super::classic::{Hooks, Kind, Operation, Words};
use super::fields::{Dangling, Field, FieldType, MetadataLimits, Target};
use super::filter::Filter;
use crate::errors::ApiError;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 128_000, total: 200_000 };
const ASSETS: Target = Target { path: "assets", dangling: Dangling::Listed("Asset ids not found") };

/// The resource. Nothing is required, not even an external id.
pub static KIND: Kind = Kind {
    path: "events",
    noun: "Event",
    acl: "eventsAcl",
    fields: &[
        Field::external_id(),
        Field::data_set(Dangling::Inline("Invalid dataSetIds")),
        Field::timestamp("startTime"),
        Field::timestamp("endTime"),
        Field::text("type", 0, 64),
        Field::text("subtype", 0, 64),
        Field::text("description", 0, 500),
        Field::metadata(&METADATA),
        Field::new("assetIds", FieldType::References { target: ASSETS, max: 10_000 }).not_null(),
        Field::text("source", 0, 128),
    ],
    defaults: Map::new,
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words::alike("Event id not found", "Event id duplicated"),
    nulls: true,
    keeps_unchanged: true,
    has_id: true,
    operations: &[
        Operation::Get,
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::Partitions,
    ],
    filters: &[
        ("startTime", Filter::Range { nullable: false }),
        ("endTime", Filter::Range { nullable: true }),
        ("activeAtTime", Filter::ActiveAt { open: false }),
        ("metadata", Filter::Metadata),
        ("assetIds", Filter::AssetIds("assetIds", 5000)),
        ("assetExternalIds", Filter::AssetExternalIds("assetIds", 5000)),
        ("assetSubtreeIds", Filter::AssetSubtrees("assetIds", 100)),
        ("dataSetIds", Filter::DataSets(100)),
        ("source", Filter::Equal),
        ("type", Filter::Equal),
        ("subtype", Filter::Equal),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
    ],
    hooks: Hooks { check, ..Hooks::NONE },
};

fn check(event: &Map<String, Value>) -> Result<(), ApiError> {
    let time = |name: &str| event.get(name).and_then(Value::as_i64);
    match (time("startTime"), time("endTime")) {
        (Some(start), Some(end)) if end < start => {
            Err(ApiError::bad_request("endTime must be greater than or equal to startTime"))
        }
        _ => Ok(()),
    }
}
