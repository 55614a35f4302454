//! Defaults of columns that COPY does not name. COPY computes them itself, out of sight of the planner hook. Those that
//! use the session's TimeZone ([`super::coerce`]) are computed again, in UTC.

use pgrx::pg_sys;

use super::coerce::{is_local_cast, rewritten};
use crate::cdf::error::{Error, Kind};
use crate::pg::errors::raise;
use crate::pg::text::column_name;

/// A column's position, and the expression of its default.
pub type Default = (usize, *mut pg_sys::ExprState);

/// Returns the defaults of a COPY that have to be computed again.
///
/// # Safety
/// Both belong to a COPY that begins to write to this relation, which may be a partition of the one that COPY names.
pub unsafe fn in_utc(rinfo: *mut pg_sys::ResultRelInfo, estate: *mut pg_sys::EState) -> Vec<Default> {
    // SAFETY: the caller's promise; the relations are open, and have their tuple descriptors.
    unsafe {
        let root = (*rinfo).ri_RootResultRelInfo;
        let named = if root.is_null() { rinfo } else { root };
        let columns = pg_sys::ExecGetInsertedCols(named, estate);
        // COPY names at least one column. Any other writer without a plan passes whole rows.
        if columns.is_null() {
            return Vec::new();
        }
        let relation = (*named).ri_RelationDesc;
        let descriptor = pgrx::PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        let mut defaults = Vec::new();
        for attribute in descriptor.iter() {
            let member = i32::from(attribute.attnum) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            if attribute.attisdropped || attribute.attgenerated != 0 || pg_sys::bms_is_member(member, columns)
            {
                continue;
            }
            let expression: *mut pg_sys::Expr =
                pg_sys::build_column_default(relation, i32::from(attribute.attnum)).cast();
            if !is_local_cast(expression) {
                continue;
            }
            let triggers = (*rinfo).ri_TrigDesc.as_ref();
            if triggers.is_some_and(|all| all.trig_insert_before_row || all.trig_insert_after_row) {
                let name = column_name(attribute);
                raise(
                    Error::new(
                        Kind::Unsupported,
                        format!(
                            "column \"{name}\": COPY would compute its default in the session's TimeZone, not in UTC"
                        ),
                    )
                    .detail("The table has a row trigger, which would see that value.")
                    .hint("Name the column in COPY, or write AT TIME ZONE 'UTC' into its default."),
                );
            }
            // A partition may have its columns in another order.
            let number =
                pg_sys::get_attnum((*(*rinfo).ri_RelationDesc).rd_id, attribute.attname.data.as_ptr());
            if let Ok(at) = usize::try_from(i32::from(number) - 1) {
                defaults.push((at, pg_sys::ExecPrepareExpr(rewritten(expression), estate)));
            }
        }
        defaults
    }
}

/// Puts the defaults into a row.
///
/// # Safety
/// `slot` holds a row of the relation that [`in_utc`] was called for, and `estate` is that of its statement.
pub unsafe fn put(defaults: &[Default], slot: *mut pg_sys::TupleTableSlot, estate: *mut pg_sys::EState) {
    // SAFETY: the caller's promise; the slot's arrays have one element per column of the relation. An error in an
    // expression ends the statement.
    unsafe {
        let columns = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < columns {
            pg_sys::slot_getsomeattrs_int(slot, columns);
        }
        if (*estate).es_per_tuple_exprcontext.is_null() {
            pg_sys::MakePerTupleExprContext(estate);
        }
        let context = (*estate).es_per_tuple_exprcontext;
        let previous = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
        for (at, state) in defaults {
            let Some(evaluate) = (**state).evalfunc else { continue };
            let mut null = false;
            let value = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(*state, context, &mut null));
            *(*slot).tts_values.add(*at) = value;
            *(*slot).tts_isnull.add(*at) = null;
        }
        pg_sys::MemoryContextSwitchTo(previous);
    }
}
