//! Pages of a journal: a `/list` request for each item that its rows are about.

use std::collections::VecDeque;

use serde_json::{json, Map, Value as Request};

use super::call::{take_page, Call};
use super::field::{Field, Row};
use super::filter;
use super::items::{field_of, list_body, PER_LIST};
use super::query::Query;
use crate::cdf::document::{self, Value};
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::resource::properties::EXTERNAL_ID;
use crate::cdf::resource::{Column, Owner, Rule};
use crate::cdf::table::Binding;

type Filter = Map<String, Request>;

pub struct JournalPages {
    list: Endpoint,
    /// The items that rows are about, and the property by which a row names its item.
    of: &'static Owner,
    subject: &'static str,
    /// Lists to read, each for one item.
    lists: VecDeque<(Filter, Option<String>)>,
    /// Filters to ask for with every item, and the next page of the items.
    every: Option<(Vec<Filter>, Option<String>)>,
    /// Whether the transaction's own rows are still to come; they come last.
    own: bool,
}

impl JournalPages {
    pub fn new(query: &Query) -> Result<Self, Error> {
        let resource = query.table.options.resource;
        let columns = resource.columns;
        let subject = columns.iter().find(|column| column.rule == Rule::Subject);
        let (Some(subject), Some(of)) = (subject, resource.owner) else {
            return Err(Error::internal("rows of a journal that are about nothing"));
        };
        let (known, every): (Vec<Filter>, Vec<Filter>) =
            filter::filters(query).into_iter().partition(|filter| filter.contains_key(subject.property));
        Ok(JournalPages {
            list: resource.list(),
            of,
            subject: subject.property,
            lists: known.into_iter().map(|filter| (filter, None)).collect(),
            every: (!every.is_empty()).then_some((every, None)),
            own: true,
        })
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        if let Some((filter, cursor)) = self.lists.pop_front() {
            return self.page(call, filter, cursor).await.map(Some);
        }
        if let Some((filters, cursor)) = self.every.take() {
            self.subjects(call, filters, cursor).await?;
            return Ok(Some(Vec::new()));
        }
        if std::mem::take(&mut self.own) {
            return self.own_rows(call).await.map(Some);
        }
        Ok(None)
    }

    /// Reads a page of the rows about one item.
    async fn page(
        &mut self,
        call: &Call<'_>,
        filter: Filter,
        cursor: Option<String>,
    ) -> Result<Vec<Row>, Error> {
        let first = cursor.is_none();
        let (items, next) = match call.ask(self.list.clone(), &list_body(call.query, &filter, cursor)).await {
            Ok(response) => take_page(response.document()?),
            Err(RequestError::Api(api)) if first && matches!(api.status, 400 | 404) && api.of_cdf => {
                // The item may not exist; then there are no rows about it.
                match self.exists(call, &filter).await {
                    Some(false) => return Ok(Vec::new()),
                    _ => return Err(call.failed(RequestError::Api(api))),
                }
            }
            Err(error) => return Err(call.failed(error)),
        };
        let subject = filter.get(self.subject).and_then(Request::as_str).map(str::to_owned);
        if next.is_some() {
            self.lists.push_front((filter, next));
        }
        // CDF's rows do not name the item that was asked for.
        let rows = items.iter().map(|item| row(call.query, item, subject.as_deref()));
        Ok(rows.collect())
    }

    /// Whether the item of a filter exists; None if CDF does not tell.
    async fn exists(&self, call: &Call<'_>, filter: &Filter) -> Option<bool> {
        let body = json!({ "items": [{ EXTERNAL_ID: filter.get(self.subject)? }], "ignoreUnknownIds": true });
        let answer = call.ask(self.of.by_ids(), &body).await.ok()?;
        Some(!take_page(answer.document().ok()?).0.is_empty())
    }

    /// Adds a list for each item on a page of all items.
    async fn subjects(
        &mut self,
        call: &Call<'_>,
        filters: Vec<Filter>,
        cursor: Option<String>,
    ) -> Result<(), Error> {
        let mut body = json!({ "limit": PER_LIST });
        if let Some(cursor) = cursor {
            body["cursor"] = cursor.into();
        }
        let answer = call.ask(self.of.list(), &body).await;
        let answer = answer.map_err(|error| match self.of.capability {
            Some(capability) => call.failed_for(error, capability),
            None => call.failed(error),
        })?;
        let (items, next) = take_page(answer.document()?);
        for item in &items {
            let Some(name) = item[EXTERNAL_ID].as_str() else { continue };
            for filter in &filters {
                let mut filter = filter.clone();
                filter.insert(self.subject.into(), name.into());
                self.lists.push_back((filter, None));
            }
        }
        self.every = next.map(|cursor| (filters, Some(cursor)));
        Ok(())
    }

    /// Returns the rows that the transaction has written.
    async fn own_rows(&mut self, call: &Call<'_>) -> Result<Vec<Row>, Error> {
        let mut pending = call.query.pending.items.clone();
        loop {
            let more = call.own.rest(None).await?;
            if more.is_empty() {
                break;
            }
            pending.extend(more);
        }
        let unreadable = |error| Error::internal(format!("an encoded row is not JSON: {error}"));
        let rows = pending.iter().map(|item| {
            let item = document::parse(&item.fragment).map_err(unreadable)?;
            Ok(row(call.query, &item, None))
        });
        rows.collect()
    }
}

/// Makes a row. `subject`: the item that it is about, if the row does not name it.
fn row(query: &Query, item: &Value, subject: Option<&str>) -> Row {
    let value = |column: &Column| match subject {
        Some(subject) if column.rule == Rule::Subject => Value::from(subject),
        _ => item[column.property].clone(),
    };
    let field = |(at, binding): (usize, &Option<Binding>)| match binding {
        Some(Binding::Column(column)) if query.needed[at] => field_of(column, value(column)),
        _ => Field::Null,
    };
    query.table.bindings.iter().enumerate().map(field).collect()
}
