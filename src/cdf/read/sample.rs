//! Samples a RAW database, to create tables for it: its tables, and the types that their columns seem to have.

use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use crate::cdf::document::Value;
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::resource::raw::{self, RawPlace};
use crate::cdf::table::view::Definitions;

/// The rows of each part of a table from which its columns are guessed.
const SAMPLE: usize = 1000;
/// The number of parts of a larger table.
const PARTS: usize = 10;
/// Names per page, at most.
const NAMES: usize = 1000;

/// A column of a RAW table, and the SQL type that takes all its values in the sample.
pub type SampledColumn = (String, &'static str);

/// Returns the tables of a RAW database; None if the database does not exist.
pub async fn tables(of: &Definitions, database: &str) -> Result<Option<Vec<String>>, Error> {
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = raw::tables(Some(database)).with("limit", NAMES).with_cursor(cursor.as_deref());
        let Some(answer) = get(of, page).await? else {
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

/// Returns the columns in a sample of a RAW table's rows, in the order of their appearance: the first rows, and of a
/// larger table the first rows of several parts.
pub async fn columns(of: &Definitions, database: &str, table: &str) -> Result<Vec<SampledColumn>, Error> {
    let place = RawPlace::of(database, table);
    let rows = place.rows().with("limit", SAMPLE);
    let mut columns = SampledColumns::default();
    let mut more = columns.add(get(of, rows.clone()).await?);
    if more.is_some() {
        let cursors = place.cursors().with("numberOfCursors", PARTS);
        // If this request fails for another reason, the next one tells.
        let parts = get(of, cursors).await.ok().flatten().unwrap_or_default();
        for cursor in parts["items"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            more = None;
            columns.add(get(of, rows.clone().with_cursor(Some(cursor))).await?);
        }
    }
    // If CDF returns no parts, read one page after the other.
    for _ in 0..PARTS {
        let Some(cursor) = more else { break };
        more = columns.add(get(of, rows.clone().with_cursor(Some(&cursor))).await?);
    }
    Ok(columns.0.into_iter().map(|(name, found)| (name, found.sql_type())).collect())
}

#[derive(Default)]
struct SampledColumns(Vec<(String, Found)>);

impl SampledColumns {
    /// Adds a page of rows. Returns the cursor of the next page.
    fn add(&mut self, page: Option<Value>) -> Option<String> {
        let page = page?;
        for row in page["items"].as_array().into_iter().flatten() {
            for (name, value) in row["columns"].as_object().into_iter().flatten() {
                let found = Found::of(value);
                match self.0.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => *known = known.and(found),
                    None => self.0.push((name.clone(), found)),
                }
            }
        }
        page["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned)
    }
}

/// Reads an endpoint; None if CDF says that it does not exist.
async fn get(of: &Definitions, endpoint: Endpoint) -> Result<Option<Value>, Error> {
    match of.get(endpoint).await {
        Ok(answer) => Ok(Some(answer)),
        Err(RequestError::Api(api)) if api.is_absent() => Ok(None),
        Err(error) => Err(error.into_error("rawAcl:READ and rawAcl:LIST").about("RAW")),
    }
}

/// The kinds of values that a column was found to have; none if all are null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Found(u16);

impl Found {
    const BOOLEAN: u16 = 1;
    /// Whole numbers that a double holds exactly.
    const INTEGER: u16 = 2;
    /// Whole numbers of 64 bits that a double does not hold exactly.
    const WIDE: u16 = 4;
    const DOUBLE: u16 = 8;
    /// Numbers that lose digits as a double.
    const DIGITS: u16 = 16;
    const TIME: u16 = 32;
    const TEXT: u16 = 64;
    const DOCUMENT: u16 = 128;
    /// A document with a NUL or with half of a surrogate pair in it, or nested too deeply for the stack.
    const ODD: u16 = 256;

    fn of(value: &Value) -> Found {
        Found(match value {
            Value::Null => 0,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(digits) => match digits.parse::<i64>() {
                Ok(number) if number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS => Self::INTEGER,
                Ok(_) => Self::WIDE,
                Err(_) if is_double(digits) => Self::DOUBLE,
                Err(_) => Self::DIGITS,
            },
            Value::String(text) if OffsetDateTime::parse(text, &Rfc3339).is_ok() => Self::TIME,
            Value::String(_) => Self::TEXT,
            Value::Json(text) if text.starts_with('"') => Self::TEXT,
            document => {
                if is_odd(&document.to_string()) {
                    Self::ODD
                } else {
                    Self::DOCUMENT
                }
            }
        })
    }

    fn and(self, other: Found) -> Found {
        Found(self.0 | other.0)
    }

    /// Returns the type that takes all these kinds; text if none else does.
    fn sql_type(self) -> &'static str {
        const NUMBERS: u16 = Found::INTEGER | Found::WIDE | Found::DOUBLE | Found::DIGITS;
        let has = |kinds: u16| self.0 & kinds != 0;
        let only = |kinds: u16| has(kinds) && self.0 & !kinds == 0;
        match self {
            _ if has(Self::ODD) => "json",
            _ if has(Self::DOCUMENT) => "jsonb",
            _ if only(Self::BOOLEAN) => "boolean",
            _ if only(Self::INTEGER | Self::WIDE) => "bigint",
            _ if only(Self::INTEGER | Self::DOUBLE) => "double precision",
            _ if only(NUMBERS) => "numeric",
            _ if only(Self::TIME) => "timestamp with time zone",
            _ => "text",
        }
    }
}

/// Whether a double, printed in the shortest way that reads back as the same double, has the number's digits.
fn is_double(number: &str) -> bool {
    let significant = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    };
    number
        .parse::<f64>()
        .is_ok_and(|value| value.is_finite() && significant(number) == significant(&format!("{value:e}")))
}

/// Whether PostgreSQL's jsonb cannot hold a document.
fn is_odd(document: &str) -> bool {
    // The depth of PostgreSQL's stack is a setting; this much always fits.
    const LEVELS: usize = 1000;
    let (mut levels, mut most) = (0usize, 0);
    for byte in document.bytes() {
        // Brackets in a text make the document look deeper than it is. That does no harm: json holds it as well.
        match byte {
            b'{' | b'[' => levels += 1,
            b'}' | b']' => levels = levels.saturating_sub(1),
            _ => {}
        }
        most = most.max(levels);
    }
    // This does not tell an escaped backslash before them apart.
    let escapes = |escape: &str| document.contains(escape);
    most > LEVELS || escapes("\\u0000") || escapes("\\ud") || escapes("\\uD")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::document;

    #[test]
    fn types_take_every_sample() {
        let of = |values: &[&str]| {
            let found = values.iter().map(|value| Found::of(&document::parse(value.as_bytes()).unwrap()));
            found.fold(Found::default(), Found::and).sql_type()
        };
        for (values, expected) in [
            (&["null"] as &[&str], "text"),
            (&["null", "true"], "boolean"),
            (&["1", "-9223372036854775808"], "bigint"),
            (&["1", "1.5"], "double precision"),
            (&["1.0", "1e5", "1.50", "0.1", "-2.5e-300"], "double precision"),
            (&["9007199254740993", "1.5"], "numeric"),
            (&["9223372036854775808"], "numeric"),
            (&["0.12345678901234567890"], "numeric"),
            (&["1e400", "1"], "numeric"),
            (&["\"2024-01-01T00:00:00Z\"", "null"], "timestamp with time zone"),
            (&["\"2024-01-01T00:00:00Z\"", "\"2024-01-01T00:00:00\""], "text"),
            (&["1", "\"a\""], "text"),
            (&["1", "true"], "text"),
            (&["[1]", "{}", "1"], "jsonb"),
            (&["{}", "[\"\\u0000\"]"], "json"),
            (&["[\"\\ud800\"]"], "json"),
        ] {
            assert_eq!(of(values), expected, "{values:?}");
        }
    }
}
