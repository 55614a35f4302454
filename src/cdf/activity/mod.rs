//! What a flush or a read does with CDF, counted while it happens, for whoever waits for it or wants to see it.
//!
//! Whoever sends requests fills the counters, on the I/O thread. They are looked at from the main thread, at any moment.
//! Counting is a few additions for a request, and nothing for a row.

mod counters;
mod errand;
mod text;

pub use counters::{Activity, Counters};
pub use errand::{Errand, Stay};
pub use text::Account;
