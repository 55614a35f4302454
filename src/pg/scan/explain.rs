//! EXPLAIN: the requests that a statement would make. It makes none itself.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::explain;
use crate::cdf::read::Comparison;
use crate::cdf::table::{OnConflict, Operation, Table};
use crate::pg::ddl::options;
use crate::pg::encoding::encode_lossy;
use crate::pg::errors::OrRaise;
use crate::pg::list::{integers, pointers};
use crate::pg::modify::new_rows::{self, Asking};
use crate::pg::modify::plan::operation;
use crate::pg::plan::{conflict_condition, on_conflict};
use crate::pg::rights;
use crate::pg::scan::execute::{is_changed, statistics};
use crate::pg::scan::plan::ScanPlan;
use crate::pg::text::from_server_lossy;

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a scan that has begun, if only for it.
    unsafe { explain_scan(node, es, Operation::Upsert) }
}

/// What a scan would ask for, and what it would then do with what it finds.
///
/// # Safety
/// `node` is a scan that has begun, if only for EXPLAIN.
pub unsafe fn explain_scan(
    node: *mut pg_sys::ForeignScanState,
    es: *mut pg_sys::ExplainState,
    operation: Operation,
) {
    // SAFETY: the caller's promise; the scan's relation is open.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let user = rights::of_scan(plan, (*node).ss.ps.state);
        let (_, table) = options::table_definition((*node).ss.ss_currentRelation, user).or_raise();
        let planned = ScanPlan::of(plan, table.bindings.len());
        let conditions = planned.compared();
        let mut requests = Vec::from_iter(explain::definition(&table));
        let to_change = is_changed(plan, (*node).ss.ps.state);
        requests.extend(explain::scan(&table, &conditions, &planned.needed, to_change));
        if operation == Operation::Delete {
            let deletion = explain::modify(&table, operation).0.join(", ");
            requests.push(format!("{deletion} at COMMIT"));
        }
        text(es, c"CDF Requests", &requests.join(", "));
        newest_version(es, &table);

        let context = pg_sys::set_deparse_context_plan((*es).deparse_cxt, plan.cast(), std::ptr::null_mut());
        let values = pointers::<pg_sys::Node>((*plan).fdw_exprs);
        let deparse = |value: *mut pg_sys::Node| {
            from_server_lossy(pg_sys::deparse_expression(value, context, false, false))
        };
        let mut filters: Vec<String> = conditions
            .iter()
            .zip(values)
            .map(|((column, comparison), value)| {
                let name = &table.names[*column];
                // The pair that such a condition has as its value.
                if *comparison == Comparison::Member && (**value).type_ == pg_sys::NodeTag::T_ArrayExpr {
                    if let [key, value] =
                        pointers::<pg_sys::Node>((*(*value).cast::<pg_sys::ArrayExpr>()).elements)
                    {
                        return format!("(({name} ->> {}) = {})", deparse(*key), deparse(*value));
                    }
                }
                condition(name, *comparison, &deparse(*value))
            })
            .collect();
        filters.extend(planned.joined.iter().map(|(_, key)| {
            let value = match key.comparison() {
                Comparison::GreaterOrEqual => "least of the join",
                Comparison::LessOrEqual => "greatest of the join",
                _ => "keys of the join",
            };
            condition(&table.names[key.column], key.comparison(), value)
        }));
        if !filters.is_empty() {
            text(es, c"CDF Filter", &filters.join(" AND "));
        }
        if let Some(limit) = planned.limit {
            text(es, c"CDF Limit", &limit.to_string());
        }
        if let Some(statistics) = statistics(node).filter(|_| (*es).analyze) {
            let counted = |count: &AtomicU64| count.load(Ordering::Relaxed);
            number(es, c"CDF Requests Made", counted(&statistics.requests));
            number(es, c"CDF Pages Received", counted(&statistics.pages));
            number(es, c"CDF Rows Received", counted(&statistics.rows));
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_foreign_modify(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    fdw_private: *mut pg_sys::List,
    _subplan_index: std::ffi::c_int,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a statement that has begun, if only for it; its relation is open.
    unsafe {
        let user = rights::of_change(rinfo, (*mtstate).ps.state);
        let (_, table) = options::table_definition((*rinfo).ri_RelationDesc, user).or_raise();
        let operation = operation((*mtstate).operation);
        let (mut requests, rows) = explain::modify(&table, operation);
        let asking = new_rows::of_statement(mtstate, rinfo);
        let asked = match asking {
            Asking::Never | Asking::AtCommit => Vec::new(),
            asking => explain::existing(&table, asking == Asking::AtRow),
        };
        // Before the columns stands how many of the rows are changed.
        let listed = integers(fdw_private);
        let set = listed.iter().skip(1);
        let set: Vec<usize> = set.filter_map(|number| usize::try_from(*number - 1).ok()).collect();
        requests.splice(0..0, explain::comparison(&table, &set));
        let at_commit = format!("{} at COMMIT", requests.join(", "));
        let requests: Vec<String> =
            explain::definition(&table).into_iter().chain(asked).chain([at_commit]).collect();
        text(es, c"CDF Requests", &requests.join(", "));
        newest_version(es, &table);
        text(es, c"Rows per Request", &rows.to_string());
        if operation != Operation::Upsert {
            return;
        }
        let of_statement =
            on_conflict::of_statement(mtstate, rinfo, &table).map(|(on_conflict, _)| on_conflict);
        let on_conflict = match of_statement.unwrap_or(table.options.mode.on_conflict) {
            OnConflict::Update => "update",
            OnConflict::UpdateListed => "update some columns",
            OnConflict::Error => "error",
            OnConflict::Ignore => ignored(asking),
        };
        match conflict_condition::planned(mtstate) {
            None => text(es, c"Existing Rows", on_conflict),
            Some(_) => {
                let otherwise = ignored(asking);
                text(
                    es,
                    c"Existing Rows",
                    &format!("{on_conflict} where the condition holds, else {otherwise}"),
                )
            }
        }
    }
}

/// What becomes of a row that exists and is left as it is.
fn ignored(asking: Asking) -> &'static str {
    match asking {
        Asking::Never => "ignore",
        Asking::AtCommit => "ignore; found at COMMIT, they count as inserted",
        _ => "ignore, not counted",
    }
}

/// Names the version that the statement means, where the table leaves it to CDF.
///
/// # Safety
/// `es` is EXPLAIN's.
unsafe fn newest_version(es: *mut pg_sys::ExplainState, table: &Table) {
    if let (Some(view), Some(_)) = (&table.view, explain::definition(table)) {
        // SAFETY: the caller's promise.
        unsafe { text(es, c"CDF View", &view.name.to_string()) };
    }
}

fn condition(column: &str, comparison: Comparison, value: &str) -> String {
    let operator = match comparison {
        Comparison::AnyOf => return format!("({column} = ANY ({value}))"),
        Comparison::HasElement => return format!("({value} = ANY ({column}))"),
        Comparison::IsNull => return format!("({column} IS NULL)"),
        Comparison::IsNotNull => return format!("({column} IS NOT NULL)"),
        Comparison::Like => "~~",
        Comparison::StartsWith => "^@",
        Comparison::Contains => "@>",
        Comparison::Overlaps => "&&",
        Comparison::Equal | Comparison::Member => "=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    };
    format!("({column} {operator} {value})")
}

/// Adds a property to the report, in whichever format it is.
///
/// # Safety
/// The report is EXPLAIN's.
pub unsafe fn text(es: *mut pg_sys::ExplainState, label: &CStr, value: &str) {
    let value = encode_lossy(value);
    // SAFETY: the caller's promise; both texts are NUL-terminated.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es) }
}

/// As `text`, for a count.
///
/// # Safety
/// The report is EXPLAIN's.
pub unsafe fn number(es: *mut pg_sys::ExplainState, label: &CStr, value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    // SAFETY: the caller's promise; the label is NUL-terminated.
    unsafe { pg_sys::ExplainPropertyInteger(label.as_ptr(), std::ptr::null(), value, es) }
}
