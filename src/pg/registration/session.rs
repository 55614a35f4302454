//! cdf_register_session and cdf_update_session: registrations that get their tokens from a CDF session. They are called
//! by cdf-gateway-api, which creates a session from the nonce that it receives.

use pgrx::prelude::*;

use super::commands::{self, spi_error};
use super::function::{self, sql_function, FunctionCall, ResultValue};
use super::register::{self, plain};
use super::update::Held;
use super::{inspect, record};
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::credentials::{CdfSession, Credentials};
use crate::cdf::resource::Naming;
use crate::pg::ddl::{options, sealing};

/// The default server of registrations.
const SERVER: &str = "cdf";

sql_function!(
    /// Makes a role whose tokens come from a session.
    cdf_register_session,
    pg_finfo_cdf_register_session,
    |call| {
        call.writes();
        check_may_register()?;
        let registered = register::register(register::RegistrationRequest {
            credentials: session(call, 0)?,
            base_url: options::url("base_url", &call.required(3, "base_url")?)?,
            project: call.required(2, "project")?,
            username: None,
            server: SERVER.to_owned(),
            schema: None,
            naming: match call.text(4) {
                Some(naming) => options::naming(&naming)?,
                None => Naming::default(),
            },
        })?;
        call.rows(&[[
            ResultValue::Text(Some(registered.username)),
            ResultValue::Text(registered.password),
            ResultValue::Text(Some(registered.database)),
            ResultValue::Text(Some(registered.schema)),
        ]])
    }
);

sql_function!(
    /// Gives a registered role another session of its project.
    cdf_update_session,
    pg_finfo_cdf_update_session,
    |call| {
        call.writes();
        let username = call.required(0, "username")?;
        let credentials = session(call, 1)?;
        let (role, registrations) = record::find_one(&username)?;
        let registration = &registrations[0];
        let held = Held::read(&username, role, registration)?;
        sealing::keys_to_seal()?;
        let project = held.project(|_| None)?;
        let mapper = commands::mapper(&registration.server, held.owner, commands::caller())?;
        inspect::check(&held.base_url, &project, &credentials, held.route)?;
        commands::map_role(&username, (&registration.server, held.server), mapper, &project, &credentials)?;
        record::changed(role, registration)?;
        Ok(function::void())
    }
);

/// Returns the session whose id is the argument with this number, and whose key is the next argument.
fn session(call: &FunctionCall, number: usize) -> Result<Credentials, Error> {
    let id = call.required(number, "session_id")?;
    let id = id.parse().map_err(|_| {
        Error::new(Kind::InvalidValue, "session_id must be a number, the id of a CDF session")
    })?;
    Ok(Credentials::Session(CdfSession { id, key: plain(call.required(number + 1, "session_key")?)? }))
}

/// Refuses callers who may not register with a client: the same rule holds for sessions.
fn check_may_register() -> Result<(), Error> {
    let query = "SELECT bool_and(has_function_privilege($1, p.oid, 'EXECUTE')) FROM pg_proc p \
         JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid \
         WHERE e.extname = 'cdf_fdw' AND p.proname = 'cdf_register_credentials'";
    let may: Option<bool> =
        Spi::connect(|client| client.select(query, Some(1), &[commands::caller().into()])?.first().get_one())
            .map_err(spi_error)?;
    match may {
        Some(true) => Ok(()),
        _ => Err(Error::new(Kind::Forbidden, "permission denied to register a session")
            .hint("It takes the right to call cdf_register_credentials.")),
    }
}
