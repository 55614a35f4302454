//! Everything that knows Cognite Data Fusion: resources, encoders, batching, delivery, HTTP. No PostgreSQL in here.

pub mod cell;
pub mod error;
pub mod resource;
pub mod table;
