//! Extraction pipelines, as Cognite's SDKs know them. No field can be set to null: an empty one counts as not set.

use serde_json::{json, Map, Value};

use super::classic::{Hooks, Kind, Operation, Words};
use super::extpipe_runs;
use super::fields::{refuse_unknown, Dangling, Field, FieldType, MetadataLimits};
use super::filter::Filter;
use crate::errors::ApiError;
use crate::store::Classic;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 };

/// The resource.
pub static KIND: Kind = Kind {
    path: "extpipes",
    noun: "Extraction pipeline",
    acl: "extractionPipelinesAcl",
    fields: &[
        Field::text("externalId", 1, 255).required(),
        Field::text("name", 1, 140).required(),
        Field::data_set(Dangling::Listed("Data sets not found")).required(),
        Field::text("description", 0, 500).not_null(),
        Field::new("rawTables", FieldType::Objects(raw_table)).not_null(),
        Field::text("schedule", 0, 255).not_null(),
        Field::new("contacts", FieldType::Objects(contact)).not_null(),
        Field::metadata(&METADATA),
        Field::text("source", 0, 255).not_null(),
        Field::text("documentation", 0, 10_000).not_null(),
        Field::text("createdBy", 0, 255).immutable(),
        Field::new("notificationConfig", FieldType::Object(notification)).not_null(),
    ],
    defaults: Map::new,
    max_items: 1000,
    created: 200,
    twice: 400,
    words: Words::alike("Extraction pipeline id not found", "Extraction pipeline id duplicated"),
    nulls: false,
    keeps_unchanged: false,
    has_id: true,
    operations: &[Operation::Get, Operation::Update, Operation::Delete],
    filters: &[("name", Filter::Equal), ("source", Filter::Equal)],
    hooks: Hooks {
        remove: |classic, ids, _| {
            for id in ids.iter() {
                let name =
                    classic.table(KIND.path).by_id(*id).and_then(|e| e.text("externalId").map(str::to_owned));
                name.into_iter().for_each(|name| extpipe_runs::forget(classic, &name));
            }
            Ok(())
        },
        render,
        ..Hooks::NONE
    },
};

/// Adds what the runs tell, and leaves out what is not set.
fn render(classic: &Classic, fields: &mut Map<String, Value>, _: &[String]) {
    fields
        .retain(|name, value| name != "metadata" || value.as_object().is_some_and(|pairs| !pairs.is_empty()));
    let name = fields.get("externalId").and_then(Value::as_str).unwrap_or_default();
    let told = extpipe_runs::told(classic, name);
    fields.extend(told);
}

fn text(object: &Map<String, Value>, name: &str) -> Result<(), ApiError> {
    if object.get(name).is_none_or(Value::is_string) {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!("{name}: expected a string")))
    }
}

fn raw_table(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse_unknown("rawTables", object, &["dbName", "tableName"])?;
    for name in ["dbName", "tableName"] {
        text(object, name)?;
        if !object.contains_key(name) {
            return Err(ApiError::bad_request(format!("Missing required field: {name}")));
        }
    }
    Ok(())
}

fn contact(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse_unknown("contacts", object, &["name", "email", "role", "sendNotification"])?;
    ["name", "email", "role"].into_iter().try_for_each(|name| text(object, name))?;
    if object.get("sendNotification").is_none_or(Value::is_boolean) {
        Ok(())
    } else {
        Err(ApiError::bad_request("sendNotification: expected true or false"))
    }
}

fn notification(object: &Map<String, Value>) -> Result<(), ApiError> {
    refuse_unknown("notificationConfig", object, &["allowedNotSeenRangeInMinutes"])?;
    match object.get("allowedNotSeenRangeInMinutes").unwrap_or(&json!(0)).as_i64() {
        Some(0..) => Ok(()),
        _ => Err(ApiError::bad_request("allowedNotSeenRangeInMinutes: expected a number of minutes")),
    }
}
