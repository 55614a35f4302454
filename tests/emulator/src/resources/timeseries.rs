//! Time series; their points are in `datapoints`.

use std::collections::BTreeSet;

use serde_json::{json, Map, Value};

use super::classic::{Hooks, Kind, Operation, Words};
use super::fields::{Dangling, Field, FieldType, MetadataLimits, Target};
use super::filter::Filter;
use crate::codec::now_ms;
use crate::errors::ApiError;
use crate::store::{Classic, Entity, Identity, Project};

// Only the total bounds the size of a value.
static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 };

/// The resource. Nothing is required.
pub static KIND: Kind = Kind {
    path: "timeseries",
    noun: "Time series",
    acl: "timeSeriesAcl",
    fields: &[
        Field::external_id(),
        Field::text("name", 0, 255),
        Field::text("legacyName", 0, 255).ignored(),
        Field::new("isString", FieldType::Boolean).immutable(),
        Field::metadata(&METADATA),
        Field::text("unit", 0, 32),
        Field::text("unitExternalId", 0, 64),
        Field::new(
            "assetId",
            FieldType::Reference(Target {
                path: "assets",
                dangling: Dangling::Listed("Asset ids not found"),
            }),
        ),
        Field::new("isStep", FieldType::Boolean).not_null(),
        Field::text("description", 0, 1000),
        Field::new("securityCategories", FieldType::Integers).not_null(),
        Field::data_set(Dangling::Listed("Datasets ids not found")),
    ],
    defaults,
    max_items: 1000,
    created: 201,
    twice: 422,
    words: Words {
        same: "Conflicting time series references",
        ..Words::alike("Time series not found", "Duplicate time series references")
    },
    nulls: true,
    keeps_unchanged: true,
    has_id: true,
    operations: &[
        Operation::Get,
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::ByInstance,
        Operation::Partitions,
    ],
    filters: &[
        ("name", Filter::Equal),
        ("unit", Filter::Equal),
        ("unitExternalId", Filter::Equal),
        ("isString", Filter::Equal),
        ("isStep", Filter::Equal),
        ("metadata", Filter::Metadata),
        ("assetIds", Filter::AssetIds("assetId", 100)),
        ("assetExternalIds", Filter::AssetExternalIds("assetId", 100)),
        ("rootAssetIds", Filter::AssetSubtrees("assetId", 100)),
        ("assetSubtreeIds", Filter::AssetSubtrees("assetId", 100)),
        ("dataSetIds", Filter::DataSets(100)),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
    ],
    hooks: Hooks { admit, check, remove, render, ..Hooks::NONE },
};

/// Returns the fields that every series has.
fn defaults() -> Map<String, Value> {
    let fields = [
        ("isString", json!(false)),
        ("isStep", json!(false)),
        ("metadata", json!({})),
        ("securityCategories", json!([])),
        ("accessCategories", json!([])),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// For time series the description only allows `setNull: true`; other resources accept a boolean.
fn admit(item: &Map<String, Value>, create: bool) -> Result<(), ApiError> {
    if !create && item.values().any(|change| change.get("setNull") == Some(&json!(false))) {
        Err(ApiError::bad_request("setNull must be true"))
    } else {
        Ok(())
    }
}

fn check(series: &Map<String, Value>) -> Result<(), ApiError> {
    if series.get("isString") == Some(&json!(true)) && series.contains_key("unitExternalId") {
        Err(ApiError::bad_request("unitExternalId is only available for numeric time series"))
    } else {
        Ok(())
    }
}

fn remove(classic: &mut Classic, ids: &mut BTreeSet<i64>, _recursive: bool) -> Result<(), ApiError> {
    for id in ids.iter() {
        classic.drop_points(*id);
    }
    Ok(())
}

fn render(_: &Classic, fields: &mut Map<String, Value>, _: &[String]) {
    let is_string = fields.get("isString") == Some(&json!(true));
    fields.insert("type".into(), json!(if is_string { "string" } else { "numeric" }));
}

/// Creates series behind which there are data model instances, as writing a CogniteTimeSeries node does in CDF.
/// Existing ones stay.
pub fn insert_instances(project: &Project, instances: &[Value]) -> Result<(), ApiError> {
    let mut classic = project.classic();
    for instance in instances {
        let part = |name: &str| instance.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(space), Some(external_id)) = (part("space"), part("externalId")) else {
            return Err(ApiError::bad_request("each item needs space and externalId"));
        };
        let identity = Identity::Instance { space, external_id };
        if classic.table(KIND.path).find(&identity).is_some() {
            continue;
        }
        let Value::Object(mut fields) = identity.json() else {
            continue;
        };
        fields.extend(defaults());
        fields.extend(instance.get("isString").map(|is_string| ("isString".to_owned(), is_string.clone())));
        for time in ["createdTime", "lastUpdatedTime"] {
            fields.insert(time.into(), json!(now_ms()));
        }
        let id = classic.new_id();
        classic.table_mut(KIND.path).insert(Entity { id, fields });
    }
    Ok(())
}
