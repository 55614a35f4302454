//! The answer that a request is owed, as whoever asked for it reads it.

use bytes::Bytes;

use crate::cdf::document;
use crate::cdf::error::{Error, Kind, Trace, FAILED};
use crate::cdf::error_text::brief_endpoint;

/// The answer that a request is owed.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// What it answers, as in `POST /assets`.
    pub endpoint: String,
    /// Decompressed.
    pub body: Bytes,
    /// CDF's `x-request-id`.
    pub request_id: Option<String>,
}

impl Response {
    /// The body, read as JSON.
    ///
    /// # Errors
    /// `ConnectionLost` if it is something else.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(error))
    }

    /// As `json`, whatever numbers and nesting there are in it.
    pub fn document(&self) -> Result<document::Value, Error> {
        document::parse(&self.body).map_err(|error| self.unreadable(error))
    }

    /// The error for an answer that has the right form, and something in it that cannot be read.
    pub fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        let endpoint = brief_endpoint(&self.endpoint);
        Error::new(Kind::ConnectionLost, format!("CDF's answer to {endpoint} cannot be read: {why}"))
            .trace(Some(self.trace()))
            .hint(FAILED)
    }

    /// Which answer it is, for errors that follow from it.
    pub fn trace(&self) -> Trace {
        Trace { endpoint: self.endpoint.clone(), status: self.status, request_id: self.request_id.clone() }
    }
}
