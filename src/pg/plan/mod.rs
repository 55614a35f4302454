//! What is changed or refused while PostgreSQL plans a statement.

pub mod coerce;
pub mod conflict_condition;
pub mod copy_defaults;
pub mod extent;
pub mod on_conflict;
pub mod planner;
pub mod rights;
pub mod row_identity;
pub mod system_columns;
