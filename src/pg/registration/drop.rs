//! cdf_drop_credentials: drops everything that registration has made, and nothing else.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::commands::{self, from_utf8, run, spi_error, utf8};
use super::facades::{self, Facade};
use super::function::{self, sql_function};
use super::record::{self, Registration};
use super::register::server_named;
use super::{facade, obstacles};
use crate::cdf::error::{Error, Kind};
use crate::pg::ddl::{options, preload};
use crate::pg::errors::raise_as;
use crate::pg::text::{from_server, to_palloc};

/// How many times to check, every tenth of a second, whether sessions that are ending are gone.
const LEAVING_TRIES: usize = 30;

/// How long a session that is terminated may take to end.
const END_TIMEOUT_MS: i64 = 10_000;

sql_function!(
    /// Drops a role's user mappings, tables and schemas, and the role itself, as far as registration has made them.
    cdf_drop_credentials,
    pg_finfo_cdf_drop_credentials,
    |call| {
        call.writes();
        drop_registrations(&call.required(0, "username")?, call.flag(1))?;
        Ok(function::void())
    }
);

/// A registration that is being dropped, as the database has it.
struct DroppedRegistration {
    registration: Registration,
    /// Whether another role has its tables in the schema, too. Then they stay.
    shared: bool,
    schema: Option<pg_sys::Oid>,
    /// The server's foreign tables in the schema: those to drop.
    tables: Vec<OwnedTable>,
    /// What stands in front of further ones, which go, too.
    facades: Vec<Facade>,
}

struct OwnedTable {
    oid: pg_sys::Oid,
    /// As it stands in SQL.
    name: String,
}

impl DroppedRegistration {
    /// Returns the schema, if it is dropped, too.
    fn dropped_schema(&self) -> Option<pg_sys::Oid> {
        self.schema.filter(|_| self.registration.made_schema && !self.shared)
    }

    /// All tables that go.
    fn dropped_tables(&self) -> impl Iterator<Item = pg_sys::Oid> + '_ {
        let behind = self.facades.iter().flat_map(|facade| [facade.facade, facade.partition]);
        self.tables.iter().map(|table| table.oid).chain(behind)
    }
}

fn drop_registrations(username: &str, force: bool) -> Result<(), Error> {
    let (role, registrations) = record::find(username)?;
    let caller = commands::caller();
    let drops_role = registrations.iter().any(|registration| registration.made_role);
    facades::lock()?;
    let mut places: Vec<DroppedRegistration> =
        registrations.into_iter().map(|registration| place(role, registration)).collect::<Result<_, _>>()?;
    // Find what prevents the drop before any session is ended.
    check_obstacles(username, role, &places, drops_role)?;
    end_sessions(username, role, drops_role, force)?;

    let name = quote_identifier(username);
    for place in &mut places {
        if !place.facades.is_empty() {
            facade::restore(&place.facades)?;
            place.tables = tables_of(&place.registration, place.schema)?;
        }
        let tables: Vec<&str> = place.tables.iter().map(|table| table.name.as_str()).collect();
        if !tables.is_empty() {
            run(&format!("DROP FOREIGN TABLE {}", tables.join(", ")))?;
        }
        if place.shared {
            record::hand_over(role, &place.registration)?;
        }
        let schema = quote_identifier(&place.registration.schema);
        if place.dropped_schema().is_some() {
            run(&format!("DROP SCHEMA {schema}"))?;
        } else if let Some(oid) = place.schema {
            revoke(role, &name, &schema, oid)?;
        }
        if let Some((server, owner, _)) = server_named(&place.registration.server) {
            if options::user_mapping(server, role).is_some() {
                let mapper = commands::mapper(&place.registration.server, owner, caller)?;
                let server = quote_identifier(&place.registration.server);
                commands::as_role(mapper, || run(&format!("DROP USER MAPPING FOR {name} SERVER {server}")))?;
            }
        }
    }
    record::forget(role)?;
    if drops_role {
        run(&format!("DROP ROLE {name}"))
    } else {
        reset_settings(role, username)
    }
}

fn place(role: pg_sys::Oid, registration: Registration) -> Result<DroppedRegistration, Error> {
    let shared = !record::sharing(role, &registration)?.is_empty();
    // SAFETY: a look-up by a NUL-terminated name.
    let schema = unsafe { pg_sys::get_namespace_oid(to_palloc(&registration.schema), true) };
    let schema = (schema != pg_sys::InvalidOid).then_some(schema);
    let (mut tables, mut facades) = (Vec::new(), Vec::new());
    if !shared {
        tables = tables_of(&registration, schema)?;
        facades = facades::of(&registration)?;
        facades.retain(|facade| registration.made_schema || registration.tables.contains(&facade.name));
    }
    Ok(DroppedRegistration { registration, shared, schema, tables, facades })
}

/// The registration's tables: in a schema of its own all of the server, elsewhere those that it has made.
fn tables_of(registration: &Registration, schema: Option<pg_sys::Oid>) -> Result<Vec<OwnedTable>, Error> {
    let Some(schema) = schema else { return Ok(Vec::new()) };
    let query = "SELECT c.oid, convert_to(c.oid::regclass::text, 'UTF8') FROM pg_class c \
         JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver \
         WHERE c.relnamespace = $1 AND s.srvname = convert_from($2, 'UTF8') \
         AND ($3 OR c.relname IN (SELECT convert_from(made, 'UTF8') FROM unnest($4) made)) ORDER BY c.relname";
    let made: Vec<Vec<u8>> = registration.tables.iter().map(|table| utf8(table)).collect();
    let arguments =
        [schema.into(), utf8(&registration.server).into(), registration.made_schema.into(), made.into()];
    Spi::connect(|client| {
        client
            .select(query, None, &arguments)?
            .map(|row| {
                Ok(OwnedTable {
                    oid: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                    name: from_utf8(row.get(2)?).unwrap_or_default(),
                })
            })
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)
}

/// Refuses to drop what others depend on, or the role while it has objects of its own.
fn check_obstacles(
    username: &str,
    role: pg_sys::Oid,
    places: &[DroppedRegistration],
    drops_role: bool,
) -> Result<(), Error> {
    let tables: Vec<pg_sys::Oid> = places.iter().flat_map(DroppedRegistration::dropped_tables).collect();
    let mut dropped: Vec<pg_sys::Oid> =
        places.iter().filter_map(DroppedRegistration::dropped_schema).collect();
    for beside in places.iter().flat_map(|place| &place.facades).map(|facade| &facade.beside) {
        // SAFETY: a look-up by a NUL-terminated name.
        let oid = unsafe { pg_sys::get_namespace_oid(to_palloc(beside), false) };
        let goes = || facades::beside(beside).map(|all| all.iter().all(|one| tables.contains(&one.facade)));
        if !dropped.contains(&oid) && goes()? {
            dropped.push(oid);
        }
    }
    let mut found = obstacles::of(&tables, &dropped)?;
    if drops_role {
        found.extend(belongings(role, places)?);
    }
    obstacles::refuse(
        &format!("drop the registration of role \"{username}\""),
        found,
        "Drop it or move it away, REVOKE rights that were granted by hand, and call the function again.",
    );
    Ok(())
}

/// What a role owns, and the rights that it has, apart from those that go with its registrations.
fn belongings(role: pg_sys::Oid, places: &[DroppedRegistration]) -> Result<Vec<String>, Error> {
    let schemas: Vec<pg_sys::Oid> = places.iter().filter_map(|place| place.schema).collect();
    let servers: Vec<Vec<u8>> = places.iter().map(|place| utf8(&place.registration.server)).collect();
    let mut behind = Vec::new();
    for place in places {
        let (of_them, partitions) = facades::pairs(&facades::of(&place.registration)?);
        behind.extend(of_them.into_iter().chain(partitions));
    }
    let query = "WITH own AS ( \
           SELECT c.oid FROM pg_class c JOIN pg_foreign_table t ON t.ftrelid = c.oid \
           JOIN pg_foreign_server s ON s.oid = t.ftserver \
           WHERE c.relnamespace = ANY ($2) AND s.srvname IN (SELECT convert_from(n, 'UTF8') FROM unnest($3) n) \
           UNION SELECT unnest($5)), \
         belonging AS ( \
           SELECT DISTINCT s.classid, s.objid, s.objsubid FROM pg_shdepend s \
           WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND s.deptype IN ('o', 'a', 'r') \
           AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
           AND NOT (s.classid = 'pg_user_mapping'::regclass AND s.objid = ANY ($4)) \
           AND NOT (s.classid = 'pg_class'::regclass AND s.deptype = 'a' AND s.objid IN (SELECT oid FROM own)) \
           AND NOT (s.classid = 'pg_namespace'::regclass AND s.deptype = 'a' AND s.objid = ANY ($2))) \
         SELECT convert_to(pg_describe_object(classid, objid, objsubid), 'UTF8') FROM belonging \
         UNION ALL \
         SELECT convert_to(format('%s object%s in database %I', count(*), CASE WHEN count(*) > 1 THEN 's' ELSE '' END, b.datname), 'UTF8') FROM pg_shdepend s \
         JOIN pg_database b ON b.oid = s.dbid WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 \
         AND s.deptype IN ('o', 'a', 'r') AND b.datname <> current_database() GROUP BY b.datname";
    let mappings: Vec<pg_sys::Oid> = places
        .iter()
        .filter_map(|place| server_named(&place.registration.server))
        .filter_map(|(server, _, _)| options::user_mapping(server, role))
        .map(|(mapping, _)| mapping)
        .collect();
    let arguments = [role.into(), schemas.into(), servers.into(), mappings.into(), behind.into()];
    obstacles::described(query, &arguments)
}

/// Ends the role's sessions, or refuses to. Sessions in other databases matter only if the role is dropped.
fn end_sessions(username: &str, role: pg_sys::Oid, everywhere: bool, force: bool) -> Result<(), Error> {
    // Only a superuser may see what other sessions do, and end them. It was checked already that the caller may drop
    // the role.
    let owner = record::owner()?;
    let list = || -> Result<Vec<i32>, Error> {
        let query = "SELECT pid FROM pg_stat_activity WHERE usesysid = $1 AND pid <> pg_backend_pid() \
             AND leader_pid IS NULL AND backend_type = 'client backend' AND ($2 OR datname = current_database())";
        let pids = commands::as_role(owner, || {
            Spi::connect(|client| {
                let rows = client.select(query, None, &[role.into(), everywhere.into()])?;
                rows.map(|row| row.get(1)).collect::<Result<Vec<Option<i32>>, spi::Error>>()
            })
        });
        Ok(pids.map_err(spi_error)?.into_iter().flatten().collect())
    };
    let mut left = list()?.len();
    // A session whose client has left is about to end. DROP DATABASE waits for such sessions, too.
    for _ in 0..LEAVING_TRIES {
        if left == 0 || force {
            break;
        }
        run("SELECT pg_sleep(0.1)")?;
        run("SELECT pg_stat_clear_snapshot()")?;
        left = list()?.len();
    }
    if left > 0 && force {
        left = 0;
        for pid in list()? {
            // Not within the query above, because PostgreSQL may evaluate its conditions in any order.
            let ended = commands::as_role(owner, || {
                Spi::connect(|client| {
                    let query = "SELECT pg_terminate_backend($1, $2)";
                    client
                        .select(query, Some(1), &[pid.into(), END_TIMEOUT_MS.into()])?
                        .first()
                        .get_one::<bool>()
                })
            });
            left += usize::from(ended.map_err(spi_error)? != Some(true));
        }
    }
    if left == 0 {
        return Ok(());
    }
    let sessions = if left == 1 { "1 open session".to_owned() } else { format!("{left} open sessions") };
    let error = if force {
        Error::new(Kind::InvalidValue, format!("role \"{username}\" still has {sessions}, which do not end"))
            .hint("Call the function again.")
    } else {
        Error::new(Kind::InvalidValue, format!("role \"{username}\" has {sessions}"))
            .hint("Close them, or call cdf_drop_credentials(username, force => true), which ends them.")
    };
    raise_as(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, error)
}

/// Revokes a role's rights on a schema that stays, and on this extension's tables in it, or behind it.
fn revoke(role: pg_sys::Oid, name: &str, schema: &str, oid: pg_sys::Oid) -> Result<(), Error> {
    // SAFETY: the schema is there; its name is a copy.
    let standing = facades::in_schema(&unsafe { from_server(pg_sys::get_namespace_name(oid)) })?;
    let (of_them, partitions) = facades::pairs(&standing);
    let behind: Vec<pg_sys::Oid> = of_them.into_iter().chain(partitions).collect();
    let query = "SELECT convert_to(string_agg(c.oid::regclass::text, ', '), 'UTF8'), \
         (SELECT count(*) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.oid = $1 AND a.grantee = $2) \
         FROM pg_class c WHERE (c.oid = ANY ($3) OR c.relnamespace = $1 AND EXISTS ( \
         SELECT FROM pg_foreign_table t JOIN pg_foreign_server s ON s.oid = t.ftserver \
         JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE t.ftrelid = c.oid AND w.fdwname = 'cdf_fdw')) \
         AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = $2)";
    let (tables, on_schema) = Spi::connect(|client| {
        client
            .select(query, Some(1), &[oid.into(), role.into(), behind.into()])?
            .first()
            .get_two::<Vec<u8>, i64>()
    })
    .map_err(spi_error)?;
    if let Some(tables) = from_utf8(tables) {
        run(&format!("REVOKE ALL ON TABLE {tables} FROM {name}"))?;
    }
    if on_schema.unwrap_or_default() > 0 {
        run(&format!("REVOKE ALL ON SCHEMA {schema} FROM {name}"))?;
    }
    Ok(())
}

/// Resets the settings that registration made for a role that stays. Only superusers can set libraries.
fn reset_settings(role: pg_sys::Oid, username: &str) -> Result<(), Error> {
    let name = quote_identifier(username);
    let query = "SELECT convert_to(entry, 'UTF8') FROM pg_db_role_setting s, unnest(s.setconfig) entry \
         WHERE s.setrole = $1 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let entries: Vec<String> = Spi::connect(|client| {
        client
            .select(query, None, &[role.into()])?
            .map(|row| Ok(from_utf8(row.get(1)?).unwrap_or_default()))
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)?;
    let alter = format!("ALTER ROLE {name} IN DATABASE {}", quote_identifier(commands::current_database()));
    for (setting, value) in entries.iter().filter_map(|entry| entry.split_once('=')) {
        match setting {
            "search_path" | "TimeZone" => run(&format!("{alter} RESET {setting}"))?,
            "session_preload_libraries" if commands::is_superuser(commands::caller()) => {
                run(&format!("{alter} RESET {setting}"))?;
                if !preload::was_wanted(username, value)? {
                    let libraries: Vec<String> = preload::names(value).iter().map(quote_literal).collect();
                    run(&format!("{alter} SET {setting} = {}", libraries.join(", ")))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
