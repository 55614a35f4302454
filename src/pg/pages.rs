//! Reading a whole table outside of a scan.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{transaction, wait};
use crate::cdf::client::Connection;
use crate::cdf::error::Error;
use crate::cdf::read::{Query, Reader, Row};
use crate::cdf::table::Table;

/// Reads these columns of all rows of a table, also of those that the transaction has written, until `use_row` has
/// enough. Gives whether there were no more.
pub fn each_row(
    connection: &Arc<Connection>,
    table: Arc<Table>,
    columns: &[usize],
    mut use_row: impl FnMut(Row) -> Result<ControlFlow<()>, Error>,
) -> Result<bool, Error> {
    let mut needed = vec![false; table.bindings.len()];
    columns.iter().for_each(|at| needed[*at] = true);
    let pending = transaction::pending(connection, table.options.resource, None, None)?;
    let query =
        Query { table, connection: connection.clone(), conditions: Vec::new(), needed, limit: None, pending };
    let mut reader = Reader::new(wait::client()?, query)?;
    loop {
        let limits = transaction::limits();
        let (again, page) = wait::run(async move {
            let page = reader.page(limits).await;
            (reader, page)
        })?;
        reader = again;
        let Some(page) = page? else { return Ok(true) };
        for row in page {
            if use_row(row)?.is_break() {
                return Ok(false);
            }
        }
    }
}
