//! Pages of RAW rows: of one table, or of all tables that the conditions allow.

use std::collections::VecDeque;

use super::call::{take_page, Call};
use super::condition::{Comparison, Operand};
use super::field::{Field, Row};
use super::overlay::RawOverlay;
use super::own::Own;
use super::query::Query;
use super::range::Moments;
use crate::cdf::document::Value;
use crate::cdf::encode::fragment::Key;
use crate::cdf::error::Error;
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::url_path::{CURSOR, LONGEST};
use crate::cdf::resource::raw::{
    can_exist, databases, tables as tables_of, RawPlace, COLUMNS, KEY_CHARS, RAW_KEY, ROWS_PER_PAGE,
};
use crate::cdf::resource::Role;
use crate::cdf::table::Binding;

/// Databases and tables per request, at most.
const NAMES: usize = 1000;
/// Up to this many rows are asked for one by one rather than found in the whole table.
pub(super) const KEYS: usize = 20;

pub struct RawPages {
    step: Option<RawStep>,
    overlay: RawOverlay,
    tables: VecDeque<(String, String)>,
    /// The only keys wanted.
    keys: Option<Vec<String>>,
    /// How many of them the list of the table has shown so far.
    found: usize,
    /// The range of time in which the rows were last changed.
    changed: Moments,
    /// The parameter `columns`: CDF sends only these.
    projection: Option<String>,
}

enum RawStep {
    /// Lists the databases and tables.
    Discover { database: Option<String>, table: Option<String> },
    /// Rows of a table.
    Rows { database: String, table: String, cursor: Option<String> },
    /// Single rows of a table, the last one first.
    ByKeys { database: String, table: String, rows: Vec<Endpoint> },
    /// The rows of a table that only the transaction has.
    Rest { database: String, table: String },
}

impl RawPages {
    pub fn new(query: &Query, own: &Own) -> Result<Self, Error> {
        let options = &query.table.options;
        let step = match (&options.database, &options.table) {
            (Some(database), Some(table)) => {
                RawStep::Rows { database: database.clone(), table: table.clone(), cursor: None }
            }
            _ => match (query.equal_text(Role::RawDatabase), query.equal_text(Role::RawTable)) {
                (Some(database), Some(table)) => {
                    RawStep::Rows { database: database.to_owned(), table: table.to_owned(), cursor: None }
                }
                (database, table) => RawStep::Discover {
                    database: database.map(str::to_owned),
                    table: table.map(str::to_owned),
                },
            },
        };
        let can_exist = match &step {
            RawStep::Discover { database, table } => can_exist(database.as_deref(), table.as_deref()),
            RawStep::Rows { database, table, .. }
            | RawStep::ByKeys { database, table, .. }
            | RawStep::Rest { database, table } => can_exist(Some(database), Some(table)),
        };
        let overlay = RawOverlay::new(&query.pending.items)?;
        // Rows that are merged or listed with own writes need all columns.
        let projection = if query.pending.is_empty() && own.is_empty() { projection(query) } else { None };
        let changed = changed(query);
        Ok(RawPages {
            step: (!changed.is_empty() && can_exist).then_some(step),
            overlay,
            tables: VecDeque::new(),
            keys: keys(query),
            found: 0,
            changed,
            projection,
        })
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        let step = self.step.take().or_else(|| {
            self.tables.pop_front().map(|(database, table)| RawStep::Rows { database, table, cursor: None })
        });
        match step {
            None => Ok(None),
            Some(RawStep::Discover { database, table }) => {
                self.discover(call, database, table).await?;
                Ok(Some(Vec::new()))
            }
            Some(RawStep::ByKeys { database, table, mut rows }) => {
                let Some(row) = rows.pop() else {
                    self.step = Some(RawStep::Rest { database, table });
                    return Ok(Some(Vec::new()));
                };
                // A table that does not exist has no rows: the first load creates it.
                let item = call.get(row, Owed::RawRow).await?;
                self.step = Some(RawStep::ByKeys { database: database.clone(), table: table.clone(), rows });
                self.overlaid(call, (database, table), item.into_iter().collect()).await.map(Some)
            }
            Some(RawStep::Rest { database, table }) => {
                let place = (database, table);
                let more = call.own.rest(Some(&place)).await?;
                self.overlay.add(&more)?;
                let rows = self.overlay.rest(&place);
                let rows = rows.into_iter().map(|item| row(call.query, &place.0, &place.1, item)).collect();
                if !more.is_empty() {
                    let (database, table) = place;
                    self.step = Some(RawStep::Rest { database, table });
                }
                Ok(Some(rows))
            }
            Some(RawStep::Rows { database, table, cursor }) => {
                if cursor.is_none() {
                    self.found = 0;
                    if let Some(rows) = self.rows_by_key(RawPlace::of(&database, &table)) {
                        self.step = Some(RawStep::ByKeys { database, table, rows });
                        return Ok(Some(Vec::new()));
                    }
                }
                self.rows(call, database, table, cursor).await.map(Some)
            }
        }
    }

    /// Returns the requests for the wanted rows, if they are few and URLs can name all of them.
    fn rows_by_key(&self, place: RawPlace<'_>) -> Option<Vec<Endpoint>> {
        self.keys.as_ref()?.iter().map(|key| place.row(key)).collect()
    }

    async fn discover(
        &mut self,
        call: &Call<'_>,
        database: Option<String>,
        table: Option<String>,
    ) -> Result<(), Error> {
        let wanted = (database.clone(), table.clone());
        let databases = match database {
            Some(database) => vec![database],
            None => names(call, databases()).await?,
        };
        for database in databases {
            let tables = match &table {
                Some(table) => vec![table.clone()],
                None => names(call, tables_of(Some(&database))).await?,
            };
            self.tables.extend(tables.into_iter().map(|table| (database.clone(), table)));
        }
        // Tables that this transaction is going to create.
        let fits = |place: &&(String, String)| {
            wanted.0.as_ref().is_none_or(|database| *database == place.0)
                && wanted.1.as_ref().is_none_or(|table| *table == place.1)
        };
        let written = self.overlay.tables().chain(&call.own.places);
        let new: Vec<_> = written.filter(fits).filter(|at| !self.tables.contains(at)).cloned().collect();
        self.tables.extend(new);
        Ok(())
    }

    async fn rows(
        &mut self,
        call: &Call<'_>,
        database: String,
        table: String,
        cursor: Option<String>,
    ) -> Result<Vec<Row>, Error> {
        // If rows are looked for by their keys, only few on a page are of use.
        let limit = if self.keys.is_some() { ROWS_PER_PAGE } else { call.query.page(ROWS_PER_PAGE) };
        let mut page = RawPlace::of(&database, &table).rows().with("limit", limit);
        // CDF's minimum is exclusive.
        if self.changed.first > 0 {
            page = page.with("minLastUpdatedTime", self.changed.first - 1);
        }
        if self.changed.last < i64::MAX / 1000 {
            page = page.with("maxLastUpdatedTime", self.changed.last);
        }
        if let Some(columns) = &self.projection {
            let projected = page.clone().with(COLUMNS, columns);
            // If the list of columns is longer, CDF sends all columns.
            page = if projected.length() <= LONGEST - CURSOR { projected } else { page };
        }
        let page = page.with_cursor(cursor.as_deref());
        let (mut items, mut cursor) = call.get(page, Owed::List).await?.map(take_page).unwrap_or_default();
        if let Some(keys) = &self.keys {
            items.retain(|item| {
                item[RAW_KEY].as_str().is_some_and(|key| keys.iter().any(|wanted| wanted == key))
            });
            self.found += items.len();
            cursor = cursor.filter(|_| self.found < keys.len());
        }
        self.step = Some(match cursor {
            Some(_) => RawStep::Rows { database: database.clone(), table: table.clone(), cursor },
            None => RawStep::Rest { database: database.clone(), table: table.clone() },
        });
        self.overlaid(call, (database, table), items).await
    }

    /// Returns the rows with what the transaction has written to them.
    async fn overlaid(
        &mut self,
        call: &Call<'_>,
        place: (String, String),
        items: Vec<Value>,
    ) -> Result<Vec<Row>, Error> {
        let keys = items.iter().filter_map(|item| Some(Key::of_raw_row(item[RAW_KEY].as_str()?)));
        self.overlay.add(&call.own.of_keys(Some(&place), keys).await?)?;
        let items = items.into_iter().filter_map(|item| self.overlay.apply(&place, item));
        Ok(items.map(|item| row(call.query, &place.0, &place.1, item)).collect())
    }
}

/// Returns the names of all databases, or of all tables of one.
async fn names(call: &Call<'_>, endpoint: Endpoint) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = endpoint.clone().with("limit", NAMES).with_cursor(cursor.as_deref());
        let (items, next) = call.get(page, Owed::List).await?.map(take_page).unwrap_or_default();
        names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        cursor = next;
        if cursor.is_none() {
            return Ok(names);
        }
    }
}

/// Returns the keys that the conditions ask for, if they are few.
fn keys(query: &Query) -> Option<Vec<String>> {
    let key = query.table.position_of(Role::RawKey);
    query.conditions.iter().filter(|condition| Some(condition.column) == key).find_map(|condition| {
        let operands = match (condition.comparison, &condition.operand) {
            (Comparison::Equal, operand) => std::slice::from_ref(operand),
            (Comparison::AnyOf, Operand::List(operands)) => operands.as_slice(),
            _ => return None,
        };
        let mut keys = Vec::new();
        for operand in operands {
            match operand {
                Operand::Text(key) if keys.contains(key) => {}
                // CDF has no such keys.
                Operand::Text(key) if key.is_empty() || key.chars().count() > KEY_CHARS => {}
                Operand::Text(_) if keys.len() == KEYS => return None,
                Operand::Text(key) => keys.push(key.clone()),
                _ => return None,
            }
        }
        Some(keys)
    })
}

/// Returns the range of time in which rows must have been changed last.
fn changed(query: &Query) -> Moments {
    let mut moments = Moments::ALL;
    let column = query.table.position_of(Role::Changed);
    for condition in query.conditions.iter().filter(|condition| Some(condition.column) == column) {
        if let Operand::Micros(micros) = condition.operand {
            moments.narrow(condition.comparison, micros);
        }
    }
    moments
}

/// Returns the columns that CDF has to send. Commas separate the names, and `,` alone means none.
fn projection(query: &Query) -> Option<String> {
    let names: Vec<&str> = if query.table.options.table.is_some() {
        query
            .table
            .bindings
            .iter()
            .enumerate()
            .filter_map(|(at, binding)| match binding {
                Some(Binding::RawColumn { name, key: false }) if query.needed[at] => Some(name.as_str()),
                _ => None,
            })
            .collect()
    } else if query.needs(Role::Columns) {
        return None;
    } else {
        Vec::new()
    };
    if names.iter().any(|name| name.contains(',') || name.is_empty()) {
        return None;
    }
    Some(if names.is_empty() { ",".to_owned() } else { names.join(",") })
}

fn row(query: &Query, database: &str, table: &str, mut item: Value) -> Row {
    let mut place = 0;
    let field = |(at, binding): (usize, &Option<Binding>)| {
        if !query.needed[at] {
            return Field::Null;
        }
        match binding {
            None | Some(Binding::Property { .. }) => Field::Null,
            // Whatever the RAW column of the same name holds, a row is found again by its key.
            Some(Binding::RawColumn { key: true, .. }) => text(&item[RAW_KEY]),
            Some(Binding::RawColumn { name, .. }) => {
                match item[COLUMNS].as_object().and_then(|columns| columns.get_next(name, &mut place)) {
                    None | Some(Value::Null) => Field::Null,
                    Some(Value::String(text)) => Field::Text(text.clone()),
                    Some(value) => Field::Json(value.clone()),
                }
            }
            Some(Binding::Column(column)) => match column.role {
                Role::RawDatabase => Field::Text(database.to_owned()),
                Role::RawTable => Field::Text(table.to_owned()),
                Role::RawKey => text(&item[RAW_KEY]),
                Role::Columns => Field::Json(item[COLUMNS].take()),
                _ => item[column.property].as_i64().map_or(Field::Null, Field::Millis),
            },
        }
    };
    query.table.bindings.iter().enumerate().map(field).collect()
}

fn text(value: &Value) -> Field {
    value.as_str().map_or(Field::Null, |text| Field::Text(text.to_owned()))
}
