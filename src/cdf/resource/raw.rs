//! RAW rows (API description, `POST /raw/dbs/{dbName}/tables/{tableName}/rows`).

use super::*;
use crate::cdf::url_path::segment;

/// Rows per insert request; CDF takes 10 000, the official SDKs send half of it.
pub const ROWS_PER_REQUEST: usize = 5_000;
/// Rows per page that is read, CDF's maximum.
pub const ROWS_PER_PAGE: usize = 10_000;
/// Characters of a database's name.
pub const DATABASE_CHARS: usize = 32;
/// Characters of a table's name.
pub const TABLE_CHARS: usize = 64;
/// Characters of a row's key.
pub const KEY_CHARS: usize = 1024;
/// Bytes of one row's columns.
pub const ROW_BYTES: usize = 5 * 1024 * 1024;

pub static RAW_ROWS: Resource = Resource {
    name: "raw_rows",
    noun: "RAW row",
    columns: &[
        fixed("db_name", "dbName", ColumnType::Text, Rule::Part),
        fixed("table_name", "tableName", ColumnType::Text, Rule::Part),
        fixed("key", "key", ColumnType::Text, Rule::Part),
        fixed("columns", "columns", ColumnType::Jsonb, Rule::Part),
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Raw,
    shape: Shape::Raw,
    acl: "rawAcl",
    usual_rows: 10_000,
};

/// Characters of one column's name or value.
pub const COLUMN_CHARS: usize = 2_621_440;

/// The path of a RAW table's rows.
pub fn rows_path(database: &str, table: &str) -> String {
    format!("/raw/dbs/{}/tables/{}/rows", segment(database), segment(table))
}
