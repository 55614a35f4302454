//! What a façade looks like to those who read the catalogs: its key, and the column that it is partitioned by.

use pgrx::{pg_sys, PgTupleDesc};

use crate::pg::ddl::options;
use crate::pg::text::column_name;

/// How the façade of a foreign table is declared.
pub struct FacadeShape {
    /// The column that rows would be divided by. There is one partition, so that all of them go there.
    pub divided_by: String,
    pub key: Option<FacadeKey>,
}

/// The columns of the constraint that tells tools the key.
pub struct FacadeKey {
    pub columns: Vec<String>,
    /// Whether it is the primary key, without which there is no row. Otherwise rows may be without it: it is unique then.
    pub primary: bool,
    /// The columns that have to become NOT NULL for that.
    pub not_null: Vec<String>,
}

/// The façade that a foreign table can have; None if no column serves to divide rows by.
///
/// # Safety
/// `relation` is an open foreign table.
pub unsafe fn of(relation: pg_sys::Relation) -> Option<FacadeShape> {
    // SAFETY: the caller's promise; an open relation has its tuple descriptor, which outlives this call.
    let (columns, table) = unsafe {
        (PgTupleDesc::from_pg_unchecked((*relation).rd_att), options::definition_known_here(relation).ok())
    };
    let column = |at: usize| columns.get(at);
    let name = |at: usize| column(at).map(column_name);
    // PostgreSQL divides by columns that it can compare, and that it does not compute.
    let is_ordered = |at: &usize| {
        column(*at).is_some_and(|column| {
            // SAFETY: a catalog look-up by the type's number.
            let class = unsafe { pg_sys::GetDefaultOpClass(column.atttypid, pg_sys::BTREE_AM_OID) };
            !column.attisdropped && class != pg_sys::InvalidOid
        })
    };
    let divides = |at: &usize| is_ordered(at) && column(*at).is_some_and(|column| column.attgenerated == 0);
    let keys = table.as_ref().map(|table| table.conflict_keys()).unwrap_or_default();
    // A unique constraint has to include the column.
    let key = keys.first().filter(|key| !key.is_empty() && key.iter().all(is_ordered));
    let divided_by = key.and_then(|key| key.iter().copied().find(divides));
    let key = key.filter(|_| divided_by.is_some()).map(|key| {
        let nullable = |at: &&usize| column(**at).is_some_and(|column| !column.attnotnull);
        let not_null: Vec<String> = key.iter().filter(nullable).filter_map(|at| name(*at)).collect();
        let always = table.as_ref().is_some_and(|table| table.options.resource.always_has_its_key());
        let primary = always || not_null.is_empty();
        FacadeKey {
            columns: key.iter().filter_map(|at| name(*at)).collect(),
            primary,
            not_null: if primary { not_null } else { Vec::new() },
        }
    });
    let divided_by = divided_by.or_else(|| (0..columns.len()).find(divides)).and_then(name)?;
    Some(FacadeShape { divided_by, key })
}
