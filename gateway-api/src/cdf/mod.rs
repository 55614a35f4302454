//! Asks CDF what a token may do, and for the session of a nonce.

use std::time::Duration;

use axum::http::StatusCode;
use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::error::ApiError;

/// How long CDF may take to answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A longer answer is not CDF's.
const MAX_ANSWER: usize = 8 << 20;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The CDF cluster.
pub struct Cdf {
    http: reqwest::Client,
    pub url: Url,
}

/// A CDF session, whose key gets tokens as long as the session lives.
pub struct Session {
    pub id: i64,
    pub key: SecretString,
}

#[derive(Deserialize)]
struct Inspection {
    projects: Vec<Project>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    project_url_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bound {
    #[serde(alias = "sessionId")]
    id: i64,
    session_key: String,
}

impl Cdf {
    /// Makes a client of the cluster. It connects to nothing yet.
    ///
    /// # Errors
    /// Why HTTP cannot be set up, in words.
    pub fn new(url: Url) -> Result<Cdf, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cdf-gateway-api/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        // This machine is not reached through a proxy.
        if url.scheme() == "http" {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| format!("cannot set up HTTP: {error}"))?;
        Ok(Cdf { http, url })
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}/{path}", self.url.as_str().trim_end_matches('/'))
    }

    /// Returns the projects that a token has access to. `token` follows `Bearer` in an Authorization header.
    pub async fn projects(&self, token: &str) -> Result<Vec<String>, ApiError> {
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| invalid_token())?;
        header.set_sensitive(true);
        let request = self.http.get(self.endpoint("api/v1/token/inspect")).header("authorization", header);
        let (status, body) = answer(request).await?;
        match status {
            200 => {
                let inspection: Inspection =
                    serde_json::from_slice(&body).map_err(|_| not_cdfs("the token's inspection"))?;
                Ok(inspection.projects.into_iter().map(|project| project.project_url_name).collect())
            }
            401 | 403 => Err(invalid_token()),
            other => Err(unavailable(format!("token/inspect: status {other}"))),
        }
    }

    /// Binds the session that a nonce stands for.
    pub async fn bind_session(&self, project: &str, nonce: &SecretString) -> Result<Session, ApiError> {
        let project = utf8_percent_encode(project, UNRESERVED);
        let request = self
            .http
            .post(self.endpoint(&format!("api/v1/projects/{project}/sessions/token")))
            .json(&json!({ "nonce": nonce.expose_secret() }));
        let (status, body) = answer(request).await?;
        match status {
            200 | 201 => {
                let bound: Bound = serde_json::from_slice(&body).map_err(|_| not_cdfs("a session"))?;
                Ok(Session { id: bound.id, key: SecretString::from(bound.session_key) })
            }
            400..=499 if status != 429 => Err(ApiError::bad_request(
                "CDF does not accept the nonce: it is wrong, was used before or has expired",
            )),
            other => Err(unavailable(format!("sessions/token: status {other}"))),
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), ApiError> {
    let failed = |error: reqwest::Error| unavailable(error.without_url().to_string());
    let mut response = request.send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > MAX_ANSWER {
            return Err(unavailable("the answer is too long".into()));
        }
        body.extend_from_slice(&part);
    }
    Ok((response.status().as_u16(), body))
}

/// Makes the error for a caller without a valid token.
pub fn invalid_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid token")
}

fn unavailable(inside: String) -> ApiError {
    let mut error = ApiError::new(StatusCode::BAD_GATEWAY, "CDF does not answer");
    error.inside = Some(inside);
    error
}

fn not_cdfs(what: &str) -> ApiError {
    unavailable(format!("the answer is not {what}"))
}
