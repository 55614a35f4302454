//! The definitions of views that the session has read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::cdf::http::connection::Connection;
use crate::cdf::table::view::{View, ViewReference};

/// A definition, and when and through what it was read.
struct Definition {
    /// Keeps the connection alive, so that no other connection gets the same address.
    connection: Arc<Connection>,
    view: Arc<View>,
    transaction: u64,
}

thread_local! {
    /// The backend has one thread.
    static KNOWN: RefCell<HashMap<ViewReference, Definition>> = RefCell::default();
}

/// Returns the definition of a view that is valid in this transaction. The newest version is looked up once per
/// transaction.
pub fn get(connection: &Arc<Connection>, name: &ViewReference, transaction: u64) -> Option<Arc<View>> {
    KNOWN.with_borrow(|known| {
        let known = known.get(name)?;
        let holds = name.version.is_some() || known.transaction == transaction;
        (holds && Arc::ptr_eq(&known.connection, connection)).then(|| known.view.clone())
    })
}

/// Keeps a definition that CDF has just returned.
pub fn put(connection: &Arc<Connection>, name: &ViewReference, view: Arc<View>, transaction: u64) {
    let definition = Definition { connection: connection.clone(), view, transaction };
    KNOWN.with_borrow_mut(|known| known.insert(name.clone(), definition));
}

/// Forgets the definition of a view that no longer exists.
pub fn remove(name: &ViewReference) {
    KNOWN.with_borrow_mut(|known| known.remove(name));
}

/// Forgets all definitions. A failed transaction does this, since one of them may be out of date.
pub fn forget() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.clear();
        }
    });
}
