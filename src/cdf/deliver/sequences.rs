//! The columns of sequences: an update changes those of an existing sequence to what a row defines.

use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};

use super::body::{is_same, listing, BodyRows, ByKey};
use super::transfer::Transfer;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::properties::EXTERNAL_ID;
use crate::cdf::resource::Rule;

/// The changes to the columns of existing sequences.
#[derive(Default)]
pub(super) struct ColumnChanges {
    /// `{"add":[…],"remove":[…],"modify":[…]}` by row; rows whose sequence has these columns already have none.
    pub(super) changes: HashMap<usize, Vec<u8>>,
    /// Rows that define columns of an existing sequence.
    pub(super) existing: HashSet<usize>,
    /// Those of them that say what the sequence is already.
    pub(super) same: HashSet<usize>,
    /// Rows that define columns of a missing sequence.
    pub(super) missing: Vec<usize>,
}

impl Transfer<'_> {
    /// Compares the columns that the rows define with CDF's, in one request for all of them.
    pub(super) async fn column_changes(
        &self,
        body: &BodyRows<'_>,
        rows: &[usize],
    ) -> Result<ColumnChanges, Error> {
        let resource = self.destination.resource;
        let mut found = ColumnChanges::default();
        let definitions = resource.columns.iter().find(|column| column.rule == Rule::SequenceColumns);
        let Some(property) = definitions.map(|column| column.property) else {
            return Ok(found);
        };
        let parsed = body.parsed()?;
        let defines = |at: &usize| parsed[*at].properties(true).get(property).is_some();
        let defining: Vec<usize> = rows.iter().copied().filter(defines).collect();
        if defining.is_empty() {
            return Ok(found);
        }
        let answer = self.retrieve(body, &defining).await?;
        let existing = ByKey::of(listing(&answer)?);
        let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
        for at in defining {
            let Some((_, key)) = parsed[at].key() else { continue };
            let key = value(key);
            let Some(sequence) = existing.get(&parsed[at]) else {
                found.missing.push(at);
                continue;
            };
            found.existing.insert(at);
            let wanted = parsed[at].properties(true).get(property).map(value).unwrap_or_default();
            let elements = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let change = change(&elements(&wanted), &elements(&sequence[property])).map_err(|fixed| {
                let why = format!(
                    "column {} of the existing {} cannot change its valueType; it is {}",
                    fixed[EXTERNAL_ID], resource.noun, fixed["valueType"]
                );
                self.error(Kind::InvalidValue, why)
                    .refusing(vec![key.to_string()], 1)
                    .hint("CDF never updates it. Write the column with the valueType that it has, or under another externalId.")
            })?;
            if change.is_none() && is_same(&parsed[at], sequence, Some(property)) {
                found.same.insert(at);
            }
            found.changes.extend(change.map(|change| (at, change.to_string().into_bytes())));
        }
        Ok(found)
    }
}

/// Returns the update that makes the columns `wanted` of those that a sequence `has`; None if they are equal. The error
/// is a column whose type would have to change.
fn change(wanted: &[Value], has: &[Value]) -> Result<Option<Value>, Value> {
    let same = |a: &Value, b: &Value| a[EXTERNAL_ID] == b[EXTERNAL_ID];
    let (mut added, mut modified) = (Vec::new(), Vec::new());
    for column in wanted {
        let Some(now) = has.iter().find(|other| same(other, column)) else {
            added.push(column.clone());
            continue;
        };
        if !column["valueType"].is_null() && column["valueType"] != now["valueType"] {
            return Err(now.clone());
        }
        let update = modification(column, now);
        if !update.is_empty() {
            modified.push(json!({ EXTERNAL_ID: column[EXTERNAL_ID], "update": update }));
        }
    }
    let gone = has.iter().filter(|now| !wanted.iter().any(|column| same(column, now)));
    let removed: Vec<Value> = gone.map(|now| json!({ EXTERNAL_ID: now[EXTERNAL_ID] })).collect();
    let mut change = Map::new();
    for (name, list) in [("add", added), ("remove", removed), ("modify", modified)] {
        if !list.is_empty() {
            change.insert(name.to_owned(), Value::Array(list));
        }
    }
    Ok((!change.is_empty()).then_some(Value::Object(change)))
}

/// Returns what an update has to set and clear in a column.
fn modification(wanted: &Value, now: &Value) -> Map<String, Value> {
    let mut update = Map::new();
    for name in ["name", "description"].into_iter().filter(|name| wanted[*name] != now[*name]) {
        let patch = match &wanted[name] {
            Value::Null => json!({ "setNull": true }),
            value => json!({ "set": value }),
        };
        update.insert(name.to_owned(), patch);
    }
    // CDF returns empty metadata where none was given.
    let none = Map::new();
    let pairs = |column: &Value| column["metadata"].as_object().unwrap_or(&none).clone();
    if pairs(wanted) != pairs(now) {
        update.insert("metadata".to_owned(), json!({ "set": pairs(wanted) }));
    }
    update
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(wanted: Value, has: Value) -> Option<Value> {
        change(wanted.as_array().unwrap(), has.as_array().unwrap()).unwrap()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let has = json!([
            {"externalId": "a", "valueType": "DOUBLE", "metadata": {}, "createdTime": 1, "id": 1},
            {"externalId": "b", "valueType": "STRING", "name": "B", "metadata": {"k": "v"}},
            {"externalId": "c", "valueType": "LONG", "description": "d"},
        ]);
        let kept = json!([
            {"externalId": "c", "description": "d"},
            {"externalId": "a", "valueType": "DOUBLE"},
            {"externalId": "b", "name": "B", "metadata": {"k": "v"}},
        ]);
        assert_eq!(changed(kept, has.clone()), None);
        let wanted = json!([
            {"externalId": "n", "valueType": "LONG"},
            {"externalId": "a", "name": "A"},
            {"externalId": "b", "metadata": {"k": "w"}},
        ]);
        assert_eq!(
            changed(wanted, has.clone()),
            Some(json!({
                "add": [{"externalId": "n", "valueType": "LONG"}],
                "remove": [{"externalId": "c"}],
                "modify": [
                    {"externalId": "a", "update": {"name": {"set": "A"}}},
                    {"externalId": "b", "update": {"name": {"setNull": true}, "metadata": {"set": {"k": "w"}}}},
                ],
            }))
        );
        let other = json!([{"externalId": "a", "valueType": "LONG"}]);
        let refused = change(other.as_array().unwrap(), has.as_array().unwrap()).unwrap_err();
        assert_eq!(refused["valueType"], "DOUBLE");
    }
}
