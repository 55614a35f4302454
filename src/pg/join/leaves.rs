//! The tables behind the inner side of a join: one, or the partitions of one.

use pgrx::pg_sys;

use crate::cdf::table::Table;
use crate::pg::ddl::options;
use crate::pg::list::pointers;
use crate::pg::plan::rights::check_planned;
use crate::pg::scan::plan::get_foreign_paths;

/// A relation that is read as a whole: a foreign table of this extension, or another table.
pub struct Leaf {
    pub relation: *mut pg_sys::RelOptInfo,
    /// None for tables that are none of this extension's.
    pub table: Option<Table>,
    /// The number of each column of the joined relation in this one, from 0; None where it has none.
    columns: Option<Vec<Option<usize>>>,
}

impl Leaf {
    /// The position of a column of the joined relation.
    pub fn column(&self, column: usize) -> Option<usize> {
        match &self.columns {
            None => Some(column),
            Some(columns) => columns.get(column).copied().flatten(),
        }
    }
}

/// Whether a relation is a foreign table of this extension.
unsafe fn is_ours(relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller passes a relation that is being planned; a wrapper's functions live as long as the planning.
    unsafe {
        let ours = get_foreign_paths as *const () as usize;
        let paths = (*relation).fdwroutine.as_ref().and_then(|routine| routine.GetForeignPaths);
        (*relation).rtekind == pg_sys::RTEKind::RTE_RELATION
            && paths.is_some_and(|paths| paths as *const () as usize == ours)
    }
}

/// The tables that a relation consists of; none if no table of this extension is among them, or if what is joined is
/// no table.
///
/// # Safety
/// The planner is planning joins of the relation.
pub unsafe fn leaves(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) -> Vec<Leaf> {
    // SAFETY: the caller's promise; a table that is planned is locked.
    unsafe {
        let is_table = matches!(
            (*relation).reloptkind,
            pg_sys::RelOptKind::RELOPT_BASEREL | pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL
        );
        if !is_table || (*relation).rtekind != pg_sys::RTEKind::RTE_RELATION {
            return Vec::new();
        }
        let mut found = Vec::new();
        collect(root, relation, None, &mut found);
        if found.iter().any(|leaf| is_ours(leaf.relation)) {
            for leaf in found.iter_mut().filter(|leaf| is_ours(leaf.relation)) {
                let entry = *(*root).simple_rte_array.add((*leaf.relation).relid as usize);
                leaf.table = Some(options::open_table((*entry).relid, (*leaf.relation).userid, || {
                    check_planned(root)
                }));
            }
            found
        } else {
            Vec::new()
        }
    }
}

unsafe fn collect(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    columns: Option<Vec<Option<usize>>>,
    found: &mut Vec<Leaf>,
) {
    // SAFETY: as for `leaves`: the planner's arrays go by the numbers of range table entries.
    unsafe {
        let entry = *(*root).simple_rte_array.add((*relation).relid as usize);
        if !(*entry).inh {
            if !is_empty(relation) {
                found.push(Leaf { relation, table: None, columns });
            }
            return;
        }
        for info in pointers::<pg_sys::AppendRelInfo>((*root).append_rel_list) {
            if (**info).parent_relid != (*relation).relid {
                continue;
            }
            // One that was pruned has no relation.
            let child = *(*root).simple_rel_array.add((**info).child_relid as usize);
            if child.is_null() {
                continue;
            }
            let variables = pointers::<pg_sys::Node>((**info).translated_vars);
            let place = |column: usize| {
                let node = *variables.get(column)?;
                let is_variable = !node.is_null() && (*node).type_ == pg_sys::NodeTag::T_Var;
                let number = is_variable.then(|| (*node.cast::<pg_sys::Var>()).varattno)?;
                (number > 0).then(|| number as usize - 1)
            };
            let columns = match &columns {
                None => (0..variables.len()).map(place).collect(),
                Some(columns) => columns.iter().map(|column| place((*column)?)).collect(),
            };
            collect(root, child, Some(columns), found);
        }
    }
}

/// Whether the planner has found that a relation gives no rows.
unsafe fn is_empty(relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: as for `leaves`; a path's tag tells its type. An empty relation has an Append of nothing.
    unsafe {
        let path = (*relation).cheapest_total_path;
        !path.is_null()
            && (*path).type_ == pg_sys::NodeTag::T_AppendPath
            && (*path.cast::<pg_sys::AppendPath>()).subpaths.is_null()
    }
}
