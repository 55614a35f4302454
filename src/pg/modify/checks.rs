//! Checks of written rows that PostgreSQL leaves to the wrapper.

use pgrx::pg_sys;

use super::state::ModifyState;
use crate::pg::plan::copy_defaults;

/// Whether a row may belong to another partition: it was not routed here, or a trigger has changed it since. PostgreSQL
/// leaves this check to the wrapper too.
///
/// # Safety
/// `rinfo` is of a statement that has begun.
unsafe fn may_miss_partition(rinfo: *mut pg_sys::ResultRelInfo) -> bool {
    // SAFETY: the caller's promise: its relation is open.
    unsafe {
        (*(*(*rinfo).ri_RelationDesc).rd_rel).relispartition
            && ((*rinfo).ri_RootResultRelInfo.is_null()
                || (*rinfo).ri_TrigDesc.as_ref().is_some_and(|triggers| triggers.trig_insert_before_row))
    }
}

/// Checks a row that is to be written against row security's WITH CHECK, which PostgreSQL leaves to the wrapper: only a
/// parent can have policies, and they hold for what goes through it. It checks itself WITH CHECK OPTION of views.
///
/// # Safety
/// All are of a statement that is running.
pub unsafe fn check_policies(
    kinds: &[pg_sys::WCOKind::Type],
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*rinfo).ri_WithCheckOptions.is_null() {
            kinds.iter().for_each(|kind| pg_sys::ExecWithCheckOptions(*kind, rinfo, slot, estate));
        }
    }
}

/// The checks before a row is inserted.
///
/// # Safety
/// All belong to a statement that is running; the slot holds a row of the table.
pub unsafe fn check_row(
    state: &ModifyState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !state.defaults.is_empty() {
            copy_defaults::put(&state.defaults, slot, estate);
        }
        check_policies(state.policies, rinfo, slot, estate);
        if state.constrained {
            pg_sys::ExecConstraints(rinfo, slot, estate);
        }
        if may_miss_partition(rinfo) {
            pg_sys::ExecPartitionCheck(rinfo, slot, estate, true);
        }
    }
}
