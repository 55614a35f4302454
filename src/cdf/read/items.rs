//! Pages of assets, events, time series …: `/byids` for keys, otherwise `/list`.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use serde_json::{json, Map, Value as Request};

use super::call::{take_page, Call};
use super::field::{Field, Row};
use super::overlay::ItemOverlay;
use super::query::Query;
use super::{filter, own};
use crate::cdf::document::Value;
use crate::cdf::error::{Error, RequestError};
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::{Column, ColumnType, ReferenceTarget, Resource, Rule};
use crate::cdf::table::Binding;

/// Items per list request, at most.
pub(super) const PER_LIST: usize = 1000;

pub struct ItemPages {
    resource: &'static Resource,
    step: ItemStep,
    overlay: ItemOverlay,
    /// Whether items are asked for by key. Then a missing one does not exist. A list does not prove that, because it
    /// may not show yet what was just created.
    keyed: bool,
    /// External ids, by resource and internal id.
    names: HashMap<(&'static str, i64), Option<String>>,
}

enum ItemStep {
    /// Items by their keys.
    ByKeys(Vec<Request>),
    /// Items of one filter, then those of the other filters.
    List {
        filter: Map<String, Request>,
        cursor: Option<String>,
        others: VecDeque<Map<String, Request>>,
    },
    /// Rows that only the transaction has.
    Rest,
    Done,
}

impl ItemStep {
    /// Returns the step for the first page of the first of these filters.
    fn list(mut filters: VecDeque<Map<String, Request>>) -> ItemStep {
        match filters.pop_front() {
            Some(filter) => ItemStep::List { filter, cursor: None, others: filters },
            None => ItemStep::Rest,
        }
    }
}

impl ItemPages {
    pub fn new(query: &Query) -> Result<Self, Error> {
        let mut overlay = ItemOverlay::new(&query.pending.items)?;
        let keys = query.keys();
        let keyed = keys.is_some();
        let step = match keys {
            Some(keys) => {
                overlay.only_keyed();
                ItemStep::ByKeys(keys)
            }
            None => ItemStep::list(filter::filters(query).into()),
        };
        Ok(ItemPages { resource: query.table.options.resource, step, overlay, keyed, names: HashMap::new() })
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        let items = match std::mem::replace(&mut self.step, ItemStep::Done) {
            ItemStep::Done => return Ok(None),
            ItemStep::ByKeys(keys) if keys.is_empty() => {
                // The query has the own writes by name already, and an item that only the transaction has has no id.
                self.step = if call.own.is_empty() { ItemStep::Rest } else { ItemStep::Done };
                return Ok(Some(Vec::new()));
            }
            ItemStep::ByKeys(mut keys) => {
                let later = keys.split_off(keys.len().min(PER_LIST));
                self.step = ItemStep::ByKeys(later);
                let items = self.by_ids(call, &keys).await?;
                self.overlaid(call, items).await?
            }
            ItemStep::Rest => {
                // All that was written to these keys. Items that CDF has under them were read already.
                let more = call.own.rest(None).await?;
                if !more.is_empty() {
                    self.overlay.add(&more)?;
                    self.step = ItemStep::Rest;
                }
                if self.keyed {
                    self.overlay.only_keyed();
                }
                let mut items = Vec::new();
                for keys in self.overlay.ids().chunks(PER_LIST) {
                    let some = self.by_ids(call, keys).await?;
                    items.extend(self.completed(call, some).await?);
                }
                let rest = self.overlay.rest(call.resource(), self.keyed);
                for keys in rest.ask.chunks(PER_LIST) {
                    let some = self.by_ids(call, keys).await?;
                    items.extend(self.completed(call, some).await?);
                }
                // Items that CDF does not know by now are new.
                items.extend(rest.fresh);
                items.extend(self.overlay.rest(call.resource(), true).fresh);
                items
            }
            ItemStep::List { filter, cursor, others } => {
                let first = cursor.is_none();
                match call.ask(self.resource.list(), &list_body(call.query, &filter, cursor)).await {
                    Ok(response) => {
                        let (mut items, cursor) = take_page(response.document()?);
                        if call.query.to_change {
                            items = self.as_they_are(call, items).await?;
                        }
                        self.step = match cursor {
                            Some(_) => ItemStep::List { filter, cursor, others },
                            None => ItemStep::list(others),
                        };
                        self.overlaid(call, items).await?
                    }
                    Err(RequestError::Api(api)) if first && api.status == 400 => {
                        match without_unknown(call, &filter).await {
                            Unknown::Some(filter) => {
                                self.step = ItemStep::List { filter, cursor: None, others };
                            }
                            Unknown::All => self.step = ItemStep::list(others),
                            Unknown::None => return Err(call.failed(RequestError::Api(api))),
                        }
                        Vec::new()
                    }
                    Err(error) => return Err(call.failed(error)),
                }
            }
        };
        self.look_up_names(call, &items).await?;
        Ok(Some(items.into_iter().map(|item| self.row(call.query, item)).collect()))
    }

    /// Reads items by their keys.
    async fn by_ids(&self, call: &Call<'_>, keys: &[Request]) -> Result<Vec<Value>, Error> {
        let body = json!({ "items": keys, "ignoreUnknownIds": true });
        Ok(take_page(call.post(self.resource.by_ids(), &body).await?).0)
    }

    /// Reads the items of a list in their current state, without deleted ones.
    async fn as_they_are(&self, call: &Call<'_>, listed: Vec<Value>) -> Result<Vec<Value>, Error> {
        let key = |item: &Value| match (item[ID].as_i64(), item[EXTERNAL_ID].as_str()) {
            (Some(id), _) => Some(json!({ ID: id })),
            (None, name) => name.map(|name| json!({ EXTERNAL_ID: name })),
        };
        let keys: Vec<Request> = listed.iter().filter_map(key).collect();
        if keys.is_empty() {
            Ok(Vec::new())
        } else {
            self.by_ids(call, &keys).await
        }
    }

    /// Returns items with what the transaction has written to them.
    async fn overlaid(&mut self, call: &Call<'_>, items: Vec<Value>) -> Result<Vec<Value>, Error> {
        self.overlay.add(&call.own.of_items(&items, own::item_key).await?)?;
        Ok(self.applied(call, items))
    }

    /// As `overlaid`, for items of which the overlay already has the writes to one of their names.
    async fn completed(&mut self, call: &Call<'_>, items: Vec<Value>) -> Result<Vec<Value>, Error> {
        self.overlay.add(&call.own.of_items_anew(&items, own::item_key).await?)?;
        Ok(self.applied(call, items))
    }

    fn applied(&mut self, call: &Call<'_>, items: Vec<Value>) -> Vec<Value> {
        items.into_iter().filter_map(|item| self.overlay.apply(call.resource(), item)).collect()
    }

    fn row(&self, query: &Query, mut item: Value) -> Row {
        let field = |(at, binding): (usize, &Option<Binding>)| match binding {
            Some(Binding::Column(column)) if query.needed[at] => self.field(column, &mut item),
            _ => Field::Null,
        };
        query.table.bindings.iter().enumerate().map(field).collect()
    }

    fn field(&self, column: &Column, item: &mut Value) -> Field {
        let name = |to: &ReferenceTarget, id: &Value| {
            let name = id.as_i64().and_then(|id| self.names.get(&(to.path, id))?.clone());
            name.map_or(Value::Null, Value::from)
        };
        let value = match column.rule {
            // A row of this transaction, whose reference is not resolved yet.
            Rule::Reference { .. } | Rule::References { .. } if !item[column.property].is_null() => {
                item[column.property].clone()
            }
            Rule::Reference { to, property } => name(to, &item[property]),
            Rule::References { to, property, .. } => match &item[property] {
                Value::Array(ids) => Value::Array(ids.iter().map(|id| name(to, id)).collect()),
                _ => Value::Null,
            },
            Rule::Labels { .. } => match &mut item[column.property] {
                Value::Array(labels) => {
                    Value::Array(labels.iter_mut().map(|label| label[EXTERNAL_ID].take()).collect())
                }
                _ => Value::Null,
            },
            // Two columns of a table declared by hand may show the same property.
            _ => item[column.property].clone(),
        };
        field_of(column, value)
    }

    /// Looks up external ids for the internal ids in the items, if a column shows them.
    async fn look_up_names(&mut self, call: &Call<'_>, items: &[Value]) -> Result<(), Error> {
        for (at, binding) in call.query.table.bindings.iter().enumerate() {
            let Some(Binding::Column(column)) = binding else {
                continue;
            };
            let (to, property) = match column.rule {
                Rule::Reference { to, property } | Rule::References { to, property, .. } => (to, property),
                _ => continue,
            };
            if !call.query.needed[at] {
                continue;
            }
            let mut ids: Vec<i64> = items
                .iter()
                .flat_map(|item| match &item[property] {
                    Value::Array(ids) => ids.iter().filter_map(Value::as_i64).collect(),
                    id => id.as_i64().into_iter().collect::<Vec<i64>>(),
                })
                .filter(|id| !self.names.contains_key(&(to.path, *id)))
                .collect();
            ids.sort_unstable();
            ids.dedup();
            for part in ids.chunks(1000) {
                let keys: Vec<Request> = part.iter().map(|id| json!({ ID: id })).collect();
                let body = json!({ "items": keys, "ignoreUnknownIds": true });
                self.names.extend(part.iter().map(|id| ((to.path, *id), None)));
                for item in take_page(call.post(to.by_ids(), &body).await?).0 {
                    if let Some(id) = item[ID].as_i64() {
                        let name = item[EXTERNAL_ID].as_str().map(str::to_owned);
                        self.names.insert((to.path, id), name);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns a property of an item as a field of the column.
pub(super) fn field_of(column: &Column, value: Value) -> Field {
    if column.empty.is_some_and(|empty| value.to_string() == empty) {
        return Field::Null;
    }
    match (column.column_type, value) {
        (_, Value::Null) => Field::Null,
        (ColumnType::Timestamptz, value) => value.as_i64().map_or(Field::Null, Field::Millis),
        (_, Value::String(text)) => Field::Text(text),
        (_, value) => Field::Json(value),
    }
}

pub(super) fn list_body(query: &Query, filter: &Map<String, Request>, cursor: Option<String>) -> Request {
    let mut body = Map::new();
    if !filter.is_empty() {
        body.insert("filter".into(), filter.clone().into());
    }
    body.insert("limit".into(), query.page(PER_LIST).into());
    if let Some(cursor) = cursor {
        body.insert("cursor".into(), cursor.into());
    }
    Request::Object(body)
}

/// Which of a filter's external ids CDF does not know.
enum Unknown {
    None,
    /// The filter without them.
    Some(Map<String, Request>),
    /// Nothing fulfils the filter.
    All,
}

/// Asks which external ids of a refused filter CDF does not know: they may be why it was refused.
async fn without_unknown(call: &Call<'_>, filter: &Map<String, Request>) -> Unknown {
    let mut left = filter.clone();
    for (target, names) in filter::names(filter) {
        let keys: Vec<Request> = names.iter().map(|name| json!({ EXTERNAL_ID: name })).collect();
        let mut known = HashSet::new();
        for part in keys.chunks(PER_LIST) {
            let body = json!({ "items": part, "ignoreUnknownIds": true });
            // CDF's first answer is more useful than that this look-up is not allowed.
            let Ok(answer) = call.post(target.by_ids(), &body).await else {
                return Unknown::None;
            };
            known.extend(
                take_page(answer).0.iter().filter_map(|item| item[EXTERNAL_ID].as_str().map(str::to_owned)),
            );
        }
        if !filter::keep_known(&mut left, target, &known) {
            return Unknown::All;
        }
    }
    if left == *filter {
        Unknown::None
    } else {
        Unknown::Some(left)
    }
}
