//! Conditions of a SELECT.

use hashbrown::HashSet;

/// How a condition compares its column with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal to any of a list.
    AnyOf,
    /// LIKE, with backslashes as escapes in the pattern.
    Like,
    StartsWith,
    IsNull,
    IsNotNull,
    /// An array has all elements of a list; metadata has all pairs of an object.
    Contains,
    /// An array has at least one element of a list.
    Overlaps,
    /// An array has this element.
    HasElement,
    /// Metadata: the value of the key, the first of two texts, equals the second text.
    Member,
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operand {
    Text(String),
    Int(i64),
    /// A double, as its bits.
    Float(u64),
    /// Microseconds since 1970.
    Micros(i64),
    Bool(bool),
    /// A JSON document.
    Json(String),
    /// For comparisons with several values.
    List(Vec<Operand>),
}

/// The type of a condition's value, or of the elements of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandKind {
    Text,
    Int,
    Double,
    /// A real; it is compared as a double.
    Real,
    Time,
    /// An integer, the days since 2000.
    Day,
    Bool,
    Json,
}

/// `column comparison value`. PostgreSQL checks the condition again, so it only serves to save requests and rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Position of the column in the foreign table.
    pub column: usize,
    pub comparison: Comparison,
    pub operand: Operand,
}

/// Whether the comparison is one of order, or equality.
pub fn is_order(comparison: Comparison) -> bool {
    use Comparison::*;
    matches!(comparison, Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
}

/// Returns the values of a condition, each once.
pub fn distinct(operand: &Operand) -> Vec<&Operand> {
    let operands = match operand {
        Operand::List(operands) => operands.as_slice(),
        operand => std::slice::from_ref(operand),
    };
    let mut seen = HashSet::new();
    operands.iter().filter(|operand| seen.insert(*operand)).collect()
}

/// Returns the literal text at the beginning of a LIKE pattern.
pub fn literal_prefix(pattern: &str) -> String {
    let mut prefix = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' | '_' => break,
            '\\' => match characters.next() {
                Some(escaped) => prefix.push(escaped),
                None => break,
            },
            plain => prefix.push(plain),
        }
    }
    prefix
}
