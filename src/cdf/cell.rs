//! A typed value of a row, borrowed from wherever the caller has it.

/// Milliseconds from 1970, where CDF counts from, to 2000.
pub const EPOCH_MILLIS: i64 = 946_684_800_000;

/// One column's value, as the row encoders take it. It owns nothing, so that a row of them is let go in no time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Digits of an exact number that need not fit a float (`numeric`).
    Number(&'a str),
    Text(&'a str),
    /// Microseconds since 2000-01-01 00:00 UTC: counted from 1970, the last that PostgreSQL has would overflow.
    Timestamp(i64),
    /// A JSON document as text, known to be valid.
    Json(&'a str),
    /// A JSON object that has only texts, or what was made text, in it.
    Pairs(&'a [(&'a str, &'a str)]),
    Bytes(&'a [u8]),
    List(&'a [Cell<'a>]),
}

impl Cell<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    /// What the value is called in an error.
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
