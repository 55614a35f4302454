//! Tries credentials: gets a token, and asks CDF what the token may do.

use std::sync::Arc;
use std::time::Instant;

use url::Url;

use crate::cdf::activity::{Activity, Errand};
use crate::cdf::error::{list_names, Error, Kind, RequestError};
use crate::cdf::http::client::Inspection;
use crate::cdf::http::connection::Connection;
use crate::cdf::http::credentials::Credentials;
use crate::cdf::http::request::Limits;
use crate::cdf::http::route::Route;
use crate::pg::session::wait;
use crate::pg::settings;

/// The number of retries while a user waits to see whether a URL is right.
const RETRIES: u32 = 3;

/// Gets a token with these credentials, and asks CDF what it may do. The outer error comes from this server, for
/// instance if the wait was cancelled; the inner one comes from CDF or the identity provider.
pub fn inspect(
    base_url: &Url,
    project: &str,
    credentials: &Credentials,
    route: Route,
) -> Result<Result<Inspection, Error>, Error> {
    let deadline_setting = settings::flush_timeout();
    let activity = Activity::asking("what the client may do".into());
    let limits = Limits {
        deadline: Instant::now() + deadline_setting,
        deadline_setting,
        request_timeout: settings::request_timeout(),
        max_retries: settings::max_retries().min(RETRIES),
        errand: Errand::of(&activity),
    };
    let client = wait::client()?;
    // A new connection has no token yet.
    let connection =
        Arc::new(Connection::new(base_url.clone(), project.to_owned(), credentials.clone()).by(route));
    let inspection = wait::run(&activity, async move { client.inspect_token(&connection, &limits).await })?;
    let holder = credentials.holder();
    Ok(inspection.map_err(|error| match error {
        RequestError::Api(api) if matches!(api.status, 401 | 403) => {
            let why = format!("CDF refuses the token of {holder}: {}", api.message);
            Error::new(Kind::NotAuthenticated, why)
                .trace(Some(api.trace()))
                .hint("Check base_url, scope and audience.")
        }
        // The client's own hint would name a user mapping, which does not exist yet.
        error => match error.into_error("") {
            // A problem with a file has a hint of its own.
            error if error.kind == Kind::NotAuthenticated && error.trace.is_some() => {
                error.hint(format!("Check {}.", credentials.options()))
            }
            error => error,
        },
    }))
}

/// Says why the token cannot be used for the project, if it cannot.
pub fn check_project(inspection: &Inspection, project: &str, holder: &str) -> Result<(), Error> {
    if inspection.projects.iter().any(|accessible| accessible == project) {
        return Ok(());
    }
    let projects = match inspection.projects.len() {
        0 => "it has access to no project".to_owned(),
        len => format!("it has access to {}", list_names(inspection.projects.iter(), len)),
    };
    Err(Error::new(
        Kind::NotAuthenticated,
        format!("{holder} has no access to the CDF project \"{project}\"; {projects}"),
    )
    .trace(Some(inspection.trace.clone()))
    .hint("Add the client to a group of the project in CDF, or check the project's name."))
}

/// Checks whether credentials work for a project, before they are stored.
pub fn check(base_url: &Url, project: &str, credentials: &Credentials, route: Route) -> Result<(), Error> {
    let inspection = inspect(base_url, project, credentials, route)??;
    check_project(&inspection, project, &credentials.holder())
}
