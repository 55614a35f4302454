//! The columns of a sequence: definitions, and how an update changes them.

use serde_json::{json, Map, Value};

use super::fields::{self, Field, FieldType, MetadataLimits, Update};
use crate::codec::{now_ms, random_bits};
use crate::errors::ApiError;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 };

/// The fields of a definition.
static FIELDS: [Field; 5] = [
    Field::external_id().required(),
    Field::text("name", 0, 255),
    Field::text("description", 0, 1000),
    // In any letter case: the official Python SDK sends "Double".
    Field::new(
        "valueType",
        FieldType::OneOf(&[
            "STRING", "DOUBLE", "LONG", "String", "Double", "Long", "string", "double", "long",
        ]),
    )
    .immutable(),
    Field::metadata(&METADATA),
];

/// Identifies a column as long as it exists, even if its external id changes; values are stored under it. Answers leave
/// it out.
pub const KEY: &str = "_key";

fn field(name: &str) -> Result<&'static Field, ApiError> {
    let field = FIELDS.iter().find(|field| field.name == name);
    field.ok_or_else(|| ApiError::bad_request(format!("Unknown field '{name}' in columns")))
}

fn external_id(column: &Value) -> &str {
    column["externalId"].as_str().unwrap_or_default()
}

fn array<'a>(name: &str, value: &'a Value) -> Result<&'a Vec<Value>, ApiError> {
    value.as_array().ok_or_else(|| ApiError::bad_request(format!("{name}: expected an array")))
}

/// Checks the definitions of a create, or of an update's `add`.
pub fn check(value: &Value) -> Result<(), ApiError> {
    for column in array("columns", value)? {
        let Some(column) = column.as_object() else {
            return Err(ApiError::bad_request("columns: expected objects"));
        };
        for (name, value) in column {
            field(name)?.check(value)?;
        }
        if !column.contains_key("externalId") {
            return Err(ApiError::bad_request("Missing required field: columns.externalId"));
        }
    }
    Ok(())
}

/// Checks that an element is an object with these members and no others.
fn check_members(place: &str, element: &Value, members: &[&str]) -> Result<(), ApiError> {
    let element =
        element.as_object().ok_or_else(|| ApiError::bad_request(format!("{place}: expected objects")))?;
    fields::refuse_unknown(place, element, members)?;
    match members.iter().find(|name| !element.contains_key(**name)) {
        Some(name) => Err(ApiError::bad_request(format!("Missing required field: {place}.{name}"))),
        None => Ok(()),
    }
}

/// Applies an update's `add`, `remove` and `modify`.
pub fn patch(current: Option<&Value>, patch: &Map<String, Value>) -> Result<Value, ApiError> {
    fields::refuse_unknown("update.columns", patch, &["add", "remove", "modify"])?;
    let mut columns = current.and_then(Value::as_array).cloned().unwrap_or_default();
    let missing = |external_id: &str| {
        ApiError::missing("Column external ids not found", vec![json!({ "externalId": external_id })])
    };
    for removed in patch.get("remove").map_or(Ok(&Vec::new()), |list| array("columns.remove", list))? {
        check_members("columns.remove", removed, &["externalId"])?;
        let before = columns.len();
        columns.retain(|column| external_id(column) != external_id(removed));
        if columns.len() == before {
            return Err(missing(external_id(removed)));
        }
    }
    for change in patch.get("modify").map_or(Ok(&Vec::new()), |list| array("columns.modify", list))? {
        check_members("columns.modify", change, &["externalId", "update"])?;
        let column = columns.iter_mut().find(|column| external_id(column) == external_id(change));
        let Some(Value::Object(column)) = column else {
            return Err(missing(external_id(change)));
        };
        let Some(update) = change["update"].as_object() else {
            return Err(ApiError::bad_request("Missing required field: columns.modify.update"));
        };
        for (name, change) in update {
            let field = field(name)?;
            if field.update == Update::Never {
                return Err(ApiError::bad_request(format!("columns: {name} cannot be updated")));
            }
            match field.patch(column.get(name), change)? {
                Some(value) => drop(column.insert(name.clone(), value)),
                None => drop(column.shift_remove(name)),
            }
        }
        column.insert("lastUpdatedTime".into(), json!(now_ms()));
    }
    if let Some(added) = patch.get("add") {
        check(added)?;
        columns.extend(array("columns.add", added)?.iter().cloned());
    }
    Ok(Value::Array(columns))
}

/// Adds to new columns what CDF adds to a definition.
pub fn complete(columns: &mut Value) {
    for column in columns.as_array_mut().into_iter().flatten() {
        if column.get(KEY).is_none() {
            column[KEY] = json!(random_bits());
            column["createdTime"] = json!(now_ms());
            column["lastUpdatedTime"] = json!(now_ms());
        }
        let value_type = column["valueType"].as_str().unwrap_or("DOUBLE").to_uppercase();
        column["valueType"] = json!(value_type);
    }
}
