//! What stands in the way of dropping something.

use pgrx::prelude::*;

use super::commands::{from_utf8, spi_error};
use crate::cdf::error::{list_names, Error, Kind};
use crate::pg::errors::raise_as;

/// What relies on tables, or is in schemas beside them. A view depends on a table by its rule. What goes with a table, such as the
/// expression of a column, is not in its way.
pub fn of(tables: &[pg_sys::Oid], schemas: &[pg_sys::Oid]) -> Result<Vec<String>, Error> {
    let query = "WITH gone AS ( \
           SELECT c.oid FROM pg_class c WHERE c.oid = ANY ($1)), \
         obstacle AS ( \
           SELECT d.classid, d.objid, d.objsubid FROM pg_depend d \
           WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ANY ($2) AND d.deptype = 'n' \
           AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM gone)) \
           UNION \
           SELECT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass::oid END, \
           coalesce(w.ev_class, d.objid), CASE WHEN w.oid IS NULL THEN d.objsubid ELSE 0 END FROM pg_depend d \
           LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid \
           WHERE (d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM gone) \
           OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_type t \
           JOIN pg_class c ON c.oid = t.typrelid WHERE c.oid IN (SELECT oid FROM gone))) AND d.deptype = 'n' \
           AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM gone))) \
         SELECT convert_to(pg_describe_object(classid, objid, objsubid), 'UTF8') FROM obstacle o \
         WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM gone) AND d.deptype IN ('a', 'i'))";
    described(query, &[tables.to_vec().into(), schemas.to_vec().into()])
}

/// The texts that a query gives.
pub fn described(query: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Result<Vec<String>, Error> {
    Spi::connect(|client| {
        client
            .select(query, None, arguments)?
            .map(|row| Ok(from_utf8(row.get(1)?).unwrap_or_default()))
            .collect::<Result<_, spi::Error>>()
    })
    .map_err(spi_error)
}

/// Refuses to go on if there are any. `what` cannot be done then.
pub fn refuse(what: &str, mut found: Vec<String>, hint: &str) {
    if found.is_empty() {
        return;
    }
    found.sort();
    found.dedup();
    raise_as(
        PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        Error::new(
            Kind::InvalidValue,
            format!("cannot {what}, since there is still: {}", list_names(found.iter(), found.len())),
        )
        .hint(hint),
    )
}
