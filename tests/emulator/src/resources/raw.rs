//! RAW: databases of tables of rows, where a row is any JSON object under a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use axum::http::Method;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};

use super::classic::flag;
use super::fields::refuse_unknown;
use super::Route;
use crate::codec::{self, now_ms};
use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::Project;

const ACL: &str = "rawAcl";
const MAX_NAMES: usize = 1000;
const MAX_ROWS: usize = 10_000;
const MAX_DB: usize = 32;
const MAX_TABLE: usize = 64;
const MAX_KEY: usize = 1024;
const MAX_COLUMNS_BYTES: usize = 5 << 20;
const MAX_COLUMN_CHARACTERS: usize = 2_621_440;

/// Databases by name.
pub type Databases = BTreeMap<String, Database>;

/// A database: tables by name, and when it was created.
#[derive(Debug)]
pub struct Database {
    created: i64,
    tables: BTreeMap<String, Table>,
}

impl Database {
    fn new() -> Self {
        Self { created: now_ms(), tables: BTreeMap::new() }
    }
}

/// A table: its rows, in an order other than that of their keys, and when it was created.
#[derive(Debug)]
pub struct Table {
    created: i64,
    rows: BTreeMap<Place, Row>,
}

impl Table {
    fn new() -> Self {
        Self { created: now_ms(), rows: BTreeMap::new() }
    }
}

/// The place of a row among the others of its table. CDF does not sort rows by key, and cursors divide the range of all
/// possible keys, so that most of many parts are empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place(u64, String);

impl Place {
    fn of(key: &str) -> Self {
        Self(codec::scatter_text(key), key.to_owned())
    }
}

/// The columns of a row. Values stay the text that was sent, so that numbers keep all their digits.
#[derive(Debug, Clone, Default)]
pub struct Columns(Vec<(String, Box<RawValue>)>);

impl PartialEq for Columns {
    fn eq(&self, other: &Self) -> bool {
        let text = |columns: &Self| -> Vec<(String, String)> {
            columns.0.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect()
        };
        text(self) == text(other)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Columns;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("columns as an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match columns.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = value,
                        None => columns.push((name, value)),
                    }
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A stored row.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Columns,
    last_updated: i64,
}

/// A row in an answer, with only the chosen columns.
struct Answer<'a> {
    key: &'a str,
    row: &'a Row,
    shown: Shown<'a>,
}

/// Which columns are shown.
#[derive(Clone, Copy, Default)]
struct Shown<'a> {
    chosen: Option<&'a [&'a str]>,
    without_nulls: bool,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("key", self.key)?;
        map.serialize_entry("columns", &Chosen(self))?;
        map.serialize_entry("lastUpdatedTime", &self.row.last_updated)?;
        map.end()
    }
}

struct Chosen<'a>(&'a Answer<'a>);

impl Serialize for Chosen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Answer { row, shown: Shown { chosen, without_nulls }, .. } = *self.0;
        let columns = row.columns.0.iter();
        let shown = columns
            .filter(|(name, _)| chosen.is_none_or(|chosen| chosen.contains(&name.as_str())))
            .filter(|(_, value)| !(without_nulls && value.get() == "null"));
        serializer.collect_map(shown.map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    items: Vec<Answer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The route of a request below /raw.
pub fn route(method: &Method, rest: &[&str]) -> Option<Route> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let (get, post) = (method == Method::GET, method == Method::POST);
    match *rest {
        ["dbs"] if get => Some(Route::new(ACL, "LIST", list_databases)),
        ["dbs"] if post => Some(Route::new(ACL, "WRITE", create_databases)),
        ["dbs", "delete"] if post => Some(Route::new(ACL, "WRITE", delete_databases)),
        ["dbs", db, "tables", ref rest @ ..] => {
            let (db, path) = (db.to_owned(), own(rest));
            match *rest {
                [] if get => Some(Route::new(ACL, "LIST", move |p, r| list_tables(p, r, &db))),
                [] if post => Some(Route::new(ACL, "WRITE", move |p, r| create_tables(p, r, &db))),
                ["delete"] if post => Some(Route::new(ACL, "WRITE", move |p, r| delete_tables(p, r, &db))),
                [_, "rows"] if get => {
                    Some(Route::new(ACL, "READ", move |p, r| list_rows(p, r, &db, &path[0])))
                }
                [_, "rows"] if post => {
                    Some(Route::new(ACL, "WRITE", move |p, r| insert_rows(p, r, &db, &path[0])))
                }
                [_, "rows", "delete"] if post => {
                    Some(Route::new(ACL, "WRITE", move |p, r| delete_rows(p, r, &db, &path[0])))
                }
                [_, "rows", _key] if get => {
                    Some(Route::new(ACL, "READ", move |p, _| get_row(p, &db, &path[0], &path[2])))
                }
                [_, "cursors"] if get => {
                    Some(Route::new(ACL, "READ", move |p, r| cursors(p, r, &db, &path[0])))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn check_name(what: &str, name: &str, max: usize) -> Result<(), ApiError> {
    if (1..=max).contains(&name.chars().count()) {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!("{what}: size must be between 1 and {max} characters")))
    }
}

fn no_database(name: &str) -> ApiError {
    ApiError::bad_request(format!("Following databases not found: {name}."))
}

fn no_tables(names: &[&str]) -> ApiError {
    ApiError::bad_request(format!("Following tables not found: {}.", names.join(", ")))
}

fn table<'a>(databases: &'a mut Databases, db: &str, name: &str) -> Result<&'a mut Table, ApiError> {
    let database = databases.get_mut(db).ok_or_else(|| no_database(db))?;
    database.tables.get_mut(name).ok_or_else(|| no_tables(&[name]))
}

/// Returns the `name`s in a request's items.
fn names(
    request: &mut Request,
    field: &str,
    max_items: usize,
    known: &[&str],
) -> Result<(Vec<String>, Map<String, Value>), ApiError> {
    let mut body = request.json()?;
    let items = body.shift_remove("items");
    refuse_unknown("the request", &body, known)?;
    let Some(Value::Array(items)) = items else {
        return Err(ApiError::bad_request("Missing required field: items"));
    };
    if !(1..=max_items).contains(&items.len()) {
        let got = items.len();
        return Err(ApiError::bad_request(format!(
            "items: size must be between 1 and {max_items}, got {got}"
        )));
    }
    let names = items
        .iter()
        .map(|item| {
            refuse_unknown("items", item.as_object().unwrap_or(&Map::new()), &[field])?;
            let name = item.get(field).and_then(Value::as_str);
            name.map(str::to_owned)
                .ok_or_else(|| ApiError::bad_request(format!("Missing required field: {field}")))
        })
        .collect::<Result<Vec<String>, ApiError>>()?;
    Ok((names, body))
}

/// Returns a database or table as answers show it.
fn named(name: &str, created: i64) -> Value {
    json!({ "name": name, "createdTime": created })
}

/// Returns a page of names, by `limit` and `cursor`.
fn page_of_names<'a>(
    request: &Request,
    place: &str,
    names: impl Iterator<Item = (&'a String, i64)>,
) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, MAX_NAMES as i64)?.unwrap_or(25) as usize;
    let parameters = json!(place);
    let after = match request.query("cursor") {
        None => None,
        Some(cursor) => codec::decode_cursor(&parameters, cursor)?.as_str().map(str::to_owned),
    };
    let mut rest = names.filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
    let page: Vec<(&String, i64)> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let last = page.last().filter(|_| more);
    let cursor = last.map(|(last, _)| codec::encode_cursor(&parameters, &json!(last)));
    Ok(Reply::items(200, page.iter().map(|(name, created)| named(name, *created)).collect(), cursor))
}

fn list_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    page_of_names(request, "", project.raw().iter().map(|(name, database)| (name, database.created)))
}

fn create_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    names.iter().try_for_each(|name| check_name("name", name, MAX_DB))?;
    let mut databases = project.raw();
    refuse_existing("Databases", &names, |name| databases.contains_key(name))?;
    databases.extend(names.iter().map(|name| (name.clone(), Database::new())));
    Ok(Reply::items(201, names.iter().map(|name| named(name, databases[name].created)).collect(), None))
}

fn refuse_existing(what: &str, names: &[String], exists: impl Fn(&String) -> bool) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> =
        names.iter().filter(|name| exists(name) || !seen.insert(*name)).map(String::as_str).collect();
    if twice.is_empty() {
        Ok(())
    } else {
        Err(ApiError::new(409, format!("{what} already exist: {}", twice.join(", "))))
    }
}

fn delete_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let (names, body) = names(request, "name", MAX_NAMES, &["recursive"])?;
    let recursive = flag(&body, "recursive")?;
    let mut databases = project.raw();
    // As recorded: all of them, each as often as the request has it.
    let unknown: Vec<&str> =
        names.iter().filter(|name| !databases.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let missing = unknown.iter().map(|name| json!({ "name": name })).collect();
        let message = format!("Following databases not found: {}", unknown.join(", "));
        let mut error = ApiError::missing(message, missing);
        error.status = 404;
        return Err(error);
    }
    if let Some(name) = names.iter().find(|name| !recursive && !databases[*name].tables.is_empty()) {
        return Err(ApiError::bad_request(format!("Database '{name}' is not empty")));
    }
    names.iter().for_each(|name| drop(databases.remove(name)));
    Ok(Reply::empty())
}

fn list_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let databases = project.raw();
    let database = databases.get(db).ok_or_else(|| no_database(db))?;
    page_of_names(request, db, database.tables.iter().map(|(name, table)| (name, table.created)))
}

fn create_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let ensure = request.query_flag("ensureParent")?;
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    names.iter().try_for_each(|name| check_name("name", name, MAX_TABLE))?;
    let mut databases = project.raw();
    let known = |name: &String| databases.get(db).is_some_and(|database| database.tables.contains_key(name));
    refuse_existing("Tables", &names, known)?;
    let tables = &mut database(&mut databases, db, ensure)?.tables;
    tables.extend(names.iter().map(|name| (name.clone(), Table::new())));
    Ok(Reply::items(201, names.iter().map(|name| named(name, tables[name].created)).collect(), None))
}

fn database<'a>(databases: &'a mut Databases, db: &str, ensure: bool) -> Result<&'a mut Database, ApiError> {
    if ensure {
        check_name("dbName", db, MAX_DB)?;
        return Ok(databases.entry(db.to_owned()).or_insert_with(Database::new));
    }
    databases.get_mut(db).ok_or_else(|| no_database(db))
}

fn delete_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    let mut databases = project.raw();
    let tables = &mut databases.get_mut(db).ok_or_else(|| no_database(db))?.tables;
    let missing: Vec<&str> =
        names.iter().filter(|name| !tables.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(no_tables(&missing));
    }
    names.iter().for_each(|name| drop(tables.remove(name)));
    Ok(Reply::empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Insert {
    items: Vec<NewRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRow {
    key: String,
    columns: Columns,
    /// As recorded, null is accepted; a time is not, since only CDF sets it.
    #[serde(default, rename = "lastUpdatedTime")]
    _last_updated: (),
}

impl NewRow {
    fn check(&self) -> Result<(), ApiError> {
        check_name("key", &self.key, MAX_KEY)?;
        let mut total = 0;
        for (name, value) in &self.columns.0 {
            total += name.len() + value.get().len();
            // A text has at most as many characters as bytes, so they are rarely counted.
            for text in [name.as_str(), value.get()] {
                if text.len() > MAX_COLUMN_CHARACTERS && text.chars().count() > MAX_COLUMN_CHARACTERS {
                    return Err(ApiError::bad_request(format!(
                        "Column names and values must be at most {MAX_COLUMN_CHARACTERS} characters"
                    )));
                }
            }
        }
        if total > MAX_COLUMNS_BYTES {
            Err(ApiError::bad_request(format!("The columns of row '{}' exceed 5 MiB", self.key)))
        } else {
            Ok(())
        }
    }
}

/// Replaces the whole row of a key; of several rows with one key in a request the last wins.
fn insert_rows(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let ensure = request.query_flag("ensureParent")?;
    let insert: Insert = serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("Malformed rows: {error}")))?;
    request.counts.items = insert.items.len() as u64;
    insert.items.iter().take(10).for_each(|row| request.counts.note(&row.key));
    if !(1..=MAX_ROWS).contains(&insert.items.len()) {
        let got = insert.items.len();
        return Err(ApiError::bad_request(format!(
            "items: size must be between 1 and {MAX_ROWS}, got {got}"
        )));
    }
    insert.items.iter().try_for_each(NewRow::check)?;
    let mut databases = project.raw();
    if ensure {
        check_name("tableName", name, MAX_TABLE)?;
        database(&mut databases, db, true)?.tables.entry(name.to_owned()).or_insert_with(Table::new);
    }
    let rows = &mut table(&mut databases, db, name)?.rows;
    let now = now_ms();
    for row in insert.items {
        let place = Place::of(&row.key);
        match rows.get_mut(&place) {
            Some(old) if old.columns == row.columns => {}
            Some(old) => *old = Row { columns: row.columns, last_updated: now },
            None => drop(rows.insert(place, Row { columns: row.columns, last_updated: now })),
        }
    }
    Ok(Reply::empty())
}

/// The meaning of a cursor of rows: the places after `after`, or from `from` on, and before `before`, and the time
/// filter that it was made with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Slice {
    after: Option<Place>,
    from: u64,
    before: Option<u64>,
    min: Option<i64>,
    max: Option<i64>,
}

impl Slice {
    fn of_times(request: &Request) -> Result<Self, ApiError> {
        let min = request.query_integer("minLastUpdatedTime", 0, i64::MAX)?;
        let max = request.query_integer("maxLastUpdatedTime", 0, i64::MAX)?;
        Ok(Self { min, max, ..Self::default() })
    }

    fn cursor(&self, place: &Value) -> String {
        codec::encode_cursor(place, &json!(self))
    }

    /// Returns the rows. The lower bound of the time is exclusive, the upper one inclusive.
    fn rows<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = (&'a Place, &'a Row)> {
        let from = match &self.after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(Place(self.from, String::new())),
        };
        table
            .rows
            .range((from, Bound::Unbounded))
            .take_while(|(place, _)| self.before.is_none_or(|before| place.0 < before))
            .filter(|(_, row)| self.min.is_none_or(|min| row.last_updated > min))
            .filter(|(_, row)| self.max.is_none_or(|max| row.last_updated <= max))
    }
}

fn list_rows(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, MAX_ROWS as i64)?.unwrap_or(25) as usize;
    let place = json!([db, name]);
    // A cursor has its own time filter; the parameters beside it are ignored.
    let slice = match request.query("cursor") {
        None => Slice::of_times(request)?,
        Some(cursor) => serde_json::from_value(codec::decode_cursor(&place, cursor)?)
            .map_err(|_| ApiError::bad_request("Invalid cursor"))?,
    };
    let columns = request.query("columns").filter(|columns| !columns.is_empty());
    let chosen: Option<Vec<&str>> =
        columns.map(|columns| columns.split(',').filter(|column| !column.is_empty()).collect());
    let shown = Shown { chosen: chosen.as_deref(), without_nulls: request.query_flag("filterNullFields")? };
    let mut databases = project.raw();
    let table = table(&mut databases, db, name)?;
    let mut items = Vec::new();
    let (mut last, mut more) = (None, false);
    for (at, row) in slice.rows(table) {
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(Answer { key: &at.1, row, shown });
        last = Some(at.clone());
    }
    let next_cursor = last.filter(|_| more).map(|last| {
        let next = Slice { after: Some(last), ..slice.clone() };
        next.cursor(&place)
    });
    Ok(Reply::json(200, &Page { items, next_cursor }))
}

fn cursors(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let wanted = request.query_integer("numberOfCursors", 1, 10_000)?.unwrap_or(10) as u64;
    let times = Slice::of_times(request)?;
    let place = json!([db, name]);
    let mut databases = project.raw();
    table(&mut databases, db, name)?;
    // As recorded, exactly as many as were asked for, however few rows there are.
    let size = u64::MAX / wanted;
    let slice = |at: u64| {
        let before = (at + 1 < wanted).then(|| (at + 1) * size);
        json!(Slice { from: at * size, before, ..times.clone() }.cursor(&place))
    };
    Ok(Reply::items(200, (0..wanted).map(slice).collect(), None))
}

fn get_row(project: &Project, db: &str, name: &str, key: &str) -> Result<Reply, ApiError> {
    let mut databases = project.raw();
    match table(&mut databases, db, name)?.rows.get(&Place::of(key)) {
        Some(row) => Ok(Reply::json(200, &Answer { key, row, shown: Shown::default() })),
        None => Err(ApiError::new(404, format!("Row with key '{key}' not found"))),
    }
}

/// Deletes rows. Keys without a row are no error.
fn delete_rows(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let (keys, _) = names(request, "key", MAX_ROWS, &[])?;
    let mut databases = project.raw();
    let rows = &mut table(&mut databases, db, name)?.rows;
    keys.iter().for_each(|key| drop(rows.remove(&Place::of(key))));
    Ok(Reply::empty())
}

/// Returns all rows for the admin interface, each with its database and table.
pub fn dump(project: &Project, wanted: Option<&str>) -> Vec<Value> {
    let databases = project.raw();
    let mut rows = Vec::new();
    for (db, database) in databases.iter() {
        for (table, content) in &database.tables {
            // Sorted by key, for readers of the state.
            let mut sorted: Vec<(&str, &Row)> =
                content.rows.iter().map(|(place, row)| (place.1.as_str(), row)).collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (key, row) in sorted.into_iter().filter(|(key, _)| wanted.is_none_or(|wanted| *key == wanted))
            {
                let answer = Answer { key, row, shown: Shown::default() };
                // Through text, since a Value cannot hold unparsed JSON.
                let json = serde_json::to_string(&answer)
                    .ok()
                    .and_then(|text| serde_json::from_str::<Value>(&text).ok());
                if let Some(mut json) = json {
                    json["database"] = json!(db);
                    json["table"] = json!(table);
                    rows.push(json);
                }
            }
        }
    }
    rows
}
