//! Servers, user mappings, tables and their options.

pub mod casts;
pub mod comments;
pub mod import;
pub mod options;
pub mod preload;
pub mod sealing;
pub mod trust;
