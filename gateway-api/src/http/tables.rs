//! `/postgresgateway/tables/{username}`: the tables of a user, as CDF's API has them.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::Json;
use serde_json::{json, Map, Value};

use super::body::{self, Fields};
use super::users::ignores_unknown;
use super::{cursor, Answer, App, Page, Shared, UserPath};
use crate::database::tables::{self, Kind, New, Table};
use crate::error::ApiError;
use crate::log::now_ms;

/// The most items in a request.
const MOST: usize = 10;

/// `GET …/tables/{username}`: a page of the user's tables.
pub async fn list(
    State(app): Shared,
    Path((project, username)): UserPath,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    app.user_of_project(&headers, &project, &username).await?;
    let page = Page::read(query.as_deref())?;
    let mut tables = all(&app, &username).await?;
    tables.retain(|table| page.built_ins || table.kind != Kind::BuiltIn);
    // The custom tables come first, and each kind is sorted by name.
    let place = |table: &Table| format!("{}{}", u8::from(table.kind == Kind::BuiltIn), table.name);
    let first = tables.iter().position(|table| place(table) > page.after).unwrap_or(tables.len());
    let rest = &tables[first..];
    let shown_now = &rest[..rest.len().min(page.limit as usize)];
    let items: Vec<Value> = shown_now.iter().map(|table| shown(table, &headers)).collect();
    let mut answer = json!({ "items": items });
    if let Some(last) = shown_now.last().filter(|_| shown_now.len() < rest.len()) {
        answer["nextCursor"] = json!(cursor(&place(last)));
    }
    Ok(Json(answer))
}

/// `POST …/tables/{username}`: creates custom tables, all or none.
pub async fn create(
    State(app): Shared,
    Path((project, username)): UserPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_project(&headers, &project, &username).await?;
    let mut body = body::read(&headers, body).await?;
    let new = body.items(MOST)?.into_iter().map(wanted).collect::<Result<Vec<New>, ApiError>>()?;
    body.end()?;
    let made = tables::create(&mut app.database.lease().await?, &username, &new).await?;
    let now = now_ms();
    let item = |table: &Table| {
        let mut item = shown(table, &headers);
        item["createdTime"] = json!(now);
        if table.kind != Kind::Raw {
            item["type"] = json!("view");
        }
        item
    };
    Ok(Json(json!({ "items": made.iter().map(item).collect::<Vec<Value>>() })))
}

/// Reads a table that a body asks for.
fn wanted(mut item: Fields) -> Result<New, ApiError> {
    let (kind, name) = (item.required_text("type")?, item.required_new_name("tablename")?);
    let mut options = item.required_object("options")?;
    let new = match kind.as_str() {
        "raw_rows" => New::Raw {
            name,
            database: options.required_text("database")?,
            table: options.required_text("table")?,
            primary_key: options.text("primaryKey")?,
            columns: item.required_object("columns")?.into_value(),
        },
        "view" => New::View {
            name,
            space: options.required_text("space")?,
            external_id: options.required_text("externalId")?,
            version: options.text("version")?,
        },
        _ => return Err(ApiError::bad_request("type must be raw_rows or view")),
    };
    options.end()?;
    item.end()?;
    Ok(new)
}

/// `POST …/tables/{username}/byids`: the named tables.
pub async fn by_ids(
    State(app): Shared,
    Path((project, username)): UserPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_project(&headers, &project, &username).await?;
    let body = body::read(&headers, body).await?;
    let known = all(&app, &username).await?;
    let found = named(&known, body)?;
    Ok(Json(json!({ "items": found.iter().map(|table| shown(table, &headers)).collect::<Vec<Value>>() })))
}

/// `POST …/tables/{username}/delete`: drops the named custom tables. CDF keeps their rows.
pub async fn delete(
    State(app): Shared,
    Path((project, username)): UserPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    app.user_of_project(&headers, &project, &username).await?;
    let body = body::read(&headers, body).await?;
    let known = all(&app, &username).await?;
    let gone = named(&known, body)?;
    if let Some(table) = gone.iter().find(|table| table.kind == Kind::BuiltIn) {
        return Err(ApiError::bad_request(format!(
            "{} is a built-in table, which cannot be deleted",
            table.name
        )));
    }
    tables::drop(&mut app.database.lease().await?, &gone).await?;
    Ok(Json(json!({})))
}

async fn all(app: &App, username: &str) -> Result<Vec<Table>, ApiError> {
    tables::list(&mut app.database.lease().await?, username).await
}

/// Returns the tables that a body names, each once.
fn named(known: &[Table], mut body: Fields) -> Result<Vec<&Table>, ApiError> {
    let items = body.items(MOST)?;
    let ignore = ignores_unknown(&mut body)?;
    body.end()?;
    let (mut found, mut missing): (Vec<&Table>, Vec<String>) = Default::default();
    for mut item in items {
        let name = item.required_text("tablename")?;
        item.end()?;
        match known.iter().find(|table| table.name == name) {
            Some(table) if found.iter().any(|other| other.id == table.id) => {}
            Some(table) => found.push(table),
            None => missing.push(name),
        }
    }
    if missing.is_empty() || ignore {
        Ok(found)
    } else {
        Err(ApiError::missing("Tables", "tablename", missing))
    }
}

/// Returns a table as CDF's API shows it.
fn shown(table: &Table, headers: &HeaderMap) -> Value {
    let columns: Map<String, Value> =
        table.columns.iter().map(|(name, kind)| (name.clone(), json!({ "type": kind }))).collect();
    // The official SDK for Python knows a view's table only under the names that it was created with, and fails on
    // others.
    let is_sdk = headers.get("x-cdp-sdk").is_some_and(|sdk| sdk.as_bytes().starts_with(b"CognitePythonSDK"));
    let kind = match table.kind {
        Kind::BuiltIn => "built_in",
        Kind::Raw => "raw_rows",
        Kind::Nodes | Kind::Edges if is_sdk => "view",
        Kind::Nodes => "nodes",
        Kind::Edges => "edges",
    };
    let mut item = json!({ "tablename": table.name, "type": kind, "columns": columns });
    let names: &[(&str, &str)] = match table.kind {
        Kind::BuiltIn => return item,
        Kind::Raw => &[("database", "database"), ("table", "table"), ("primary_key", "primaryKey")],
        Kind::Nodes | Kind::Edges => {
            &[("space", "space"), ("external_id", "externalId"), ("version", "version")]
        }
    };
    let options: Map<String, Value> = names
        .iter()
        .filter_map(|(option, name)| Some(((*name).to_owned(), table.options.get(*option)?.clone())))
        .collect();
    item["options"] = Value::Object(options);
    item
}
