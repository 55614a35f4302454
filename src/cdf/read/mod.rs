//! Reading: which requests answer a SELECT, page by page.

mod instances;
mod items;
mod points;
mod raw;
pub mod sample;

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;
use serde_json::{json, Value};

use super::client::{Body, Client, Connection, Limits, Method, Request, Resend, Response};
use super::error::{ApiError, Error, Kind, RequestError};
use super::resource::{Resource, Rule, Shape, ID_RANGE};
use super::table::{Binding, Table, RAW_KEY};

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
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operand {
    Text(String),
    Int(i64),
    /// Microseconds since 1970.
    Micros(i64),
    /// For [`Comparison::AnyOf`].
    List(Vec<Operand>),
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
pub fn filters_on(table: &Table, column: usize, comparison: Comparison) -> bool {
    let equal = comparison == Comparison::Equal;
    let any_of = comparison == Comparison::AnyOf;
    match (&table.options.resource.shape, &table.bindings[column]) {
        (Shape::Items(_), Some(Binding::Column(column))) => {
            (equal || any_of) && matches!(column.rule, Rule::Id | Rule::ExternalId)
        }
        (Shape::Datapoints { .. }, Some(Binding::Column(column))) => match column.name {
            "timestamp" => !any_of,
            "id" | "external_id" => equal || any_of,
            "instance_space" | "instance_external_id" => equal,
            _ => false,
        },
        (Shape::Instances { .. }, Some(Binding::Column(column))) => {
            (equal || any_of) && matches!(column.name, "space" | "external_id")
        }
        (Shape::Raw, Some(Binding::Column(column))) => {
            equal && matches!(column.name, "db_name" | "table_name" | RAW_KEY)
        }
        (Shape::Raw, Some(Binding::RawColumn { key, .. })) => equal && *key,
        _ => false,
    }
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
}

impl Query {
    /// The value that a built-in column must be equal to.
    fn equal(&self, column: &str) -> Option<&Operand> {
        let position = self.table.position(column)?;
        self.conditions
            .iter()
            .find(|condition| condition.column == position && condition.comparison == Comparison::Equal)
            .map(|condition| &condition.operand)
    }

    fn equal_text(&self, column: &str) -> Option<&str> {
        match self.equal(column)? {
            Operand::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The keys that rows must have one of, as CDF names them in requests; None if no condition says so.
    fn keys(&self) -> Option<Vec<Value>> {
        let named = |column: &str, property: &str| {
            let position = self.table.position(column)?;
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
                    Operand::Text(text) => json!({ property: text }),
                    // No item has an id out of CDF's range.
                    Operand::Int(id) if (ID_RANGE.0..=ID_RANGE.1).contains(id) => json!({ property: id }),
                    _ => continue,
                });
            }
            Some(keys)
        };
        named("id", "id").or_else(|| named("external_id", "externalId"))
    }

    /// Whether a built-in column is wanted.
    fn needs(&self, column: &str) -> bool {
        self.table.position(column).is_some_and(|at| self.needed[at])
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
    source: Source,
}

enum Source {
    Items(items::ItemPages),
    Points(points::PointPages),
    Raw(raw::RawPages),
    Instances(instances::InstancePages),
}

impl Reader {
    /// Makes no request yet.
    pub fn new(client: Client, query: Query) -> Self {
        let source = match &query.table.options.resource.shape {
            Shape::Items(items) => Source::Items(items::ItemPages::new(items, &query)),
            Shape::Datapoints { string } => Source::Points(points::PointPages::new(*string, &query)),
            Shape::Raw => Source::Raw(raw::RawPages::new(&query)),
            Shape::Instances { edges } => Source::Instances(instances::InstancePages::new(*edges, &query)),
        };
        Reader { client, query, source }
    }

    /// The next rows; None when there are no more. A page may be empty.
    pub async fn page(&mut self, limits: Limits) -> Result<Option<Vec<Row>>, Error> {
        let call = Call { client: &self.client, query: &self.query, limits };
        match &mut self.source {
            Source::Items(pages) => pages.next(&call).await,
            Source::Points(pages) => pages.next(&call).await,
            Source::Raw(pages) => pages.next(&call).await,
            Source::Instances(pages) => pages.next(&call).await,
        }
    }
}

/// What a request for a page needs.
struct Call<'c> {
    client: &'c Client,
    query: &'c Query,
    limits: Limits,
}

impl Call<'_> {
    fn resource(&self) -> &'static Resource {
        self.query.table.options.resource
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
        protobuf: bool,
    ) -> Result<Response, RequestError> {
        let request = Request {
            method,
            path: path.to_owned(),
            body,
            resend: Resend::Always,
            accept_protobuf: protobuf,
        };
        self.client.send(&self.query.connection, &request, &self.limits).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let body = Body::Json(Bytes::from(body.to_string()));
        let response = self.send(Method::Post, path, body, false).await;
        parse(&response.map_err(|error| self.failed(error))?.body)
    }

    /// As `post`, for GET; None where CDF says that there is no such thing.
    async fn get(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.send(Method::Get, path, Body::None, false).await {
            Ok(response) => parse(&response.body).map(Some),
            Err(RequestError::Api(api)) if is_absent(&api) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: RequestError) -> Error {
        let resource = self.resource();
        let mut error = error.into_error(&resource.read_capability());
        error.message = format!("{}: {}", resource.name, error.message);
        error
    }
}

/// CDF answers 400 or 404 for a RAW database, table or row that does not exist, and says so in words.
fn is_absent(api: &ApiError) -> bool {
    let message = api.message.to_lowercase();
    matches!(api.status, 400 | 404) && (message.contains("not found") || message.contains("not exist"))
        || api.status == 404
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(Kind::ServerFailure, format!("CDF's answer cannot be read: {error}")))
}

/// Takes an answer's items and the cursor of the next page.
fn take_page(mut answer: Value) -> (Vec<Value>, Option<String>) {
    let cursor = answer["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned);
    match answer["items"].take() {
        Value::Array(items) => (items, cursor),
        _ => (Vec::new(), cursor),
    }
}
