//! The way of a request: body, counts, latency, answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{to_bytes, Body};
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Router;
use serde::Deserialize;
use serde_json::json;

use crate::items::{self, Item};
use crate::tally::{Key, Keys, Tally, Totals};
use crate::{gzip, points};

const PROJECT: &str = "test-project";
const ITEMS_PER_REQUEST: usize = 1000;
const ROWS_PER_REQUEST: usize = 10_000;

/// The state of the sink.
pub struct App {
    latency: AtomicU64,
    unknown: AtomicU64,
    keys: Keys,
    datapoints: Tally,
    raw_rows: Tally,
    assets: Tally,
    events: Tally,
    timeseries: Tally,
}

impl App {
    /// Makes a sink whose answers wait this many milliseconds.
    pub fn new(latency: u64) -> Self {
        App {
            latency: latency.into(),
            unknown: 0.into(),
            keys: Keys::default(),
            datapoints: Tally::default(),
            raw_rows: Tally::default(),
            assets: Tally::default(),
            events: Tally::default(),
            timeseries: Tally::default(),
        }
    }

    fn tallies(&self) -> [(&'static str, &Tally); 5] {
        [
            ("datapoints", &self.datapoints),
            ("raw_rows", &self.raw_rows),
            ("assets", &self.assets),
            ("events", &self.events),
            ("timeseries", &self.timeseries),
        ]
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(handle).with_state(app)
}

/// What an answer is made of.
#[derive(Debug, PartialEq)]
struct Reply {
    status: StatusCode,
    json: String,
    totals: Totals,
}

impl Reply {
    fn ok(json: impl Into<String>, totals: Totals) -> Self {
        Reply { status: StatusCode::OK, json: json.into(), totals }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self::naming(status, message, "", &[])
    }

    /// Makes an error of CDF, with the external ids that it is about under the name `list`.
    fn naming(status: StatusCode, message: &str, list: &str, names: &[&str]) -> Self {
        let mut error = json!({ "code": status.as_u16(), "message": message });
        if !names.is_empty() {
            error[list] = names.iter().map(|name| json!({ "externalId": name })).collect();
        }
        let json = json!({ "error": error }).to_string();
        Reply { status, json, totals: Totals::default() }
    }
}

impl From<String> for Reply {
    fn from(message: String) -> Self {
        Reply::error(StatusCode::BAD_REQUEST, &message)
    }
}

/// What to do with items.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Create,
    Update,
    ByIds,
}

/// Where a request of the API goes.
enum Target<'a> {
    Points,
    Rows(&'a str),
    Items(Action),
}

/// Returns the resource of a path below the project.
fn target<'a>(app: &'a App, path: &'a str) -> Option<(&'a Tally, Target<'a>)> {
    if path == "/timeseries/data" {
        return Some((&app.datapoints, Target::Points));
    }
    if path.starts_with("/raw/dbs/") {
        let table = path.strip_suffix("/rows")?;
        // "", raw, dbs, the database, tables, the table
        return (table.split('/').count() == 6).then_some((&app.raw_rows, Target::Rows(table)));
    }
    let (resource, action) = match path[1..].split_once('/') {
        None => (&path[1..], Action::Create),
        Some((resource, "update")) => (resource, Action::Update),
        Some((resource, "byids")) => (resource, Action::ByIds),
        Some(_) => return None,
    };
    let tally = match resource {
        "assets" => &app.assets,
        "events" => &app.events,
        "timeseries" => &app.timeseries,
        _ => return None,
    };
    Some((tally, Target::Items(action)))
}

async fn handle(State(app): State<Arc<App>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let (method, path) = (&parts.method, parts.uri.path());
    let project = path.strip_prefix("/api/v1/projects/").and_then(|rest| rest.split_once('/'));
    if let Some((name, _)) = project {
        let path = &path["/api/v1/projects/".len() + name.len()..];
        if let Some((tally, target)) = target(&app, path).filter(|_| method == Method::POST) {
            let flight = tally.enter();
            let Ok(body) = to_bytes(body, gzip::LONGEST).await else {
                return answer(Reply::error(StatusCode::BAD_REQUEST, "the body is incomplete or too long"));
            };
            let mut reply = if text(&parts.headers, header::AUTHORIZATION).starts_with("Bearer ") {
                take(&app, tally, &target, &parts.headers, &body).unwrap_or_else(|refusal| refusal)
            } else {
                Reply::error(StatusCode::UNAUTHORIZED, "Could not authenticate.")
            };
            reply.totals.wire_bytes = body.len() as u64;
            count(tally, &reply);
            delay(&app).await;
            drop(flight);
            return answer(reply);
        }
    }
    match (method, path) {
        (&Method::POST, path) if path.ends_with("/oauth2/v2.0/token") => {
            let token = json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": "sink" });
            answer(Reply::ok(token.to_string(), Totals::default()))
        }
        (&Method::GET, "/api/v1/token/inspect") => {
            delay(&app).await;
            let projects = json!([{ "projectUrlName": PROJECT, "groups": [1] }]);
            let inspection = json!({ "subject": "sink", "projects": projects, "capabilities": [] });
            answer(Reply::ok(inspection.to_string(), Totals::default()))
        }
        (_, path) if path.starts_with("/admin/") => answer(admin(&app, method, path, body).await),
        (method, path) => {
            app.unknown.fetch_add(1, Ordering::Relaxed);
            eprintln!("cdf-sink: {method} {path} is unknown: answered with 404");
            answer(Reply::error(StatusCode::NOT_FOUND, "unknown to the sink"))
        }
    }
}

async fn delay(app: &App) {
    match app.latency.load(Ordering::Relaxed) {
        // Not even a tick of the timer.
        0 => {}
        latency => tokio::time::sleep(Duration::from_millis(latency)).await,
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn answer(reply: Reply) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (reply.status, headers, Body::from(reply.json)).into_response()
}

fn count(tally: &Tally, reply: &Reply) {
    let totals = &mut tally.lock().totals;
    totals.requests += 1;
    totals.refused += u64::from(!reply.status.is_success());
    totals.wire_bytes += reply.totals.wire_bytes;
    totals.plain_bytes += reply.totals.plain_bytes;
    totals.add(&reply.totals);
}

/// Reads a body and applies it.
fn take(
    app: &App,
    tally: &Tally,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Reply> {
    let apply = |plain: &[u8]| {
        let mut reply = match target {
            Target::Points => take_points(app, tally, text(headers, header::CONTENT_TYPE), plain)?,
            Target::Rows(table) => take_rows(app, tally, table, plain)?,
            Target::Items(action) => take_items(app, tally, *action, plain)?,
        };
        reply.totals.plain_bytes = plain.len() as u64;
        Ok(reply)
    };
    match text(headers, header::CONTENT_ENCODING) {
        "" => apply(body),
        "gzip" => gzip::with_plain(body, apply)?,
        _ => Err(Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "gzip or nothing")),
    }
}

fn take_points(app: &App, tally: &Tally, content_type: &str, plain: &[u8]) -> Result<Reply, Reply> {
    let points = match content_type {
        "application/protobuf" => points::from_protobuf(plain, &app.keys)?,
        _ => points::from_json(plain, &app.keys)?,
    };
    tally.lock().known.extend(points.series);
    Ok(Reply::ok("{}", points.totals))
}

fn take_rows(app: &App, tally: &Tally, table: &str, plain: &[u8]) -> Result<Reply, Reply> {
    let request = items::read(plain, ROWS_PER_REQUEST)?;
    if request.items.iter().any(|row| row.key.is_empty() || row.columns.is_none()) {
        return Err("a row needs a key and columns".to_owned().into());
    }
    let parts = request.items.iter().map(Item::parts).sum();
    let rows: Vec<Key> = request.items.iter().map(|row| app.keys.hash(table, row.key.as_bytes())).collect();
    let totals = Totals { items: rows.len() as u64, parts, ..Totals::default() };
    tally.lock().known.extend(rows);
    Ok(Reply::ok("{}", totals))
}

fn take_items(app: &App, tally: &Tally, action: Action, plain: &[u8]) -> Result<Reply, Reply> {
    let request = items::read(plain, ITEMS_PER_REQUEST)?;
    let key = |name: &str| app.keys.hash("", name.as_bytes());
    let keyed: Vec<(Key, &Item<'_>)> =
        request.items.iter().map(|item| (key(&item.external_id), item)).collect();
    let parts = request.items.iter().map(Item::parts).sum();
    let count = request.items.len() as u64;
    match action {
        Action::Create => {
            create(app, tally, &keyed)?;
            Ok(Reply {
                status: StatusCode::CREATED,
                json: listing(&keyed)?,
                totals: Totals { items: count, parts, ..Totals::default() },
            })
        }
        Action::Update => {
            if request.items.iter().any(|item| item.update.is_none()) {
                return Err("an update needs what is to be updated".to_owned().into());
            }
            let state = tally.lock();
            let missing: Vec<&str> = unknown(&keyed, |key| state.known.contains(key)).collect();
            if !missing.is_empty() {
                return Err(Reply::naming(StatusCode::BAD_REQUEST, "ids not found", "missing", &missing));
            }
            Ok(Reply::ok(listing(&keyed)?, Totals { updated: count, parts, ..Totals::default() }))
        }
        Action::ByIds => {
            let state = tally.lock();
            let missing: Vec<&str> = unknown(&keyed, |key| state.known.contains(key)).collect();
            if !missing.is_empty() && !request.ignore_unknown_ids {
                return Err(Reply::naming(StatusCode::BAD_REQUEST, "ids not found", "missing", &missing));
            }
            let found: Vec<_> = keyed.into_iter().filter(|(key, _)| state.known.contains(key)).collect();
            Ok(Reply::ok(listing(&found)?, Totals::default()))
        }
    }
}

fn unknown<'k>(
    keyed: &'k [(Key, &'k Item<'k>)],
    known: impl Fn(&Key) -> bool + 'k,
) -> impl Iterator<Item = &'k str> + 'k {
    keyed.iter().filter(move |(key, _)| !known(key)).map(|(_, item)| &*item.external_id)
}

/// Creates all of the items, or none.
fn create(app: &App, tally: &Tally, keyed: &[(Key, &Item<'_>)]) -> Result<(), Reply> {
    // Hashed before the lock is taken.
    let parents: Vec<(Key, &str)> = keyed
        .iter()
        .map(|(_, item)| &*item.parent_external_id)
        .filter(|parent| !parent.is_empty())
        .map(|parent| (app.keys.hash("", parent.as_bytes()), parent))
        .collect();
    let mut state = tally.lock();
    // Without an external id, nothing identifies the item.
    let named = keyed.iter().filter(|(_, item)| !item.external_id.is_empty());
    let (created, duplicated): (Vec<_>, Vec<_>) = named.partition(|(key, _)| state.known.insert(*key));
    let missing: Vec<&str> =
        parents.iter().filter(|(parent, _)| !state.known.contains(parent)).map(|(_, name)| *name).collect();
    if duplicated.is_empty() && missing.is_empty() {
        return Ok(());
    }
    created.iter().for_each(|(key, _)| {
        state.known.remove(key);
    });
    let duplicated: Vec<&str> = duplicated.iter().map(|(_, item)| &*item.external_id).collect();
    Err(if duplicated.is_empty() {
        Reply::naming(StatusCode::BAD_REQUEST, "parents not found", "missing", &missing)
    } else {
        Reply::naming(StatusCode::CONFLICT, "duplicated", "duplicated", &duplicated)
    })
}

/// Returns items as CDF answers them, reduced to what Cognite's Python SDK needs.
fn listing(keyed: &[(Key, &Item<'_>)]) -> Result<String, String> {
    let mut out = Vec::with_capacity(keyed.len() * 128);
    let mut digits = itoa::Buffer::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        sonic_rs::to_writer(&mut *out, text).map_err(|error| error.to_string())
    };
    out.extend_from_slice(b"{\"items\":[");
    for (at, (key, item)) in keyed.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // JSON numbers are exact up to 2^53.
        let id = digits.format((*key as u64) >> 11).as_bytes();
        out.extend_from_slice(b"{\"createdTime\":0,\"lastUpdatedTime\":0,\"externalId\":");
        text(&mut out, &item.external_id)?;
        out.extend_from_slice(b",\"name\":");
        text(&mut out, &item.name)?;
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id);
        out.extend_from_slice(b",\"rootId\":");
        out.extend_from_slice(id);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    String::from_utf8(out).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Latency {
    ms: u64,
}

async fn admin(app: &App, method: &Method, path: &str, body: Body) -> Reply {
    match (method, path) {
        (&Method::POST, "/admin/reset") => {
            app.unknown.store(0, Ordering::Relaxed);
            app.tallies().iter().for_each(|(_, tally)| tally.reset());
            Reply::ok("{}", Totals::default())
        }
        (&Method::GET, "/admin/counts") => {
            let mut counts = json!({ "unknown": app.unknown.load(Ordering::Relaxed) });
            for (name, tally) in app.tallies() {
                counts[name] = json!(tally.totals());
            }
            Reply::ok(counts.to_string(), Totals::default())
        }
        (&Method::POST, "/admin/latency") => {
            let body = to_bytes(body, gzip::LONGEST).await.map_err(|error| error.to_string());
            let latency =
                body.and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()));
            match latency {
                Ok(Latency { ms }) => {
                    app.latency.store(ms, Ordering::Relaxed);
                    Reply::ok("{}", Totals::default())
                }
                Err(error) => error.into(),
            }
        }
        _ => Reply::error(StatusCode::NOT_FOUND, "no such admin request"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn post(app: &App, path: &str, body: &str) -> (u16, Value) {
        let (tally, target) = target(app, path).unwrap();
        let reply =
            take(app, tally, &target, &HeaderMap::new(), body.as_bytes()).unwrap_or_else(|refusal| refusal);
        count(tally, &reply);
        (reply.status.as_u16(), serde_json::from_str(&reply.json).unwrap())
    }

    #[test]
    fn paths_lead_to_resources() {
        let app = App::new(0);
        for known in [
            "/timeseries/data",
            "/timeseries",
            "/timeseries/byids",
            "/assets",
            "/events/update",
            "/raw/dbs/a%2Fb/tables/t/rows",
        ] {
            assert!(target(&app, known).is_some(), "{known}");
        }
        for unknown in
            ["/", "/timeseries/data/list", "/assets/delete", "/files", "/raw/dbs", "/raw/dbs/d/rows"]
        {
            assert!(target(&app, unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn creating_what_exists_is_refused_as_a_whole_and_updating_it_is_not() {
        let app = App::new(0);
        let (status, answer) =
            post(&app, "/events", r#"{"items":[{"externalId":"a","metadata":{"x":"1"}},{"type":"b"}]}"#);
        assert_eq!((status, &answer["items"][0]["externalId"]), (201, &json!("a")));
        assert_eq!(answer["items"].as_array().unwrap().len(), 2);
        let (status, answer) =
            post(&app, "/events", r#"{"items":[{"externalId":"new"},{"externalId":"a"}]}"#);
        assert_eq!((status, &answer["error"]["duplicated"]), (409, &json!([{ "externalId": "a" }])));
        let twice = r#"{"items":[{"externalId":"new"},{"externalId":"new"}]}"#;
        assert_eq!(post(&app, "/events", twice).0, 409);
        let update = |name| {
            let item = json!({ "externalId": name, "update": { "metadata": { "set": { "x": "1" } } } });
            post(&app, "/events/update", &json!({ "items": [item] }).to_string())
        };
        assert_eq!(update("a").0, 200);
        let (status, answer) = update("new");
        assert_eq!((status, &answer["error"]["missing"]), (400, &json!([{ "externalId": "new" }])));
        let totals = app.events.totals();
        assert_eq!((totals.items, totals.updated, totals.parts, totals.distinct), (2, 1, 2, 1));
        assert_eq!((totals.requests, totals.refused), (5, 3));
    }

    #[test]
    fn parents_come_before_their_children_or_with_them() {
        let app = App::new(0);
        let orphan = r#"{"items":[{"externalId":"c","name":"c","parentExternalId":"p"}]}"#;
        let (status, answer) = post(&app, "/assets", orphan);
        assert_eq!((status, &answer["error"]["missing"]), (400, &json!([{ "externalId": "p" }])));
        let family = r#"{"items":[{"externalId":"c","parentExternalId":"p"},{"externalId":"p"}]}"#;
        assert_eq!(post(&app, "/assets", family).0, 201);
        let another = r#"{"items":[{"externalId":"d","parentExternalId":"c"}]}"#;
        assert_eq!(post(&app, "/assets", another).0, 201);
        assert_eq!(app.assets.totals().distinct, 3);
    }

    #[test]
    fn only_what_exists_is_found() {
        let app = App::new(0);
        post(&app, "/timeseries", r#"{"items":[{"externalId":"a"}]}"#);
        let both = r#"{"items":[{"externalId":"a"},{"externalId":"b"}]"#;
        assert_eq!(post(&app, "/timeseries/byids", &format!("{both}}}")).0, 400);
        let (status, answer) =
            post(&app, "/timeseries/byids", &format!(r#"{both},"ignoreUnknownIds":true}}"#));
        let items = answer["items"].as_array().unwrap();
        assert_eq!((status, items.len(), &items[0]["externalId"]), (200, 1, &json!("a")));
    }

    #[test]
    fn rows_are_told_apart_by_table_and_key() {
        let app = App::new(0);
        let rows = r#"{"items":[{"key":"k","columns":{"a":1,"b":[2]}},{"key":"l","columns":{}}]}"#;
        assert_eq!(post(&app, "/raw/dbs/d/tables/t/rows", rows), (200, json!({})));
        assert_eq!(post(&app, "/raw/dbs/d/tables/u/rows", rows), (200, json!({})));
        assert_eq!(post(&app, "/raw/dbs/d/tables/t/rows", rows), (200, json!({})));
        assert_eq!(post(&app, "/raw/dbs/d/tables/t/rows", r#"{"items":[{"key":"k"}]}"#).0, 400);
        let totals = app.raw_rows.totals();
        assert_eq!((totals.items, totals.parts, totals.distinct), (6, 6, 4));
    }
}
