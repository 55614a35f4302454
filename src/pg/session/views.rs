//! Definitions of views, known to the session once a statement has needed them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::{transaction, wait};
use crate::cdf::activity::Activity;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::table::view::{Definitions, View, ViewReference};
use crate::cdf::table::Table;

/// A definition, and when and how it was asked for.
struct Definition {
    /// It keeps the connection from being replaced by another one at the same place.
    connection: Arc<Connection>,
    view: Arc<View>,
    transaction: u64,
}

thread_local! {
    /// The backend has one thread.
    static KNOWN: RefCell<HashMap<ViewReference, Definition>> = RefCell::default();
}

/// What asks CDF for definitions, and what for: "for the definition of view a".
pub fn definitions(
    connection: &Arc<Connection>,
    what: String,
) -> Result<(Definitions, Arc<Activity>), Error> {
    let activity = Activity::asking(what);
    let (connection, limits) = (connection.clone(), transaction::limits(&activity));
    Ok((Definitions { client: wait::client()?, connection, limits }, activity))
}

/// Binds a table to its view. A definition that is known from an earlier statement and does not fit is asked for again:
/// the view may have got new properties. Which version is the newest is asked once in each transaction, so that all its
/// statements mean the same one.
pub fn bind(
    connection: &Arc<Connection>,
    name: &ViewReference,
    bind: impl Fn(Arc<View>) -> Result<Table, Error>,
) -> Result<Table, Error> {
    let transaction = transaction::number();
    let known = KNOWN.with_borrow(|known| {
        let known = known.get(name)?;
        let holds = name.version.is_some() || known.transaction == transaction;
        (holds && Arc::ptr_eq(&known.connection, connection)).then(|| known.view.clone())
    });
    if let Some(table) = known.and_then(|view| bind(view).ok()) {
        return Ok(table);
    }
    let (definitions, activity) = definitions(connection, format!("for the definition of view {name}"))?;
    let wanted = name.clone();
    let view = wait::run(&activity, async move { definitions.view(&wanted).await })??;
    let Some(view) = view else {
        KNOWN.with_borrow_mut(|known| known.remove(name));
        return Err(Error::new(Kind::InvalidOption, format!("there is no view {name} in CDF")).hint(
            "Check the table's options space, external_id and version, and the client's access to the space.",
        ));
    };
    let view = Arc::new(view);
    let known = Definition { connection: connection.clone(), view: view.clone(), transaction };
    KNOWN.with_borrow_mut(|all| all.insert(name.clone(), known));
    bind(view)
}

/// Forgets the definitions: a transaction has failed, perhaps because one of them is not what CDF has any more.
pub fn forget() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.clear();
        }
    });
}
