//! Pages of datapoints: `POST /timeseries/data/list`, for the series asked for or for all series.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use serde_json::{json, Map, Value};

use super::call::{take_page, Call};
use super::field::{Field, Row};
use super::point_overlay::PointOverlay;
use super::query::Query;
use crate::cdf::buffer::{Stretch, WantedPoints};
use crate::cdf::encode::points::wire::{
    InstanceId, ListItem, ListResponse, NumericPoint, NumericPoints, Points, Status, StringPoint,
    StringPoints,
};
use crate::cdf::error::{Error, Identity};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::RequestBody;
use crate::cdf::resource::datapoints;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID, SPACE};
use crate::cdf::resource::Role;
use crate::cdf::table::Binding;

/// Points per request, at most, over all its series.
const POINTS: usize = 100_000;
/// Series per request, at most.
pub(super) const SERIES: usize = 100;
/// Series per page of their list.
const SERIES_PER_LIST: usize = 1000;

pub struct PointPages {
    string: bool,
    /// CDF's points of some stretches, still without the transaction's own writes.
    stretches: VecDeque<SeriesStretch>,
    /// Series whose points are still to be read; the cursor, if any, leads to the rest of their points.
    waiting: VecDeque<Series>,
    /// The cursor of the list of series, if all series are read.
    list: Option<Option<String>>,
    /// Milliseconds; the end is exclusive.
    start: i64,
    end: i64,
    /// Points per series and request. The number must not change while there are cursors.
    per_series: usize,
}

struct Series {
    reference: Value,
    cursor: Option<String>,
    /// The first timestamp that was not read yet.
    from: i64,
}

/// All of CDF's points in a stretch of a series.
struct SeriesStretch {
    item: ListItem,
    within: Stretch,
}

impl SeriesStretch {
    /// Returns the series without points.
    fn names(&self) -> ListItem {
        let ListItem { id, external_id, is_string, instance_id, .. } = &self.item;
        ListItem {
            id: *id,
            external_id: external_id.clone(),
            is_string: *is_string,
            instance_id: instance_id.clone(),
            ..Default::default()
        }
    }

    /// Splits off CDF's points before a timestamp.
    fn points_until(&mut self, moment: i64) -> Option<Points> {
        fn earlier<P>(points: &mut Vec<P>, count: usize) -> Vec<P> {
            let later = points.split_off(count);
            std::mem::replace(points, later)
        }
        self.within.0 = moment;
        match self.item.points.as_mut()? {
            Points::Numeric(NumericPoints { datapoints }) => {
                let count = datapoints.partition_point(|point| point.timestamp < moment);
                Some(Points::Numeric(NumericPoints { datapoints: earlier(datapoints, count) }))
            }
            Points::String(StringPoints { datapoints }) => {
                let count = datapoints.partition_point(|point| point.timestamp < moment);
                Some(Points::String(StringPoints { datapoints: earlier(datapoints, count) }))
            }
        }
    }
}

/// Sorts points by time, as CDF returns them, and returns the last timestamp.
fn in_order(points: &mut Option<Points>) -> Option<i64> {
    match points.as_mut()? {
        Points::Numeric(NumericPoints { datapoints }) => {
            datapoints.sort_by_key(|point| point.timestamp);
            datapoints.last().map(|point| point.timestamp)
        }
        Points::String(StringPoints { datapoints }) => {
            datapoints.sort_by_key(|point| point.timestamp);
            datapoints.last().map(|point| point.timestamp)
        }
    }
}

impl PointPages {
    pub fn new(string: bool, query: &Query) -> Self {
        let (start, end) = query.points_between();
        let mut pages = PointPages {
            string,
            stretches: VecDeque::new(),
            waiting: VecDeque::new(),
            list: None,
            start,
            end,
            per_series: query.page(POINTS),
        };
        let Some(references) = query.series() else {
            pages.list = Some(None);
            pages.per_series = pages.per_series.min(POINTS / SERIES);
            return pages;
        };
        if references.len() > 1 {
            pages.per_series = pages.per_series.min(POINTS / references.len().min(SERIES));
        }
        let from = pages.start;
        let series = references.into_iter().map(|reference| Series { reference, cursor: None, from });
        pages.waiting.extend(series);
        pages
    }

    pub async fn next(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        if self.start >= self.end {
            return Ok(None);
        }
        if !self.stretches.is_empty() {
            return self.lay_over(call).await.map(Some);
        }
        if self.waiting.is_empty() {
            let Some(cursor) = self.list.take() else {
                return self.rest(call).await;
            };
            self.list_series(call, cursor).await?;
            if self.waiting.is_empty() {
                return Ok(Some(Vec::new()));
            }
        }
        // The maximum counts over all series of a request.
        let many = self.waiting.len().min(SERIES).min((POINTS / self.per_series).max(1));
        let batch: Vec<Series> = self.waiting.drain(..many).collect();
        let mut items = Vec::with_capacity(batch.len());
        for series in &batch {
            let mut item = series.reference.clone();
            // By default CDF returns only Good points.
            item["includeStatus"] = true.into();
            item["ignoreBadDataPoints"] = false.into();
            item["treatUncertainAsBad"] = false.into();
            if let Some(cursor) = &series.cursor {
                item["cursor"] = Value::from(cursor.as_str());
            }
            items.push(item);
        }
        let body = json!({
            "items": items,
            "start": self.start,
            "end": self.end,
            "limit": self.per_series,
            "ignoreUnknownIds": true,
        });
        let body = RequestBody::Json(Bytes::from(body.to_string()));
        let response = call.send(call.resource().list(), body, Owed::Points).await;
        let response = response.map_err(|error| call.failed(error))?;
        let answer = decode(&response.body).map_err(|why| response.unreadable(why))?;
        let mut rows = Vec::new();
        for mut item in answer.items {
            let cursor = std::mem::take(&mut item.next_cursor);
            let more = !cursor.is_empty();
            if more || !call.own.is_empty() {
                // A cursor belongs to the reference that it was returned for. Answers leave out unknown series, so
                // positions do not tell which series an item belongs to.
                let asked = batch.iter().find(|series| refers_to(&series.reference, &item));
                let Some(Series { reference, from, .. }) = asked else {
                    return Err(response.unreadable("it has a series that was not asked for"));
                };
                let last = in_order(&mut item.points);
                let end = if more { last.map_or(*from, |last| last.saturating_add(1)) } else { self.end };
                if more {
                    let reference = reference.clone();
                    self.waiting.push_front(Series { reference, cursor: Some(cursor), from: end });
                }
                if !call.own.is_empty() {
                    self.stretches.push_back(SeriesStretch { item, within: (*from, end) });
                    continue;
                }
            }
            if item.is_string == self.string {
                append(&mut rows, call.query, item);
            }
        }
        Ok(Some(rows))
    }

    /// Lays what the transaction has written to the series and stretches of a page over CDF's points: as much of it as
    /// comes in one answer.
    async fn lay_over(&mut self, call: &Call<'_>) -> Result<Vec<Row>, Error> {
        let wanted = self.stretches.iter().map(|stretch| (identities(&stretch.item), stretch.within));
        let told = call.own.points(WantedPoints::Of(wanted.collect())).await?;
        let mut rows = Vec::new();
        for (mut stretch, told) in std::mem::take(&mut self.stretches).into_iter().zip(told) {
            let mut overlay = PointOverlay::of(told.writes);
            let mut points = stretch.points_until(told.end);
            points.iter_mut().for_each(|points| overlay.apply(points));
            if stretch.item.is_string == self.string {
                append(&mut rows, call.query, ListItem { points, ..stretch.names() });
            }
            append(&mut rows, call.query, ListItem { points: overlay.into_points(), ..stretch.names() });
            if stretch.within.0 < stretch.within.1 {
                self.stretches.push_back(stretch);
            }
        }
        Ok(rows)
    }

    /// Returns the next points of series that only the transaction has; None at the end.
    async fn rest(&mut self, call: &Call<'_>) -> Result<Option<Vec<Row>>, Error> {
        if call.own.is_empty() {
            return Ok(None);
        }
        let only = call.query.series().map(|asked| asked.iter().filter_map(Identity::from_json).collect());
        let told = call.own.points(WantedPoints::Rest { only, within: (self.start, self.end) }).await?;
        if told.is_empty() {
            return Ok(None);
        }
        let mut rows = Vec::new();
        for series in told {
            let points = PointOverlay::of(series.writes).into_points();
            let names = series.name.as_ref().map(named).unwrap_or_default();
            append(&mut rows, call.query, ListItem { points, ..names });
        }
        Ok(Some(rows))
    }

    async fn list_series(&mut self, call: &Call<'_>, cursor: Option<String>) -> Result<(), Error> {
        let mut body = Map::new();
        body.insert("filter".into(), json!({ "isString": self.string }));
        body.insert("limit".into(), SERIES_PER_LIST.into());
        if let Some(cursor) = cursor {
            body.insert("cursor".into(), cursor.into());
        }
        let (items, cursor) = take_page(call.post(datapoints::SERIES.list(), &Value::Object(body)).await?);
        let from = self.start;
        let series =
            items.into_iter().map(|item| Series { reference: json!({ ID: item[ID] }), cursor: None, from });
        self.waiting.extend(series);
        self.list = cursor.map(Some);
        Ok(())
    }
}

/// Decodes the answer: protobuf, as asked for, or JSON if the server has only that. No protobuf message begins with a
/// brace, which would be the start of a group.
fn decode(body: &Bytes) -> Result<ListResponse, String> {
    if !body.starts_with(b"{") {
        return ListResponse::decode(body.clone()).map_err(|error| error.to_string());
    }
    let answer: JsonAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(ListResponse { items: answer.items.into_iter().map(JsonSeries::into_message).collect() })
}

#[derive(Deserialize)]
struct JsonAnswer {
    items: Vec<JsonSeries>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSeries {
    #[serde(default)]
    id: i64,
    #[serde(default)]
    external_id: String,
    instance_id: Option<JsonInstance>,
    #[serde(default)]
    is_string: bool,
    #[serde(default)]
    next_cursor: String,
    #[serde(default)]
    datapoints: Vec<JsonPoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonInstance {
    space: String,
    external_id: String,
}

#[derive(Deserialize)]
struct JsonPoint {
    timestamp: i64,
    #[serde(default)]
    value: Value,
    status: Option<JsonStatus>,
}

#[derive(Deserialize)]
struct JsonStatus {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    symbol: String,
}

impl JsonSeries {
    fn into_message(self) -> ListItem {
        let status = |status: Option<JsonStatus>| status.map(|s| Status { code: s.code, symbol: s.symbol });
        let points = if self.is_string {
            Points::String(StringPoints {
                datapoints: self
                    .datapoints
                    .into_iter()
                    .map(|point| StringPoint {
                        timestamp: point.timestamp,
                        null_value: point.value.is_null(),
                        value: point.value.as_str().unwrap_or_default().to_owned(),
                        status: status(point.status),
                    })
                    .collect(),
            })
        } else {
            Points::Numeric(NumericPoints {
                datapoints: self
                    .datapoints
                    .into_iter()
                    .map(|point| NumericPoint {
                        timestamp: point.timestamp,
                        null_value: point.value.is_null(),
                        value: number(&point.value),
                        status: status(point.status),
                    })
                    .collect(),
            })
        };
        ListItem {
            id: self.id,
            external_id: self.external_id,
            points: Some(points),
            is_string: self.is_string,
            next_cursor: self.next_cursor,
            instance_id: self
                .instance_id
                .map(|instance| InstanceId { space: instance.space, external_id: instance.external_id }),
        }
    }
}

/// Parses a numeric value. In JSON, values that are not finite are texts.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        value => value.as_f64().unwrap_or_default(),
    }
}

/// Whether the reference in a request means the series of an answer.
fn refers_to(reference: &Value, item: &ListItem) -> bool {
    match (&reference[EXTERNAL_ID], &reference[ID]) {
        (Value::String(external_id), _) => *external_id == item.external_id,
        (_, Value::Number(id)) => id.as_i64() == Some(item.id),
        _ => item.instance_id.as_ref().is_some_and(|instance| {
            let id = &reference["instanceId"];
            id[SPACE] == *instance.space && id[EXTERNAL_ID] == *instance.external_id
        }),
    }
}

/// Returns every way in which the series can be addressed.
fn identities(item: &ListItem) -> Vec<Identity> {
    let mut all = vec![Identity::Id(item.id)];
    if !item.external_id.is_empty() {
        all.push(Identity::ExternalId(item.external_id.clone()));
    }
    all.extend(item.instance_id.as_ref().map(|instance| Identity::Instance {
        space: instance.space.clone(),
        external_id: instance.external_id.clone(),
    }));
    all
}

/// Makes a series that CDF has not shown.
fn named(identity: &Identity) -> ListItem {
    let mut item = ListItem::default();
    match identity {
        Identity::Id(id) => item.id = *id,
        Identity::ExternalId(name) => item.external_id = name.clone(),
        Identity::Instance { space, external_id } => {
            item.instance_id = Some(InstanceId { space: space.clone(), external_id: external_id.clone() });
        }
    }
    item
}

fn append(rows: &mut Vec<Row>, query: &Query, mut item: ListItem) {
    // The fields that all points of the series share.
    let series = |role: Role| match role {
        Role::Id if item.id != 0 => Field::Int(item.id),
        Role::ExternalId if !item.external_id.is_empty() => Field::Text(item.external_id.clone()),
        Role::NodeSpace => item.instance_id.as_ref().map_or(Field::Null, |id| Field::Text(id.space.clone())),
        Role::NodeExternalId => {
            item.instance_id.as_ref().map_or(Field::Null, |id| Field::Text(id.external_id.clone()))
        }
        _ => Field::Null,
    };
    let roles: Vec<Role> = query
        .table
        .bindings
        .iter()
        .enumerate()
        .map(|(at, binding)| match binding {
            Some(Binding::Column(column)) if query.needed[at] => column.role,
            _ => Role::Property,
        })
        .collect();
    let template: Row = roles.iter().map(|role| series(*role)).collect();
    let row = |timestamp: i64, value: Field, status: Option<Status>| {
        let mut row = template.clone();
        // CDF leaves out the status of Good points.
        let status = status.unwrap_or_else(|| Status { code: 0, symbol: "Good".into() });
        for (field, role) in row.iter_mut().zip(&roles) {
            match *role {
                Role::Timestamp => *field = Field::Millis(timestamp),
                Role::Value => *field = value.clone(),
                Role::StatusCode => *field = Field::Int(status.code),
                Role::StatusSymbol => *field = Field::Text(status.symbol.clone()),
                _ => {}
            }
        }
        row
    };
    match item.points.take() {
        Some(Points::Numeric(points)) => rows.extend(points.datapoints.into_iter().map(|point| {
            let value = if point.null_value { Field::Null } else { Field::Float(point.value) };
            row(point.timestamp, value, point.status)
        })),
        Some(Points::String(points)) => rows.extend(points.datapoints.into_iter().map(|point| {
            let value = if point.null_value { Field::Null } else { Field::Text(point.value) };
            row(point.timestamp, value, point.status)
        })),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cdf::fuzz::{config, sent};

    #[test]
    fn json_says_the_same_as_protobuf() {
        let json = r#"{"items":[
            {"id":1,"externalId":"t","isString":false,"nextCursor":"c","datapoints":[
                {"timestamp":-5,"value":1.5},
                {"timestamp":6,"value":"NaN","status":{"code":2147483648,"symbol":"Bad"}},
                {"timestamp":7,"status":{"code":2147483648,"symbol":"Bad"}}]},
            {"id":2,"instanceId":{"space":"s","externalId":"x"},"isString":true,"datapoints":[{"timestamp":1,"value":"on"}]}
        ]}"#;
        let decoded = decode(&Bytes::from_static(json.as_bytes())).unwrap();
        let again = decode(&Bytes::from(decoded.encode_to_vec())).unwrap();
        assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
        let Some(Points::Numeric(points)) = &decoded.items[0].points else { panic!("numeric") };
        assert!(points.datapoints[1].value.is_nan() && points.datapoints[2].null_value);
        assert_eq!(points.datapoints[0], NumericPoint { timestamp: -5, value: 1.5, ..Default::default() });
        assert_eq!(decoded.items[1].instance_id.as_ref().unwrap().external_id, "x");
        assert!(decode(&Bytes::from_static(b"{")).is_err());
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn points_of_any_message_are_read_or_refused(bytes in sent()) {
            let _ = Owed::Points.check(Some("application/protobuf"), &bytes);
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
