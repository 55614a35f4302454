//! What a session has while it lasts: its transaction, its thread, its files, and what it waits for.

pub mod descriptors;
pub mod known_views;
pub mod progress;
pub mod spill;
pub mod transaction;
pub mod transmission;
pub mod views;
pub mod wait;
