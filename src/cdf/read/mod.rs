//! Reading: the requests that answer a SELECT, page by page.

mod call;
mod condition;
pub mod existing;
mod field;
mod filter;
#[cfg(test)]
mod fuzz;
mod instances;
mod items;
mod journal;
mod overlay;
pub mod own;
mod point_overlay;
mod points;
mod properties;
pub mod pushdown;
mod query;
mod range;
mod raw;
mod reader;
pub mod sample;
mod sequence_rows;
mod series;
pub mod zone;

pub use condition::{Comparison, Condition, Operand, OperandKind};
pub use field::{Field, Row};
pub use query::{CompositeKeys, Query, Statistics};
pub use reader::Reader;
