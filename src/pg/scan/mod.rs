//! SELECT: conditions that CDF can filter by are pushed down, rows come page by page, and PostgreSQL checks all conditions
//! again.
//!
//! The callbacks of the planner are in `plan`, those of the executor in `execute`, and those of EXPLAIN and ANALYZE in the
//! files with these names.

pub mod analyze;
pub mod estimate;
pub mod execute;
pub mod explain;
pub mod key_text;
pub mod pages;
pub mod plan;
pub mod pushdown;
pub mod readers;
pub mod tuple;
pub mod unfit;
