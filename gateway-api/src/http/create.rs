//! `POST /create`: a user for a client of an identity provider, as version 1.0 of the hosted gateway had it.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::Json;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::auth::Caller;
use super::{body, Answer, Shared};
use crate::database::users::{self, Client, Home};
use crate::error::ApiError;

/// Registers a user.
pub async fn create(State(app): Shared, headers: HeaderMap, body: Body) -> Answer {
    let caller = Caller::of(&headers, &app.cdf).await?;
    let mut body = body::read(&headers, body).await?;
    let mut auth = body.required_object("auth")?;
    let project = body.required_text("project")?;
    let schema = body.new_name("schema")?;
    let naming = body.text("naming")?.unwrap_or_else(|| "camelCase".to_owned());
    body.end()?;
    let client = Client {
        token_url: auth.required_text("token_url")?,
        client_id: auth.required_text("client_id")?,
        client_secret: SecretString::from(auth.required_text("client_secret")?),
        scope: auth.text("scope")?,
        audience: auth.text("audience")?,
    };
    auth.end()?;
    caller.needs(&project)?;
    app.token_hosts.check(&client.token_url).map_err(|refused| ApiError::bad_request(refused.to_string()))?;
    let home = Home { base_url: app.cdf.url.as_str(), project: &project };
    let mut lease = app.database.lease().await?;
    let user = users::register(&mut lease, home, &client, schema.as_deref(), &naming).await?;
    Ok(Json(json!({
        "username": user.username,
        "password": user.password.as_ref().map(|password| password.expose_secret()),
        "host": app.host,
        "database": user.database,
        "schema": user.schema,
    })))
}
