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
pub type Databases = BTreeMap<String, BTreeMap<String, Table>>;
/// Rows by key.
pub type Table = BTreeMap<String, Row>;

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

/// A row in an answer, with the chosen columns only.
struct Answer<'a> {
    key: &'a str,
    row: &'a Row,
    chosen: Option<&'a [&'a str]>,
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
        let Answer { row, chosen, .. } = self.0;
        let columns = row.columns.0.iter();
        let shown = columns.filter(|(name, _)| chosen.is_none_or(|chosen| chosen.contains(&name.as_str())));
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
    match (1..=max).contains(&name.chars().count()) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!("{what}: size must be between 1 and {max} characters"))),
    }
}

fn no_database(name: &str) -> ApiError {
    ApiError::bad_request(format!("Following databases not found: {name}."))
}

fn no_tables(names: &[&str]) -> ApiError {
    ApiError::bad_request(format!("Following tables not found: {}.", names.join(", ")))
}

fn table<'a>(databases: &'a mut Databases, db: &str, name: &str) -> Result<&'a mut Table, ApiError> {
    let tables = databases.get_mut(db).ok_or_else(|| no_database(db))?;
    tables.get_mut(name).ok_or_else(|| no_tables(&[name]))
}

/// The `name`s of a request's items.
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

fn named(status: u16, names: &[String]) -> Reply {
    Reply::items(status, names.iter().map(|name| json!({ "name": name })).collect(), None)
}

/// A page of names, by `limit` and `cursor`.
fn page_of_names<'a>(
    request: &Request,
    place: &str,
    names: impl Iterator<Item = &'a String>,
) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, MAX_NAMES as i64)?.unwrap_or(25) as usize;
    let parameters = json!(place);
    let after = match request.query("cursor") {
        None => None,
        Some(cursor) => codec::decode_cursor(&parameters, cursor)?.as_str().map(str::to_owned),
    };
    let mut rest = names.filter(|name| after.as_ref().is_none_or(|after| *name > after));
    let page: Vec<&String> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let cursor = page.last().filter(|_| more).map(|last| codec::encode_cursor(&parameters, &json!(last)));
    Ok(Reply::items(200, page.iter().map(|name| json!({ "name": name })).collect(), cursor))
}

fn list_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    page_of_names(request, "", project.raw().keys())
}

fn create_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    names.iter().try_for_each(|name| check_name("name", name, MAX_DB))?;
    let mut databases = project.raw();
    refuse_existing("Databases", &names, |name| databases.contains_key(name))?;
    databases.extend(names.iter().map(|name| (name.clone(), BTreeMap::new())));
    Ok(named(201, &names))
}

fn refuse_existing(what: &str, names: &[String], exists: impl Fn(&String) -> bool) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> =
        names.iter().filter(|name| exists(name) || !seen.insert(*name)).map(String::as_str).collect();
    match twice.is_empty() {
        true => Ok(()),
        false => Err(ApiError::new(409, format!("{what} already exist: {}", twice.join(", ")))),
    }
}

fn delete_databases(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let (names, body) = names(request, "name", MAX_NAMES, &["recursive"])?;
    let recursive = flag(&body, "recursive")?;
    let mut databases = project.raw();
    for name in &names {
        let tables = databases.get(name).ok_or_else(|| no_database(name))?;
        if !recursive && !tables.is_empty() {
            return Err(ApiError::bad_request(format!("Database '{name}' is not empty")));
        }
    }
    names.iter().for_each(|name| drop(databases.remove(name)));
    Ok(Reply::empty())
}

fn list_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let databases = project.raw();
    let tables = databases.get(db).ok_or_else(|| no_database(db))?;
    page_of_names(request, db, tables.keys())
}

fn create_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let ensure = request.query_flag("ensureParent")?;
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    names.iter().try_for_each(|name| check_name("name", name, MAX_TABLE))?;
    let mut databases = project.raw();
    let tables = database(&mut databases, db, ensure)?;
    refuse_existing("Tables", &names, |name| tables.contains_key(name))?;
    tables.extend(names.iter().map(|name| (name.clone(), Table::new())));
    Ok(named(201, &names))
}

fn database<'a>(
    databases: &'a mut Databases,
    db: &str,
    ensure: bool,
) -> Result<&'a mut BTreeMap<String, Table>, ApiError> {
    if ensure {
        check_name("dbName", db, MAX_DB)?;
        return Ok(databases.entry(db.to_owned()).or_default());
    }
    databases.get_mut(db).ok_or_else(|| no_database(db))
}

fn delete_tables(project: &Project, request: &mut Request, db: &str) -> Result<Reply, ApiError> {
    let (names, _) = names(request, "name", MAX_NAMES, &[])?;
    let mut databases = project.raw();
    let tables = databases.get_mut(db).ok_or_else(|| no_database(db))?;
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
}

impl NewRow {
    fn check(&self) -> Result<(), ApiError> {
        check_name("key", &self.key, MAX_KEY)?;
        let mut total = 0;
        for (name, value) in &self.columns.0 {
            total += name.len() + value.get().len();
            // Bytes bound characters from above, so the count is rarely taken.
            for text in [name.as_str(), value.get()] {
                if text.len() > MAX_COLUMN_CHARACTERS && text.chars().count() > MAX_COLUMN_CHARACTERS {
                    return Err(ApiError::bad_request(format!(
                        "Column names and values must be at most {MAX_COLUMN_CHARACTERS} characters"
                    )));
                }
            }
        }
        match total > MAX_COLUMNS_BYTES {
            true => Err(ApiError::bad_request(format!("The columns of row '{}' exceed 5 MiB", self.key))),
            false => Ok(()),
        }
    }
}

/// Replaces the whole row of a key; the last row of a key in one request wins.
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
        database(&mut databases, db, true)?.entry(name.to_owned()).or_default();
    }
    let rows = table(&mut databases, db, name)?;
    let now = now_ms();
    for row in insert.items {
        match rows.get_mut(&row.key) {
            Some(old) if old.columns == row.columns => {}
            Some(old) => *old = Row { columns: row.columns, last_updated: now },
            None => drop(rows.insert(row.key, Row { columns: row.columns, last_updated: now })),
        }
    }
    Ok(Reply::empty())
}

/// What a cursor of rows stands for: the keys after `after` up to `upto`, and the time filter it was made with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Slice {
    after: Option<String>,
    upto: Option<String>,
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

    /// The lower bound of the time is exclusive, the upper one inclusive.
    fn rows<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = (&'a String, &'a Row)> {
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        table
            .range::<String, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| self.upto.as_ref().is_none_or(|upto| *key <= upto))
            .filter(|(_, row)| self.min.is_none_or(|min| row.last_updated > min))
            .filter(|(_, row)| self.max.is_none_or(|max| row.last_updated <= max))
    }
}

fn list_rows(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, MAX_ROWS as i64)?.unwrap_or(25) as usize;
    let place = json!([db, name]);
    // A cursor brings its own time filter; the parameters are ignored beside it.
    let slice = match request.query("cursor") {
        None => Slice::of_times(request)?,
        Some(cursor) => serde_json::from_value(codec::decode_cursor(&place, cursor)?)
            .map_err(|_| ApiError::bad_request("Invalid cursor"))?,
    };
    let columns = request.query("columns").filter(|columns| !columns.is_empty());
    let chosen: Option<Vec<&str>> =
        columns.map(|columns| columns.split(',').filter(|column| !column.is_empty()).collect());
    let mut databases = project.raw();
    let table = table(&mut databases, db, name)?;
    let mut items = Vec::new();
    let mut more = false;
    for (key, row) in slice.rows(table) {
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(Answer { key, row, chosen: chosen.as_deref() });
    }
    let last = items.last().filter(|_| more).map(|answer| answer.key.to_owned());
    let next_cursor = last.map(|last| {
        let next = Slice { after: Some(last), ..slice.clone() };
        next.cursor(&place)
    });
    Ok(Reply::json(200, &Page { items, next_cursor }))
}

fn cursors(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let wanted = request.query_integer("numberOfCursors", 1, 10_000)?.unwrap_or(10) as usize;
    let times = Slice::of_times(request)?;
    let place = json!([db, name]);
    let mut databases = project.raw();
    let table = table(&mut databases, db, name)?;
    let count = wanted.min(table.len()).max(1);
    let size = table.len().div_ceil(count).max(1);
    // The last key of every slice but the last one, which is open for rows to come.
    let cuts: Vec<&String> = table.keys().skip(size - 1).step_by(size).take(count - 1).collect();
    let cursors: Vec<Value> = (0..=cuts.len())
        .map(|slice| {
            let after = slice.checked_sub(1).map(|at| cuts[at].clone());
            let upto = cuts.get(slice).map(|key| (*key).clone());
            json!(Slice { after, upto, ..times.clone() }.cursor(&place))
        })
        .collect();
    Ok(Reply::items(200, cursors, None))
}

fn get_row(project: &Project, db: &str, name: &str, key: &str) -> Result<Reply, ApiError> {
    let mut databases = project.raw();
    match table(&mut databases, db, name)?.get_key_value(key) {
        Some((key, row)) => Ok(Reply::json(200, &Answer { key, row, chosen: None })),
        None => Err(ApiError::new(404, format!("Row with key '{key}' not found"))),
    }
}

/// Keys without a row are no error.
fn delete_rows(project: &Project, request: &mut Request, db: &str, name: &str) -> Result<Reply, ApiError> {
    let (keys, _) = names(request, "key", MAX_ROWS, &[])?;
    let mut databases = project.raw();
    let rows = table(&mut databases, db, name)?;
    keys.iter().for_each(|key| drop(rows.remove(key)));
    Ok(Reply::empty())
}

/// All rows for the admin interface, each with its database and table.
pub fn dump(project: &Project, wanted: Option<&str>) -> Vec<Value> {
    let databases = project.raw();
    let mut rows = Vec::new();
    for (db, tables) in databases.iter() {
        for (table, content) in tables {
            for (key, row) in content.iter().filter(|(key, _)| wanted.is_none_or(|wanted| *key == wanted)) {
                let answer = Answer { key, row, chosen: None };
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
