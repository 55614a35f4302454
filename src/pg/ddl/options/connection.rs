//! The connection of a role to a server, made from the options of the server and of the user mapping.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::credentials::{credentials, user_mapping};
use super::stored::Stored;
use super::url::{proxy, url};
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::http::credentials::Credentials;
use crate::cdf::http::route::{CaFile, Route};
use crate::cdf::options::registry::Holder;
use crate::pg::ddl::sealing::{self, SecretHolder};
use crate::pg::rights::role_name;
use crate::pg::text::from_server;

/// Identifies a connection: a server and a user mapping.
type ConnectionKey = (pg_sys::Oid, pg_sys::Oid);

thread_local! {
    /// The connections that this session has used, with their tokens. The backend has one thread.
    static CONNECTIONS: RefCell<HashMap<ConnectionKey, MadeConnection>> = RefCell::default();
}

/// A connection, and the options that it was made from, with their secrets as stored.
struct MadeConnection {
    mapping: Stored,
    /// The names that a sealed secret is bound to.
    names: (String, Option<String>),
    connection: Arc<Connection>,
}

/// Returns the route to CDF and to the identity provider that a server's options define.
fn route_of(server: &Stored) -> Result<Route, Error> {
    Ok(Route {
        ca_file: server.get("ca_file").map(|path| CaFile::at(path.into())),
        proxy: server.get("proxy").map(proxy).transpose()?,
    })
}

/// As [`route_of`], by the server's OID.
pub fn route(server: pg_sys::Oid) -> Result<Route, Error> {
    // SAFETY: a catalog look-up, which raises an error if there is no such server.
    route_of(&unsafe { Stored::read((*pg_sys::GetForeignServer(server)).options) })
}

/// Returns the credentials of a mapping with its secrets opened.
///
/// # Errors
/// `NotAuthenticated` if a secret is sealed and cannot be opened; `InvalidOption`.
fn mapped_credentials(stored: &Stored, mapping: &SecretHolder) -> Result<Credentials, Error> {
    credentials(
        |name| stored.text(name),
        |name| stored.get(name).map(|value| sealing::open(value, mapping, name)).transpose(),
    )
}

/// Returns the connection of a role to a server. The options are read each time. Changed options make a new connection,
/// so that the old token is no longer used.
pub fn connection(server: pg_sys::Oid, user: pg_sys::Oid) -> Result<Arc<Connection>, Error> {
    // SAFETY: a catalog look-up, which raises an error if there is no such server.
    let (name, stored) = unsafe {
        let server = pg_sys::GetForeignServer(server);
        (from_server((*server).servername), Stored::read((*server).options))
    };
    let base_url = url("base_url", stored.required("base_url", Holder::Server)?)?;
    let route = route_of(&stored)?;
    let found = [user, pg_sys::InvalidOid]
        .into_iter()
        .find_map(|role| user_mapping(server, role).map(|(mapping, stored)| (mapping, stored, role)));
    let Some((mapping, stored, role)) = found else {
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
    let holder = SecretHolder::new(name, role);
    let names = (holder.server.clone(), holder.role_name().map(str::to_owned));
    // http:// may have been allowed or forbidden since.
    if let Some(token_url) = stored.get("token_url") {
        url("token_url", token_url)?;
    }
    CONNECTIONS.with_borrow_mut(|connections| {
        let known = connections.get_mut(&(server, mapping));
        let known =
            known.filter(|known| known.connection.base_url == base_url && known.connection.route == route);
        // A secret is opened once per connection, not once per statement.
        if let Some(known) = known.as_ref().filter(|known| known.mapping == stored && known.names == names) {
            return Ok(known.connection.clone());
        }
        let credentials = mapped_credentials(&stored, &holder)?;
        if let Some(known) = known {
            // The same secret may have been sealed again.
            if known.connection.project == project && known.connection.credentials == credentials {
                (known.mapping, known.names) = (stored, names);
                return Ok(known.connection.clone());
            }
        }
        let connection = Arc::new(Connection::new(base_url, project, credentials).by(route));
        let known = MadeConnection { mapping: stored, names, connection: connection.clone() };
        connections.insert((server, mapping), known);
        Ok(connection)
    })
}
