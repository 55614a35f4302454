//! Pages of nodes or edges through a view: `/byids` for keys, otherwise `/list`.

use std::collections::VecDeque;

use serde_json::{json, Map, Value as Request};
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use super::call::{take_page, Call};
use super::condition::{Comparison, Operand};
use super::field::{Field, Row};
use super::overlay::InstanceOverlay;
use super::own;
use super::properties::{parts, VALUES};
use super::query::Query;
use crate::cdf::document::Value;
use crate::cdf::encode::fragment::Key;
use crate::cdf::encode::property::{check_external_id, check_space};
use crate::cdf::error::Error;
use crate::cdf::resource::properties::{EXTERNAL_ID, SPACE};
use crate::cdf::resource::{Column, ColumnType, Role};
use crate::cdf::table::view::{Property, PropertyType, View};
use crate::cdf::table::{Binding, Part};

/// Instances per request, at most.
const PER_PAGE: usize = 1000;

pub struct InstancePages {
    instance_type: &'static str,
    step: InstanceStep,
    overlay: InstanceOverlay,
}

enum InstanceStep {
    /// Instances by their keys.
    ByKeys(Vec<Request>),
    /// Instances of one filter, then those of the other filters.
    List {
        filter: Option<Request>,
        cursor: Option<String>,
        others: VecDeque<Option<Request>>,
    },
    /// Rows that only the transaction has.
    Rest,
    Done,
}

impl InstanceStep {
    /// Returns the step for the first page of the first of these filters.
    fn list(mut filters: VecDeque<Option<Request>>) -> InstanceStep {
        match filters.pop_front() {
            Some(filter) => InstanceStep::List { filter, cursor: None, others: filters },
            None => InstanceStep::Rest,
        }
    }
}

/// Returns the texts of which the column of a role must have one.
fn texts(query: &Query, role: Role) -> Option<Vec<&str>> {
    let position = query.table.position_of(role)?;
    let condition = query.conditions.iter().find(|condition| {
        condition.column == position && matches!(condition.comparison, Comparison::Equal | Comparison::AnyOf)
    })?;
    let operands = match &condition.operand {
        Operand::List(operands) => operands.as_slice(),
        operand => std::slice::from_ref(operand),
    };
    let mut texts: Vec<&str> = Vec::with_capacity(operands.len());
    for operand in operands {
        if let Operand::Text(text) = operand {
            texts.push(text);
        }
    }
    texts.sort_unstable();
    texts.dedup();
    Some(texts)
}

/// Returns the spaces in which instances must be. A table without a column for the space holds those of the view's own
/// space.
fn spaces(query: &Query) -> Option<Vec<&str>> {
    match (query.table.position_of(Role::Space), &query.table.view) {
        (None, Some(view)) => Some(vec![&view.name.space]),
        // CDF refuses a request with an impossible space name, and no such space exists.
        _ => texts(query, Role::Space)
            .map(|spaces| spaces.into_iter().filter(|space| check_space(space).is_ok()).collect()),
    }
}

/// Returns the external ids of which instances must have one. CDF refuses a request with an impossible one.
fn external_ids(query: &Query) -> Option<Vec<&str>> {
    let texts = texts(query, Role::ExternalId)?;
    Some(texts.into_iter().filter(|external_id| check_external_id(external_id).is_ok()).collect())
}

/// The keys of which instances must have one, where they are given as such. CDF refuses a request with an impossible one.
fn keys(query: &Query) -> Vec<(&str, &str)> {
    let columns = [Role::Space, Role::ExternalId].map(|role| query.table.position_of(role));
    let keys = query.composite.as_ref().and_then(|keys| keys.texts(columns)).unwrap_or_default();
    let possible = |(space, external_id): &(&str, &str)| {
        check_space(space).is_ok() && check_external_id(external_id).is_ok()
    };
    keys.into_iter().filter(possible).collect()
}

impl InstancePages {
    pub fn new(edges: bool, query: &Query) -> Result<Self, Error> {
        let view = query.table.view.as_ref();
        let view = view.ok_or_else(|| Error::internal("a view's table without its view"))?;
        let overlay = InstanceOverlay::new(&query.pending.items, view)?;
        let instance_type = if edges { "edge" } else { "node" };
        let key = |space: &str, external_id: &str| json!({ "instanceType": instance_type, SPACE: space, EXTERNAL_ID: external_id });
        let step = match (spaces(query), external_ids(query)) {
            _ if query.composite.is_some() => {
                InstanceStep::ByKeys(keys(query).into_iter().map(|(space, id)| key(space, id)).collect())
            }
            (Some(spaces), Some(external_ids)) => {
                let keys = spaces.iter().flat_map(|space| external_ids.iter().map(|id| key(space, id)));
                InstanceStep::ByKeys(keys.collect())
            }
            (Some(spaces), _) if spaces.is_empty() => InstanceStep::Done,
            (_, Some(external_ids)) if external_ids.is_empty() => InstanceStep::Done,
            _ => InstanceStep::list(filters(query, view, instance_type)),
        };
        Ok(InstancePages { instance_type, step, overlay })
    }

    /// Reads instances by their keys.
    async fn by_ids(
        &self,
        call: &Call<'_>,
        keys: &[Request],
        sources: &Request,
    ) -> Result<Vec<Value>, Error> {
        let body = json!({ "items": keys, "sources": sources });
        Ok(take_page(call.post(call.resource().by_ids(), &body).await?).0)
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        let view = call
            .query
            .table
            .view
            .clone()
            .ok_or_else(|| Error::internal("a view's table without its view"))?;
        let sources = json!([{ "source": view.name.source() }]);
        let (mut rest, mut by_key) = (false, false);
        let items = match std::mem::replace(&mut self.step, InstanceStep::Done) {
            InstanceStep::Done => return Ok(None),
            InstanceStep::ByKeys(keys) if keys.is_empty() => {
                // What was written to these keys was asked for with them.
                self.step = if call.own.is_empty() { InstanceStep::Rest } else { InstanceStep::Done };
                return Ok(Some(Vec::new()));
            }
            InstanceStep::ByKeys(mut keys) => {
                let later = keys.split_off(keys.len().min(PER_PAGE));
                self.step = InstanceStep::ByKeys(later);
                let items = self.by_ids(call, &keys, &sources).await?;
                let names = keys.iter().filter_map(|key| {
                    Some(Key::of_instance(key[SPACE].as_str()?, key[EXTERNAL_ID].as_str()?))
                });
                self.overlay.add(&call.own.of_keys(None, names).await?, &view)?;
                by_key = !call.own.is_empty();
                items
            }
            InstanceStep::List { filter, cursor, others } => {
                let mut body = Map::new();
                body.insert("instanceType".into(), self.instance_type.into());
                body.insert("sources".into(), sources.clone());
                body.insert("limit".into(), call.query.page(PER_PAGE).into());
                if let Some(filter) = &filter {
                    body.insert("filter".into(), filter.clone());
                }
                if let Some(cursor) = cursor {
                    body.insert("cursor".into(), cursor.into());
                }
                let answer = call.post(call.resource().list(), &Request::Object(body)).await?;
                let (mut items, cursor) = take_page(answer);
                // Rows that are to be changed are read in their current state.
                if call.query.to_change && !items.is_empty() {
                    let key = |item: &Value| json!({ "instanceType": self.instance_type, SPACE: item[SPACE].as_str(), EXTERNAL_ID: item[EXTERNAL_ID].as_str() });
                    let keys: Vec<Request> = items.iter().map(key).collect();
                    items = self.by_ids(call, &keys, &sources).await?;
                }
                self.step = match cursor {
                    Some(_) => InstanceStep::List { filter, cursor, others },
                    None => InstanceStep::list(others),
                };
                items
            }
            InstanceStep::Rest => {
                rest = true;
                let more = call.own.rest(None).await?;
                if !more.is_empty() {
                    self.overlay.add(&more, &view)?;
                    self.step = InstanceStep::Rest;
                }
                // Own writes may have made more instances fulfil the conditions.
                let mut items = Vec::new();
                for keys in self.overlay.keys().chunks(PER_PAGE) {
                    let keys: Vec<Request> = keys
                        .iter()
                        .map(|(space, external_id)| {
                            json!({ "instanceType": self.instance_type, SPACE: space, EXTERNAL_ID: external_id })
                        })
                        .collect();
                    items.extend(self.by_ids(call, &keys, &sources).await?);
                }
                items
            }
        };
        if !rest && !by_key {
            let keys = items.iter().filter_map(own::instance_key);
            self.overlay.add(&call.own.of_keys(None, keys).await?, &view)?;
        }
        let mut items: Vec<Value> =
            items.into_iter().filter_map(|item| self.overlay.apply(&view, item)).collect();
        if rest || by_key {
            items.extend(self.overlay.rest(&view));
        }
        let place = format!("{}/{}", view.name.external_id, view.name.version);
        let of_view = |item: &Value| {
            view.properties.is_empty()
                || item["properties"][view.name.space.as_str()][place.as_str()].is_object()
        };
        let rows = items.into_iter().filter(of_view).map(|mut item| {
            let properties = item["properties"][view.name.space.as_str()][place.as_str()].take();
            let field = |(at, binding): (usize, &Option<Binding>)| match binding {
                _ if !call.query.needed[at] => Field::Null,
                Some(Binding::Column(column)) => fixed(column, &item),
                Some(Binding::Property { property, part }) => {
                    value(property, *part, &properties[property.name.as_str()])
                }
                _ => Field::Null,
            };
            call.query.table.bindings.iter().enumerate().map(field).collect()
        });
        Ok(Some(rows.collect()))
    }
}

/// Returns the filters that together find all instances that fulfil the conditions, and none twice. An empty list: none
/// fulfils them.
fn filters(query: &Query, view: &View, instance_type: &str) -> VecDeque<Option<Request>> {
    let Some(mut all) = parts(query, view, instance_type) else {
        return VecDeque::new();
    };
    if !view.properties.is_empty() {
        all.insert(0, json!({ "hasData": [view.name.source()] }));
    }
    let one_of = |name: &str, wanted: &[&str]| {
        let property = [instance_type, name];
        match wanted {
            [one] => json!({ "equals": { "property": property, "value": one } }),
            any => json!({ "in": { "property": property, "values": any } }),
        }
    };
    if let Some(spaces) = spaces(query).filter(|spaces| spaces.len() <= VALUES) {
        all.push(one_of(SPACE, &spaces));
    }
    let filter = |mut parts: Vec<Request>| match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(json!({ "and": parts })),
    };
    match external_ids(query) {
        Some(external_ids) => external_ids
            .chunks(VALUES)
            .map(|some| filter([&all[..], &[one_of(EXTERNAL_ID, some)]].concat()))
            .collect(),
        None => VecDeque::from([filter(all)]),
    }
}

/// Returns the value of a column that every instance has.
fn fixed(column: &Column, item: &Value) -> Field {
    let value = match column.property.split_once('.') {
        Some((end, part)) => &item[end][part],
        None => &item[column.property],
    };
    match (column.column_type, value) {
        (_, Value::Null) => Field::Null,
        (ColumnType::Timestamptz, value) => value.as_i64().map_or(Field::Null, Field::Millis),
        (ColumnType::Int8, value) => value.as_i64().map_or(Field::Null, Field::Int),
        (_, Value::String(text)) => Field::Text(text.clone()),
        (_, value) => Field::Json(value.clone()),
    }
}

fn value(property: &Property, part: Part, value: &Value) -> Field {
    let value = match part {
        Part::Whole => value,
        Part::Space => &value[SPACE],
        Part::ExternalId => &value[EXTERNAL_ID],
    };
    match value {
        Value::Null => Field::Null,
        // In a JSON property, a text is a JSON document, too.
        Value::String(_) if property.property_type == PropertyType::Json => Field::Json(value.clone()),
        Value::String(text) if property.property_type == PropertyType::Timestamp => moment(text),
        Value::String(text) => Field::Text(text.clone()),
        value => Field::Json(value.clone()),
    }
}

/// Reads one of CDF's timestamps, which are texts. Without a zone they are UTC.
fn moment(text: &str) -> Field {
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    match parsed {
        Ok(moment) => Field::Millis((moment.unix_timestamp_nanos().div_euclid(1_000_000)) as i64),
        Err(_) => Field::Text(text.to_owned()),
    }
}
