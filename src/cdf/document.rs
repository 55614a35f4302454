//! A parsed JSON document whose outer levels can be inspected. Numbers keep all their digits, and deeper levels stay text.
//! So everything that CDF holds can be read, and deep nesting uses no stack.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Index, IndexMut};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// How many levels of objects and arrays are parsed: those of CDF's answers, and one level of a value in them.
const LEVELS: usize = 7;

#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    /// The number as it was written.
    Number(Box<str>),
    String(String),
    Array(Vec<Value>),
    Object(Map),
    /// The JSON of an array or object below the last level, or of a string that is not valid text, for example `"\ud800"`.
    Json(Box<str>),
}

/// The members of an object, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(Vec<(String, Value)>);

static NULL: Value = Value::Null;

/// Reads a document.
///
/// # Errors
/// If the bytes are not JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    // This checks every byte once and uses no stack.
    let document: &RawValue = serde_json::from_slice(bytes)?;
    Ok(Parser { text: document.get(), at: 0 }.value(LEVELS))
}

/// The value of a member of a document that is an object.
pub fn member(value: &RawValue) -> Value {
    Parser { text: value.get(), at: 0 }.value(LEVELS - 1)
}

/// Parses a text that is known to be JSON.
struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or_default()
    }

    fn value(&mut self, levels: usize) -> Value {
        match self.peek() {
            b'"' => {
                let text = self.string();
                decoded(text).map_or_else(|| Value::Json(text.into()), Value::String)
            }
            b'{' if levels > 0 => Value::Object(self.object(levels)),
            b'[' if levels > 0 => Value::Array(self.array(levels)),
            b'{' | b'[' => Value::Json(self.nested().into()),
            b't' => self.word(Value::Bool(true)),
            b'f' => self.word(Value::Bool(false)),
            b'n' => self.word(Value::Null),
            _ => Value::Number(self.scalar().into()),
        }
    }

    fn object(&mut self, levels: usize) -> Map {
        let mut members = Vec::new();
        self.at += 1;
        while self.peek() == b'"' {
            let name = self.string();
            // A name that is not valid text is kept as it is written.
            let name = decoded(name).unwrap_or_else(|| name[1..name.len() - 1].to_owned());
            self.peek();
            // The colon.
            self.at += 1;
            members.push((name, self.value(levels - 1)));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Map(members)
    }

    fn array(&mut self, levels: usize) -> Vec<Value> {
        let mut elements = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), b']' | 0) {
            elements.push(self.value(levels - 1));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        elements
    }

    /// The string that begins here, including its quotes.
    fn string(&mut self) -> &'t str {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(end) = memchr::memchr2(b'"', b'\\', bytes.get(self.at..).unwrap_or_default()) {
            self.at += end + 1;
            if bytes[self.at - 1] == b'"' {
                return &self.text[start..self.at];
            }
            self.at += 1;
        }
        self.at = bytes.len();
        &self.text[start..]
    }

    /// The object or array that begins here.
    fn nested(&mut self) -> &'t str {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        &self.text[start..self.at]
    }

    fn scalar(&mut self) -> &'t str {
        let start = self.at;
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    fn word(&mut self, value: Value) -> Value {
        self.scalar();
        value
    }
}

/// The text of a JSON string; None if it has an unpaired surrogate, which no text can hold.
fn decoded(string: &str) -> Option<String> {
    if string.contains('\\') {
        serde_json::from_str(string).ok()
    } else {
        Some(string[1..string.len() - 1].to_owned())
    }
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if it is written as a 64-bit integer.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&Vec<Value>> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements of an array, at any level.
    pub fn elements(&self) -> Option<Cow<'_, [Value]>> {
        match self {
            Value::Array(elements) => Some(Cow::Borrowed(elements)),
            Value::Json(text) if text.starts_with('[') => Some(Cow::Owned(Parser { text, at: 0 }.array(1))),
            _ => None,
        }
    }

    /// The value as serde_json's, for values that CDF itself writes. Deeper levels, and numbers and texts that it cannot hold,
    /// become null.
    pub fn plain(&self) -> serde_json::Value {
        match self {
            Value::Null | Value::Json(_) => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(digits) => serde_json::from_str(digits).unwrap_or_default(),
            Value::String(text) => text.as_str().into(),
            Value::Array(elements) => elements.iter().map(Value::plain).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), value.plain())).collect()
            }
        }
    }

    /// Takes the value and leaves null.
    pub fn take(&mut self) -> Value {
        std::mem::take(self)
    }
}

impl fmt::Display for Value {
    /// The value as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
            f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
        }
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(text) | Value::Json(text) => f.write_str(text),
            Value::String(text) => string(f, text),
            Value::Array(elements) => {
                f.write_str("[")?;
                for (at, element) in elements.iter().enumerate() {
                    f.write_str(if at > 0 { "," } else { "" })?;
                    element.fmt(f)?;
                }
                f.write_str("]")
            }
            Value::Object(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    f.write_str(if at > 0 { "," } else { "" })?;
                    string(f, name)?;
                    f.write_str(":")?;
                    value.fmt(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::String(text) => serializer.serialize_str(text),
            other => RawValue::from_string(other.to_string())
                .map_err(serde::ser::Error::custom)?
                .serialize(serializer),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.to_string().into())
    }
}

impl Index<&str> for Value {
    type Output = Value;

    /// Null if there is no such member.
    fn index(&self, name: &str) -> &Value {
        self.as_object().map_or(&NULL, |map| &map[name])
    }
}

impl IndexMut<&str> for Value {
    /// Creates the member, and the object itself, if missing.
    fn index_mut(&mut self, name: &str) -> &mut Value {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        match self {
            Value::Object(map) => map.entry(name),
            _ => unreachable!("it was made an object"),
        }
    }
}

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// As `get`, but faster if the members are asked for roughly in their order: `place` is where the last one was found.
    pub fn get_next(&self, name: &str, place: &mut usize) -> Option<&Value> {
        let (before, behind) = self.0.split_at((*place + 1).min(self.0.len()));
        let at = behind.iter().position(|(known, _)| known == name).map(|at| at + before.len());
        *place = at.or_else(|| before.iter().position(|(known, _)| known == name))?;
        self.0.get(*place).map(|(_, value)| value)
    }

    fn entry(&mut self, name: &str) -> &mut Value {
        let at = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Value::Null));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub fn insert(&mut self, name: &str, value: Value) {
        *self.entry(name) = value;
    }

    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Index<&str> for Map {
    type Output = Value;

    /// Null if there is no such member.
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&NULL)
    }
}

impl FromIterator<(String, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Map {
        Map(members.into_iter().collect())
    }
}

impl<'m> IntoIterator for &'m Map {
    type Item = (&'m String, &'m Value);
    type IntoIter =
        std::iter::Map<std::slice::Iter<'m, (String, Value)>, fn(&'m (String, Value)) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cdf::fuzz::{config, is_json, sent};

    #[test]
    fn documents_are_printed_as_they_were() {
        for text in [
            r#"{"a":[1,1.10,-0,1E5,1e400,89314404000123456789,true,false,null,"x"],"b":{"c":{}},"d":[]}"#,
            r#"{"a":"quote \" and \\","ü":"日本","":""}"#,
            r#"["\ud800"]"#,
            "7",
            "\"text\"",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
        let spaced = " { \"a\" : [ 1 , { \"b\" : \"}\" } ] , \"c\" : null } ";
        assert_eq!(parse(spaced.as_bytes()).unwrap().to_string(), r#"{"a":[1,{"b":"}"}],"c":null}"#);
    }

    #[test]
    fn no_nesting_is_too_deep() {
        for (open, close) in [("[", "]"), ("{\"a]}\\\"\":", "}")] {
            let text = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
        let value = parse(b"[[[[[[[[1,[2],\"x\"]]]]]]]]").unwrap();
        let inner = (0..6).fold(&value, |value, _| &value.as_array().unwrap()[0]);
        let inner = &inner.as_array().unwrap()[0];
        assert!(matches!(inner, Value::Json(text) if &**text == "[1,[2],\"x\"]"), "{inner:?}");
        assert_eq!(inner.elements().unwrap().len(), 3);
    }

    #[test]
    fn broken_documents_are_refused() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "\"", "nul", "1 2", "[\"\\x\"]", "\u{1}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn members_are_found_and_changed() {
        let mut value = parse(br#"{"id": 5, "name": "x", "in": {"a": 1.0}}"#).unwrap();
        assert_eq!(value["id"].as_i64(), Some(5));
        assert_eq!((value["in"]["a"].as_i64(), value["none"]["a"].as_i64()), (None, None));
        value["in"]["b"] = "y".into();
        value["new"]["c"] = 7.into();
        assert_eq!(value.to_string(), r#"{"id":5,"name":"x","in":{"a":1.0,"b":"y"},"new":{"c":7}}"#);
        let map = value.as_object().unwrap();
        let mut place = 0;
        for name in ["name", "in", "id", "new", "none", "name"] {
            assert_eq!(map.get_next(name, &mut place), map.get(name), "{name}");
        }
        let request = serde_json::json!({ "id": value["id"], "in": value["in"] }).to_string();
        assert_eq!(request, r#"{"id":5,"in":{"a":1.0,"b":"y"}}"#);
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_document_keeps_what_was_read(bytes in sent()) {
            let read = parse(&bytes);
            // Valid text apart, both see JSON in the same bytes.
            prop_assert_eq!(read.is_ok(), is_json(&bytes) && std::str::from_utf8(&bytes).is_ok());
            if let Ok(document) = read {
                let again = parse(document.to_string().as_bytes());
                prop_assert!(again.is_ok_and(|again| again == document), "{}", bytes.escape_ascii());
            }
        }
    }
}
