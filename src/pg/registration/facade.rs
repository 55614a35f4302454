//! cdf_create_facade and cdf_drop_facade: a partitioned table in the place of each foreign table of a role.
//!
//! Many tools look for tables in the catalogs, and pass over foreign ones. A partitioned table is one for them. Its only partition
//! is the foreign table, which moves to a schema beside. It stays the same table there, with its options, its rights and what depends
//! on it, so that dropping the façade only moves it back.

use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use super::commands::{self, from_utf8, run, spi_error, utf8};
use super::facade_shape::{self, FacadeShape};
use super::facades::{self, Facade};
use super::function::{self, sql_function};
use super::record::{self, Registration};
use super::{grants, obstacles};
use crate::cdf::error::Error;
use crate::pg::errors::tell;
use crate::pg::rights;
use crate::pg::text::to_palloc;

sql_function!(
    /// Puts a façade in front of each table of a role that has none.
    cdf_create_facade,
    pg_finfo_cdf_create_facade,
    |call| {
        call.writes();
        let (role, registrations) = record::find(&call.required(0, "username")?)?;
        facades::lock()?;
        for registration in &registrations {
            create(role, registration, None)?;
        }
        Ok(function::void())
    }
);

sql_function!(
    /// Puts a role's foreign tables back into the places of their façades.
    cdf_drop_facade,
    pg_finfo_cdf_drop_facade,
    |call| {
        call.writes();
        let username = call.required(0, "username")?;
        let (_, registrations) = record::find(&username)?;
        facades::lock()?;
        for registration in &registrations {
            let found = facades::of(registration)?;
            let (of_them, _) = facades::pairs(&found);
            obstacles::refuse(
                &format!("drop the facade of role \"{username}\""),
                obstacles::of(&of_them, &[])?,
                "Drop it, or have it use the foreign tables themselves, and call the function again.",
            );
            restore(&found)?;
        }
        Ok(function::void())
    }
);

/// Puts façades in front of new tables of a registration, if its other tables have them.
pub fn join(role: pg_sys::Oid, registration: &Registration, tables: &[&str]) -> Result<(), Error> {
    if tables.is_empty() || facades::of(registration)?.is_empty() {
        return Ok(());
    }
    facades::lock()?;
    create(role, registration, Some(tables))
}

/// A foreign table that gets a façade.
struct ForeignTable {
    oid: pg_sys::Oid,
    name: String,
    owner: pg_sys::Oid,
    comment: Option<String>,
    /// Why it cannot be a partition.
    flaw: Option<String>,
}

/// Puts façades in front of a registration's tables, or of those that are named.
fn create(role: pg_sys::Oid, registration: &Registration, only: Option<&[&str]>) -> Result<(), Error> {
    let mut beside = None;
    for table in tables(role, registration, only)? {
        // SAFETY: the table is there, and is opened with a lock, which stays.
        let shape = unsafe {
            let relation = pg_sys::relation_open(table.oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let shape = facade_shape::of(relation);
            pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            shape
        };
        let flaw = table.flaw.clone().or_else(|| {
            shape.is_none().then(|| "it has no column whose values PostgreSQL can put in order".to_owned())
        });
        match (shape, flaw) {
            (Some(shape), None) => {
                let beside = match &beside {
                    Some(name) => name,
                    None => beside.insert(schema_beside(registration)?),
                };
                build(registration, &table, beside, &shape)?;
            }
            (_, flaw) => {
                let name = quote_identifier(&table.name);
                let text = format!("table {name} stays a foreign table: {}", flaw.unwrap_or_default());
                tell(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, &text, None, None);
            }
        }
    }
    Ok(())
}

/// A registration's foreign tables that are no partitions: in a schema of its own all of its server, elsewhere those that it, or
/// a registration that shares them, has made.
fn tables(
    role: pg_sys::Oid,
    registration: &Registration,
    only: Option<&[&str]>,
) -> Result<Vec<ForeignTable>, Error> {
    let sharing = record::sharing(role, registration)?;
    let all = || sharing.iter().chain([registration]);
    let made: Vec<Vec<u8>> = all().flat_map(|one| &one.tables).map(|table| utf8(table)).collect();
    let only: Option<Vec<Vec<u8>>> = only.map(|names| names.iter().map(|name| utf8(name)).collect());
    let query = "SELECT c.oid, convert_to(c.relname::text, 'UTF8'), c.relowner, \
         convert_to(obj_description(c.oid, 'pg_class'), 'UTF8'), \
         CASE WHEN EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)) \
         THEN 'it inherits from another table, or another one from it' \
         WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity <> '' AND NOT a.attisdropped) \
         THEN 'it has an identity column' \
         WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype & 1 = 0) \
         THEN 'it has a trigger for each statement, which would not see statements on its facade' END \
         FROM pg_class c JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = convert_from($1, 'UTF8') AND s.srvname = convert_from($2, 'UTF8') AND NOT c.relispartition \
         AND ($3 OR c.relname IN (SELECT convert_from(made, 'UTF8') FROM unnest($4) made)) \
         AND ($5 IS NULL OR c.relname IN (SELECT convert_from(wanted, 'UTF8') FROM unnest($5) wanted)) ORDER BY c.relname";
    let arguments = [
        utf8(&registration.schema).into(),
        utf8(&registration.server).into(),
        all().any(|one| one.made_schema).into(),
        made.into(),
        only.into(),
    ];
    Spi::connect(|client| {
        client
            .select(query, None, &arguments)?
            .map(|row| {
                Ok(ForeignTable {
                    oid: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                    name: from_utf8(row.get(2)?).unwrap_or_default(),
                    owner: row.get(3)?.unwrap_or(pg_sys::InvalidOid),
                    comment: from_utf8(row.get(4)?),
                    flaw: row.get(5)?,
                })
            })
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)
}

/// The schema for the foreign tables behind façades: that of the others, or a new one. It belongs to the registrar, as the tables
/// do; the role has no right on it.
fn schema_beside(registration: &Registration) -> Result<String, Error> {
    if let Some(facade) = facades::in_schema(&registration.schema)?.pop() {
        return Ok(facade.beside);
    }
    let name = (1..)
        .map(|number| {
            let suffix = if number == 1 { "_foreign".to_owned() } else { format!("_foreign_{number}") };
            let mut end = registration.schema.len().min(pg_sys::NAMEDATALEN as usize - 1 - suffix.len());
            while !registration.schema.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}{suffix}", &registration.schema[..end])
        })
        // SAFETY: a look-up by a NUL-terminated name.
        .find(|name| unsafe { pg_sys::get_namespace_oid(to_palloc(name), true) } == pg_sys::InvalidOid)
        .unwrap_or_default();
    let registrar = registration.registrar;
    let owner = if registrar != commands::caller() && rights::exists(registrar) {
        format!(" AUTHORIZATION {}", rights::role_name(registrar))
    } else {
        String::new()
    };
    let quoted = quote_identifier(&name);
    run(&format!("CREATE SCHEMA {quoted}{owner}"))?;
    let comment = format!(
        "The foreign tables behind those of schema {}. cdf_drop_facade puts them back.",
        quote_identifier(&registration.schema)
    );
    run(&format!("COMMENT ON SCHEMA {quoted} IS {}", quote_literal(comment)))?;
    Ok(name)
}

/// Moves a foreign table to a schema beside, and makes a façade in its place.
fn build(
    registration: &Registration,
    table: &ForeignTable,
    beside: &str,
    shape: &FacadeShape,
) -> Result<(), Error> {
    let (name, beside) = (quote_identifier(&table.name), quote_identifier(beside));
    let facade = format!("{}.{name}", quote_identifier(&registration.schema));
    let partition = format!("{beside}.{name}");
    let made_not_null = shape.key.as_ref().map_or(&[][..], |key| &key.not_null);
    run(&format!("ALTER FOREIGN TABLE {facade} SET SCHEMA {beside}"))?;
    for column in made_not_null {
        let column = quote_identifier(column);
        run(&format!("ALTER FOREIGN TABLE {partition} ALTER COLUMN {column} SET NOT NULL"))?;
    }
    // Constraints of the foreign table are checked there.
    run(&format!(
        "CREATE TABLE {facade} (LIKE {partition} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING COMMENTS) \
         PARTITION BY LIST ({})",
        quote_identifier(&shape.divided_by)
    ))?;
    run(&format!("ALTER TABLE {facade} ATTACH PARTITION {partition} DEFAULT"))?;
    if let Some(key) = &shape.key {
        let columns: Vec<String> = key.columns.iter().map(quote_identifier).collect();
        let kind = if key.primary { "PRIMARY KEY" } else { "UNIQUE" };
        // ONLY: PostgreSQL then wants no index of the foreign table. It never uses the one of the façade, which is there for
        // those who look for the key.
        run(&format!("ALTER TABLE ONLY {facade} ADD {kind} ({})", columns.join(", ")))?;
    }
    if let Some(comment) = &table.comment {
        run(&format!("COMMENT ON TABLE {facade} IS {}", quote_literal(comment)))?;
    }
    if table.owner != commands::caller() {
        run(&format!("ALTER TABLE {facade} OWNER TO {}", rights::role_name(table.owner)))?;
    }
    // SAFETY: look-ups by NUL-terminated names, of what has just been made.
    let made = unsafe {
        let schema = pg_sys::get_namespace_oid(to_palloc(&registration.schema), false);
        pg_sys::get_relname_relid(to_palloc(&table.name), schema)
    };
    grants::copy(table.oid, made, &facade)?;
    facades::add(made, table.oid, made_not_null)
}

/// Puts the foreign tables back into the places of these façades, with the rights that the façades have by now.
pub fn restore(found: &[Facade]) -> Result<(), Error> {
    for facade in found {
        grants::copy(facade.facade, facade.partition, &facade.partition_sql())?;
        let (name, partition) = (facade.sql(), facade.partition_sql());
        run(&format!("ALTER TABLE {name} DETACH PARTITION {partition}"))?;
        for column in &facade.made_not_null {
            if has_column(facade.partition, column) {
                let column = quote_identifier(column);
                run(&format!("ALTER FOREIGN TABLE {partition} ALTER COLUMN {column} DROP NOT NULL"))?;
            }
        }
        facades::remove(facade.facade)?;
        run(&format!("DROP TABLE {name}"))?;
    }
    for facade in found {
        let (schema, beside) = (quote_identifier(&facade.schema), quote_identifier(&facade.beside));
        let name = quote_identifier(&facade.name);
        if facade.is_renamed() {
            run(&format!("ALTER FOREIGN TABLE {} RENAME TO {name}", facade.partition_sql()))?;
        }
        run(&format!("ALTER FOREIGN TABLE {beside}.{name} SET SCHEMA {schema}"))?;
    }
    let mut schemas: Vec<&str> = found.iter().map(|facade| facade.beside.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    for schema in schemas {
        if !facades::beside(schema)?.is_empty() {
            continue;
        }
        // SAFETY: a look-up by a NUL-terminated name.
        let oid = unsafe { pg_sys::get_namespace_oid(to_palloc(schema), false) };
        let quoted = quote_identifier(schema);
        obstacles::refuse(
            &format!("drop schema {quoted}, in which foreign tables stood behind their facades"),
            obstacles::of(&[], &[oid])?,
            "Drop it or move it away, and call the function again.",
        );
        run(&format!("DROP SCHEMA {quoted}"))?;
    }
    Ok(())
}

fn has_column(table: pg_sys::Oid, column: &str) -> bool {
    // SAFETY: a look-up by a NUL-terminated name.
    unsafe { pg_sys::get_attnum(table, to_palloc(column)) > 0 }
}
