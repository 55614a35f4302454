//! The admin interface: what tests need from the emulator besides CDF's own API. It needs no authentication.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{json, Value};

use crate::auth::{Client, DEFAULT_PROJECT};
use crate::errors::ApiError;
use crate::faults::Fault;
use crate::lag;
use crate::limits::Limit;
use crate::resources::{self, datapoints, instances, points::Summary, raw, sequence_rows};
use crate::server::App;

/// Routes below /admin.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/reset", post(reset))
        .route("/clients", post(put_client))
        .route("/revoke_tokens", post(revoke_tokens))
        .route("/lag", post(set_lag))
        .route("/models", post(set_models))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/limits", post(set_limit).delete(clear_limits))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/stats", get(stats))
        .route("/datapoints", get(series_points))
        .route("/datapoints/summary", get(all_points))
        .route("/dump", get(dump))
        .route("/timeseries_instances", post(timeseries_instances))
}

type Admin = State<Arc<App>>;

fn done() -> Response {
    Json(json!({})).into_response()
}

fn refused(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, Json(error.body())).into_response()
}

async fn reset(State(app): Admin) -> Response {
    app.reset();
    done()
}

async fn put_client(State(app): Admin, Json(client): Json<Client>) -> Response {
    app.auth.put_client(client);
    done()
}

async fn revoke_tokens(State(app): Admin) -> Response {
    Json(json!({ "revoked": app.auth.revoke_tokens() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lag {
    #[serde(default = "default_project")]
    project: String,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    lists_ms: u64,
}

async fn set_lag(State(app): Admin, Json(lag): Json<Lag>) -> Response {
    let project = app.store.project(&lag.project);
    let behind = || lag::Lag::new(Duration::from_millis(lag.lists_ms));
    let mut classic = project.classic();
    (classic.lag, classic.lists) = (Duration::from_millis(lag.ms), behind());
    drop(classic);
    project.models().lists = behind();
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Modeling {
    #[serde(default = "default_project")]
    project: String,
    #[serde(default)]
    schema_locks: u32,
    #[serde(default)]
    list_ms: i64,
}

async fn set_models(State(app): Admin, Json(modeling): Json<Modeling>) -> Response {
    let project = app.store.project(&modeling.project);
    let mut models = project.models();
    (models.schema_locks, models.list_ms) = (modeling.schema_locks, modeling.list_ms);
    done()
}

async fn add_fault(State(app): Admin, Json(fault): Json<Fault>) -> Response {
    match fault.check() {
        Ok(()) => {
            app.faults.add(fault);
            done()
        }
        Err(error) => refused(&error),
    }
}

async fn clear_faults(State(app): Admin) -> Response {
    app.faults.clear();
    done()
}

async fn set_limit(State(app): Admin, Json(limit): Json<Limit>) -> Response {
    app.limits.set(limit);
    done()
}

async fn clear_limits(State(app): Admin) -> Response {
    app.limits.clear();
    done()
}

async fn requests(State(app): Admin, Query(query): Query<HashMap<String, String>>) -> Response {
    let parameter = |name: &str| query.get(name).map(String::as_str);
    let bodies = matches!(parameter("bodies"), Some("1" | "true"));
    Json(json!({ "items": app.record.entries(parameter("path"), parameter("method"), bodies) }))
        .into_response()
}

async fn clear_requests(State(app): Admin) -> Response {
    app.record.clear();
    done()
}

async fn stats(State(app): Admin) -> Response {
    Json(app.record.stats()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    #[serde(default = "default_project")]
    project: String,
    external_id: Option<String>,
    resource: Option<String>,
}

fn default_project() -> String {
    DEFAULT_PROJECT.into()
}

/// Writes a summary as JSON. Checksums are 16 hexadecimal digits, since JSON numbers do not hold 64 bits everywhere.
fn summary_json(summary: Summary) -> Value {
    json!({
        "count": summary.count,
        "received": summary.received,
        "checksum": format!("{:016x}", summary.checksum),
    })
}

async fn series_points(State(app): Admin, Query(selection): Query<Selection>) -> Response {
    let Some(name) = selection.external_id else {
        return refused(&ApiError::bad_request("external_id is required"));
    };
    let project = app.store.project(&selection.project);
    let Some(points) = datapoints::by_name(&project).remove(&name) else {
        return refused(&ApiError::new(404, format!("no time series '{name}'")));
    };
    let (summary, (first, last)) =
        datapoints::with_points(&points, |points| (points.summary(), points.extent()));
    let mut body = summary_json(summary);
    body["min_timestamp"] = json!(first);
    body["max_timestamp"] = json!(last);
    Json(body).into_response()
}

async fn all_points(State(app): Admin, Query(selection): Query<Selection>) -> Response {
    let all = datapoints::by_name(&app.store.project(&selection.project));
    let sum = all
        .values()
        .map(|points| datapoints::with_points(points, |points| points.summary()))
        .fold(Summary::default(), Summary::plus);
    let mut body = summary_json(sum);
    body["series"] = json!(all.len());
    Json(body).into_response()
}

async fn dump(State(app): Admin, Query(selection): Query<Selection>) -> Response {
    let project = app.store.project(&selection.project);
    let wanted = selection.external_id.as_deref();
    let items = match selection.resource.as_deref() {
        None => return refused(&ApiError::bad_request("resource is required")),
        Some("raw") => raw::dump(&project, wanted),
        Some("instances") => instances::dump(&project, wanted),
        Some("datapoints") => datapoints::by_name(&project)
            .into_iter()
            .filter(|(name, _)| wanted.is_none_or(|wanted| name == wanted))
            .flat_map(|(name, points)| {
                datapoints::with_points(&points, |points| {
                    let named = |(at, point)| {
                        let mut json = datapoints::point_json(at, point, true);
                        json["externalId"] = json!(name);
                        json
                    };
                    points.all().map(named).collect::<Vec<Value>>()
                })
            })
            .collect(),
        Some("sequence_rows") => sequence_rows::dump(&project, wanted),
        Some(resource) => match resources::dump(&project, resource, wanted) {
            Some(items) => items,
            None => return refused(&ApiError::bad_request(format!("unknown resource '{resource}'"))),
        },
    };
    Json(json!({ "items": items })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instances {
    #[serde(default = "default_project")]
    project: String,
    items: Vec<Value>,
}

async fn timeseries_instances(State(app): Admin, Json(instances): Json<Instances>) -> Response {
    match resources::insert_instances(&app.store.project(&instances.project), &instances.items) {
        Ok(()) => done(),
        Err(error) => refused(&error),
    }
}
