//! An answer as it arrives from a server, and what can be read from it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::retry::{parse_retry_after, Outcome};
use super::text::{host, plain_text, shorten, LONGEST_FOREIGN_TEXT, LONGEST_MESSAGE};
use super::url_path::segment;
use crate::cdf::error::{ApiError, Identity, Trace};

/// An answer, successful or not.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    pub content_type: Option<String>,
    pub request_id: Option<String>,
    auto_retryable: bool,
    retry_after: Option<Duration>,
    location: Option<String>,
    /// Secrets that the request carried. The server might repeat them in its answer.
    pub secrets: Vec<SecretString>,
}

impl Answer {
    pub fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Answer {
            status,
            body: Bytes::new(),
            content_type: text("content-type").map(|media_type| shorten(media_type, LONGEST_FOREIGN_TEXT)),
            // Microsoft's identity provider uses its own header for the request id.
            request_id: text("x-request-id")
                .or_else(|| text("x-ms-request-id"))
                .map(|id| shorten(id, LONGEST_FOREIGN_TEXT)),
            auto_retryable: text("cdf-is-auto-retryable")
                .is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
            retry_after: text("retry-after").and_then(|value| parse_retry_after(value, SystemTime::now())),
            location: text("location").map(str::to_owned),
            secrets: Vec::new(),
        }
    }

    pub fn outcome(&self) -> Outcome {
        Outcome::Answered {
            status: self.status,
            auto_retryable: self.auto_retryable,
            retry_after: self.retry_after,
        }
    }

    /// The status code and its name, for example `429 Too Many Requests`.
    pub fn status_line(&self) -> String {
        let status = reqwest::StatusCode::from_u16(self.status).ok();
        match status.and_then(|status| status.canonical_reason()) {
            Some(reason) => format!("{} {reason}", self.status),
            None => self.status.to_string(),
        }
    }

    /// CDF's message, or the beginning of the body if a gateway answered instead of CDF.
    pub fn message(&self) -> String {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let text = json.as_ref().and_then(|json| {
            let error = json.get("error").unwrap_or(json);
            error.as_str().or_else(|| error.get("message")?.as_str())
        });
        match text {
            Some(text) if !text.trim().is_empty() => shorten(&self.scrub(text), LONGEST_MESSAGE),
            _ => match shorten(&self.scrub(&plain_text(&self.body)), LONGEST_FOREIGN_TEXT) {
                text if text.is_empty() => {
                    let status = reqwest::StatusCode::from_u16(self.status).ok();
                    let reason =
                        status.and_then(|status| status.canonical_reason()).unwrap_or("no reason given");
                    format!("{reason} (empty answer)")
                }
                text => text,
            },
        }
    }

    /// Describes an answer that does not come from CDF, so that the user can find out who sent it.
    pub fn description(&self, show_text: bool) -> String {
        let media_type = match self.content_type.as_deref().unwrap_or_default() {
            "" => "no content type".to_owned(),
            media_type => format!("content type {}", self.scrub(media_type)),
        };
        let text = match shorten(&self.scrub(&plain_text(&self.body)), LONGEST_FOREIGN_TEXT) {
            _ if self.body.is_empty() => "empty".to_owned(),
            text if text.is_empty() || !show_text => format!("{} bytes", self.body.len()),
            text => text,
        };
        format!("HTTP status {}, {media_type}: {text}", self.status)
    }

    /// Reads the answer as a refusal by CDF.
    pub fn api_error(&self, endpoint: &str, unsure: bool) -> ApiError {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let named =
            |list: &str| json.get("error").and_then(|error| error.get(list)).and_then(Value::as_array);
        let identities = |list: &str| {
            named(list).into_iter().flatten().filter_map(Identity::from_json).collect::<Vec<_>>()
        };
        let missing = identities("missing");
        ApiError {
            status: self.status,
            message: self.message(),
            names_others: missing.is_empty() && named("missing").is_some_and(|names| !names.is_empty()),
            missing,
            duplicated: identities("duplicated"),
            request_id: self.clean_request_id(),
            endpoint: endpoint.to_owned(),
            of_cdf: self.is_refusal(),
            // A refusal of the content also holds for earlier attempts: none of them was applied.
            unsure: unsure && !matches!(self.status, 400 | 409 | 413 | 422),
        }
    }

    /// Whether the answer has the form of a refusal by CDF.
    pub fn is_refusal(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json.get("error").is_some_and(|error| error.is_object() || error.is_string())
    }

    /// The target of a redirect without its query, because a query may hold secrets.
    pub fn redirects_to(&self) -> String {
        let target = match self.location.as_deref().map(|location| (location, Url::parse(location))) {
            None => "nowhere".to_owned(),
            Some((_, Ok(url))) => format!("{}://{}{}", url.scheme(), host(&url), url.path()),
            Some((location, Err(_))) => location.split(['?', '#']).next().unwrap_or_default().to_owned(),
        };
        shorten(&self.scrub(&target), LONGEST_FOREIGN_TEXT)
    }

    /// Whether the body is HTML or looks like it.
    pub fn is_markup(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    pub fn clean_request_id(&self) -> Option<String> {
        self.request_id.as_deref().map(|id| self.scrub(id))
    }

    pub fn status_and_id(&self) -> String {
        match self.clean_request_id() {
            Some(id) => format!("HTTP status {}, x-request-id {id}", self.status),
            None => format!("HTTP status {}", self.status),
        }
    }

    pub fn trace(&self, endpoint: &str) -> Trace {
        Trace { endpoint: endpoint.to_owned(), status: self.status, request_id: self.clean_request_id() }
    }

    /// Removes the request's secrets from a text, whether written plainly, form-encoded or escaped as in JSON.
    pub fn scrub(&self, text: &str) -> String {
        const INSTEAD: &str = "***";
        let mut clean = text.to_owned();
        for secret in
            self.secrets.iter().map(|secret| secret.expose_secret()).filter(|secret| !secret.is_empty())
        {
            let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let percent = segment(secret).to_string();
            let json = Value::from(secret).to_string();
            let json = &json[1..json.len() - 1];
            for written in [secret, &form, &percent, json] {
                clean = clean.replace(written, INSTEAD);
            }
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_tolerantly() {
        for (body, message) in [
            ("", "Bad Request (empty answer)"),
            ("{\"error\":\"just text\"}", "just text"),
            ("{\"message\":\"no envelope\"}", "no envelope"),
            ("{\"error\":{\"code\":400}}", "{\"error\":{\"code\":400}}"),
            ("[1]", "[1]"),
            ("not\n\tjson \u{7}", "not json"),
            ("<html><body class='x'><h1>Bad gateway</h1>\r\n<p>Try later", "Bad gateway Try later"),
            ("{\"error\":{\"message\":\"a\",\"missing\":\"b\",\"duplicated\":[1,null]}}", "a"),
        ] {
            let answer = Answer { body: Bytes::from(body), ..Answer::new(400, &HeaderMap::new()) };
            let error = answer.api_error("GET /x", false);
            assert_eq!(error.message, message);
            assert!(error.missing.is_empty() && error.duplicated.is_empty());
        }
        let answer = Answer { body: Bytes::from("ä".repeat(1000)), ..Answer::new(400, &HeaderMap::new()) };
        assert_eq!(answer.message(), format!("{}…", "ä".repeat(LONGEST_FOREIGN_TEXT / 2)));
    }
}
