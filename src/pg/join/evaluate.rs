//! What the executor does in C's inline functions: a node's next row, expressions, conditions and projections.

use pgrx::pg_sys;

use crate::pg::modify::slot;

/// The next row of a node; None if there is none.
///
/// # Safety
/// The node was begun, and has not ended.
pub unsafe fn next_row(node: *mut pg_sys::PlanState) -> Option<*mut pg_sys::TupleTableSlot> {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*node).chgParam.is_null() {
            pg_sys::ExecReScan(node);
        }
        let next = (*node).ExecProcNode?;
        let row = pg_sys::ffi::pg_guard_ffi_boundary(|| next(node));
        (!row.is_null() && !is_empty(row)).then_some(row)
    }
}

unsafe fn is_empty(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the caller passes a slot.
    unsafe { u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY != 0 }
}

/// The value of an expression, made in the memory of the row; None for NULL.
///
/// # Safety
/// The expression was initialised for the node of this context, whose row is in place.
pub unsafe fn value(
    expression: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    unsafe {
        let evaluate = (*expression).evalfunc?;
        let mut null = false;
        let previous = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        let value = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(expression, context, &mut null));
        pg_sys::MemoryContextSwitchTo(previous);
        (!null).then_some(value)
    }
}

/// Whether the row fulfils the conditions; no conditions are a null pointer.
///
/// # Safety
/// As for [`value`].
pub unsafe fn passes(conditions: *mut pg_sys::ExprState, context: *mut pg_sys::ExprContext) -> bool {
    // SAFETY: the caller's promise. Conditions that were initialised as such give true or false, never NULL.
    conditions.is_null()
        || unsafe { value(conditions, context) }.is_some_and(|value| value.value() & 0xff != 0)
}

/// The row that a node gives for the one that is in place.
///
/// # Safety
/// The projection was initialised for the node whose row is in place.
pub unsafe fn project(projection: *mut pg_sys::ProjectionInfo) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's promise; the projection writes the values of its own slot.
    unsafe {
        let result = (*projection).pi_state.resultslot;
        slot::clear(result);
        value(&raw mut (*projection).pi_state, (*projection).pi_exprContext);
        pg_sys::ExecStoreVirtualTuple(result)
    }
}

/// All values of a slot are unpacked.
///
/// # Safety
/// The slot holds a row.
pub unsafe fn unpack(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        let columns = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < columns {
            pg_sys::slot_getsomeattrs_int(slot, columns);
        }
    }
}
