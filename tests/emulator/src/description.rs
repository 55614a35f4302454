//! The limits in CDF's published description of requests, checked before a resource sees the request.
//!
//! They are facts in `description/limits.json`, extracted by `description/extract.py`. Where recordings of CDF
//! contradict them, the recordings count: `description/exceptions.json` changes the table, and names the evidence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use axum::http::Method;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::reply::Request;

const LIMITS: &str = include_str!("../description/limits.json");
const EXCEPTIONS: &str = include_str!("../description/exceptions.json");

static TABLE: LazyLock<Table> = LazyLock::new(|| match Table::read(LIMITS, EXCEPTIONS) {
    Ok(table) => table,
    Err(what) => unreachable!("the table of limits is part of the program: {what}"),
});

/// All operations, and the schemas that several of them share.
struct Table {
    operations: Vec<Operation>,
    schemas: HashMap<String, Schema>,
    patterns: HashMap<String, Regex>,
}

/// One operation, as the table has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    body: Option<Schema>,
    #[serde(default)]
    query: BTreeMap<String, Schema>,
    #[serde(default)]
    path: BTreeMap<String, Schema>,
}

struct Operation {
    method: String,
    /// A name in braces stands for any segment.
    segments: Vec<String>,
    limits: Limits,
}

/// What a value may be; the words are explained in `description/extract.py`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Schema {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    null: bool,
    #[serde(rename = "enum")]
    one_of: Option<Vec<Value>>,
    not: Vec<String>,
    pattern: Option<String>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    items: Option<Box<Schema>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    unique_items: bool,
    fields: BTreeMap<String, Schema>,
    required: Vec<String>,
    values: Option<Box<Schema>>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    key_bytes: Option<usize>,
    total_bytes: Option<usize>,
    any: Option<Vec<Schema>>,
    #[serde(rename = "ref")]
    reference: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
}

impl Kind {
    fn of(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// Why a value does not fit. It is not a text yet, because most of several alternatives do not fit.
#[derive(Debug)]
struct Fault<'a> {
    /// The field, or the one that contains it.
    name: &'a str,
    what: What<'a>,
}

#[derive(Debug)]
enum What<'a> {
    Null,
    Missing(&'a str),
    Unknown(&'a str),
    Kind(Kind),
    /// Characters of a text, elements of a list, pairs of an object.
    Size {
        min: usize,
        max: Option<usize>,
        got: usize,
        of: &'static str,
    },
    Below(&'a serde_json::Number),
    Above(&'a serde_json::Number),
    Enum(&'a [Value]),
    Pattern(&'a str),
    Twice,
    KeyBytes(usize, usize),
    TotalBytes(usize, usize),
    /// The value has none of several types.
    Neither,
}

impl From<Fault<'_>> for ApiError {
    fn from(Fault { name, what }: Fault<'_>) -> Self {
        let text = match what {
            What::Null => return Self::null_value(),
            What::Missing(field) => format!("Missing required field: {field}"),
            What::Unknown(field) => format!("Unknown field '{field}' in {name}"),
            What::Kind(kind) => format!("{name}: expected {}", kind.name()),
            What::Size { min, max: Some(max), got, of } => {
                format!("{name}: size must be between {min} and {max}{of}, got {got}")
            }
            What::Size { min, max: None, got, of } => {
                format!("{name}: size must be at least {min}{of}, got {got}")
            }
            What::Below(least) => format!("{name} must be greater than or equal to {least}"),
            What::Above(most) => format!("{name} must be less than or equal to {most}"),
            What::Enum(values) => {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                    .collect();
                format!("{name}: expected one of {}", values.join(", "))
            }
            What::Pattern(text) => format!("{name} '{text}' does not match the expected pattern"),
            What::Twice => format!("{name}: must be unique"),
            What::KeyBytes(most, got) => format!("{name}: keys must be at most {most} bytes, got {got}"),
            What::TotalBytes(most, got) => {
                format!("{name}: the total size must be at most {most} bytes, got {got}")
            }
            What::Neither => format!("{name}: the value has none of the expected types"),
        };
        Self::bad_request(text)
    }
}

type Checked<'a> = Result<(), Fault<'a>>;

/// Checks a request against the description. Operations that the description lacks, and bodies that are not JSON, pass:
/// their handlers report what is wrong with them.
pub fn check(request: &Request) -> Result<(), ApiError> {
    let Some((operation, names)) = TABLE.find(&request.method, &request.segments) else {
        return Ok(());
    };
    for (name, text) in &names {
        if let Some(schema) = operation.limits.path.get(*name) {
            TABLE.check_text(schema, name, text)?;
        }
    }
    for (name, text) in &request.query {
        match operation.limits.query.get(name) {
            Some(schema) => TABLE.check_text(schema, name, text)?,
            None => return Err(ApiError::bad_request(format!("Unknown query parameter '{name}'"))),
        }
    }
    match (&operation.limits.body, &request.parsed) {
        (Some(schema), Some(body @ Value::Object(_))) => Ok(TABLE.check(schema, "the request", body)?),
        _ => Ok(()),
    }
}

/// Whether the bodies of a request are checked, and so have to be parsed.
pub fn has_body(method: &Method, segments: &[String]) -> bool {
    TABLE.find(method, segments).is_some_and(|(operation, _)| operation.limits.body.is_some())
}

impl Table {
    fn read(limits: &str, exceptions: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Read {
            operations: BTreeMap<String, Limits>,
            schemas: HashMap<String, Schema>,
        }
        let mut table: Value = serde_json::from_str(limits).map_err(|error| error.to_string())?;
        let exceptions: Vec<Exception> =
            serde_json::from_str(exceptions).map_err(|error| error.to_string())?;
        for exception in &exceptions {
            exception.apply(&mut table)?;
        }
        let read = Read::deserialize(table).map_err(|error| error.to_string())?;
        let operations = read
            .operations
            .into_iter()
            .filter_map(|(name, limits)| {
                let (method, path) = name.split_once(" /")?;
                let segments = path.split('/').map(str::to_owned).collect();
                Some(Operation { method: method.to_owned(), segments, limits })
            })
            .collect();
        let mut table = Self { operations, schemas: read.schemas, patterns: HashMap::new() };
        let mut patterns = HashSet::new();
        let limits = table.operations.iter().flat_map(|operation| {
            let Limits { body, query, path } = &operation.limits;
            body.iter().chain(query.values()).chain(path.values())
        });
        limits.chain(table.schemas.values()).for_each(|schema| schema.patterns(&mut patterns));
        for pattern in patterns {
            let regex = Regex::new(&pattern).map_err(|error| error.to_string())?;
            table.patterns.insert(pattern, regex);
        }
        Ok(table)
    }

    /// Returns the operation of a request, and the values of the names in braces in its path.
    fn find<'a>(
        &'a self,
        method: &Method,
        segments: &'a [String],
    ) -> Option<(&'a Operation, Vec<(&'a str, &'a str)>)> {
        // A literal path takes precedence over one with a name.
        let fits = |operation: &&Operation| {
            operation.method == method.as_str()
                && operation.segments.len() == segments.len()
                && operation
                    .segments
                    .iter()
                    .zip(segments)
                    .all(|(is, given)| is.starts_with('{') || is == given)
        };
        let named = |operation: &&Operation| {
            operation.segments.iter().filter(|segment| segment.starts_with('{')).count()
        };
        let found = self.operations.iter().filter(fits).min_by_key(named)?;
        let name = |segment: &'a String| segment.strip_prefix('{')?.strip_suffix('}');
        let names =
            found.segments.iter().zip(segments).filter_map(|(is, given)| Some((name(is)?, given.as_str())));
        Some((found, names.collect()))
    }

    fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema.reference.as_ref().and_then(|name| self.schemas.get(name)) {
            Some(schema) => self.resolve(schema),
            None => schema,
        }
    }

    /// Checks a text in a URL. Lists have other forms there, which their handlers know.
    fn check_text(&self, schema: &Schema, name: &str, text: &str) -> Result<(), ApiError> {
        let schema = self.resolve(schema);
        let value = match schema.kind {
            Some(Kind::Integer | Kind::Number | Kind::Boolean) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
            }
            Some(Kind::String) => Value::from(text),
            _ => return Ok(()),
        };
        Ok(self.check(schema, name, &value)?)
    }

    fn check<'a>(&'a self, schema: &'a Schema, name: &'a str, value: &'a Value) -> Checked<'a> {
        let null = schema.null;
        let schema = self.resolve(schema);
        let fault = |what| Err(Fault { name, what });
        if value.is_null() {
            let anything = schema.kind.is_none() && schema.any.is_none() && schema.one_of.is_none();
            let of_any = || schema.any.iter().flatten().any(|of| self.check(of, name, value).is_ok());
            return if null || schema.null || anything || of_any() { Ok(()) } else { fault(What::Null) };
        }
        if let Some(any) = &schema.any {
            return self.check_any(any, name, value);
        }
        if let Some(kind) = schema.kind.filter(|kind| !kind.of(value)) {
            return fault(What::Kind(kind));
        }
        if let Some(values) = schema.one_of.as_deref().filter(|values| !values.contains(value)) {
            return fault(What::Enum(values));
        }
        match value {
            Value::String(text) => schema.check_text(self, name, text),
            Value::Number(number) => schema.check_number(name, number),
            Value::Array(list) => self.check_list(schema, name, list),
            Value::Object(object) => self.check_object(schema, name, object),
            _ => Ok(()),
        }
    }

    fn check_any<'a>(&'a self, any: &'a [Schema], name: &'a str, value: &'a Value) -> Checked<'a> {
        if any.iter().any(|schema| self.check(schema, name, value).is_ok()) {
            return Ok(());
        }
        // The error is that of the alternative that was most likely meant.
        let of_kind = |schema: &&Schema| self.resolve(schema).kind.is_none_or(|kind| kind.of(value));
        let strangeness = |schema: &&Schema| {
            let schema = self.resolve(schema);
            let object = value.as_object();
            let unknown =
                object.into_iter().flatten().filter(|(key, _)| !schema.fields.contains_key(*key)).count();
            let missing = schema
                .required
                .iter()
                .filter(|field| object.is_some_and(|o| !o.contains_key(*field)))
                .count();
            let other = schema.fields.iter().filter(|(field, of)| {
                let given = object.and_then(|object| object.get(*field));
                given.is_some_and(|given| of.one_of.as_ref().is_some_and(|values| !values.contains(given)))
            });
            other.count() * 100 + unknown + missing
        };
        match any.iter().filter(of_kind).min_by_key(strangeness) {
            Some(meant) => self.check(meant, name, value),
            None => Err(Fault { name, what: What::Neither }),
        }
    }

    fn check_list<'a>(&'a self, schema: &'a Schema, name: &'a str, list: &'a [Value]) -> Checked<'a> {
        schema.check_size(name, list.len(), (schema.min_items, schema.max_items), "")?;
        if let Some(of) = &schema.items {
            list.iter().try_for_each(|value| self.check(of, name, value))?;
        }
        let mut seen = HashSet::new();
        if schema.unique_items && !list.iter().all(|value| seen.insert(value.to_string())) {
            Err(Fault { name, what: What::Twice })
        } else {
            Ok(())
        }
    }

    fn check_object<'a>(
        &'a self,
        schema: &'a Schema,
        name: &'a str,
        object: &'a Map<String, Value>,
    ) -> Checked<'a> {
        let fault = |what| Err(Fault { name, what });
        let given = |field: &str| object.get(field).is_some_and(|value| !value.is_null());
        if let Some(missing) = schema.required.iter().find(|field| !given(field)) {
            return fault(if object.contains_key(missing) { What::Null } else { What::Missing(missing) });
        }
        schema.check_size(name, object.len(), (schema.min_properties, schema.max_properties), " pairs")?;
        let mut total = 0;
        for (key, value) in object {
            match schema.fields.get(key).or(schema.values.as_deref()) {
                Some(of) => self.check(of, key, value)?,
                // The handler decides about an object that the description does not specify.
                None if schema.kind.is_none() => {}
                None => return fault(What::Unknown(key)),
            }
            if let Some(most) = schema.key_bytes.filter(|most| key.len() > *most) {
                return fault(What::KeyBytes(most, key.len()));
            }
            total += key.len() + value.as_str().map_or(0, str::len);
        }
        match schema.total_bytes.filter(|most| total > *most) {
            Some(most) => fault(What::TotalBytes(most, total)),
            None => Ok(()),
        }
    }
}

impl Schema {
    fn patterns(&self, found: &mut HashSet<String>) {
        found.extend(self.pattern.clone());
        let inner = self.items.iter().chain(self.values.iter()).map(AsRef::as_ref);
        let inner = inner.chain(self.fields.values()).chain(self.any.iter().flatten());
        inner.for_each(|schema| schema.patterns(found));
    }

    fn check_size<'a>(
        &self,
        name: &'a str,
        got: usize,
        (min, max): (Option<usize>, Option<usize>),
        of: &'static str,
    ) -> Checked<'a> {
        let min = min.unwrap_or(0);
        if got < min || max.is_some_and(|max| got > max) {
            Err(Fault { name, what: What::Size { min, max, got, of } })
        } else {
            Ok(())
        }
    }

    fn check_text<'a>(&'a self, table: &Table, name: &'a str, text: &'a str) -> Checked<'a> {
        let limits = (self.min_length, self.max_length);
        // Characters are code points, as in JSON Schema. A text has at most as many characters as bytes, so most texts
        // need not be counted.
        if limits.0.is_some_and(|min| min > 0) || limits.1.is_some_and(|max| text.len() > max) {
            self.check_size(name, text.chars().count(), limits, " characters")?;
        }
        let pattern = self.pattern.as_ref().and_then(|pattern| table.patterns.get(pattern));
        let fits = pattern.is_none_or(|pattern| pattern.is_match(text));
        if fits && !self.not.iter().any(|taken| taken == text) {
            Ok(())
        } else {
            Err(Fault { name, what: What::Pattern(text) })
        }
    }

    fn check_number<'a>(&'a self, name: &'a str, number: &serde_json::Number) -> Checked<'a> {
        let order = |bound: &serde_json::Number| match (number.as_i128(), bound.as_i128()) {
            (Some(number), Some(bound)) => number.partial_cmp(&bound),
            _ => number.as_f64().and_then(|number| number.partial_cmp(&bound.as_f64()?)),
        };
        match (&self.minimum, &self.maximum) {
            (Some(least), _) if order(least).is_none_or(|order| order.is_lt()) => {
                Err(Fault { name, what: What::Below(least) })
            }
            (_, Some(most)) if order(most).is_none_or(|order| order.is_gt()) => {
                Err(Fault { name, what: What::Above(most) })
            }
            _ => Ok(()),
        }
    }
}

/// A place where CDF deviates from its description.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    /// Operations, as the table names them.
    operations: Vec<String>,
    /// The place in the operation: `body.items.[].name`; `[]` are the elements of a list, `{}` the values of an object,
    /// `*` all fields, `?` the fields that are not required. It covers all alternatives.
    at: Vec<String>,
    /// The change of the schema there: a merge patch (RFC 7396).
    change: Value,
    /// How this is known.
    evidence: Evidence,
    /// What was seen.
    #[allow(dead_code, reason = "for readers of the file")]
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Evidence {
    /// Recorded from CDF.
    Recorded,
    /// The description says so in words beside the schema.
    Words,
    /// The official SDK sends it, to every CDF.
    Sdk,
}

impl Exception {
    fn apply(&self, table: &mut Value) -> Result<(), String> {
        let schemas = table["schemas"].clone();
        for operation in &self.operations {
            for at in &self.at {
                let mut changed = 0;
                let path: Vec<&str> = at.split('.').collect();
                let limits = &mut table["operations"][operation.as_str()];
                if let (Some(limits), [part, rest @ ..]) = (limits.as_object_mut(), path.as_slice()) {
                    match (*part, rest) {
                        ("query", [name]) => {
                            let of = limits.entry("query").or_insert_with(|| Value::Object(Map::new()));
                            merge(&mut of[*name], &self.change);
                            changed = 1;
                        }
                        ("body", rest) => {
                            changed = limits.get_mut("body").map_or(0, |body| self.at(&schemas, body, rest));
                        }
                        _ => {}
                    }
                }
                if changed == 0 {
                    return Err(format!(
                        "an exception finds nothing at {at} of {operation} ({:?})",
                        self.evidence
                    ));
                }
            }
        }
        Ok(())
    }

    /// Changes the schemas at a place below a schema, and returns how many. Shared schemas are copied into the
    /// operation first.
    fn at(&self, schemas: &Value, schema: &mut Value, path: &[&str]) -> usize {
        if let Some(name) = schema["ref"].as_str() {
            *schema = schemas[name].clone();
        }
        let Some((step, rest)) = path.split_first() else {
            merge(schema, &self.change);
            return 1;
        };
        if let Some(any) = schema.get_mut("any").and_then(Value::as_array_mut) {
            return any.iter_mut().map(|schema| self.at(schemas, schema, path)).sum();
        }
        let inner = match *step {
            "[]" => "items",
            "{}" => "values",
            _ => "fields",
        };
        let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
        let Some(inside) = schema.get_mut(inner) else { return 0 };
        if inner != "fields" {
            return self.at(schemas, inside, rest);
        }
        let wanted = |name: &str| match *step {
            "*" => true,
            "?" => !required.iter().any(|required| required == name),
            step => step == name,
        };
        let fields = inside.as_object_mut().into_iter().flatten().filter(|(name, _)| wanted(name));
        fields.map(|(_, schema)| self.at(schemas, schema, rest)).sum()
    }
}

/// RFC 7396: members replace others, null removes one.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (name, value) in patch {
        match (value.is_null(), into.as_object_mut()) {
            (true, Some(into)) => drop(into.shift_remove(name)),
            _ => merge(&mut into[name.as_str()], value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reply::Counts;

    fn request(method: Method, path: &str, query: &[(&str, &str)], body: Value) -> Request {
        Request {
            method,
            segments: path.split('/').map(str::to_owned).collect(),
            query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Vec::new(),
            parsed: Some(body),
            content_type: crate::reply::JSON.into(),
            accept: String::new(),
            counts: Counts::default(),
        }
    }

    fn post(path: &str, body: Value) -> Result<(), String> {
        check(&request(Method::POST, path, &[], body)).map_err(|error| error.message)
    }

    fn refused(path: &str, body: Value) -> String {
        post(path, body.clone()).expect_err(&body.to_string())
    }

    #[test]
    fn every_kind_of_limit_holds() {
        let asset = |asset: Value| json!({ "items": [asset] });
        let text = |length: usize| "ü".repeat(length);
        let many = |count: usize| -> Vec<Value> {
            (0..count).map(|at| json!({ "externalId": at.to_string() })).collect()
        };
        assert_eq!(post("assets", asset(json!({ "name": text(140), "labels": many(10) }))), Ok(()));
        for (wrong, why) in [
            (json!({}), "Missing required field: items"),
            (json!({ "items": [] }), "items: size must be between 1 and 1000, got 0"),
            (json!({ "items": 1 }), "items: expected an array"),
            (json!({ "items": [1] }), "items: expected an object"),
            (json!({ "items": [{ "name": "a" }], "more": 1 }), "Unknown field 'more' in the request"),
            (asset(json!({})), "Missing required field: name"),
            (asset(json!({ "name": null })), "`null` values aren't allowed."),
            (asset(json!({ "name": 1 })), "name: expected a string"),
            (asset(json!({ "name": "" })), "name: size must be between 1 and 140 characters, got 0"),
            (asset(json!({ "name": text(141) })), "name: size must be between 1 and 140 characters, got 141"),
            (asset(json!({ "name": "a", "x": 1 })), "Unknown field 'x' in items"),
            (asset(json!({ "name": "a", "parentId": 0 })), "parentId must be greater than or equal to 1"),
            (asset(json!({ "name": "a", "parentId": 1.5 })), "parentId: expected an integer"),
            (
                asset(json!({ "name": "a", "parentId": 9_007_199_254_740_992_i64 })),
                "parentId must be less than or equal to 9007199254740991",
            ),
            (
                asset(json!({ "name": "a", "labels": many(11) })),
                "labels: size must be between 0 and 10, got 11",
            ),
            (
                asset(json!({ "name": "a", "labels": [{ "externalId": "l" }, { "externalId": "l" }] })),
                "labels: must be unique",
            ),
            (asset(json!({ "name": "a", "metadata": { "k": 1 } })), "k: expected a string"),
            (
                asset(json!({ "name": "a", "metadata": { (text(65)): "v" } })),
                "metadata: keys must be at most 128 bytes, got 130",
            ),
            (
                asset(json!({ "name": "a", "metadata": { "a": text(2560), "b": text(2560) } })),
                "metadata: the total size must be at most 10240 bytes, got 10242",
            ),
        ] {
            assert_eq!(refused("assets", wrong), why);
        }
        let space = |space: &str| json!({ "items": [{ "space": space }] });
        assert_eq!(post("models/spaces", space("a-b_1")), Ok(()));
        for wrong in ["1a", "a ", "edge", &"a".repeat(44)] {
            assert!(refused("models/spaces", space(wrong)).starts_with("space"), "{wrong}");
        }
    }

    #[test]
    fn of_alternatives_the_one_that_was_meant_tells_what_is_wrong() {
        let feature = |geometry: Value| json!({ "items": [{ "name": "a", "geoLocation": { "type": "Feature", "geometry": geometry } }] });
        let ring = json!([[0, 0], [1, 0], [1, 1], [0, 0]]);
        assert_eq!(post("assets", feature(json!({ "type": "Polygon", "coordinates": [ring] }))), Ok(()));
        let why = refused("assets", feature(json!({ "type": "Point", "coordinates": [1, 2, 3] })));
        assert_eq!(why, "coordinates: size must be between 2 and 2, got 3");
        let why = refused("assets", feature(json!({ "type": "Circle", "coordinates": [1, 2] })));
        assert!(why.starts_with("type: expected one of"), "{why}");
        let edge = json!({ "items": [{ "instanceType": "edge", "space": "s", "externalId": "e" }] });
        assert_eq!(refused("models/instances", edge), "Missing required field: startNode");
        let deep = json!({ "filter": { "and": [{ "not": { "equals": { "property": [], "value": 1 } } }] } });
        assert_eq!(refused("models/instances/list", deep), "property: size must be at least 1, got 0");
    }

    #[test]
    fn what_is_recorded_goes_before_what_is_described() {
        let nulls = json!({ "items": [{ "name": "a", "source": null, "labels": null }] });
        assert_eq!(post("assets", nulls), Ok(()));
        assert_eq!(
            refused("datasets", json!({ "items": [{ "name": null }] })),
            "`null` values aren't allowed."
        );
        let twice = json!({ "items": [{ "id": 1 }, { "id": 1 }] });
        assert_eq!(post("timeseries/byids", twice.clone()), Ok(()));
        assert_eq!(refused("datasets/byids", twice), "items: must be unique");
    }

    #[test]
    fn urls_are_checked_too() {
        let get = |path: &str, query: &[(&str, &str)]| {
            check(&request(Method::GET, path, query, Value::Null)).map_err(|error| error.message)
        };
        assert_eq!(get("assets", &[("limit", "5000"), ("root", "true"), ("name", "7")]), Ok(()));
        for (path, name, value) in [
            ("assets", "limit", "0"),
            ("assets", "limit", "x"),
            ("assets", "root", "1"),
            ("assets", "nothing", "1"),
            ("assets", "name", ""),
            ("models/spaces", "limit", "1001"),
            ("raw/dbs/a/tables/b/cursors", "numberOfCursors", "10001"),
        ] {
            assert!(get(path, &[(name, value)]).unwrap_err().contains(name), "{path} {name}={value}");
        }
        let long = format!("raw/dbs/{}/tables/t/rows", "a".repeat(33));
        assert!(refused(&long, json!({ "items": [] })).contains("dbName"));
        assert_eq!(post("nowhere", json!(1)), Ok(()), "its handler says so");
    }

    /// Every exception must change something, and have evidence.
    #[test]
    fn each_exception_is_needed() {
        let all: Vec<Value> = serde_json::from_str(EXCEPTIONS).unwrap();
        let of = |exceptions: &[Value]| {
            let mut table: Value = serde_json::from_str(LIMITS).unwrap();
            for exception in exceptions {
                Exception::deserialize(exception).unwrap().apply(&mut table).unwrap();
            }
            table
        };
        let whole = of(&all);
        for at in 0..all.len() {
            let mut fewer = all.clone();
            let gone = fewer.remove(at);
            assert_ne!(of(&fewer), whole, "{gone}");
            assert!(gone["why"].as_str().is_some_and(|why| why.len() > 10), "{gone}");
        }
    }
}
