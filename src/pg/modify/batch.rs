//! The executor's batches of rows, for statements that ask CDF which rows are new.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::checks::check_row;
use super::new_rows::{ask, Asking};
use super::state::ModifyState;
use crate::cdf::table::Table;
use crate::pg::errors::OrRaise;
use crate::pg::session::transaction;
use crate::pg::settings;

/// Rows in a batch: what a request takes, and a larger batch for requests that take more.
const BATCH: usize = 1000;
const LARGE_BATCH: usize = 10_000;

/// How many rows the executor collects. It is one for statements that do not ask CDF by batches, because collecting takes
/// longer than encoding.
#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_modify_batch_size(
    rinfo: *mut pg_sys::ResultRelInfo,
) -> std::ffi::c_int {
    // SAFETY: the executor passes what begin has prepared; after EXPLAIN there is nothing.
    let state = unsafe { (*rinfo).ri_FdwState.cast::<ModifyState>().as_ref() };
    match state {
        Some(state) if state.new_rows.asking == Asking::InBatches => {
            batch(state.writer.table(), state.new_rows.width) as std::ffi::c_int
        }
        _ => 1,
    }
}

/// As many rows as one question asks for. The executor keeps them in memory.
fn batch(table: &Table, width: usize) -> usize {
    let resource = table.options.resource;
    let most = if resource.holds_points() || resource.is_in_raw_tables() { LARGE_BATCH } else { BATCH };
    (settings::buffer_memory() / 8 / (width + 64)).clamp(BATCH, most)
}

/// Inserts the new rows of a batch, and returns them and their number.
#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_batch_insert(
    estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slots: *mut *mut pg_sys::TupleTableSlot,
    _plan_slots: *mut *mut pg_sys::TupleTableSlot,
    count: *mut std::ffi::c_int,
) -> *mut *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, and so many slots that hold rows of the table.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        let rows = std::slice::from_raw_parts(slots, *count as usize);
        let mut keys = Vec::with_capacity(rows.len());
        for slot in rows {
            check_row(state, rinfo, *slot, estate);
            let ModifyState { reader, writer, .. } = state;
            keys.push(reader.read(*slot, |row| writer.key(row)).or_raise());
        }
        let ModifyState { reader, writer, new_rows, conditional, .. } = state;
        let updates = |slot: &*mut pg_sys::TupleTableSlot| match conditional {
            Some(conditional) => conditional.condition.holds(*slot),
            None => false,
        };
        let updates: Vec<bool> = rows.iter().map(updates).collect();
        let asked = keys.iter().zip(&updates).filter(|(_, updates)| !**updates);
        let mut known = ask(writer, &asked.filter_map(|(key, _)| key.clone()).collect()).or_raise();
        new_rows.slots.clear();
        for ((slot, key), updates) in rows.iter().zip(keys).zip(updates) {
            let new = key.is_none_or(|key| known.insert(key));
            if new || updates {
                let writer = match conditional {
                    Some(conditional) if !updates => &mut conditional.keeping,
                    _ => &mut *writer,
                };
                reader.read(*slot, |row| transaction::write(|target| writer.insert(target, row))).or_raise();
                new_rows.slots.push(*slot);
            }
        }
        *count = new_rows.slots.len() as std::ffi::c_int;
        new_rows.slots.as_mut_ptr()
    }
}
