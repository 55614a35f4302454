//! The record of façades: a table of the extension, which is dumped.
//!
//! It holds tables as `regclass`, so that a renamed one stays what it is, and a dump has their names.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::commands::{self, from_utf8, run, spi_error, utf8};
use super::record::{self, Registration};
use crate::cdf::error::Error;

/// The table of façades.
const FACADES: &str = "cdf_facades";

/// A partitioned table, and the foreign table behind it.
#[derive(Debug)]
pub struct Facade {
    pub facade: pg_sys::Oid,
    pub schema: String,
    pub name: String,
    pub partition: pg_sys::Oid,
    /// The schema that the foreign table has moved to.
    pub beside: String,
    partition_name: String,
    partitions: i64,
    /// The columns that were not NOT NULL before.
    pub made_not_null: Vec<String>,
}

impl Facade {
    /// As it stands in SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// The foreign table, as it stands in SQL.
    pub fn partition_sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.beside), quote_identifier(&self.partition_name))
    }

    /// Whether the foreign table is the only partition.
    pub fn is_whole(&self) -> bool {
        self.partitions == 1
    }

    /// Whether the façade has got another name than the foreign table since.
    pub fn is_renamed(&self) -> bool {
        self.name != self.partition_name
    }
}

/// Has all who make and drop façades wait for each other, and shows this transaction what others have done.
pub fn lock() -> Result<(), Error> {
    let (table, owner) = record::own_table(FACADES)?;
    commands::as_role(owner, || run(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")))?;
    // In a transaction that has not written anything, queries see what was there when the function was called.
    run("SELECT pg_current_xact_id()")
}

/// Those in front of a registration's tables, also the tables of others who share its schema on its server.
pub fn of(registration: &Registration) -> Result<Vec<Facade>, Error> {
    select(
        "s.srvname = convert_from($1, 'UTF8') AND n.nspname = convert_from($2, 'UTF8')",
        &[utf8(&registration.server).into(), utf8(&registration.schema).into()],
    )
}

/// All in a schema.
pub fn in_schema(schema: &str) -> Result<Vec<Facade>, Error> {
    select("n.nspname = convert_from($1, 'UTF8')", &[utf8(schema).into()])
}

/// Those whose foreign tables have moved to a schema.
pub fn beside(schema: &str) -> Result<Vec<Facade>, Error> {
    select("b.nspname = convert_from($1, 'UTF8')", &[utf8(schema).into()])
}

/// One whose foreign table was detached by hand is none any more.
fn select(condition: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Result<Vec<Facade>, Error> {
    let (table, owner) = record::own_table(FACADES)?;
    let query = format!(
        "SELECT c.oid, convert_to(n.nspname::text, 'UTF8'), convert_to(c.relname::text, 'UTF8'), p.oid, \
         convert_to(b.nspname::text, 'UTF8'), convert_to(p.relname::text, 'UTF8'), \
         convert_to(array_to_json(f.made_not_null)::text, 'UTF8'), \
         (SELECT count(*) FROM pg_inherits o WHERE o.inhparent = c.oid) FROM {table} f \
         JOIN pg_class c ON c.oid = f.facade JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class p ON p.oid = f.partition JOIN pg_namespace b ON b.oid = p.relnamespace \
         JOIN pg_inherits i ON i.inhrelid = p.oid AND i.inhparent = c.oid \
         JOIN pg_foreign_table t ON t.ftrelid = p.oid JOIN pg_foreign_server s ON s.oid = t.ftserver \
         WHERE {condition} ORDER BY c.relname"
    );
    let found = commands::as_role(owner, || {
        Spi::connect(|client| {
            client
                .select(query.as_str(), None, arguments)?
                .map(|row| {
                    Ok(Facade {
                        facade: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                        schema: from_utf8(row.get(2)?).unwrap_or_default(),
                        name: from_utf8(row.get(3)?).unwrap_or_default(),
                        partition: row.get(4)?.unwrap_or(pg_sys::InvalidOid),
                        beside: from_utf8(row.get(5)?).unwrap_or_default(),
                        partition_name: from_utf8(row.get(6)?).unwrap_or_default(),
                        made_not_null: from_utf8(row.get(7)?)
                            .and_then(|columns| serde_json::from_str(&columns).ok())
                            .unwrap_or_default(),
                        partitions: row.get(8)?.unwrap_or_default(),
                    })
                })
                .collect::<Result<_, spi::Error>>()
        })
    });
    found.map_err(spi_error)
}

/// The façades and the foreign tables behind them, as arrays of their numbers: what queries of the catalogs join with.
pub fn pairs(facades: &[Facade]) -> (Vec<pg_sys::Oid>, Vec<pg_sys::Oid>) {
    facades.iter().map(|facade| (facade.facade, facade.partition)).unzip()
}

/// Notes a façade that was made.
pub fn add(facade: pg_sys::Oid, partition: pg_sys::Oid, made_not_null: &[String]) -> Result<(), Error> {
    // A table that is gone was dropped by hand. Its number will be another's some day.
    record::change_own(FACADES, "DELETE FROM {} WHERE facade NOT IN (SELECT oid FROM pg_class)", &[])?;
    let columns: Vec<Vec<u8>> = made_not_null.iter().map(|column| utf8(column)).collect();
    record::change_own(
        FACADES,
        "INSERT INTO {} (facade, partition, made_not_null) \
         VALUES ($1, $2, ARRAY(SELECT convert_from(c, 'UTF8')::name FROM unnest($3) c)) \
         ON CONFLICT (facade) DO UPDATE SET partition = EXCLUDED.partition, made_not_null = EXCLUDED.made_not_null",
        &[facade.into(), partition.into(), columns.into()],
    )
}

/// Forgets a façade.
pub fn remove(facade: pg_sys::Oid) -> Result<(), Error> {
    record::change_own(FACADES, "DELETE FROM {} WHERE facade = $1", &[facade.into()])
}
