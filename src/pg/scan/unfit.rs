//! Values that were read and that their columns cannot hold: what the option `on_unfit` makes of them.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use pgrx::{PgSqlErrorCode, PgTryBuilder};

use crate::cdf::cell::Cell;
use crate::cdf::encode::row_name::describe_keys;
use crate::cdf::error::{Error, Kind};
use crate::cdf::read::Field;
use crate::cdf::table::Table;
use crate::pg::errors::{raise_as, warn};
use crate::pg::text::from_server;

/// Why a type does not take a value.
pub type Refusal = (PgSqlErrorCode, String);

/// A value that its column cannot hold.
#[derive(Debug)]
pub struct Unfit {
    pub column: usize,
    pub code: PgSqlErrorCode,
    pub why: String,
    /// Its beginning.
    pub value: String,
}

/// Calls a type's input, and gives its refusal instead of raising it. `subtransaction`: the input may run functions, of which
/// an error leaves more behind than a memory context.
///
/// # Safety
/// The call allocates in the current memory context, and does no more than a type's input does.
pub unsafe fn caught(subtransaction: bool, call: impl FnOnce() -> Datum) -> Result<Datum, Refusal> {
    // SAFETY: a subtransaction is ended in any case, and what it changes of the session's state is put back, as PL/pgSQL
    // does around a block with an exception handler.
    let result = unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        if subtransaction {
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(context);
        }
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(call())))
            .catch_others(|error| Err(Box::new(error)))
            .execute();
        pg_sys::MemoryContextSwitchTo(context);
        if subtransaction {
            match result {
                Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
                Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
        result
    };
    result.map_err(|error| match *error {
        CaughtError::PostgresError(report) if is_about_the_value(report.sql_error_code()) => {
            (report.sql_error_code(), report.message().to_owned())
        }
        other => other.rethrow(),
    })
}

/// Whether the error is about the value: not a cancelled statement, or memory that is used up.
fn is_about_the_value(code: PgSqlErrorCode) -> bool {
    /// The first two of the five characters (ERRCODE_TO_CATEGORY).
    const CLASS: i32 = (1 << 12) - 1;
    [
        PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        PgSqlErrorCode::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
        // Nested too deep, or too large.
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        // What a check of a domain may raise.
        PgSqlErrorCode::ERRCODE_PLPGSQL_ERROR,
    ]
    .iter()
    .any(|class| code as i32 & CLASS == *class as i32 & CLASS)
}

/// Raises the error about a value.
///
/// # Safety
/// The relation is open, and is the table's.
pub unsafe fn raise_unfit(relation: pg_sys::Relation, table: &Table, row: &[Field], unfit: &Unfit) -> ! {
    let keys: Vec<Cell<'_>> = row.iter().map(Field::cell).collect();
    let of_row = describe_keys(table, &keys).map_or_else(String::new, |keys| format!(" of the row {keys}"));
    // SAFETY: the caller's promise: the relation has such a column; the name of a type is allocated in the current memory
    // context.
    let sql_type = unsafe {
        let descriptor = pgrx::PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        descriptor.get(unfit.column).map_or_else(String::new, |attribute| {
            from_server(pg_sys::format_type_with_typemod(attribute.atttypid, attribute.atttypmod))
        })
    };
    let message = format!(
        "table \"{}\", column \"{}\": the value {}{of_row} does not fit the type {sql_type}: {}",
        // SAFETY: the caller's promise.
        unsafe { relation_name(relation) },
        table.names[unfit.column],
        unfit.value,
        unfit.why
    );
    // Text is no help to those that are text already.
    let hint = match sql_type.as_str() {
        "text" => "Declare the column as json, or set the option on_unfit of the column, its table or its server to \"null\".",
        _ => "Declare the column as text or jsonb, or set the option on_unfit of the column, its table or its server to \"null\".",
    };
    raise_as(unfit.code, Error::new(Kind::InvalidValue, message).hint(hint))
}

/// # Safety
/// The relation is open.
pub unsafe fn relation_name(relation: pg_sys::Relation) -> String {
    // SAFETY: the caller's promise; a catalog's name is NUL-terminated.
    unsafe { from_server((*(*relation).rd_rel).relname.data.as_ptr()) }
}

/// Values that became NULL, by table and column.
#[derive(Debug, Default)]
pub struct Tally(Vec<(String, String, u64)>);

impl Tally {
    pub fn add(&mut self, table: &str, column: &str) {
        match self.0.iter_mut().find(|(known, name, _)| known == table && name == column) {
            Some((.., count)) => *count += 1,
            None => self.0.push((table.to_owned(), column.to_owned(), 1)),
        }
    }

    /// Tells how many there were, if there were any.
    pub fn warn(&mut self) {
        let all = std::mem::take(&mut self.0);
        let total: u64 = all.iter().map(|(.., count)| count).sum();
        if total == 0 {
            return;
        }
        let each = all
            .iter()
            .map(|(table, column, count)| format!("column \"{column}\" of table \"{table}\": {count}"));
        let each: Vec<String> = each.collect();
        let message = format!(
            "{total} {} not fit the type of {} column and {} read as NULL: {}",
            if total == 1 { "value does" } else { "values do" },
            if total == 1 { "its" } else { "their" },
            if total == 1 { "was" } else { "were" },
            each.join(", ")
        );
        let hint = "With the option on_unfit \"error\" the first one is named.";
        warn(Error::new(Kind::InvalidValue, message).hint(hint));
    }
}
