//! INSERT and COPY: a row goes from its slot into the transaction's buffer.

use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use super::datum::RowReader;
use super::errors::{raise, OrRaise};
#[cfg(any(feature = "pg14", feature = "pg15"))]
use super::list::pointers;
use super::{coerce, options, transaction};
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::OnConflict;
use crate::cdf::writer::Writer;

/// What a statement needs to write rows to one foreign table.
struct ModifyState {
    reader: RowReader,
    writer: Writer,
    /// PostgreSQL leaves NOT NULL and CHECK of foreign tables to the wrapper.
    constrained: bool,
}

/// Rows can be inserted.
#[pg_guard]
pub unsafe extern "C-unwind" fn is_foreign_rel_updatable(_relation: pg_sys::Relation) -> std::ffi::c_int {
    1 << pg_sys::CmdType::CMD_INSERT as std::ffi::c_int
}

/// Nothing is planned but the reading of timestamps; everything else is known when the statement begins.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan_foreign_modify(
    _root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    _result_relation: pg_sys::Index,
    _subplan_index: std::ffi::c_int,
) -> *mut pg_sys::List {
    // SAFETY: the planner passes the plan that it is making.
    unsafe {
        if (*plan).operation == pg_sys::CmdType::CMD_INSERT {
            coerce::plan_reads_timestamps_as_utc((*plan).plan.lefttree);
        }
    }
    std::ptr::null_mut()
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_modify(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    _fdw_private: *mut pg_sys::List,
    _subplan_index: std::ffi::c_int,
    eflags: std::ffi::c_int,
) {
    if eflags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as std::ffi::c_int == 0 {
        // SAFETY: the executor passes the state of a statement that begins.
        unsafe { begin(mtstate, rinfo) }
    }
}

/// COPY, and rows that are routed to a foreign partition.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_insert(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: the executor passes the state of a statement that begins; COPY's has no plan.
    unsafe {
        let plan = (*mtstate).ps.plan;
        if !plan.is_null() && coerce::plan_reads_timestamps_as_local((*plan).lefttree) {
            raise(
                Error::new(
                    Kind::Unsupported,
                    "a timestamp without time zone would be read in the session's TimeZone, not as UTC",
                )
                .detail("The statement was planned before this session had loaded cdf_fdw, and writes to a partition.")
                .hint("Run it again, or have cdf_fdw in session_preload_libraries."),
            );
        }
        begin(mtstate, rinfo)
    }
}

/// The one way into a statement's writing.
///
/// # Safety
/// Both are what the executor passes when a statement begins.
unsafe fn begin(mtstate: *mut pg_sys::ModifyTableState, rinfo: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the caller's promise: the relation is open, and the executor state lives until the statement ends.
    unsafe {
        let estate = (*mtstate).ps.state;
        let relation = (*rinfo).ri_RelationDesc;
        let context = (*estate).es_query_cxt;
        let conflict = on_conflict(mtstate);
        let state = new_state(relation, acting_user(rinfo, estate), conflict, context).or_raise();
        transaction::begin();
        // Dropped with the statement's memory: at an ERROR end_foreign_modify is not called.
        (*rinfo).ri_FdwState = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
    }
}

/// # Safety
/// `relation` is open, `context` lives as long as the statement.
unsafe fn new_state(
    relation: pg_sys::Relation,
    user: pg_sys::Oid,
    on_conflict: Option<OnConflict>,
    context: pg_sys::MemoryContext,
) -> Result<ModifyState, Error> {
    // SAFETY: the caller's promise.
    unsafe {
        let (server, table) = options::table_definition(relation)?;
        let connection = options::connection(server, user)?;
        let on_conflict = on_conflict.unwrap_or(table.options.mode.on_conflict);
        Ok(ModifyState {
            reader: RowReader::new((*relation).rd_att, context),
            writer: Writer::new(Arc::new(table), connection, on_conflict)?,
            constrained: !(*(*relation).rd_att).constr.is_null(),
        })
    }
}

/// ON CONFLICT DO NOTHING, which PostgreSQL passes on unasked. COPY has no plan.
///
/// # Safety
/// `mtstate` is a statement's.
unsafe fn on_conflict(mtstate: *mut pg_sys::ModifyTableState) -> Option<OnConflict> {
    // SAFETY: the caller's promise; the plan of a ModifyTableState that has one is a ModifyTable.
    unsafe {
        let plan = (*mtstate).ps.plan.cast::<pg_sys::ModifyTable>();
        let nothing =
            !plan.is_null() && (*plan).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_NOTHING;
        nothing.then_some(OnConflict::Ignore)
    }
}

/// The role whose rights the statement runs with: a view's owner where the table is reached through a view.
///
/// # Safety
/// Both belong to a statement that begins.
unsafe fn acting_user(rinfo: *mut pg_sys::ResultRelInfo, estate: *mut pg_sys::EState) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let user = {
            // A partition has no entry in the range table; its parent's counts.
            let root = (*rinfo).ri_RootResultRelInfo;
            let named = if root.is_null() { rinfo } else { root };
            match (*named).ri_RangeTableIndex {
                0 => pg_sys::InvalidOid,
                index => {
                    let entries = pointers::<pg_sys::RangeTblEntry>((*estate).es_range_table);
                    (*entries[index as usize - 1]).checkAsUser
                }
            }
        };
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let user = pg_sys::ExecGetResultRelCheckAsUser(rinfo, estate);
        match user {
            pg_sys::InvalidOid => pg_sys::GetUserId(),
            user => user,
        }
    }
}

/// Whether a row may be one that another partition takes: it was not routed here, or a trigger has changed it since.
/// PostgreSQL leaves this check to the wrapper too.
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

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_insert(
    estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    _plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, and a slot that holds a row of the table.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        if state.constrained {
            pg_sys::ExecConstraints(rinfo, slot, estate);
        }
        if may_miss_partition(rinfo) {
            pg_sys::ExecPartitionCheck(rinfo, slot, estate, true);
        }
        let ModifyState { reader, writer, .. } = state;
        reader
            .read(slot, |row| {
                transaction::write(|buffer, subtransaction, spill| {
                    writer.push(buffer, subtransaction, row, spill)
                })
            })
            .or_raise();
    }
    slot
}
