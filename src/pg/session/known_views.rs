//! Definitions of views that the session knows, since a statement has needed them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::cdf::http::connection::Connection;
use crate::cdf::table::view::{View, ViewReference};

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

/// The definition of a view, as far as it holds in this transaction. Which version is the newest is asked once in each.
pub fn get(connection: &Arc<Connection>, name: &ViewReference, transaction: u64) -> Option<Arc<View>> {
    KNOWN.with_borrow(|known| {
        let known = known.get(name)?;
        let holds = name.version.is_some() || known.transaction == transaction;
        (holds && Arc::ptr_eq(&known.connection, connection)).then(|| known.view.clone())
    })
}

/// Keeps a definition that CDF has just given.
pub fn put(connection: &Arc<Connection>, name: &ViewReference, view: Arc<View>, transaction: u64) {
    let definition = Definition { connection: connection.clone(), view, transaction };
    KNOWN.with_borrow_mut(|known| known.insert(name.clone(), definition));
}

/// Forgets the definition of a view that is not there any more.
pub fn remove(name: &ViewReference) {
    KNOWN.with_borrow_mut(|known| known.remove(name));
}

/// Forgets all definitions: a transaction has failed, perhaps because one of them is not what CDF has any more.
pub fn forget() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.clear();
        }
    });
}
