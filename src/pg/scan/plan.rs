//! SELECT is planned: the callbacks of the planner, and the plan that they make.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::read::pushdown::{keep_effective, names_owner};
use crate::cdf::read::Comparison;
use crate::cdf::resource::Role;
use crate::cdf::table::Table;
use crate::pg::compat;
use crate::pg::ddl::options;
use crate::pg::list::{integers, pointers};
use crate::pg::partition;
use crate::pg::plan::rights::check_planned;
use crate::pg::plan::system_columns;
use crate::pg::scan::estimate::{estimate, is_key, Estimate};
use crate::pg::scan::pushdown::{column_of, pushed, Pushed, PushedCondition};

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_rel_size(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid, || check_planned(root));
        system_columns::check_scan(root, baserel, foreigntableid, &table);
        if (*baserel).tuples < 0.0 {
            (*baserel).tuples = f64::from(table.options.resource.usual_rows);
        }
        pg_sys::set_baserel_size_estimates(root, baserel);
        (*baserel).rows = estimate(root, baserel, &table, (*baserel).baserestrictinfo).rows;
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_paths(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning; the callback's argument lives as long as the call.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid, || check_planned(root));
        let restrictions = (*baserel).baserestrictinfo;
        add_path(root, baserel, &estimate(root, baserel, &table, restrictions), (*baserel).lateral_relids);

        // Joined by key, as often as the other side has rows.
        let mut joins: Vec<*mut pg_sys::RestrictInfo> = pointers::<pg_sys::RestrictInfo>((*baserel).joininfo)
            .iter()
            .copied()
            .filter(|info| pg_sys::join_clause_is_movable_to(*info, baserel))
            .collect();
        if (*baserel).has_eclass_joins {
            for column in (0..table.bindings.len()).filter(|column| joins_by(&table, *column)) {
                let mut attribute = column as i32 + 1;
                let implied = pg_sys::generate_implied_equalities_for_column(
                    root,
                    baserel,
                    Some(is_column),
                    (&raw mut attribute).cast(),
                    (*baserel).lateral_referencers,
                );
                joins.extend(pointers::<pg_sys::RestrictInfo>(implied).iter());
            }
        }
        let mut seen: Vec<pg_sys::Relids> = Vec::new();
        for join in joins {
            let by_key = pushed(root, baserel, &table, (*join).clause)
                .is_some_and(|pushed| joins_by(&table, pushed.condition.column));
            if !by_key {
                continue;
            }
            let outer = pg_sys::bms_union((*join).clause_relids, (*baserel).lateral_relids);
            let outer = pg_sys::bms_del_member(outer, (*baserel).relid as i32);
            if outer.is_null()
                || pg_sys::bms_membership(outer) == pg_sys::BMS_Membership::BMS_EMPTY_SET
                || seen.iter().any(|other| pg_sys::bms_equal(*other, outer))
            {
                continue;
            }
            seen.push(outer);
            let parameters = pg_sys::get_baserel_parampathinfo(root, baserel, outer);
            let clauses = pg_sys::list_concat(
                pg_sys::list_copy((*parameters).ppi_clauses),
                pg_sys::list_copy(restrictions),
            );
            let mut estimate = estimate(root, baserel, &table, clauses);
            estimate.rows = (*parameters).ppi_rows.min(estimate.rows);
            (*parameters).ppi_rows = estimate.rows;
            add_path(root, baserel, &estimate, outer);
        }
    }
}

/// Whether few rows have the same value in a column, so that a join may ask for them alone.
pub fn joins_by(table: &Table, column: usize) -> bool {
    // Instances of several spaces may have one external id.
    let of_instances =
        table.options.resource.is_behind_view() && Some(column) == table.position_of(Role::ExternalId);
    of_instances || is_key(table, column) || names_owner(table, column)
}

/// Whether the member of an equivalence class is the column that `attribute` points to.
#[pg_guard]
unsafe extern "C-unwind" fn is_column(
    _root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    _class: *mut pg_sys::EquivalenceClass,
    member: *mut pg_sys::EquivalenceMember,
    attribute: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: the planner passes a member, and the argument that get_foreign_paths has given.
    unsafe {
        column_of((*member).em_expr, baserel).is_some_and(|at| at as i32 + 1 == *attribute.cast::<i32>())
    }
}

unsafe fn add_path(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    estimate: &Estimate,
    outer: pg_sys::Relids,
) {
    // SAFETY: the relation is being planned.
    unsafe {
        let path =
            compat::foreign_scan_path(root, baserel, estimate.rows, estimate.startup, estimate.total, outer);
        pg_sys::add_path(baserel, path.cast());
    }
}

/// The plan's private list: how many rows are probably enough (-1: all), the number of conditions, the number of those
/// whose values a join brings, three integers for each of the former, four for each of the latter, and the columns that are
/// needed. The conditions' values are the plan's expressions, in the same order. What a join brings is in the path's private
/// list.
#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_plan(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
    best_path: *mut pg_sys::ForeignPath,
    tlist: *mut pg_sys::List,
    scan_clauses: *mut pg_sys::List,
    outer_plan: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    // SAFETY: the planner passes the relation that it is planning, and its clauses as RestrictInfo nodes.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid, || check_planned(root));
        let scan_clauses = pg_sys::extract_actual_clauses(scan_clauses, false);
        let clauses = pointers::<pg_sys::Expr>(scan_clauses);
        let known: Vec<Pushed> =
            clauses.iter().filter_map(|clause| pushed(root, baserel, &table, *clause)).collect();
        let known = known.into_iter().map(|pushed| (pushed.condition, ValueSource::Clause(pushed)));
        let keys = joined_of(&integers((*best_path).fdw_private));
        let keys = keys.into_iter().map(|(key, condition)| (condition, ValueSource::Key(key)));
        let mut conditions: Vec<(PushedCondition, ValueSource)> = known.chain(keys).collect();
        keep_effective(&table, &mut conditions, |(condition, _)| (condition.column, condition.comparison()));
        let of_clauses =
            conditions.iter().filter(|(_, source)| matches!(source, ValueSource::Clause(_))).count();
        let brought = conditions.len() - of_clauses;
        conditions.sort_by_key(|(_, source)| matches!(source, ValueSource::Key(_)));

        // With rows dropped here, more are needed than the query gives.
        let exact = of_clauses == clauses.len()
            && conditions
                .iter()
                .all(|(_, source)| matches!(source, ValueSource::Clause(pushed) if pushed.exact));
        let limit = match (*root).limit_tuples {
            limit if exact && limit > 0.0 && (*(*root).parse).sortClause.is_null() => {
                limit.min(f64::from(i32::MAX)) as i32
            }
            _ => -1,
        };
        let mut private = append(std::ptr::null_mut(), limit);
        private = append(private, of_clauses as i32);
        private = append(private, brought as i32);
        let mut values = std::ptr::null_mut();
        for (condition, source) in &conditions {
            match source {
                ValueSource::Clause(pushed) => values = pg_sys::lappend(values, pushed.value.cast()),
                ValueSource::Key(key) => private = append(private, *key as i32),
            }
            for integer in condition.to_integers() {
                private = append(private, integer);
            }
        }
        let checked = checked_unchanged(root, baserel, table.bindings.len());
        for (column, shown) in needed(baserel, clauses, table.bindings.len()) {
            let flag = if shown || checked[column] { SHOWN } else { 0 };
            private = append(private, (column as i32) << 1 | flag);
        }
        pg_sys::make_foreignscan(
            tlist,
            scan_clauses,
            (*baserel).relid,
            values,
            private,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            outer_plan,
        )
    }
}

/// Where the value of a plan's condition comes from.
enum ValueSource {
    Clause(Pushed),
    /// A join brings it, as the key of this number.
    Key(usize),
}

unsafe fn append(list: *mut pg_sys::List, value: i32) -> *mut pg_sys::List {
    // SAFETY: the list is null or a list of integers.
    unsafe { pg_sys::lappend_int(list, value) }
}

/// The bit of a column in the plan's list that means that the value itself is needed, not only its row.
const SHOWN: i32 = 1;

/// Which columns are looked at although the query does not name them. Of rows that are to be updated it may be none: columns
/// that are not set stay as they are in CDF, whatever they hold.
unsafe fn checked_unchanged(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    columns: usize,
) -> Vec<bool> {
    let all = vec![true; columns];
    // SAFETY: the relation is being planned, so that it is locked.
    unsafe {
        let query = (*root).parse;
        if (*query).commandType != pg_sys::CmdType::CMD_UPDATE
            || !(*query).returningList.is_null()
            || !pg_sys::bms_is_member((*baserel).relid as i32, (*root).all_result_relids)
        {
            return all;
        }
        let entry = *(*root).simple_rte_array.add((*baserel).relid as usize);
        let relation = pg_sys::RelationIdGetRelation((*entry).relid);
        if relation.is_null() {
            return all;
        }
        let constraints = (*(*relation).rd_att).constr.as_ref();
        let computes = constraints.is_some_and(|all| all.num_check > 0 || all.has_generated_stored);
        let alone = !computes
            && (*relation).trigdesc.is_null()
            && partition::takes_all(relation)
            && (*query).withCheckOptions.is_null();
        let descriptor = pgrx::PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        let checked = |at: usize| !alone || descriptor.get(at).is_some_and(|column| column.attnotnull);
        let checked = (0..columns).map(checked).collect();
        pg_sys::RelationClose(relation);
        checked
    }
}

/// Positions of the columns that the query uses, and whether it names them: otherwise they are part of a whole row.
unsafe fn needed(
    baserel: *mut pg_sys::RelOptInfo,
    clauses: &[*mut pg_sys::Expr],
    columns: usize,
) -> Vec<(usize, bool)> {
    // SAFETY: the relation's target and clauses are expressions.
    unsafe {
        let mut used = std::ptr::null_mut();
        for expression in pointers::<pg_sys::Node>((*(*baserel).reltarget).exprs) {
            pg_sys::pull_varattnos(*expression, (*baserel).relid, &mut used);
        }
        for clause in clauses {
            pg_sys::pull_varattnos(clause.cast(), (*baserel).relid, &mut used);
        }
        let has = |attribute: i32| {
            pg_sys::bms_is_member(attribute - pg_sys::FirstLowInvalidHeapAttributeNumber, used)
        };
        // Attribute 0 is the whole row.
        let all = has(0);
        let named = |at: usize| has(at as i32 + 1);
        (0..columns).filter(|at| all || named(*at)).map(|at| (at, named(at))).collect()
    }
}

/// A path of a scan that a join asks for rows by their keys, one batch of keys after another. It is for that join alone:
/// without keys such a scan has no rows. `keys` are the conditions whose values the join brings, with the numbers of its keys.
///
/// # Safety
/// The relation is being planned.
pub unsafe fn path_by_keys(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    estimate: &Estimate,
    keys: &[(usize, PushedCondition)],
) -> *mut pg_sys::Path {
    // SAFETY: the caller's promise.
    unsafe {
        let none = std::ptr::null_mut();
        let path =
            compat::foreign_scan_path(root, baserel, estimate.rows, estimate.startup, estimate.total, none);
        for (key, condition) in keys {
            for integer in std::iter::once(*key as i32).chain(condition.to_integers()) {
                (*path).fdw_private = append((*path).fdw_private, integer);
            }
        }
        path.cast()
    }
}

fn conditions_of(integers: &[i32]) -> impl Iterator<Item = PushedCondition> + '_ {
    integers.chunks_exact(PushedCondition::INTEGERS).filter_map(PushedCondition::from_integers)
}

/// Integers that a list has for a condition whose value a join brings.
const JOINED: usize = PushedCondition::INTEGERS + 1;

/// The number of the join's key, and the condition.
fn joined_of(integers: &[i32]) -> Vec<(usize, PushedCondition)> {
    let joined = integers.chunks_exact(JOINED).filter_map(|integers| {
        Some((usize::try_from(integers[0]).ok()?, PushedCondition::from_integers(&integers[1..])?))
    });
    joined.collect()
}

/// The contents of a plan's private list.
pub struct ScanPlan {
    /// How many rows are probably enough.
    pub limit: Option<usize>,
    /// What is pushed down.
    pub conditions: Vec<PushedCondition>,
    /// The same, where a join brings the values: with the number of its key.
    pub joined: Vec<(usize, PushedCondition)>,
    /// Whether each column is needed.
    pub needed: Vec<bool>,
    /// Whether its value is.
    pub shown: Vec<bool>,
}

impl ScanPlan {
    /// # Safety
    /// `plan` was made by this module, for a table of so many columns.
    pub unsafe fn of(plan: *mut pg_sys::ForeignScan, columns: usize) -> ScanPlan {
        // SAFETY: the caller's promise.
        let private = unsafe { integers((*plan).fdw_private) };
        let (limit, count, brought) = (private[0], private[1] as usize, private[2] as usize);
        let (listed, rest) = private[3..].split_at(PushedCondition::INTEGERS * count);
        let (keys, used) = rest.split_at(JOINED * brought);
        let (mut needed, mut shown) = (vec![false; columns], vec![false; columns]);
        for column in used {
            needed[(column >> 1) as usize] = true;
            shown[(column >> 1) as usize] = column & SHOWN != 0;
        }
        ScanPlan {
            limit: usize::try_from(limit).ok(),
            conditions: conditions_of(listed).collect(),
            joined: joined_of(keys),
            needed,
            shown,
        }
    }

    /// The columns of all conditions, and how they are compared.
    pub fn compared(&self) -> Vec<(usize, Comparison)> {
        let joined = self.joined.iter().map(|(_, condition)| condition);
        let all = self.conditions.iter().chain(joined);
        all.map(|condition| (condition.column, condition.comparison())).collect()
    }
}
