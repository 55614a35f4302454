//! INSERT, COPY, UPDATE and DELETE: a row goes from its slot into the transaction's buffer.
//!
//! `plan` has the callbacks of the planner, `execute` those of the executor; `batch` has those for rows that come in batches.

pub mod batch;
pub mod checks;
pub mod datum;
pub mod direct_modify;
pub mod execute;
pub mod jsonb;
pub mod new_rows;
pub mod plan;
pub mod slot;
pub mod state;
pub mod statement;
pub mod truncate;
