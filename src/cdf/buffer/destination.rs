//! Destinations of rows, and which destinations share items.

use std::sync::Arc;

use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::view::View;

/// The destination of rows.
#[derive(Debug, Clone)]
pub struct Destination {
    pub connection: Arc<Connection>,
    pub resource: &'static Resource,
    /// The RAW database and table.
    pub raw: Option<(String, String)>,
    /// The view through which instances are written.
    pub view: Option<Arc<View>>,
}

impl Destination {
    /// Checks whether rows of a resource written over this connection go to this destination.
    pub(super) fn takes(&self, connection: &Arc<Connection>, resource: &'static Resource) -> bool {
        Arc::ptr_eq(&self.connection, connection) && std::ptr::eq(self.resource, resource)
    }

    /// Checks whether this connection can reach rows of a resource at this destination: those of the same project,
    /// whatever the credentials.
    pub(super) fn reaches(&self, connection: &Connection, resource: &'static Resource) -> bool {
        std::ptr::eq(self.resource, resource) && self.connection.reaches_same_as(connection)
    }

    /// Checks whether writes to the two destinations may concern the same item.
    pub fn shares_items_with(&self, other: &Destination) -> bool {
        self.reaches(&other.connection, other.resource) && self.raw == other.raw
    }

    pub(super) fn is(
        &self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        raw: Option<(&str, &str)>,
    ) -> bool {
        self.takes(connection, resource)
            && self.raw.as_ref().map(|(database, table)| (&**database, &**table)) == raw
    }
}
