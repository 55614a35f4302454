//! `/user/{username}/tables`: tables of RAW, as version 1.0 of the hosted gateway had them.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::Json;
use serde_json::{json, Map, Value};

use super::body::{self, Fields};
use super::{Answer, App, ProjectPath, Shared};
use crate::database::tables::{self, Change, Kind, New, Table};
use crate::error::ApiError;

/// The most items in a request.
const MOST: usize = 100;

/// `GET /user/{username}/tables`: the user's RAW tables.
pub async fn list(State(app): Shared, Path(username): ProjectPath, headers: HeaderMap) -> Answer {
    app.user_of_caller(&headers, &username).await?;
    let tables = raw(&app, &username).await?;
    Ok(shown(&tables))
}

/// `POST /user/{username}/tables`: creates RAW tables, all or none.
pub async fn create(
    State(app): Shared,
    Path(username): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_caller(&headers, &username).await?;
    let mut body = body::read(&headers, body).await?;
    let new = body.items(MOST)?.into_iter().map(wanted).collect::<Result<Vec<New>, ApiError>>()?;
    body.end()?;
    let made = tables::create(&mut app.database.lease().await?, &username, &new).await?;
    Ok(shown(&made))
}

/// Reads a table that a body asks for.
fn wanted(mut item: Fields) -> Result<New, ApiError> {
    if item.text("destination")?.is_some_and(|destination| destination != "raw") {
        return Err(ApiError::bad_request("destination must be raw"));
    }
    let mut options = item.required_object("options")?;
    let columns: Map<String, Value> =
        item.names("columns")?.into_iter().map(|name| (name, json!({ "type": "TEXT" }))).collect();
    let new = New::Raw {
        name: item.required_new_name("name")?,
        database: options.required_text("database")?,
        table: options.required_text("table")?,
        primary_key: options.text("primary_key")?,
        columns: Value::Object(columns),
    };
    options.end()?;
    item.end()?;
    Ok(new)
}

/// `POST /user/{username}/tables/update`: renames RAW tables and adds columns, all or nothing.
pub async fn update(
    State(app): Shared,
    Path(username): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_caller(&headers, &username).await?;
    let items = body::items(&headers, body, MOST).await?;
    let known = raw(&app, &username).await?;
    let mut changes = Vec::new();
    for item in items {
        changes.push(wanted_change(&known, item)?);
    }
    tables::change(&mut app.database.lease().await?, &changes).await?;
    let changed: Vec<u32> = changes.iter().map(|change| change.table.id).collect();
    let mut tables = raw(&app, &username).await?;
    tables.retain(|table| changed.contains(&table.id));
    Ok(shown(&tables))
}

/// Reads a change that a body asks for.
fn wanted_change(known: &[Table], mut item: Fields) -> Result<Change<'_>, ApiError> {
    let table = with_id(known, &mut item)?;
    let mut update = item.required_object("update")?;
    item.end()?;
    let mut change = Change { table, name: None, add: Vec::new() };
    if let Some(mut name) = update.object("name")? {
        change.name = Some(name.required_new_name("set")?);
        name.end()?;
    }
    if let Some(mut columns) = update.object("columns")? {
        change.add = columns.names("add")?;
        columns.end()?;
    }
    update.end()?;
    Ok(change)
}

/// `POST /user/{username}/tables/delete`: drops RAW tables. CDF keeps their rows.
pub async fn delete(
    State(app): Shared,
    Path(username): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_caller(&headers, &username).await?;
    let mut items = body::items(&headers, body, MOST).await?;
    let known = raw(&app, &username).await?;
    let mut gone: Vec<&Table> = Vec::new();
    for item in &mut items {
        let table = with_id(&known, item)?;
        item.end()?;
        if !gone.iter().any(|other| other.id == table.id) {
            gone.push(table);
        }
    }
    tables::drop(&mut app.database.lease().await?, &gone).await?;
    Ok(Json(json!({})))
}

/// Returns the user's tables of RAW beside the built-in ones.
async fn raw(app: &App, username: &str) -> Result<Vec<Table>, ApiError> {
    let mut tables = tables::list(&mut app.database.lease().await?, username).await?;
    tables.retain(|table| table.kind == Kind::Raw);
    Ok(tables)
}

fn with_id<'a>(known: &'a [Table], item: &mut Fields) -> Result<&'a Table, ApiError> {
    let id = item.number("id")?.ok_or_else(|| ApiError::bad_request("id is required"))?;
    known
        .iter()
        .find(|table| i64::from(table.id) == id)
        .ok_or_else(|| ApiError::missing("Tables", "id", [id.to_string()]))
}

/// Returns tables as version 1.0 showed them.
fn shown(tables: &[Table]) -> Json<Value> {
    let item = |table: &Table| {
        let option = |name: &str| table.options.get(name).cloned().unwrap_or(Value::Null);
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        json!({
            "id": table.id,
            "destination": "raw",
            "name": table.name,
            "columns": columns,
            "options": {
                "primary_key": option("primary_key"),
                "database": option("database"),
                "table": option("table"),
            },
        })
    };
    Json(json!({ "items": tables.iter().map(item).collect::<Vec<Value>>() }))
}
