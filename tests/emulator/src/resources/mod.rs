//! The resources: which request goes where, and which capability it needs.

mod assets;
mod classic;
mod columns;
mod data_sets;
pub mod datapoints;
mod events;
mod extpipe_runs;
mod extpipes;
mod fields;
mod files;
mod filter;
pub mod instances;
mod labels;
pub mod models;
pub mod points;
mod proto;
pub mod raw;
mod relationships;
pub mod sequence_rows;
mod sequences;
mod status;
mod timeseries;

use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::{Classic, Project};

pub use timeseries::insert_instances;

/// The classic resources. A new one is a file with a [`classic::Kind`] and a line here.
static CLASSIC: &[&classic::Kind] = &[
    &assets::KIND,
    &events::KIND,
    &timeseries::KIND,
    &data_sets::KIND,
    &labels::KIND,
    &sequences::KIND,
    &relationships::KIND,
    &files::KIND,
    &extpipes::KIND,
];

/// Returns the ACLs of the classic resources.
pub fn classic_acls() -> impl Iterator<Item = &'static str> {
    CLASSIC.iter().map(|kind| kind.acl)
}

/// What answers a request.
pub type Handler = Box<dyn FnOnce(&Project, &mut Request) -> Result<Reply, ApiError> + Send>;

/// A request's handler and the capability that it needs.
pub struct Route {
    /// The ACL, by its name in token/inspect.
    pub acl: &'static str,
    /// Action of that ACL.
    pub action: &'static str,
    /// The handler.
    pub run: Handler,
}

impl Route {
    /// Makes a route to `run`.
    pub fn new(
        acl: &'static str,
        action: &'static str,
        run: impl FnOnce(&Project, &mut Request) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Self {
        Self { acl, action, run: Box::new(run) }
    }
}

/// Finds the route of a request; 404 when there is none.
pub fn route(request: &Request) -> Result<Route, ApiError> {
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    let route = match segments.as_slice() {
        ["raw", rest @ ..] => raw::route(&request.method, rest),
        ["extpipes", "runs", rest @ ..] => extpipe_runs::route(&request.method, rest),
        ["sequences", "data", rest @ ..] => sequence_rows::route(&request.method, rest),
        ["models", rest @ ..] => models::route(&request.method, rest),
        ["timeseries", "data", rest @ ..] => datapoints::route(&request.method, rest),
        [path, rest @ ..] => {
            CLASSIC.iter().find(|kind| kind.path == *path).and_then(|kind| kind.route(&request.method, rest))
        }
        [] => None,
    };
    route.ok_or_else(|| {
        ApiError::new(404, format!("Not Found: {} /{}", request.method, request.segments.join("/")))
    })
}

/// Returns what `GET /admin/dump` shows of a classic resource.
pub fn dump(project: &Project, resource: &str, external_id: Option<&str>) -> Option<Vec<serde_json::Value>> {
    if resource == extpipe_runs::PATH {
        return Some(extpipe_runs::dump(&project.classic(), external_id));
    }
    CLASSIC.iter().find(|kind| kind.path == resource).map(|kind| kind.dump(&project.classic(), external_id))
}

/// Returns the object of a resource with an external id, as answers show it.
fn dump_locked(classic: &Classic, path: &str, external_id: &str) -> Option<serde_json::Value> {
    let kind = CLASSIC.iter().find(|kind| kind.path == path)?;
    kind.dump(classic, Some(external_id)).pop()
}
