//! Where rows go, and which destinations reach the same items.

use std::sync::Arc;

use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::view::View;

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Destination {
    pub connection: Arc<Connection>,
    pub resource: &'static Resource,
    /// RAW's database and table.
    pub raw: Option<(String, String)>,
    /// The view through which instances are written.
    pub view: Option<Arc<View>>,
}

impl Destination {
    /// Whether rows of a resource that are written over this connection go to it.
    pub(super) fn takes(&self, connection: &Arc<Connection>, resource: &'static Resource) -> bool {
        Arc::ptr_eq(&self.connection, connection) && std::ptr::eq(self.resource, resource)
    }

    /// Whether it holds rows of a resource that are also reached over this connection: of the same project, whatever the
    /// credentials.
    pub(super) fn reaches(&self, connection: &Connection, resource: &'static Resource) -> bool {
        std::ptr::eq(self.resource, resource) && self.connection.reaches_same_as(connection)
    }

    /// Whether a write to one may be about the same item as a write to the other.
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
