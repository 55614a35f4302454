//! Requests to CDF: they carry the connection's token, and the client checks that CDF is what answers.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::call::{Call, Peer};
use super::connection::Connection;
use super::endpoint::{Endpoint, Method};
use super::exchange::Transport;
use super::oidc;
use super::owed::Owed;
use super::report::{cursor_expired, no_endpoint};
use super::request::{encode, Body, Limits, Request};
use super::response::Response;
use super::retry::Resend;
use crate::cdf::error::{Absence, Error, RequestError, Trace};

/// What a token may do, according to CDF's token/inspect.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub subject: String,
    /// The URL names of the projects that the token has access to.
    pub projects: Vec<String>,
    /// CDF's list of capabilities, unchanged.
    pub capabilities: Value,
    /// Where the answer came from, for errors.
    pub trace: Trace,
}

/// An HTTP client with a connection pool. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) transport: Transport,
}

impl Client {
    /// Makes a client. Do not use it in a process that is forked later. `idle`: the number of idle connections to a
    /// server that it keeps.
    ///
    /// # Errors
    /// `CannotConnect` if TLS cannot be set up, for example because the system has no root certificates.
    pub fn new(idle: usize) -> Result<Self, Error> {
        Ok(Client { transport: Transport::new(idle)? })
    }

    /// Sends a request, and repeats it until its answer is final. Must run in a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// `Api` if CDF refuses the request. `Failed` if CDF gives no usable answer, with the kind `CannotConnect` (also if the
    /// endpoint does not exist), `ConnectionLost` (also if the answer is not CDF's), `CursorExpired`, `NotAuthenticated`,
    /// `Throttled`, `ServerFailure`, `TimedOut` (the deadline passed), `InvalidOption` (an unusable URL) or `InvalidValue`
    /// (a path that a URL cannot hold).
    pub async fn send(
        &self,
        connection: &Connection,
        request: &Request,
        limits: &Limits,
    ) -> Result<Response, RequestError> {
        let url = connection.project_url(&request.endpoint.target())?;
        let answer = self.send_to(connection, url, request, limits).await;
        match answer {
            Ok(response) => {
                connection.reached.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Err(RequestError::Api(api)) if api.lost_the_cursor() && request.has_cursor() => {
                Err(cursor_expired(&api).into())
            }
            Err(RequestError::Api(api)) if api.status == 404 => {
                let leads_to_cdf = match api.absence() {
                    Absence::Item => true,
                    Absence::Endpoint => false,
                    Absence::Unclear => self.reaches_project(connection, limits).await?,
                };
                Err(match leads_to_cdf {
                    true => RequestError::Api(api),
                    false => no_endpoint(
                        &connection.name(),
                        &connection.project,
                        &api.message,
                        api.trace(),
                        api.unsure,
                    )
                    .into(),
                })
            }
            other => other,
        }
    }

    /// Whether the project exists in CDF. Every project has a list of RAW databases, so that request tells.
    async fn reaches_project(&self, connection: &Connection, limits: &Limits) -> Result<bool, RequestError> {
        if connection.reached.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let request = Request {
            endpoint: Endpoint::get("/raw/dbs").with("limit", 1),
            body: Body::None,
            resend: Resend::Always,
            owed: Owed::List,
        };
        let url = connection.project_url(&request.endpoint.target())?;
        match self.send_to(connection, url, &request, limits).await {
            Ok(_) => {
                connection.reached.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(RequestError::Api(api)) => Ok(api.status != 404),
            Err(error) => Err(error),
        }
    }

    /// Asks CDF what the connection's token may do.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn inspect_token(
        &self,
        connection: &Connection,
        limits: &Limits,
    ) -> Result<Inspection, RequestError> {
        let request = Request {
            endpoint: Endpoint::get("/api/v1/token/inspect"),
            body: Body::None,
            resend: Resend::Always,
            owed: Owed::Inspection,
        };
        let url = connection.url(&request.endpoint.target())?;
        let response = self.send_to(connection, url, &request, limits).await?;
        let mut answer: Value = response.json()?;
        Ok(Inspection {
            subject: answer["subject"].as_str().unwrap_or_default().to_owned(),
            projects: answer["projects"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|project| project.get("projectUrlName")?.as_str())
                .map(str::to_owned)
                .collect(),
            capabilities: answer["capabilities"].take(),
            trace: response.trace(),
        })
    }

    async fn send_to(
        &self,
        connection: &Connection,
        url: Url,
        request: &Request,
        limits: &Limits,
    ) -> Result<Response, RequestError> {
        let (headers, body) = encode(request, !connection.link.is_near())?;
        let method = match request.endpoint.method() {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let call = Call {
            peer: Peer::Cdf { project: &connection.project, link: &connection.link },
            name: connection.name(),
            endpoint: request.endpoint.to_string(),
            resend: request.resend,
            owed: request.owed,
            writes: request.endpoint.changes(),
            bytes: body.as_ref().map_or(0, Bytes::len),
            limits,
            client_secret: &connection.credentials.client_secret,
        };
        let (url, headers, body, method) = (&url, &headers, &body, &method);
        let prepare = move |refused: Option<SecretString>| async move {
            if let Some(refused) = refused {
                oidc::forget(&connection.tokens, &refused).await;
            }
            let waits = limits.errand.waits_for_token();
            let token =
                oidc::token(&self.transport, &connection.credentials, &connection.tokens, limits).await?;
            drop(waits);
            let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Error::internal("a token that no header can hold was kept"))?;
            authorization.set_sensitive(true);
            let mut prepared = self
                .transport
                .http()
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .header(header::AUTHORIZATION, authorization);
            if let Some(body) = body {
                prepared = prepared.body(body.clone());
            }
            Ok((prepared, Some(token)))
        };
        let answer = self.transport.exchange(&call, prepare).await?;
        let (status, request_id) = (answer.status, answer.clean_request_id());
        Ok(Response { status, endpoint: call.endpoint, body: answer.body, request_id })
    }
}
