//! Requests to CDF: they carry the connection's token, and the client checks that CDF is what answers.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::call::{Peer, ServerCall};
use super::connection::Connection;
use super::endpoint::{Endpoint, Method};
use super::exchange::Transport;
use super::oidc;
use super::owed::Owed;
use super::report::{cursor_expired, no_endpoint};
use super::request::{encode, Limits, Request, RequestBody};
use super::response::Response;
use super::retry::Resend;
use super::route::Route;
use crate::cdf::error::{Absence, Error, RequestError, Trace};

/// Connections are kept by no more ways than this at a time.
const MOST_ROUTES: usize = 16;

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
    /// By the system's own way.
    pub(super) transport: Transport,
    /// By other ways, made at their first use.
    others: Arc<Mutex<HashMap<Route, Transport>>>,
    idle: usize,
}

impl Client {
    /// Makes a client. Do not use it in a process that is forked later. `idle`: the number of idle connections to a
    /// server that it keeps.
    ///
    /// # Errors
    /// `CannotConnect` if TLS cannot be set up, for example because the system has no root certificates.
    pub fn new(idle: usize) -> Result<Self, Error> {
        Ok(Client { idle, ..Client::with(Transport::new(idle, &Route::default())?) })
    }

    /// A client with this transport.
    pub(super) fn with(transport: Transport) -> Self {
        Client { transport, idle: 0, others: Arc::default() }
    }

    /// What reaches a connection's servers.
    fn transport(&self, route: &Route) -> Result<Transport, Error> {
        if *route == Route::default() {
            return Ok(self.transport.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = others.get(route) {
            return Ok(transport.clone());
        }
        // An earlier version of the same file is not used again.
        if others.len() >= MOST_ROUTES {
            others.clear();
        }
        let transport = Transport::new(self.idle, route)?;
        others.insert(route.clone(), transport.clone());
        Ok(transport)
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
                Err(if leads_to_cdf {
                    RequestError::Api(api)
                } else {
                    no_endpoint(
                        &connection.name(),
                        &connection.project,
                        &api.message,
                        api.trace(),
                        api.unsure,
                    )
                    .into()
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
            body: RequestBody::None,
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
            body: RequestBody::None,
            resend: Resend::Always,
            owed: Owed::Inspection,
        };
        let url = connection.url(&request.endpoint.target())?;
        let response =
            self.send_to(connection, url, &request, limits).await.map_err(|error| match error {
                // CDF has this endpoint: what has answered is something else.
                RequestError::Api(api) if api.status == 404 => no_endpoint(
                    &connection.name(),
                    &connection.project,
                    &api.message,
                    api.trace(),
                    api.unsure,
                )
                .into(),
                other => other,
            })?;
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
        let call = ServerCall {
            peer: Peer::Cdf { project: &connection.project, link: &connection.link },
            name: connection.name(),
            endpoint: request.endpoint.to_string(),
            resend: request.resend,
            owed: request.owed,
            writes: request.endpoint.changes(),
            bytes: body.as_ref().map_or(0, Bytes::len),
            limits,
            secrets: connection.credentials.secret().into_iter().collect(),
        };
        let (url, headers, body, method) = (&url, &headers, &body, &method);
        let transport = &self.transport(&connection.route)?;
        let prepare = move |refused: Option<SecretString>| async move {
            if let Some(refused) = refused {
                oidc::forget(&connection.tokens, &refused).await;
            }
            let waits = limits.errand.waits_for_token();
            let token = oidc::token(transport, connection, limits).await?;
            drop(waits);
            let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Error::internal("a token that no header can hold was kept"))?;
            authorization.set_sensitive(true);
            let mut prepared = transport
                .http()
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .header(header::AUTHORIZATION, authorization);
            if let Some(body) = body {
                prepared = prepared.body(body.clone());
            }
            Ok((prepared, Some(token)))
        };
        let answer = transport.exchange(&call, prepare).await?;
        let (status, request_id) = (answer.status, answer.clean_request_id());
        Ok(Response { status, endpoint: call.endpoint, body: answer.body, request_id })
    }
}
