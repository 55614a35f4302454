//! How CDF addresses an existing item.

use std::fmt;

use serde_json::Value;

/// How CDF addresses an existing item in answers: by its internal id, its external id, or an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    Id(i64),
    ExternalId(String),
    Instance { space: String, external_id: String },
}

impl Identity {
    /// Reads an object that names an item: an entry of CDF's `missing` or `duplicated`, or of a request.
    pub fn from_json(entry: &Value) -> Option<Identity> {
        let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let instance = entry.get("instanceId").unwrap_or(entry);
        if let (Some(space), Some(external_id)) = (text(instance, "space"), text(instance, "externalId")) {
            return Some(Identity::Instance { space, external_id });
        }
        match entry.get("id").and_then(Value::as_i64) {
            Some(id) => Some(Identity::Id(id)),
            None => text(entry, "externalId").map(Identity::ExternalId),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Id(id) => write!(f, "{id}"),
            Identity::ExternalId(external_id) => write!(f, "\"{external_id}\""),
            Identity::Instance { space, external_id } => write!(f, "(\"{space}\", \"{external_id}\")"),
        }
    }
}
