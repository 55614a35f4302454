//! HTTP to CDF: tokens, deadlines, retries, and what the user is told when there is no successful answer.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::activity::Errand;
use super::document;
use super::encode::gzip;
use super::error::{Absence, ApiError, Error, Identity, Kind, RequestError, Trace, FAILED, THROTTLED};
use super::link::{Link, TimedConnections};
use super::owed::Owed;
use super::proxy;
use super::report::brief_endpoint;
use super::retry::{parse_retry_after, Decision, Outcome, Policy, Stop};
use super::token::{Credentials, TokenCache};
use super::url_path::segment;

pub use super::retry::Resend;

/// How the body of a request names a cursor.
const CURSOR: &[u8] = b"\"cursor\":\"";

const USER_AGENT: &str = concat!("cdf_fdw/", env!("CARGO_PKG_VERSION"));
const APPLICATION: &str = "cdf_fdw";
/// The version of the API that this extension is written for.
const API_VERSION: &str = "20230101";

/// TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the idle timeouts of usual gateways, so that few connections turn out to be closed when they are used.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A dead HTTP/2 connection would otherwise take all requests of the pool, and their retries, with it.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer, in bytes after decompression, that is read into memory.
const LONGEST_ANSWER: usize = 256 << 20;
/// The longest text of a server, in bytes, that is passed on in an error: CDF's own, and any other.
const LONGEST_MESSAGE: usize = 16 << 10;
const LONGEST_FOREIGN_TEXT: usize = 300;

/// A CDF project with the credentials to use it, and their current token.
#[derive(Debug)]
pub struct Connection {
    /// As in `https://westeurope-1.cognitedata.com`. User name, password, query and fragment are not used.
    pub base_url: Url,
    pub project: String,
    pub credentials: Credentials,
    token: TokenCache,
    link: Arc<Link>,
    /// Where it leads to, written in the same way for all that lead there: scheme, host, port and path.
    place: (String, String),
    /// Some request to the project was answered with success: base_url and project lead to CDF.
    reached: AtomicBool,
}

impl Connection {
    pub fn new(base_url: Url, project: String, credentials: Credentials) -> Self {
        // Of an origin the host is in lower case, and the port named only if it is not the usual one.
        let origin = base_url.origin().ascii_serialization();
        let place = (origin, base_url.path().trim_end_matches('/').to_owned());
        let (token, link) = (TokenCache::new(), Link::new());
        Connection { base_url, project, credentials, token, link, place, reached: AtomicBool::new(false) }
    }

    /// Whether both reach the same project of the same CDF, with whatever credentials.
    pub fn reaches_same_as(&self, other: &Connection) -> bool {
        std::ptr::eq(self, other) || self.project == other.project && self.place == other.place
    }

    /// The address of a path below the base URL. The path is percent-encoded and may end with a query.
    fn url(&self, path: &str) -> Result<Url, Error> {
        let mut base = self.base_url.clone();
        // These fail only for URLs without a host, which are refused when the request is built.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let unusable =
            |why: String| Error::new(Kind::InvalidOption, format!("the base_url cannot be used: {why}"));
        let url = Url::parse(&text).map_err(|error| unusable(error.to_string()))?;
        if url.host_str().is_none() {
            return Err(unusable("it names no host".into()));
        }
        // URLs cannot hold the segments `.` and `..`, not even percent-encoded: they would name something else.
        let plain = path.split('?').next().unwrap_or(path);
        if url.path() != format!("{}{plain}", base.path().trim_end_matches('/')) {
            let why = format!(
                "{plain} cannot be requested: URLs take the names \".\" and \"..\" for directions, so that nothing called so \
                 can be reached"
            );
            return Err(Error::new(Kind::InvalidValue, why));
        }
        Ok(url)
    }

    fn project_url(&self, path: &str) -> Result<Url, Error> {
        self.url(&format!("/api/v1/projects/{}{path}", segment(&self.project)))
    }
}

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
    fn writes(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or(&self.path);
        self.method == Method::Post && !path.ends_with("/list") && !path.ends_with("/byids")
    }

    /// Whether it goes on reading where another one ended.
    fn has_cursor(&self) -> bool {
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

/// What a token may do, as CDF's token/inspect tells.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub subject: String,
    /// The url names of the projects that the token has access to.
    pub projects: Vec<String>,
    /// CDF's list of capabilities, as it is.
    pub capabilities: Value,
    /// Which answer it is.
    pub trace: Trace,
}

/// An HTTP client with its pool of connections. Clones share the pool.
/// Bytes of an answer that room is made for before it is there: what CDF returns of a request's items.
const LIKELY_ANSWER: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    longest_answer: usize,
}

impl Client {
    /// A client of this process; not to be used in a process that was forked later. `idle`: how many connections to a server
    /// it keeps for later requests.
    ///
    /// # Errors
    /// `CannotConnect` if TLS cannot be set up, as when the system has no root certificates.
    pub fn new(idle: usize) -> Result<Self, Error> {
        let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(idle);
        Self::build(match proxy::from(|name| std::env::var(name).ok()) {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        })
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        let http = builder
            .user_agent(USER_AGENT)
            // A redirected POST becomes a GET, and the token must not go elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .connector_layer(TimedConnections)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .build()
            .map_err(|error| {
                Error::new(Kind::CannotConnect, format!("cannot set up HTTP: {}", cause(error)))
                    .hint("Check the root certificates of the system that PostgreSQL runs on.")
            })?;
        Ok(Client { http, longest_answer: LONGEST_ANSWER })
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends a request until it is answered for good. Must run in a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// `Api` if CDF refuses; `Failed` if there is no answer of CDF to speak of, with the kind `CannotConnect` (also for an
    /// endpoint that is not there), `ConnectionLost` (also for an answer that is not CDF's), `CursorExpired`, `NotAuthenticated`, `Throttled`, `ServerFailure`,
    /// `TimedOut` (the deadline passed while waiting), `InvalidOption` (an unusable URL) or `InvalidValue` (a path that
    /// URLs cannot hold).
    pub async fn send(
        &self,
        connection: &Connection,
        request: &Request,
        limits: &Limits,
    ) -> Result<Response, RequestError> {
        let url = connection.project_url(&request.path)?;
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
                    false => no_endpoint(connection, &api.message, api.trace(), api.unsure).into(),
                })
            }
            other => other,
        }
    }

    /// Whether there is such a project of CDF at all: its RAW databases can be asked for, whatever is in it.
    async fn reaches_project(&self, connection: &Connection, limits: &Limits) -> Result<bool, RequestError> {
        if connection.reached.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let request = Request {
            method: Method::Get,
            path: "/raw/dbs?limit=1".into(),
            body: Body::None,
            resend: Resend::Always,
            owed: Owed::List,
        };
        let url = connection.project_url(&request.path)?;
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
            method: Method::Get,
            path: "/api/v1/token/inspect".into(),
            body: Body::None,
            resend: Resend::Always,
            owed: Owed::Inspection,
        };
        let url = connection.url(&request.path)?;
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
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let call = Call {
            peer: Peer::Cdf { project: &connection.project, link: &connection.link },
            name: cdf_at(connection),
            endpoint: request.endpoint(),
            resend: request.resend,
            owed: request.owed,
            writes: request.writes(),
            bytes: body.as_ref().map_or(0, Bytes::len),
            limits,
            client_secret: &connection.credentials.client_secret,
        };
        let (url, headers, body, method) = (&url, &headers, &body, &method);
        let prepare = move |refused: Option<SecretString>| async move {
            if let Some(refused) = refused {
                connection.token.invalidate(&refused).await;
            }
            let waits = limits.errand.waits_for_token();
            let token = connection.token.get(self, &connection.credentials, limits).await?;
            drop(waits);
            let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Error::internal("a token that no header can hold was kept"))?;
            authorization.set_sensitive(true);
            let mut prepared = self
                .http
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .header(header::AUTHORIZATION, authorization);
            if let Some(body) = body {
                prepared = prepared.body(body.clone());
            }
            Ok((prepared, Some(token)))
        };
        let answer = self.exchange(&call, prepare).await?;
        let (status, request_id) = (answer.status, answer.clean_request_id());
        Ok(Response { status, endpoint: call.endpoint, body: answer.body, request_id })
    }

    /// Sends what `prepare` makes until there is the answer that is owed, or no sense in going on. `prepare` gives the
    /// request and the token in it; it is told which token was refused.
    pub(super) async fn exchange<P, F>(&self, call: &Call<'_>, prepare: P) -> Result<Answer, RequestError>
    where
        P: Fn(Option<SecretString>) -> F,
        F: Future<Output = Result<(RequestBuilder, Option<SecretString>), RequestError>>,
    {
        let limits = call.limits;
        let bearer = matches!(call.peer, Peer::Cdf { .. });
        let mut policy = Policy::new(call.resend, limits.max_retries, limits.deadline, bearer);
        let mut refused = None;
        let mut before = None;
        // Whatever comes after it, an attempt without an answer may have been applied.
        let mut unsure = false;
        loop {
            let (request, token) = match prepare(refused.take()).await {
                Ok(prepared) => prepared,
                Err(RequestError::Failed(mut error)) => {
                    error.unsure |= unsure;
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            };
            let attempt = self.attempt(request, limits);
            let answer = match call.peer {
                Peer::Cdf { link, .. } => {
                    if call.writes {
                        limits.errand.is_sent();
                    }
                    let _under_way = limits.errand.attempt(call.bytes);
                    link.measured(attempt).await
                }
                Peer::IdentityProvider => attempt.await,
            };
            let unsuccessful = match answer {
                Ok(mut answer) => {
                    answer.secrets = token.iter().chain([call.client_secret]).cloned().collect();
                    match call.judge(&answer) {
                        Verdict::Owed => {
                            call.count_answer(&answer);
                            return Ok(answer);
                        }
                        Verdict::Refusal => Ok(answer),
                        Verdict::Foreign(why) => Err(Failure::Foreign(Box::new(answer), why)),
                    }
                }
                Err(failure) => Err(failure),
            };
            call.count_failure(&unsuccessful);
            let outcome = match &unsuccessful {
                Ok(answer) => Some(answer.outcome()),
                Err(failure) => failure.outcome(),
            };
            unsure |= call.writes
                && match (&outcome, &unsuccessful) {
                    (Some(outcome), _) => outcome.may_have_been_applied(),
                    (None, Err(failure)) => failure.may_have_been_applied(),
                    (None, Ok(_)) => false,
                };
            let decision = match outcome {
                Some(outcome) => policy.decide(outcome, Instant::now()),
                None => Decision::Stop(Stop::Final),
            };
            match decision {
                Decision::Retry(pause) => {
                    let why = call.why(&unsuccessful);
                    before = Some(match unsuccessful {
                        Ok(answer) => format!("{}: {}", answer.status_and_id(), answer.message()),
                        Err(failure) => call.describe(&failure),
                    });
                    let asked = matches!(outcome, Some(Outcome::Answered { retry_after: Some(_), .. }));
                    let asked = if asked { ", Retry-After" } else { "" };
                    let pauses = limits.errand.pauses(pause, format!("{why}{asked}"));
                    tokio::time::sleep(pause).await;
                    drop(pauses);
                    limits.errand.repeats(&why);
                }
                Decision::RetryWithNewToken => {
                    limits.errand.repeats(&call.why(&unsuccessful));
                    refused = token;
                }
                Decision::Stop(stop) => {
                    let attempts = policy.attempts();
                    return Err(match unsuccessful {
                        Ok(answer) => call.refused(&answer, stop, attempts, unsure),
                        Err(failure) => call.failed(&failure, stop, attempts, before, unsure).into(),
                    });
                }
            }
        }
    }

    /// Sends a request once, within the timeout of a request and the deadline of all.
    async fn attempt(&self, request: RequestBuilder, limits: &Limits) -> Result<Answer, Failure> {
        let now = Instant::now();
        if now >= limits.deadline {
            return Err(Failure::Deadline { sent: false });
        }
        let timeout = now.checked_add(limits.request_timeout).filter(|timeout| *timeout < limits.deadline);
        let end = timeout.unwrap_or(limits.deadline);
        match tokio::time::timeout_at(end.into(), self.receive(request)).await {
            Ok(result) => result,
            Err(_) if timeout.is_some() => Err(Failure::RequestTimeout),
            Err(_) => Err(Failure::Deadline { sent: true }),
        }
    }

    async fn receive(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(Failure::from)?;
        let status = response.status();
        let mut answer = Answer::new(status.as_u16(), response.headers());
        let expected = usize::try_from(response.content_length().unwrap_or_default()).unwrap_or(usize::MAX);
        // What is announced may never come.
        let mut body = BytesMut::with_capacity(expected.min(LIKELY_ANSWER));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.longest_answer => {
                    body.extend_from_slice(&chunk)
                }
                Ok(Some(_)) if status.is_success() => return Err(Failure::TooLong(self.longest_answer)),
                Err(error) if status.is_success() => return Err(error.into()),
                // Of a refusal its status counts, and as much of its text as there is.
                Ok(_) | Err(_) => break,
            }
        }
        answer.body = body.freeze();
        Ok(answer)
    }
}

/// Headers and body as they are sent, the body compressed once for all attempts, if it is to be and is long enough.
fn encode(request: &Request, compress: bool) -> Result<(HeaderMap, Option<Bytes>), Error> {
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

/// Why an attempt has no answer. The texts hold no URL and no header.
#[derive(Debug)]
enum Failure {
    /// Nothing was sent.
    NotConnected(String),
    /// Nothing was sent, and the other side's certificate is none to trust: it would not be any the next time.
    Untrusted(String),
    /// The connection broke, or what came back was not HTTP.
    Broken(String),
    RequestTimeout,
    Deadline {
        sent: bool,
    },
    /// Longer than this many bytes.
    TooLong(usize),
    /// An answer that is not the one owed, nor a refusal, and why it is not: whether CDF has seen the request is unknown.
    Foreign(Box<Answer>, String),
    /// No request could be made.
    Unusable(String),
}

impl Failure {
    /// What the policy for retries has to know; nothing if there is no question of a retry.
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Failure::NotConnected(_) => Some(Outcome::NotConnected),
            Failure::Broken(_) | Failure::RequestTimeout | Failure::Foreign(..) => Some(Outcome::NotAnswered),
            Failure::Untrusted(_) | Failure::Deadline { .. } | Failure::TooLong(_) | Failure::Unusable(_) => {
                None
            }
        }
    }

    fn may_have_been_applied(&self) -> bool {
        !matches!(
            self,
            Failure::NotConnected(_)
                | Failure::Untrusted(_)
                | Failure::Unusable(_)
                | Failure::Deadline { sent: false }
        )
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if error.is_builder() {
            Failure::Unusable(cause(error))
        } else if is_about_a_certificate(&error) {
            Failure::Untrusted(cause(error))
        } else if error.is_connect() {
            // Nothing was written. A pooled connection that turns out to be closed before anything is written to it
            // does not surface at all: hyper takes another one. Every other cancellation counts as broken, because
            // reqwest does not tell how much was written.
            Failure::NotConnected(cause(error))
        } else {
            Failure::Broken(cause(error))
        }
    }
}

/// Whether the other side's certificate was refused.
fn is_about_a_certificate(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = source.downcast_ref() {
            return true;
        }
        // The source of an I/O error that wraps another error is not that one but the one behind it.
        let wrapped = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &dyn std::error::Error).or_else(|| source.source());
    }
    false
}

/// What went wrong, from the general to the particular, without the URL.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(&error);
    while let Some(source) = next {
        next = source.source();
        let text = source.to_string();
        // An inner error of reqwest may name its URL, and hyper's wrapper only repeats what the message says.
        let says_nothing = source.is::<reqwest::Error>() || text.starts_with("client error (");
        if !says_nothing && !causes.iter().any(|cause| cause.ends_with(&text)) {
            causes.push(text);
        }
    }
    if causes.is_empty() {
        return error.to_string();
    }
    causes.join(": ")
}

/// What an answer is.
enum Verdict {
    /// The one that the request is owed.
    Owed,
    /// A refusal, CDF's or that of a gateway before it.
    Refusal,
    /// Something else, and why.
    Foreign(String),
}

/// An answer, successful or not.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Bytes,
    content_type: Option<String>,
    pub request_id: Option<String>,
    auto_retryable: bool,
    retry_after: Option<Duration>,
    location: Option<String>,
    /// What the server was told and might repeat in its answer.
    secrets: Vec<SecretString>,
}

impl Answer {
    fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Answer {
            status,
            body: Bytes::new(),
            content_type: text("content-type").map(|media_type| shorten(media_type, LONGEST_FOREIGN_TEXT)),
            // Microsoft's identity provider has a name of its own for it.
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

    fn outcome(&self) -> Outcome {
        Outcome::Answered {
            status: self.status,
            auto_retryable: self.auto_retryable,
            retry_after: self.retry_after,
        }
    }

    /// Status and its name, as in `429 Too Many Requests`.
    fn status_line(&self) -> String {
        let status = reqwest::StatusCode::from_u16(self.status).ok();
        match status.and_then(|status| status.canonical_reason()) {
            Some(reason) => format!("{} {reason}", self.status),
            None => self.status.to_string(),
        }
    }

    /// CDF's message, or the beginning of whatever a gateway before it says.
    fn message(&self) -> String {
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

    /// What an answer that is none of CDF's is like, for whoever has to find out where it comes from.
    fn description(&self, show_text: bool) -> String {
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

    /// The answer as CDF's refusal.
    fn api_error(&self, endpoint: &str, unsure: bool) -> ApiError {
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
            // What is refused for its content was refused for it before, too.
            unsure: unsure && !matches!(self.status, 400 | 409 | 413 | 422),
        }
    }

    /// Whether it has the form of CDF's refusals.
    fn is_refusal(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json.get("error").is_some_and(|error| error.is_object() || error.is_string())
    }

    /// Where a redirect leads, as far as it takes to recognise the place: a query may hold anything.
    fn redirects_to(&self) -> String {
        let target = match self.location.as_deref().map(|location| (location, Url::parse(location))) {
            None => "nowhere".to_owned(),
            Some((_, Ok(url))) => format!("{}://{}{}", url.scheme(), host(&url), url.path()),
            Some((location, Err(_))) => location.split(['?', '#']).next().unwrap_or_default().to_owned(),
        };
        shorten(&self.scrub(&target), LONGEST_FOREIGN_TEXT)
    }

    /// Whether the body is HTML, or looks like it.
    fn is_markup(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    fn clean_request_id(&self) -> Option<String> {
        self.request_id.as_deref().map(|id| self.scrub(id))
    }

    fn status_and_id(&self) -> String {
        match self.clean_request_id() {
            Some(id) => format!("HTTP status {}, x-request-id {id}", self.status),
            None => format!("HTTP status {}", self.status),
        }
    }

    fn trace(&self, endpoint: &str) -> Trace {
        Trace { endpoint: endpoint.to_owned(), status: self.status, request_id: self.clean_request_id() }
    }

    /// The text without anything that was sent in confidence, as it is or as a form or JSON writes it.
    pub(super) fn scrub(&self, text: &str) -> String {
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

/// A body that is no JSON as one line of text: without HTML tags, heads and control characters.
fn plain_text(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(LONGEST_MESSAGE)]);
    let mut text = String::with_capacity(body.len());
    let is_html = body.trim_start().starts_with('<');
    let mut in_tag = false;
    for character in body.chars() {
        match character {
            '<' if is_html => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            _ if character.is_control() => text.push(' '),
            _ => text.push(character),
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// At most so many bytes of a text, cut between characters.
fn shorten(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// A duration as PostgreSQL shows its settings.
fn setting(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0".into(),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Host and port, as errors name a server: the rest of a URL may hold secrets.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("(no host)");
    match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

fn cdf_at(connection: &Connection) -> String {
    format!("CDF at {}", host(&connection.base_url))
}

#[derive(Debug, Clone, Copy)]
enum Peer<'a> {
    Cdf { project: &'a str, link: &'a Arc<Link> },
    IdentityProvider,
}

/// The error for an answer 404 to what CDF has an endpoint for.
fn no_endpoint(connection: &Connection, words: &str, trace: Trace, unsure: bool) -> Error {
    let message = format!(
        "{} has no {} for project \"{}\": {words}",
        cdf_at(connection),
        brief_endpoint(&trace.endpoint),
        connection.project
    );
    let mut error = Error::new(Kind::CannotConnect, message).trace(Some(trace)).hint(NO_ENDPOINT);
    error.unsure = unsure;
    error
}

const BETWEEN_CDF: &str =
    "Something between this server and CDF may have answered, such as a proxy. Otherwise check the base_url of the foreign \
     server.";
const BETWEEN_IDENTITY_PROVIDER: &str =
    "Is token_url correct? Otherwise something between this server and the identity provider may have answered, such as a \
     proxy.";
const NO_ENDPOINT: &str =
    "Check the project of the user mapping and the base_url of the foreign server, which is only the address of CDF's \
     cluster, as in https://westeurope-1.cognitedata.com.";

/// The error for a read that cannot go on.
fn cursor_expired(api: &ApiError) -> Error {
    let endpoint = brief_endpoint(&api.endpoint);
    Error::new(
        Kind::CursorExpired,
        format!("CDF does not take the cursor any more with which {endpoint} goes on: {}", api.message),
    )
    .trace(Some(api.trace()))
    .hint("CDF keeps the place of a read for a while only. Run the query again, fetch its rows without long pauses, or read less at once.")
}

/// A request as the user is told about it. All messages about requests are composed here.
#[derive(Debug)]
pub(super) struct Call<'a> {
    peer: Peer<'a>,
    /// Whom the request goes to, with its host.
    name: String,
    /// What is requested.
    endpoint: String,
    resend: Resend,
    owed: Owed,
    /// It changes something in CDF.
    writes: bool,
    /// The length of its body, as it is sent.
    bytes: usize,
    limits: &'a Limits,
    client_secret: &'a SecretString,
}

impl<'a> Call<'a> {
    pub(super) fn to_identity_provider(credentials: &'a Credentials, limits: &'a Limits) -> Self {
        Call {
            peer: Peer::IdentityProvider,
            name: format!("the identity provider at {}", host(&credentials.token_url)),
            endpoint: "the request for a token".into(),
            resend: Resend::Always,
            owed: Owed::Token,
            writes: false,
            bytes: 0,
            limits,
            client_secret: &credentials.client_secret,
        }
    }

    /// Takes note of the answer that is owed, as far as it is CDF's.
    fn count_answer(&self, answer: &Answer) {
        if let Peer::Cdf { .. } = self.peer {
            let id = answer.clean_request_id().map(|id| format!(" (x-request-id {id})")).unwrap_or_default();
            let words = format!("CDF's last answer to {} was {}{id}", self.endpoint, answer.status_line());
            self.limits.errand.ended(words);
        }
    }

    /// Takes note of an attempt without success.
    fn count_failure(&self, unsuccessful: &Result<Answer, Failure>) {
        let unknown = match unsuccessful {
            Ok(answer) => answer.outcome().may_have_been_applied(),
            Err(failure) => failure.may_have_been_applied(),
        };
        if self.writes {
            self.limits.errand.is_not_acknowledged(unknown);
        }
        // Running out of time is no answer: the one before is what counts.
        if matches!(unsuccessful, Err(Failure::Deadline { .. })) {
            return;
        }
        self.limits.errand.ended(match (unsuccessful, self.peer) {
            (Ok(answer), Peer::Cdf { .. }) => {
                let id =
                    answer.clean_request_id().map(|id| format!("x-request-id {id}, ")).unwrap_or_default();
                let (endpoint, status) = (&self.endpoint, answer.status_line());
                // The id comes before the message, which may be long.
                format!("CDF's last answer to {endpoint} was {status} ({id}{})", answer.message())
            }
            (Ok(answer), Peer::IdentityProvider) => {
                format!("the last answer to {} was {} ({})", self.endpoint, answer.status_line(), self.name)
            }
            (Err(failure), _) => format!("the last attempt: {}", self.describe(failure)),
        });
    }

    /// Why an attempt is repeated, in few words.
    fn why(&self, unsuccessful: &Result<Answer, Failure>) -> String {
        let why = match unsuccessful {
            Ok(answer) => answer.status_line(),
            Err(Failure::NotConnected(_)) => "no connection".to_owned(),
            Err(Failure::RequestTimeout) => "no answer within cdf_fdw.request_timeout".to_owned(),
            Err(Failure::Foreign(..)) => "no valid answer".to_owned(),
            Err(_) => "connection lost".to_owned(),
        };
        match self.peer {
            Peer::Cdf { .. } => why,
            Peer::IdentityProvider => format!("{why} of the identity provider"),
        }
    }

    /// Tells the answer that is owed from refusals and from everything else.
    fn judge(&self, answer: &Answer) -> Verdict {
        match answer.status {
            200..=299 => match self.owed.check(answer.content_type.as_deref(), &answer.body) {
                Ok(()) => Verdict::Owed,
                Err(why) => Verdict::Foreign(why),
            },
            400.. => Verdict::Refusal,
            300..=399 => Verdict::Foreign(format!(
                "it is a redirect to {}, and redirects are not followed",
                answer.redirects_to()
            )),
            _ => Verdict::Foreign("it is no answer to a request".into()),
        }
    }

    /// The error for an answer that is not a success.
    fn refused(&self, answer: &Answer, stop: Stop, attempts: u32, unsure: bool) -> RequestError {
        let Call { name, endpoint, .. } = self;
        let brief = brief_endpoint(endpoint);
        let error = match (self.peer, answer.status) {
            // Too large a request is parted, whoever finds it too large; and what is throttled goes through later.
            (_, 400..=499) if !matches!(answer.status, 408 | 413 | 425 | 429) && self.is_foreign(answer) => {
                self.refused_by_another(answer)
            }
            (Peer::Cdf { project, .. }, 401) => Error::new(
                Kind::NotAuthenticated,
                format!("{name} does not accept the token for project \"{project}\": {}", answer.message()),
            )
            .hint(
                "Check the project and the credentials of the user mapping, and the base_url of the server.",
            ),
            (_, 408 | 425) if stop != Stop::Final => {
                let message = format!("{name} did not complete {brief} in time: {}", answer.message());
                Error::new(Kind::ServerFailure, message).hint(FAILED)
            }
            (_, 429) if stop != Stop::Final => {
                let message = format!("{name} throttled {brief}: {}", answer.message());
                Error::new(Kind::Throttled, message).hint(match self.peer {
                    Peer::Cdf { .. } => THROTTLED,
                    Peer::IdentityProvider => "Try again later, or with fewer sessions that begin at once.",
                })
            }
            (Peer::IdentityProvider, 400..=499) => self.credentials_refused(answer),
            (Peer::Cdf { .. }, 500..) if stop == Stop::Final => {
                return RequestError::Api(answer.api_error(endpoint, unsure))
            }
            (_, 500..) => {
                Error::new(Kind::ServerFailure, format!("{name} failed at {brief}: {}", answer.message()))
                    .hint(FAILED)
            }
            _ => return RequestError::Api(answer.api_error(endpoint, unsure)),
        };
        let error = error.trace(Some(answer.trace(endpoint)));
        self.conclude(error, stop, attempts, unsure).into()
    }

    /// Whether an answer comes from something that stands before CDF or the identity provider. An empty one may be theirs.
    fn is_foreign(&self, answer: &Answer) -> bool {
        match self.peer {
            Peer::Cdf { .. } => {
                !answer.is_refusal() && (answer.status == 404 || !answer.body.trim_ascii().is_empty())
            }
            Peer::IdentityProvider => answer.is_markup(),
        }
    }

    /// The error for such an answer: what it refuses says nothing of credentials, capabilities and rows.
    fn refused_by_another(&self, answer: &Answer) -> Error {
        let Call { name, endpoint, .. } = self;
        let brief = brief_endpoint(endpoint);
        // It is shown as far as it is a page, or is not about credentials.
        let description = answer.description(matches!(self.peer, Peer::Cdf { .. }) || answer.is_markup());
        match (self.peer, answer.status) {
            (Peer::Cdf { project, .. }, 404) => Error::new(
                Kind::CannotConnect,
                format!("{name} has no {brief} for project \"{project}\" ({description})"),
            )
            .hint(NO_ENDPOINT),
            (Peer::IdentityProvider, 404 | 405) => {
                Error::new(Kind::CannotConnect, format!("{name} has no answer to {brief} ({description})"))
                    .hint("Check the token_url of the user mapping.")
            }
            (Peer::Cdf { .. }, _) => Error::new(
                Kind::ConnectionLost,
                format!("something before {name} refused {brief}: it is not CDF's answer ({description})"),
            )
            .hint(BETWEEN_CDF),
            (Peer::IdentityProvider, _) => Error::new(
                Kind::ConnectionLost,
                format!("something before {name} refused {brief} ({description})"),
            )
            .hint(BETWEEN_IDENTITY_PROVIDER),
        }
    }

    /// The error for an attempt without an answer; `before` is how the attempt before ended.
    fn failed(
        &self,
        failure: &Failure,
        stop: Stop,
        attempts: u32,
        before: Option<String>,
        unsure: bool,
    ) -> Error {
        let kind = match failure {
            Failure::NotConnected(_) | Failure::Untrusted(_) => Kind::CannotConnect,
            Failure::Broken(_) | Failure::RequestTimeout | Failure::Foreign(..) => Kind::ConnectionLost,
            Failure::Deadline { .. } => Kind::TimedOut,
            Failure::TooLong(_) => Kind::ServerFailure,
            Failure::Unusable(_) => Kind::InvalidOption,
        };
        let mut error = Error::new(kind, self.describe(failure));
        if kind == Kind::TimedOut {
            error.message += &format!("; {}", self.limits.errand.activity().out_of_time());
            if let Some(before) = before {
                error = error.detail(format!("The attempt before: {before}"));
            }
        }
        if matches!(failure, Failure::Untrusted(_)) {
            error = error.hint(
                "The certificate must be valid for this host, and its authority be among those that the operating system \
                 of the PostgreSQL server trusts.",
            );
        }
        if let Failure::Foreign(answer, _) = failure {
            error = error.trace(Some(answer.trace(&self.endpoint))).hint(match self.peer {
                Peer::Cdf { .. } => BETWEEN_CDF,
                Peer::IdentityProvider => BETWEEN_IDENTITY_PROVIDER,
            });
        }
        error = match (kind, self.peer) {
            (Kind::CannotConnect | Kind::ConnectionLost, Peer::Cdf { .. }) => error.or_hint(
                "Check the base_url of the foreign server, and that this server may go out to it. If it is right, try again \
                 later.",
            ),
            (Kind::CannotConnect | Kind::ConnectionLost, Peer::IdentityProvider) => error.or_hint(
                "Check the token_url of the user mapping, and that this server may go out to it. If it is right, try again \
                 later.",
            ),
            (Kind::TimedOut, _) => error.or_hint("Raise cdf_fdw.flush_timeout, or load in smaller transactions."),
            (Kind::ServerFailure, _) => error.or_hint(FAILED),
            _ => error,
        };
        self.conclude(error, stop, attempts, unsure)
    }

    fn describe(&self, failure: &Failure) -> String {
        let Call { name, limits, .. } = self;
        let endpoint = brief_endpoint(&self.endpoint);
        match failure {
            Failure::NotConnected(cause) | Failure::Untrusted(cause) => {
                format!("cannot connect to {name}: {cause}")
            }
            Failure::Broken(cause) => format!("the connection to {name} broke during {endpoint}: {cause}"),
            Failure::RequestTimeout => {
                let timeout = setting(limits.request_timeout);
                format!("{name} did not answer {endpoint} within cdf_fdw.request_timeout ({timeout})")
            }
            Failure::Deadline { sent } => {
                let timeout = setting(limits.deadline_setting);
                let what = if *sent { "was answered" } else { "was sent" };
                format!("cdf_fdw.flush_timeout ({timeout}) passed before {endpoint} {what} ({name})")
            }
            Failure::TooLong(longest) => format!("{name} answered {endpoint} with more than {longest} bytes"),
            Failure::Unusable(cause) => format!("{name} cannot be addressed: {cause}"),
            Failure::Foreign(answer, why) => {
                // Of an answer with a token in it nothing is shown, not even half of it.
                let show_text = matches!(self.peer, Peer::Cdf { .. }) || answer.is_markup();
                let description = answer.description(show_text);
                format!("{name} gave no valid answer to {endpoint}: {why} ({description})")
            }
        }
    }

    /// Adds why no further attempt was made.
    fn conclude(&self, mut error: Error, stop: Stop, attempts: u32, unsure: bool) -> Error {
        error.unsure = unsure;
        if error.trace.is_none() && brief_endpoint(&self.endpoint) != self.endpoint {
            error = error.detail(format!("Request: {}.", self.endpoint));
        }
        if stop == Stop::MayHaveBeenApplied {
            error = error.detail("The request is not sent again, since that could create its items twice.");
        }
        match stop {
            Stop::RetriesUsedUp => {
                let plural = if attempts == 1 { "" } else { "s" };
                let max_retries = self.limits.max_retries;
                error.detail(format!(
                    "Gave up after {attempts} attempt{plural} (cdf_fdw.max_retries is {max_retries})."
                ))
            }
            Stop::DeadlineTooNear => error.detail(format!(
                "cdf_fdw.flush_timeout ({}) leaves no time for another attempt.",
                setting(self.limits.deadline_setting)
            )),
            Stop::Final | Stop::MayHaveBeenApplied => error,
        }
    }

    /// The error for credentials that the identity provider refuses (RFC 6749, 5.2).
    fn credentials_refused(&self, answer: &Answer) -> Error {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(|text| answer.scrub(text));
        let Some(error) = text("error") else {
            return self.not_a_token();
        };
        let description = text("error_description").unwrap_or_default();
        // What follows the first line are trace ids and times.
        let line = description.lines().next().unwrap_or_default().trim();
        let message = format!("{} refuses the credentials: {error}", self.name);
        let message = if line.is_empty() { message } else { format!("{message}: {line}") };
        let mut refused = Error::new(Kind::NotAuthenticated, shorten(&message, LONGEST_MESSAGE));
        let rest: Vec<&str> =
            description.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
        if !rest.is_empty() {
            refused = refused.detail(shorten(&rest.join(" "), LONGEST_FOREIGN_TEXT));
        }
        refused.hint("Check client_id, client_secret, scope and token_url of the user mapping.")
    }

    /// The error for a refusal that does not say why as OAuth has it.
    fn not_a_token(&self) -> Error {
        let message = format!("{} did not answer with a token; is token_url correct?", self.name);
        Error::new(Kind::NotAuthenticated, message)
            .hint("Check token_url, client_id, client_secret and scope of the user mapping.")
    }

    /// The error for a deadline that passed before anything was sent.
    pub(super) fn deadline_passed(&self) -> Error {
        self.failed(&Failure::Deadline { sent: false }, Stop::Final, 0, None, false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::super::activity::Activity;
    use super::*;

    const SECRET: &str = "s3cr\"t+/=";
    const TOKEN: &str = "t0ken-of-the-test";
    /// What acknowledges the requests of these tests.
    const OK: &str = "{\"taken\":true}";

    /// A request as the server has read it.
    #[derive(Clone, Debug)]
    struct Seen {
        method: String,
        path: String,
        headers: HashMap<String, String>,
        body: Vec<u8>,
    }

    /// What the server does with a request.
    enum Act {
        Reply(u16, Vec<(&'static str, String)>, Vec<u8>),
        /// Replies, but closes the connection without saying so.
        ReplyAndClose(u16, Vec<u8>),
        /// Closes the connection without an answer.
        Close,
        /// Sends the beginning of a successful answer, and closes the connection.
        Break,
        /// Never answers.
        Hang,
    }

    fn reply(status: u16, body: impl Into<Vec<u8>>) -> Act {
        Act::Reply(status, vec![], body.into())
    }

    fn reply_with(status: u16, header: &'static str, value: impl Into<String>) -> Act {
        Act::Reply(status, vec![(header, value.into())], b"{\"error\":{\"message\":\"told so\"}}".to_vec())
    }

    struct Server {
        address: String,
        seen: Arc<Mutex<Vec<Seen>>>,
    }

    /// Plays the given acts for requests to the project, one after the other, the last one for ever. Token requests
    /// are answered by `token`, which is told how many there have been.
    fn serve_with(acts: Vec<Act>, token: impl Fn(usize) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
        let server = Server { address, seen: seen.clone() };
        let (acts, token) = (Arc::new(acts), Arc::new(token));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, acts, token) = (seen.clone(), acts.clone(), token.clone());
                std::thread::spawn(move || converse(stream.unwrap(), &seen, &acts, &*token));
            }
        });
        server
    }

    fn converse(stream: TcpStream, seen: &Mutex<Vec<Seen>>, acts: &[Act], token: &dyn Fn(usize) -> Act) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read_request(&mut reader) {
            let to_token = request.path.starts_with("/token");
            let before = {
                let mut seen = seen.lock().unwrap();
                seen.push(request);
                seen.iter().filter(|seen| seen.path.starts_with("/token") == to_token).count() - 1
            };
            let of_token;
            let act = match to_token {
                true => {
                    of_token = token(before);
                    &of_token
                }
                false => &acts[before.min(acts.len() - 1)],
            };
            let (status, headers, body): (_, &[_], _) = match act {
                Act::Reply(status, headers, body) => (*status, headers, body),
                Act::ReplyAndClose(status, body) => (*status, &[], body),
                Act::Close => return,
                Act::Break => {
                    let _ = (&stream).write_all(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}",
                    );
                    return;
                }
                Act::Hang => {
                    // Until the client closes the connection.
                    let _ = reader.read(&mut [0]);
                    return;
                }
            };
            let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                head += "content-type: application/json\r\n";
            }
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            let answer = [head.as_bytes(), b"\r\n", body].concat();
            if (&stream).write_all(&answer).is_err() || matches!(act, Act::ReplyAndClose(..)) {
                return;
            }
        }
    }

    fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Seen { method, path, headers, body })
    }

    fn token_answer(life: &str) -> Act {
        reply(200, format!("{{\"access_token\":\"{TOKEN}\",\"expires_in\":{life}}}"))
    }

    fn serve(acts: Vec<Act>) -> Server {
        serve_with(acts, |_| token_answer("\"3600\""))
    }

    impl Server {
        fn connection(&self) -> Connection {
            let base_url = format!("http://{}", self.address).parse().unwrap();
            let credentials = Credentials {
                token_url: format!("http://{}/token?key=query-secret", self.address).parse().unwrap(),
                client_id: "me".into(),
                client_secret: SECRET.to_owned().into(),
                scope: Some("scope/.default".into()),
                audience: None,
            };
            Connection::new(base_url, "my-project".into(), credentials)
        }

        fn requests(&self, path: &str) -> Vec<Seen> {
            self.seen.lock().unwrap().iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
        }

        /// How many requests there were to the token endpoint, and to the project.
        fn counts(&self) -> (usize, usize) {
            (self.requests("/token").len(), self.requests("/api").len())
        }
    }

    fn client() -> Client {
        // Whatever proxy the environment names does not know the test's server.
        Client::build(reqwest::Client::builder().no_proxy()).unwrap()
    }

    fn limits(max_retries: u32) -> Limits {
        let deadline_setting = Duration::from_secs(600);
        Limits {
            deadline: Instant::now() + deadline_setting,
            deadline_setting,
            request_timeout: Duration::from_secs(60),
            max_retries,
            errand: Errand::of(&Activity::asking("for something".into())),
        }
    }

    fn post(resend: Resend) -> Request {
        Request {
            method: Method::Post,
            path: "/assets?x=1".into(),
            body: Body::Json(Bytes::from_static(b"{\"items\":[]}")),
            resend,
            owed: Owed::Object,
        }
    }

    /// Sends on a new connection, within a deadline that only a test that would hang gets to see.
    #[allow(clippy::result_large_err)] // it is what the asynchronous function returns
    fn send(server: &Server, resend: Resend, limits: &Limits) -> Result<Response, RequestError> {
        block_on(client().send(&server.connection(), &post(resend), limits))
    }

    fn block_on<T>(future: impl Future<Output = T> + Send) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// The error that the user gets, after a check that it holds nothing secret.
    fn failure(result: Result<Response, RequestError>) -> Error {
        let error = result.unwrap_err().into_error("assetsAcl:WRITE");
        let shown = format!("{error} {error:?}");
        for secret in [SECRET, "s3cr", TOKEN, "Bearer", "query-secret"] {
            assert!(!shown.contains(secret), "{shown} holds {secret}");
        }
        error
    }

    fn in_error(text: &str) -> Vec<u8> {
        serde_json::json!({ "error": { "message": text } }).to_string().into_bytes()
    }

    #[test]
    fn a_url_that_is_written_in_another_way_leads_to_the_same_project() {
        let connection = |url: &str, project: &str, secret: &str| {
            let credentials = Credentials {
                token_url: "http://127.0.0.1/token".parse().unwrap(),
                client_id: "me".into(),
                client_secret: secret.to_owned().into(),
                scope: None,
                audience: None,
            };
            Connection::new(url.parse().unwrap(), project.into(), credentials)
        };
        let one = connection("https://cdf.example.com", "p", "a");
        for url in ["https://CDF.Example.com/", "HTTPS://cdf.example.com:443", "https://cdf.example.com//"] {
            assert!(one.reaches_same_as(&connection(url, "p", "b")), "{url}");
        }
        for (url, project) in [
            ("https://cdf.example.com", "q"),
            ("https://cdf.example.com:8443", "p"),
            ("http://cdf.example.com", "p"),
            ("https://cdf.example.com/behind", "p"),
            ("https://other.example.com", "p"),
        ] {
            assert!(!one.reaches_same_as(&connection(url, project, "a")), "{url} {project}");
        }
    }

    #[test]
    fn a_request_is_sent_as_cdf_expects_it() {
        let server = serve(vec![Act::Reply(201, vec![("x-request-id", "r-1".into())], b"{}".to_vec())]);
        let response = send(&server, Resend::Always, &limits(0)).unwrap();
        assert_eq!((response.status, &response.body[..]), (201, &b"{}"[..]));
        assert_eq!(response.request_id.as_deref(), Some("r-1"));
        let seen = &server.requests("/api")[0];
        assert_eq!((&seen.method[..], &seen.path[..]), ("POST", "/api/v1/projects/my-project/assets?x=1"));
        assert_eq!(seen.body, b"{\"items\":[]}");
        for (name, value) in [
            ("authorization", "Bearer t0ken-of-the-test"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            ("x-cdp-app", "cdf_fdw"),
            ("cdf-version", "20230101"),
            ("accept-encoding", "gzip"),
        ] {
            assert_eq!(seen.headers.get(name).map(String::as_str), Some(value), "{name}");
        }
        let form = server.requests("/token")[0].clone();
        assert_eq!(form.headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!(
            form.body,
            b"grant_type=client_credentials&client_id=me&client_secret=s3cr%22t%2B%2F%3D&scope=scope%2F.default"
        );
    }

    #[test]
    fn long_bodies_are_compressed_both_ways() {
        let text = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(5000)));
        let compressed = gzip::compress(&text).unwrap();
        let server =
            serve(vec![Act::Reply(200, vec![("content-encoding", "gzip".into())], compressed.clone())]);
        let request = Request { body: Body::Protobuf(text.clone()), ..post(Resend::Always) };
        let response = block_on(client().send(&server.connection(), &request, &limits(0))).unwrap();
        assert_eq!(response.body, text);
        let seen = &server.requests("/api")[0];
        assert_eq!(seen.headers["content-encoding"], "gzip");
        assert_eq!(seen.headers["content-type"], "application/protobuf");
        assert_eq!(seen.body, compressed);
    }

    #[test]
    fn making_a_connection_is_timed() {
        let server = serve(vec![reply(200, "")]);
        let (client, connection) = (client(), server.connection());
        assert!(!connection.link.is_measured());
        let asked = client.http().get(connection.project_url("/assets").unwrap()).send();
        block_on(connection.link.measured(asked)).unwrap();
        assert!(connection.link.is_measured());
    }

    #[test]
    fn nothing_is_compressed_for_a_server_that_is_near() {
        let server = serve(vec![reply(200, OK)]);
        let connection = server.connection();
        let request = Request { body: Body::Protobuf(Bytes::from("x".repeat(5000))), ..post(Resend::Always) };
        let client = client();
        block_on(async {
            client.send(&connection, &request, &limits(0)).await.unwrap();
            connection.link.connected_within(Duration::from_micros(100));
            client.send(&connection, &request, &limits(0)).await.unwrap();
        });
        let compressed: Vec<bool> = server
            .requests("/api")
            .iter()
            .map(|request| request.headers.contains_key("content-encoding"))
            .collect();
        assert_eq!(compressed, [true, false], "before the first connection nothing is known");
    }

    #[test]
    fn a_server_error_is_retried() {
        let server = serve(vec![reply(503, ""), reply(502, "<html>"), reply(200, OK)]);
        assert_eq!(send(&server, Resend::Always, &limits(5)).unwrap().body, OK);
        assert_eq!(server.counts(), (1, 3));
    }

    #[test]
    fn retries_end_and_the_error_tells_why() {
        let unavailable = || Act::Reply(503, vec![("x-request-id", "r-9".into())], in_error("under repair"));
        let server = serve(vec![unavailable()]);
        let error = failure(send(&server, Resend::Always, &limits(2)));
        assert_eq!(error.kind, Kind::ServerFailure);
        assert!(error.message.contains("POST /assets: under repair"), "{error}");
        assert!(error.to_string().ends_with("; it may have been accepted; x-request-id r-9"), "{error}");
        assert!(error.detail[0].contains("after 3 attempts"), "{error:?}");
        assert_eq!(server.counts(), (1, 3));
    }

    #[test]
    fn throttling_is_told_as_such() {
        let server = serve(vec![reply(429, in_error("Project exceeded 50 requests"))]);
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
        assert_eq!(error.kind, Kind::Throttled);
        assert!(error.message.ends_with("POST /assets: Project exceeded 50 requests"), "{error}");
        assert_eq!(server.counts(), (1, 2));
    }

    #[test]
    fn a_wish_to_wait_beyond_the_deadline_ends_the_request_at_once() {
        let server = serve(vec![reply_with(429, "retry-after", "3600")]);
        let error = failure(send(&server, Resend::Always, &limits(5)));
        assert_eq!(error.kind, Kind::Throttled);
        assert!(error.detail.iter().any(|line| line.contains("cdf_fdw.flush_timeout (10min)")), "{error:?}");
        assert_eq!(server.counts(), (1, 1));
    }

    #[test]
    fn what_may_have_arrived_is_not_sent_again_when_that_would_create_items_twice() {
        for (act, kind) in [
            (Act::Close, Kind::ConnectionLost),
            (Act::Break, Kind::ConnectionLost),
            (reply(500, ""), Kind::ServerFailure),
            (reply(504, "<html>Gateway timeout</html>"), Kind::ServerFailure),
            (reply(501, ""), Kind::ServerFailure),
        ] {
            let server = serve(vec![act, reply(200, OK)]);
            let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.to_string().contains("may have been accepted"), "{error}");
            assert_eq!(server.counts(), (1, 1));
        }
    }

    #[test]
    fn what_did_certainly_not_arrive_is_sent_again() {
        let server = serve(vec![
            reply(429, ""),
            reply(401, ""),
            reply_with(503, "cdf-is-auto-retryable", "true"),
            reply(200, OK),
        ]);
        assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(5)).unwrap().body, OK);
        assert_eq!(server.counts(), (2, 4));
    }

    #[test]
    fn a_broken_connection_is_retried_if_that_does_no_harm() {
        let server = serve(vec![Act::Close, Act::Break, reply(200, OK)]);
        assert_eq!(send(&server, Resend::Always, &limits(5)).unwrap().body, OK);
        let server = serve(vec![Act::Close]);
        let error = failure(send(&server, Resend::Always, &limits(1)));
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.to_string().contains("may have been"), "{error}");
    }

    #[test]
    fn a_pooled_connection_that_the_server_has_closed_does_no_harm() {
        let server = serve(vec![Act::ReplyAndClose(200, br#"{"a":1}"#.to_vec()), reply(200, OK)]);
        let (client, connection, request, limits) =
            (client(), server.connection(), post(Resend::Always), limits(5));
        block_on(async {
            assert_eq!(client.send(&connection, &request, &limits).await.unwrap().body, r#"{"a":1}"#);
            assert_eq!(client.send(&connection, &request, &limits).await.unwrap().body, OK);
        });
    }

    #[test]
    fn a_refusal_is_passed_on_with_what_it_names() {
        let body = br#"{"error":{"code":400,"message":"Not found","missing":[{"id":7},{"externalId":"a"},
            {"instanceId":{"space":"s","externalId":"b"}},{"what":1}],"duplicated":[{"externalId":"c"}]}}"#;
        let server = serve(vec![reply(400, &body[..])]);
        let Err(RequestError::Api(error)) = send(&server, Resend::OnlyIfNotReceived, &limits(5)) else {
            panic!("no refusal")
        };
        assert_eq!(
            (error.status, &error.message[..], &error.endpoint[..]),
            (400, "Not found", "POST /assets")
        );
        let instance = Identity::Instance { space: "s".into(), external_id: "b".into() };
        assert_eq!(error.missing, [Identity::Id(7), Identity::ExternalId("a".into()), instance]);
        assert_eq!(error.duplicated, [Identity::ExternalId("c".into())]);
        assert_eq!(server.counts(), (1, 1));
    }

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

    #[test]
    fn a_refused_token_is_renewed_once() {
        let server = serve(vec![reply(401, in_error("expired")), reply(200, OK)]);
        assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(0)).unwrap().body, OK);
        assert_eq!(server.counts(), (2, 2));

        let server = serve(vec![reply(401, in_error("Could not authenticate."))]);
        let error = failure(send(&server, Resend::Always, &limits(5)));
        assert_eq!(error.kind, Kind::NotAuthenticated);
        assert!(error.message.contains("\"my-project\": Could not authenticate."), "{error}");
        assert_eq!(server.counts(), (2, 2));
    }

    #[test]
    fn points_are_asked_for_in_protobuf() {
        let message = b"\x0a\x02ab".to_vec();
        let headers = || vec![("content-type", "application/protobuf".into())];
        let server = serve(vec![Act::Reply(200, headers(), message.clone())]);
        let request = Request { owed: Owed::Points, ..post(Resend::Always) };
        let response = block_on(client().send(&server.connection(), &request, &limits(0))).unwrap();
        assert_eq!(response.body, message);
        assert_eq!(server.requests("/api")[0].headers["accept"], "application/protobuf");

        let server = serve(vec![Act::Reply(200, headers(), b"\x0a\x03ab".to_vec())]);
        let error = failure(block_on(client().send(&server.connection(), &request, &limits(0))));
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.message.contains("content type application/protobuf"), "{error}");
    }

    /// Answers with a status of success that acknowledge nothing, and what an error tells of each.
    fn foreign_answers() -> Vec<(Act, &'static str)> {
        let html = |body: &str| Act::Reply(200, vec![("content-type", "text/html".into())], body.into());
        vec![
            (
                html("<html><title>Sign in</title> with \u{7} care"),
                "content type text/html: Sign in with care",
            ),
            (html("{}"), "it is not JSON"),
            (html("<html><body class='x' "), "HTTP status 200"),
            (reply(204, ""), "HTTP status 204, content type application/json: empty"),
            (reply(200, "[]"), "it is no JSON object"),
            (reply(202, "{\"items\":[{\"id\":1"), "it ends too early"),
            (reply(200, in_error("nothing happened")), "it holds an error"),
            (reply(302, ""), "it is a redirect to nowhere"),
        ]
    }

    #[test]
    fn an_answer_that_is_not_the_one_owed_is_an_unknown_outcome() {
        for (act, words) in foreign_answers() {
            let server = serve(vec![act]);
            let error = failure(send(&server, Resend::Always, &limits(1)));
            assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
            assert!(error.message.contains("no valid answer to POST /assets"), "{error}");
            assert!(error.message.contains(words), "{words}: {error}");
            assert!(error.to_string().contains("may have been") && !error.message.contains('<'), "{error}");
            assert!(error.detail.iter().any(|line| line.contains("after 2 attempts")), "{error:?}");
            assert_eq!(server.counts(), (1, 2));
        }
        for (act, words) in foreign_answers() {
            let server = serve(vec![act, reply(200, OK)]);
            let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
            assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
            assert!(error.to_string().contains("may have been accepted"), "{words}: {error}");
            assert_eq!(server.counts(), (1, 1));
        }
    }

    #[test]
    fn an_unknown_outcome_may_be_followed_by_the_answer_that_is_owed() {
        for (act, words) in foreign_answers() {
            let server = serve(vec![act, reply(200, OK)]);
            assert_eq!(send(&server, Resend::Always, &limits(1)).unwrap().body, OK, "{words}");
        }
    }

    #[test]
    fn as_many_items_come_back_as_were_sent() {
        let request = Request { owed: Owed::Items(1), ..post(Resend::Always) };
        let server = serve(vec![
            reply(201, "{\"items\":[]}"),
            reply(200, "{}"),
            reply(201, "{\"items\":[{\"id\":1}]}"),
        ]);
        let response = block_on(client().send(&server.connection(), &request, &limits(5))).unwrap();
        assert_eq!((response.status, server.counts()), (201, (1, 3)));
    }

    #[test]
    fn half_of_a_compressed_answer_is_none() {
        let compressed = gzip::compress(OK.as_bytes()).unwrap();
        let half = compressed[..compressed.len() - 9].to_vec();
        let act = Act::Reply(200, vec![("content-encoding", "gzip".into())], half);
        let server = serve(vec![act]);
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.to_string().contains("may have been accepted"), "{error}");
    }

    #[test]
    fn redirects_are_not_followed_and_named() {
        for status in [301, 307] {
            let elsewhere = serve(vec![reply(200, OK)]);
            let location = format!("http://u:{TOKEN}@{}/else?{TOKEN}", elsewhere.address);
            let server = serve(vec![reply_with(status, "location", location)]);
            let error = failure(send(&server, Resend::Always, &limits(1)));
            assert_eq!(error.kind, Kind::ConnectionLost);
            assert!(error.message.contains(&format!("to http://{}/else,", elsewhere.address)), "{error}");
            assert_eq!((server.counts(), elsewhere.counts()), ((1, 2), (0, 0)));
        }
    }

    #[test]
    fn parallel_requests_share_one_token() {
        let server = serve(vec![reply(200, OK)]);
        let (client, connection) = (client(), Arc::new(server.connection()));
        block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..8 {
                let (client, connection) = (client.clone(), connection.clone());
                tasks.push(tokio::spawn(async move {
                    client.send(&connection, &post(Resend::Always), &limits(0)).await
                }));
            }
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().body, OK);
            }
        });
        assert_eq!(server.counts(), (1, 8));
    }

    #[test]
    fn parallel_requests_share_a_failure_to_get_a_token() {
        let server = serve_with(vec![reply(200, OK)], |_| reply(400, in_error("invalid_scope")));
        let (client, connection) = (client(), Arc::new(server.connection()));
        block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..8 {
                let (client, connection) = (client.clone(), connection.clone());
                tasks.push(tokio::spawn(async move {
                    client.send(&connection, &post(Resend::Always), &limits(0)).await
                }));
            }
            for task in tasks {
                assert_eq!(failure(task.await.unwrap()).kind, Kind::NotAuthenticated);
            }
        });
        assert_eq!(server.counts(), (1, 0));
    }

    #[test]
    fn a_token_without_life_is_renewed_for_each_request() {
        let server = serve_with(vec![reply(200, OK)], |_| token_answer("0"));
        let (client, connection, limits) = (client(), server.connection(), limits(0));
        block_on(async {
            client.send(&connection, &post(Resend::Always), &limits).await.unwrap();
            client.send(&connection, &post(Resend::Always), &limits).await.unwrap();
        });
        assert_eq!(server.counts(), (2, 2));
    }

    #[test]
    fn a_renewed_token_survives_the_refusal_of_its_predecessor() {
        let server = serve(vec![reply(200, OK)]);
        let (client, connection, limits) = (client(), server.connection(), limits(0));
        block_on(async {
            connection.token.get(&client, &connection.credentials, &limits).await.unwrap();
            connection.token.invalidate(&"an older one".to_owned().into()).await;
            connection.token.get(&client, &connection.credentials, &limits).await.unwrap();
            connection.token.invalidate(&TOKEN.to_owned().into()).await;
            connection.token.get(&client, &connection.credentials, &limits).await.unwrap();
        });
        assert_eq!(server.counts(), (2, 0));
    }

    #[test]
    fn refused_credentials_are_told_in_the_words_of_the_identity_provider() {
        let body = r#"{"error":"invalid_client","error_description":"Invalid secret s3cr\"t+/= or s3cr%22t%2B%2F%3D.\r\nTrace ID: 1"}"#;
        let server = serve_with(vec![reply(200, OK)], move |_| reply(401, body));
        let error = failure(send(&server, Resend::Always, &limits(5)));
        assert_eq!(error.kind, Kind::NotAuthenticated);
        assert!(error.message.ends_with("invalid_client: Invalid secret *** or ***."), "{error}");
        assert_eq!(server.counts(), (1, 0));
    }

    #[test]
    fn what_is_no_token_is_told_as_such() {
        let server = serve_with(vec![reply(200, OK)], |_| reply(404, "nothing here"));
        let error = failure(send(&server, Resend::Always, &limits(5)));
        assert_eq!(error.kind, Kind::NotAuthenticated);
        assert!(error.message.ends_with("is token_url correct?"), "{error}");
        for (answer, words) in [
            ("<html>Log in</html>".to_owned(), "it is not JSON"),
            (format!("{{\"access_token\":\"{TOKEN}"), "it is not JSON"),
            (format!("access_token={TOKEN}"), "it is not JSON"),
            ("{\"access_token\":\"\"}".to_owned(), "its access_token is empty"),
            (format!("{{\"access_token\":\"{TOKEN}\\nb\"}}"), "characters that no request can carry"),
            (
                format!("{{\"access_token\":\"{TOKEN}\",\"token_type\":\"mac\"}}"),
                "its token_type is none that CDF takes",
            ),
        ] {
            let server = serve_with(vec![reply(200, OK)], move |_| reply(200, answer.clone()));
            let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
            assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
            assert!(error.message.contains("no valid answer to the request for a token"), "{error}");
            assert!(error.message.contains(words) && error.message.contains(&server.address), "{error}");
            assert_eq!(server.counts(), (2, 0));
        }
    }

    #[test]
    fn what_no_request_can_carry_is_not_kept_as_a_token() {
        let server = serve_with(vec![reply(200, OK)], |before| match before {
            0 => reply(200, format!("{{\"access_token\":\"{TOKEN}\\r\\nx: y\"}}")),
            _ => token_answer("3600"),
        });
        let (client, connection) = (client(), server.connection());
        let error = failure(block_on(client.send(&connection, &post(Resend::Always), &limits(0))));
        assert_eq!(error.kind, Kind::ConnectionLost);
        block_on(client.send(&connection, &post(Resend::Always), &limits(0))).unwrap();
        assert_eq!(server.counts(), (2, 1));
    }

    #[test]
    fn a_failing_identity_provider_is_asked_again() {
        let server = serve_with(vec![reply(200, OK)], |before| match before {
            0 => reply(500, SECRET),
            _ => token_answer("3600"),
        });
        assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(1)).unwrap().body, OK);
        let server = serve_with(vec![reply(200, OK)], |_| reply(500, in_error(SECRET)));
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
        assert_eq!(error.kind, Kind::ServerFailure);
        assert!(error.message.contains("identity provider") && error.message.ends_with("***"), "{error}");
        assert_eq!(server.counts(), (2, 0));
    }

    #[test]
    fn nothing_that_cdf_repeats_gives_a_secret_away() {
        for body in [TOKEN.into(), in_error(TOKEN), in_error(SECRET), SECRET.into()] {
            let server = serve(vec![Act::Reply(403, vec![("x-request-id", TOKEN.into())], body)]);
            let error = failure(send(&server, Resend::Always, &limits(0)));
            assert!(matches!(error.kind, Kind::Forbidden | Kind::ConnectionLost), "{error}");
        }
        let shown = format!("{:?}", serve(vec![reply(200, "")]).connection());
        assert!(!shown.contains("s3cr") && !shown.contains("query-secret"), "{shown}");
    }

    /// An address where nobody listens.
    fn nobody() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[test]
    fn who_cannot_be_reached_is_named() {
        let server = serve(vec![reply(200, OK)]);
        let mut connection = server.connection();
        let address = nobody();
        connection.base_url = format!("http://{address}").parse().unwrap();
        let request = post(Resend::OnlyIfNotReceived);
        let error = failure(block_on(client().send(&connection, &request, &limits(1))));
        assert_eq!(error.kind, Kind::CannotConnect);
        assert!(error.message.contains(&format!("CDF at {address}")), "{error}");
        assert!(error.message.contains("refused") && !error.to_string().contains("may have been"), "{error}");
        assert!(error.detail[0].contains("after 2 attempts"), "{error:?}");

        let address = nobody();
        let mut connection = server.connection();
        connection.credentials.token_url =
            format!("http://u:query-secret@{address}/query-secret").parse().unwrap();
        let error = failure(block_on(client().send(&connection, &request, &limits(0))));
        assert_eq!(error.kind, Kind::CannotConnect);
        assert!(error.message.contains(&format!("identity provider at {address}")), "{error}");
    }

    /// Sends on a connection that has its token already, so that a short timeout is that of the request.
    fn send_with_token(server: &Server, resend: Resend, limits: impl FnOnce() -> Limits + Send) -> Error {
        let (client, connection) = (client(), server.connection());
        block_on(async {
            connection.token.get(&client, &connection.credentials, &self::limits(0)).await.unwrap();
            failure(client.send(&connection, &post(resend), &limits()).await)
        })
    }

    #[test]
    fn a_request_that_times_out_names_the_setting() {
        let server = serve(vec![Act::Hang]);
        let hasty = || Limits { request_timeout: Duration::from_millis(200), ..limits(1) };
        let error = send_with_token(&server, Resend::Always, hasty);
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.message.ends_with("cdf_fdw.request_timeout (200ms)"), "{error}");
        assert!(error.detail[0].contains("after 2 attempts"), "{error:?}");

        let error = send_with_token(&serve(vec![Act::Hang]), Resend::OnlyIfNotReceived, hasty);
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.to_string().contains("may have been accepted"), "{error}");
        assert!(error.detail.concat().contains("not sent again"), "{error:?}");
    }

    #[test]
    fn a_deadline_that_passes_names_the_setting_and_the_attempt_before() {
        let server = serve(vec![reply(503, in_error("under repair")), Act::Hang]);
        let short = || Limits { deadline: Instant::now() + Duration::from_secs(1), ..limits(9) };
        let error = send_with_token(&server, Resend::Always, short);
        assert_eq!(error.kind, Kind::TimedOut);
        assert!(error
            .message
            .contains("cdf_fdw.flush_timeout (10min) passed before POST /assets was answered"));
        assert!(error.detail.iter().any(|line| line.ends_with("HTTP status 503: under repair")), "{error:?}");

        let late = Limits { deadline: Instant::now(), ..limits(9) };
        let server = serve(vec![reply(200, OK)]);
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &late));
        assert_eq!(error.kind, Kind::TimedOut);
        assert!(!error.to_string().contains("may have been"), "{error}");
        assert_eq!(server.counts(), (0, 0));
    }

    #[test]
    fn an_answer_without_end_is_not_read_to_its_end() {
        let long = "x".repeat(2000);
        let server = serve(vec![reply(200, long.clone()), reply(400, long)]);
        let client = Client { longest_answer: 1000, ..client() };
        let (connection, request, limits) = (server.connection(), post(Resend::Always), limits(5));
        let result = block_on(client.send(&connection, &request, &limits));
        let error = failure(result);
        assert_eq!(error.kind, Kind::ServerFailure);
        assert!(error.message.contains("more than 1000 bytes"), "{error}");
        let result = block_on(client.send(&connection, &request, &limits));
        assert_eq!(failure(result).kind, Kind::InvalidValue);
        assert_eq!(server.counts().1, 2);
    }

    #[test]
    fn a_token_is_inspected() {
        let body = r#"{"subject":"sub","projects":[{"projectUrlName":"a","groups":[1]},{"projectUrlName":"b"}],
            "capabilities":[{"assetsAcl":{}}]}"#;
        let server = serve(vec![reply(200, body), reply(200, OK)]);
        let (client, connection, limits) = (client(), server.connection(), limits(0));
        let inspection = block_on(client.inspect_token(&connection, &limits)).unwrap();
        assert_eq!(
            (&inspection.subject[..], &inspection.projects[..]),
            ("sub", &["a".into(), "b".into()][..])
        );
        assert!(inspection.capabilities[0]["assetsAcl"].is_object());
        assert_eq!(server.requests("/api")[0].path, "/api/v1/token/inspect");
        let Err(RequestError::Failed(error)) = block_on(client.inspect_token(&connection, &limits)) else {
            panic!("an inspection")
        };
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.message.contains("GET /api/v1/token/inspect"), "{error}");
    }

    #[test]
    fn addresses_are_composed_and_never_lead_elsewhere() {
        let server = serve(vec![reply(200, "")]);
        let mut connection = server.connection();
        connection.base_url = "https://u:p@host.example:8443/prefix/?q#f".parse().unwrap();
        connection.project = "a b/c".into();
        let url = |path: &str| connection.project_url(path).map(|url| url.to_string());
        let prefix = "https://host.example:8443/prefix/api/v1/projects/a%20b%2Fc";
        assert_eq!(url("/x%2Fy?a=b%2F/..").unwrap(), format!("{prefix}/x%2Fy?a=b%2F/.."));
        for path in [
            "/raw/dbs/../tables",
            "/raw/dbs/%2E%2e/tables",
            "/raw/dbs/./tables",
            "/rows/.",
            "/rows/..",
            "/rows/%2e",
        ] {
            assert_eq!(url(path).unwrap_err().kind, Kind::InvalidValue, "{path}");
        }
        connection.base_url = "mailto:someone".parse().unwrap();
        assert_eq!(connection.project_url("/x").unwrap_err().kind, Kind::InvalidOption);
    }

    #[test]
    fn settings_are_shown_as_postgresql_shows_them() {
        let shown = |ms| setting(Duration::from_millis(ms));
        assert_eq!([shown(0), shown(1500), shown(90_000), shown(600_000)], ["0", "1500ms", "90s", "10min"]);
    }
}
