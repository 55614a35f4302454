//! Values of a view's properties, of every type, including relations and lists.

use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use super::document::{check_size, document, Size};
use super::json::{self, Properties, Refusal};
use super::length;
use super::value::{as_text, integer, mismatch};
use crate::cdf::cell::{Cell, EPOCH_MILLIS};
use crate::cdf::error::Kind;
use crate::cdf::resource::properties::{EXTERNAL_ID, SPACE};
use crate::cdf::resource::view::{INSTANCE_ID_CHARS, JSON_BYTES, LIST_ELEMENTS, TEXT_BYTES};
use crate::cdf::table::view::{Property, PropertyType};

/// How many values of an enumeration an error names.
const VALUES_NAMED: usize = 20;

/// Appends `{"space":…,"externalId":…}` from two columns. A refusal comes with its column.
pub(super) fn relation(
    out: &mut Vec<u8>,
    row: &[Cell<'_>],
    space_at: usize,
    external_id_at: usize,
) -> Result<(), (usize, Refusal)> {
    out.extend_from_slice(b"{\"space\":");
    space(out, &row[space_at]).map_err(|refusal| (space_at, refusal))?;
    out.extend_from_slice(b",\"externalId\":");
    external_id(out, &row[external_id_at]).map_err(|refusal| (external_id_at, refusal))?;
    out.push(b'}');
    Ok(())
}

pub(super) fn space(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    if cell.is_null() {
        return Err((Kind::MissingValue, "the value is NULL; an instance needs its space".into()));
    }
    let text = as_text(cell)?;
    check_space(&text)?;
    json::text(out, &text);
    Ok(())
}

/// Checks a space's name: `^[a-zA-Z][a-zA-Z0-9_-]{0,41}[a-zA-Z0-9]?$`.
pub fn check_space(name: &str) -> Result<(), Refusal> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bytes = name.as_bytes();
    // The last of 43 characters is a letter or a digit.
    let whole = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| known(*byte))
        && (bytes.len() < 43 || bytes.len() == 43 && bytes[42].is_ascii_alphanumeric());
    if whole {
        Ok(())
    } else {
        Err((
            Kind::InvalidValue,
            format!(
                "\"{}\" is no name of a space: a letter, then letters, digits, _ and -, 43 characters at most",
                length::shown(name)
            ),
        ))
    }
}

pub(super) fn external_id(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    if cell.is_null() {
        return Err((Kind::MissingValue, "the value is NULL; an instance needs its external id".into()));
    }
    let text = as_text(cell)?;
    check_external_id(&text)?;
    json::text(out, &text);
    Ok(())
}

/// Checks an instance's external id: 1 to 256 characters without NUL.
pub fn check_external_id(text: &str) -> Result<(), Refusal> {
    let chars = text.chars().count();
    match chars {
        0 => Err((Kind::InvalidValue, "the external id is empty".into())),
        _ if chars > INSTANCE_ID_CHARS => Err((
            Kind::TooLong,
            format!("the external id has {chars} characters; CDF takes {INSTANCE_ID_CHARS}"),
        )),
        _ if text.contains('\0') => Err((Kind::InvalidValue, "the external id holds a NUL".into())),
        _ => Ok(()),
    }
}

/// Appends a property's value.
pub(super) fn property(out: &mut Vec<u8>, property: &Property, cell: &Cell<'_>) -> Result<(), Refusal> {
    let Some(most) = property.list else {
        return one(out, property, cell);
    };
    let parsed;
    let cells: &[Cell<'_>] = match cell {
        Cell::List(cells) => cells,
        Cell::Json(text) => {
            parsed = parse(text, most.saturating_mul(longest(property.property_type) + 1) + 2)?;
            let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(parsed.get()) else {
                return Err((
                    Kind::InvalidValue,
                    "the property is a list; the JSON document is no array".into(),
                ));
            };
            return list(out, property, most, elements.len(), |out, at| {
                from_json(out, property, elements[at])
            });
        }
        other => return Err(mismatch(other, "an array")),
    };
    list(out, property, most, cells.len(), |out, at| match &cells[at] {
        Cell::Null => Err((Kind::MissingValue, format!("element {} of the array is NULL", at + 1))),
        cell => one(out, property, cell),
    })
}

fn list(
    out: &mut Vec<u8>,
    property: &Property,
    most: usize,
    count: usize,
    mut element: impl FnMut(&mut Vec<u8>, usize) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if count == 0 {
        let why = format!("the array is empty; CDF takes 1 to {most} elements, and NULL for none");
        return Err((Kind::InvalidValue, why));
    }
    if count > most {
        return Err((Kind::TooLong, format!("the array has {count} elements; CDF takes {most}")));
    }
    let start = out.len();
    let mut text = 0;
    out.push(b'[');
    for at in 0..count {
        if at > 0 {
            out.push(b',');
        }
        let start = out.len();
        element(out, at)?;
        if matches!(property.property_type, PropertyType::Text | PropertyType::Reference) {
            text += Size::of(&out[start + 1..out.len() - 1]).bytes;
        }
    }
    out.push(b']');
    check_bytes("array of texts", text, TEXT_BYTES)?;
    match property.property_type {
        PropertyType::Json => check_size(out.len() - start),
        _ => Ok(()),
    }
}

/// Checks the number of elements of a JSON document that is an array: CDF limits it as that of a list.
fn check_array(document: &[u8]) -> Result<(), Refusal> {
    if document == b"[]" {
        let why =
            "the JSON document is an empty array; CDF takes none there, and NULL for nothing".to_owned();
        return Err((Kind::InvalidValue, why));
    }
    // Each element but the first takes at least two bytes.
    if document.len() <= 2 * LIST_ELEMENTS || !document.starts_with(b"[") {
        return Ok(());
    }
    match serde_json::from_slice::<Vec<&RawValue>>(document) {
        Ok(elements) if elements.len() > LIST_ELEMENTS => {
            let why = format!(
                "the JSON document is an array of {} elements; CDF takes {LIST_ELEMENTS}",
                elements.len()
            );
            Err((Kind::TooLong, why))
        }
        _ => Ok(()),
    }
}

/// Returns the bytes of the longest JSON value that a property of a type takes.
fn longest(property_type: PropertyType) -> usize {
    match property_type {
        // Escaping may turn a byte into six.
        PropertyType::Text | PropertyType::Reference => TEXT_BYTES * 6 + 2,
        _ => JSON_BYTES,
    }
}

fn parse(text: &str, most: usize) -> Result<&RawValue, Refusal> {
    length::check_document(text, most)?;
    json::check_depth(text)?;
    serde_json::from_str(text)
        .map_err(|error| (Kind::InvalidValue, format!("the value is no JSON document ({error})")))
}

/// Appends a value from a jsonb column, for a property that is not JSON itself.
fn from_json(out: &mut Vec<u8>, to: &Property, value: &RawValue) -> Result<(), Refusal> {
    let text = value.get();
    if matches!(to.property_type, PropertyType::Json | PropertyType::Direct) {
        return one(out, to, &Cell::Json(text));
    }
    let unfit = || (Kind::InvalidValue, format!("the property cannot hold the JSON value {text}"));
    match text.as_bytes().first() {
        Some(b't' | b'f') => one(out, to, &Cell::Bool(text == "true")),
        Some(b'n') => Err((Kind::MissingValue, "the JSON value is null".into())),
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|_| unfit())?;
            one(out, to, &Cell::Text(&text))
        }
        Some(b'{' | b'[') | None => Err(unfit()),
        _ => match text.parse() {
            Ok(value) => one(out, to, &Cell::Int(value)),
            Err(_) => number(out, to, text),
        },
    }
}

/// Appends a JSON number that is not written as a 64-bit integer.
fn number(out: &mut Vec<u8>, to: &Property, text: &str) -> Result<(), Refusal> {
    if !matches!(to.property_type, PropertyType::Float32 | PropertyType::Float64) {
        return one(out, to, &Cell::Number(text));
    }
    // The digits are copied. JSON numbers may have exponents, which a numeric never shows.
    let size: f64 = text.parse().unwrap_or(f64::MAX);
    let shown = if size.is_finite() { size.to_string() } else { format!("1{}", "0".repeat(400)) };
    one(&mut Vec::new(), to, &Cell::Number(&shown))?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn one(out: &mut Vec<u8>, property: &Property, cell: &Cell<'_>) -> Result<(), Refusal> {
    let to = property.property_type;
    match (to, cell) {
        (PropertyType::Json | PropertyType::Direct, _) => {}
        (_, Cell::Json(text)) => return from_json(out, property, parse(text, longest(to))?),
        _ => {}
    }
    match to {
        PropertyType::Text | PropertyType::Reference => {
            if let Cell::Bytes(bytes) = cell {
                check_bytes("text", bytes.len().div_ceil(3) * 4, property.text_bytes)?;
                return json::value(out, cell);
            }
            let text = as_text(cell)?;
            check_bytes("text", text.len(), property.text_bytes)?;
            if text.contains('\0') {
                return Err((Kind::InvalidValue, "the text holds a NUL, which CDF does not take".into()));
            }
            if let Some(values) = &property.values {
                if !values.iter().any(|value| *value == text) {
                    let known = values.iter().take(VALUES_NAMED).map(String::as_str).collect::<Vec<_>>();
                    let more = if values.len() > known.len() { ", …" } else { "" };
                    let why = format!(
                        "the value is \"{}\"; CDF takes {}{more}",
                        length::shown(&text),
                        known.join(", ")
                    );
                    return Err((Kind::InvalidValue, why));
                }
            }
            json::text(out, &text);
        }
        PropertyType::Boolean => match cell {
            Cell::Bool(value) => json::write(out, value),
            other => return Err(mismatch(other, "a boolean")),
        },
        PropertyType::Int32 => {
            let value = integer(cell)?;
            let value = i32::try_from(value).map_err(|_| {
                (Kind::OutOfRange, format!("{value} does not fit the property, an integer of 32 bits"))
            })?;
            json::write(out, &value);
        }
        PropertyType::Int64 => json::write(out, &integer(cell)?),
        PropertyType::Float32 | PropertyType::Float64 => {
            let size: Option<f64> = match cell {
                Cell::Int(value) => Some(*value as f64),
                Cell::Float(value) => Some(*value),
                Cell::Number(digits) => digits.parse().ok(),
                _ => None,
            };
            let Some(size) = size else {
                return Err(mismatch(cell, "a number"));
            };
            let bits = if to == PropertyType::Float32 { 32 } else { 64 };
            let most = if bits == 32 { f64::from(f32::MAX) } else { f64::MAX };
            let digits =
                matches!(cell, Cell::Number(digits) if digits.bytes().any(|byte| byte.is_ascii_digit()));
            if size.abs() > most && (size.is_finite() || digits) {
                return Err((
                    Kind::OutOfRange,
                    format!("the number does not fit the property, a float of {bits} bits"),
                ));
            }
            json::value(out, cell)?;
        }
        PropertyType::Timestamp => json::write(out, &timestamp(cell)?),
        PropertyType::Date => json::write(out, &timestamp(cell)?[..10]),
        PropertyType::Json => {
            let start = out.len();
            let text = match cell {
                Cell::Json(text) => {
                    json::check_depth(text)?;
                    text
                }
                Cell::Text(text) => parse(text, JSON_BYTES)?.get(),
                other => {
                    check_size(length::surely_longer(other, JSON_BYTES).unwrap_or_default())?;
                    let mut text = Vec::new();
                    json::value(&mut text, other)?;
                    document(out, &String::from_utf8_lossy(&text))?;
                    return check_array(&out[start..]);
                }
            };
            document(out, text)?;
            check_array(&out[start..])?;
        }
        PropertyType::Direct => {
            let (Cell::Json(text) | Cell::Text(text)) = cell else {
                return Err(mismatch(cell, "a JSON object"));
            };
            let members: Properties =
                serde_json::from_str(parse(text, longest(to))?.get()).unwrap_or_default();
            let part = |name: &str| serde_json::from_str::<String>(members.get(name)?.get()).ok();
            let whole = members.0.len() == 2;
            let (Some(space), Some(external_id), true) = (part(SPACE), part(EXTERNAL_ID), whole) else {
                let why = "a direct relation is an object {\"space\": …, \"externalId\": …}";
                return Err((Kind::InvalidValue, why.into()));
            };
            check_space(&space)?;
            check_external_id(&external_id)?;
            members.write(out);
        }
    }
    Ok(())
}

fn check_bytes(what: &str, bytes: usize, most: usize) -> Result<(), Refusal> {
    if bytes > most {
        Err((Kind::TooLong, format!("the {what} has {bytes} bytes; CDF takes {most}")))
    } else {
        Ok(())
    }
}

/// Formats a timestamp as `YYYY-MM-DDTHH:MM:SS.mmm+00:00`. CDF takes milliseconds; the rest is cut off towards the past.
fn timestamp(cell: &Cell<'_>) -> Result<String, Refusal> {
    let moment = match cell {
        Cell::Timestamp(micros) => {
            let micros = i128::from(*micros) + i128::from(EPOCH_MILLIS) * 1000;
            OffsetDateTime::from_unix_timestamp_nanos(micros.div_euclid(1000) * 1_000_000).ok()
        }
        Cell::Text(text) => Some(OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            let shown = length::shown(text);
            (Kind::InvalidValue, format!("\"{shown}\" is no timestamp like 2024-01-31T12:00:00Z"))
        })?),
        other => return Err(mismatch(other, "a timestamp")),
    };
    let moment = moment.filter(|moment| (0..=9999).contains(&moment.year())).ok_or_else(|| {
        (Kind::OutOfRange, "the timestamp is out of the range that ISO 8601 has: 0000 to 9999".to_owned())
    })?;
    Ok(self::moment(moment))
}

/// Formats a moment as CDF's timestamps are: in UTC, to the millisecond.
pub fn moment(moment: OffsetDateTime) -> String {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}+00:00",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        moment.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(to: PropertyType, cell: Cell<'_>) -> Result<String, Kind> {
        let mut out = Vec::new();
        one(&mut out, &Property::new("p", to, false), &cell).map_err(|(kind, _)| kind)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_are_written_as_their_property_takes_them() {
        let moment = Cell::Timestamp(1_234_567);
        let cases = [
            (PropertyType::Timestamp, moment, "\"2000-01-01T00:00:01.234+00:00\""),
            (PropertyType::Date, moment, "\"2000-01-01\""),
            (PropertyType::Timestamp, Cell::Timestamp(-1), "\"1999-12-31T23:59:59.999+00:00\""),
            (PropertyType::Text, Cell::Int(5), "\"5\""),
            (PropertyType::Text, Cell::Bytes(&[1, 2, 255]), "\"AQL/\""),
            (PropertyType::Int32, Cell::Number("7"), "7"),
            (PropertyType::Float64, Cell::Number("1.50"), "1.50"),
            (PropertyType::Json, Cell::Json("[1]"), "[1]"),
            (PropertyType::Boolean, Cell::Json("true"), "true"),
            (
                PropertyType::Direct,
                Cell::Json("{\"externalId\": \"x\", \"space\": \"sp\"}"),
                "{\"externalId\":\"x\",\"space\":\"sp\"}",
            ),
        ];
        for (to, cell, expected) in cases {
            assert_eq!(written(to, cell).as_deref(), Ok(expected), "{to:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(written(PropertyType::Int32, Cell::Int(1 << 31)), Err(Kind::OutOfRange));
        assert_eq!(written(PropertyType::Float32, Cell::Float(1e39)), Err(Kind::OutOfRange));
        assert_eq!(written(PropertyType::Float64, Cell::Float(f64::NAN)), Err(Kind::OutOfRange));
        let digits = format!("1{}", "0".repeat(400));
        for beyond in [Cell::Number(&digits), Cell::Number("Infinity"), Cell::Float(f64::INFINITY)] {
            assert_eq!(written(PropertyType::Float64, beyond), Err(Kind::OutOfRange));
        }
        assert_eq!(written(PropertyType::Text, Cell::Json("\"a\\u0000\"")), Err(Kind::InvalidValue));
        assert_eq!(written(PropertyType::Text, Cell::Text(&"x".repeat(128_001))), Err(Kind::TooLong));
        assert_eq!(written(PropertyType::Direct, Cell::Json("{\"space\": \"sp\"}")), Err(Kind::InvalidValue));
        for (name, good) in [("a", true), ("a-b_1", true), ("1a", false), ("", false), ("ä", false)] {
            assert_eq!(check_space(name).is_ok(), good, "{name}");
        }
        assert!(check_space(&"a".repeat(43)).is_ok() && check_space(&"a".repeat(44)).is_err());
    }

    #[test]
    fn lists_have_elements_and_no_more_than_their_property_takes() {
        let listed = |to: PropertyType, own: Option<usize>, cell: Cell<'_>| {
            let mut list = Property::new("p", to, true);
            list.list = own.or(list.list);
            let mut out = Vec::new();
            property(&mut out, &list, &cell)?;
            Ok::<_, Refusal>(String::from_utf8(out).unwrap())
        };
        let kind = |result: Result<String, Refusal>| result.unwrap_err().0;
        for to in [PropertyType::Text, PropertyType::Json, PropertyType::Direct, PropertyType::Int32] {
            assert_eq!(kind(listed(to, None, Cell::List(&[]))), Kind::InvalidValue);
            assert_eq!(kind(listed(to, None, Cell::Json("[]"))), Kind::InvalidValue);
        }
        let relations = |count: usize| {
            let one = "{\"space\":\"sp\",\"externalId\":\"x\"}";
            format!("[{}]", vec![one; count].join(","))
        };
        assert!(listed(PropertyType::Direct, None, Cell::Json(&relations(100))).is_ok());
        assert_eq!(kind(listed(PropertyType::Direct, None, Cell::Json(&relations(101)))), Kind::TooLong);
        assert!(listed(PropertyType::Direct, Some(2000), Cell::Json(&relations(2000))).is_ok());
        assert!(listed(PropertyType::Int64, None, Cell::List(&[Cell::Int(1); 1000])).is_ok());
        assert_eq!(kind(listed(PropertyType::Int64, None, Cell::List(&[Cell::Int(1); 1001]))), Kind::TooLong);
        let text = "\"".repeat(64_000);
        let texts = [Cell::Text(&text), Cell::Text(&text), Cell::Text("x")];
        assert!(listed(PropertyType::Text, None, Cell::List(&texts[..2])).is_ok());
        assert_eq!(kind(listed(PropertyType::Text, None, Cell::List(&texts))), Kind::TooLong);
        let document = format!("[\"{}\"]", "x".repeat(20_474));
        let documents = [Cell::Json(&document), Cell::Json(&document), Cell::Json("1")];
        assert!(listed(PropertyType::Json, None, Cell::List(&documents[..2])).is_ok());
        assert_eq!(kind(listed(PropertyType::Json, None, Cell::List(&documents))), Kind::TooLong);
    }

    #[test]
    fn enumerations_and_short_texts() {
        let mut limited = Property::new("p", PropertyType::Reference, false);
        limited.values = Some(vec!["on".to_owned(), "off".to_owned()]);
        let mut out = Vec::new();
        assert!(one(&mut out, &limited, &Cell::Text("off")).is_ok());
        let (kind, why) = one(&mut out, &limited, &Cell::Text("of")).unwrap_err();
        assert!(kind == Kind::InvalidValue && why.contains("on, off"), "{why}");
        let mut short = Property::new("p", PropertyType::Text, false);
        short.text_bytes = 3;
        assert!(one(&mut out, &short, &Cell::Text("äx")).is_ok());
        assert_eq!(one(&mut out, &short, &Cell::Text("ää")).unwrap_err().0, Kind::TooLong);
    }
}
