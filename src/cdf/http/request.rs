//! Requests to CDF.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::gzip;
use super::owed::Owed;
use super::retry::Resend;
use crate::cdf::activity::Errand;
use crate::cdf::error::Error;

/// How the body of a request names a cursor.
const CURSOR: &[u8] = b"\"cursor\":\"";

const APPLICATION: &str = "cdf_fdw";
/// The version of the API that this extension is written for.
const API_VERSION: &str = "20230101";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// What a request carries, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    Json(Bytes),
    Protobuf(Bytes),
}

/// One request to CDF.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// What follows `/api/v1/projects/{project}`: percent-encoded, beginning with a slash, with its query.
    pub path: String,
    pub body: Body,
    pub resend: Resend,
    /// What acknowledges it.
    pub owed: Owed,
}

impl Request {
    /// Method and path without query, as in `POST /assets`: how errors name the request.
    pub fn endpoint(&self) -> String {
        let path = self.path.split('?').next().unwrap_or(&self.path);
        format!("{} {path}", self.method.as_str())
    }

    /// Whether it changes anything in CDF, which is asked by POST as well.
    pub(super) fn writes(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or(&self.path);
        self.method == Method::Post && !path.ends_with("/list") && !path.ends_with("/byids")
    }

    /// Whether it goes on reading where another one ended.
    pub(super) fn has_cursor(&self) -> bool {
        let body = match &self.body {
            Body::Json(body) if self.path.ends_with("/list") => body,
            _ => return self.method == Method::Get && self.path.contains("cursor="),
        };
        body.windows(CURSOR.len()).any(|part| part == CURSOR)
    }
}

/// How long and how often a request is tried.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The end of all attempts, tokens and pauses included.
    pub deadline: Instant,
    /// The setting `cdf_fdw.flush_timeout` that the deadline comes from; only for messages.
    pub deadline_setting: Duration,
    /// How long one attempt may take, to the last byte of its answer.
    pub request_timeout: Duration,
    /// How many attempts may follow the first one.
    pub max_retries: u32,
    /// What the requests are made for, where they are counted.
    pub errand: Arc<Errand>,
}

/// Headers and body as they are sent, the body compressed once for all attempts, if it is to be and is long enough.
pub(super) fn encode(request: &Request, compress: bool) -> Result<(HeaderMap, Option<Bytes>), Error> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(request.owed.accept()));
    headers.insert(HeaderName::from_static("x-cdp-app"), HeaderValue::from_static(APPLICATION));
    headers.insert(HeaderName::from_static("cdf-version"), HeaderValue::from_static(API_VERSION));
    let (content_type, body) = match &request.body {
        Body::None => return Ok((headers, None)),
        Body::Json(body) => (JSON, body),
        Body::Protobuf(body) => (PROTOBUF, body),
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
