//! `ctid`, `xmin`, `xmax`, `cmin`, `cmax`, which rows of a foreign table do not have.
//!
//! The executor would use the same value for each row: a condition on it would hold for all of them, and a DELETE by it
//! would empty the table. So a statement that uses one is refused when it is planned, whatever it does with it, and
//! through whatever view or parent it reaches the table. Only where a SELECT merely shows it, as tools that browse
//! tables do, it is NULL.

use pgrx::pg_sys;

use super::rights;
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::Table;
use crate::pg::compat::checked_as;
use crate::pg::ddl::options::open_table;
use crate::pg::errors::raise;
use crate::pg::list::pointers;
use crate::pg::ours;
use crate::pg::scan::key_text;
use crate::pg::text::relation_name;

/// `tableoid` is not among them: it is known.
const NUMBERS: [(i32, &str); 5] = [
    (pg_sys::SelfItemPointerAttributeNumber, "ctid"),
    (pg_sys::MinTransactionIdAttributeNumber, "xmin"),
    (pg_sys::MinCommandIdAttributeNumber, "cmin"),
    (pg_sys::MaxTransactionIdAttributeNumber, "xmax"),
    (pg_sys::MaxCommandIdAttributeNumber, "cmax"),
];

/// Says that there is no such column, and which columns identify rows.
///
/// # Safety
/// `relid` is a table.
unsafe fn refuse(relid: pg_sys::Oid, table: Option<&Table>, what: &str) -> ! {
    let name = relation_name(relid);
    let keys = table.map_or(&[] as &[usize], Table::keys);
    let keys: Vec<&str> = keys.iter().map(|at| table.map_or("", |table| &*table.names[*at])).collect();
    let error = Error::new(
        Kind::Unsupported,
        format!("cannot use {what} of foreign table \"{name}\", whose rows are CDF's and have none"),
    )
    .detail(
        "It would be the same for all rows, so that a condition on it would be fulfilled by each of them.",
    );
    raise(if keys.is_empty() {
        error.hint("The table has no key that would tell its rows apart.")
    } else {
        error.hint(format!("Rows are told apart by the key: {}.", keys.join(", ")))
    })
}

fn column(name: &str) -> String {
    format!("system column \"{name}\"")
}

/// Returns the system columns of a range table entry that an expression, or a list of them, mentions.
///
/// # Safety
/// `node` is null or an expression.
unsafe fn mentioned(node: *mut pg_sys::Node, entry: pg_sys::Index) -> pg_sys::Relids {
    let mut found = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe { pg_sys::pull_varattnos(node, entry, &mut found) };
    found
}

/// # Safety
/// The set comes from [`mentioned`].
unsafe fn has(set: pg_sys::Relids, number: i32) -> bool {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::bms_is_member(number - pg_sys::FirstLowInvalidHeapAttributeNumber, set) }
}

/// Returns the first that an expression mentions.
///
/// # Safety
/// As for [`mentioned`].
unsafe fn first(node: *mut pg_sys::Node, entry: pg_sys::Index) -> Option<&'static str> {
    // SAFETY: the caller's promise.
    unsafe {
        let set = mentioned(node, entry);
        NUMBERS.iter().find(|(number, _)| has(set, *number)).map(|(_, name)| *name)
    }
}

/// Returns the system column that an expression is, and its table's range table entry.
///
/// # Safety
/// `expression` is null or a node.
unsafe fn plain(expression: *mut pg_sys::Expr) -> Option<(pg_sys::Index, i32)> {
    // SAFETY: the caller's promise; a node's tag tells its type.
    unsafe {
        if expression.is_null() || (*expression).type_ != pg_sys::NodeTag::T_Var {
            return None;
        }
        let variable = expression.cast::<pg_sys::Var>();
        let number = i32::from((*variable).varattno);
        NUMBERS
            .iter()
            .any(|(known, _)| *known == number)
            .then_some(((*variable).varno as pg_sys::Index, number))
    }
}

/// Refuses a scan that needs a system column, and shows NULL where it is only shown.
///
/// PostgreSQL plans a scan for each foreign table that a statement reads when the conditions on it and its needed
/// columns are known. So this sees everything in a query except what it says of the rows that it writes.
///
/// # Safety
/// The planner is planning the relation, and knows its conditions.
pub unsafe fn check_scan(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    relid: pg_sys::Oid,
    table: &Table,
) {
    // SAFETY: the caller's promise; targets are expressions, conditions RestrictInfo nodes.
    unsafe {
        let entry = (*baserel).relid;
        for condition in pointers::<pg_sys::RestrictInfo>((*baserel).baserestrictinfo) {
            let clause = (**condition).clause;
            if (*clause).type_ == pg_sys::NodeTag::T_CurrentOfExpr {
                refuse(relid, Some(table), "the position of a cursor (WHERE CURRENT OF)");
            }
            if let Some(name) = first(clause.cast(), entry) {
                refuse(relid, Some(table), &column(name));
            }
        }
        // PostgreSQL 17 makes none of these for a condition that it takes for true, such as that a system column is not
        // NULL.
        if let Some(named) = named(root, baserel) {
            if let Some(name) = first((*(*root).parse).jointree.cast(), (*named).relid) {
                refuse(relid, Some(table), &column(name));
            }
        }
        let mut shown = Vec::new();
        for (at, target) in pointers::<pg_sys::Expr>((*(*baserel).reltarget).exprs).iter().enumerate() {
            let Some(name) = first((*target).cast(), entry) else { continue };
            match plain(*target).map(|(_, number)| usage(root, baserel, number)) {
                Some(Usage::Shown(named)) => shown.push((at, named)),
                Some(Usage::RowMark) => {}
                None | Some(Usage::Other) => refuse(relid, Some(table), &column(name)),
            }
        }
        // From the end, so that removing one does not move those before it.
        for (at, named) in shown.into_iter().rev() {
            show_null(root, baserel, named, at);
        }
    }
}

/// What a query does with a system column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// It is in the output of the outermost SELECT, unchanged, of the table that the query names. The foreign table may
    /// be a partition of that one; then it is NULL for all rows.
    Shown(*mut pg_sys::RelOptInfo),
    /// PostgreSQL itself needs it, to lock rows of a parent's other tables, and never looks at that of a foreign table.
    /// Or this extension needs it, to find a row again ([`key_text`]).
    RowMark,
    Other,
}

/// Returns the table that the query names: the foreign table, or one that it is a partition of. None if that is no
/// table but a part of UNION ALL, whose output the query may use in any way.
///
/// # Safety
/// The planner is planning the relation.
unsafe fn named(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
) -> Option<*mut pg_sys::RelOptInfo> {
    // SAFETY: the caller's promise; the planner's arrays are indexed by range table entry.
    unsafe {
        let mut named = baserel;
        while (*named).reloptkind != pg_sys::RelOptKind::RELOPT_BASEREL {
            let parent =
                (*(*root).append_rel_array.add((*named).relid as usize)).as_ref()?.parent_relid as usize;
            if (**(*root).simple_rte_array.add(parent)).rtekind != pg_sys::RTEKind::RTE_RELATION {
                return None;
            }
            named = *(*root).simple_rel_array.add(parent);
            if named.is_null() {
                return None;
            }
        }
        Some(named)
    }
}

/// # Safety
/// The planner is planning the relation, and needs the column of it.
unsafe fn usage(root: *mut pg_sys::PlannerInfo, baserel: *mut pg_sys::RelOptInfo, number: i32) -> Usage {
    // SAFETY: the caller's promise.
    unsafe {
        // The planner records for this table which columns are needed, and for what.
        let Some(named) = named(root, baserel) else { return Usage::Other };
        let query = (*root).parse;
        let needed = *(*named).attr_needed.add((number - i32::from((*named).min_attr)) as usize);
        if !pg_sys::bms_is_subset(needed, pg_sys::bms_make_singleton(0))
            || has(mentioned((*query).havingQual, (*named).relid), number)
        {
            return Usage::Other;
        }
        let outermost = (*root).query_level == 1
            && (*root).parent_root.is_null()
            && (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).setOperations.is_null()
            // A query that locks rows and asks for their place means to change them by it.
            && (*query).rowMarks.is_null();
        let mut usage =
            if key_text::may_be_target(root, baserel) { Usage::RowMark } else { Usage::Shown(named) };
        for target in pointers::<pg_sys::TargetEntry>((*root).processed_tlist) {
            if !has(mentioned((**target).expr.cast(), (*named).relid), number) {
                continue;
            }
            if plain((**target).expr) != Some(((*named).relid, number)) {
                return Usage::Other;
            }
            if is_row_mark(root, *target) || key_text::is_target(*target) {
                usage = Usage::RowMark;
            } else if !outermost || (**target).resjunk || (**target).ressortgroupref != 0 {
                return Usage::Other;
            }
        }
        usage
    }
}

/// Whether PostgreSQL has added a target itself, to lock rows by it.
///
/// # Safety
/// The target is one of the query that is being planned.
unsafe fn is_row_mark(root: *mut pg_sys::PlannerInfo, target: *mut pg_sys::TargetEntry) -> bool {
    // SAFETY: the caller's promise; the names of targets are NUL-terminated.
    unsafe {
        let Some(name) = (*target).resname.as_ref().filter(|_| (*target).resjunk) else { return false };
        let name = std::ffi::CStr::from_ptr(name).to_bytes();
        pointers::<pg_sys::PlanRowMark>((*root).rowMarks)
            .iter()
            .any(|mark| name == format!("ctid{}", (**mark).rowmarkId).as_bytes())
    }
}

/// Shows NULL in the output instead of a column, which is then no longer needed. `named` is the table that the query
/// names, `at` the column's place among the scan's targets.
///
/// # Safety
/// The planner is planning the query's scans, and has not yet decided how the output is computed.
unsafe fn show_null(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    named: *mut pg_sys::RelOptInfo,
    at: usize,
) {
    // SAFETY: the caller's promise; the target is a column.
    unsafe {
        let reltarget = (*baserel).reltarget;
        let target = &mut pointers::<pg_sys::Expr>((*reltarget).exprs)[at];
        let Some((_, number)) = plain(*target) else { return };
        let variable = target.cast::<pg_sys::Var>();
        let null = || {
            pg_sys::makeNullConst((*variable).vartype, (*variable).vartypmod, (*variable).varcollid).cast()
        };
        for output in pointers::<pg_sys::TargetEntry>((*root).processed_tlist) {
            if plain((**output).expr) == Some(((*named).relid, number)) {
                (**output).expr = null();
            }
        }
        // So that no join passes it on.
        *(*named).attr_needed.add((number - i32::from((*named).min_attr)) as usize) = std::ptr::null_mut();
        if std::ptr::eq(named, baserel) {
            (*reltarget).exprs = pg_sys::list_delete_nth_cell((*reltarget).exprs, at as i32)
        } else {
            // The partitions of a table have the same targets in the same order.
            *target = null()
        }
    }
}

/// Refuses system columns in what a plan evaluates on the rows that it writes: RETURNING, and the checks of views and
/// policies.
///
/// # Safety
/// The plan is under construction; `entry` is its table at that position.
pub unsafe fn check_written(
    plan: *mut pg_sys::ModifyTable,
    entry: pg_sys::Index,
    position: usize,
    relid: pg_sys::Oid,
    table: &Table,
) {
    // SAFETY: the caller's promise; both are lists of lists, one for each table.
    unsafe {
        for lists in [(*plan).returningLists, (*plan).withCheckOptionLists] {
            let list = pointers::<pg_sys::Node>(lists).get(position);
            if let Some(name) = list.and_then(|list| first(*list, entry)) {
                refuse(relid, Some(table), &column(name));
            }
        }
    }
}

/// Refuses `INSERT … RETURNING ctid` of a partitioned table that has partitions of this extension: which of them get
/// rows is not known in advance.
///
/// # Safety
/// `query` is an analysed query.
pub unsafe fn check_inserted(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise; lists hold what the analysis puts there.
    unsafe {
        for common in pointers::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (**common).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                check_inserted(inner.cast());
            }
        }
        let entry = (*query).resultRelation as pg_sys::Index;
        if (*query).commandType != pg_sys::CmdType::CMD_INSERT || (*query).returningList.is_null() {
            return;
        }
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        let Some(target) = entries.get(entry as usize - 1) else { return };
        let Some(name) = first((*query).returningList.cast(), entry) else { return };
        let relid = (**target).relid;
        if !ours::is_table(relid) {
            return;
        }
        let foreign = pg_sys::get_rel_relkind(relid) as u8 == pg_sys::RELKIND_FOREIGN_TABLE;
        let table =
            foreign.then(|| open_table(relid, checked_as(query, *target), || rights::check_query(query)));
        refuse(relid, table.as_ref(), &column(name));
    }
}

/// As [`check_inserted`], for a statement that was planned before the library was loaded.
///
/// # Safety
/// Both belong to a statement that begins, and the row goes to the table of `rinfo`.
pub unsafe fn check_routed(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    table: &Table,
) {
    // SAFETY: the caller's promise. RETURNING of a partition refers to the first table that the plan changes.
    unsafe {
        let returning = (*rinfo).ri_returningList;
        let first_table = (*mtstate).resultRelInfo;
        if returning.is_null() || first_table.is_null() {
            return;
        }
        if let Some(name) = first(returning.cast(), (*first_table).ri_RangeTableIndex) {
            refuse((*(*rinfo).ri_RelationDesc).rd_id, Some(table), &column(name));
        }
    }
}
