//! Everything that knows Cognite Data Fusion: resources, encoders, batching, delivery, HTTP. No PostgreSQL in here.
//!
//! A row's way: [`writer`] → [`encode`] → [`buffer`] → [`deliver`] (whose [`flush`](deliver::flush) begins it) → [`http`].

pub mod activity;
pub mod buffer;
pub mod capability;
pub mod cell;
pub mod deliver;
pub mod document;
pub mod encode;
pub mod error;
pub mod explain;
#[cfg(test)]
mod fuzz;
pub mod hash;
pub mod http;
pub mod options;
pub mod read;
#[doc(hidden)]
pub mod rehearsal;
pub mod resource;
pub mod seen;
pub mod small_file;
pub mod table;
pub mod writer;
