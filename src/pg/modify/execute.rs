//! INSERT, COPY, UPDATE and DELETE run: a row goes from its slot into the transaction's buffer.

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use super::checks::{check_policies, check_row};
use super::datum;
use super::plan::operation;
use super::state::{new_state, ChangedRows, ModifyState};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::Operation;
use crate::cdf::writer::Writer;
use crate::pg::errors::{raise, OrRaise};
use crate::pg::list::integers;
use crate::pg::modify::datum::RowChange;
use crate::pg::modify::new_rows::NewRows;
use crate::pg::partition;
use crate::pg::plan::extent::StatementReach;
use crate::pg::plan::{coerce, copy_defaults, system_columns};
use crate::pg::rights;
use crate::pg::session::transaction;

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_modify(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    fdw_private: *mut pg_sys::List,
    _subplan_index: std::ffi::c_int,
    eflags: std::ffi::c_int,
) {
    if eflags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as std::ffi::c_int == 0 {
        // SAFETY: the executor passes the state of a statement that begins, and what plan_foreign_modify has made.
        unsafe { begin(mtstate, rinfo, operation((*mtstate).operation), fdw_private) }
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
                    "a moment would be read in the session's TimeZone, not as UTC",
                )
                .detail("The statement was planned before this session had loaded cdf_fdw, and writes to a partition.")
                .hint("Run it again, or have cdf_fdw in session_preload_libraries."),
            );
        }
        // An UPDATE that also changes rows of this table: its state serves for inserts as well.
        if !(*rinfo).ri_FdwState.is_null() {
            return;
        }
        // Whatever the statement is, this row is inserted: an UPDATE may move it here.
        begin(mtstate, rinfo, Operation::Upsert, std::ptr::null_mut());
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        system_columns::check_routed(mtstate, rinfo, state.writer.table());
        if plan.is_null() {
            state.defaults = copy_defaults::in_utc(rinfo, (*mtstate).ps.state);
        }
        if !(*rinfo).ri_RootResultRelInfo.is_null() {
            partition::check_once(rinfo, (*mtstate).ps.state);
        }
    }
}

/// Prepares a statement's writing. All callbacks that begin one come here.
///
/// # Safety
/// Both are what the executor passes when a statement begins.
unsafe fn begin(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    operation: Operation,
    private: *mut pg_sys::List,
) {
    // SAFETY: the caller's promise: the relation is open, and the executor state lives until the statement ends.
    unsafe {
        let estate = (*mtstate).ps.state;
        let relation = (*rinfo).ri_RelationDesc;
        let context = (*estate).es_query_cxt;
        let new_rows = NewRows::of_statement(mtstate, rinfo);
        let user = rights::of_change(rinfo, estate);
        let mut state = new_state(rinfo, user, mtstate, operation, context, new_rows).or_raise();
        if let Some((extent, set)) = integers(private).split_first() {
            state.extent = StatementReach::from_integer(*extent);
            if state.extent == StatementReach::All {
                state.check_whole();
            }
            if operation == Operation::Update {
                state.sets(relation, set);
            }
        }
        transaction::begin();
        // Dropped with the statement's memory: at an ERROR end_foreign_modify is not called.
        (*rinfo).ri_FdwState = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
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
        check_row(state, rinfo, slot, estate);
        if slot == (*rinfo).ri_newTupleSlot {
            take_rows_as_they_are(estate, rinfo);
        }
        let ModifyState { reader, writer, new_rows, conditional, .. } = state;
        let (writer, updates) = match conditional {
            Some(conditional) if !conditional.condition.holds(slot) => (&mut conditional.keeping, false),
            Some(_) => (writer, true),
            None => (writer, false),
        };
        if new_rows.asks_by_row() {
            if updates {
                new_rows.note(reader, writer, slot).or_raise();
            } else if !new_rows.is_new(reader, writer, slot).or_raise() {
                return std::ptr::null_mut();
            }
        }
        reader.read(slot, |row| transaction::write(|target| writer.insert(target, row))).or_raise();
    }
    slot
}

/// Makes the executor pass the plan's rows unchanged. For a foreign table it would form a heap tuple of each row, which would
/// be deformed again here: as much work as encoding it. The plan's slots are virtual, and are passed as they are if the slot
/// for new rows is virtual too (`ExecGetInsertNewTuple`).
///
/// Not if something else reads or changes the row afterwards.
///
/// # Safety
/// Both belong to a statement that is running.
unsafe fn take_rows_as_they_are(estate: *mut pg_sys::EState, rinfo: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the caller's promise. The executor frees the new slot with all others of the statement, at its end.
    unsafe {
        let table = (*rinfo).ri_RelationDesc;
        let constraints = (*(*table).rd_att).constr;
        let generates = constraints.as_ref().is_some_and(|all| all.has_generated_stored);
        let alone = (*rinfo).ri_projectNew.is_null()
            && (*rinfo).ri_projectReturning.is_null()
            && (*rinfo).ri_TrigDesc.is_null()
            && !generates;
        let own = std::ptr::eq((*(*rinfo).ri_newTupleSlot).tts_ops, &raw const pg_sys::TTSOpsVirtual);
        if alone && !own {
            let context = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            (*rinfo).ri_newTupleSlot =
                pg_sys::ExecInitExtraTupleSlot(estate, (*table).rd_att, &raw const pg_sys::TTSOpsVirtual);
            pg_sys::MemoryContextSwitchTo(context);
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_update(
    estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, the row as it is to be, and the plan's row; an UPDATE keeps
    // the row as it was in a slot of its own.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        check_policies(&[pg_sys::WCOKind::WCO_RLS_UPDATE_CHECK], rinfo, slot, estate);
        if state.constrained {
            pg_sys::ExecConstraints(rinfo, slot, estate);
        }
        // PostgreSQL moves rows between its own tables only, so this row must stay in its partition.
        if (*(*(*rinfo).ri_RelationDesc).rd_rel).relispartition {
            pg_sys::ExecPartitionCheck(rinfo, slot, estate, true);
        }
        let old = if state.triggered { (*rinfo).ri_oldTupleSlot } else { std::ptr::null_mut() };
        let first = change_row(state, plan_slot, slot, old, |writer, set, before, change| {
            let RowChange { keys, new, old } = change;
            let differs = |at: usize| old.get(at).is_some_and(|old| new[at] != *old);
            let mut changed: Vec<bool> =
                set.iter().enumerate().map(|(at, set)| *set || differs(at)).collect();
            // Tools that set every column of a staged row also set what has never had a value. Where CDF cannot clear
            // it, that is no error as long as there is nothing to clear.
            for at in before.iter().filter(|at| new[**at].is_null() && keys[**at].is_null()) {
                changed[*at] = false;
            }
            if !changed.contains(&true) {
                return Ok(());
            }
            transaction::write(|target| writer.update(target, keys, new, &changed))
        });
        if first {
            slot
        } else {
            std::ptr::null_mut()
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_delete(
    _estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, an empty slot of the table, and the plan's row, which lives
    // until the slot has been used.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        let none = std::ptr::null_mut();
        let first = change_row(state, plan_slot, none, none, |writer, _, _, change| {
            transaction::write(|target| writer.delete(target, &change.keys))
        });
        if !first {
            return std::ptr::null_mut();
        }
        if state.places.whole > 0 {
            if let Some(row) = datum::value(plan_slot, i32::from(state.places.whole)) {
                pg_sys::ExecStoreHeapTupleDatum(row, slot);
            }
        }
    }
    slot
}

/// Changes the row whose keys the plan's row has, unless the statement has changed it before. `write` also gets the columns
/// that the statement sets, and those of them that are carried as they were. Returns whether the row was changed.
///
/// # Safety
/// The state is of a statement that is running, and `plan_slot` holds a row of its plan. `new` and `old` are null, or hold the
/// row as it is to be and as it was.
unsafe fn change_row(
    state: &mut ModifyState,
    plan_slot: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    old: *mut pg_sys::TupleTableSlot,
    write: impl FnOnce(&mut Writer, &[bool], &[usize], &RowChange<'_>) -> Result<(), Error>,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if state.extent != StatementReach::Part {
            state.check_whole();
        }
        let ModifyState { reader, writer, places, exact_key, changed, seen, .. } = state;
        let exact = exact_key.as_ref().and_then(|key| key.of(plan_slot));
        reader
            .read_change(plan_slot, &places.keys, new, old, |change| {
                let change = match (&*exact_key, &exact) {
                    (Some(key), Some(exact)) => key.put(exact, change),
                    _ => change,
                };
                if is_seen(seen, &change.keys)? {
                    return Ok(false);
                }
                write(writer, changed, &places.before, &change).map(|()| true)
            })
            .or_raise()
    }
}

/// Whether the statement has changed the row with these keys before. Remembers the row.
fn is_seen(seen: &mut Option<ChangedRows>, keys: &[Cell<'_>]) -> Result<bool, Error> {
    match seen {
        Some(ChangedRows { rows, file, .. }) => rows.insert(keys, file).map(|new| !new),
        None => Ok(false),
    }
}

/// The state itself goes with the statement's memory.
#[pg_guard]
pub unsafe extern "C-unwind" fn end_foreign_modify(
    _estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: the executor passes a table of a statement that ends well; it has no state after EXPLAIN.
    unsafe {
        let state = (*rinfo).ri_FdwState.cast::<ModifyState>().as_mut();
        if let Some(seen) = state.and_then(|state| state.seen.as_mut()) {
            seen.file.close();
        }
    }
}
