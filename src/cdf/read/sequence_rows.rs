//! Pages of sequence rows: `POST /sequences/data/list`, sequence by sequence.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{json, Map as Members, Value as Request};

use super::call::{take_page, Call};
use super::condition::{Comparison, Operand};
use super::field::{Field, Row};
use super::overlay::SequenceRowOverlay;
use super::own;
use super::query::Query;
use crate::cdf::document::{Map, Value};
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::RequestBody;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::sequence_rows::{COLUMNS, ROWS_PER_REQUEST, ROW_NUMBER, SEQUENCES};
use crate::cdf::resource::Role;
use crate::cdf::table::Binding;

/// Sequences per page of their list.
const SEQUENCES_PER_LIST: usize = 1000;

pub struct SequenceRowPages {
    /// Sequences whose rows are still to be read; the cursor, if any, leads to the rest of them.
    waiting: VecDeque<(Request, Option<String>)>,
    /// The cursor of the list of sequences, if all sequences are read.
    list: Option<Option<String>>,
    overlay: SequenceRowOverlay,
    /// Whether the transaction's own rows were returned.
    ended: bool,
    /// The row number to read from; None: beyond the last possible one.
    start: Option<i64>,
    /// The last row number wanted.
    last: i64,
}

impl SequenceRowPages {
    pub fn new(query: &Query) -> Result<Self, Error> {
        let (waiting, list) = match query.keys() {
            Some(keys) => (keys.into_iter().map(|key| (key, None)).collect(), None),
            None => (VecDeque::new(), Some(None)),
        };
        let overlay = SequenceRowOverlay::new(&query.pending.items)?;
        let mut pages =
            SequenceRowPages { waiting, list, overlay, ended: false, start: Some(0), last: i64::MAX };
        let column = query.table.position_of(Role::RowNumber);
        for condition in query.conditions.iter().filter(|condition| Some(condition.column) == column) {
            let Operand::Int(number) = condition.operand else {
                continue;
            };
            let (start, last) = match condition.comparison {
                Comparison::Equal => (Some(number), Some(number)),
                Comparison::GreaterOrEqual => (Some(number), Some(i64::MAX)),
                Comparison::Greater => (number.checked_add(1), Some(i64::MAX)),
                Comparison::Less => (Some(0), number.checked_sub(1)),
                Comparison::LessOrEqual => (Some(0), Some(number)),
                _ => continue,
            };
            pages.start = pages.start.zip(start).map(|(a, b)| a.max(b));
            pages.last = pages.last.min(last.unwrap_or(-1));
        }
        Ok(pages)
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        let Some(start) = self.start.filter(|start| *start <= self.last) else {
            return Ok(None);
        };
        let Some((reference, cursor)) = self.waiting.pop_front() else {
            let Some(cursor) = self.list.take() else {
                // Own writes to rows that no page had, part by part.
                let more = call.own.rest(None).await?;
                if std::mem::replace(&mut self.ended, more.is_empty()) {
                    return Ok(None);
                }
                self.overlay.add(&more)?;
                let left = self.overlay.left();
                self.overlay.add(&call.own.of_items_anew(&left, own::sequence_row_key).await?)?;
                return Ok(Some(self.overlay.rest().into_iter().map(|item| row(call.query, item)).collect()));
            };
            self.list_sequences(call, cursor).await?;
            return Ok(Some(Vec::new()));
        };
        let mut body = reference.clone();
        body["start"] = start.into();
        // The end is exclusive; after the largest row number none is needed.
        if let Some(end) = self.last.checked_add(1) {
            body["end"] = end.into();
        }
        body["limit"] = call.query.page(ROWS_PER_REQUEST).into();
        if let Some(cursor) = cursor {
            body["cursor"] = cursor.into();
        }
        let body = RequestBody::Json(Bytes::from(body.to_string()));
        let answer = match call.send(call.resource().list(), body, Owed::SequenceRows).await {
            Ok(response) => response.document()?,
            // A sequence that does not exist, or no longer exists, has no rows.
            Err(RequestError::Api(api)) if !api.missing.is_empty() || api.is_absent() => {
                return Ok(Some(Vec::new()))
            }
            Err(error) => return Err(call.failed(error)),
        };
        if let Some(cursor) = answer["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()) {
            self.waiting.push_front((reference, Some(cursor.to_owned())));
        }
        if !call.query.pending.is_empty() || !call.own.is_empty() {
            self.overlay.saw(&answer);
        }
        let items = items(answer);
        self.overlay.add(&call.own.of_items(&items, own::sequence_row_key).await?)?;
        let rows = items.into_iter().filter_map(|item| self.overlay.apply(item));
        Ok(Some(rows.map(|item| row(call.query, item)).collect()))
    }

    async fn list_sequences(&mut self, call: &Call<'_>, cursor: Option<String>) -> Result<(), Error> {
        let mut body = Members::new();
        body.insert("limit".into(), SEQUENCES_PER_LIST.into());
        if let Some(cursor) = cursor {
            body.insert("cursor".into(), cursor.into());
        }
        let (items, cursor) = take_page(call.post(SEQUENCES.list(), &Request::Object(body)).await?);
        self.waiting.extend(items.into_iter().map(|item| (json!({ ID: item[ID] }), None)));
        self.list = cursor.map(Some);
        Ok(())
    }
}

/// Returns the rows of an answer, each as an object of its own.
pub(super) fn items(mut answer: Value) -> Vec<Value> {
    let columns: Vec<String> = answer["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| column[EXTERNAL_ID].as_str().unwrap_or_default().to_owned())
        .collect();
    let Value::Array(rows) = answer["rows"].take() else {
        return Vec::new();
    };
    let item = |mut row: Value| {
        let values = row["values"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let cells: Map = columns.iter().cloned().zip(values).collect();
        let members = [
            (ID, answer[ID].clone()),
            (EXTERNAL_ID, answer[EXTERNAL_ID].clone()),
            (ROW_NUMBER, row[ROW_NUMBER].take()),
            (COLUMNS, Value::Object(cells)),
        ];
        Value::Object(members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
    };
    rows.into_iter().map(item).collect()
}

fn row(query: &Query, mut item: Value) -> Row {
    let field = |(at, binding): (usize, &Option<Binding>)| match binding {
        Some(Binding::Column(column)) if query.needed[at] => match column.role {
            Role::Id => item[ID].as_i64().map_or(Field::Null, Field::Int),
            Role::ExternalId => {
                item[EXTERNAL_ID].as_str().map_or(Field::Null, |name| Field::Text(name.to_owned()))
            }
            Role::RowNumber => item[ROW_NUMBER].as_i64().map_or(Field::Null, Field::Int),
            _ => Field::Json(item[COLUMNS].take()),
        },
        _ => Field::Null,
    };
    query.table.bindings.iter().enumerate().map(field).collect()
}
