//! cdf_update_credentials: new credentials for a registered role, tried with CDF before they are stored.

use super::function::{self, sql_function, FunctionCall};
use super::record::{self, Registration};
use super::register::{plain, server_named};
use super::{commands, inspect};
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::credentials::Credentials;
use crate::cdf::http::route::Route;
use crate::cdf::options::registry::ASSERTION_FILE;
use crate::pg::ddl::options::{self, Stored};
use crate::pg::ddl::sealing::{self, SecretHolder};
use crate::pg::ddl::trust;
use crate::pg::errors::raise_as;
use crate::pg::rights;
use pgrx::prelude::*;
use url::Url;

sql_function!(
    /// Replaces the given parts of a role's credentials.
    cdf_update_credentials,
    pg_finfo_cdf_update_credentials,
    |call| {
        call.writes();
        update(call)?;
        Ok(function::void())
    }
);

/// What a registered role has on its server.
pub struct Held {
    pub server: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    pub base_url: Url,
    pub route: Route,
    holder: SecretHolder,
    mapping: Stored,
}

impl Held {
    /// Reads it. The server must belong to the registrar, the caller or a superuser: anybody else could have the secret
    /// sent elsewhere.
    pub fn read(username: &str, role: pg_sys::Oid, registration: &Registration) -> Result<Held, Error> {
        let name = &registration.server;
        let missing = |what: String| {
            raise_as(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                Error::new(Kind::MissingReference, what).hint(
                    "It was dropped or renamed. cdf_register_credentials with the same username and server makes it again.",
                ),
            )
        };
        let Some((server, owner, base_url)) = server_named(name) else {
            missing(format!("server \"{name}\" of role \"{username}\" does not exist"))
        };
        if owner != registration.registrar && !rights::may_rely_on(owner, commands::caller()) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "server \"{name}\" belongs to {}, who has neither made the registration nor is a superuser",
                    rights::role_name(owner)
                ),
            )
            .detail("Whoever owns it could have the credentials or the rows sent elsewhere."));
        }
        let Some((_, mapping)) = options::user_mapping(server, role) else {
            missing(format!("role \"{username}\" has no user mapping for server \"{name}\""))
        };
        let base_url = options::url("base_url", &base_url.unwrap_or_default())?;
        let (route, holder) = (options::route(server)?, SecretHolder::new(name.clone(), role));
        Ok(Held { server, owner, base_url, route, holder, mapping })
    }

    /// Returns the credentials, with the parts that `given` has in place of the stored ones.
    pub fn credentials(&self, given: impl Fn(&str) -> Option<String>) -> Result<Credentials, Error> {
        // A client's secret replaces an assertion, and a client replaces a session.
        let replaced = |name: &str| match name {
            "session_id" | "session_key" => {
                ["client_secret", "client_id", "token_url"].into_iter().any(|name| given(name).is_some())
            }
            ASSERTION_FILE => given("client_secret").is_some(),
            _ => false,
        };
        let stored = |name: &str| self.mapping.get(name).filter(|_| !replaced(name));
        options::credentials(
            |name| given(name).or_else(|| stored(name).map(str::to_owned)),
            |name| match given(name) {
                Some(secret) => plain(secret).map(Some),
                None => stored(name).map(|value| sealing::open(value, &self.holder, name)).transpose(),
            },
        )
    }

    /// Returns the project, from `given` if it has one.
    pub fn project(&self, given: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
        given("project")
            .or_else(|| self.mapping.text("project"))
            .ok_or_else(|| Error::new(Kind::InvalidOption, "the user mapping has no project"))
    }

    /// Returns who gets tokens by the mapping, as far as that is known without a key: a client, or a session.
    pub fn id(&self) -> String {
        self.mapping.text("client_id").or_else(|| self.mapping.text("session_id")).unwrap_or_default()
    }
}

/// The parameters after username, in order; they are named like the options of a user mapping.
const PARAMETERS: [&str; 6] = ["client_secret", "client_id", "token_url", "scope", "project", "audience"];

fn update(call: &FunctionCall) -> Result<(), Error> {
    let username = call.required(0, "username")?;
    let given = |name: &str| {
        PARAMETERS.iter().position(|parameter| *parameter == name).and_then(|at| call.text(at + 1))
    };
    if PARAMETERS.iter().all(|name| given(name).is_none()) {
        return Err(Error::new(Kind::MissingValue, "cdf_update_credentials needs a value to change")
            .hint(format!("Give one of {}.", PARAMETERS.join(", "))));
    }
    let (role, registrations) = record::find_one(&username)?;
    let registration = &registrations[0];
    let held = Held::read(&username, role, registration)?;
    sealing::keys_to_seal()?;
    let (project, credentials) = (held.project(given)?, held.credentials(given)?);
    let caller = commands::caller();
    let steers = options::steering_mapping()
        .any(|name| given(name).is_some() && given(name).as_deref() != held.mapping.get(name));
    let keeps_secret = given("client_secret").is_none();
    if steers && keeps_secret && !commands::is_superuser(caller) {
        return Err(trust::cannot_steer(role));
    }
    let mapper = commands::mapper(&registration.server, held.owner, caller)?;
    inspect::check(&held.base_url, &project, &credentials, held.route)?;
    commands::map_role(&username, (&registration.server, held.server), mapper, &project, &credentials)?;
    record::changed(role, registration)
}
