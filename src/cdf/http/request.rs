//! Requests to CDF.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::endpoint::Endpoint;
use super::gzip;
use super::owed::Owed;
use super::retry::Resend;
use crate::cdf::activity::Errand;
use crate::cdf::error::Error;

/// How a request's body begins its cursor.
const CURSOR: &[u8] = b"\"cursor\":\"";

const APPLICATION: &str = "cdf_fdw";
/// The version of CDF's API that this extension is written for.
const API_VERSION: &str = "20230101";

/// The body of a request, before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    None,
    Json(Bytes),
    Protobuf(Bytes),
}

/// One request to CDF.
#[derive(Debug, Clone)]
pub struct Request {
    pub endpoint: Endpoint,
    pub body: RequestBody,
    pub resend: Resend,
    /// The answer that acknowledges the request.
    pub owed: Owed,
}

impl Request {
    /// Whether the request continues a read with a cursor.
    pub(super) fn has_cursor(&self) -> bool {
        let body = match &self.body {
            RequestBody::Json(body) if self.endpoint.takes_cursor_in_body() => body,
            _ => return self.endpoint.has_cursor(),
        };
        body.windows(CURSOR.len()).any(|part| part == CURSOR)
    }
}

/// How long and how often a request is attempted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// When all attempts must end, including token requests and pauses.
    pub deadline: Instant,
    /// The setting `cdf_fdw.flush_timeout` behind the deadline, for messages only.
    pub deadline_setting: Duration,
    /// How long one attempt may take, until the last byte of its answer.
    pub request_timeout: Duration,
    /// How many attempts may follow the first one.
    pub max_retries: u32,
    /// The errand that the requests belong to. It counts them.
    pub errand: Arc<Errand>,
}

/// Headers and body as they are sent. The body is compressed once for all attempts, if `compress` is set and the body is
/// long enough.
pub(super) fn encode(request: &Request, compress: bool) -> Result<(HeaderMap, Option<Bytes>), Error> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(request.owed.accept()));
    headers.insert(HeaderName::from_static("x-cdp-app"), HeaderValue::from_static(APPLICATION));
    headers.insert(HeaderName::from_static("cdf-version"), HeaderValue::from_static(API_VERSION));
    let (content_type, body) = match &request.body {
        RequestBody::None => return Ok((headers, None)),
        RequestBody::Json(body) => (JSON, body),
        RequestBody::Protobuf(body) => (PROTOBUF, body),
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    if !compress || body.len() <= gzip::THRESHOLD {
        return Ok((headers, Some(body.clone())));
    }
    let compressed =
        gzip::compress(body).map_err(|error| Error::internal(format!("cannot compress: {error}")))?;
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok((headers, Some(compressed.into())))
}
