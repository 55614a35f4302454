//! Everything that knows PostgreSQL: a thin layer over [`crate::cdf`].

mod analyze;
mod casts;
mod coerce;
mod comments;
mod conflict_condition;
mod copy_defaults;
mod datum;
mod descriptors;
mod direct_modify;
mod errors;
mod estimate;
mod explain;
mod extent;
mod handler;
mod import;
mod jsonb;
mod key_text;
mod list;
mod literals;
mod log_text;
mod modify;
mod new_rows;
mod on_conflict;
mod options;
mod pages;
mod planner;
mod preload;
mod progress;
mod pushdown;
mod redact;
mod registration;
mod row_identity;
mod scan;
mod settings;
mod slot;
mod spill;
mod statement;
mod system_columns;
mod text;
mod tokens;
mod transaction;
mod transmission;
mod truncate;
mod trust;
mod tuple;
mod unfit;
mod views;
mod wait;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

/// Called once when the library is loaded, by first use or by `session_preload_libraries`.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    errors::init();
    settings::init();
    planner::init();
    trust::init();
    redact::init();
}
