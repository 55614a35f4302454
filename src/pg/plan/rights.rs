//! The rights that a query takes, checked before it is planned.
//!
//! PostgreSQL checks them when a query begins to run. But to plan one with a table of a data-model view, CDF is asked for the
//! view's definition, with the credentials of the owner of a view in SQL where the table is behind one. Whoever may not read
//! that view must have nobody's credentials used, and learn nothing of what CDF says.

use pgrx::pg_sys;

use crate::pg::compat::{needed_rights, NeededRights};
use crate::pg::rights::or_current;

/// Checks the rights that a query and those around it take, and raises the error that PostgreSQL would raise.
///
/// # Safety
/// The planner's own state, of a query that it is planning.
pub unsafe fn check_planned(root: *mut pg_sys::PlannerInfo) {
    let mut level = root;
    // SAFETY: the caller's promise; the outermost query has no parent.
    unsafe {
        while !level.is_null() {
            check_query((*level).parse);
            level = (*level).parent_root;
        }
    }
}

/// As [`check_planned`], of one query, without those within it and around it.
///
/// # Safety
/// The query was analysed and rewritten.
pub unsafe fn check_query(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise; look-ups of what the query has locked.
    unsafe {
        for needed in needed_rights(query) {
            if !has(&needed) {
                let kind = pg_sys::get_relkind_objtype(pg_sys::get_rel_relkind(needed.relation));
                let name = pg_sys::get_rel_name(needed.relation);
                pg_sys::aclcheck_error(pg_sys::AclResult::ACLCHECK_NO_PRIV, kind, name);
            }
        }
    }
}

/// Whether the rights are there: on the whole relation, or on each of the columns.
///
/// # Safety
/// The relation is there, and the sets are those of its columns.
unsafe fn has(needed: &NeededRights) -> bool {
    let user = or_current(needed.user);
    // SAFETY: the caller's promise; look-ups in the catalogs.
    unsafe {
        let whole = pg_sys::AclMaskHow::ACLMASK_ALL;
        let missing = needed.wanted & !pg_sys::pg_class_aclmask(needed.relation, user, needed.wanted, whole);
        let by_column = [
            (pg_sys::ACL_SELECT, needed.selected),
            (pg_sys::ACL_INSERT, needed.inserted),
            (pg_sys::ACL_UPDATE, needed.updated),
        ];
        let all = by_column.iter().fold(0, |all, (right, _)| all | pg_sys::AclMode::from(*right));
        missing & !all == 0
            && by_column.iter().all(|(right, columns)| {
                let right = pg_sys::AclMode::from(*right);
                missing & right == 0 || has_on_columns(needed.relation, user, right, *columns)
            })
    }
}

/// # Safety
/// As for [`has`].
unsafe fn has_on_columns(
    relation: pg_sys::Oid,
    user: pg_sys::Oid,
    right: pg_sys::AclMode,
    columns: *mut pg_sys::Bitmapset,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let on_columns = |how| {
            pg_sys::pg_attribute_aclcheck_all(relation, user, right, how) == pg_sys::AclResult::ACLCHECK_OK
        };
        let mut column = pg_sys::bms_next_member(columns, -1);
        if column < 0 {
            // A query that uses no column takes the right on any.
            return on_columns(pg_sys::AclMaskHow::ACLMASK_ANY);
        }
        while column >= 0 {
            let number = (column + pg_sys::FirstLowInvalidHeapAttributeNumber) as pg_sys::AttrNumber;
            let granted = match number {
                // The whole row.
                0 => on_columns(pg_sys::AclMaskHow::ACLMASK_ALL),
                number => {
                    pg_sys::pg_attribute_aclcheck(relation, number, user, right)
                        == pg_sys::AclResult::ACLCHECK_OK
                }
            };
            if !granted {
                return false;
            }
            column = pg_sys::bms_next_member(columns, column);
        }
        true
    }
}
