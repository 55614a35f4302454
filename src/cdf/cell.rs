//! A typed value of a row, borrowed from the caller.

/// Milliseconds from 1970, CDF's epoch, to 2000, PostgreSQL's.
pub const EPOCH_MILLIS: i64 = 946_684_800_000;

/// One column's value, as the row encoders take it. It owns no memory, so dropping a row costs nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// The digits of an exact number (`numeric`), which a float may not be able to hold.
    Number(&'a str),
    Text(&'a str),
    /// Microseconds since 2000-01-01 00:00 UTC. Counted from 1970, PostgreSQL's last timestamp would overflow.
    Timestamp(i64),
    /// A JSON document as text, known to be valid.
    Json(&'a str),
    /// A JSON object with text values only; other values were turned into text.
    Pairs(&'a [(&'a str, &'a str)]),
    Bytes(&'a [u8]),
    List(&'a [Cell<'a>]),
}

impl Cell<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    /// The kind of the value, as errors name it.
    pub fn describe(&self) -> &'static str {
        match self {
            Cell::Null => "NULL",
            Cell::Bool(_) => "a boolean",
            Cell::Int(_) => "an integer",
            Cell::Float(_) => "a float",
            Cell::Number(_) => "a numeric",
            Cell::Text(_) => "a text",
            Cell::Timestamp(_) => "a timestamp",
            Cell::Json(_) | Cell::Pairs(_) => "a JSON document",
            Cell::Bytes(_) => "a byte string",
            Cell::List(_) => "an array",
        }
    }
}
