//! Calls PostgreSQL as a role that may call the functions of registration. It owns what it registers, and sees nothing
//! else.

pub mod tables;
pub mod users;

use std::sync::Mutex;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, Config, NoTls};

use crate::error::ApiError;
use crate::log;

/// The most connections at a time.
const CONNECTIONS: usize = 8;

/// How long a request may wait for a connection.
const WAIT: Duration = Duration::from_secs(10);

/// The first statements of every session. A statement's timeout is shorter than that of a request.
const SETTINGS: &str =
    "SET search_path = pg_catalog, pg_temp; SET statement_timeout = '45s'; SET client_encoding = 'UTF8'; \
                        SET lock_timeout = '10s'; SET TimeZone = 'UTC'";

/// The PostgreSQL server, with the connections that are open to it.
pub struct Database {
    config: Config,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// A connection to it.
pub struct Connection {
    client: Client,
    /// The schema of the extension, in SQL form.
    extension: String,
}

/// A connection while it is in use.
pub struct Lease<'a> {
    database: &'a Database,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'a>,
}

impl Database {
    /// Makes it from its options. It connects to nothing yet.
    pub fn new(mut config: Config) -> Database {
        config.application_name("cdf-gateway-api").connect_timeout(Duration::from_secs(10));
        Database { config, permits: Semaphore::new(CONNECTIONS), idle: Mutex::default() }
    }

    /// Returns a connection: one that is open already, or a new one.
    pub async fn lease(&self) -> Result<Lease<'_>, ApiError> {
        let permit =
            tokio::time::timeout(WAIT, self.permits.acquire()).await.ok().and_then(Result::ok).ok_or_else(
                || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Too many requests are under way"),
            )?;
        let idle = || self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        while let Some(connection) = idle() {
            if !connection.client.is_closed() {
                return Ok(Lease { database: self, connection: Some(connection), _permit: permit });
            }
        }
        let connection = self.connect().await?;
        Ok(Lease { database: self, connection: Some(connection), _permit: permit })
    }

    async fn connect(&self) -> Result<Connection, ApiError> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::line("connection lost", serde_json::json!({ "why": error.to_string() }));
            }
        });
        client.batch_execute(SETTINGS).await?;
        let query = "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                     WHERE e.extname = 'cdf_fdw'";
        let row = client.query_opt(query, &[]).await?;
        let extension: String =
            row.ok_or_else(|| ApiError::internal("the database has no extension cdf_fdw"))?.try_get(0)?;
        // Planning a call loads the library, which keeps the parameters of later calls out of the server's log.
        let plan = format!("EXPLAIN SELECT {extension}.cdf_register_credentials('', '', '', '', '')");
        client.batch_execute(&plan).await?;
        Ok(Connection { client, extension })
    }
}

impl Lease<'_> {
    /// Returns the client of the connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.connection.as_mut().expect("it is there until it is dropped").client
    }

    /// Returns a statement with the schema of the extension in place of `{ext}`.
    pub fn sql(&self, statement: &str) -> String {
        let connection = self.connection.as_ref().expect("it is there until it is dropped");
        statement.replace("{ext}", &connection.extension)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.client.is_closed()) {
            self.database.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
        }
    }
}
