//! Pages of RAW rows: of one table, or of all tables that the conditions leave.

use std::collections::VecDeque;

use serde_json::Value;

use super::{take_page, Call, Comparison, Field, Operand, Query, Row};
use crate::cdf::error::Error;
use crate::cdf::resource::raw::rows_path;
use crate::cdf::table::{Binding, RAW_KEY};
use crate::cdf::url_path::segment;

/// Rows per request, CDF's maximum.
const ROWS: usize = 10_000;
/// Databases and tables per request, CDF's maximum.
const NAMES: usize = 1000;

pub struct RawPages {
    step: Option<Step>,
    tables: VecDeque<(String, String)>,
    /// The only key wanted.
    key: Option<String>,
    /// `&columns=…`: CDF sends only those.
    projection: String,
}

enum Step {
    /// Which databases and tables there are.
    Discover { database: Option<String>, table: Option<String> },
    /// Rows of a table.
    Rows { database: String, table: String, cursor: Option<String> },
}

impl RawPages {
    pub fn new(query: &Query) -> Self {
        let options = &query.table.options;
        let step = match (&options.database, &options.table) {
            (Some(database), Some(table)) => {
                Step::Rows { database: database.clone(), table: table.clone(), cursor: None }
            }
            _ => match (query.equal_text("db_name"), query.equal_text("table_name")) {
                (Some(database), Some(table)) => {
                    Step::Rows { database: database.to_owned(), table: table.to_owned(), cursor: None }
                }
                (database, table) => {
                    Step::Discover { database: database.map(str::to_owned), table: table.map(str::to_owned) }
                }
            },
        };
        RawPages { step: Some(step), tables: VecDeque::new(), key: key(query), projection: projection(query) }
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        let step = self.step.take().or_else(|| {
            self.tables.pop_front().map(|(database, table)| Step::Rows { database, table, cursor: None })
        });
        match step {
            None => Ok(None),
            Some(Step::Discover { database, table }) => {
                self.discover(call, database, table).await?;
                Ok(Some(Vec::new()))
            }
            Some(Step::Rows { database, table, cursor }) => {
                self.rows(call, database, table, cursor).await.map(Some)
            }
        }
    }

    async fn discover(
        &mut self,
        call: &Call<'_>,
        database: Option<String>,
        table: Option<String>,
    ) -> Result<(), Error> {
        let databases = match database {
            Some(database) => vec![database],
            None => names(call, "/raw/dbs").await?,
        };
        for database in databases {
            let tables = match &table {
                Some(table) => vec![table.clone()],
                None => {
                    let segment = segment(&database);
                    names(call, &format!("/raw/dbs/{segment}/tables")).await?
                }
            };
            self.tables.extend(tables.into_iter().map(|table| (database.clone(), table)));
        }
        Ok(())
    }

    async fn rows(
        &mut self,
        call: &Call<'_>,
        database: String,
        table: String,
        cursor: Option<String>,
    ) -> Result<Vec<Row>, Error> {
        let path = rows_path(&database, &table);
        let items = match &self.key {
            Some(key) => {
                let key = segment(key);
                // A table that does not exist has no rows: the first load creates it.
                call.get(&format!("{path}/{key}")).await?.into_iter().collect()
            }
            None => {
                let mut path = format!("{path}?limit={}{}", call.query.page(ROWS), self.projection);
                if let Some(cursor) = &cursor {
                    path.push_str("&cursor=");
                    path.extend(segment(cursor));
                }
                let (items, cursor) = call.get(&path).await?.map(take_page).unwrap_or_default();
                if cursor.is_some() {
                    self.step = Some(Step::Rows { database: database.clone(), table: table.clone(), cursor });
                }
                items
            }
        };
        Ok(items.into_iter().map(|item| row(call.query, &database, &table, item)).collect())
    }
}

/// Names of all databases, or of all tables of one.
async fn names(call: &Call<'_>, path: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut page = format!("{path}?limit={NAMES}");
        if let Some(cursor) = &cursor {
            page.push_str("&cursor=");
            page.extend(segment(cursor));
        }
        let (items, next) = call.get(&page).await?.map(take_page).unwrap_or_default();
        names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        cursor = next;
        if cursor.is_none() {
            return Ok(names);
        }
    }
}

/// The key that the conditions ask for.
fn key(query: &Query) -> Option<String> {
    let is_key = |at: usize| match &query.table.bindings[at] {
        Some(Binding::Column(column)) => column.name == RAW_KEY,
        Some(Binding::RawColumn { key, .. }) => *key,
        _ => false,
    };
    query.conditions.iter().find_map(|condition| match &condition.operand {
        Operand::Text(text) if is_key(condition.column) && condition.comparison == Comparison::Equal => {
            Some(text.clone())
        }
        _ => None,
    })
}

/// The columns that CDF has to send. Names are separated by commas, and `,` alone means none.
fn projection(query: &Query) -> String {
    let names: Vec<&str> = if query.table.options.table.is_some() {
        query
            .table
            .bindings
            .iter()
            .enumerate()
            .filter_map(|(at, binding)| match binding {
                Some(Binding::RawColumn { name, key }) if query.needed[at] && !(*key && name == RAW_KEY) => {
                    Some(name.as_str())
                }
                _ => None,
            })
            .collect()
    } else if query.needs("columns") {
        return String::new();
    } else {
        Vec::new()
    };
    if names.iter().any(|name| name.contains(',') || name.is_empty()) {
        return String::new();
    }
    match names.is_empty() {
        true => "&columns=%2C".to_owned(),
        false => format!("&columns={}", segment(&names.join(","))),
    }
}

fn row(query: &Query, database: &str, table: &str, mut item: Value) -> Row {
    let field = |(at, binding): (usize, &Option<Binding>)| {
        if !query.needed[at] {
            return Field::Null;
        }
        match binding {
            None | Some(Binding::Property { .. }) => Field::Null,
            Some(Binding::RawColumn { name, key: true }) if name == RAW_KEY => text(&item["key"]),
            Some(Binding::RawColumn { name, key }) => match &item["columns"][name] {
                // A row written by others may have its key as key only.
                Value::Null if *key => text(&item["key"]),
                Value::Null => Field::Null,
                Value::String(text) => Field::Text(text.clone()),
                value => Field::Json(value.clone()),
            },
            Some(Binding::Column(column)) => match column.name {
                "db_name" => Field::Text(database.to_owned()),
                "table_name" => Field::Text(table.to_owned()),
                "key" => text(&item["key"]),
                "columns" => Field::Json(item["columns"].take()),
                _ => item[column.property].as_i64().map_or(Field::Null, Field::Millis),
            },
        }
    };
    query.table.bindings.iter().enumerate().map(field).collect()
}

fn text(value: &Value) -> Field {
    value.as_str().map_or(Field::Null, |text| Field::Text(text.to_owned()))
}
