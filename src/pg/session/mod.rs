//! The state of a session: its transaction, its thread, its files, and its waits.

pub mod descriptors;
pub mod known_views;
pub mod progress;
pub mod spill;
pub mod transaction;
pub mod transmission;
pub mod views;
pub mod wait;
