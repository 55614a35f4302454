//! INSERT, UPDATE and DELETE are planned.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::table::Operation;
use crate::pg::compat::checked_as;
use crate::pg::ddl::options;
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::plan::extent::extent;
use crate::pg::plan::rights::check_planned;
use crate::pg::plan::{coerce, system_columns};

/// Rows can be inserted, updated and deleted; what a table does not allow is refused with a reason when it is planned.
#[pg_guard]
pub unsafe extern "C-unwind" fn is_foreign_rel_updatable(_relation: pg_sys::Relation) -> std::ffi::c_int {
    [pg_sys::CmdType::CMD_INSERT, pg_sys::CmdType::CMD_UPDATE, pg_sys::CmdType::CMD_DELETE]
        .into_iter()
        .fold(0, |all, command| all | 1 << command as std::ffi::c_int)
}

/// The plan's private list, for UPDATE and DELETE: how many of the table's rows are changed, then the columns that an UPDATE
/// sets, counted from 1.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan_foreign_modify(
    root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    result_relation: pg_sys::Index,
    subplan_index: std::ffi::c_int,
) -> *mut pg_sys::List {
    // SAFETY: the planner passes the plan that it is making, and the range table entry of a table that it has locked.
    unsafe {
        let operation = operation((*plan).operation);
        let entry = *(*root).simple_rte_array.add(result_relation as usize);
        let user = checked_as((*root).parse, entry);
        let table = options::open_table((*entry).relid, user, || check_planned(root));
        system_columns::check_written(plan, result_relation, subplan_index as usize, (*entry).relid, &table);
        if operation == Operation::Upsert {
            coerce::plan_reads_timestamps_as_utc((*plan).plan.lefttree);
            return std::ptr::null_mut();
        }
        table.check_operation(operation).or_raise();
        let extent = extent(root, plan, result_relation).to_integer();
        let mut private = pg_sys::lappend_int(std::ptr::null_mut(), extent);
        if operation == Operation::Update {
            coerce::updates_read_timestamps_as_utc((*plan).plan.lefttree);
            let lists = pointers::<pg_sys::List>((*plan).updateColnosLists);
            if let Some(list) = lists.get(subplan_index as usize) {
                private = pg_sys::list_concat(private, *list);
            }
        }
        private
    }
}

/// What a statement asks of CDF.
pub fn operation(command: pg_sys::CmdType::Type) -> Operation {
    match command {
        pg_sys::CmdType::CMD_UPDATE => Operation::Update,
        pg_sys::CmdType::CMD_DELETE => Operation::Delete,
        _ => Operation::Upsert,
    }
}
