//! The one planner hook: what of an INSERT into this extension's tables PostgreSQL would plan otherwise.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{coerce, on_conflict, system_columns};

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;

/// Installs the hook. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called on.
    unsafe {
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    cursor_options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes an analysed and rewritten query, which the planner may change.
    unsafe {
        coerce::query_reads_timestamps_as_utc(query);
        system_columns::check_inserted(query);
        on_conflict::query_resolves_conflicts(query);
        match PREVIOUS_PLANNER {
            // An error in it must not jump over this function's frame.
            Some(previous) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, text, cursor_options, parameters))
            }
            None => pg_sys::standard_planner(query, text, cursor_options, parameters),
        }
    }
}
