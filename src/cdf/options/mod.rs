//! The options of servers, user mappings, foreign tables and columns: which there are, and what they take.

pub mod check;
pub mod errors;
#[cfg(test)]
mod fuzz;
pub mod registry;
pub mod url;
pub mod values;
