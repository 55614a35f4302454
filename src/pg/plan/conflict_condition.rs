//! The WHERE of `INSERT … ON CONFLICT (key) DO UPDATE SET … WHERE …`.
//!
//! The existing row is not read, so the condition must depend on the written row alone. It is evaluated for each row,
//! and a row that fails it is written as under DO NOTHING. A part that only avoids updates without a change (`t.c IS
//! DISTINCT FROM EXCLUDED.c`) is dropped, since such an update does no harm.

use pgrx::pg_sys;

use crate::cdf::error::{Error, Kind};
use crate::pg::errors::raise;
use crate::pg::list::pointers;

/// Leaves in the clause what is evaluated for each row, and refuses what cannot be evaluated.
///
/// # Safety
/// The clause is that of an analysed INSERT; `target` is the number of its table in the range table.
pub unsafe fn resolve(clause: *mut pg_sys::OnConflictExpr, target: std::ffi::c_int, keys: &[usize]) {
    // SAFETY: the caller's promise: expressions are nodes, and what DO UPDATE sets is a list of TargetEntry.
    unsafe {
        if (*clause).onConflictWhere.is_null() {
            return;
        }
        let set: Vec<i16> = pointers::<pg_sys::TargetEntry>((*clause).onConflictSet)
            .iter()
            .map(|entry| (**entry).resno)
            // Rows in conflict have the same key.
            .filter(|number| !keys.contains(&(*number as usize - 1)))
            .collect();
        let mut rest = std::ptr::null_mut();
        for condition in parts((*clause).onConflictWhere, pg_sys::BoolExprType::AND_EXPR) {
            if keeps_from_changing_nothing(condition, clause, target, &set) {
                continue;
            }
            check(condition, target);
            rest = pg_sys::lappend(rest, condition.cast());
        }
        (*clause).onConflictWhere =
            if rest.is_null() { std::ptr::null_mut() } else { pg_sys::make_ands_explicit(rest).cast() };
    }
}

/// Returns the operands of AND, or of OR.
unsafe fn parts(
    expression: *mut pg_sys::Node,
    operator: pg_sys::BoolExprType::Type,
) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the caller passes a node.
    unsafe {
        if (*expression).type_ == pg_sys::NodeTag::T_BoolExpr {
            let combined = expression.cast::<pg_sys::BoolExpr>();
            if (*combined).boolop == operator {
                let arguments = pointers::<pg_sys::Node>((*combined).args);
                return arguments.iter().flat_map(|argument| parts(*argument, operator)).collect();
            }
        }
        vec![expression]
    }
}

/// Whether the condition can only be false where all columns that are set have their value already: it combines by OR,
/// among others, `t.c IS DISTINCT FROM EXCLUDED.c` for each of them.
unsafe fn keeps_from_changing_nothing(
    condition: *mut pg_sys::Node,
    clause: *mut pg_sys::OnConflictExpr,
    target: std::ffi::c_int,
    set: &[i16],
) -> bool {
    // SAFETY: the caller passes a node.
    unsafe {
        let compared: Vec<i16> = parts(condition, pg_sys::BoolExprType::OR_EXPR)
            .into_iter()
            .filter_map(|part| compared_column(part, target, (*clause).exclRelIndex))
            .collect();
        // Number 0 stands for the whole row.
        !compared.is_empty() && (compared.contains(&0) || set.iter().all(|number| compared.contains(number)))
    }
}

/// Returns the number of the column that a part `t.c IS DISTINCT FROM EXCLUDED.c` compares.
unsafe fn compared_column(
    part: *mut pg_sys::Node,
    target: std::ffi::c_int,
    excluded: std::ffi::c_int,
) -> Option<i16> {
    // SAFETY: a node's tag tells its type; a DistinctExpr has two arguments.
    unsafe {
        if (*part).type_ != pg_sys::NodeTag::T_DistinctExpr {
            return None;
        }
        let [left, right] = pointers::<pg_sys::Node>((*part.cast::<pg_sys::DistinctExpr>()).args) else {
            return None;
        };
        let (left, right) = (column(*left)?, column(*right)?);
        let relations = [left.0, right.0];
        (left.1 == right.1 && (relations == [target, excluded] || relations == [excluded, target]))
            .then_some(left.1)
    }
}

/// Returns the relation and the number of a column, which may be relabelled as a binary compatible type.
unsafe fn column(mut expression: *mut pg_sys::Node) -> Option<(std::ffi::c_int, i16)> {
    // SAFETY: a node's tag tells its type.
    unsafe {
        while (*expression).type_ == pg_sys::NodeTag::T_RelabelType {
            expression = (*expression.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        let variable = expression.cast::<pg_sys::Var>();
        ((*expression).type_ == pg_sys::NodeTag::T_Var && (*variable).varlevelsup == 0)
            .then(|| (i64::from((*variable).varno) as std::ffi::c_int, (*variable).varattno))
    }
}

/// Refuses a condition that depends on more than the written row.
unsafe fn check(condition: *mut pg_sys::Node, target: std::ffi::c_int) {
    // SAFETY: the caller passes an analysed expression; only nodes that the planner adds would need a PlannerInfo.
    unsafe {
        if pg_sys::bms_is_member(target, pg_sys::pull_varnos(std::ptr::null_mut(), condition)) {
            raise(
                Error::new(
                    Kind::Unsupported,
                    "ON CONFLICT DO UPDATE … WHERE may not ask about the row that exists: it is not read",
                )
                .hint(
                    "It may use EXCLUDED columns, parameters and constants, or be t.c IS DISTINCT FROM EXCLUDED.c, combined by OR for all columns c of SET. To compare with what exists, write an UPDATE.",
                ),
            );
        }
        if pg_sys::contain_volatile_functions(condition) {
            raise(
                Error::new(
                    Kind::Unsupported,
                    "ON CONFLICT DO UPDATE … WHERE may not call a volatile function: it is evaluated for every row, not only for those that exist",
                )
                .hint("Compute the value in the INSERT's SELECT, and compare with the EXCLUDED column."),
            );
        }
    }
}

extern "C-unwind" {
    /// catalog/partition.h
    fn map_partition_varattnos(
        expressions: *mut pg_sys::List,
        varno: std::ffi::c_int,
        to: pg_sys::Relation,
        from: pg_sys::Relation,
    ) -> *mut pg_sys::List;
}

/// The condition that is evaluated for each row of a statement.
pub struct ConflictCondition {
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
}

impl ConflictCondition {
    /// # Safety
    /// Both belong to a statement that is about to run.
    pub unsafe fn of_statement(
        mtstate: *mut pg_sys::ModifyTableState,
        rinfo: *mut pg_sys::ResultRelInfo,
    ) -> Option<ConflictCondition> {
        // SAFETY: the caller's promise; the relations are open. The executor frees both with the statement.
        unsafe {
            let mut list = planned(mtstate)?;
            let root = (*rinfo).ri_RootResultRelInfo;
            if !root.is_null() {
                // A partition may have its columns in another order.
                let (to, from) = ((*rinfo).ri_RelationDesc, (*root).ri_RelationDesc);
                list = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    map_partition_varattnos(list, pg_sys::INNER_VAR as std::ffi::c_int, to, from)
                });
            }
            let state = pg_sys::ExecInitQual(list, &raw mut (*mtstate).ps);
            Some(ConflictCondition { state, context: pg_sys::CreateExprContext((*mtstate).ps.state) })
        }
    }

    /// Whether this row updates an existing row.
    ///
    /// # Safety
    /// `slot` holds a row of the statement's table, and the statement is running.
    pub unsafe fn holds(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: the caller's promise. As in the executor, EXCLUDED is the inner side. An error in the expression ends
        // the statement.
        unsafe {
            let Some(evaluate) = (*self.state).evalfunc else { return true };
            pg_sys::MemoryContextReset((*self.context).ecxt_per_tuple_memory);
            (*self.context).ecxt_innertuple = slot;
            let previous = pg_sys::MemoryContextSwitchTo((*self.context).ecxt_per_tuple_memory);
            let mut null = false;
            let value = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(self.state, self.context, &mut null));
            pg_sys::MemoryContextSwitchTo(previous);
            !null && value != pg_sys::Datum::from(0)
        }
    }
}

/// Returns the part of the condition that the planner has left; None: it always holds.
///
/// # Safety
/// `mtstate` belongs to a statement.
pub unsafe fn planned(mtstate: *mut pg_sys::ModifyTableState) -> Option<*mut pg_sys::List> {
    // SAFETY: the caller's promise; a ModifyTableState that has a plan has a ModifyTable, and a plan's condition is a
    // list that AND combines.
    unsafe {
        let plan = (*mtstate).ps.plan.cast::<pg_sys::ModifyTable>();
        (!plan.is_null() && !(*plan).onConflictWhere.is_null()).then(|| (*plan).onConflictWhere.cast())
    }
}
