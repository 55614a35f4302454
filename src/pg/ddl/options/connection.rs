//! The connection of a role to a server: what the options of the server and of its user mapping come to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::credentials::{credentials, user_mapping};
use super::registry::Holder;
use super::stored::Stored;
use super::url::url;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::pg::rights::role_name;
use crate::pg::text::from_server;

/// A connection is known by its server and its user mapping.
type ConnectionKey = (pg_sys::Oid, pg_sys::Oid);

thread_local! {
    /// The connections that this session has used, which hold their tokens. The backend has one thread.
    static CONNECTIONS: RefCell<HashMap<ConnectionKey, Arc<Connection>>> = RefCell::default();
}

/// The connection of a role to a server. The options are read anew each time: changed ones make a new connection,
/// so that the token of the old ones is not used any more.
pub fn connection(server: pg_sys::Oid, user: pg_sys::Oid) -> Result<Arc<Connection>, Error> {
    // SAFETY: a catalog look-up, which raises an error if there is no such server.
    let (name, stored) = unsafe {
        let server = pg_sys::GetForeignServer(server);
        (from_server((*server).servername), Stored::read((*server).options))
    };
    let base_url = url("base_url", stored.required("base_url", Holder::Server)?)?;
    let mapping = user_mapping(server, user).or_else(|| user_mapping(server, pg_sys::InvalidOid));
    let Some((mapping, stored)) = mapping else {
        let (user, server) = (role_name(user), quote_identifier(name));
        return Err(Error::new(
            Kind::NotAuthenticated,
            format!("role {user} has no user mapping for server {server}"),
        )
        .hint(format!(
            "Create one with cdf_register_credentials, or with CREATE USER MAPPING FOR {user} SERVER {server} \
             OPTIONS (project '…', token_url '…', client_id '…', client_secret '…', scope '…')."
        )));
    };
    let project = stored.required("project", Holder::UserMapping)?.to_owned();
    let credentials = credentials(&stored)?;
    CONNECTIONS.with_borrow_mut(|connections| {
        if let Some(known) = connections.get(&(server, mapping)) {
            if known.base_url == base_url && known.project == project && known.credentials == credentials {
                return Ok(known.clone());
            }
        }
        let connection = Arc::new(Connection::new(base_url, project, credentials));
        connections.insert((server, mapping), connection.clone());
        Ok(connection)
    })
}
