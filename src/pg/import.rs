//! IMPORT FOREIGN SCHEMA: the built-in tables.

use std::ffi::{CStr, CString};
use std::fmt::Write;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::errors::raise_as;
use super::list::pointers;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::{Resource, RESOURCES};

/// The one remote schema there is.
const REMOTE_SCHEMA: &CStr = c"cdf";

/// The statements that make the tables of `IMPORT FOREIGN SCHEMA cdf`. PostgreSQL itself leaves out the tables that
/// LIMIT TO and EXCEPT exclude, and puts the others into the local schema.
///
/// # Safety
/// Called by PostgreSQL, which passes the parsed statement.
#[pg_guard]
pub unsafe extern "C-unwind" fn import_foreign_schema(
    statement: *mut pg_sys::ImportForeignSchemaStmt,
    _server: pg_sys::Oid,
) -> *mut pg_sys::List {
    // SAFETY: a parsed statement's names are NUL-terminated, its lists hold what the grammar puts there: RangeVar for
    // tables, DefElem for options. What is allocated here lives in the current memory context, as the caller expects.
    unsafe {
        let statement = &*statement;
        let schema = CStr::from_ptr(statement.remote_schema);
        if schema != REMOTE_SCHEMA {
            raise_as(
                PgSqlErrorCode::ERRCODE_FDW_SCHEMA_NOT_FOUND,
                Error::new(
                    Kind::InvalidOption,
                    format!("there is no remote schema \"{}\"", schema.to_string_lossy()),
                )
                .hint("The only one is cdf: IMPORT FOREIGN SCHEMA cdf FROM SERVER … INTO …"),
            );
        }
        if let Some(option) = pointers::<pg_sys::DefElem>(statement.options).first() {
            let name = CStr::from_ptr((**option).defname).to_string_lossy();
            raise_as(
                PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
                Error::new(
                    Kind::InvalidOption,
                    format!("invalid option \"{name}\" for IMPORT FOREIGN SCHEMA"),
                )
                .hint("It takes no options. Those of its tables can be set with ALTER FOREIGN TABLE."),
            );
        }
        if statement.list_type == pg_sys::ImportForeignSchemaType::FDW_IMPORT_SCHEMA_LIMIT_TO {
            for table in pointers::<pg_sys::RangeVar>(statement.table_list) {
                require(&CStr::from_ptr((**table).relname).to_string_lossy());
            }
        }
        let server = quote_identifier(CStr::from_ptr(statement.server_name).to_string_lossy());
        RESOURCES.iter().fold(std::ptr::null_mut(), |list, resource| {
            // No NUL can be in it: all of its parts came from C strings or from this program's text.
            let statement = CString::new(create_table(resource, &server)).unwrap_or_default();
            pg_sys::lappend(list, pg_sys::pstrdup(statement.as_ptr()).cast())
        })
    }
}

/// Whoever limits an import to a table that does not exist would wonder where it is.
fn require(name: &str) {
    if Resource::find(name).is_none() {
        let names: Vec<&str> = RESOURCES.iter().map(|resource| resource.name).collect();
        raise_as(
            PgSqlErrorCode::ERRCODE_FDW_TABLE_NOT_FOUND,
            Error::new(Kind::InvalidOption, format!("remote schema cdf has no table \"{name}\""))
                .hint(format!("Its tables are: {}.", names.join(", "))),
        );
    }
}

/// The statement that makes a built-in table; `server` as it stands in SQL.
fn create_table(resource: &Resource, server: &str) -> String {
    let mut sql = format!("CREATE FOREIGN TABLE {} (", resource.name);
    for (at, column) in resource.columns.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Quoted, since `timestamp` and `value` are words of SQL.
        write!(sql, "{comma}\n  \"{}\" {}", column.name, column.column_type.sql())
            .expect("a String takes all");
    }
    write!(sql, "\n) SERVER {server} OPTIONS (resource '{}')", resource.name).expect("a String takes all");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_quote_columns_and_name_the_resource() {
        let sql = create_table(Resource::get("datapoints").unwrap(), "\"my server\"");
        assert!(sql.starts_with("CREATE FOREIGN TABLE datapoints (\n  \"id\" bigint,"), "{sql}");
        assert!(sql.contains("\n  \"timestamp\" timestamp with time zone,"), "{sql}");
        assert!(sql.ends_with(") SERVER \"my server\" OPTIONS (resource 'datapoints')"), "{sql}");
    }
}
