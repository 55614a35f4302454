//! Reading: which requests answer a SELECT, page by page.

pub mod existing;
pub mod filter;
mod instances;
mod items;
mod journal;
mod overlay;
pub mod own;
mod point_overlay;
mod points;
mod properties;
mod raw;
pub mod sample;
mod sequence_rows;
pub mod zone;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;
use serde_json::json;

use super::buffer::Pending;
use super::cell::{Cell, EPOCH_MILLIS};
use super::document::Value;
use super::error::{Error, Identity, RequestError};
use super::http::client::Client;
use super::http::connection::Connection;
use super::http::endpoint::Endpoint;
use super::http::owed::Owed;
use super::http::request::{Body, Limits, Request};
use super::http::response::Response;
use super::http::retry::Resend;
use super::resource::raw::KEY_CHARS;
use super::resource::{Resource, Role, Shape, EXTERNAL_ID_CHARS, ID_RANGE};
use super::table::{Binding, Table};
use own::Own;

/// A value that was read, to be brought into the column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    /// Milliseconds since 1970.
    Millis(i64),
    /// Anything that CDF has as JSON.
    Json(Value),
}

impl Field {
    /// The value as a row that is written has it.
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Field::Null => Cell::Null,
            Field::Int(value) => Cell::Int(*value),
            Field::Float(value) => Cell::Float(*value),
            Field::Text(text) => Cell::Text(text),
            Field::Millis(millis) => {
                Cell::Timestamp(millis.saturating_sub(EPOCH_MILLIS).saturating_mul(1000))
            }
            Field::Json(value) => value.as_i64().map_or(Cell::Null, Cell::Int),
        }
    }
}

/// One row, a field for each column of the foreign table.
pub type Row = Vec<Field>;

/// How a condition compares its column with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal to any of a list.
    AnyOf,
    /// LIKE, the pattern with backslashes as escapes.
    Like,
    StartsWith,
    IsNull,
    IsNotNull,
    /// An array has all elements of a list; metadata has all pairs of an object.
    Contains,
    /// An array has one of a list.
    Overlaps,
    /// An array has this element.
    HasElement,
    /// Of metadata: the value of the first of two texts is the second.
    Member,
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operand {
    Text(String),
    Int(i64),
    /// The bits of a double.
    Float(u64),
    /// Microseconds since 1970.
    Micros(i64),
    Bool(bool),
    /// A JSON document.
    Json(String),
    /// For comparisons with several values.
    List(Vec<Operand>),
}

/// What the value of a condition is, or the elements of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandKind {
    Text,
    Int,
    Double,
    /// Compared with a column of reals: a double too.
    Real,
    Time,
    /// An integer, the days since 2000.
    Day,
    Bool,
    Json,
}

/// `column comparison value`. PostgreSQL checks it again: it only has to save requests and rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Position of the column in the foreign table.
    pub column: usize,
    pub comparison: Comparison,
    pub operand: Operand,
}

/// Whether CDF can be asked for the rows of a table by such a condition.
pub fn filters_on(table: &Table, at: usize, comparison: Comparison) -> bool {
    let equal = comparison == Comparison::Equal;
    let one_of = equal || comparison == Comparison::AnyOf;
    let resource = table.options.resource;
    let column = match &table.bindings[at] {
        Some(Binding::Column(column)) => column,
        Some(Binding::RawColumn { key, .. }) => return *key && one_of,
        Some(Binding::Property { .. }) => return properties::filters_on(table, at, comparison),
        None => return false,
    };
    let as_key = match column.role {
        Role::Id | Role::ExternalId | Role::Space | Role::RawKey => resource.is_in_key(column.role) && one_of,
        Role::NodeSpace | Role::NodeExternalId | Role::RawDatabase | Role::RawTable => equal,
        Role::Timestamp | Role::RowNumber | Role::Changed => is_order(comparison),
        _ => false,
    };
    as_key
        || match resource.is_behind_view() {
            true => properties::filters_on(table, at, comparison),
            false => filter::filters_on(column, comparison),
        }
}

/// Whether the comparison is one of order, or equality.
fn is_order(comparison: Comparison) -> bool {
    use Comparison::*;
    matches!(comparison, Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
}

/// What the requests of a scan gave.
#[derive(Debug, Default)]
pub struct Statistics {
    pub requests: AtomicU64,
    pub pages: AtomicU64,
    pub rows: AtomicU64,
}

/// What a SELECT wants of one foreign table.
#[derive(Debug, Clone)]
pub struct Query {
    pub table: Arc<Table>,
    pub connection: Arc<Connection>,
    pub conditions: Vec<Condition>,
    /// Whether each column is needed.
    pub needed: Vec<bool>,
    /// So many rows are probably enough.
    pub limit: Option<usize>,
    /// The rows are to be changed. CDF's lists are moments behind: what they show is asked for again by its keys, so that
    /// nothing is changed by what it was.
    pub to_change: bool,
    /// What the transaction itself has written to the table's resource, if the reader does not [ask](own::Own) for it.
    pub pending: Pending,
}

impl Query {
    /// What is read, as errors name it.
    pub fn name(&self) -> String {
        let (database, table) = self.raw_place();
        self.table
            .options
            .resource
            .named(self.table.view.as_deref().map(|view| &view.name as _), database.zip(table))
    }

    /// The value that the column of a role must be equal to.
    fn equal(&self, role: Role) -> Option<&Operand> {
        let position = self.table.position_of(role)?;
        self.conditions
            .iter()
            .find(|condition| condition.column == position && condition.comparison == Comparison::Equal)
            .map(|condition| &condition.operand)
    }

    fn equal_text(&self, role: Role) -> Option<&str> {
        match self.equal(role)? {
            Operand::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The keys that rows must have one of, as CDF names them in requests; None if no condition says so.
    fn keys(&self) -> Option<Vec<serde_json::Value>> {
        // Of what has no other key CDF takes no empty one.
        let shortest = usize::from(self.table.options.resource.needs_external_id());
        let named = |role: Role, property: &str| {
            let position = self.table.position_of(role)?;
            let condition = self.conditions.iter().find(|condition| {
                condition.column == position
                    && matches!(condition.comparison, Comparison::Equal | Comparison::AnyOf)
            })?;
            let operands = match &condition.operand {
                Operand::List(operands) => operands.as_slice(),
                operand => std::slice::from_ref(operand),
            };
            let mut keys = Vec::with_capacity(operands.len());
            let mut seen = HashSet::new();
            for operand in operands.iter().filter(|operand| seen.insert(*operand)) {
                keys.push(match operand {
                    // No item has a name or an id that CDF does not take.
                    Operand::Text(text) if (shortest..=EXTERNAL_ID_CHARS).contains(&text.chars().count()) => {
                        json!({ property: text })
                    }
                    Operand::Int(id) if (ID_RANGE.0..=ID_RANGE.1).contains(id) => json!({ property: id }),
                    _ => continue,
                });
            }
            Some(keys)
        };
        named(Role::Id, "id").or_else(|| named(Role::ExternalId, "externalId"))
    }

    /// The beginnings of encoded rows that have one of the keys asked for; None if the query is not by key.
    pub fn key_prefixes(&self) -> Option<Vec<Vec<u8>>> {
        let prefix =
            |property: &str, value: &serde_json::Value| format!("{{\"{property}\":{value}").into_bytes();
        match &self.table.options.resource.shape {
            Shape::Items(_) => self
                .keys()?
                .iter()
                .map(|key| key.get("externalId").map(|name| prefix("externalId", name)))
                .collect(),
            Shape::Raw => {
                let key = self.raw_key()?;
                // No row has a key that CDF does not take, and escaping might make six times as much of it.
                let possible = key.len() <= KEY_CHARS || key.chars().count() <= KEY_CHARS;
                Some(possible.then(|| prefix("key", &key.into())).into_iter().collect())
            }
            _ => None,
        }
    }

    /// The RAW database and the table that rows must be in, as far as they are one.
    pub fn raw_place(&self) -> (Option<&str>, Option<&str>) {
        let options = &self.table.options;
        let database = options.database.as_deref().or_else(|| self.equal_text(Role::RawDatabase));
        (database, options.table.as_deref().or_else(|| self.equal_text(Role::RawTable)))
    }

    /// The series that the conditions name, and the stretch of time in milliseconds that they leave, its end excluded;
    /// None if they may say something else as well.
    pub fn series_and_time(&self) -> Option<(Vec<Identity>, (i64, i64))> {
        let of = |roles: &[Role]| {
            let positions: Vec<_> = roles.iter().filter_map(|role| self.table.position_of(*role)).collect();
            self.conditions.iter().filter(|condition| positions.contains(&condition.column)).count()
        };
        let instance = of(&[Role::NodeSpace, Role::NodeExternalId]);
        if of(&[Role::Id, Role::ExternalId]) + instance / 2 != 1 || instance % 2 != 0 {
            return None;
        }
        let (references, range) = points::series_and_time(self);
        let series = references?.iter().map(Identity::from_json).collect::<Option<_>>()?;
        Some((series, range))
    }

    /// The only RAW key that the conditions leave.
    fn raw_key(&self) -> Option<&str> {
        let key = self.table.position_of(Role::RawKey);
        self.conditions.iter().find_map(|condition| match &condition.operand {
            Operand::Text(text)
                if Some(condition.column) == key && condition.comparison == Comparison::Equal =>
            {
                Some(text.as_str())
            }
            _ => None,
        })
    }

    /// Whether the column of a role is wanted.
    fn needs(&self, role: Role) -> bool {
        self.table.position_of(role).is_some_and(|at| self.needed[at])
    }

    /// Rows per request: what is probably enough, and what CDF gives at most.
    fn page(&self, most: usize) -> usize {
        self.limit.unwrap_or(most).clamp(1, most)
    }
}

/// Reads a query's rows, one page after another.
pub struct Reader {
    client: Client,
    query: Query,
    own: Own,
    source: Source,
    statistics: Arc<Statistics>,
}

enum Source {
    Items(items::ItemPages),
    Journal(journal::JournalPages),
    Points(points::PointPages),
    Raw(raw::RawPages),
    SequenceRows(sequence_rows::SequenceRowPages),
    Instances(instances::InstancePages),
}

impl Reader {
    /// Makes no request yet.
    ///
    /// # Errors
    /// `Internal` if what the transaction has written cannot be read.
    pub fn new(client: Client, query: Query) -> Result<Self, Error> {
        Reader::counting(client, query, Own::default(), Arc::default())
    }

    /// As `new`, adding to a scan's statistics. `own`: where to ask for what the transaction has written.
    pub fn counting(
        client: Client,
        query: Query,
        own: Own,
        statistics: Arc<Statistics>,
    ) -> Result<Self, Error> {
        let source = match &query.table.options.resource.shape {
            Shape::Items(_) => Source::Items(items::ItemPages::new(&query)?),
            Shape::Journal(_) => Source::Journal(journal::JournalPages::new(&query)?),
            Shape::Datapoints { string } => Source::Points(points::PointPages::new(*string, &query)),
            Shape::SequenceRows => Source::SequenceRows(sequence_rows::SequenceRowPages::new(&query)?),
            Shape::Raw => Source::Raw(raw::RawPages::new(&query, &own)?),
            Shape::Instances { edges } => Source::Instances(instances::InstancePages::new(*edges, &query)?),
        };
        Ok(Reader { client, query, own, source, statistics })
    }

    /// The next rows; None when there are no more. A page may be empty.
    pub async fn page(&mut self, limits: Limits) -> Result<Option<Vec<Row>>, Error> {
        let before = self.statistics.requests.load(Ordering::Relaxed);
        let (query, own, requests) = (&self.query, &self.own, &self.statistics.requests);
        let call = Call { client: &self.client, query, own, limits, requests };
        let page = match &mut self.source {
            Source::Items(pages) => pages.next(&call).await,
            Source::Journal(pages) => pages.next(&call).await,
            Source::Points(pages) => pages.next(&call).await,
            Source::SequenceRows(pages) => pages.next(&call).await,
            Source::Raw(pages) => pages.next(&call).await,
            Source::Instances(pages) => pages.next(&call).await,
        };
        let page = page.map_err(|error| error.about(call.subject()));
        if let Ok(Some(rows)) = &page {
            call.limits.errand.read(rows.len());
            // What only the transaction knows of comes without a request.
            let received = self.statistics.requests.load(Ordering::Relaxed) > before;
            self.statistics.pages.fetch_add(u64::from(received), Ordering::Relaxed);
            self.statistics.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        }
        page
    }
}

/// What a request for a page needs.
struct Call<'c> {
    client: &'c Client,
    query: &'c Query,
    own: &'c Own,
    limits: Limits,
    requests: &'c AtomicU64,
}

impl Call<'_> {
    fn resource(&self) -> &'static Resource {
        self.query.table.options.resource
    }

    /// What is read, as errors name it.
    fn subject(&self) -> String {
        let options = &self.query.table.options;
        let raw = options.database.as_deref().zip(options.table.as_deref());
        let view = self.query.table.view.as_deref().map(|view| &view.name as _);
        options.resource.named(view, raw)
    }

    async fn send(&self, endpoint: Endpoint, body: Body, owed: Owed) -> Result<Response, RequestError> {
        let request = Request { endpoint, body, resend: Resend::Always, owed };
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.client.send(&self.query.connection, &request, &self.limits).await
    }

    /// What a request for a list, or for what has some keys, is answered.
    async fn post(&self, endpoint: Endpoint, body: &serde_json::Value) -> Result<Value, Error> {
        let response = self.ask(endpoint, body).await;
        response.map_err(|error| self.failed(error))?.document()
    }

    /// As `post`, for callers that know what to do about a refusal.
    async fn ask(&self, endpoint: Endpoint, body: &serde_json::Value) -> Result<Response, RequestError> {
        let body = Body::Json(Bytes::from(body.to_string()));
        self.send(endpoint, body, Owed::List).await
    }

    /// As `post`, for GET; None where CDF says that there is no such thing.
    async fn get(&self, endpoint: Endpoint, owed: Owed) -> Result<Option<Value>, Error> {
        match self.send(endpoint, Body::None, owed).await {
            Ok(response) => response.document().map(Some),
            Err(RequestError::Api(api)) if api.is_absent() => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: RequestError) -> Error {
        self.failed_for(error, &self.resource().read_capability())
    }

    /// As `failed`, of a request that takes another capability than that of the table's resource.
    fn failed_for(&self, error: RequestError, capability: &str) -> Error {
        error.into_error(capability).about(self.subject())
    }
}

/// Takes an answer's items and the cursor of the next page.
fn take_page(mut answer: Value) -> (Vec<Value>, Option<String>) {
    let cursor = answer["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned);
    match answer["items"].take() {
        Value::Array(items) => (items, cursor),
        _ => (Vec::new(), cursor),
    }
}
