//! The contents of the plan of a join by key.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::kind::JoinKind;
use crate::cdf::error::Error;
use crate::pg::errors::raise;
use crate::pg::list::{integers, pointers};
use crate::pg::scan::pushdown::OperandType;

/// As EXPLAIN names it.
pub const NAME: &CStr = c"CDF Key Join";

/// A column of the inner side that must equal an expression of the outer side.
pub struct JoinKey<E = *mut pg_sys::Expr> {
    pub value: E,
    pub value_type: OperandType,
    pub column: E,
    pub column_type: OperandType,
}

/// The contents of a plan.
pub struct JoinPlan {
    pub kind: JoinKind,
    pub per_batch: usize,
    /// All conditions that a joined pair of rows has to fulfil.
    pub conditions: *mut pg_sys::List,
    pub keys: Vec<JoinKey>,
    /// What is asked for as the range of a batch's values.
    pub ranges: Vec<JoinKey>,
    pub outer: *mut pg_sys::Plan,
    pub inner: *mut pg_sys::Plan,
}

impl JoinPlan {
    /// # Safety
    /// The plan is one of this module.
    pub unsafe fn of(plan: *mut pg_sys::CustomScan) -> Result<JoinPlan, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            let numbers = integers((*plan).custom_private);
            let expressions = pointers::<pg_sys::Expr>((*plan).custom_exprs);
            let (Some(types), [conditions, expressions @ ..], &mut [outer, inner]) =
                (numbers.get(3..), expressions, pointers::<pg_sys::Plan>((*plan).custom_plans))
            else {
                return Err(Error::internal("a join by key without sides"));
            };
            let all = types.chunks_exact(2).zip(expressions.chunks_exact(2)).filter_map(|(types, sides)| {
                Some(JoinKey {
                    value: sides[0],
                    value_type: OperandType::from_integer(types[0])?,
                    column: sides[1],
                    column_type: OperandType::from_integer(types[1])?,
                })
            });
            let mut keys: Vec<JoinKey> = all.collect();
            let ranges = keys.split_off((numbers[2] as usize).min(keys.len()));
            Ok(JoinPlan {
                kind: JoinPlan::kind((*plan).custom_private),
                per_batch: numbers[1] as usize,
                conditions: conditions.cast(),
                keys,
                ranges,
                outer,
                inner,
            })
        }
    }

    /// # Safety
    /// The list is the private one of a path or a plan.
    pub unsafe fn kind(numbers: *mut pg_sys::List) -> JoinKind {
        // SAFETY: the caller's promise.
        let numbers = unsafe { integers(numbers) };
        let kind = numbers.first().and_then(|number| JoinKind::from_integer(*number));
        kind.unwrap_or_else(|| raise(Error::internal("a join by key of no kind")))
    }
}
