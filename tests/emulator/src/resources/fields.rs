//! Declared fields: which values they take, and how an update changes them.

use serde_json::{json, Map, Value};

use super::columns;
use crate::errors::ApiError;

/// The largest id: 2^53 − 1.
pub const MAX_ID: i64 = 9_007_199_254_740_991;

/// Limits of a metadata object. Bytes are those of UTF-8.
#[derive(Debug)]
pub struct MetadataLimits {
    /// Pairs.
    pub pairs: usize,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Bytes of all keys and values.
    pub total: usize,
}

/// The words with which a resource refuses a dangling reference.
#[derive(Debug, Clone, Copy)]
pub enum Dangling {
    /// A message with a `missing` list.
    Listed(&'static str),
    /// A message that ends in the ids, without a list.
    Inline(&'static str),
}

/// A reference to another classic resource.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The resource's path.
    pub path: &'static str,
    /// How a missing one is reported.
    pub dangling: Dangling,
}

/// What a field holds.
#[derive(Debug)]
pub enum FieldType {
    /// A string with a number of characters.
    Text {
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// An integer within bounds.
    Integer {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// A number within bounds.
    Number {
        /// At least.
        min: f64,
        /// At most.
        max: f64,
    },
    /// true or false.
    Boolean,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// The columns of a sequence.
    Columns,
    /// An object of strings.
    Metadata(&'static MetadataLimits),
    /// The id of another object.
    Reference(Target),
    /// Ids of other objects, each once.
    References {
        /// What they refer to.
        target: Target,
        /// The most ids.
        max: usize,
    },
    /// Any integers.
    Integers,
    /// Labels: `[{"externalId": …}]`.
    Labels {
        /// The most labels.
        max: usize,
    },
    /// A GeoJSON feature.
    GeoLocation,
    /// An object that the function accepts.
    Object(fn(&Map<String, Value>) -> Result<(), ApiError>),
    /// An array of such objects.
    Objects(fn(&Map<String, Value>) -> Result<(), ApiError>),
}

/// What an update may do to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    Never,
    /// Set it.
    Set,
    /// Set it, or set it to null.
    SetOrNull,
}

/// A field of a resource.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub ty: FieldType,
    /// Whether a create must give it.
    pub required: bool,
    /// What an update may do.
    pub update: Update,
    /// Whether a create accepts the field and drops it.
    pub ignored: bool,
}

impl Field {
    /// Makes an optional field that updates may set and clear.
    pub const fn new(name: &'static str, ty: FieldType) -> Self {
        Self { name, ty, required: false, update: Update::SetOrNull, ignored: false }
    }

    /// Makes a field for a string.
    pub const fn text(name: &'static str, min: usize, max: usize) -> Self {
        Self::new(name, FieldType::Text { min, max })
    }

    /// Makes the external id that every classic resource has.
    pub const fn external_id() -> Self {
        Self::text("externalId", 0, 255)
    }

    /// Makes a field for a timestamp in milliseconds, from 1970 on.
    pub const fn timestamp(name: &'static str) -> Self {
        Self::new(name, FieldType::Integer { min: 0, max: i64::MAX })
    }

    /// Makes a field for metadata, which is replaced or edited, but never set to null.
    pub const fn metadata(limits: &'static MetadataLimits) -> Self {
        Self::new("metadata", FieldType::Metadata(limits)).not_null()
    }

    /// Makes the field for the data set of an object.
    pub const fn data_set(dangling: Dangling) -> Self {
        Self::new("dataSetId", FieldType::Reference(Target { path: "datasets", dangling }))
    }

    /// Makes it required on create, and impossible to clear.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self.not_null()
    }

    /// Makes it impossible to clear.
    pub const fn not_null(mut self) -> Self {
        self.update = Update::Set;
        self
    }

    /// Makes it impossible to update.
    pub const fn immutable(mut self) -> Self {
        self.update = Update::Never;
        self
    }

    /// Makes a create accept and drop it.
    pub const fn ignored(mut self) -> Self {
        self.ignored = true;
        self.immutable()
    }

    /// Checks a value for the field.
    pub fn check(&self, value: &Value) -> Result<(), ApiError> {
        let name = self.name;
        let wrong = |what: String| Err(ApiError::bad_request(format!("{name}: {what}")));
        match &self.ty {
            FieldType::Text { min, max } => match value.as_str() {
                None => wrong("expected a string".into()),
                Some(text) => match text.chars().count() {
                    size if size > *max || size < *min => {
                        wrong(format!("size must be between {min} and {max} characters, got {size}"))
                    }
                    _ => Ok(()),
                },
            },
            FieldType::Integer { min, max } => check_integer(name, value, *min, *max),
            FieldType::Number { min, max } => match value.as_f64() {
                None => wrong("expected a number".into()),
                Some(number) if (*min..=*max).contains(&number) => Ok(()),
                Some(number) => wrong(format!("must be between {min} and {max}, got {number}")),
            },
            FieldType::OneOf(names) => {
                if value.as_str().is_some_and(|name| names.contains(&name)) {
                    Ok(())
                } else {
                    wrong(format!("expected one of {}", names.join(", ")))
                }
            }
            FieldType::Columns => columns::check(value),
            FieldType::Boolean if value.is_boolean() => Ok(()),
            FieldType::Boolean => wrong("expected true or false".into()),
            FieldType::Metadata(limits) => match value.as_object() {
                Some(pairs) => check_metadata(name, pairs, limits),
                None => wrong("expected an object".into()),
            },
            FieldType::Reference(_) => check_integer(name, value, 1, MAX_ID),
            FieldType::References { max, .. } => {
                let list = self.list(value, *max)?;
                list.iter().try_for_each(|id| check_integer(name, id, 1, MAX_ID))?;
                let mut seen = std::collections::HashSet::new();
                if list.iter().all(|id| seen.insert(id.as_i64())) {
                    Ok(())
                } else {
                    wrong("must be unique".into())
                }
            }
            FieldType::Integers => self
                .list(value, usize::MAX)?
                .iter()
                .try_for_each(|n| check_integer(name, n, i64::MIN, i64::MAX)),
            FieldType::Labels { max } => self.list(value, *max)?.iter().try_for_each(check_label),
            FieldType::GeoLocation => check_geo_location(name, value),
            FieldType::Object(check) => match value.as_object() {
                Some(object) => check(object),
                None => wrong("expected an object".into()),
            },
            FieldType::Objects(check) => self.list(value, usize::MAX)?.iter().try_for_each(|element| {
                check(
                    element
                        .as_object()
                        .ok_or_else(|| ApiError::bad_request(format!("{name}: expected objects")))?,
                )
            }),
        }
    }

    fn list<'a>(&self, value: &'a Value, max: usize) -> Result<&'a Vec<Value>, ApiError> {
        match value.as_array() {
            None => Err(ApiError::bad_request(format!("{}: expected an array", self.name))),
            Some(list) if list.len() > max => Err(ApiError::bad_request(format!(
                "{}: size must be between 0 and {max}, got {}",
                self.name,
                list.len()
            ))),
            Some(list) => Ok(list),
        }
    }

    /// Returns the value after an update's patch: `{"set"}`, `{"setNull"}`, or `{"add", "remove"}` for metadata and
    /// arrays. None: the field is absent afterwards.
    pub fn patch(&self, current: Option<&Value>, patch: &Value) -> Result<Option<Value>, ApiError> {
        let name = self.name;
        let wrong = |what: &str| ApiError::bad_request(format!("update.{name}: {what}"));
        let Some(patch) = patch.as_object() else {
            return Err(wrong("expected an object with set or setNull"));
        };
        if let FieldType::Columns = self.ty {
            return columns::patch(current, patch).map(Some);
        }
        let is_collection = matches!(
            self.ty,
            FieldType::Metadata(_)
                | FieldType::References { .. }
                | FieldType::Integers
                | FieldType::Labels { .. }
                | FieldType::Objects(_)
        );
        let keys: Vec<&str> = patch.keys().map(String::as_str).collect();
        let result = match keys.as_slice() {
            ["set"] => Some(patch["set"].clone()),
            ["setNull"] if is_collection && self.update != Update::SetOrNull => {
                return Err(wrong("cannot be set to null; set it to an empty one"));
            }
            ["setNull"] if self.update != Update::SetOrNull => return Err(wrong("cannot be set to null")),
            ["setNull"] => match patch["setNull"].as_bool() {
                Some(true) => None,
                Some(false) => current.cloned(),
                None => return Err(wrong("setNull must be a boolean")),
            },
            [] => return Err(wrong("expected one of set, setNull, add, remove")),
            keys if is_collection && keys.iter().all(|key| matches!(*key, "add" | "remove")) => {
                Some(self.edit(current, patch.get("add"), patch.get("remove"))?)
            }
            _ => return Err(wrong(&format!("unexpected combination of {}", keys.join(", ")))),
        };
        if let Some(value) = &result {
            self.check(value)?;
        }
        Ok(result)
    }

    fn edit(
        &self,
        current: Option<&Value>,
        add: Option<&Value>,
        remove: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let none = Vec::new();
        let remove = remove.map_or(Ok(&none), |remove| self.list(remove, usize::MAX))?;
        if let FieldType::Metadata(_) = self.ty {
            let mut pairs = current.and_then(Value::as_object).cloned().unwrap_or_default();
            for key in remove {
                let key =
                    key.as_str().ok_or_else(|| ApiError::bad_request("metadata.remove: expected strings"))?;
                pairs.shift_remove(key);
            }
            if let Some(add) = add {
                self.check(add)?;
                pairs.extend(add.as_object().cloned().unwrap_or_default());
            }
            return Ok(Value::Object(pairs));
        }
        let mut list = current.and_then(Value::as_array).cloned().unwrap_or_default();
        list.retain(|element| !remove.contains(element));
        for element in add.map_or(Ok(&none), |add| self.list(add, usize::MAX))? {
            if !list.contains(element) {
                list.push(element.clone());
            }
        }
        Ok(Value::Array(list))
    }
}

/// Checks that a value is an integer within bounds, in CDF's words.
pub fn check_integer(name: &str, value: &Value, min: i64, max: i64) -> Result<(), ApiError> {
    match value.as_i64() {
        None => Err(ApiError::bad_request(format!("{name}: expected an integer"))),
        Some(number) if number < min => {
            Err(ApiError::bad_request(format!("{name} must be greater than or equal to {min}")))
        }
        Some(number) if number > max => {
            Err(ApiError::bad_request(format!("{name} must be less than or equal to {max}")))
        }
        Some(_) => Ok(()),
    }
}

fn check_metadata(name: &str, pairs: &Map<String, Value>, limits: &MetadataLimits) -> Result<(), ApiError> {
    let wrong = |what: String| Err(ApiError::bad_request(format!("{name}: {what}")));
    if pairs.len() > limits.pairs {
        return wrong(format!("at most {} key-value pairs are allowed, got {}", limits.pairs, pairs.len()));
    }
    let mut total = 0;
    for (key, value) in pairs {
        let Some(value) = value.as_str() else {
            return wrong(format!("the value of '{key}' must be a string"));
        };
        if key.len() > limits.key {
            return wrong(format!("keys must be at most {} bytes, got {}", limits.key, key.len()));
        }
        if value.len() > limits.value {
            return wrong(format!(
                "values must be at most {} bytes, '{key}' has {}",
                limits.value,
                value.len()
            ));
        }
        total += key.len() + value.len();
    }
    if total > limits.total {
        return wrong(format!("the total size must be at most {} bytes, got {total}", limits.total));
    }
    Ok(())
}

fn check_label(label: &Value) -> Result<(), ApiError> {
    let only_external_id = label.as_object().is_some_and(|label| label.keys().eq(["externalId"]));
    match label.get("externalId").and_then(Value::as_str).filter(|_| only_external_id) {
        Some(external_id) if external_id.chars().count() <= 255 => Ok(()),
        _ => Err(ApiError::bad_request(r#"labels: expected elements like {"externalId": "…"}"#)),
    }
}

fn check_geo_location(name: &str, value: &Value) -> Result<(), ApiError> {
    const TYPES: [&str; 6] =
        ["Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon"];
    let wrong = |what: &str| Err(ApiError::bad_request(format!("{name}: {what}")));
    let Some(feature) = value.as_object() else {
        return wrong("expected an object");
    };
    if feature.get("type") != Some(&json!("Feature")) {
        return wrong("type must be 'Feature'");
    }
    if feature.keys().any(|key| !matches!(key.as_str(), "type" | "geometry" | "properties")) {
        return wrong("only type, geometry and properties are allowed");
    }
    let geometry = feature.get("geometry").and_then(Value::as_object);
    let known =
        geometry.and_then(|g| g.get("type")).and_then(Value::as_str).is_some_and(|ty| TYPES.contains(&ty));
    if !known || !geometry.is_some_and(|g| g.get("coordinates").is_some_and(Value::is_array)) {
        return wrong("geometry needs a known type and coordinates");
    }
    if feature.get("properties").is_some_and(|properties| !properties.is_object()) {
        return wrong("properties must be an object");
    }
    Ok(())
}

/// Refuses JSON nulls everywhere except inside a geoLocation's free-form properties.
pub fn refuse_nulls(value: &Value) -> Result<(), ApiError> {
    match value {
        Value::Null => Err(ApiError::null_value()),
        Value::Array(list) => list.iter().try_for_each(refuse_nulls),
        Value::Object(object) => object
            .iter()
            .filter(|(key, value)| !(*key == "properties" && value.is_object()))
            .try_for_each(|(_, value)| refuse_nulls(value)),
        _ => Ok(()),
    }
}

/// Refuses keys that are not in the list.
pub fn refuse_unknown(place: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), ApiError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ApiError::bad_request(format!("Unknown field '{key}' in {place}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIMITS: MetadataLimits = MetadataLimits { pairs: 2, key: 4, value: 6, total: 12 };

    #[test]
    fn texts_count_characters_and_metadata_bytes() {
        let name = Field::text("name", 1, 3);
        assert!(name.check(&json!("ååå")).is_ok());
        assert!(name.check(&json!("åååå")).is_err() && name.check(&json!("")).is_err());
        let metadata = Field::metadata(&LIMITS);
        assert!(metadata.check(&json!({"åå": "ååå"})).is_ok());
        for bad in
            [json!({"ååå": ""}), json!({"a": "åååå"}), json!({"a": 1}), json!({"a": "", "b": "", "c": ""})]
        {
            assert!(metadata.check(&bad).is_err(), "{bad}");
        }
        assert!(metadata.check(&json!({"a": "123456", "b": "12345"})).is_err());
    }

    #[test]
    fn patches() {
        let metadata = Field::metadata(&LIMITS);
        let current = json!({"a": "1", "b": "2"});
        let patch = |patch: Value| metadata.patch(Some(&current), &patch);
        assert_eq!(patch(json!({"add": {"c": "3"}, "remove": ["a"]})), Ok(Some(json!({"b": "2", "c": "3"}))));
        assert_eq!(patch(json!({"set": {}})), Ok(Some(json!({}))));
        assert!(patch(json!({"add": {"c": "3"}})).is_err(), "the limits hold for the result");
        assert!(patch(json!({"setNull": true})).is_err());
        let text = Field::text("source", 0, 9);
        assert_eq!(text.patch(Some(&json!("x")), &json!({"setNull": true})), Ok(None));
        for bad in [json!({"add": ["x"]}), json!({}), json!({"set": "x", "setNull": true}), json!("x")] {
            assert!(text.patch(None, &bad).is_err(), "{bad}");
        }
    }
}
