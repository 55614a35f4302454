//! What a RAW database holds, for whoever wants tables of it: its tables, and the types that their columns seem to have.

use serde_json::{json, Value};
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use crate::cdf::error::{Error, RequestError};
use crate::cdf::resource::raw::rows_path;
use crate::cdf::url_path::segment;
use crate::cdf::view::Definitions;

/// Rows that a table's columns are guessed from.
const SAMPLE: usize = 1000;
/// Names per page, CDF's maximum.
const NAMES: usize = 1000;

/// A column of a RAW table, and the SQL type that takes all values of the sample.
pub type SampledColumn = (String, &'static str);

/// The tables of a RAW database; None if there is no such database.
pub async fn tables(of: &Definitions, database: &str) -> Result<Option<Vec<String>>, Error> {
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut path = format!("/raw/dbs/{}/tables?limit={NAMES}", segment(database));
        if let Some(cursor) = &cursor {
            path.push_str("&cursor=");
            path.extend(segment(cursor));
        }
        let Some(answer) = get(of, path).await? else {
            return Ok(None);
        };
        let items = answer["items"].as_array().into_iter().flatten();
        names.extend(items.filter_map(|item| item["name"].as_str().map(str::to_owned)));
        cursor = answer["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(Some(names));
        }
    }
}

/// The columns of a RAW table's first rows, in the order in which they come up.
pub async fn columns(of: &Definitions, database: &str, table: &str) -> Result<Vec<SampledColumn>, Error> {
    let path = format!("{}?limit={SAMPLE}", rows_path(database, table));
    let answer = get(of, path).await?.unwrap_or_else(|| json!({}));
    let mut columns: Vec<(String, Option<&'static str>)> = Vec::new();
    for row in answer["items"].as_array().into_iter().flatten() {
        for (name, value) in row["columns"].as_object().into_iter().flatten() {
            let found = sql_type(value);
            match columns.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = both(*known, found),
                None => columns.push((name.clone(), found)),
            }
        }
    }
    Ok(columns.into_iter().map(|(name, found)| (name, found.unwrap_or("text"))).collect())
}

/// None where CDF says that there is no such thing.
async fn get(of: &Definitions, path: String) -> Result<Option<Value>, Error> {
    match of.get(path).await {
        Ok(answer) => Ok(Some(answer)),
        Err(RequestError::Api(api)) if api.is_absent() => Ok(None),
        Err(error) => Err(error.into_error("rawAcl:READ and rawAcl:LIST")),
    }
}

const TIMESTAMP: &str = "timestamp with time zone";

/// The type of one value; a null fits every type.
fn sql_type(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "bigint",
        Value::Number(_) => "double precision",
        Value::String(text) if OffsetDateTime::parse(text, &Rfc3339).is_ok() => TIMESTAMP,
        Value::String(_) => "text",
        Value::Object(_) | Value::Array(_) => "jsonb",
    })
}

/// The type that takes the values of both.
fn both(a: Option<&'static str>, b: Option<&'static str>) -> Option<&'static str> {
    match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) if a == b => Some(a),
        (Some("bigint" | "double precision"), Some("bigint" | "double precision")) => {
            Some("double precision")
        }
        (Some("text" | TIMESTAMP), Some("text" | TIMESTAMP)) => Some("text"),
        _ => Some("jsonb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_take_every_sample() {
        let of = |values: &[Value]| values.iter().fold(None, |found, value| both(found, sql_type(value)));
        assert_eq!(of(&[json!(null)]), None);
        assert_eq!(of(&[json!(null), json!(true)]), Some("boolean"));
        assert_eq!(of(&[json!(1), json!(1.5)]), Some("double precision"));
        assert_eq!(of(&[json!("2024-01-01T00:00:00Z")]), Some(TIMESTAMP));
        assert_eq!(of(&[json!("2024-01-01T00:00:00Z"), json!("2024-01-01T00:00:00")]), Some("text"));
        assert_eq!(of(&[json!(1), json!("a")]), Some("jsonb"));
        assert_eq!(of(&[json!([1]), json!({})]), Some("jsonb"));
    }
}
