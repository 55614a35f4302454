//! Rows of catalogs, where PostgreSQL has no look-up for them.

use std::ffi::c_int;

use pgrx::pg_sys;

/// pg_inherits (pg_inherits.h): a table, and one that it is a partition of or inherits from.
pub const INHERITS: pg_sys::Oid = pg_sys::Oid::from_u32(2611);
pub const INHERITS_CHILD: u32 = 1;
pub const INHERITS_PARENT: u32 = 2;

/// The rows of a catalog, as values and which of them are null.
///
/// # Safety
/// Called within a statement, with a catalog's number.
pub unsafe fn scan(
    catalog: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
    mut row: impl FnMut(&[pg_sys::Datum], &[bool]),
) {
    // SAFETY: a scan of a catalog without its index; each tuple is valid until the next, and has a value for each column.
    unsafe {
        let relation = pg_sys::table_open(catalog, pg_sys::AccessShareLock as c_int);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            snapshot,
            0,
            std::ptr::null_mut(),
        );
        let columns = (*relation).rd_att;
        let mut values = vec![pg_sys::Datum::null(); (*columns).natts as usize];
        let mut nulls = vec![false; values.len()];
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
            row(&values, &nulls);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as c_int);
    }
}
