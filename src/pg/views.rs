//! Definitions of views, known to the session once a statement has needed them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::{transaction, wait};
use crate::cdf::client::Connection;
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::Table;
use crate::cdf::view::{Definitions, View, ViewName};

/// A connection, which the key keeps from being replaced by another one at the same place, and a view's name.
type Known = HashMap<ViewName, (Arc<Connection>, Arc<View>)>;

thread_local! {
    /// The backend has one thread.
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What asks CDF for definitions.
pub fn definitions(connection: &Arc<Connection>) -> Result<Definitions, Error> {
    Ok(Definitions { client: wait::client()?, connection: connection.clone(), limits: transaction::limits() })
}

/// Binds a table to its view. A definition that is known from an earlier statement and does not fit is asked for again:
/// the view may have got new properties.
pub fn bind(
    connection: &Arc<Connection>,
    name: &ViewName,
    bind: impl Fn(Arc<View>) -> Result<Table, Error>,
) -> Result<Table, Error> {
    let known = KNOWN.with_borrow(|known| {
        let (of, view) = known.get(name)?;
        Arc::ptr_eq(of, connection).then(|| view.clone())
    });
    if let Some(table) = known.and_then(|view| bind(view).ok()) {
        return Ok(table);
    }
    let definitions = definitions(connection)?;
    let wanted = name.clone();
    let view = wait::run(async move { definitions.view(&wanted).await })??;
    let Some(view) = view else {
        KNOWN.with_borrow_mut(|known| known.remove(name));
        return Err(Error::new(Kind::InvalidOption, format!("there is no view {name} in CDF")).hint(
            "Check the table's options space, external_id and version, and the client's access to the space.",
        ));
    };
    let view = Arc::new(view);
    KNOWN.with_borrow_mut(|known| known.insert(name.clone(), (connection.clone(), view.clone())));
    bind(view)
}
