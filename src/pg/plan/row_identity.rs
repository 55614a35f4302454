//! The columns by which UPDATE and DELETE find a row again. The plan's rows carry them beside the statement's own.
//!
//! A plan over a partitioned or inherited table carries those of all its tables side by side. Tables share a column of
//! the same name, which PostgreSQL allows only where it is the same column of the same type. So the name encodes all of
//! that, and a table that does not share the column finds NULL there.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::rights;
use crate::cdf::encode::raw::RawEncoder;
use crate::cdf::error::Error;
use crate::cdf::table::Table;
use crate::pg::compat::checked_as;
use crate::pg::ddl::options::open_table;
use crate::pg::list::pointers;
use crate::pg::ours;
use crate::pg::scan::key_text;

/// The whole old row, for the RETURNING of a DELETE.
const OLD_ROW: &CStr = c"cdf_row";

/// The name under which the executor itself looks for the whole row, for row triggers. If one foreign table of a
/// statement has it, it must not be NULL for any other.
const WHOLE_ROW: &CStr = c"wholerow";

/// Returns the name under which a key column is carried.
///
/// # Safety
/// `attribute` is a column.
unsafe fn key_name(attribute: *const pg_sys::FormData_pg_attribute) -> CString {
    // SAFETY: the caller's promise.
    let (number, of, modifier, collation) = unsafe {
        (
            (*attribute).attnum,
            (*attribute).atttypid.to_u32(),
            (*attribute).atttypmod,
            (*attribute).attcollation.to_u32(),
        )
    };
    CString::new(format!("cdf_key_{number}_{of}_{modifier}_{collation}")).unwrap_or_default()
}

/// Returns a column of a table; null if there is none at the position.
///
/// # Safety
/// The result lives as long as the descriptor.
pub unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    column: usize,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise.
    unsafe {
        let descriptor = pgrx::PgTupleDesc::from_pg_unchecked(descriptor);
        descriptor.get(column).map_or(std::ptr::null(), |attribute| &raw const *attribute)
    }
}

/// Adds the key columns, those of which an UPDATE may find that there is nothing to clear, the whole row for a DELETE with RETURNING, and what row triggers of other tables need.
#[pg_guard]
pub unsafe extern "C-unwind" fn add_foreign_update_targets(
    root: *mut pg_sys::PlannerInfo,
    rtindex: pg_sys::Index,
    target_rte: *mut pg_sys::RangeTblEntry,
    target_relation: pg_sys::Relation,
) {
    // SAFETY: the planner passes an open relation that it is planning. It keeps the names that it is given.
    unsafe {
        let query = (*root).parse;
        let table = open_table((*target_relation).rd_id, checked_as(query, target_rte), || {
            rights::check_planned(root);
        });
        let before = table.uncleared().filter(|column| is_set(query, &table.names[*column]));
        for column in table.keys().iter().copied().chain(before) {
            let key = attribute((*target_relation).rd_att, column);
            let (number, of, modifier) = ((*key).attnum, (*key).atttypid, (*key).atttypmod);
            let variable = pg_sys::makeVar(rtindex as i32, number, of, modifier, (*key).attcollation, 0);
            let name = pg_sys::pstrdup(key_name(key).as_ptr());
            pg_sys::add_row_identity_var(root, variable, rtindex, name);
        }
        if RawEncoder::typed_key(&table).is_some() {
            key_text::add_target(root, rtindex);
        }
        if (*query).commandType != pg_sys::CmdType::CMD_DELETE {
            // PostgreSQL itself has an UPDATE carry the whole row.
            return;
        }
        // Declared as PostgreSQL does: rows of another table have another type.
        let whole = || pg_sys::makeVar(rtindex as i32, 0, pg_sys::RECORDOID, -1, pg_sys::InvalidOid, 0);
        if !(*query).returningList.is_null() {
            pg_sys::add_row_identity_var(root, whole(), rtindex, OLD_ROW.as_ptr());
        }
        if rtindex as i32 != (*query).resultRelation && triggers_elsewhere(query, (*target_relation).rd_id) {
            pg_sys::add_row_identity_var(root, whole(), rtindex, WHOLE_ROW.as_ptr());
        }
    }
}

/// Whether an UPDATE sets the column of this name. The numbers of the columns are those of the table that it names.
///
/// # Safety
/// `query` is being planned.
unsafe fn is_set(query: *mut pg_sys::Query, name: &str) -> bool {
    // SAFETY: the caller's promise. What an UPDATE sets has the name of its column.
    unsafe {
        (*query).commandType == pg_sys::CmdType::CMD_UPDATE
            && pointers::<pg_sys::TargetEntry>((*query).targetList).iter().any(|entry| {
                !(**entry).resjunk
                    && !(**entry).resname.is_null()
                    && CStr::from_ptr((**entry).resname).to_bytes() == name.as_bytes()
            })
    }
}

/// Whether another foreign table that a DELETE covers has row triggers, for which PostgreSQL adds the whole row.
///
/// # Safety
/// `query` is being planned, and has a target.
unsafe fn triggers_elsewhere(query: *mut pg_sys::Query, this: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise. A table is locked before it is looked at; one that is dropped by then counts as
    // none.
    unsafe {
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        let Some(target) = entries.get((*query).resultRelation as usize - 1) else {
            return false;
        };
        ours::members((**target).relid).into_iter().any(|member| {
            if member == this || pg_sys::get_rel_relkind(member) as u8 != pg_sys::RELKIND_FOREIGN_TABLE {
                return false;
            }
            let relation = pg_sys::try_relation_open(member, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if relation.is_null() {
                return false;
            }
            let triggers = (*relation)
                .trigdesc
                .as_ref()
                .is_some_and(|triggers| triggers.trig_delete_before_row || triggers.trig_delete_after_row);
            pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            triggers
        })
    }
}

/// Where a plan's rows hold the columns that identify a row.
#[derive(Debug, Default)]
pub struct Places {
    /// The key columns and those of `before`, and the number of each in the plan's rows.
    pub keys: Vec<(usize, i16)>,
    /// The columns that the statement sets and CDF cannot clear: they are carried as they were.
    pub before: Vec<usize>,
    /// The whole old row; 0 if the plan does not carry it.
    pub whole: i16,
}

impl Places {
    /// # Safety
    /// `descriptor` is the table's, `targets` the columns of a plan that changes it.
    pub unsafe fn of(
        table: &Table,
        descriptor: pg_sys::TupleDesc,
        targets: *mut pg_sys::List,
    ) -> Result<Places, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            let mut places = Places::default();
            for column in table.keys() {
                let name = key_name(attribute(descriptor, *column));
                let number = pg_sys::ExecFindJunkAttributeInTlist(targets, name.as_ptr());
                if number == 0 {
                    return Err(Error::internal(format!(
                        "the plan's rows have no key column \"{}\"",
                        table.names[*column]
                    )));
                }
                places.keys.push((*column, number));
            }
            for column in table.uncleared() {
                let name = key_name(attribute(descriptor, column));
                let number = pg_sys::ExecFindJunkAttributeInTlist(targets, name.as_ptr());
                if number > 0 {
                    places.keys.push((column, number));
                    places.before.push(column);
                }
            }
            places.whole = pg_sys::ExecFindJunkAttributeInTlist(targets, OLD_ROW.as_ptr());
            Ok(places)
        }
    }
}
