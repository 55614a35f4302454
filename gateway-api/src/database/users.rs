//! Registered roles.

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::types::ToSql;
use tokio_postgres::Row;

use super::Lease;
use crate::cdf::Session;
use crate::error::ApiError;

/// Where a user belongs: a project of a cluster. A project of the same name in another cluster is another project.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a> {
    pub base_url: &'a str,
    pub project: &'a str,
}

/// A registered role.
#[derive(Debug)]
pub struct User {
    pub username: String,
    pub project: String,
    pub created_ms: i64,
    pub changed_ms: i64,
}

/// What its registration returns, once.
pub struct Registered {
    pub username: String,
    pub password: Option<SecretString>,
    pub database: String,
    pub schema: String,
}

/// A client of an identity provider.
pub struct Client {
    pub token_url: String,
    pub client_id: String,
    pub client_secret: SecretString,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

/// A role whose registrations are in several projects belongs to nobody here.
const USERS: &str = "SELECT username, min(project), (extract(epoch FROM min(created)) * 1000)::int8, \
     (extract(epoch FROM max(changed)) * 1000)::int8 FROM {ext}.cdf_credentials GROUP BY username \
     HAVING bool_and(rtrim(base_url, '/') = $1 AND project IS NOT NULL) AND count(DISTINCT project) = 1";

fn user(row: &Row) -> Result<User, ApiError> {
    Ok(User {
        username: row.try_get(0)?,
        project: row.try_get(1)?,
        created_ms: row.try_get(2)?,
        changed_ms: row.try_get(3)?,
    })
}

fn registered(row: &Row) -> Result<Registered, ApiError> {
    Ok(Registered {
        username: row.try_get(0)?,
        password: row.try_get::<_, Option<String>>(1)?.map(SecretString::from),
        database: row.try_get(2)?,
        schema: row.try_get(3)?,
    })
}

fn trimmed(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// Returns the users of a project whose names come after `after`, in the order of their names.
pub async fn list(
    lease: &mut Lease<'_>,
    home: Home<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<User>, ApiError> {
    let query = lease.sql(&format!(
        "SELECT * FROM ({USERS} AND min(project) = $2) u WHERE username COLLATE \"C\" > $3 ORDER BY username COLLATE \"C\" LIMIT $4"
    ));
    let rows =
        lease.client().query(&query, &[&trimmed(home.base_url), &home.project, &after, &limit]).await?;
    rows.iter().map(user).collect()
}

/// Returns a user of any project of the cluster.
pub async fn find(lease: &mut Lease<'_>, base_url: &str, username: &str) -> Result<Option<User>, ApiError> {
    // PostgreSQL has no text with a NUL, and so no such user.
    if username.contains('\0') {
        return Ok(None);
    }
    let query = lease.sql(&format!("{USERS} AND username = $2"));
    let row = lease.client().query_opt(&query, &[&trimmed(base_url), &username]).await?;
    row.as_ref().map(user).transpose()
}

/// Registers a new role for a client of an identity provider.
///
/// The address of CDF is this gateway's, whatever the scope says: the server must not call any other.
pub async fn register(
    lease: &mut Lease<'_>,
    home: Home<'_>,
    client: &Client,
    schema: Option<&str>,
    naming: &str,
) -> Result<Registered, ApiError> {
    let in_use = lease.sql(
        "SELECT EXISTS (SELECT FROM {ext}.cdf_credentials WHERE schema = $1 \
         AND (project IS DISTINCT FROM $2 OR rtrim(base_url, '/') IS DISTINCT FROM $3))",
    );
    let call = lease.sql(
        "SELECT username, password, database, schema FROM {ext}.cdf_register_credentials(token_url => $1, client_id => $2, \
         client_secret => $3, scope => $4, project => $5, base_url => $6, audience => $7, schema => $8::text::name, naming => $9)",
    );
    let base_url = trimmed(home.base_url);
    let transaction = lease.client().transaction().await?;
    if let Some(schema) = schema {
        transaction.execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&schema]).await?;
        // Tables belong to a schema: whoever has tables in it may change them.
        if transaction.query_one(&in_use, &[&schema, &home.project, &base_url]).await?.try_get(0)? {
            let why = format!("schema \"{schema}\" has tables of another project");
            return Err(ApiError::new(axum::http::StatusCode::CONFLICT, why));
        }
    }
    let arguments: [&(dyn ToSql + Sync); 9] = [
        &client.token_url,
        &client.client_id,
        &client.client_secret.expose_secret(),
        &client.scope,
        &home.project,
        &base_url,
        &client.audience,
        &schema,
        &naming,
    ];
    let row = transaction.query_one(&call, &arguments).await?;
    let registered = registered(&row)?;
    transaction.commit().await?;
    Ok(registered)
}

/// Drops a role and all that registration made for it. Its sessions are ended.
pub async fn drop(lease: &mut Lease<'_>, username: &str) -> Result<(), ApiError> {
    let call = lease.sql("SELECT {ext}.cdf_drop_credentials($1, force => true)");
    lease.client().execute(&call, &[&username]).await?;
    Ok(())
}

/// Registers a new role for a CDF session.
pub async fn register_session(
    lease: &mut Lease<'_>,
    home: Home<'_>,
    session: &Session,
    naming: &str,
) -> Result<Registered, ApiError> {
    let call = lease.sql(
        "SELECT username, password, database, schema FROM {ext}.cdf_register_session(session_id => $1::int8::text, session_key => $2, \
         project => $3, base_url => $4, naming => $5)",
    );
    let arguments: [&(dyn ToSql + Sync); 5] =
        [&session.id, &session.key.expose_secret(), &home.project, &trimmed(home.base_url), &naming];
    registered(&lease.client().query_one(&call, &arguments).await?)
}

/// Gives a role another session of its project.
pub async fn update_session(
    lease: &mut Lease<'_>,
    username: &str,
    session: &Session,
) -> Result<(), ApiError> {
    let call = lease.sql("SELECT {ext}.cdf_update_session($1, $2::int8::text, $3)");
    lease.client().execute(&call, &[&username, &session.id, &session.key.expose_secret()]).await?;
    Ok(())
}
