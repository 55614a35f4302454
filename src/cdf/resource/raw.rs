//! RAW rows (API description, `POST /raw/dbs/{dbName}/tables/{tableName}/rows`).

use super::*;
use crate::cdf::http::url_path::{is_segment, segment, LONGEST};

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
        fixed(
            "db_name",
            "dbName",
            ColumnType::Text,
            Rule::Part("name of the RAW database; 1 to 32 characters; created if it is missing"),
        ),
        fixed(
            "table_name",
            "tableName",
            ColumnType::Text,
            Rule::Part("name of the RAW table; 1 to 64 characters; created if it is missing"),
        ),
        fixed(
            "key",
            "key",
            ColumnType::Text,
            Rule::Part("the key within the RAW table; 1 to 1024 characters"),
        ),
        fixed(
            "columns",
            "columns",
            ColumnType::Jsonb,
            Rule::Part("an object of all columns of the row; at most 5 MiB"),
        ),
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Raw,
    shape: Shape::Raw,
    acl: "rawAcl",
    usual_rows: 10_000,
};

/// Characters of one column's name or value.
pub const COLUMN_CHARS: usize = 2_621_440;

/// The path of the cursors that divide a RAW table's rows.
pub fn cursors_path(database: &str, table: &str) -> String {
    format!("/raw/dbs/{}/tables/{}/cursors", segment(database), segment(table))
}

/// The path of a RAW table's rows.
pub fn rows_path(database: &str, table: &str) -> String {
    format!("/raw/dbs/{}/tables/{}/rows", segment(database), segment(table))
}

/// The path of a row below that of its table's rows. None for a row that no URL can name, or only one that gateways refuse
/// for its length: it is found in the list of rows.
pub fn row_path(rows: &str, key: &str) -> Option<String> {
    let path = format!("{rows}/{}", segment(key));
    (is_segment(key) && path.len() <= LONGEST).then_some(path)
}

/// Whether there can be a database and a table called so.
pub fn can_exist(database: Option<&str>, table: Option<&str>) -> bool {
    let fits = |name: Option<&str>, max| name.is_none_or(|name| (1..=max).contains(&name.chars().count()));
    fits(database, DATABASE_CHARS) && fits(table, TABLE_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_urls_cannot_name_have_no_path() {
        assert_eq!(row_path("/rows", "a/b").as_deref(), Some("/rows/a%2Fb"));
        let longest = "x".repeat(KEY_CHARS);
        assert!(row_path(&rows_path("d", "t"), &longest).is_some());
        for key in ["", ".", "..", &" ".repeat(KEY_CHARS), &"\u{1F600}".repeat(KEY_CHARS)] {
            assert_eq!(row_path("/rows", key), None, "{key}");
        }
    }
}
