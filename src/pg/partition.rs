//! Partitions that take all rows: the only one of its parent, declared as its default.

use pgrx::pg_sys;

extern "C-unwind" {
    /// utils/partcache.h
    fn RelationGetPartitionQual(relation: pg_sys::Relation) -> *mut pg_sys::List;
}

/// Whether a row of any values may be in a table: it is no partition, or one without a condition.
///
/// # Safety
/// The relation is open.
pub unsafe fn takes_all(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        !(*(*relation).rd_rel).relispartition
            || pg_sys::ffi::pg_guard_ffi_boundary(|| RelationGetPartitionQual(relation)).is_null()
    }
}

/// Keeps the executor from looking for the condition of such a partition at every row: where it finds none, it remembers
/// nothing. The condition is that true is true, from now on.
///
/// # Safety
/// Both belong to a statement that begins to insert into a partition; the relation is open.
pub unsafe fn check_once(rinfo: *mut pg_sys::ResultRelInfo, estate: *mut pg_sys::EState) {
    // SAFETY: the caller's promise. What is prepared lives as long as the statement.
    unsafe {
        if (*rinfo).ri_PartitionCheckExpr.is_null() && takes_all((*rinfo).ri_RelationDesc) {
            let context = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let always = pg_sys::lappend(std::ptr::null_mut(), pg_sys::makeBoolConst(true, false).cast());
            (*rinfo).ri_PartitionCheckExpr = pg_sys::ExecPrepareCheck(always, estate);
            pg_sys::MemoryContextSwitchTo(context);
        }
    }
}
