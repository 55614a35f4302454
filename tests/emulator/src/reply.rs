//! What a handler gets and what it answers, without HTTP's transport.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::errors::ApiError;

/// JSON's media type.
pub const JSON: &str = "application/json";
/// Protocol buffers' media type, as CDF names it.
pub const PROTOBUF: &str = "application/protobuf";

/// A whole request, its body already read and uncompressed.
#[derive(Debug)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// The path after the project, percent-decoded segment by segment.
    pub segments: Vec<String>,
    /// Query parameters in order.
    pub query: Vec<(String, String)>,
    /// Uncompressed body.
    pub body: Vec<u8>,
    /// The body as JSON, if it was parsed already.
    pub parsed: Option<Value>,
    /// Content-Type without parameters.
    pub content_type: String,
    /// Accept, as sent.
    pub accept: String,
    /// What the request log records about the body.
    pub counts: Counts,
}

/// How much a request carried.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts {
    /// Elements of `items`.
    pub items: u64,
    /// Data points, in an insert of data points.
    pub points: u64,
    /// The first ten external ids or keys.
    pub external_ids: Vec<String>,
}

impl Counts {
    /// Records an external id or key if there is room.
    pub fn note(&mut self, external_id: &str) {
        if self.external_ids.len() < 10 {
            self.external_ids.push(external_id.to_owned());
        }
    }
}

impl Request {
    /// Returns the value of a query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns a query parameter that is true or false; false is the default.
    pub fn query_flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(ApiError::bad_request(format!("{name}: expected true or false, got '{other}'")))
            }
        }
    }

    /// Returns a query parameter that is an integer within bounds.
    pub fn query_integer(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.query(name) else {
            return Ok(None);
        };
        match text.parse::<i64>() {
            Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
            _ => Err(ApiError::bad_request(format!(
                "{name}: expected an integer between {min} and {max}, got '{text}'"
            ))),
        }
    }

    /// Returns the body as a JSON object, and counts its items for the log.
    pub fn json(&mut self) -> Result<serde_json::Map<String, Value>, ApiError> {
        if self.content_type != JSON {
            return Err(ApiError::new(
                415,
                format!("Unsupported Media Type: expected {JSON}, got '{}'", self.content_type),
            ));
        }
        let value = match self.parsed.take() {
            Some(value) => value,
            None => serde_json::from_slice(&self.body)
                .map_err(|error| ApiError::bad_request(format!("Malformed JSON: {error}")))?,
        };
        let Value::Object(object) = value else {
            return Err(ApiError::bad_request("Malformed JSON: expected an object"));
        };
        if let Some(Value::Array(items)) = object.get("items") {
            self.counts.items = items.len() as u64;
            for item in items.iter().take(10) {
                let name = item.get("externalId").or_else(|| item.get("key")).or_else(|| item.get("name"));
                if let Some(name) = name.and_then(Value::as_str) {
                    self.counts.note(name);
                }
            }
        }
        Ok(object)
    }
}

/// A whole answer, not yet compressed.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content-Type.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Where and how the body is cut short, if it is.
    pub cut: Option<Cut>,
}

/// What is left of an answer that is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How it ends.
    pub how: Ending,
    /// The number of bytes that are sent.
    pub bytes: usize,
}

/// How an answer that is cut short ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// As if it were complete.
    #[default]
    Text,
    /// HTTP's framing is complete, but gzip's is not.
    Gzip,
    /// The connection is closed in the middle of a chunked body.
    Chunk,
}

impl Reply {
    /// Makes a JSON answer.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // Serialising our own maps of strings into memory cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { status, content_type: JSON.into(), body, headers: Vec::new(), cut: None }
    }

    /// `{}` with 200: CDF's answer to deletes, and to inserts of points and rows.
    pub fn empty() -> Self {
        Self::json(200, &json!({}))
    }

    /// `{"items": […], "nextCursor"?}`.
    pub fn items(status: u16, items: Vec<Value>, next_cursor: Option<String>) -> Self {
        let mut body = json!({ "items": items });
        if let Some(cursor) = next_cursor {
            body["nextCursor"] = json!(cursor);
        }
        Self::json(status, &body)
    }
}
