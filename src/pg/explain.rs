//! EXPLAIN: the requests that a statement would make. It makes none itself.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::errors::OrRaise;
use super::list::pointers;
use super::scan::{self, ScanPlan};
use super::{modify, options};
use crate::cdf::explain;
use crate::cdf::read::Comparison;
use crate::cdf::table::OnConflict;

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a scan that has begun, if only for it; its relation is open.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let user = scan::acting_user(plan, (*node).ss.ps.state);
        let (_, table) = options::table_definition((*node).ss.ss_currentRelation, user).or_raise();
        let planned = ScanPlan::of(plan, table.bindings.len());
        let conditions: Vec<(usize, Comparison)> =
            planned.conditions.iter().map(|condition| (condition.column, condition.comparison())).collect();
        text(es, c"CDF Requests", &explain::scan(&table, &conditions, &planned.needed).join(", "));

        let context = pg_sys::set_deparse_context_plan((*es).deparse_cxt, plan.cast(), std::ptr::null_mut());
        let values = pointers::<pg_sys::Node>((*plan).fdw_exprs);
        let filters: Vec<String> = conditions
            .iter()
            .zip(values)
            .map(|((column, comparison), value)| {
                let value = pg_sys::deparse_expression(*value, context, false, false);
                let value = CStr::from_ptr(value).to_string_lossy();
                condition(&table.names[*column], *comparison, &value)
            })
            .collect();
        if !filters.is_empty() {
            text(es, c"CDF Filter", &filters.join(" AND "));
        }
        if let Some(limit) = planned.limit {
            text(es, c"CDF Limit", &limit.to_string());
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_foreign_modify(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    _fdw_private: *mut pg_sys::List,
    _subplan_index: std::ffi::c_int,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a statement that has begun, if only for it; its relation is open.
    unsafe {
        let user = modify::acting_user(rinfo, (*mtstate).ps.state);
        let (_, table) = options::table_definition((*rinfo).ri_RelationDesc, user).or_raise();
        let (request, rows) = explain::insert(&table);
        text(es, c"CDF Requests", &format!("{request} at COMMIT"));
        text(es, c"Rows per Request", &rows.to_string());
        let on_conflict = match table.options.mode.on_conflict {
            OnConflict::Update => "update",
            OnConflict::Error => "error",
            OnConflict::Ignore => "ignore",
        };
        text(es, c"Existing Rows", on_conflict);
    }
}

fn condition(column: &str, comparison: Comparison, value: &str) -> String {
    let operator = match comparison {
        Comparison::AnyOf => return format!("({column} = ANY ({value}))"),
        Comparison::Equal => "=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    };
    format!("({column} {operator} {value})")
}

/// Adds a property to the report, in whichever format it is.
unsafe fn text(es: *mut pg_sys::ExplainState, label: &CStr, value: &str) {
    let value = CString::new(value.replace('\0', "")).unwrap_or_default();
    // SAFETY: the report is EXPLAIN's, and both texts are NUL-terminated.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es) }
}
