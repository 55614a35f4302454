//! The planner's hook: the joins that are made by key, as PostgreSQL's planner may choose them.

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::kind::JoinKind;
use super::leaves::{leaves, Leaf};
use super::path::JoinPath;
use super::plan::JoinKey;
use crate::cdf::read::pushdown::{is_place, keys_per_request};
use crate::cdf::read::Comparison;
use crate::cdf::resource::Role;
use crate::cdf::table::Table;
use crate::pg::list::pointers;
use crate::pg::scan::estimate::{estimate_by_keys, Estimate};
use crate::pg::scan::plan::{joins_by, path_by_keys};
use crate::pg::scan::pushdown::{column_of, compared, OperandType, PushedCondition};

static PREVIOUS: OnceLock<pg_sys::set_join_pathlist_hook_type> = OnceLock::new();

/// Installs the hook. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called on.
    unsafe {
        PREVIOUS.get_or_init(|| pg_sys::set_join_pathlist_hook);
        pg_sys::set_join_pathlist_hook = Some(set_join_pathlist);
    }
}

/// Has no guard of its own: an error of another extension's hook goes over this frame, which has nothing in it that would
/// have to be dropped.
unsafe extern "C-unwind" fn set_join_pathlist(
    root: *mut pg_sys::PlannerInfo,
    joinrel: *mut pg_sys::RelOptInfo,
    outerrel: *mut pg_sys::RelOptInfo,
    innerrel: *mut pg_sys::RelOptInfo,
    jointype: pg_sys::JoinType::Type,
    extra: *mut pg_sys::JoinPathExtraData,
) {
    // SAFETY: PostgreSQL passes two relations that it is planning to join.
    unsafe {
        if let Some(previous) = PREVIOUS.get().copied().flatten() {
            previous(root, joinrel, outerrel, innerrel, jointype, extra);
        }
        propose(root, joinrel, outerrel, innerrel, jointype, extra);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn propose(
    root: *mut pg_sys::PlannerInfo,
    joinrel: *mut pg_sys::RelOptInfo,
    outerrel: *mut pg_sys::RelOptInfo,
    innerrel: *mut pg_sys::RelOptInfo,
    jointype: pg_sys::JoinType::Type,
    extra: *mut pg_sys::JoinPathExtraData,
) {
    // SAFETY: as for `set_join_pathlist`.
    unsafe {
        let Some(kind) = JoinKind::of(jointype) else { return };
        // What depends on rows of a third table is left to PostgreSQL's nested loops.
        let independent = |relation: *mut pg_sys::RelOptInfo| is_nothing((*relation).lateral_relids);
        if ![joinrel, outerrel, innerrel].into_iter().all(independent) {
            return;
        }
        let leaves = leaves(root, innerrel);
        if leaves.is_empty() {
            return;
        }
        let clauses = pointers::<pg_sys::RestrictInfo>((*extra).restrictlist);
        // A condition on no table at all is not checked by what stands for a join.
        if clauses.iter().any(|info| (**info).pseudoconstant) {
            return;
        }
        let of_join =
            |info: &&mut *mut pg_sys::RestrictInfo| !kind.is_outer() || !is_pushed_down(**info, joinrel);
        let mut keys: Vec<(PushedCondition, JoinKey)> = clauses
            .iter_mut()
            .filter(of_join)
            .filter_map(|info| key(root, outerrel, innerrel, *info))
            .collect();
        let Some(main) = main_key(&leaves, &keys) else { return };
        let main = keys.swap_remove(main);
        let is_range =
            |condition: &PushedCondition| leaves.iter().any(|leaf| range(leaf, condition).is_some());
        let (ranges, keys): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(condition, _)| is_range(condition));
        let second = keys
            .into_iter()
            .find(|(condition, _)| leaves.iter().any(|leaf| is_space(leaf, condition.column)));
        let keys: Vec<(PushedCondition, JoinKey)> = std::iter::once(main).chain(second).collect();

        let Some(outer) = outer_path(root, outerrel, jointype, (*extra).sjinfo) else { return };
        let per_batch = leaves.iter().filter_map(|leaf| leaf.table.as_ref()).map(keys_per_batch).min();
        let Some(per_batch) = per_batch else { return };
        let inner = inner_path(root, innerrel, &leaves, &keys, &ranges, per_batch, (*outer).rows);
        let Some((inner, cost)) = inner else { return };
        let sides = |keys: Vec<(PushedCondition, JoinKey)>| keys.into_iter().map(|(_, key)| key).collect();
        let path = JoinPath { kind, per_batch, keys: sides(keys), ranges: sides(ranges) };
        let path = path.make(joinrel, outer, inner, (*extra).restrictlist, cost);
        pg_sys::add_path(joinrel, path);
    }
}

fn is_nothing(relids: pg_sys::Relids) -> bool {
    // SAFETY: a set of relations, which may be null.
    relids.is_null() || unsafe { pg_sys::bms_membership(relids) } == pg_sys::BMS_Membership::BMS_EMPTY_SET
}

/// Whether a condition of an outer join is one on its result.
unsafe fn is_pushed_down(info: *mut pg_sys::RestrictInfo, joinrel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller passes a condition of the join.
    unsafe { (*info).is_pushed_down || !pg_sys::bms_is_subset((*info).required_relids, (*joinrel).relids) }
}

/// A condition that compares a column of the inner side with values of the outer side, as keys are compared.
unsafe fn key(
    root: *mut pg_sys::PlannerInfo,
    outerrel: *mut pg_sys::RelOptInfo,
    innerrel: *mut pg_sys::RelOptInfo,
    info: *mut pg_sys::RestrictInfo,
) -> Option<(PushedCondition, JoinKey)> {
    // SAFETY: the caller passes a condition of a join of the two relations; a node's tag tells its type.
    unsafe {
        let clause = (*info).clause;
        if (*clause).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        let (condition, value) = compared(root, innerrel, clause)?;
        let relations = pg_sys::pull_varnos(root, value.cast());
        if condition.comparison() != Comparison::Equal
            || is_nothing(relations)
            || !pg_sys::bms_is_subset(relations, (*outerrel).relids)
        {
            return None;
        }
        let sides = pointers::<pg_sys::Expr>((*clause.cast::<pg_sys::OpExpr>()).args);
        let column = sides.iter().copied().find(|side| column_of(*side, innerrel).is_some())?;
        let column_type = OperandType::of_key(column)?;
        (condition.operand().is_of_keys() || condition.operand() == OperandType::Timestamp)
            .then_some((condition, JoinKey { value, value_type: condition.operand(), column, column_type }))
    }
}

/// Which of the keys rows are asked for by: an id before an external id, as the reader of a table chooses.
fn main_key(leaves: &[Leaf], keys: &[(PushedCondition, JoinKey)]) -> Option<usize> {
    let is_key = |condition: &PushedCondition| leaves.iter().any(|leaf| by_key(leaf, condition).is_some());
    let is_id = |condition: &PushedCondition| {
        leaves.iter().any(|leaf| {
            let id = leaf.table.as_ref().and_then(|table| table.position_of(Role::Id));
            id.is_some() && id == leaf.column(condition.column)
        })
    };
    let candidates = keys.iter().enumerate().filter(|(_, (condition, _))| is_key(condition));
    candidates.min_by_key(|(_, (condition, _))| !is_id(condition)).map(|(at, _)| at)
}

/// The condition that a table is asked by for keys that are compared with such a column.
fn by_key(leaf: &Leaf, condition: &PushedCondition) -> Option<PushedCondition> {
    let (table, column) = (leaf.table.as_ref()?, leaf.column(condition.column)?);
    let condition = condition.with(column, Comparison::AnyOf);
    (joins_by(table, column) && condition.operand().is_of_keys() && condition.is_asked_of(table))
        .then_some(condition)
}

/// The conditions that a table is asked by for a range of values that are compared with such a column.
fn range(leaf: &Leaf, condition: &PushedCondition) -> Option<[PushedCondition; 2]> {
    let (table, column) = (leaf.table.as_ref()?, leaf.column(condition.column)?);
    let bounds = [Comparison::GreaterOrEqual, Comparison::LessOrEqual];
    let bounds = bounds.map(|comparison| condition.with(column, comparison));
    (is_place(table, column) && bounds.iter().all(|bound| bound.is_asked_of(table))).then_some(bounds)
}

/// Whether a column of the joined relation is the space of instances, which belongs to their keys.
fn is_space(leaf: &Leaf, column: usize) -> bool {
    let Some(table) = &leaf.table else { return false };
    let space = table.position_of(Role::Space);
    table.options.resource.is_behind_view() && space.is_some() && space == leaf.column(column)
}

/// Keys that are asked for together. RAW has no request for several, but a list of all rows where they are many: once, not
/// once for each batch.
fn keys_per_batch(table: &Table) -> usize {
    match keys_per_request(table) {
        1 => i32::MAX as usize,
        many => many,
    }
}

/// How many different values an expression probably has in so many rows.
unsafe fn different(root: *mut pg_sys::PlannerInfo, value: *mut pg_sys::Expr, rows: f64) -> f64 {
    // SAFETY: the caller passes an expression of a join that is being planned.
    unsafe {
        let values = pg_sys::lappend(std::ptr::null_mut(), value.cast());
        pg_sys::estimate_num_groups(root, values, rows, std::ptr::null_mut(), std::ptr::null_mut())
    }
}

/// The path of the outer side, whose rows must each be different where the join is in place of one with any of them.
unsafe fn outer_path(
    root: *mut pg_sys::PlannerInfo,
    outerrel: *mut pg_sys::RelOptInfo,
    jointype: pg_sys::JoinType::Type,
    special: *mut pg_sys::SpecialJoinInfo,
) -> Option<*mut pg_sys::Path> {
    // SAFETY: the caller passes a relation whose paths are known.
    unsafe {
        let mut path = (*outerrel).cheapest_total_path;
        if path.is_null() || !(*path).param_info.is_null() {
            return None;
        }
        if jointype == pg_sys::JoinType::JOIN_UNIQUE_OUTER {
            path = pg_sys::create_unique_path(root, outerrel, path, special).cast();
        }
        (!path.is_null()).then_some(path)
    }
}

/// The path of the inner side for one batch, and what all batches cost; None if no table can be asked by key.
unsafe fn inner_path(
    root: *mut pg_sys::PlannerInfo,
    innerrel: *mut pg_sys::RelOptInfo,
    leaves: &[Leaf],
    keys: &[(PushedCondition, JoinKey)],
    ranges: &[(PushedCondition, JoinKey)],
    per_batch: usize,
    outer_rows: f64,
) -> Option<(*mut pg_sys::Path, Estimate)> {
    // SAFETY: the caller passes relations that are being planned.
    unsafe {
        let batches = (outer_rows / per_batch as f64).ceil().max(1.0);
        let mut all = Estimate { rows: 0.0, startup: 0.0, total: 0.0 };
        let mut paths = std::ptr::null_mut();
        for leaf in leaves {
            let mut conditions: Vec<(usize, PushedCondition)> = keys
                .iter()
                .enumerate()
                .filter_map(|(number, (condition, _))| {
                    let space = is_space(leaf, condition.column);
                    let place = leaf.column(condition.column).filter(|_| space);
                    let space = place.map(|column| condition.with(column, Comparison::AnyOf));
                    Some((number, by_key(leaf, condition).or(space)?))
                })
                .collect();
            for (number, (condition, _)) in ranges.iter().enumerate() {
                let bounds = range(leaf, condition).into_iter().flatten();
                conditions.extend(bounds.map(|bound| (number, bound)));
            }
            let is_main = |(number, condition): &(usize, PushedCondition)| {
                *number == 0 && condition.comparison() == Comparison::AnyOf
            };
            let path = match &leaf.table {
                Some(table) if conditions.iter().any(is_main) => {
                    // Staged keys are usually different, but for those of what many staged rows belong to.
                    let wanted = match table.options.resource.owner {
                        None => outer_rows,
                        Some(_) => different(root, keys[0].1.value, outer_rows),
                    };
                    let cost = estimate_by_keys(root, leaf.relation, table, wanted);
                    all.rows += cost.rows;
                    all.startup += cost.startup;
                    all.total += cost.total;
                    let one = estimate_by_keys(root, leaf.relation, table, wanted.min(per_batch as f64));
                    path_by_keys(root, leaf.relation, &one, &conditions)
                }
                // Read as a whole, for each batch anew.
                _ => {
                    let path = (*leaf.relation).cheapest_total_path;
                    if path.is_null() || !(*path).param_info.is_null() {
                        return None;
                    }
                    all.rows += (*path).rows;
                    all.startup += (*path).startup_cost;
                    all.total += (*path).total_cost * batches;
                    path
                }
            };
            if std::ptr::eq(leaf.relation, innerrel) {
                return Some((path, all));
            }
            paths = pg_sys::lappend(paths, path.cast());
        }
        let (unordered, outer) = (std::ptr::null_mut(), std::ptr::null_mut());
        let partial = std::ptr::null_mut();
        let path =
            pg_sys::create_append_path(root, innerrel, paths, partial, unordered, outer, 0, false, -1.0);
        Some((path.cast(), all))
    }
}
