//! How CDF addresses an existing item.

use std::fmt;

use serde_json::{json, Value};

use crate::cdf::resource::properties::{EXTERNAL_ID, ID, SPACE};

/// What CDF calls the instance that is a time series.
const INSTANCE: &str = "instanceId";

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
        let instance = entry.get(INSTANCE).unwrap_or(entry);
        if let (Some(space), Some(external_id)) = (text(instance, SPACE), text(instance, EXTERNAL_ID)) {
            return Some(Identity::Instance { space, external_id });
        }
        match entry.get(ID).and_then(Value::as_i64) {
            Some(id) => Some(Identity::Id(id)),
            None => text(entry, EXTERNAL_ID).map(Identity::ExternalId),
        }
    }

    /// The object that names the item in requests.
    pub fn to_json(&self) -> Value {
        match self {
            Identity::Id(id) => json!({ ID: id }),
            Identity::ExternalId(external_id) => json!({ EXTERNAL_ID: external_id }),
            Identity::Instance { space, external_id } => {
                json!({ INSTANCE: { SPACE: space, EXTERNAL_ID: external_id } })
            }
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
