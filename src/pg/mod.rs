//! Everything that knows PostgreSQL: a thin layer over [`crate::cdf`].

mod ddl;
mod errors;
mod handler;
mod list;
mod modify;
mod plan;
mod redact;
mod registration;
mod scan;
mod session;
mod settings;
mod text;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

/// Called once when the library is loaded, by first use or by `session_preload_libraries`.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    errors::init();
    settings::init();
    plan::planner::init();
    ddl::trust::init();
    redact::init();
}
