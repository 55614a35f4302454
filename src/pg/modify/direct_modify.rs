//! `DELETE FROM datapoints WHERE series = … AND "timestamp" …` deletes stretches of time instead of single points. The points
//! are read only to be counted.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::slot;
use crate::cdf::encode::points::SeriesRef;
use crate::cdf::error::{Error, Identity};
use crate::cdf::read::Comparison;
use crate::cdf::resource::Role;
use crate::cdf::table::{OnConflict, Operation};
use crate::cdf::writer::Writer;
use crate::pg::compat::checked_as;
use crate::pg::ddl::options::open_table;
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::plan::rights::check_planned;
use crate::pg::scan::execute::{self, ScanState};
use crate::pg::scan::explain;
use crate::pg::scan::plan::ScanPlan;
use crate::pg::session::transaction;

/// Whether the statement deletes points by their series and time only. PostgreSQL asks only for tables without triggers.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan_direct_modify(
    root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    result_relation: pg_sys::Index,
    _subplan_index: std::ffi::c_int,
) -> bool {
    // SAFETY: the planner passes the plan that it is making, and the range table entry of a table that it has locked; a
    // node's tag tells its type.
    unsafe {
        let subplan = (*plan).plan.lefttree;
        if (*plan).operation != pg_sys::CmdType::CMD_DELETE
            || !(*plan).canSetTag
            || !(*plan).returningLists.is_null()
            || (*subplan).type_ != pg_sys::NodeTag::T_ForeignScan
        {
            return false;
        }
        let scan = subplan.cast::<pg_sys::ForeignScan>();
        if (*scan).scan.scanrelid != result_relation {
            return false;
        }
        let entry = *(*root).simple_rte_array.add(result_relation as usize);
        let user = checked_as((*root).parse, entry);
        let table = open_table((*entry).relid, user, || check_planned(root));
        if !table.options.resource.holds_points() || table.check_operation(Operation::Delete).is_err() {
            return false;
        }
        let conditions = ScanPlan::of(scan, table.bindings.len()).conditions;
        let all_pushed = conditions.len() == pointers::<pg_sys::Node>((*subplan).qual).len();
        let conditions_on = |role: &Role| {
            let at = table.position_of(*role);
            conditions.iter().filter(|condition| Some(condition.column) == at).count()
        };
        let ways = table.options.resource.owner.map_or(&[][..], |owner| owner.named_by);
        let on_series: usize = ways.iter().copied().flatten().map(conditions_on).sum();
        // The series is named in one of the ways, and nothing else is said of it.
        let names = |way: &&[Role]| way.len() == on_series && way.iter().all(|role| conditions_on(role) == 1);
        if !all_pushed || !ways.iter().any(names) {
            return false;
        }
        let understood = conditions.iter().all(|condition| match table.names.get(condition.column) {
            Some(_) if Some(condition.column) == table.position_of(Role::Timestamp) => {
                condition.comparison() != Comparison::AnyOf
            }
            _ => matches!(condition.comparison(), Comparison::Equal | Comparison::AnyOf),
        });
        if understood {
            (*scan).operation = pg_sys::CmdType::CMD_DELETE;
            (*scan).resultRelation = result_relation;
        }
        understood
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_direct_modify(
    node: *mut pg_sys::ForeignScanState,
    eflags: std::ffi::c_int,
) {
    // SAFETY: the executor passes the state of a scan that begins.
    unsafe { execute::begin_foreign_scan(node, eflags) };
}

/// Counts the points and deletes them; there are no rows to give.
#[pg_guard]
pub unsafe extern "C-unwind" fn iterate_direct_modify(
    node: *mut pg_sys::ForeignScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes a scan that has begun, and its empty slot.
    unsafe {
        let state = &mut *(*node).fdw_state.cast::<ScanState>();
        (*(*node).ss.ps.state).es_processed += delete(state, node).or_raise();
        let slot = (*node).ss.ss_ScanTupleSlot;
        slot::clear(slot);
        slot
    }
}

/// # Safety
/// `node` is the scan's own.
unsafe fn delete(state: &mut ScanState, node: *mut pg_sys::ForeignScanState) -> Result<u64, Error> {
    // SAFETY: the caller's promise.
    let query = unsafe { state.query(node) }?;
    let Some(query) = query else { return Ok(0) };
    let mut count = 0;
    // SAFETY: the caller's promise.
    while unsafe { state.next(node) }?.is_some() {
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    let (series, range) =
        query.series_and_time().ok_or_else(|| Error::internal("a deletion without a series"))?;
    transaction::begin();
    let writer = Writer::new(query.table, query.connection, OnConflict::Update, None)?;
    for series in &series {
        let series = match series {
            Identity::Id(id) => SeriesRef::Id(*id),
            Identity::ExternalId(name) => SeriesRef::ExternalId(name.into()),
            Identity::Instance { space, external_id } => {
                SeriesRef::Instance(space.into(), external_id.into())
            }
        };
        transaction::write(|target| writer.delete_range(target, &series, range))?;
    }
    Ok(count)
}

#[pg_guard]
pub unsafe extern "C-unwind" fn end_direct_modify(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: the executor passes a scan that has begun.
    unsafe { execute::end_foreign_scan(node) };
}

#[pg_guard]
pub unsafe extern "C-unwind" fn explain_direct_modify(
    node: *mut pg_sys::ForeignScanState,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: EXPLAIN passes a scan that has begun, if only for it.
    unsafe { explain::explain_scan(node, es, Operation::Delete) };
}
