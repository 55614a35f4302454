//! Everything that knows Cognite Data Fusion: resources, encoders, batching, delivery, HTTP. No PostgreSQL in here.
//!
//! A row's way: [`writer`] → [`encode`] → [`buffer`] → [`flush`] → [`deliver`] → [`client`].

pub mod activity;
pub mod buffer;
pub mod cell;
pub mod client;
pub mod deliver;
pub mod document;
pub mod encode;
pub mod error;
pub mod explain;
pub mod flush;
pub mod hash;
pub mod hierarchy;
mod link;
pub mod owed;
mod proxy;
pub mod read;
mod report;
pub mod resource;
pub mod retry;
pub mod seen;
pub mod table;
pub mod tally;
pub mod token;
pub mod url_path;
pub mod view;
pub mod writer;
