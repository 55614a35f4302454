//! TRUNCATE: reads what there is, and deletes it at COMMIT like any other row.

use std::ops::ControlFlow;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::cell::Cell;
use crate::cdf::encode::points::SeriesRef;
use crate::cdf::error::Error;
use crate::cdf::http::connection::Connection;
use crate::cdf::read::Field;
use crate::cdf::resource::datapoints::{FIRST_TIMESTAMP, LAST_TIMESTAMP};
use crate::cdf::resource::timeseries::TIMESERIES;
use crate::cdf::resource::Shape;
use crate::cdf::table::{OnConflict, Operation, Table};
use crate::cdf::writer::Writer;
use crate::pg::ddl::options;
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::scan::pages::each_row;
use crate::pg::session::transaction;

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_truncate(
    relations: *mut pg_sys::List,
    _behavior: pg_sys::DropBehavior::Type,
    _restart_seqs: bool,
) {
    // SAFETY: PostgreSQL passes the open relations of one server.
    unsafe {
        for relation in pointers::<pg_sys::RelationData>(relations) {
            truncate(*relation).or_raise();
        }
    }
}

/// # Safety
/// `relation` is an open foreign table.
unsafe fn truncate(relation: pg_sys::Relation) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let (server, table) = unsafe { options::table_definition(relation, pg_sys::GetUserId()) }?;
    // SAFETY: reads a variable of the backend.
    let connection = options::connection(server, unsafe { pg_sys::GetUserId() })?;
    // What is never possible comes first: no option helps there.
    table.check_operation(Operation::Delete)?;
    table.check_whole("TRUNCATE")?;
    transaction::begin();
    let table = Arc::new(table);
    let writer = Writer::new(table.clone(), connection.clone(), OnConflict::Update, None)?;
    match table.options.resource.shape {
        Shape::Datapoints { string } => delete_points(&connection, writer, string),
        _ => delete_rows(&connection, writer, table),
    }
}

/// Deletes every row by its key.
fn delete_rows(connection: &Arc<Connection>, mut writer: Writer, table: Arc<Table>) -> Result<(), Error> {
    let keys = table.keys().to_vec();
    each_row(connection, table, &keys, |row| {
        let cells: Vec<_> = row.iter().map(Field::cell).collect();
        transaction::write(|target| writer.delete(target, &cells))?;
        Ok(ControlFlow::Continue(()))
    })
    .map(drop)
}

/// Deletes all points of every series of the kind.
fn delete_points(connection: &Arc<Connection>, writer: Writer, string: bool) -> Result<(), Error> {
    let series = Arc::new(Table::of_columns(&TIMESERIES, &["external_id", "id", "is_string"])?);
    each_row(connection, series, &[0, 1, 2], |row| {
        let of_kind = matches!(&row[2], Field::Json(value) if value.as_bool() == Some(true));
        let series = match (&row[0], row[1].cell()) {
            (Field::Text(name), _) => SeriesRef::ExternalId(name.into()),
            (_, Cell::Int(id)) => SeriesRef::Id(id),
            _ => return Ok(ControlFlow::Continue(())),
        };
        if of_kind == string {
            let always = (FIRST_TIMESTAMP, LAST_TIMESTAMP + 1);
            transaction::write(|target| writer.delete_range(target, &series, always))?;
        }
        Ok(ControlFlow::Continue(()))
    })
    .map(drop)
}
