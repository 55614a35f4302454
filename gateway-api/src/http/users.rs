//! `/postgresgateway`: the users of a project, as CDF's API has them.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::Json;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{json, Value};

use super::auth::Caller;
use super::body::{self, Fields};
use super::{after, cursor, limit_of, Answer, App, Page, ProjectPath, Shared};
use crate::database::users::{self, Home, User};
use crate::error::ApiError;
use crate::log::now_ms;

/// The hosted gateway's naming of columns.
const NAMING: &str = "camelCase";

fn home<'a>(app: &'a App, project: &'a str) -> Home<'a> {
    Home { base_url: app.cdf.url.as_str(), project }
}

/// `GET /postgresgateway`: a page of users.
pub async fn list(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    let page = Page::read(query.as_deref())?;
    one_page(&app, &project, &page.after, page.limit).await
}

/// `POST /postgresgateway/list`: the same, with its parameters in a body.
pub async fn filter(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    let mut body = body::read(&headers, body).await?;
    let limit = limit_of(body.number("limit")?.unwrap_or(100))?;
    let after = after(body.text("cursor")?.as_deref())?;
    body.end()?;
    one_page(&app, &project, &after, limit).await
}

async fn one_page(app: &App, project: &str, after: &str, limit: i64) -> Answer {
    let mut lease = app.database.lease().await?;
    let mut users = users::list(&mut lease, home(app, project), after, limit + 1).await?;
    let more = users.len() as i64 > limit;
    users.truncate(limit as usize);
    let mut answer = json!({ "items": users.iter().map(shown).collect::<Vec<Value>>() });
    if let Some(last) = users.last().filter(|_| more) {
        answer["nextCursor"] = json!(cursor(&last.username));
    }
    Ok(Json(answer))
}

fn shown(user: &User) -> Value {
    json!({ "username": user.username, "createdTime": user.created_ms, "lastUpdatedTime": user.changed_ms })
}

/// `POST /postgresgateway`: registers a user for the session that a nonce stands for.
pub async fn create(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    let mut item = body::items(&headers, body, 1).await?.remove(0);
    let nonce = nonce(item.required_object("credentials")?)?;
    item.end()?;
    let session = app.cdf.bind_session(&project, &nonce).await?;
    let mut lease = app.database.lease().await?;
    let user = users::register_session(&mut lease, home(&app, &project), &session, NAMING).await?;
    let now = now_ms();
    Ok(Json(json!({ "items": [{
        "host": app.host,
        "username": user.username,
        "password": user.password.as_ref().map(|password| password.expose_secret()),
        "createdTime": now,
        "lastUpdatedTime": now,
        "sessionId": session.id,
    }] })))
}

fn nonce(mut credentials: Fields) -> Result<SecretString, ApiError> {
    let nonce = credentials.required_text("nonce")?;
    credentials.end()?;
    Ok(SecretString::from(nonce))
}

/// `POST /postgresgateway/update`: gives a user another session.
pub async fn update(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    let mut item = body::items(&headers, body, 1).await?.remove(0);
    let username = item.required_text("username")?;
    let mut update = item.required_object("update")?;
    item.end()?;
    let credentials = update.object("credentials")?;
    update.end()?;
    find(&app, &project, &username).await?.ok_or_else(|| unknown([username.clone()]))?;
    let mut session_id = None;
    if let Some(mut credentials) = credentials {
        let nonce = nonce(credentials.required_object("set")?)?;
        credentials.end()?;
        let session = app.cdf.bind_session(&project, &nonce).await?;
        users::update_session(&mut app.database.lease().await?, &username, &session).await?;
        session_id = Some(session.id);
    }
    let user = find(&app, &project, &username).await?.ok_or_else(|| unknown([username]))?;
    let mut item = shown(&user);
    if let Some(id) = session_id {
        item["sessionId"] = json!(id);
    }
    Ok(Json(json!({ "items": [item] })))
}

/// `POST /postgresgateway/byids`: the named users.
pub async fn by_ids(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    let found = named(&app, &project, body::read(&headers, body).await?, 10).await?;
    Ok(Json(json!({ "items": found.iter().map(shown).collect::<Vec<Value>>() })))
}

/// `POST /postgresgateway/delete`: drops the named users with all that registration made for them.
pub async fn delete(
    State(app): Shared,
    Path(project): ProjectPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    Caller::of(&headers, &app.cdf).await?.needs(&project)?;
    for user in named(&app, &project, body::read(&headers, body).await?, 1).await? {
        users::drop(&mut app.database.lease().await?, &user.username).await?;
    }
    Ok(Json(json!({})))
}

/// Returns the users that a body names. A user of another project is as unknown as one that does not exist.
async fn named(app: &App, project: &str, mut body: Fields, most: usize) -> Result<Vec<User>, ApiError> {
    let items = body.items(most)?;
    let ignore = ignores_unknown(&mut body)?;
    body.end()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for mut item in items {
        let username = item.required_text("username")?;
        item.end()?;
        match find(app, project, &username).await? {
            Some(user) => found.push(user),
            None => missing.push(username),
        }
    }
    if missing.is_empty() || ignore {
        Ok(found)
    } else {
        Err(unknown(missing))
    }
}

/// Reads the parameter, which the official SDK writes in two ways.
pub fn ignores_unknown(body: &mut Fields) -> Result<bool, ApiError> {
    Ok(body.flag("ignoreUnknownIds")? | body.flag("ignore_unknown_ids")?)
}

async fn find(app: &App, project: &str, username: &str) -> Result<Option<User>, ApiError> {
    let found = users::find(&mut app.database.lease().await?, app.cdf.url.as_str(), username).await?;
    Ok(found.filter(|user| user.project == project))
}

fn unknown(usernames: impl IntoIterator<Item = String>) -> ApiError {
    ApiError::missing("Users", "username", usernames)
}
