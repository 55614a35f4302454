//! ANALYZE: a sample of what CDF has, read page by page.
//!
//! A table that cannot be read gets a WARNING and keeps its statistics, as PostgreSQL does with a table that it may not
//! analyze: one table must not end the ANALYZE of a whole database.

use std::ops::ControlFlow;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::pages::each_row;
use super::readers;
use super::tuple::RowWriter;
use super::unfit::Tally;
use crate::cdf::error::Error;
use crate::pg::ddl::options;
use crate::pg::errors::{tell, warn};
use crate::pg::modify::slot;
use crate::pg::rights::role_name;
use crate::pg::text::from_server;

/// Rows that are read for each row of the sample: the whole table, where it has no more.
const READ_PER_SAMPLED: usize = 10;
/// Rows of a page of PostgreSQL's own, in which its cost model counts.
const ROWS_PER_BLOCK: f64 = 100.0;

/// Whether a table can be analysed: not, if there are no credentials for it. PostgreSQL then says that it is skipped, instead
/// of ending the analysis of a whole database.
///
/// # Safety
/// PostgreSQL passes an open foreign table.
#[pg_guard]
pub unsafe extern "C-unwind" fn analyze_foreign_table(
    relation: pg_sys::Relation,
    func: *mut pg_sys::AcquireSampleRowsFunc,
    totalpages: *mut pg_sys::BlockNumber,
) -> bool {
    // SAFETY: the caller's promise; both results are there to be written.
    unsafe {
        if user(relation).is_none() {
            return false;
        }
        *func = Some(acquire_sample_rows);
        // A table that has pages in the catalog is one that DuckDB reads in parts, by ranges of ctid. But of a parent's
        // tables PostgreSQL samples only those that have some. It locks them less than the one that it analyses.
        let itself = pg_sys::CheckRelationLockedByMe(
            relation,
            pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE,
            false,
        );
        *totalpages = if itself {
            0
        } else {
            ((*(*relation).rd_rel).reltuples.max(0.0) as f64 / ROWS_PER_BLOCK) as u32 + 1
        };
        true
    }
}

/// Whose credentials are used: the owner's. Those of whoever runs ANALYZE serve only for a superuser's table: the statistics
/// show the owner what was read, and an owner without credentials must not see CDF through those of another.
///
/// # Safety
/// The relation is an open foreign table.
unsafe fn user(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    // SAFETY: the caller's promise; look-ups in the catalogs.
    unsafe {
        let server = (*pg_sys::GetForeignTable((*relation).rd_id)).serverid;
        let has_credentials = |user: &pg_sys::Oid| {
            [*user, pg_sys::InvalidOid].iter().any(|user| options::user_mapping(server, *user).is_some())
        };
        let owner = (*(*relation).rd_rel).relowner;
        let runs = pg_sys::superuser_arg(owner).then(|| pg_sys::GetOuterUserId());
        [Some(owner), runs].into_iter().flatten().find(has_credentials)
    }
}

/// # Safety
/// PostgreSQL passes an open foreign table and room for `targrows` rows.
#[pg_guard]
unsafe extern "C-unwind" fn acquire_sample_rows(
    relation: pg_sys::Relation,
    _elevel: std::ffi::c_int,
    rows: *mut pg_sys::HeapTuple,
    targrows: std::ffi::c_int,
    totalrows: *mut f64,
    totaldeadrows: *mut f64,
) -> std::ffi::c_int {
    // SAFETY: the caller's promise.
    unsafe {
        *totaldeadrows = 0.0;
        match sample(relation, rows, targrows as usize) {
            Ok((sampled, total)) => {
                *totalrows = total;
                match keep_values(relation) {
                    true => sampled as std::ffi::c_int,
                    false => 0,
                }
            }
            Err(mut error) => {
                let name = relation_name(relation);
                error.message =
                    format!("cannot analyze foreign table {name}, skipping it: {}", error.message);
                warn(error);
                // Without rows PostgreSQL leaves the columns' statistics as they are; the number of rows is as known.
                *totalrows = f64::from((*(*relation).rd_rel).reltuples);
                0
            }
        }
    }
}

/// Whether the statistics may have values of the sample in them. If not, those of an earlier one go as well; the number of rows
/// stays.
///
/// # Safety
/// The relation is an open foreign table that is being analysed.
unsafe fn keep_values(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise. Of a table as a whole the statistics of all columns are removed.
    unsafe {
        let (relid, server) = ((*relation).rd_id, (*pg_sys::GetForeignTable((*relation).rd_id)).serverid);
        let sampled_as = user(relation).unwrap_or(pg_sys::GetUserId());
        let Some(role) = readers::stranger(relid, server, sampled_as) else { return true };
        pg_sys::RemoveStatistics(relid, 0);
        let (name, role) = (relation_name(relation), role_name(role));
        tell(
            PgLogLevel::NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            &format!("statistics of foreign table {name} have the number of rows only"),
            Some(&format!("Role {role} may read the table with other credentials, and would see values of the sample in pg_stats.")),
            None,
        );
        false
    }
}

/// Fills `rows` with a random sample of what is read; gives their number, and how many rows the table has.
unsafe fn sample(
    relation: pg_sys::Relation,
    rows: *mut pg_sys::HeapTuple,
    wanted: usize,
) -> Result<(usize, f64), Error> {
    // SAFETY: as for acquire_sample_rows: the relation is open, and there is room for so many rows. The slot is dropped
    // after its last use.
    unsafe {
        let user = user(relation).unwrap_or(pg_sys::GetUserId());
        let (server, table) = options::table_definition(relation, user)?;
        let connection = options::connection(server, user)?;
        let mut writer = RowWriter::new((*relation).rd_att, pg_sys::CurrentMemoryContext);
        let slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
        let columns: Vec<usize> = (0..table.bindings.len()).collect();
        let (all, names) = (vec![true; columns.len()], table.names.clone());
        // No statistics hold what does not fit, and no option stops ANALYZE: nobody gets to see a value here.
        let mut unfit = Tally::default();
        let (mut read, mut sampled) = (0usize, 0usize);
        let result = each_row(&connection, Arc::new(table), &columns, |row| {
            // Each row read so far stays with the same probability.
            let place = match read {
                read if read < wanted => read,
                read => random()? as usize % (read + 1),
            };
            read += 1;
            if place < wanted {
                slot::clear(slot);
                for unfitting in writer.store(&row, &all, slot) {
                    unfit.add(&relation_name(relation), &names[unfitting.column]);
                }
                if place < sampled {
                    pg_sys::heap_freetuple(*rows.add(place));
                }
                *rows.add(place) = slot::heap_tuple(slot);
                sampled = sampled.max(place + 1);
            }
            Ok(if read < wanted * READ_PER_SAMPLED {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        });
        // Also after an error, which is no ERROR: PostgreSQL would warn of the slot that is left behind.
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        let complete = result?;
        unfit.warn();
        let known = f64::from((*(*relation).rd_rel).reltuples);
        let total = if complete { read as f64 } else { known.max(read as f64) };
        Ok((sampled, total))
    }
}

/// Schema and name, as a statement would write them.
unsafe fn relation_name(relation: pg_sys::Relation) -> String {
    // SAFETY: the relation is open; the names are NUL-terminated, and the result is in the current memory context.
    unsafe {
        let entry = (*relation).rd_rel;
        let schema = pg_sys::get_namespace_name((*entry).relnamespace);
        from_server(pg_sys::quote_qualified_identifier(schema, (*entry).relname.data.as_ptr()))
    }
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::internal(format!("no random numbers: {error}")))
}
