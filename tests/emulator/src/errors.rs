//! CDF's error body.

use axum::http::StatusCode;
use serde_json::{json, Map, Value};

use crate::reply::Reply;

/// An answer other than success, in CDF's shape: `{"error": {"code", "message", "missing"?, "duplicated"?}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status, repeated in the body as `code`.
    pub status: u16,
    /// The text for people; clients of CDF match the beginnings of some of these.
    pub message: String,
    /// Identifiers that do not exist.
    pub missing: Vec<Value>,
    /// Identifiers that exist already, or occur twice in the request.
    pub duplicated: Vec<Value>,
    /// Parts that only few refusals have.
    more: Option<Box<More>>,
}

/// The parts of an error that only few refusals have.
#[derive(Debug, Clone, Default, PartialEq)]
struct More {
    /// Further members of `error`.
    members: Map<String, Value>,
    headers: Vec<(String, String)>,
}

impl ApiError {
    /// An error without lists of identifiers.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), missing: Vec::new(), duplicated: Vec::new(), more: None }
    }

    /// 400: the status of most of CDF's refusals.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 400 with the identifiers that do not exist.
    pub fn missing(message: impl Into<String>, missing: Vec<Value>) -> Self {
        Self { missing, ..Self::bad_request(message) }
    }

    /// `status` with the identifiers that exist already or occur twice.
    pub fn duplicated(status: u16, message: impl Into<String>, duplicated: Vec<Value>) -> Self {
        Self { duplicated, ..Self::new(status, message) }
    }

    /// 400 for a JSON null where CDF wants the field left out.
    pub fn null_value() -> Self {
        Self::bad_request("`null` values aren't allowed.")
    }

    /// 401 for a token that is unknown, expired or revoked.
    pub fn unauthenticated() -> Self {
        Self::new(401, "Could not authenticate.")
    }

    /// 401 for a valid token that has no access to the project.
    pub fn no_access_to_project() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// 403 for a token without the capability.
    pub fn forbidden() -> Self {
        Self::new(403, "Forbidden")
    }

    /// Adds a member to `error`.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.get_or_insert_default().members.insert(name.to_owned(), value);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.more.get_or_insert_default().headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the JSON body.
    pub fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), json!(self.status));
        error.insert("message".into(), json!(self.message));
        for (name, list) in [("missing", &self.missing), ("duplicated", &self.duplicated)] {
            if !list.is_empty() {
                error.insert(name.into(), json!(list));
            }
        }
        error.extend(self.more.iter().flat_map(|more| more.members.clone()));
        json!({ "error": error })
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Reply::json(status.as_u16(), &error.body());
        reply.headers.extend(error.more.into_iter().flat_map(|more| more.headers));
        reply
    }
}
