//! Asks CDF for the definitions of views, and binds tables to them.

use std::sync::Arc;

use super::{known_views, transaction, wait};
use crate::cdf::activity::Activity;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::table::view::{Definitions, View, ViewReference};
use crate::cdf::table::Table;

/// Returns what asks CDF for definitions. `what` names the purpose: "for the definition of view a".
pub fn definitions(
    connection: &Arc<Connection>,
    what: String,
) -> Result<(Definitions, Arc<Activity>), Error> {
    let activity = Activity::asking(what);
    let (connection, limits) = (connection.clone(), transaction::limits(&activity));
    Ok((Definitions { client: wait::client()?, connection, limits }, activity))
}

/// Binds a table to its view. If a definition that is known from an earlier statement does not fit, CDF is asked again:
/// the view may have new properties. Which version is the newest is asked once per transaction, so that all its
/// statements use the same one.
pub fn bind(
    connection: &Arc<Connection>,
    name: &ViewReference,
    bind: impl Fn(Arc<View>) -> Result<Table, Error>,
) -> Result<Table, Error> {
    let transaction = transaction::number();
    if let Some(table) = known_views::get(connection, name, transaction).and_then(|view| bind(view).ok()) {
        return Ok(table);
    }
    let (definitions, activity) = definitions(connection, format!("for the definition of view {name}"))?;
    let wanted = name.clone();
    let view = wait::run(&activity, async move { definitions.view(&wanted).await })??;
    let Some(view) = view else {
        known_views::remove(name);
        return Err(Error::new(Kind::InvalidOption, format!("there is no view {name} in CDF")).hint(
            "Check the table's options space, external_id and version, and the client's access to the space.",
        ));
    };
    let view = Arc::new(view);
    known_views::put(connection, name, view.clone(), transaction);
    bind(view)
}
