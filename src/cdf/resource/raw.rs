//! RAW rows (API description, `POST /raw/dbs/{dbName}/tables/{tableName}/rows`).

use super::declare::*;
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::url_path::{is_segment, LONGEST};

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
pub const ROW_BYTES: usize = DOCUMENT_BYTES;

/// The column with a row's key, unless a table names another, and the property; it is no RAW column itself.
pub const RAW_KEY: &str = "key";
/// The property with a row's values by column.
pub const COLUMNS: &str = "columns";

/// The path of all databases.
const PATH: &str = "/raw/dbs";

pub static RAW_ROWS: Resource = Resource {
    name: "raw_rows",
    noun: "RAW row",
    columns: &[
        fixed(
            "db_name",
            "dbName",
            ColumnType::Text,
            Rule::limited(
                "name of the RAW database; 1 to {} characters; created if it is missing",
                &[Limit::Count(DATABASE_CHARS)],
            ),
        )
        .role(Role::RawDatabase),
        fixed(
            "table_name",
            "tableName",
            ColumnType::Text,
            Rule::limited(
                "name of the RAW table; 1 to {} characters; created if it is missing",
                &[Limit::Count(TABLE_CHARS)],
            ),
        )
        .role(Role::RawTable),
        fixed(
            RAW_KEY,
            RAW_KEY,
            ColumnType::Text,
            Rule::limited("the key within the RAW table; 1 to {} characters", &[Limit::Count(KEY_CHARS)]),
        )
        .role(Role::RawKey),
        fixed(
            "columns",
            COLUMNS,
            ColumnType::Jsonb,
            Rule::limited("an object of all columns of the row; at most {}", &[Limit::Mebibytes(ROW_BYTES)]),
        )
        .role(Role::Columns),
        LAST_UPDATED_TIME.role(Role::Changed),
    ],
    shape: Shape::Raw,
    path: PATH,
    per_request: ROWS_PER_REQUEST,
    per_delete: ROWS_PER_REQUEST,
    per_page: ROWS_PER_PAGE,
    keys: &[&[Role::RawDatabase, Role::RawTable, Role::RawKey]],
    turn: Turn::Beside,
    refers_to: &[],
    referred_to: false,
    acl: "rawAcl",
    ..CLASSIC
};

/// Characters of one column's name or value.
pub const COLUMN_CHARS: usize = 2_621_440;

/// A RAW table. Database and table are unknown where EXPLAIN has no names to show.
#[derive(Debug, Clone, Copy)]
pub struct RawPlace<'a> {
    pub database: Option<&'a str>,
    pub table: Option<&'a str>,
}

impl<'a> RawPlace<'a> {
    pub fn of(database: &'a str, table: &'a str) -> Self {
        RawPlace { database: Some(database), table: Some(table) }
    }

    fn below(self, databases: Endpoint) -> Endpoint {
        let tables = databases.named_or(self.database, "db_name").below("tables");
        tables.named_or(self.table, "table_name")
    }

    /// The request that writes rows.
    pub fn write(self) -> Endpoint {
        self.below(Endpoint::post(PATH)).below("rows")
    }

    /// The request that deletes rows.
    pub fn delete(self) -> Endpoint {
        self.write().below("delete")
    }

    /// The request for pages of rows.
    pub fn rows(self) -> Endpoint {
        self.below(Endpoint::get(PATH)).below("rows")
    }

    /// The request for the cursors that divide the rows.
    pub fn cursors(self) -> Endpoint {
        self.below(Endpoint::get(PATH)).below("cursors")
    }

    /// The request for a row by key. None if no URL can hold the key, or only one too long for gateways: the row is then
    /// found in the list of rows.
    pub fn row(self, key: &str) -> Option<Endpoint> {
        let row = self.rows().named(key);
        (is_segment(key) && row.length() <= LONGEST).then_some(row)
    }

    /// The same of a key that is not known yet.
    pub fn any_row(self) -> Endpoint {
        self.rows().named_or(None, RAW_KEY)
    }
}

/// The request for pages of databases.
pub fn databases() -> Endpoint {
    Endpoint::get(PATH)
}

/// The request for pages of a database's tables.
pub fn tables(database: Option<&str>) -> Endpoint {
    Endpoint::get(PATH).named_or(database, "db_name").below("tables")
}

/// Whether a database and a table may have these names.
pub fn can_exist(database: Option<&str>, table: Option<&str>) -> bool {
    let fits = |name: Option<&str>, max| name.is_none_or(|name| (1..=max).contains(&name.chars().count()));
    fits(database, DATABASE_CHARS) && fits(table, TABLE_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_urls_cannot_name_have_no_path() {
        let row = |key: &str| RawPlace::of("d", "t").row(key).map(|row| row.target());
        assert_eq!(row("a/b").as_deref(), Some("/raw/dbs/d/tables/t/rows/a%2Fb"));
        assert!(row(&"x".repeat(KEY_CHARS)).is_some());
        for key in ["", ".", "..", &" ".repeat(KEY_CHARS), &"\u{1F600}".repeat(KEY_CHARS)] {
            assert_eq!(row(key), None, "{key}");
        }
    }

    #[test]
    fn what_has_no_name_yet_is_shown_by_a_word() {
        let any = RawPlace { database: Some("d/"), table: None };
        assert_eq!(any.any_row().to_string(), "GET /raw/dbs/d%2F/tables/{table_name}/rows/{key}");
        assert_eq!(any.delete().to_string(), "POST /raw/dbs/d%2F/tables/{table_name}/rows/delete");
        assert_eq!(tables(None).to_string(), "GET /raw/dbs/{db_name}/tables");
    }
}
