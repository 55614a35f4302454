//! The path of a join by key, and the plan that is made of it: a custom scan over the plans of both sides.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::kind::JoinKind;
use super::node::{Static, SCAN};
use super::nulling;
use super::plan::{JoinKey, JoinPlan, NAME};
use crate::cdf::error::Error;
use crate::pg::compat;
use crate::pg::errors::raise;
use crate::pg::list::pointers;
use crate::pg::scan::estimate::Estimate;
use crate::pg::scan::pushdown::OperandType;

static PATH: Static<pg_sys::CustomPathMethods> = Static(pg_sys::CustomPathMethods {
    CustomName: NAME.as_ptr(),
    PlanCustomPath: Some(plan_custom_path),
    ReparameterizeCustomPathByChild: None,
});

/// What the plan of a join by key has to know.
pub struct JoinPath {
    pub kind: JoinKind,
    /// Different keys that are asked for together.
    pub per_batch: usize,
    /// The first one is what rows are found by.
    pub keys: Vec<JoinKey>,
    /// What is asked for as the range of a batch's values.
    pub ranges: Vec<JoinKey>,
}

impl JoinPath {
    /// The path: its private list has integers, the join's conditions, and the expressions of the keys.
    ///
    /// # Safety
    /// The planner is planning the join of two relations of these paths. `cost` is that of all that the inner side reads.
    pub unsafe fn make(
        &self,
        joinrel: *mut pg_sys::RelOptInfo,
        outer: *mut pg_sys::Path,
        inner: *mut pg_sys::Path,
        restrictions: *mut pg_sys::List,
        cost: Estimate,
    ) -> *mut pg_sys::Path {
        // SAFETY: the caller's promise; what is made here lives in the planner's memory.
        unsafe {
            let mut numbers = std::ptr::null_mut();
            let mut expressions = std::ptr::null_mut();
            let per_batch = i32::try_from(self.per_batch).unwrap_or(i32::MAX);
            let first = [self.kind.to_integer(), per_batch, self.keys.len() as i32];
            let all = self.keys.iter().chain(&self.ranges);
            let types = all.clone().flat_map(|key| [key.value_type, key.column_type]);
            for number in first.into_iter().chain(types.map(OperandType::to_integer)) {
                numbers = pg_sys::lappend_int(numbers, number);
            }
            for key in all {
                expressions = pg_sys::lappend(expressions, key.value.cast());
                expressions = pg_sys::lappend(expressions, key.column.cast());
            }
            let mut private = std::ptr::null_mut();
            for list in [numbers, restrictions, expressions] {
                private = pg_sys::lappend(private, list.cast());
            }

            let target = (*joinrel).reltarget;
            let rows = (*joinrel).rows;
            let compared = (*outer).rows + cost.rows + rows;
            let mut path = PgBox::<pg_sys::CustomPath>::alloc_node(pg_sys::NodeTag::T_CustomPath);
            path.path.pathtype = pg_sys::NodeTag::T_CustomScan;
            path.path.parent = joinrel;
            path.path.pathtarget = target;
            path.path.rows = rows;
            path.path.startup_cost = (*outer).startup_cost + cost.startup + (*target).cost.startup;
            path.path.total_cost = (*outer).total_cost
                + cost.total
                + (*target).cost.startup
                + compared * pg_sys::cpu_tuple_cost
                + rows * (*target).cost.per_tuple;
            #[cfg(feature = "pg18")]
            {
                path.path.disabled_nodes = (*outer).disabled_nodes + (*inner).disabled_nodes;
            }
            path.flags = compat::CUSTOM_SCAN_FLAGS;
            path.custom_paths = pg_sys::lappend(path.custom_paths, outer.cast());
            path.custom_paths = pg_sys::lappend(path.custom_paths, inner.cast());
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            {
                path.custom_restrictinfo = restrictions;
            }
            path.custom_private = private;
            path.methods = &raw const PATH.0;
            path.into_pg().cast()
        }
    }
}

/// The plan: its expressions are the join's conditions, as one list, then value and column of each key; its
/// private list has the same integers as the path's.
#[pg_guard]
unsafe extern "C-unwind" fn plan_custom_path(
    _root: *mut pg_sys::PlannerInfo,
    joinrel: *mut pg_sys::RelOptInfo,
    best_path: *mut pg_sys::CustomPath,
    targets: *mut pg_sys::List,
    _clauses: *mut pg_sys::List,
    custom_plans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: the planner passes a path of this module, and the plans of its paths.
    unsafe {
        let &mut [numbers, restrictions, expressions] = pointers::<pg_sys::List>((*best_path).custom_private)
        else {
            raise(Error::internal("a join by key of another path"))
        };
        let mut joined: *mut pg_sys::List = std::ptr::null_mut();
        let mut filters: *mut pg_sys::List = std::ptr::null_mut();
        if JoinPlan::kind(numbers).is_outer() {
            let relids = (*joinrel).relids;
            pg_sys::extract_actual_join_clauses(restrictions, relids, &mut joined, &mut filters);
        } else {
            joined = pg_sys::extract_actual_clauses(restrictions, false);
        }
        let own = |list: *mut pg_sys::List| pg_sys::copyObjectImpl(list.cast()).cast::<pg_sys::List>();
        let (joined, filters, expressions) = (own(joined), own(filters), own(expressions));

        let mut columns = std::ptr::null_mut();
        let mut row = std::ptr::null_mut();
        for plan in pointers::<pg_sys::Plan>(custom_plans) {
            for target in pointers::<pg_sys::TargetEntry>((**plan).targetlist) {
                let expression: *mut pg_sys::Expr = pg_sys::copyObjectImpl((**target).expr.cast()).cast();
                columns = pg_sys::lappend(columns, expression.cast());
                let number = pointers::<pg_sys::Expr>(columns).len() as i16;
                let entry = pg_sys::makeTargetEntry(expression, number, std::ptr::null_mut(), false);
                row = pg_sys::lappend(row, entry.cast());
            }
        }
        // The planner may put another list in place of the targets later, of what the join gives.
        let mut above = pg_sys::list_copy((*(*joinrel).reltarget).exprs);
        for target in pointers::<pg_sys::TargetEntry>(targets) {
            above = pg_sys::lappend(above, (**target).expr.cast());
        }
        let above = pg_sys::list_concat(above, filters);
        let below = pg_sys::list_concat(pg_sys::list_copy(joined), expressions);
        nulling::agree(columns, above, pg_sys::list_concat(below, filters));

        let custom_exprs =
            pg_sys::list_concat(pg_sys::lappend(std::ptr::null_mut(), joined.cast()), expressions);
        let mut plan = PgBox::<pg_sys::CustomScan>::alloc_node(pg_sys::NodeTag::T_CustomScan);
        plan.scan.plan.targetlist = targets;
        plan.scan.plan.qual = filters;
        plan.flags = (*best_path).flags;
        plan.custom_plans = custom_plans;
        plan.custom_exprs = custom_exprs;
        plan.custom_private = numbers;
        plan.custom_scan_tlist = row;
        plan.methods = &raw const SCAN.0;
        plan.into_pg().cast()
    }
}
