//! The way of a request: log, body, faults, throttling, authentication, capability, resource, answer.

use std::sync::Arc;

use axum::body::{to_bytes, Body};
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::Router;
use percent_encoding::percent_decode_str;

use crate::auth::Auth;
use crate::codec;
use crate::errors::ApiError;
use crate::faults::{Fault, Faults, Mode, When};
use crate::limits::Limits;
use crate::record::{Flight, Record};
use crate::reply::{Counts, Cut, Ending, Reply, Request, JSON};
use crate::store::Store;
use crate::{admin, description, resources};

/// Answers larger than this are compressed for clients that ask for it.
const COMPRESS_ABOVE: usize = 1024;

/// Longer URLs are refused.
const LONGEST_URL: usize = 8 << 10;

/// The state of the emulator.
#[derive(Default)]
pub struct App {
    /// Clients and tokens.
    pub auth: Auth,
    /// The faults that were ordered.
    pub faults: Faults,
    /// The limits that were ordered.
    pub limits: Limits,
    /// Request log.
    pub record: Record,
    /// Data.
    pub store: Store,
}

impl App {
    /// Restores the state after the start.
    pub fn reset(&self) {
        self.auth.reset();
        self.faults.clear();
        self.limits.clear();
        self.record.clear();
        self.store.clear();
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new().nest("/admin", admin::router()).fallback(handle).with_state(app)
}

/// Where a request goes.
#[derive(Debug, PartialEq)]
enum Target {
    Token,
    Inspect,
    Resource { project: String, segments: Vec<String> },
    Unknown,
}

impl Target {
    fn of(path: &str) -> Self {
        if path.ends_with("/oauth2/v2.0/token") {
            return Self::Token;
        }
        let Some(rest) = path.strip_prefix("/api/v1/") else {
            return Self::Unknown;
        };
        if rest == "token/inspect" {
            return Self::Inspect;
        }
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        match rest.strip_prefix("projects/").and_then(|rest| rest.split_once('/')) {
            Some((project, path)) if !project.is_empty() => {
                Self::Resource { project: decode(project), segments: path.split('/').map(decode).collect() }
            }
            _ => Self::Unknown,
        }
    }

    /// Returns the path that faults and limits are compared with: the part after the project.
    fn relative<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Self::Resource { .. } => {
                let from = path.match_indices('/').nth(4).map_or(0, |(at, _)| at);
                &path[from..]
            }
            Self::Inspect => "/token/inspect",
            Self::Token | Self::Unknown => path,
        }
    }
}

/// Returns a path as HTTP servers and clients understand it: `.` and `..` are directions, even if percent-encoded.
fn without_directions(path: &str) -> String {
    let direction = |segment: &str| segment.to_ascii_lowercase().replace("%2e", ".");
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match &*direction(part) {
            "." | ".." if is_last => {
                if direction(part) == ".." && segments.len() > 1 {
                    segments.pop();
                }
                segments.push("");
            }
            "." => {}
            ".." if segments.len() > 1 => drop(segments.pop()),
            ".." => {}
            _ => segments.push(part),
        }
    }
    segments.join("/")
}

/// Closes the connection without an answer. hyper has no such answer, but each connection is a task of its own, and a
/// task that unwinds drops its socket. `resume_unwind` does so without the message of a panic.
fn hang_up() -> ! {
    std::panic::resume_unwind(Box::new("connection dropped on request"))
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn handle(State(app): State<Arc<App>>, request: axum::extract::Request) -> Response {
    let mut flight = app.record.begin();
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let path = without_directions(parts.uri.path());
    let target = Target::of(&path);
    let relative = target.relative(&path).to_owned();
    let gzip_wanted =
        text(headers, header::ACCEPT_ENCODING).split(',').any(|coding| coding.trim().starts_with("gzip"));

    let entry = &mut flight.entry;
    entry.method = parts.method.to_string();
    entry.path = match parts.uri.query() {
        Some(query) => format!("{relative}?{query}"),
        None => relative.clone(),
    };
    entry.request_id = codec::uuid();
    entry.content_type = text(headers, header::CONTENT_TYPE).to_owned();
    entry.content_encoding = text(headers, header::CONTENT_ENCODING).to_owned();
    entry.user_agent = text(headers, header::USER_AGENT).to_owned();
    if let Target::Resource { project, .. } = &target {
        entry.project = Some(project.clone());
    }

    // The client left in the middle of its body, or the body never ends: there is nobody to answer.
    let Ok(wire) = to_bytes(body, codec::MAX_BODY).await else { hang_up() };
    flight.entry.body_bytes = wire.len() as u64;

    // The gateways between CDF and its customers do the same.
    if parts.uri.to_string().len() > LONGEST_URL {
        let page = "<html><head><title>414 Request-URI Too Large</title></head></html>".into();
        let reply = Reply {
            status: 414,
            content_type: "text/html".into(),
            body: page,
            headers: Vec::new(),
            cut: None,
        };
        return respond(&mut flight, reply, gzip_wanted);
    }
    // Faults strike before everything else, as those of a gateway do.
    let faults = app.faults.strike(parts.method.as_str(), &relative);
    if let Some(reply) = suffer(&faults, When::Before, None).await {
        return respond(&mut flight, reply, gzip_wanted);
    }
    let permit = match app.limits.enter(&relative) {
        Ok(permit) => permit,
        Err(reply) => return respond(&mut flight, reply, gzip_wanted),
    };

    let request =
        Incoming { method: parts.method, uri: parts.uri, headers: parts.headers, wire: wire.into() };
    let reply = apply(&app, &mut flight, target, request).unwrap_or_else(Reply::from);

    let reply = suffer(&faults, When::After, Some(&reply)).await.unwrap_or(reply);
    drop(permit);
    respond(&mut flight, reply, gzip_wanted)
}

/// Applies the faults of one side of the request's application. `reply` is its answer. Some: this is answered instead.
async fn suffer(faults: &[Fault], when: When, reply: Option<&Reply>) -> Option<Reply> {
    for fault in faults.iter().filter(|fault| fault.when() == when) {
        tokio::time::sleep(fault.delay()).await;
        match fault.mode() {
            Mode::Delay => {}
            Mode::Status => return Some(fault.reply()),
            Mode::Cut => return reply.map(|reply| Reply { cut: Some(fault.cut()), ..reply.clone() }),
            Mode::DropBefore | Mode::DropAfter => hang_up(),
            // It is dropped with the connection when the client leaves.
            Mode::Stall => std::future::pending().await,
        }
    }
    None
}

struct Incoming {
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    wire: Vec<u8>,
}

fn apply(app: &App, flight: &mut Flight<'_>, target: Target, incoming: Incoming) -> Result<Reply, ApiError> {
    let Incoming { method, uri, headers, wire } = incoming;
    let body = match flight.entry.content_encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => wire,
        "gzip" => codec::gunzip(&wire)?,
        other => return Err(ApiError::new(415, format!("Unsupported Content-Encoding '{other}'"))),
    };
    flight.entry.decoded_bytes = body.len() as u64;
    let content_type =
        flight.entry.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();

    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match target {
        Target::Unknown => Err(ApiError::new(404, "Not Found")),
        // The form holds the client secret: only its client id reaches the log.
        Target::Token if method == Method::POST => {
            let (client_id, reply) = app.auth.token(&content_type, authorization, &body);
            flight.entry.client_id = client_id;
            Ok(reply)
        }
        Target::Token => Err(ApiError::new(405, "Method Not Allowed")),
        Target::Inspect => {
            let client = app.auth.authenticate(authorization)?;
            flight.entry.client_id = Some(client.id().to_owned());
            if method != Method::GET {
                return Err(ApiError::new(405, "Method Not Allowed"));
            }
            Ok(Auth::inspect(&client))
        }
        // They contain nonces, keys and secrets, which must not reach the log.
        Target::Resource { project, segments } if segments[0] == "sessions" => {
            let (client_id, reply) =
                app.auth.sessions(&method, &project, &segments[1..], authorization, &body)?;
            flight.entry.client_id = Some(client_id);
            Ok(reply)
        }
        Target::Resource { project, segments } => {
            if content_type == JSON {
                flight.entry.keep_body(&body);
            }
            let client = app.auth.authenticate(authorization)?;
            flight.entry.client_id = Some(client.id().to_owned());
            let query = uri.query().unwrap_or_default();
            let mut request = Request {
                query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
                accept: text(&headers, header::ACCEPT).to_owned(),
                counts: Counts::default(),
                method,
                segments,
                body,
                parsed: None,
                content_type,
            };
            let route = resources::route(&request)?;
            Auth::authorize(&client, &project, route.acl, route.action)?;
            if request.content_type == JSON && description::has_body(&request.method, &request.segments) {
                request.parsed = serde_json::from_slice(&request.body).ok();
            }
            let reply = match description::check(&request) {
                Ok(()) => (route.run)(&app.store.project(&project), &mut request),
                Err(refused) => {
                    // This counts the body for the log.
                    drop(request.json());
                    Err(refused)
                }
            };
            flight.entry.counts = request.counts;
            reply
        }
    }
}

fn respond(flight: &mut Flight<'_>, reply: Reply, gzip_wanted: bool) -> Response {
    let gzip =
        reply.cut.map_or(gzip_wanted && reply.body.len() > COMPRESS_ABOVE, |cut| cut.how == Ending::Gzip);
    let compressed = gzip.then(|| codec::gzip(&reply.body).ok()).flatten();
    let encoded = compressed.is_some();
    let mut body = compressed.unwrap_or(reply.body);
    if let Some(cut) = reply.cut {
        body.truncate(cut.bytes);
    }
    let entry = &mut flight.entry;
    entry.status = reply.status;
    entry.response_bytes = body.len() as u64;

    let body = match reply.cut {
        Some(Cut { how: Ending::Chunk, .. }) => {
            // Without a length the body is sent in chunks, and an error ends them before the last one.
            let chunks = [Ok(body), Err(std::io::Error::other("cut on request"))];
            Body::from_stream(futures_util::stream::iter(chunks))
        }
        _ => Body::from(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, &reply.content_type);
    set(HeaderName::from_static("x-request-id"), &entry.request_id);
    set(header::VARY, "Accept-Encoding");
    if encoded {
        set(header::CONTENT_ENCODING, "gzip");
    }
    for (name, value) in &reply.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            set(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_followed() {
        for (path, meant) in [
            ("/a/b", "/a/b"),
            ("/rows/.", "/rows/"),
            ("/rows/..", "/"),
            ("/t/rows/%2E%2e", "/t/"),
            ("/t/./rows", "/t/rows"),
            ("/../x", "/x"),
            ("/rows/...", "/rows/..."),
            ("/rows/%252e", "/rows/%252e"),
            ("/rows/", "/rows/"),
        ] {
            assert_eq!(without_directions(path), meant, "{path}");
        }
    }

    #[test]
    fn targets_and_relative_paths() {
        let path = "/api/v1/projects/p/raw/dbs/a%2Fb/tables";
        let target = Target::of(path);
        assert_eq!(target.relative(path), "/raw/dbs/a%2Fb/tables");
        let segments = ["raw", "dbs", "a/b", "tables"].map(str::to_owned).to_vec();
        assert_eq!(target, Target::Resource { project: "p".into(), segments });
        assert_eq!(Target::of("/tenant/oauth2/v2.0/token"), Target::Token);
        assert_eq!(Target::of("/api/v1/token/inspect"), Target::Inspect);
        assert_eq!(Target::of("/api/v1/projects/p"), Target::Unknown);
    }
}
