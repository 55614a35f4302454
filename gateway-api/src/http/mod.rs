//! The routes, and what holds for all of them.

mod auth;
mod body;
mod create;
mod limits;
mod openapi;
mod own_tables;
mod tables;
mod users;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::http::{header, HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{json, Value};

use crate::cdf::Cdf;
use crate::config::{Config, TokenHosts};
use crate::database::{users as database_users, Database};
use crate::error::ApiError;
use crate::log;
use auth::Caller;
use limits::{Rate, REQUEST_TIMEOUT};

/// What all requests share.
pub struct App {
    pub cdf: Cdf,
    pub database: Database,
    pub token_hosts: TokenHosts,
    /// The host that users are told to connect to.
    pub host: String,
    rate: Rate,
    requests: AtomicU64,
}

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, ApiError>;

impl App {
    /// Makes what requests share. It connects to nothing yet.
    ///
    /// # Errors
    /// Why HTTP cannot be set up, in words.
    pub fn new(config: &Config) -> Result<App, String> {
        Ok(App {
            cdf: Cdf::new(config.cdf_url.clone())?,
            database: Database::new(config.database.clone()),
            token_hosts: TokenHosts::clone(&config.token_hosts),
            host: config.host.clone(),
            rate: Rate::new(config.rate),
            requests: AtomicU64::new(0),
        })
    }

    /// Returns the caller and, if the caller has access to its project, the user. The answer does not tell another
    /// project's user from a missing one.
    async fn user_of_caller(
        &self,
        headers: &HeaderMap,
        username: &str,
    ) -> Result<database_users::User, ApiError> {
        let caller = Caller::of(headers, &self.cdf).await?;
        let mut lease = self.database.lease().await?;
        let found = database_users::find(&mut lease, self.cdf.url.as_str(), username).await?;
        found.filter(|user| caller.has(&user.project)).ok_or_else(no_user)
    }

    /// As `user_of_caller`, where the path names the project, too.
    async fn user_of_project(
        &self,
        headers: &HeaderMap,
        project: &str,
        username: &str,
    ) -> Result<database_users::User, ApiError> {
        let user = self.user_of_caller(headers, username).await?;
        Some(user).filter(|user| user.project == project).ok_or_else(no_user)
    }
}

fn no_user() -> ApiError {
    ApiError::not_found("There is no such user")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status.as_u16(), 429 | 503) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(inside) = self.inside {
            response.extensions_mut().insert(Inside(inside));
        }
        response
    }
}

/// What the log records about an answer beside its status.
#[derive(Clone)]
struct Inside(String);

/// Returns the routes with their handlers.
pub fn router(app: Arc<App>) -> Router {
    let users = "/api/v1/projects/{project}/postgresgateway";
    let tables = "/api/v1/projects/{project}/postgresgateway/tables/{username}";
    let own = "/user/{username}/tables";
    Router::new()
        .route("/healthz", get(health))
        .route("/openapi.json", get(openapi::document))
        .route("/create", post(create::create))
        .route(own, get(own_tables::list).post(own_tables::create))
        .route(&format!("{own}/update"), post(own_tables::update))
        .route(&format!("{own}/delete"), post(own_tables::delete))
        .route(users, get(users::list).post(users::create))
        .route(&format!("{users}/list"), post(users::filter))
        .route(&format!("{users}/byids"), post(users::by_ids))
        .route(&format!("{users}/update"), post(users::update))
        .route(&format!("{users}/delete"), post(users::delete))
        .route(tables, get(tables::list).post(tables::create))
        .route(&format!("{tables}/byids"), post(tables::by_ids))
        .route(&format!("{tables}/delete"), post(tables::delete))
        .layer(middleware::from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Tells whether the database answers, and nothing else, since anybody may ask.
async fn health(State(app): Shared) -> Answer {
    let mut lease = app.database.lease().await?;
    lease.client().simple_query("SELECT 1").await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// Handles every request: its rate, its time limit, errors in CDF's form, a line in the log.
async fn around(
    State(app): Shared,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let number = app.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = if !app.rate.allows(peer.ip(), started) {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests").into_response()
    } else {
        match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => as_cdfs(response),
            Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "The request took too long").into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(number) = HeaderValue::from_str(&number.to_string()) {
        headers.insert("x-request-id", number);
    }
    let inside = response.extensions().get::<Inside>().map(|inside| inside.0.as_str());
    let path: String = path.chars().take(200).collect();
    log::line(
        "request",
        json!({
            "request": number,
            "from": peer.ip().to_string(),
            "method": method.as_str(),
            "path": path,
            "status": response.status().as_u16(),
            "ms": started.elapsed().as_millis() as u64,
            "why": inside,
        }),
    );
    response
}

/// Gives what the framework refuses (a path, a method, a query) the form of CDF's errors, too.
fn as_cdfs(response: Response) -> Response {
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut answer = ApiError::new(status, status.canonical_reason().unwrap_or("Error")).into_response();
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// Makes a cursor: the name after which the next page begins, in hexadecimal digits, so that nobody takes it for a
/// name.
fn cursor(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the name after which the page of a cursor begins.
fn after(cursor: Option<&str>) -> Result<String, ApiError> {
    let Some(cursor) = cursor else { return Ok(String::new()) };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = cursor
        .as_bytes()
        .chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8))
        .collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|name| !name.contains('\0'))
        .ok_or_else(|| ApiError::bad_request("Invalid cursor"))
}

/// The query parameters of a list: limit, cursor, and others.
struct Page {
    limit: i64,
    after: String,
    built_ins: bool,
}

impl Page {
    fn read(query: Option<&str>) -> Result<Page, ApiError> {
        let mut page = Page { limit: 100, after: String::new(), built_ins: false };
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit: i64 =
                        value.parse().map_err(|_| ApiError::bad_request("limit must be a number"))?;
                    page.limit = limit_of(limit)?;
                }
                "cursor" => page.after = after(Some(&value))?,
                "includeBuiltIns" => {
                    page.built_ins = match &*value {
                        "yes" | "true" => true,
                        "no" | "false" | "" => false,
                        _ => return Err(ApiError::bad_request("includeBuiltIns must be yes or no")),
                    }
                }
                _ => return Err(ApiError::bad_request("Unknown parameter")),
            }
        }
        Ok(page)
    }
}

/// Checks a limit. As in CDF, more than 100 counts as 100.
fn limit_of(limit: i64) -> Result<i64, ApiError> {
    match limit {
        1.. => Ok(limit.min(100)),
        _ => Err(ApiError::bad_request("limit must be at least 1")),
    }
}

type ProjectPath = Path<String>;
type UserPath = Path<(String, String)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        for name in ["", "etl", "é\"'/%😀", "a'; DROP ROLE x --"] {
            assert_eq!(after(Some(&cursor(name))).unwrap(), name);
        }
        for wrong in ["x", "0", "zz", "00", "ff", "é"] {
            assert!(after(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn queries_are_checked() {
        let page = Page::read(Some("limit=1000&includeBuiltIns=yes&cursor=6574")).unwrap();
        assert_eq!((page.limit, page.built_ins, page.after.as_str()), (100, true, "et"));
        for wrong in ["limit=0", "limit=-1", "limit=x", "includeBuiltIns=2", "other=1", "cursor=q"] {
            assert!(Page::read(Some(wrong)).is_err(), "{wrong}");
        }
    }

    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn a_query_is_read_or_refused(text in "(limit=|cursor=|includeBuiltIns=|&|%|[0-9a-f]{0,6}|.{0,3}){0,6}") {
                if let Ok(page) = Page::read(Some(&text)) {
                    prop_assert!((1..=100).contains(&page.limit));
                    prop_assert!(!page.after.contains('\0'));
                }
            }

            #[test]
            fn a_cursor_is_one_name(text in ".{0,20}") {
                match after(Some(&cursor(&text))) {
                    Ok(name) => prop_assert_eq!(name, text),
                    Err(_) => prop_assert!(text.contains('\0')),
                }
            }
        }
    }
}
