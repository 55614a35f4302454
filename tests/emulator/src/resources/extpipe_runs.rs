//! Runs of extraction pipelines: reported one per request, listed by pipeline, never changed.

use axum::http::Method;
use serde_json::{json, Map, Value};

use super::classic::take_items;
use super::extpipes::KIND as PIPELINES;
use super::fields::{check_integer, refuse_nulls, refuse_unknown, Field};
use super::Route;
use crate::codec::{decode_cursor, encode_cursor, now_ms};
use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::{Classic, Entity, Identity, Project};

/// The path of runs, and the name of their table.
pub const PATH: &str = "extpipes/runs";
const ACL: &str = "extractionRunsAcl";
const STATUSES: [&str; 3] = ["success", "failure", "seen"];
/// The field of a stored run that holds its pipeline's external id.
const PIPELINE: &str = "pipeline";

type Object = Map<String, Value>;

/// The route of a request below the path of runs.
pub fn route(method: &Method, rest: &[&str]) -> Option<Route> {
    match rest {
        [] if method == Method::POST => Some(Route::new(ACL, "WRITE", create)),
        [] if method == Method::GET => Some(Route::new(ACL, "READ", list_by_query)),
        ["list"] if method == Method::POST => Some(Route::new(ACL, "READ", list)),
        _ => None,
    }
}

/// "Current version supports one extraction pipeline run per request" (API reference, create extraction pipeline runs).
fn create(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let item = take_items(&mut body, 1, &[])?.pop().unwrap_or_default();
    refuse_nulls(&item)?;
    let Value::Object(mut run) = item else {
        return Err(ApiError::bad_request("items: expected objects"));
    };
    refuse_unknown("a run", &run, &["externalId", "status", "message", "createdTime"])?;
    let required = |name: &str| {
        run.get(name).ok_or_else(|| ApiError::bad_request(format!("Missing required field: {name}")))
    };
    Field::text("externalId", 1, 255).check(required("externalId")?)?;
    status(required("status")?)?;
    if let Some(message) = run.get("message") {
        Field::text("message", 0, 1000).check(message)?;
    }
    match run.get("createdTime") {
        Some(time) => check_integer("createdTime", time, 0, i64::MAX)?,
        None => drop(run.insert("createdTime".into(), json!(now_ms()))),
    }
    let pipeline = run.shift_remove("externalId").unwrap_or_default();
    let mut classic = project.classic();
    must_exist(&classic, &pipeline)?;
    let id = classic.new_id();
    let mut answer = shown(id, &run);
    answer["externalId"] = pipeline.clone();
    run.insert(PIPELINE.into(), pipeline);
    classic.table_mut(PATH).insert(Entity { id, fields: run });
    Ok(Reply::items(200, vec![answer], None))
}

fn status(value: &Value) -> Result<(), ApiError> {
    if value.as_str().is_some_and(|status| STATUSES.contains(&status)) {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!("status: expected one of {}", STATUSES.join(", "))))
    }
}

fn must_exist(classic: &Classic, pipeline: &Value) -> Result<(), ApiError> {
    let name = pipeline.as_str().unwrap_or_default().to_owned();
    match classic.table(PIPELINES.path).visible(&Identity::External(name)) {
        Some(_) => Ok(()),
        None => {
            Err(ApiError::missing("Extraction pipeline not found", vec![json!({ "externalId": pipeline })]))
        }
    }
}

/// Returns a run as lists show it, without its pipeline.
fn shown(id: i64, run: &Object) -> Value {
    let mut shown = run.clone();
    shown.shift_remove(PIPELINE);
    shown.insert("id".into(), json!(id));
    Value::Object(shown)
}

fn list(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    // The official SDK sends a null cursor for the first page.
    body.retain(|_, value| !value.is_null());
    refuse_unknown("the request", &body, &["filter", "limit", "cursor"])?;
    let limit = match body.get("limit") {
        None => 100,
        Some(limit) => {
            check_integer("limit", limit, 1, 1000)?;
            limit.as_u64().unwrap_or(100) as usize
        }
    };
    let Some(Value::Object(filter)) = body.get("filter").cloned() else {
        return Err(ApiError::bad_request("Missing required field: filter"));
    };
    page(project, filter, limit, body.get("cursor").and_then(Value::as_str))
}

fn list_by_query(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, i64::MAX)?.unwrap_or(100).min(1000) as usize;
    let filter = request.query("externalId").map(|name| ("externalId".to_owned(), json!(name)));
    page(project, filter.into_iter().collect(), limit, request.query("cursor"))
}

/// Returns a page of runs, the latest first.
fn page(project: &Project, filter: Object, limit: usize, cursor: Option<&str>) -> Result<Reply, ApiError> {
    refuse_nulls(&Value::Object(filter.clone()))?;
    refuse_unknown("the filter", &filter, &["externalId", "statuses", "message", "createdTime"])?;
    let pipeline = filter
        .get("externalId")
        .ok_or_else(|| ApiError::bad_request("Missing required field: externalId"))?;
    Field::text("externalId", 1, 255).check(pipeline)?;
    let statuses = filter.get("statuses").and_then(Value::as_array);
    statuses.into_iter().flatten().try_for_each(status)?;
    let message = filter.get("message").and_then(|message| message.get("substring")).and_then(Value::as_str);
    let bound = |name: &str, otherwise| match filter.get("createdTime").and_then(|range| range.get(name)) {
        None => Ok(otherwise),
        Some(bound) => check_integer(name, bound, 0, i64::MAX).map(|()| bound.as_i64().unwrap_or(otherwise)),
    };
    let (min, max) = (bound("min", 0)?, bound("max", i64::MAX)?);

    let classic = project.classic();
    must_exist(&classic, pipeline)?;
    let mut runs: Vec<(i64, u64, &Entity)> = classic
        .table(PATH)
        .after(0)
        .filter(|(_, run)| run.fields.get(PIPELINE) == Some(pipeline))
        .filter(|(_, run)| statuses.is_none_or(|all| all.contains(&run.fields["status"])))
        .filter(|(_, run)| message.is_none_or(|part| run.text("message").unwrap_or_default().contains(part)))
        .map(|(at, run)| (run.integer("createdTime").unwrap_or_default(), at, run))
        .filter(|(time, ..)| (min..=max).contains(time))
        .collect();
    runs.sort_by_key(|(time, at, _)| std::cmp::Reverse((*time, *at)));
    let parameters = json!([PATH, filter]);
    let done = match cursor {
        None => 0,
        Some(cursor) => decode_cursor(&parameters, cursor)?.as_u64().unwrap_or_default() as usize,
    };
    let items = runs.iter().skip(done).take(limit).map(|(_, _, run)| shown(run.id, &run.fields)).collect();
    let next = (done + limit < runs.len()).then(|| encode_cursor(&parameters, &json!(done + limit)));
    Ok(Reply::items(200, items, next))
}

/// Returns what its runs tell about a pipeline.
pub fn told(classic: &Classic, pipeline: &str) -> Object {
    let last = |matches: &dyn Fn(&Entity) -> bool| {
        let runs = classic.table(PATH).after(0).map(|(_, run)| run);
        let runs = runs.filter(|run| run.text(PIPELINE) == Some(pipeline) && matches(run));
        runs.max_by_key(|run| run.integer("createdTime"))
    };
    let time = |run: Option<&Entity>| json!(run.and_then(|run| run.integer("createdTime")).unwrap_or(0));
    let of_status = |status: &'static str| last(&move |run: &Entity| run.text("status") == Some(status));
    let failure = of_status("failure");
    let mut told = Object::from_iter([
        ("lastSuccess".to_owned(), time(of_status("success"))),
        ("lastFailure".to_owned(), time(failure)),
        ("lastSeen".to_owned(), time(last(&|_| true))),
    ]);
    told.extend(failure.and_then(|run| Some(("lastMessage".to_owned(), json!(run.text("message")?)))));
    told
}

/// Deletes the runs of a deleted pipeline.
pub fn forget(classic: &mut Classic, pipeline: &str) {
    let of_it = |(_, run): (u64, &Entity)| (run.text(PIPELINE) == Some(pipeline)).then_some(run.id);
    let runs: Vec<i64> = classic.table(PATH).after(0).filter_map(of_it).collect();
    runs.into_iter().for_each(|id| classic.table_mut(PATH).remove(id));
}

/// Returns the runs in the order of their reports, each with its pipeline, for the admin interface.
pub fn dump(classic: &Classic, pipeline: Option<&str>) -> Vec<Value> {
    let runs = classic.table(PATH).after(0).map(|(_, run)| run);
    let runs = runs.filter(|run| pipeline.is_none_or(|wanted| run.text(PIPELINE) == Some(wanted)));
    let with_pipeline = |run: &Entity| {
        let mut shown = shown(run.id, &run.fields);
        shown["externalId"] = run.fields[PIPELINE].clone();
        shown
    };
    runs.map(with_pipeline).collect()
}
