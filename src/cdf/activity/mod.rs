//! Live counters of what a flush or a read does with CDF, for progress messages and the log.
//!
//! The I/O thread updates the counters, and the main thread reads them at any moment. Counting takes a few additions for a
//! request, and nothing for a row.

mod counters;
mod errand;
mod text;

pub use counters::{Activity, Counters};
pub use errand::{Errand, Stay};
pub use text::Account;
