//! That a key is unique, for the planner's estimates of tables that were never analyzed.
//!
//! PostgreSQL knows no index of a foreign table, and takes a column without statistics for one of 200 different values. A join
//! by a key of 10,000 items would seem to give fifty rows for each row of the other side, and beside the cost of so many rows that of
//! the requests would not count.

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::leaves::leaves;
use crate::pg::scan::estimate::is_key;

static PREVIOUS: OnceLock<pg_sys::get_relation_stats_hook_type> = OnceLock::new();

/// Installs the hook. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called on.
    unsafe {
        PREVIOUS.get_or_init(|| pg_sys::get_relation_stats_hook);
        pg_sys::get_relation_stats_hook = Some(get_relation_stats);
    }
}

/// Has no guard of its own: an error of another extension's hook goes over this frame, which has nothing in it that would
/// have to be dropped.
unsafe extern "C-unwind" fn get_relation_stats(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    statistics: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: the planner passes a table of the query and what it knows of one of its columns.
    unsafe {
        if let Some(previous) = PREVIOUS.get().copied().flatten() {
            if previous(root, entry, column, statistics) {
                return true;
            }
        }
        (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            && matches!(
                (*entry).relkind as u8,
                pg_sys::RELKIND_FOREIGN_TABLE | pg_sys::RELKIND_PARTITIONED_TABLE
            )
            && column > 0
            && key_is_unique(root, entry, column, statistics)
    }
}

/// Notes that the column is unique, where it is a key without statistics; gives whether it is.
#[pg_guard]
unsafe extern "C-unwind" fn key_is_unique(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    statistics: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: as for `get_relation_stats`. The statistics of a column are used no longer than they are held.
    unsafe {
        if (*statistics).rel.is_null() {
            return false;
        }
        let cache = pg_sys::SysCacheIdentifier::STATRELATTINH as std::ffi::c_int;
        let (relation, number, inherited) = ((*entry).relid.into(), column.into(), (*entry).inh.into());
        let known = pg_sys::SearchSysCache3(cache, relation, number, inherited);
        if !known.is_null() {
            pg_sys::ReleaseSysCache(known);
            return false;
        }
        let tables = leaves(root, (*statistics).rel);
        let [only] = tables.as_slice() else { return false };
        let unique = only
            .table
            .as_ref()
            .zip(only.column(column as usize - 1))
            .is_some_and(|(table, column)| is_key(table, column));
        if unique {
            (*statistics).isunique = true;
            // There is nothing that the query's operators could tell of.
            (*statistics).acl_ok = true;
        }
        unique
    }
}
