//! UPDATE and DELETE without a condition would change a whole resource in CDF. Like TRUNCATE, they need the table's
//! option `truncatable`.

use pgrx::pg_sys;

use crate::pg::list::pointers;

/// How many of a table's rows a statement may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementReach {
    /// Those that a condition selects, or none.
    Part,
    /// All of them, or none: a condition that is the same for every row decides when the statement runs.
    AllOrNone,
    All,
}

impl StatementReach {
    /// As plans store it.
    pub fn to_integer(self) -> i32 {
        self as i32
    }

    pub fn from_integer(integer: i32) -> StatementReach {
        [StatementReach::AllOrNone, StatementReach::All]
            .into_iter()
            .find(|extent| extent.to_integer() == integer)
            .unwrap_or(StatementReach::Part)
    }
}

/// Returns what the planner has left of a statement's conditions on a table whose rows it changes. By then constants
/// are folded, and the conditions of views, joins and a partitioned parent are in their places.
///
/// # Safety
/// The planner is making the plan of an UPDATE or DELETE of this relation.
pub unsafe fn extent(
    root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    result_relation: pg_sys::Index,
) -> StatementReach {
    // SAFETY: the caller's promise; the relation is one of the query's, and lists hold what the planner puts there.
    unsafe {
        // A condition that is never true leaves nothing but a Result.
        let subplan = (*plan).plan.lefttree;
        if (*subplan).type_ == pg_sys::NodeTag::T_Result && (*subplan).lefttree.is_null() {
            return StatementReach::Part;
        }
        let Some(relation) = (*(*root).simple_rel_array.add(result_relation as usize)).as_ref() else {
            return StatementReach::Part;
        };
        let restrictions = pointers::<pg_sys::RestrictInfo>(relation.baserestrictinfo);
        let joins = pointers::<pg_sys::RestrictInfo>(relation.joininfo);
        let mut all = restrictions.iter().chain(joins.iter());
        // Equalities with columns of other tables are in equivalence classes instead of joininfo.
        if relation.has_eclass_joins || all.any(|info| tells_rows_apart((**info).clause, result_relation)) {
            return StatementReach::Part;
        }
        if (*root).hasPseudoConstantQuals {
            StatementReach::AllOrNone
        } else {
            StatementReach::All
        }
    }
}

/// Whether a condition may hold for some rows of a relation but not for others. One on `tableoid` cannot.
unsafe fn tells_rows_apart(clause: *mut pg_sys::Expr, relation: pg_sys::Index) -> bool {
    // SAFETY: a clause is an expression.
    unsafe {
        let mut used = std::ptr::null_mut();
        pg_sys::pull_varattnos(clause.cast(), relation, &mut used);
        // Attribute 0 is the whole row; system columns have lower numbers.
        let before_whole_row = -pg_sys::FirstLowInvalidHeapAttributeNumber - 1;
        pg_sys::bms_next_member(used, before_whole_row) >= 0
            || pg_sys::contain_volatile_functions(clause.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_kept_in_plans() {
        for extent in [StatementReach::Part, StatementReach::AllOrNone, StatementReach::All] {
            assert_eq!(StatementReach::from_integer(extent.to_integer()), extent);
        }
    }
}
