//! Makes a table from the options of a foreign table and its columns.

use pgrx::{pg_sys, PgTupleDesc};

use super::connection::connection;
use super::stored::Stored;
use crate::cdf::error::Error;
use crate::cdf::options::registry::Holder;
use crate::cdf::options::values::{null_handling, on_conflict, on_unfit, parse_bool};
use crate::cdf::resource::Resource;
use crate::cdf::table::view::ViewReference;
use crate::cdf::table::{ColumnDefinition, Mode, Operation, Table, TableOptions};
use crate::pg::errors::OrRaise;
use crate::pg::modify::datum::holds_values;
use crate::pg::rights::or_current;
use crate::pg::session::views;
use crate::pg::text::column_name;

/// Returns the server of a foreign table, and the table's options with the server's as defaults.
fn table(relid: pg_sys::Oid) -> Result<(pg_sys::Oid, TableOptions), Error> {
    // SAFETY: both look the object up in the catalogs and raise an error if it is missing; the results are in the
    // current memory context.
    let (server, stored, defaults) = unsafe {
        let table = pg_sys::GetForeignTable(relid);
        let server = pg_sys::GetForeignServer((*table).serverid);
        ((*server).serverid, Stored::read((*table).options), Stored::read((*server).options))
    };
    let either = |name: &str| stored.get(name).or_else(|| defaults.get(name));
    let flag = |name: &str, value: Option<&str>, default: bool| match value {
        Some(value) => parse_bool(name, value),
        None => Ok(default),
    };
    let options = TableOptions {
        resource: Resource::get(stored.required("resource", Holder::Table)?)?,
        database: stored.text("database"),
        table: stored.text("table"),
        primary_key: stored.text("primary_key"),
        view: match (stored.text("space"), stored.text("external_id")) {
            (Some(space), Some(external_id)) => {
                Some(ViewReference { space, external_id, version: stored.text("version") })
            }
            _ => None,
        },
        mode: Mode {
            operation: Operation::Upsert,
            on_conflict: either("on_conflict").map(on_conflict).transpose()?.unwrap_or_default(),
            null_handling: either("null_handling").map(null_handling).transpose()?.unwrap_or_default(),
            create_missing: flag("create_missing", stored.get("create_missing"), false)?,
            ..Mode::default()
        },
        truncatable: flag("truncatable", stored.get("truncatable"), false)?,
        updatable: flag("updatable", either("updatable"), true)?,
        on_unfit: either("on_unfit").map(on_unfit).transpose()?.unwrap_or_default(),
    };
    Ok((server, options))
}

/// The columns of a foreign table; None for one without values.
///
/// # Safety
/// `relation` is an open foreign table.
unsafe fn columns(relation: pg_sys::Relation) -> Result<Vec<Option<ColumnDefinition>>, Error> {
    // SAFETY: the caller's promise; an open relation has its tuple descriptor, which outlives this call.
    let (relid, columns) = unsafe { ((*relation).rd_id, PgTupleDesc::from_pg_unchecked((*relation).rd_att)) };
    columns
        .iter()
        .map(|column| {
            if !holds_values(column) {
                return Ok(None);
            }
            // SAFETY: a catalog look-up by the column's own numbers.
            let stored = unsafe { Stored::read(pg_sys::GetForeignColumnOptions(relid, column.attnum)) };
            Ok(Some(ColumnDefinition {
                name: column_name(column),
                cdf_name: stored.text("name"),
                on_unfit: stored.get("on_unfit").map(on_unfit).transpose()?,
            }))
        })
        .collect()
}

/// Returns the server of a foreign table, and the table as CDF sees it, with its columns bound. The definition of a
/// view is read with the rights of `user`.
///
/// # Safety
/// `relation` is an open foreign table.
pub unsafe fn table_definition(
    relation: pg_sys::Relation,
    user: pg_sys::Oid,
) -> Result<(pg_sys::Oid, Table), Error> {
    // SAFETY: the caller's promise.
    let (relid, definitions) = unsafe { ((*relation).rd_id, columns(relation)?) };
    let (server, options) = table(relid)?;
    let table = match options.view.clone() {
        None => Table::new(options, definitions)?,
        Some(view) => {
            let connection = connection(server, user)?;
            views::bind(&connection, &view, |view| {
                Table::of_view(options.clone(), definitions.clone(), Some(view))
            })?
        }
    };
    Ok((server, table))
}

/// What a foreign table is to CDF, as far as that is known without a request: of one of a view it has only the columns that
/// every instance has, by the names under which no property can be meant.
///
/// # Safety
/// `relation` is an open foreign table.
pub unsafe fn definition_known_here(relation: pg_sys::Relation) -> Result<Table, Error> {
    // SAFETY: the caller's promise.
    let (relid, mut definitions) = unsafe { ((*relation).rd_id, columns(relation)?) };
    let (_, options) = table(relid)?;
    if options.view.is_some() {
        let is_fixed = |column: &ColumnDefinition| {
            column.cdf_name.is_none() && options.resource.column(&column.name).is_some()
        };
        definitions.iter_mut().for_each(|definition| *definition = definition.take().filter(is_fixed));
    }
    Table::new(options, definitions)
}

/// As [`table_definition`], for a table that the planner has locked. InvalidOid as `user`: the current role. `check_rights`
/// raises an error if the query lacks rights: it is called before CDF is asked for anything.
///
/// # Safety
/// The relation is a locked foreign table.
pub unsafe fn open_table(relid: pg_sys::Oid, user: pg_sys::Oid, check_rights: impl FnOnce()) -> Table {
    // SAFETY: the query has locked the relation, so it can be opened without another lock.
    unsafe {
        if Stored::read((*pg_sys::GetForeignTable(relid)).options).get("space").is_some() {
            check_rights();
        }
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            Err::<(), _>(Error::internal("the foreign table has disappeared")).or_raise();
        }
        let table = table_definition(relation, or_current(user));
        pg_sys::RelationClose(relation);
        table.or_raise().1
    }
}
