//! EXPLAIN of a join by key. The requests are named by the scans of its inner side.

use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::execute::state;
use super::plan::{JoinKey, JoinPlan};
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::scan::explain::{number, text};
use crate::pg::text::from_server_lossy;

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_custom_scan(
    node: *mut pg_sys::CustomScanState,
    ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a join that has begun, if only for it.
    unsafe {
        let plan = JoinPlan::of((*node).ss.ps.plan.cast()).or_raise();
        let context = pg_sys::set_deparse_context_plan((*es).deparse_cxt, (*node).ss.ps.plan, ancestors);
        let deparsed = |expression: *mut pg_sys::Node| {
            from_server_lossy(pg_sys::deparse_expression(expression, context, true, false))
        };
        let sides = plan
            .keys
            .iter()
            .map(|key| format!("({} = {})", deparsed(key.column.cast()), deparsed(key.value.cast())));
        text(es, c"Join Type", plan.kind.name());
        text(es, c"Key Cond", &sides.collect::<Vec<_>>().join(" AND "));
        let others = pointers::<pg_sys::Node>(plan.conditions).iter();
        let others = others.filter(|condition| !plan.keys.iter().any(|key| compares(**condition, key)));
        let others: Vec<String> = others.map(|condition| deparsed(*condition)).collect();
        if !others.is_empty() {
            text(es, c"Join Filter", &others.join(" AND "));
        }
        if plan.per_batch < i32::MAX as usize {
            text(es, c"Keys per Request", &plan.per_batch.to_string());
        }
        if let Some(join) = state(node).filter(|_| (*es).analyze) {
            number(es, c"Batches", join.batches);
        }
    }
}

/// Whether a condition is the one that a key comes from.
///
/// # Safety
/// Both belong to one plan.
unsafe fn compares(condition: *mut pg_sys::Node, key: &JoinKey) -> bool {
    // SAFETY: the caller's promise; a node's tag tells its type.
    unsafe {
        (*condition).type_ == pg_sys::NodeTag::T_OpExpr
            && match pointers::<c_void>((*condition.cast::<pg_sys::OpExpr>()).args) {
                &mut [left, right] => {
                    let sides = [key.column.cast::<c_void>(), key.value.cast()];
                    let is = |left, right| pg_sys::equal(sides[0], left) && pg_sys::equal(sides[1], right);
                    is(left, right) || is(right, left)
                }
                _ => false,
            }
    }
}
