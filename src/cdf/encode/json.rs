//! Writes and reads pieces of JSON.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::cdf::cell::{Cell, EPOCH_MILLIS};
use crate::cdf::error::Kind;

/// Why a value cannot be written.
pub type Refusal = (Kind, String);

/// Appends a value's JSON. Only for values that always have one: text, numbers, booleans.
pub fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a Vec takes every byte, and these types have JSON");
}

/// Appends a text's JSON. Nearly no text needs escaping, and checking that is much faster than escaping it.
#[inline(always)]
pub fn text(out: &mut Vec<u8>, text: &str) {
    if !is_plain(text.as_bytes()) {
        return write(out, text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Checks whether a text needs no escaping. It looks at eight bytes at a time: most texts are too short for vector
/// instructions.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // The highest bit of a byte is set if the byte is zero. It may also be set in a byte after a zero byte, which does not
    // change the result.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let special = |word: u64| {
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        (control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))) != 0
    };
    let plain = |word: &[u8; 8]| !special(u64::from_le_bytes(*word));
    match bytes.last_chunk() {
        // The last word overlaps the previous one.
        Some(last) => bytes.as_chunks().0.iter().all(plain) && plain(last),
        None => bytes.iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\'),
    }
}

/// The most levels of nesting in a JSON value that is written. Readers have limits too, on a whole request or answer:
/// usually 128 or 1000 levels.
pub const LEVELS: usize = 100;

/// Checks the nesting of a document. The document is known to be JSON, or is parsed afterwards.
pub fn check_depth(document: &str) -> Result<(), Refusal> {
    // Each level takes at least two bytes.
    if document.len() < 2 * (LEVELS + 1) {
        return Ok(());
    }
    let (mut levels, mut most, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in document.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                levels += 1;
                most = most.max(levels);
            }
            b'}' | b']' => levels = levels.saturating_sub(1),
            _ => {}
        }
    }
    if most > LEVELS {
        let why = format!(
            "the JSON value is nested {most} levels deep; {LEVELS} levels are the most that is written"
        );
        Err((Kind::InvalidValue, why))
    } else {
        Ok(())
    }
}

/// Appends a JSON value without the members that are null, at any depth: CDF refuses them where an absent member says the
/// same. Everything else is copied.
pub fn without_nulls(out: &mut Vec<u8>, value: &RawValue) -> Result<(), serde_json::Error> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            out.push(b'{');
            let members: Properties = serde_json::from_str(text)?;
            let mut first = true;
            for (name, value) in members.0.iter().filter(|(_, value)| value.get() != "null") {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                write(out, &**name);
                out.push(b':');
                without_nulls(out, value)?;
            }
            out.push(b'}');
        }
        Some(b'[') => {
            out.push(b'[');
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            for (at, element) in elements.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                without_nulls(out, element)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// Formats microseconds since 1970 as text like `2024-01-31T12:00:00.000000Z`.
pub fn iso8601(micros: i128) -> Result<String, Refusal> {
    iso8601_digits(micros).map(|text| text.map(char::from).iter().collect())
}

fn iso8601_digits(micros: i128) -> Result<[u8; 27], Refusal> {
    let refused = || (Kind::OutOfRange, "ISO 8601 has four digits for the year, 0000 to 9999".to_owned());
    let micros = i64::try_from(micros).map_err(|_| refused())?;
    let moment = OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000)).map_err(|_| refused())?;
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    let year = u32::try_from(year).ok().filter(|year| *year <= 9999).ok_or_else(refused)?;
    let micros = micros.rem_euclid(1_000_000) as u32;
    // Two digits at a time, at positions known to the compiler: a general formatter, or a loop over digits, would take most
    // of the time of a row with two timestamps.
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, value: u32| {
        text[at] += (value / 10) as u8;
        text[at + 1] += (value % 10) as u8;
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, u32::from(u8::from(month)));
    put(8, u32::from(day));
    put(11, u32::from(hour));
    put(14, u32::from(minute));
    put(17, u32::from(second));
    put(20, micros / 10_000);
    put(22, micros / 100 % 100);
    put(24, micros % 100);
    Ok(text)
}

/// Formats the timestamp of a cell.
pub fn moment(micros: i64) -> Result<String, Refusal> {
    iso8601(since_1970(micros))
}

/// Converts the timestamp of a cell to microseconds since 1970.
fn since_1970(micros: i64) -> i128 {
    i128::from(micros) + i128::from(EPOCH_MILLIS) * 1000
}

/// Appends any cell as a JSON value of its own kind, as RAW columns take it.
pub fn value(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(value) => write(out, value),
        Cell::Int(value) => write(out, value),
        Cell::Float(value) if value.is_finite() => write(out, value),
        Cell::Float(value) => return Err((Kind::OutOfRange, format!("JSON has no {value}"))),
        Cell::Number(digits) => {
            if digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.')) {
                out.extend_from_slice(digits.as_bytes())
            } else {
                return Err((Kind::OutOfRange, format!("JSON has no {digits}")));
            }
        }
        Cell::Text(value) => text(out, value),
        Cell::Timestamp(micros) => {
            let digits = iso8601_digits(since_1970(*micros))?;
            out.push(b'"');
            out.extend_from_slice(&digits);
            out.push(b'"');
        }
        Cell::Json(document) => {
            check_depth(document)?;
            out.extend_from_slice(document.as_bytes());
        }
        Cell::Pairs(pairs) => metadata_pairs(out, pairs),
        Cell::Bytes(bytes) => text(out, &base64(bytes)),
        Cell::List(cells) => {
            out.push(b'[');
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                value(out, cell)?;
            }
            out.push(b']');
        }
    }
    Ok(())
}

/// Decodes a base64 text, as [`value`] writes it.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A string that borrows from the document if it has no escapes.
#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// The sizes of a metadata object, as CDF counts them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MetadataSize {
    pub pairs: usize,
    pub longest_key: usize,
    pub longest_value: usize,
    pub total: usize,
}

impl MetadataSize {
    /// Counts a pair; `key` and `value` are its lengths in bytes.
    fn add(&mut self, key: usize, value: usize) {
        self.pairs += 1;
        self.longest_key = self.longest_key.max(key);
        self.longest_value = self.longest_value.max(value);
        self.total += key + value;
    }
}

/// Returns the size of pairs as metadata.
pub fn metadata_size(pairs: &[(&str, &str)]) -> MetadataSize {
    let mut size = MetadataSize::default();
    pairs.iter().for_each(|(key, value)| size.add(key.len(), value.len()));
    size
}

/// Appends pairs as metadata.
pub fn metadata_pairs(out: &mut Vec<u8>, pairs: &[(&str, &str)]) {
    out.push(b'{');
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(out, key);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
}

/// The fast path of [`metadata`], which looks at each byte once. The document must be valid JSON. Returns None, with nothing
/// appended, unless it holds only texts without escapes, numbers, booleans and nulls.
fn flat_metadata(out: &mut Vec<u8>, document: &str) -> Option<MetadataSize> {
    let start = out.len();
    let size = flat_pairs(out, document);
    if size.is_none() {
        out.truncate(start);
    }
    size
}

fn flat_pairs(out: &mut Vec<u8>, document: &str) -> Option<MetadataSize> {
    /// Splits what follows an opening quote at the closing one.
    fn quoted(rest: &str) -> Option<(&str, &str)> {
        let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
        (rest.as_bytes()[end] == b'"').then(|| (&rest[..end], &rest[end + 1..]))
    }
    let mut size = MetadataSize::default();
    let mut rest = document.trim_ascii().strip_prefix('{')?.strip_suffix('}')?.trim_ascii_start();
    out.push(b'{');
    while !rest.is_empty() {
        let (key, behind) = quoted(rest.strip_prefix('"')?)?;
        let value = behind.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let text = value.strip_prefix('"');
        let (value, behind) = match text {
            Some(text) => quoted(text)?,
            None if value.starts_with(['{', '[']) => return None,
            None => {
                let end = memchr::memchr(b',', value.as_bytes()).unwrap_or(value.len());
                let (scalar, behind) = value.split_at(end);
                (scalar.trim_ascii_end(), behind)
            }
        };
        if text.is_some() || value != "null" {
            let separator: &[u8] = if size.pairs > 0 { b",\"" } else { b"\"" };
            for piece in [separator, key.as_bytes(), b"\":\"", value.as_bytes(), b"\""] {
                out.extend_from_slice(piece);
            }
            size.add(key.len(), value.len());
        }
        rest = behind.trim_ascii_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_ascii_start();
        }
    }
    out.push(b'}');
    Some(size)
}

/// Appends a JSON object as metadata. Values that are not strings become their JSON text, and nulls are left out. `valid`:
/// the document is known to be JSON.
pub fn metadata(out: &mut Vec<u8>, document: &str, valid: bool) -> Result<MetadataSize, Refusal> {
    if let Some(size) = if valid { flat_metadata(out, document) } else { None } {
        return Ok(size);
    }
    let mut deserializer = serde_json::Deserializer::from_str(document);
    MetadataWriter { out }
        .deserialize(&mut deserializer)
        .and_then(|size| deserializer.end().map(|()| size))
        .map_err(|error| (Kind::InvalidValue, format!("metadata must be a JSON object ({error})")))
}

struct MetadataWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MetadataWriter<'_> {
    type Value = MetadataSize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataWriter<'_> {
    type Value = MetadataSize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataSize, A::Error> {
        let mut size = MetadataSize::default();
        self.out.push(b'{');
        while let Some(BorrowedText(key)) = map.next_key::<BorrowedText<'de>>()? {
            let raw = map.next_value::<&'de RawValue>()?.get();
            if raw == "null" {
                continue;
            }
            if size.pairs > 0 {
                self.out.push(b',');
            }
            write(self.out, &*key);
            self.out.push(b':');
            let bytes = if !raw.starts_with('"') {
                write(self.out, raw);
                raw.len()
            } else {
                self.out.extend_from_slice(raw.as_bytes());
                if raw.contains('\\') {
                    serde_json::from_str::<BorrowedText>(raw).map_err(serde::de::Error::custom)?.0.len()
                } else {
                    raw.len() - 2
                }
            };
            size.add(key.len(), bytes);
        }
        self.out.push(b'}');
        Ok(size)
    }
}

/// The members of an object, in order, each value as its JSON.
#[derive(Debug, Default, Clone)]
pub struct Properties<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Properties<'a> {
    /// Parses an object that this crate has written.
    pub fn parse(fragment: &'a [u8]) -> Result<Self, crate::cdf::error::Error> {
        serde_json::from_slice(fragment).map_err(|error| {
            crate::cdf::error::Error::internal(format!("an encoded row is not JSON: {error}"))
        })
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(property, _)| property == name).map(|(_, value)| *value)
    }

    /// Appends the object.
    pub fn write(&self, out: &mut Vec<u8>) {
        Properties::write_members(out, self.0.iter().map(|(name, value)| (&**name, *value)));
    }

    /// Appends the object that has these members.
    pub fn write_members<'p>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'p str, &'p RawValue)>) {
        out.push(b'{');
        for (at, (property, value)) in members.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(out, property);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }
}

impl<'de> Deserialize<'de> for Properties<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Properties<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties<'de>, A::Error> {
                let mut properties = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some((BorrowedText(key), value)) =
                    map.next_entry::<BorrowedText<'de>, &'de RawValue>()?
                {
                    properties.push((key, value));
                }
                Ok(Properties(properties))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(document: &str) -> (String, MetadataSize) {
        let mut out = Vec::new();
        let size = metadata(&mut out, document, false).unwrap();
        let mut again = Vec::new();
        assert_eq!(metadata(&mut again, document, true).unwrap(), size, "{document}");
        assert_eq!(again, out, "{document}");
        (String::from_utf8(out).unwrap(), size)
    }

    #[test]
    fn metadata_values_become_text_and_nulls_are_left_out() {
        let (text, size) = written(r#"{"a": 1, "b": null, "c": {"x": [true]}, "d": "é\"", "e": 1.50}"#);
        assert_eq!(text, r#"{"a":"1","c":"{\"x\": [true]}","d":"é\"","e":"1.50"}"#);
        assert_eq!(
            size,
            MetadataSize { pairs: 4, longest_key: 1, longest_value: 13, total: 4 + 1 + 13 + 3 + 4 }
        );
        assert_eq!(written("{}").0, "{}");
    }

    #[test]
    fn metadata_must_be_an_object() {
        for document in ["[1]", "1", "\"x\"", "{\"a\":1} x", "{"] {
            let error = metadata(&mut Vec::new(), document, false).unwrap_err();
            assert_eq!(error.0, Kind::InvalidValue, "{document}");
        }
    }

    #[test]
    fn raw_values_keep_their_kind() {
        let cells = [
            (Cell::Null, "null"),
            (Cell::Bool(true), "true"),
            (Cell::Int(-5), "-5"),
            (Cell::Float(0.1), "0.1"),
            (Cell::Number("123456789012345678901234567890.5"), "123456789012345678901234567890.5"),
            (Cell::Text("a\"\n"), r#""a\"\n""#),
            (Cell::Timestamp(1_000_000), "\"2000-01-01T00:00:01.000000Z\""),
            (Cell::Json("{\"a\": 1}"), "{\"a\": 1}"),
            (Cell::Bytes(&[1, 2, 255]), "\"AQL/\""),
            (Cell::List(&[Cell::Int(1), Cell::Null]), "[1,null]"),
        ];
        for (cell, expected) in cells {
            let mut out = Vec::new();
            value(&mut out, &cell).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        for cell in
            [Cell::Float(f64::NAN), Cell::Float(f64::INFINITY), Cell::Number("NaN"), Cell::Number("Infinity")]
        {
            assert_eq!(value(&mut Vec::new(), &cell).unwrap_err().0, Kind::OutOfRange);
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check_depth(&nested(LEVELS)), Ok(()));
        let (kind, why) = check_depth(&nested(LEVELS + 1)).unwrap_err();
        assert!(kind == Kind::InvalidValue && why.contains("101 levels") && why.contains("100"), "{why}");
        assert_eq!(check_depth(&format!("[{}]", vec!["[]"; 500].join(","))), Ok(()));
        assert_eq!(
            check_depth(&format!("{{\"\\\"{}\": \"{}\\\\\"}}", "[".repeat(300), "{".repeat(300))),
            Ok(())
        );
    }

    #[test]
    fn nulls_go_and_all_else_stays() {
        let written = |text: &str| {
            let mut out = Vec::new();
            without_nulls(&mut out, serde_json::from_str(text).unwrap()).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(r#"{"a": null, "b": [1.10, null, {"c": null, "d": 12345678901234567890}], "e": {}}"#),
            r#"{"b":[1.10,null,{"d":12345678901234567890}],"e":{}}"#
        );
    }

    #[test]
    fn known_documents_are_written_as_others_are() {
        for document in [
            "{}",
            " { } ",
            r#"{"a": "1"}"#,
            r#"{"a": "1", "b": 2, "c": null, "d": true, "e": -1.5e3}"#,
            "{\"a\" :\t\"x,}]\" ,\n\"b\":null , \"null\": \"null\"}",
            r#"{"a": {"b": [1, 2]}, "c": "d"}"#,
            r#"{"a": [1, {"x": "}"}], "c": 1}"#,
            r#"{"a": "\"", "b": "\\"}"#,
            r#"{"ü": "日本", "": ""}"#,
            r#"{"last": []}"#,
        ] {
            let (mut known, mut other) = (Vec::new(), Vec::new());
            let sizes = (metadata(&mut known, document, true), metadata(&mut other, document, false));
            assert_eq!(sizes.0.unwrap(), sizes.1.unwrap(), "{document}");
            assert_eq!(String::from_utf8(known), String::from_utf8(other), "{document}");
        }
    }

    #[test]
    fn pairs_are_written_as_their_document_is() {
        let (mut out, mut document) = (Vec::new(), Vec::new());
        let pairs = [("a", "1"), ("ü\"", "\n")];
        metadata_pairs(&mut out, &pairs);
        assert_eq!(metadata_size(&pairs), metadata(&mut document, r#"{"a": 1, "ü\"": "\n"}"#, true).unwrap());
        assert_eq!(out, document);
    }

    #[test]
    fn a_text_is_written_as_the_library_does() {
        for string in [
            "",
            "plain",
            "ü and 日本",
            "\"",
            "a\\b",
            "\n",
            "\u{1f}",
            "\u{7f}",
            &"x".repeat(100),
            &format!("{}\"", "y".repeat(40)),
        ] {
            let (mut own, mut library) = (Vec::new(), Vec::new());
            text(&mut own, string);
            write(&mut library, string);
            assert_eq!(own, library);
        }
    }
}
