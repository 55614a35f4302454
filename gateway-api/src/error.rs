//! Why a request is refused, in the form of CDF's errors.

use axum::http::StatusCode;
use serde_json::{json, Value};

/// An error in the form of CDF's API. Its text never contains a secret.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The names of what does not exist.
    pub missing: Vec<Value>,
    /// The names of what should be created but exists already.
    pub duplicated: Vec<Value>,
    /// For the log, not for the caller.
    pub inside: Option<String>,
}

impl ApiError {
    /// Makes an error of a status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            missing: Vec::new(),
            duplicated: Vec::new(),
            inside: None,
        }
    }

    /// Makes a 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// Makes a 404.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// Makes the error for a fault of this server. The log gets the reason, the caller does not.
    pub fn internal(inside: impl Into<String>) -> ApiError {
        let mut error = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error");
        error.inside = Some(inside.into());
        error
    }

    /// Makes the error for names that do not exist.
    pub fn missing(what: &str, key: &str, names: impl IntoIterator<Item = String>) -> ApiError {
        let names: Vec<String> = names.into_iter().collect();
        let mut error = ApiError::bad_request(format!("{what} not found: {}", names.join(", ")));
        error.missing = names.into_iter().map(|name| json!({ key: name })).collect();
        error
    }

    /// Returns the body of the answer.
    pub fn body(&self) -> Value {
        let mut error = json!({ "code": self.status.as_u16(), "message": self.message });
        if !self.missing.is_empty() {
            error["missing"] = Value::Array(self.missing.clone());
        }
        if !self.duplicated.is_empty() {
            error["duplicated"] = Value::Array(self.duplicated.clone());
        }
        json!({ "error": error })
    }
}

/// The status follows from the SQLSTATE; the message is that of the server, with its hint.
impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> ApiError {
        let Some(db) = error.as_db_error() else {
            let mut refused = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer");
            refused.inside = Some(error.to_string());
            return refused;
        };
        let code = db.code().code();
        let Some(status) = status_of(code) else { return ApiError::internal(format!("SQLSTATE {code}")) };
        let message = match db.hint() {
            Some(hint) => format!("{}. {hint}", db.message().trim_end_matches('.')),
            None => db.message().to_owned(),
        };
        let mut refused = ApiError::new(status, message);
        refused.inside = Some(format!("SQLSTATE {code}"));
        refused
    }
}

/// Returns the status for a SQLSTATE; None for one that is a fault of this server.
fn status_of(code: &str) -> Option<StatusCode> {
    Some(match (code, code.get(..2).unwrap_or_default()) {
        ("28000", _) | (_, "22" | "23" | "0A") => StatusCode::BAD_REQUEST,
        ("42601" | "42602" | "42622" | "42701" | "42939", _) => StatusCode::BAD_REQUEST,
        ("HV00D" | "HV00J" | "HV00R", _) => StatusCode::BAD_REQUEST,
        ("42501", _) => StatusCode::FORBIDDEN,
        ("42704" | "42P01", _) => StatusCode::NOT_FOUND,
        ("42P06" | "42P07" | "42710" | "42809" | "2BP01" | "55006", _) => StatusCode::CONFLICT,
        ("57014", _) => StatusCode::GATEWAY_TIMEOUT,
        ("08001" | "08006", _) => StatusCode::BAD_GATEWAY,
        ("40001" | "40P01" | "55P03", _) | (_, "53" | "57") => StatusCode::SERVICE_UNAVAILABLE,
        _ => return None,
    })
}
