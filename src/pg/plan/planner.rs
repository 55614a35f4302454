//! The one planner hook: changes what PostgreSQL would plan otherwise of an INSERT into this extension's tables.

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{coerce, on_conflict, system_columns};

static PREVIOUS_PLANNER: OnceLock<pg_sys::planner_hook_type> = OnceLock::new();

/// Installs the hook. `_PG_init` calls this once.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called in turn.
    unsafe {
        PREVIOUS_PLANNER.get_or_init(|| pg_sys::planner_hook);
        pg_sys::planner_hook = Some(planner);
    }
}

extern "C-unwind" {
    /// optimizer/planner.h, without pgrx's guard: the guard would raise each error anew, without its position, and with
    /// a message in UTF-8 whatever the database's encoding is.
    #[link_name = "standard_planner"]
    fn postgres_planner(
        query: *mut pg_sys::Query,
        text: *const std::ffi::c_char,
        cursor_options: std::ffi::c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// Has no guard of its own: an error of the planner jumps over this frame, which holds nothing that would have to be
/// dropped.
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    cursor_options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes what a planner takes.
    unsafe {
        prepare(query);
        match PREVIOUS_PLANNER.get().copied().flatten() {
            Some(previous) => previous(query, text, cursor_options, parameters),
            None => postgres_planner(query, text, cursor_options, parameters),
        }
    }
}

/// Changes the query before it is planned.
#[pg_guard]
unsafe extern "C-unwind" fn prepare(query: *mut pg_sys::Query) {
    // SAFETY: PostgreSQL passes an analysed and rewritten query, which the planner may change.
    unsafe {
        coerce::query_reads_timestamps_as_utc(query);
        system_columns::check_inserted(query);
        on_conflict::query_resolves_conflicts(query);
    }
}
