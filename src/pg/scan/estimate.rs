//! Estimates of a scan's rows and cost.

use pgrx::pg_sys;

use super::pushdown::pushed;
use crate::cdf::read::pushdown::{keys_per_request, names_owner};
use crate::cdf::read::Comparison;
use crate::cdf::resource::Role;
use crate::cdf::table::{Binding, Table};
use crate::pg::list::pointers;

/// The cost of a request, in units of a sequential page read: some ten milliseconds.
const REQUEST_COST: f64 = 100.0;
/// The cost of a received row, in units of a local table's row.
const RECEIVED_ROW: f64 = 10.0;
/// How many times cheaper a request for keys is taken to be where nobody knows how many rows the table has: a list of all
/// might take any number of requests, while the keys are known to be few.
const UNKNOWN: f64 = 10.0;
/// The assumed number of what rows belong to: series with points, sequences with rows.
const OWNERS: f64 = 200.0;
/// The assumed number of keys in a list that is not known yet.
const LISTED_KEYS: f64 = 10.0;

/// Whether a column tells rows apart by itself.
pub fn is_key(table: &Table, column: usize) -> bool {
    match &table.bindings[column] {
        // Rows of several RAW tables may have one key, but few have.
        Some(Binding::Column(column)) => {
            column.role == Role::RawKey || table.options.resource.keys.contains(&[column.role].as_slice())
        }
        Some(Binding::RawColumn { key, .. }) => *key,
        Some(Binding::Property { .. }) | None => false,
    }
}

/// Rows and cost of a scan with some clauses.
pub struct Estimate {
    pub rows: f64,
    pub startup: f64,
    pub total: f64,
}

/// Estimates a scan with these clauses, as RestrictInfo nodes.
///
/// # Safety
/// The relation is being planned, its size estimates are set, and the clauses are on it.
pub unsafe fn estimate(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    table: &Table,
    clauses: *mut pg_sys::List,
) -> Estimate {
    // SAFETY: the caller's promise.
    unsafe {
        let selectivity = |clauses| {
            pg_sys::clauselist_selectivity(
                root,
                clauses,
                0,
                pg_sys::JoinType::JOIN_INNER,
                std::ptr::null_mut(),
            )
        };
        let mut sent = std::ptr::null_mut();
        let mut keys: Option<f64> = None;
        let mut names_owners = table.options.resource.owner.is_none();
        for info in pointers::<pg_sys::RestrictInfo>(clauses) {
            let Some(found) = pushed(root, baserel, table, (**info).clause) else {
                continue;
            };
            sent = pg_sys::lappend(sent, (*info).cast());
            names_owners |= names_owner(table, found.condition.column);
            if is_key(table, found.condition.column) {
                let many = match found.condition.comparison() {
                    Comparison::Equal => 1.0,
                    Comparison::AnyOf => listed(found.value),
                    _ => continue,
                };
                keys = Some(keys.map_or(many, |other: f64| other.min(many)));
            }
        }
        let tuples = (*baserel).tuples.max(1.0);
        let rows = pg_sys::clamp_row_est(keys.unwrap_or(tuples * selectivity(clauses)));
        let received = pg_sys::clamp_row_est(keys.unwrap_or(tuples * selectivity(sent)));
        let resource = table.options.resource;
        let mut requests = (received / resource.per_page as f64).ceil().max(1.0);
        // All that rows may belong to is listed, and then asked for its rows.
        if !names_owners {
            requests += 1.0 + (OWNERS / keys_per_request(table) as f64).ceil();
        }
        // RAW is asked for one row at a time.
        if let Some(keys) = keys.filter(|_| resource.is_in_raw_tables()) {
            requests = keys;
        }
        let local = &(*baserel).baserestrictcost;
        let startup = REQUEST_COST + local.startup;
        let per_row = pg_sys::cpu_tuple_cost * RECEIVED_ROW + local.per_tuple;
        Estimate { rows, startup, total: startup + (requests - 1.0) * REQUEST_COST + received * per_row }
    }
}

/// Estimates all that a join asks for by the keys of so many rows of its other side.
///
/// # Safety
/// The relation is being planned, and its size estimates are set.
pub unsafe fn estimate_by_keys(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    table: &Table,
    keys: f64,
) -> Estimate {
    // SAFETY: the caller's promise.
    unsafe {
        let tuples = (*baserel).tuples.max(1.0);
        let resource = table.options.resource;
        let analyzed = was_analyzed(root, baserel);
        let of_one = match resource.owner {
            None => 1.0,
            Some(_) if analyzed => (tuples / OWNERS).max(1.0),
            Some(_) => (tuples / OWNERS / UNKNOWN).max(1.0),
        };
        let rows = pg_sys::clamp_row_est((keys * of_one).min(tuples));
        let request = if analyzed { REQUEST_COST } else { REQUEST_COST / UNKNOWN };
        let mut requests = (keys / keys_per_request(table) as f64).ceil().max(1.0);
        if resource.owner.is_some() {
            requests = requests.max((rows / resource.per_page as f64).ceil());
        }
        let local = &(*baserel).baserestrictcost;
        let startup = request + local.startup;
        let per_row = pg_sys::cpu_tuple_cost * RECEIVED_ROW + local.per_tuple;
        Estimate { rows, startup, total: startup + (requests - 1.0) * request + rows * per_row }
    }
}

/// Whether it is known how many rows a table has.
unsafe fn was_analyzed(root: *mut pg_sys::PlannerInfo, baserel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller passes a table that is being planned, so that it is locked.
    unsafe {
        let entry = *(*root).simple_rte_array.add((*baserel).relid as usize);
        let relation = pg_sys::RelationIdGetRelation((*entry).relid);
        if relation.is_null() {
            return false;
        }
        let known = (*(*relation).rd_rel).reltuples >= 0.0;
        pg_sys::RelationClose(relation);
        known
    }
}

/// Elements of an array, where it is known.
unsafe fn listed(value: *mut pg_sys::Expr) -> f64 {
    // SAFETY: a node's tag tells its type; the constant is an array.
    unsafe {
        match (*value).type_ {
            pg_sys::NodeTag::T_Const if !(*value.cast::<pg_sys::Const>()).constisnull => {
                let datum = (*value.cast::<pg_sys::Const>()).constvalue;
                let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
                let dimensions = array.cast::<u8>().add(std::mem::size_of::<pg_sys::ArrayType>()).cast();
                f64::from(pg_sys::ArrayGetNItems((*array).ndim, dimensions))
            }
            pg_sys::NodeTag::T_ArrayExpr => {
                let elements = (*value.cast::<pg_sys::ArrayExpr>()).elements;
                pointers::<pg_sys::Node>(elements).len() as f64
            }
            _ => LISTED_KEYS,
        }
    }
}
