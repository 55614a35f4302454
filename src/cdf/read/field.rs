//! Values read from CDF.

use crate::cdf::cell::{Cell, EPOCH_MILLIS};
use crate::cdf::document::Value;

/// A value read from CDF, before its conversion to the column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    /// Milliseconds since 1970.
    Millis(i64),
    /// Any other JSON value.
    Json(Value),
}

impl Field {
    /// Returns the value as a cell of a written row.
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Field::Null => Cell::Null,
            Field::Int(value) => Cell::Int(*value),
            Field::Float(value) => Cell::Float(*value),
            Field::Text(text) => Cell::Text(text),
            Field::Millis(millis) => {
                Cell::Timestamp(millis.saturating_sub(EPOCH_MILLIS).saturating_mul(1000))
            }
            Field::Json(value) => value.as_i64().map_or(Cell::Null, Cell::Int),
        }
    }
}

/// One row, a field for each column of the foreign table.
pub type Row = Vec<Field>;
