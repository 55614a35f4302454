//! The record of registrations: a table of the extension, which is dumped, and which holds no secret.
//!
//! It holds roles as `regrole`. So a role that is renamed keeps its registration, one that is dropped loses it, also to
//! another that is called so later, and a dump has the names. Only the table's owner may read or write it.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::commands::{self, from_utf8, spi_error, utf8};
use crate::cdf::error::{Error, Kind};
use crate::pg::errors::{raise_as, tell};
use crate::pg::rights;

/// A role's tables on a server.
#[derive(Debug)]
pub struct Registration {
    pub server: String,
    pub schema: String,
    pub registrar: pg_sys::Oid,
    /// Whether the role was made by it.
    pub made_role: bool,
    /// Whether the schema was made by it.
    pub made_schema: bool,
    /// The tables that it has made.
    pub tables: Vec<String>,
}

/// The table of registrations.
const REGISTRATIONS: &str = "cdf_registrations";

/// A table of the extension: its quoted name, and its owner.
pub fn own_table(name: &str) -> Result<(String, pg_sys::Oid), Error> {
    let query = "SELECT convert_to(c.oid::regclass::text, 'UTF8'), c.relowner FROM pg_class c \
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' \
         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid \
         WHERE e.extname = 'cdf_fdw' AND c.relname = $1::name";
    let found = Spi::connect(|client| {
        client.select(query, Some(1), &[name.into()])?.first().get_two::<Vec<u8>, pg_sys::Oid>()
    });
    match found.map_err(spi_error)? {
        (Some(table), Some(owner)) => Ok((from_utf8(Some(table)).unwrap_or_default(), owner)),
        _ => Err(Error::internal(format!("the extension has no table {name}"))),
    }
}

/// The role that the extension's objects belong to, a superuser.
pub fn owner() -> Result<pg_sys::Oid, Error> {
    own_table(REGISTRATIONS).map(|(_, owner)| owner)
}

/// Changes a table of the extension by a statement, in which `{}` is the table.
pub fn change_own(
    table: &str,
    statement: &str,
    arguments: &[pgrx::datum::DatumWithOid],
) -> Result<(), Error> {
    let (table, owner) = own_table(table)?;
    let statement = statement.replace("{}", &table);
    commands::as_role(owner, || {
        Spi::connect_mut(|client| client.update(statement.as_str(), None, arguments).map(drop))
    })
    .map_err(spi_error)
}

/// Changes the registrations by a statement, in which `{}` is the table.
fn change(statement: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Result<(), Error> {
    change_own(REGISTRATIONS, statement, arguments)
}

/// The registrations of a role.
pub fn of(role: pg_sys::Oid) -> Result<Vec<Registration>, Error> {
    select("role = $1", &[role.into()])
}

/// Those of other roles with the same schema on the same server.
pub fn sharing(role: pg_sys::Oid, registration: &Registration) -> Result<Vec<Registration>, Error> {
    select(
        "role <> $1 AND server = convert_from($2, 'UTF8') AND schema = convert_from($3, 'UTF8') \
         AND role IN (SELECT oid FROM pg_roles)",
        &[role.into(), utf8(&registration.server).into(), utf8(&registration.schema).into()],
    )
}

fn select(condition: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Result<Vec<Registration>, Error> {
    let (table, owner) = own_table(REGISTRATIONS)?;
    let query = format!(
        "SELECT convert_to(server::text, 'UTF8'), convert_to(schema::text, 'UTF8'), registrar::oid, made_role, made_schema, \
         convert_to(array_to_json(tables)::text, 'UTF8') FROM {table} WHERE {condition} ORDER BY server, schema"
    );
    let found = commands::as_role(owner, || {
        Spi::connect(|client| {
            client
                .select(query.as_str(), None, arguments)?
                .map(|row| {
                    Ok(Registration {
                        server: from_utf8(row.get(1)?).unwrap_or_default(),
                        schema: from_utf8(row.get(2)?).unwrap_or_default(),
                        registrar: row.get(3)?.unwrap_or(pg_sys::InvalidOid),
                        made_role: row.get(4)?.unwrap_or_default(),
                        made_schema: row.get(5)?.unwrap_or_default(),
                        tables: from_utf8(row.get(6)?)
                            .and_then(|tables| serde_json::from_str(&tables).ok())
                            .unwrap_or_default(),
                    })
                })
                .collect::<Result<_, spi::Error>>()
        })
    });
    found.map_err(spi_error)
}

/// The role of this name and its registrations, for a caller who may act on them.
///
/// # Errors
/// 42704 if it has none, 42501 if they are somebody else's.
pub fn find(username: &str) -> Result<(pg_sys::Oid, Vec<Registration>), Error> {
    let role = commands::role_oid(username);
    let registrations = role.map(of).transpose()?.unwrap_or_default();
    let Some(role) = role.filter(|_| !registrations.is_empty()) else {
        raise_as(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Error::new(Kind::MissingReference, format!("\"{username}\" is not registered in this database"))
                .hint("The view cdf_credentials has the registrations. cdf_register_credentials makes one."),
        );
    };
    let caller = commands::caller();
    check_registrar(username, &registrations, caller)?;
    if !commands::may_administer(caller, role) {
        return Err(Error::new(Kind::Forbidden, format!("permission denied to change role \"{username}\""))
            .hint("It takes a role with CREATEROLE that may alter it, or a superuser."));
    }
    Ok((role, registrations))
}

/// As [`find`], of the server that the role was registered on last, which its search_path leads to.
pub fn find_one(username: &str) -> Result<(pg_sys::Oid, Vec<Registration>), Error> {
    let (role, registrations) = find(username)?;
    let Some(other) = registrations.iter().find(|other| other.server != registrations[0].server) else {
        return Ok((role, registrations));
    };
    let latest = latest_server(role)?;
    let other = if other.server == latest { &registrations[0] } else { other };
    let text = format!(
        "role {} is registered on server {} as well; this is about {}, on which it was registered last",
        quote_identifier(username),
        quote_identifier(&other.server),
        quote_identifier(&latest)
    );
    tell(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, &text, None, None);
    Ok((role, registrations.into_iter().filter(|registration| registration.server == latest).collect()))
}

fn latest_server(role: pg_sys::Oid) -> Result<String, Error> {
    let (table, owner) = own_table(REGISTRATIONS)?;
    let query = format!(
        "SELECT convert_to(server::text, 'UTF8') FROM {table} WHERE role = $1 ORDER BY changed DESC, created DESC, server"
    );
    let found = commands::as_role(owner, || {
        Spi::connect(|client| {
            client.select(query.as_str(), Some(1), &[role.into()])?.first().get_one::<Vec<u8>>()
        })
    });
    Ok(from_utf8(found.map_err(spi_error)?).unwrap_or_default())
}

/// Refuses callers other than superusers and the registrar.
pub fn check_registrar(
    username: &str,
    registrations: &[Registration],
    caller: pg_sys::Oid,
) -> Result<(), Error> {
    match registrations.iter().find(|registration| registration.registrar != caller) {
        Some(other) if !commands::is_superuser(caller) => Err(Error::new(
            Kind::Forbidden,
            format!(
                "permission denied for the registration of role \"{username}\", which {} has made",
                rights::role_name(other.registrar)
            ),
        )
        .hint("Only its registrar and superusers may change it.")),
        _ => Ok(()),
    }
}

/// Keeps a new registration, or one that was made again: what it has made before stays its own, and its registrar's.
pub fn keep(role: pg_sys::Oid, registration: &Registration) -> Result<(), Error> {
    let tables: Vec<Vec<u8>> = registration.tables.iter().map(|table| utf8(table)).collect();
    // A role that is gone was dropped by hand. Its number will be another's some day.
    change("DELETE FROM {} WHERE role NOT IN (SELECT oid FROM pg_roles)", &[])?;
    change(
        "INSERT INTO {} AS known (role, server, schema, registrar, made_role, made_schema, tables, created, changed) \
         VALUES ($1, convert_from($2, 'UTF8'), convert_from($3, 'UTF8'), $4, $5, $6, \
         ARRAY(SELECT convert_from(t, 'UTF8')::name FROM unnest($7) t), now(), now()) \
         ON CONFLICT (role, server, schema) DO UPDATE SET changed = now(), \
         made_role = known.made_role OR EXCLUDED.made_role, made_schema = known.made_schema OR EXCLUDED.made_schema, \
         tables = ARRAY(SELECT t FROM unnest(known.tables) t UNION SELECT t FROM unnest(EXCLUDED.tables) t)",
        &[
            role.into(),
            utf8(&registration.server).into(),
            utf8(&registration.schema).into(),
            registration.registrar.into(),
            registration.made_role.into(),
            registration.made_schema.into(),
            tables.into(),
        ],
    )
}

/// Notes a table that was made for a registration.
pub fn add_table(role: pg_sys::Oid, registration: &Registration, table: &str) -> Result<(), Error> {
    change(
        "UPDATE {} SET tables = tables || convert_from($4, 'UTF8')::name WHERE role = $1 \
         AND server = convert_from($2, 'UTF8') AND schema = convert_from($3, 'UTF8') \
         AND convert_from($4, 'UTF8')::name <> ALL (tables)",
        &[
            role.into(),
            utf8(&registration.server).into(),
            utf8(&registration.schema).into(),
            utf8(table).into(),
        ],
    )
}

/// Notes that a role has other credentials on a server.
pub fn changed(role: pg_sys::Oid, registration: &Registration) -> Result<(), Error> {
    change(
        "UPDATE {} SET changed = now() WHERE role = $1 AND server = convert_from($2, 'UTF8')",
        &[role.into(), utf8(&registration.server).into()],
    )
}

/// Forgets a role's registrations.
pub fn forget(role: pg_sys::Oid) -> Result<(), Error> {
    change("DELETE FROM {} WHERE role = $1", &[role.into()])
}

/// Has the registration of another role with the same schema on the same server answer for what this one has made.
pub fn hand_over(role: pg_sys::Oid, registration: &Registration) -> Result<(), Error> {
    let tables: Vec<Vec<u8>> = registration.tables.iter().map(|table| utf8(table)).collect();
    change(
        "UPDATE {} AS heir SET made_schema = heir.made_schema OR $4, tables = ARRAY(SELECT t FROM unnest(heir.tables) t \
         UNION SELECT convert_from(t, 'UTF8')::name FROM unnest($5) t) \
         WHERE server = convert_from($2, 'UTF8') AND schema = convert_from($3, 'UTF8') AND role = (SELECT o.role FROM {} o \
         WHERE o.server = heir.server AND o.schema = heir.schema AND o.role <> $1 \
         AND o.role IN (SELECT oid FROM pg_roles) ORDER BY o.created, o.role::oid LIMIT 1)",
        &[
            role.into(),
            utf8(&registration.server).into(),
            utf8(&registration.schema).into(),
            registration.made_schema.into(),
            tables.into(),
        ],
    )
}

/// Lets a registrar call the functions that act on registrations.
pub fn let_manage(registrar: pg_sys::Oid) -> Result<(), Error> {
    if commands::is_superuser(registrar) {
        return Ok(());
    }
    let owner = owner()?;
    let query = "SELECT convert_to(string_agg(p.oid::regprocedure::text, ', '), 'UTF8') FROM pg_proc p \
         JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid \
         WHERE e.extname = 'cdf_fdw' AND NOT has_function_privilege($1, p.oid, 'EXECUTE') AND p.proname = ANY (ARRAY[\
         'cdf_update_credentials', 'cdf_reset_password', 'cdf_drop_credentials', 'cdf_check_credentials', \
         'cdf_create_raw_table', 'cdf_create_view_table', 'cdf_create_facade', 'cdf_drop_facade'])";
    let functions = Spi::connect(|client| {
        client.select(query, Some(1), &[registrar.into()])?.first().get_one::<Vec<u8>>()
    });
    match from_utf8(functions.map_err(spi_error)?) {
        Some(functions) => commands::as_role(owner, || {
            commands::run(&format!(
                "GRANT EXECUTE ON FUNCTION {functions} TO {}",
                rights::role_name(registrar)
            ))
        }),
        None => Ok(()),
    }
}
