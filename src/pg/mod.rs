//! Everything that knows PostgreSQL: a thin layer over [`crate::cdf`].

mod catalog;
mod compat;
mod ddl;
mod encoding;
mod errors;
mod handler;
mod join;
mod list;
mod modify;
mod ours;
mod partition;
mod plan;
mod redact;
mod registration;
mod rights;
mod scan;
mod session;
mod settings;
mod text;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

/// PostgreSQL calls this once, when it loads the library: at its first use or through `session_preload_libraries`.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    errors::init();
    settings::init();
    plan::planner::init();
    join::init();
    ddl::trust::init();
    redact::hooks::init();
}
