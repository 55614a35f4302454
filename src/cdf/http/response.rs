//! A successful answer, as the caller reads it.

use bytes::Bytes;

use crate::cdf::document;
use crate::cdf::error::text::brief_endpoint;
use crate::cdf::error::{Error, Kind, Trace, FAILED};

/// The answer that the request was owed.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// The request that it answers, for example `POST /assets`.
    pub endpoint: String,
    /// The body, decompressed.
    pub body: Bytes,
    /// CDF's `x-request-id`.
    pub request_id: Option<String>,
}

impl Response {
    /// Reads the body as JSON.
    ///
    /// # Errors
    /// `ConnectionLost` if it does not have the expected form.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(error))
    }

    /// Reads the body as JSON with all digits of its numbers and any depth of nesting.
    pub fn document(&self) -> Result<document::Value, Error> {
        document::parse(&self.body).map_err(|error| self.unreadable(error))
    }

    /// The error for an answer of the right form with a value that cannot be read.
    pub fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        let endpoint = brief_endpoint(&self.endpoint);
        Error::new(Kind::ConnectionLost, format!("CDF's answer to {endpoint} cannot be read: {why}"))
            .trace(Some(self.trace()))
            .hint(FAILED)
    }

    /// Where the answer came from, for errors that follow from it.
    pub fn trace(&self) -> Trace {
        Trace { endpoint: self.endpoint.clone(), status: self.status, request_id: self.request_id.clone() }
    }
}
