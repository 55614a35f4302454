//! Rows of sequences: written cell by cell, read in pages, deleted by number.

use std::collections::{BTreeMap, HashMap, HashSet};

use axum::http::Method;
use serde_json::{json, Map, Value};

use super::classic::{identity, take_items};
use super::{columns, fields, sequences, Route};
use crate::codec;
use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::{Classic, Entity, Identity, Project};

const ACL: &str = "sequencesAcl";
/// Rows of an insert or delete.
const ROWS: usize = 10_000;
/// Values of an insert, nulls included.
const VALUES: usize = 100_000;
/// Columns of one item of an insert.
const COLUMNS: usize = 200;

/// The rows of one sequence: values by row number and by the column's key.
pub type Rows = BTreeMap<i64, HashMap<u64, Value>>;

/// The routes below `/sequences/data`.
pub fn route(method: &Method, rest: &[&str]) -> Option<Route> {
    match rest {
        _ if method != Method::POST => None,
        [] => Some(Route::new(ACL, "WRITE", insert)),
        ["list"] => Some(Route::new(ACL, "READ", list)),
        ["delete"] => Some(Route::new(ACL, "WRITE", delete)),
        _ => None,
    }
}

fn missing(unknown: Vec<Value>) -> ApiError {
    ApiError::missing("Sequence ids not found", unknown)
}

fn key(column: &Value) -> u64 {
    column[columns::KEY].as_u64().unwrap_or_default()
}

fn columns_of(sequence: &Entity) -> &[Value] {
    sequence.fields.get("columns").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the columns with these external ids, in this order.
fn named<'e>(sequence: &'e Entity, names: &[Value]) -> Result<Vec<&'e Value>, ApiError> {
    let mut seen = HashSet::new();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        if !seen.insert(name) {
            return Err(ApiError::bad_request(format!("columns: {name} is not unique")));
        }
        let column = columns_of(sequence).iter().find(|column| column["externalId"] == *name);
        found.push(column.ok_or_else(|| {
            ApiError::new(404, format!("error in sequence: unknown column externalId {name}"))
        })?);
    }
    Ok(found)
}

fn array<'a>(item: &'a Map<String, Value>, name: &str, max: usize) -> Result<&'a [Value], ApiError> {
    match item.get(name).and_then(Value::as_array) {
        None => Err(ApiError::bad_request(format!("Missing required field: {name}"))),
        Some(list) if !(1..=max).contains(&list.len()) => Err(ApiError::bad_request(format!(
            "{name}: size must be between 1 and {max}, got {}",
            list.len()
        ))),
        Some(list) => Ok(list),
    }
}

/// Returns the items of a request with the sequences that they name; every unknown one is reported.
fn sequences_of(classic: &Classic, items: &[Map<String, Value>]) -> Result<Vec<i64>, ApiError> {
    let named: Vec<Identity> =
        items.iter().map(|item| identity(item, &["id", "externalId"])).collect::<Result<_, _>>()?;
    let table = classic.table(sequences::KIND.path);
    let mut seen = HashSet::new();
    let unknown: Vec<Value> = named
        .iter()
        .filter(|id| table.visible(id).is_none() && seen.insert(*id))
        .map(Identity::json)
        .collect();
    if !unknown.is_empty() {
        return Err(missing(unknown));
    }
    let ids: Vec<i64> = named.iter().filter_map(|id| table.find(id)).map(|entity| entity.id).collect();
    // The description does not say which of two items about one sequence is applied last; no client of CDF sends that.
    let mut seen = HashSet::new();
    match ids.iter().position(|id| !seen.insert(*id)) {
        Some(at) => Err(ApiError::bad_request(format!("items: sequence {} is not unique", named[at].json()))),
        None => Ok(ids),
    }
}

fn objects(items: Vec<Value>) -> Result<Vec<Map<String, Value>>, ApiError> {
    let object = |item| match item {
        Value::Object(item) => Ok(item),
        _ => Err(ApiError::bad_request("items: expected objects")),
    };
    items.into_iter().map(object).collect()
}

/// `POST /sequences/data`: all or nothing.
fn insert(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let items = objects(take_items(&mut body, 1000, &[])?)?;
    let mut classic = project.classic();
    let ids = sequences_of(&classic, &items)?;
    let mut cells: Vec<(i64, i64, u64, Value)> = Vec::new();
    let mut touched: Vec<(i64, i64)> = Vec::new();
    for (item, id) in items.iter().zip(ids) {
        fields::refuse_unknown("items", item, &["id", "externalId", "columns", "rows"])?;
        let Some(sequence) = classic.table(sequences::KIND.path).by_id(id) else { continue };
        let columns = named(sequence, array(item, "columns", COLUMNS)?)?;
        for row in array(item, "rows", ROWS)? {
            fields::check_integer("rowNumber", &row["rowNumber"], 0, i64::MAX)?;
            let number = row["rowNumber"].as_i64().unwrap_or_default();
            let values = row["values"].as_array().map_or(&[] as &[Value], Vec::as_slice);
            if values.len() != columns.len() {
                return Err(ApiError::bad_request(format!(
                    "error in sequence: expected {} values in row {number}, got {}",
                    columns.len(),
                    values.len()
                )));
            }
            touched.push((id, number));
            for (column, value) in columns.iter().zip(values) {
                check(column, value, number)?;
                cells.push((id, number, key(column), value.clone()));
            }
        }
    }
    if touched.len() > ROWS || cells.len() > VALUES {
        return Err(ApiError::bad_request(format!(
            "A request takes {ROWS} rows and {VALUES} values, got {} and {}",
            touched.len(),
            cells.len()
        )));
    }
    for (id, number, column, value) in cells {
        classic.rows_mut(id).entry(number).or_default().insert(column, value);
    }
    Ok(Reply::empty())
}

fn check(column: &Value, value: &Value, row: i64) -> Result<(), ApiError> {
    let ty = column["valueType"].as_str().unwrap_or_default();
    let fits = match (ty, value) {
        (_, Value::Null) => true,
        ("STRING", Value::String(text)) => text.chars().count() <= 256,
        ("LONG", value) => value.is_i64(),
        ("DOUBLE", value) => value.as_f64().is_some_and(|number| number.abs() <= 1e100),
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!(
            "error in sequence: expected a {ty} in column {} of row {row}, got {value}",
            column["externalId"]
        )))
    }
}

/// `POST /sequences/data/list`: rows from `start` to before `end`.
fn list(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    body.retain(|_, value| !value.is_null());
    fields::refuse_unknown(
        "the request",
        &body,
        &["id", "externalId", "start", "end", "limit", "cursor", "columns"],
    )?;
    let number = |name: &str, min: i64, default: i64| match body.get(name) {
        None => Ok(default),
        Some(value) => {
            fields::check_integer(name, value, min, if name == "limit" { 10_000 } else { i64::MAX })
                .map(|()| value.as_i64().unwrap_or(default))
        }
    };
    let limit = number("limit", 1, 100)? as usize;
    let (start, end) = (number("start", i64::MIN, 0)?, number("end", i64::MIN, i64::MAX)?);
    let identity = identity(&body, &["id", "externalId"])?;
    let classic = project.classic();
    let Some(sequence) = classic.table(sequences::KIND.path).find(&identity) else {
        return Err(missing(vec![identity.json()]));
    };
    let columns = match body.get("columns") {
        None => columns_of(sequence).iter().collect(),
        Some(_) => named(sequence, array(&body, "columns", 400)?)?,
    };
    let cursor = body.get("cursor").cloned();
    let parameters = json!(["sequence rows", sequence.id, start, end, body.get("columns")]);
    let from = match cursor {
        None => start,
        Some(cursor) => codec::decode_cursor(&parameters, cursor.as_str().unwrap_or_default())?
            .as_i64()
            .ok_or_else(|| ApiError::bad_request("Invalid cursor"))?,
    };
    let none = Rows::new();
    let mut rows = Vec::new();
    let mut next = None;
    let stored = classic.rows(sequence.id).unwrap_or(&none);
    for (number, cells) in stored.range(from..).take_while(|(number, _)| **number < end || end == i64::MAX) {
        if rows.len() == limit {
            next = Some(codec::encode_cursor(&parameters, &json!(number)));
            break;
        }
        let values: Vec<&Value> =
            columns.iter().map(|column| cells.get(&key(column)).unwrap_or(&Value::Null)).collect();
        rows.push(json!({ "rowNumber": number, "values": values }));
    }
    let shown: Vec<Value> = columns
        .iter()
        .map(|column| {
            let mut column = (*column).clone();
            column.as_object_mut().map(|column| column.shift_remove(columns::KEY));
            column
        })
        .collect();
    let mut answer = json!({ "id": sequence.id, "columns": shown, "rows": rows });
    if let Some(external_id) = sequence.text("externalId") {
        answer["externalId"] = json!(external_id);
    }
    if let Some(cursor) = next {
        answer["nextCursor"] = json!(cursor);
    }
    Ok(Reply::json(200, &answer))
}

/// `POST /sequences/data/delete`: rows that do not exist are ignored.
fn delete(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let items = objects(take_items(&mut body, 1000, &[])?)?;
    let mut classic = project.classic();
    let ids = sequences_of(&classic, &items)?;
    let mut numbers = Vec::new();
    for (item, id) in items.iter().zip(ids) {
        fields::refuse_unknown("items", item, &["id", "externalId", "rows"])?;
        for number in array(item, "rows", ROWS)? {
            fields::check_integer("rows", number, 0, i64::MAX)?;
            numbers.push((id, number.as_i64().unwrap_or_default()));
        }
    }
    for (id, number) in numbers {
        classic.rows_mut(id).remove(&number);
    }
    Ok(Reply::empty())
}

/// Returns the stored rows as `{"externalId", "rowNumber", "columns": {…}}`, by sequence and number.
pub fn dump(project: &Project, external_id: Option<&str>) -> Vec<Value> {
    let classic: &Classic = &project.classic();
    let mut dumped = Vec::new();
    for (_, sequence) in classic.table(sequences::KIND.path).after(0) {
        if external_id.is_some_and(|wanted| sequence.text("externalId") != Some(wanted)) {
            continue;
        }
        for (number, cells) in classic.rows(sequence.id).into_iter().flatten() {
            let mut columns = Map::new();
            for column in columns_of(sequence) {
                if let (Some(name), Some(value)) = (column["externalId"].as_str(), cells.get(&key(column))) {
                    columns.insert(name.to_owned(), value.clone());
                }
            }
            dumped.push(json!({
                "id": sequence.id,
                "externalId": sequence.text("externalId"),
                "rowNumber": number,
                "columns": columns,
            }));
        }
    }
    dumped
}
