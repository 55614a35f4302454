//! Relationships: identified by external id only. Their ends need not exist.

use serde_json::{Map, Value};

use super::classic::{Hooks, Kind, Operation, Words};
use super::fields::{Dangling, Field, FieldType};
use super::filter::Filter;
use crate::errors::ApiError;
use crate::store::Classic;

const TYPE: FieldType = FieldType::OneOf(&["asset", "timeSeries", "file", "event", "sequence"]);

/// The resource.
pub static KIND: Kind = Kind {
    path: "relationships",
    noun: "Relationship",
    acl: "relationshipsAcl",
    fields: &[
        Field::text("externalId", 1, 255).required().immutable(),
        Field::text("sourceExternalId", 1, 255).required(),
        Field::new("sourceType", TYPE).required(),
        Field::text("targetExternalId", 1, 255).required(),
        Field::new("targetType", TYPE).required(),
        Field::timestamp("startTime"),
        Field::timestamp("endTime"),
        Field::new("confidence", FieldType::Number { min: 0.0, max: 1.0 }),
        Field::data_set(Dangling::Inline("Invalid dataSetIds")),
        Field::new("labels", FieldType::Labels { max: 10 }).not_null(),
    ],
    defaults: Map::new,
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words::alike("Relationship id not found", "Relationship id duplicated"),
    nulls: false,
    keeps_unchanged: false,
    has_id: false,
    operations: &[
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::DeleteLater,
        Operation::FetchResources,
        Operation::Partitions,
    ],
    filters: &[
        ("sourceExternalIds", Filter::AnyOf("sourceExternalId")),
        ("sourceTypes", Filter::AnyOf("sourceType")),
        ("targetExternalIds", Filter::AnyOf("targetExternalId")),
        ("targetTypes", Filter::AnyOf("targetType")),
        ("dataSetIds", Filter::DataSets(1000)),
        ("startTime", Filter::Range { nullable: false }),
        ("endTime", Filter::Range { nullable: false }),
        ("confidence", Filter::NumberRange),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("createdTime", Filter::Range { nullable: false }),
        ("activeAtTime", Filter::ActiveAt { open: true }),
        ("labels", Filter::Labels),
        ("sourcesOrTargets", Filter::SourceOrTarget),
    ],
    hooks: Hooks { check, render, ..Hooks::NONE },
};

fn check(relationship: &Map<String, Value>) -> Result<(), ApiError> {
    let time = |name: &str| relationship.get(name).and_then(Value::as_i64);
    match (time("startTime"), time("endTime")) {
        (Some(start), Some(end)) if end <= start => {
            Err(ApiError::bad_request("endTime must be greater than startTime"))
        }
        _ => Ok(()),
    }
}

/// With `fetchResources`, adds the ends that exist.
fn render(classic: &Classic, fields: &mut Map<String, Value>, requested: &[String]) {
    if !requested.iter().any(|name| name == "fetchResources") {
        return;
    }
    for end in ["source", "target"] {
        let text = |name: &str| fields.get(&format!("{end}{name}")).and_then(Value::as_str);
        let path = match text("Type") {
            Some("asset") => "assets",
            Some("timeSeries") => "timeseries",
            Some("file") => "files",
            Some("event") => "events",
            _ => "sequences",
        };
        let found = text("ExternalId").and_then(|id| super::dump_locked(classic, path, id));
        fields.extend(found.map(|found| (end.to_owned(), found)));
    }
}
