//! The conditions of a query that CDF can filter by, and how a plan holds them.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::cell::EPOCH_MILLIS;
use crate::cdf::error::Error;
use crate::cdf::read::pushdown::{filters_on, is_exact, operand_kind};
use crate::cdf::read::{Comparison, Operand, OperandKind};
use crate::cdf::table::Table;
use crate::pg::list::pointers;
use crate::pg::text;

/// The type of a condition's value, or of the elements of its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandType {
    Text,
    Int2,
    Int4,
    Int8,
    /// Compared with a column of reals.
    Float4,
    Float8,
    /// A double that is compared with a column of reals.
    Float8OfReal,
    /// With time zone; without one where the column has none either.
    Timestamp,
    /// Compared with a column that has a time zone: in the session's TimeZone.
    LocalTimestamp,
    /// Compared with a column that has a time zone: midnight in the session's TimeZone.
    Date,
    /// Compared with a column of dates.
    Day,
    Bool,
    Jsonb,
}

/// `timestamptz(date)` and `timestamptz(timestamp)` (pg_proc.dat).
const DATE_TO_TIMESTAMPTZ: pg_sys::Oid = pg_sys::Oid::from_u32(1174);
const TIMESTAMP_TO_TIMESTAMPTZ: pg_sys::Oid = pg_sys::Oid::from_u32(2028);
/// Days and microseconds from 2000 that surely have a moment, in any time zone.
const DAYS: i32 = 100_000_000;
const MICROS: i64 = 9_000_000_000_000_000_000;

fn float(value: f64) -> Operand {
    Operand::Float(value.to_bits())
}

impl OperandType {
    const ALL: [OperandType; 13] = [
        OperandType::Text,
        OperandType::Int2,
        OperandType::Int4,
        OperandType::Int8,
        OperandType::Float4,
        OperandType::Float8,
        OperandType::Float8OfReal,
        OperandType::Timestamp,
        OperandType::LocalTimestamp,
        OperandType::Date,
        OperandType::Day,
        OperandType::Bool,
        OperandType::Jsonb,
    ];

    fn kind(self) -> OperandKind {
        match self {
            OperandType::Text => OperandKind::Text,
            OperandType::Int2 | OperandType::Int4 | OperandType::Int8 => OperandKind::Int,
            OperandType::Float4 | OperandType::Float8OfReal => OperandKind::Real,
            OperandType::Float8 => OperandKind::Double,
            OperandType::Timestamp | OperandType::LocalTimestamp | OperandType::Date => OperandKind::Time,
            OperandType::Day => OperandKind::Day,
            OperandType::Bool => OperandKind::Bool,
            OperandType::Jsonb => OperandKind::Json,
        }
    }

    /// The type of a key column's values, where it is one that keys are compared by.
    ///
    /// # Safety
    /// The expression is one of a query that is being planned.
    pub unsafe fn of_key(expression: *mut pg_sys::Expr) -> Option<OperandType> {
        // SAFETY: the caller's promise.
        Some(match unsafe { pg_sys::getBaseType(pg_sys::exprType(expression.cast())) } {
            pg_sys::TEXTOID | pg_sys::VARCHAROID => OperandType::Text,
            pg_sys::INT2OID => OperandType::Int2,
            pg_sys::INT4OID => OperandType::Int4,
            pg_sys::INT8OID => OperandType::Int8,
            pg_sys::TIMESTAMPTZOID => OperandType::Timestamp,
            _ => return None,
        })
    }

    /// Whether keys are of this type.
    pub fn is_of_keys(self) -> bool {
        matches!(self, OperandType::Text | OperandType::Int2 | OperandType::Int4 | OperandType::Int8)
    }

    /// As a plan holds it.
    pub fn to_integer(self) -> i32 {
        OperandType::ALL.iter().position(|other| *other == self).unwrap_or_default() as i32
    }

    pub fn from_integer(integer: i32) -> Option<OperandType> {
        OperandType::ALL.get(usize::try_from(integer).ok()?).copied()
    }

    /// The elements' type of such an array.
    fn of_array(array: pg_sys::Oid) -> Option<OperandType> {
        Some(match array {
            pg_sys::TEXTARRAYOID | pg_sys::VARCHARARRAYOID => OperandType::Text,
            pg_sys::INT2ARRAYOID => OperandType::Int2,
            pg_sys::INT4ARRAYOID => OperandType::Int4,
            pg_sys::INT8ARRAYOID => OperandType::Int8,
            pg_sys::FLOAT8ARRAYOID => OperandType::Float8,
            _ => return None,
        })
    }

    /// # Safety
    /// The datum is of this type.
    pub unsafe fn read(self, datum: pg_sys::Datum) -> Result<Option<Operand>, Error> {
        // Infinity is beyond all that CDF has; it must not wrap around.
        let micros = |datum: pg_sys::Datum| {
            Operand::Micros((datum.value() as i64).saturating_add(EPOCH_MILLIS * 1000))
        };
        // SAFETY: the caller's promise; the functions take a value of the type that they are given.
        unsafe {
            let convert = |function| pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, datum);
            Ok(Some(match self {
                OperandType::Text => Operand::Text(text::from_datum(datum)?),
                OperandType::Int2 => Operand::Int(i64::from(datum.value() as i16)),
                OperandType::Int4 => Operand::Int(i64::from(datum.value() as i32)),
                OperandType::Int8 => Operand::Int(datum.value() as i64),
                OperandType::Float4 => float(f64::from(f32::from_bits(datum.value() as u32))),
                OperandType::Float8 | OperandType::Float8OfReal => {
                    float(f64::from_bits(datum.value() as u64))
                }
                OperandType::Day => Operand::Int(i64::from(datum.value() as i32)),
                OperandType::Timestamp => micros(datum),
                OperandType::LocalTimestamp => match datum.value() as i64 {
                    value if (-MICROS..=MICROS).contains(&value) => micros(convert(TIMESTAMP_TO_TIMESTAMPTZ)),
                    value => Operand::Micros(value),
                },
                OperandType::Date => match datum.value() as i32 {
                    days if (-DAYS..=DAYS).contains(&days) => micros(convert(DATE_TO_TIMESTAMPTZ)),
                    days if days < 0 => Operand::Micros(i64::MIN),
                    _ => Operand::Micros(i64::MAX),
                },
                OperandType::Bool => Operand::Bool(datum.value() & 0xff != 0),
                OperandType::Jsonb => {
                    let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
                    let size = pgrx::varlena::varsize_4b(jsonb.cast()) as i32;
                    let printed = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*jsonb).root, size);
                    Operand::Json(text::from_server(printed))
                }
            }))
        }
    }

    /// The elements of an array that are not NULL.
    ///
    /// # Safety
    /// The datum is an array of this type.
    unsafe fn read_array(self, datum: pg_sys::Datum) -> Result<Option<Vec<Operand>>, Error> {
        fn list<T>(elements: Vec<Option<T>>, operand: impl Fn(T) -> Operand) -> Vec<Operand> {
            elements.into_iter().flatten().map(operand).collect()
        }
        let int = Operand::Int;
        // SAFETY: the caller's promise.
        unsafe {
            Ok(match self {
                OperandType::Text => Some(text::from_array(datum)?.into_iter().map(Operand::Text).collect()),
                OperandType::Int2 => Vec::from_datum(datum, false)
                    .map(|elements| list(elements, |value: i16| int(value.into()))),
                OperandType::Int4 => Vec::from_datum(datum, false)
                    .map(|elements| list(elements, |value: i32| int(value.into()))),
                OperandType::Int8 => Vec::from_datum(datum, false).map(|elements| list(elements, int)),
                OperandType::Float8 => Vec::from_datum(datum, false).map(|elements| list(elements, float)),
                _ => None,
            })
        }
    }
}

/// An operator that is understood: its OID (pg_operator.dat), what it means, and what its right side is.
struct Operator {
    oid: u32,
    comparison: Comparison,
    operand: OperandType,
}

const fn operator(oid: u32, comparison: Comparison, operand: OperandType) -> Operator {
    Operator { oid, comparison, operand }
}

static OPERATORS: [Operator; 69] = [
    operator(98, Comparison::Equal, OperandType::Text),
    operator(410, Comparison::Equal, OperandType::Int8),
    operator(416, Comparison::Equal, OperandType::Int4),
    operator(1868, Comparison::Equal, OperandType::Int2),
    operator(96, Comparison::Equal, OperandType::Int4),
    operator(15, Comparison::Equal, OperandType::Int8),
    operator(91, Comparison::Equal, OperandType::Bool),
    operator(1320, Comparison::Equal, OperandType::Timestamp),
    operator(1322, Comparison::Less, OperandType::Timestamp),
    operator(1323, Comparison::LessOrEqual, OperandType::Timestamp),
    operator(1324, Comparison::Greater, OperandType::Timestamp),
    operator(1325, Comparison::GreaterOrEqual, OperandType::Timestamp),
    operator(2060, Comparison::Equal, OperandType::Timestamp),
    operator(2062, Comparison::Less, OperandType::Timestamp),
    operator(2063, Comparison::LessOrEqual, OperandType::Timestamp),
    operator(2064, Comparison::Greater, OperandType::Timestamp),
    operator(2065, Comparison::GreaterOrEqual, OperandType::Timestamp),
    operator(2384, Comparison::Less, OperandType::Date),
    operator(2385, Comparison::LessOrEqual, OperandType::Date),
    operator(2386, Comparison::Equal, OperandType::Date),
    operator(2387, Comparison::GreaterOrEqual, OperandType::Date),
    operator(2388, Comparison::Greater, OperandType::Date),
    operator(2540, Comparison::Less, OperandType::LocalTimestamp),
    operator(2541, Comparison::LessOrEqual, OperandType::LocalTimestamp),
    operator(2543, Comparison::GreaterOrEqual, OperandType::LocalTimestamp),
    operator(2544, Comparison::Greater, OperandType::LocalTimestamp),
    operator(412, Comparison::Less, OperandType::Int8),
    operator(414, Comparison::LessOrEqual, OperandType::Int8),
    operator(413, Comparison::Greater, OperandType::Int8),
    operator(415, Comparison::GreaterOrEqual, OperandType::Int8),
    operator(418, Comparison::Less, OperandType::Int4),
    operator(420, Comparison::LessOrEqual, OperandType::Int4),
    operator(419, Comparison::Greater, OperandType::Int4),
    operator(430, Comparison::GreaterOrEqual, OperandType::Int4),
    operator(1870, Comparison::Less, OperandType::Int2),
    operator(1872, Comparison::LessOrEqual, OperandType::Int2),
    operator(1871, Comparison::Greater, OperandType::Int2),
    operator(1873, Comparison::GreaterOrEqual, OperandType::Int2),
    operator(97, Comparison::Less, OperandType::Int4),
    operator(523, Comparison::LessOrEqual, OperandType::Int4),
    operator(521, Comparison::Greater, OperandType::Int4),
    operator(525, Comparison::GreaterOrEqual, OperandType::Int4),
    operator(37, Comparison::Less, OperandType::Int8),
    operator(80, Comparison::LessOrEqual, OperandType::Int8),
    operator(76, Comparison::Greater, OperandType::Int8),
    operator(82, Comparison::GreaterOrEqual, OperandType::Int8),
    operator(670, Comparison::Equal, OperandType::Float8),
    operator(672, Comparison::Less, OperandType::Float8),
    operator(673, Comparison::LessOrEqual, OperandType::Float8),
    operator(674, Comparison::Greater, OperandType::Float8),
    operator(675, Comparison::GreaterOrEqual, OperandType::Float8),
    operator(620, Comparison::Equal, OperandType::Float4),
    operator(622, Comparison::Less, OperandType::Float4),
    operator(624, Comparison::LessOrEqual, OperandType::Float4),
    operator(623, Comparison::Greater, OperandType::Float4),
    operator(625, Comparison::GreaterOrEqual, OperandType::Float4),
    operator(1120, Comparison::Equal, OperandType::Float8OfReal),
    operator(1122, Comparison::Less, OperandType::Float8OfReal),
    operator(1124, Comparison::LessOrEqual, OperandType::Float8OfReal),
    operator(1123, Comparison::Greater, OperandType::Float8OfReal),
    operator(1125, Comparison::GreaterOrEqual, OperandType::Float8OfReal),
    operator(1093, Comparison::Equal, OperandType::Day),
    operator(1095, Comparison::Less, OperandType::Day),
    operator(1096, Comparison::LessOrEqual, OperandType::Day),
    operator(1097, Comparison::Greater, OperandType::Day),
    operator(1098, Comparison::GreaterOrEqual, OperandType::Day),
    operator(1209, Comparison::Like, OperandType::Text),
    operator(3877, Comparison::StartsWith, OperandType::Text),
    operator(3246, Comparison::Contains, OperandType::Jsonb),
];

const TEXT_EQUAL: u32 = 98;
/// `anyarray @> anyarray` and `anyarray && anyarray`.
const ARRAY_CONTAINS: u32 = 2751;
const ARRAY_OVERLAPS: u32 = 2750;
/// `jsonb ->> text`.
const JSONB_MEMBER: u32 = 3477;
/// `starts_with(text, text)` (pg_proc.dat).
const STARTS_WITH: u32 = 3696;

static COMPARISONS: [Comparison; 14] = [
    Comparison::Equal,
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Greater,
    Comparison::GreaterOrEqual,
    Comparison::AnyOf,
    Comparison::Like,
    Comparison::StartsWith,
    Comparison::IsNull,
    Comparison::IsNotNull,
    Comparison::Contains,
    Comparison::Overlaps,
    Comparison::HasElement,
    Comparison::Member,
];

/// A condition that CDF can filter by, as a plan holds it. Its value is among the plan's expressions.
#[derive(Clone, Copy)]
pub struct PushedCondition {
    pub column: usize,
    comparison: Comparison,
    operand: OperandType,
}

impl PushedCondition {
    /// Integers that a plan has for one condition.
    pub const INTEGERS: usize = 3;

    pub fn comparison(&self) -> Comparison {
        self.comparison
    }

    /// The type of the value that the column is compared with, or of the elements of its array.
    pub fn operand(&self) -> OperandType {
        self.operand
    }

    /// The same of another column, or for any value of a list.
    pub fn with(self, column: usize, comparison: Comparison) -> PushedCondition {
        PushedCondition { column, comparison, ..self }
    }

    /// Whether CDF can be asked for rows of the table by the condition.
    pub fn is_asked_of(&self, table: &Table) -> bool {
        let PushedCondition { column, comparison, operand } = *self;
        let fits = match comparison {
            Comparison::IsNull | Comparison::IsNotNull => true,
            Comparison::Member => operand_kind(table, column) == Some(OperandKind::Json),
            _ => operand_kind(table, column) == Some(operand.kind()),
        };
        fits && filters_on(table, column, comparison)
    }

    pub fn to_integers(self) -> [i32; Self::INTEGERS] {
        let comparison = COMPARISONS.iter().position(|other| *other == self.comparison);
        [self.column as i32, comparison.unwrap_or_default() as i32, self.operand.to_integer()]
    }

    pub fn from_integers(integers: &[i32]) -> Option<PushedCondition> {
        let &[column, comparison, operand] = integers else {
            return None;
        };
        Some(PushedCondition {
            column: usize::try_from(column).ok()?,
            comparison: *COMPARISONS.get(usize::try_from(comparison).ok()?)?,
            operand: OperandType::from_integer(operand)?,
        })
    }

    /// Converts the value for CDF.
    ///
    /// # Safety
    /// The datum is what the condition's expression has given, and not NULL.
    pub unsafe fn read(&self, datum: pg_sys::Datum) -> Result<Option<Operand>, Error> {
        // SAFETY: the caller's promise; the expression is an array where the comparison is with several values.
        unsafe {
            let array = match self.comparison {
                Comparison::AnyOf | Comparison::Overlaps | Comparison::Member => true,
                Comparison::Contains => self.operand != OperandType::Jsonb,
                _ => false,
            };
            if array {
                Ok(self.operand.read_array(datum)?.map(Operand::List))
            } else {
                self.operand.read(datum)
            }
        }
    }
}

/// A condition of the query that CDF can filter by.
pub struct Pushed {
    pub condition: PushedCondition,
    pub value: *mut pg_sys::Expr,
    /// CDF leaves exactly the rows that fulfil it.
    pub exact: bool,
}

/// The condition, if it is one that CDF can be asked by: a column compared with something that holds for the whole scan,
/// or until it is scanned again.
///
/// # Safety
/// The relation is being planned, and the clause is one on it.
pub unsafe fn pushed(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    table: &Table,
    clause: *mut pg_sys::Expr,
) -> Option<Pushed> {
    // SAFETY: the caller's promise.
    unsafe {
        let (condition, value) = compared(root, baserel, clause)?;
        let PushedCondition { column, comparison, .. } = condition;
        let exact = is_exact(table, column, comparison) || like_is_prefix(comparison, value);
        condition.is_asked_of(table).then_some(Pushed { condition, value, exact })
    }
}

/// What a clause compares one of the relation's columns with, where that holds for the whole scan, or until it is scanned
/// again. Columns are counted as in the relation.
///
/// # Safety
/// The relation is being planned, and the clause is one on it.
pub unsafe fn compared(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    clause: *mut pg_sys::Expr,
) -> Option<(PushedCondition, *mut pg_sys::Expr)> {
    // SAFETY: the caller's promise.
    unsafe {
        let (condition, value, collation) = matched(baserel, clause)?;
        let bytewise = collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation);
        let constant =
            !pg_sys::bms_is_member((*baserel).relid as i32, pg_sys::pull_varnos(root, value.cast()))
                && !pg_sys::contain_volatile_functions(value.cast())
                && !pg_sys::contain_subplans(value.cast());
        (bytewise && constant).then_some((condition, value))
    }
}

/// Whether the pattern is a constant with one wildcard, `%` at its end.
unsafe fn like_is_prefix(comparison: Comparison, value: *mut pg_sys::Expr) -> bool {
    // SAFETY: a node's tag tells its type; the pattern is a text.
    unsafe {
        if comparison != Comparison::Like || (*value).type_ != pg_sys::NodeTag::T_Const {
            return false;
        }
        let value = value.cast::<pg_sys::Const>();
        let pattern = if (*value).constisnull { None } else { text::from_datum((*value).constvalue).ok() };
        pattern.is_some_and(|pattern| {
            pattern.ends_with('%') && !pattern[..pattern.len() - 1].contains(['%', '_', '\\'])
        })
    }
}

type Match = (PushedCondition, *mut pg_sys::Expr, pg_sys::Oid);

/// Takes a clause apart: the condition, its value, and the collation that it compares by.
unsafe fn matched(baserel: *mut pg_sys::RelOptInfo, clause: *mut pg_sys::Expr) -> Option<Match> {
    // SAFETY: the clause is an expression; a node's tag tells its type.
    unsafe {
        let column_of = |expression| column_of(expression, baserel);
        match (*clause).type_ {
            pg_sys::NodeTag::T_OpExpr => {
                let expression = clause.cast::<pg_sys::OpExpr>();
                let &mut [left, right] = pointers::<pg_sys::Expr>((*expression).args) else {
                    return None;
                };
                let collation = (*expression).inputcollid;
                let oid = (*expression).opno;
                if oid.to_u32() == TEXT_EQUAL {
                    for (member, value) in [(left, right), (right, left)] {
                        if let Some((column, key)) = member_of(member, baserel) {
                            let condition = PushedCondition {
                                column,
                                comparison: Comparison::Member,
                                operand: OperandType::Text,
                            };
                            return Some((condition, pair(key, value), collation));
                        }
                    }
                }
                let (column, value, oid) = match (column_of(left), column_of(right)) {
                    (Some(column), None) => (column, right, oid),
                    (None, Some(column)) => (column, left, pg_sys::get_commutator(oid)),
                    _ => return None,
                };
                let (comparison, operand) = match oid.to_u32() {
                    ARRAY_CONTAINS => (Comparison::Contains, array_operand(value)?),
                    ARRAY_OVERLAPS => (Comparison::Overlaps, array_operand(value)?),
                    oid => {
                        let operator = OPERATORS.iter().find(|operator| operator.oid == oid)?;
                        (operator.comparison, operator.operand)
                    }
                };
                Some((PushedCondition { column, comparison, operand }, value, collation))
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                let expression = clause.cast::<pg_sys::ScalarArrayOpExpr>();
                let &mut [left, right] = pointers::<pg_sys::Expr>((*expression).args) else {
                    return None;
                };
                let (comparison, column, value, oid) = match (column_of(left), column_of(right)) {
                    _ if !(*expression).useOr => return None,
                    (Some(column), None) => (Comparison::AnyOf, column, right, (*expression).opno),
                    (None, Some(column)) => {
                        let oid = pg_sys::get_commutator((*expression).opno);
                        (Comparison::HasElement, column, left, oid)
                    }
                    _ => return None,
                };
                let operator = OPERATORS.iter().find(|operator| {
                    operator.oid == oid.to_u32() && operator.comparison == Comparison::Equal
                })?;
                if matches!(
                    operator.operand,
                    OperandType::Timestamp
                        | OperandType::Date
                        | OperandType::Day
                        | OperandType::Bool
                        | OperandType::Float4
                        | OperandType::Float8OfReal
                ) {
                    return None;
                }
                let condition = PushedCondition { column, comparison, operand: operator.operand };
                Some((condition, value, (*expression).inputcollid))
            }
            pg_sys::NodeTag::T_FuncExpr => {
                let expression = clause.cast::<pg_sys::FuncExpr>();
                if (*expression).funcid.to_u32() != STARTS_WITH {
                    return None;
                }
                let &mut [left, right] = pointers::<pg_sys::Expr>((*expression).args) else {
                    return None;
                };
                let column = column_of(left)?;
                let condition = PushedCondition {
                    column,
                    comparison: Comparison::StartsWith,
                    operand: OperandType::Text,
                };
                Some((condition, right, (*expression).inputcollid))
            }
            pg_sys::NodeTag::T_NullTest => {
                let test = clause.cast::<pg_sys::NullTest>();
                let comparison = match (*test).nulltesttype {
                    pg_sys::NullTestType::IS_NULL => Comparison::IsNull,
                    _ => Comparison::IsNotNull,
                };
                let column = column_of((*test).arg)?;
                Some(truth(PushedCondition { column, comparison, operand: OperandType::Bool }, true))
            }
            pg_sys::NodeTag::T_BooleanTest => {
                let test = clause.cast::<pg_sys::BooleanTest>();
                let value = match (*test).booltesttype {
                    pg_sys::BoolTestType::IS_TRUE => true,
                    pg_sys::BoolTestType::IS_FALSE => false,
                    _ => return None,
                };
                let column = column_of((*test).arg)?;
                Some(truth(boolean(column), value))
            }
            pg_sys::NodeTag::T_BoolExpr => {
                let expression = clause.cast::<pg_sys::BoolExpr>();
                match pointers::<pg_sys::Expr>((*expression).args) {
                    [negated] if (*expression).boolop == pg_sys::BoolExprType::NOT_EXPR => {
                        Some(truth(boolean(column_of(*negated)?), false))
                    }
                    _ => None,
                }
            }
            pg_sys::NodeTag::T_Var => Some(truth(boolean(column_of(clause)?), true)),
            _ => None,
        }
    }
}

fn boolean(column: usize) -> PushedCondition {
    PushedCondition { column, comparison: Comparison::Equal, operand: OperandType::Bool }
}

/// A condition whose value is known already.
unsafe fn truth(condition: PushedCondition, value: bool) -> Match {
    // SAFETY: makes a node.
    (condition, unsafe { pg_sys::makeBoolConst(value, false) }.cast(), pg_sys::InvalidOid)
}

unsafe fn array_operand(value: *mut pg_sys::Expr) -> Option<OperandType> {
    // SAFETY: the value is an expression.
    OperandType::of_array(unsafe { pg_sys::getBaseType(pg_sys::exprType(value.cast())) })
}

/// The column and the key of `column ->> key`, where the key has no columns in it.
unsafe fn member_of(
    expression: *mut pg_sys::Expr,
    baserel: *mut pg_sys::RelOptInfo,
) -> Option<(usize, *mut pg_sys::Expr)> {
    // SAFETY: as for `matched`.
    unsafe {
        if (*expression).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        let expression = expression.cast::<pg_sys::OpExpr>();
        match pointers::<pg_sys::Expr>((*expression).args) {
            &mut [left, right] if (*expression).opno.to_u32() == JSONB_MEMBER => {
                Some((column_of(left, baserel)?, right))
            }
            _ => None,
        }
    }
}

/// `ARRAY[key, value]`, so that a condition has one value.
unsafe fn pair(key: *mut pg_sys::Expr, value: *mut pg_sys::Expr) -> *mut pg_sys::Expr {
    // SAFETY: makes a node in the current memory context, as the planner does; both are texts.
    unsafe {
        let elements = pg_sys::lappend(std::ptr::null_mut(), key.cast());
        let mut array = PgBox::<pg_sys::ArrayExpr>::alloc_node(pg_sys::NodeTag::T_ArrayExpr);
        array.array_typeid = pg_sys::TEXTARRAYOID;
        array.element_typeid = pg_sys::TEXTOID;
        array.array_collid = pg_sys::exprCollation(value.cast());
        array.elements = pg_sys::lappend(elements, value.cast());
        array.multidims = false;
        array.location = -1;
        array.into_pg().cast()
    }
}

/// The position of the column that the expression is.
///
/// # Safety
/// The relation is being planned.
pub unsafe fn column_of(
    mut expression: *mut pg_sys::Expr,
    baserel: *mut pg_sys::RelOptInfo,
) -> Option<usize> {
    // SAFETY: as for `matched`.
    unsafe {
        let mut shown_as = pg_sys::InvalidOid;
        if (*expression).type_ == pg_sys::NodeTag::T_RelabelType {
            let relabel = expression.cast::<pg_sys::RelabelType>();
            shown_as = pg_sys::getBaseType((*relabel).resulttype);
            expression = (*relabel).arg;
        }
        if (*expression).type_ != pg_sys::NodeTag::T_Var {
            return None;
        }
        let variable = expression.cast::<pg_sys::Var>();
        let base = pg_sys::getBaseType((*variable).vartype);
        // What is relabelled may compare otherwise than its column: oid as integer, for example.
        let same = |oid| matches!(oid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
        if shown_as != pg_sys::InvalidOid && shown_as != base && !(same(base) && same(shown_as)) {
            return None;
        }
        let ours = (*variable).varno as pg_sys::Index == (*baserel).relid && (*variable).varlevelsup == 0;
        (ours && (*variable).varattno > 0).then(|| (*variable).varattno as usize - 1)
    }
}
