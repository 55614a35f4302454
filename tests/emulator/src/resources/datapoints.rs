//! Data points: insert, list, latest, delete; in JSON and, for insert and list, in protocol buffers.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use axum::http::Method;
use prost::Message;
use serde::de::{self, Deserializer};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use super::classic::{flag, identity, repeated};
use super::fields::{check_integer, refuse_nulls, refuse_unknown};
use super::points::{Datum, Point, Points, View};
use super::proto;
use super::status::Status;
use super::Route;
use crate::codec::{self, now_ms};
use crate::errors::ApiError;
use crate::reply::{Reply, Request, JSON, PROTOBUF};
use crate::store::{Classic, Entity, Identity, Project, SharedPoints};

const ACL: &str = "timeSeriesAcl";
/// 1900-01-01.
const MIN_TIMESTAMP: i64 = -2_208_988_800_000;
/// 2099-12-31T23:59:59.999.
const MAX_TIMESTAMP: i64 = 4_102_444_799_999;
const MAX_VALUE: f64 = 1e100;
const MAX_TEXT_BYTES: usize = 1023;
/// The most points of one request, inserted or listed.
const MAX_POINTS: usize = 100_000;
const MAX_INSERT_ITEMS: usize = 10_000;
const MAX_LIST_ITEMS: usize = 100;

/// The route of a request below /timeseries/data.
pub fn route(method: &Method, rest: &[&str]) -> Option<Route> {
    if method != Method::POST {
        return None;
    }
    match rest {
        [] => Some(Route::new(ACL, "WRITE", insert)),
        ["list"] => Some(Route::new(ACL, "READ", list)),
        ["latest"] => Some(Route::new(ACL, "READ", latest)),
        ["delete"] => Some(Route::new(ACL, "WRITE", delete)),
        _ => None,
    }
}

/// Points of one series as they were received, before it is known what type the series has.
struct Incoming {
    identity: Identity,
    /// Protocol buffers tell the type that they mean, even without points; in JSON each value tells it.
    text: Option<bool>,
    points: Vec<(i64, Point)>,
}

/// Inserts points. Every named series is looked up before any point is written. Those that do not exist are a 400 with
/// the complete `missing` list, per the API description of POST /timeseries/data: "IDs not found." (NotFoundResponse:
/// `missing`, "Items that are not found", holds `{"id"}`, `{"externalId"}` or `{"instanceId"}` objects.) A series that
/// occurs twice is a 422, per the same: "Duplicate IDs found. Retry request, keeping only one instance of each
/// duplicated ID." (DuplicatedIdsInRequestResponse.)
fn insert(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = match request.content_type.as_str() {
        PROTOBUF => decode_protobuf(&request.body)?,
        JSON => decode_json(&request.body)?,
        other => return Err(ApiError::new(415, format!("Unsupported Media Type '{other}'"))),
    };
    let total: usize = items.iter().map(|item| item.points.len()).sum();
    request.counts.items = items.len() as u64;
    request.counts.points = total as u64;
    for item in items.iter().take(10) {
        match &item.identity {
            Identity::Id(id) => request.counts.note(&id.to_string()),
            Identity::External(external_id) | Identity::Instance { external_id, .. } => {
                request.counts.note(external_id)
            }
        }
    }
    if !(1..=MAX_INSERT_ITEMS).contains(&items.len()) {
        return Err(size_error("items", 1, MAX_INSERT_ITEMS, items.len()));
    }
    if total > MAX_POINTS {
        return Err(ApiError::bad_request(format!(
            "The total number of data points in a request is limited to {MAX_POINTS}, got {total}"
        )));
    }
    let identities: Vec<Identity> = items.iter().map(|item| item.identity.clone()).collect();
    let series = find_series(project, &identities, true)?;
    // Everything is checked before anything is stored.
    let mut accepted = Vec::with_capacity(items.len());
    for (item, series) in items.into_iter().zip(series.into_iter().flatten()) {
        accepted.push((series.points, admit(item, series.is_string)?));
    }
    for (points, new) in accepted {
        points.lock().unwrap_or_else(PoisonError::into_inner).insert(new);
    }
    Ok(Reply::empty())
}

fn size_error(name: &str, min: usize, max: usize, got: usize) -> ApiError {
    ApiError::bad_request(format!("{name}: size must be between {min} and {max}, got {got}"))
}

/// What datapoint requests need of a series.
struct Series {
    entity: Entity,
    is_string: bool,
    points: SharedPoints,
}

impl Series {
    fn of(classic: &mut Classic, identity: &Identity) -> Option<Self> {
        let entity = classic.table("timeseries").visible(identity)?.clone();
        let is_string = entity.fields.get("isString") == Some(&json!(true));
        let points = classic.points(entity.id);
        Some(Self { entity, is_string, points })
    }
}

/// Looks up series; with `once`, none may be named twice, under whatever names.
fn find_series(
    project: &Project,
    identities: &[Identity],
    once: bool,
) -> Result<Vec<Option<Series>>, ApiError> {
    let found = find_known_series(project, identities);
    if once {
        let twice = repeated(identities.iter().cloned());
        let same = repeated(found.iter().flatten().map(|series| Identity::Id(series.entity.id)));
        if let Some(list) = [twice, same].into_iter().find(|list| !list.is_empty()) {
            let list = list.iter().map(Identity::json).collect();
            return Err(ApiError::duplicated(422, "Duplicate time series ids in the request", list));
        }
    }
    let mut seen = HashSet::new();
    let missing: Vec<Value> = identities
        .iter()
        .zip(&found)
        .filter(|(identity, series)| series.is_none() && seen.insert(*identity))
        .map(|(identity, _)| identity.json())
        .collect();
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(ApiError::missing("Timeseries not found", missing))
    }
}

fn find_known_series(project: &Project, identities: &[Identity]) -> Vec<Option<Series>> {
    let mut classic = project.classic();
    identities.iter().map(|identity| Series::of(&mut classic, identity)).collect()
}

/// Checks points against the type of the series, and interprets the special values of JSON.
fn admit(item: Incoming, is_string: bool) -> Result<Vec<(i64, Point)>, ApiError> {
    let mismatch = || {
        let wanted = if is_string { "string" } else { "numeric" };
        ApiError::bad_request(format!("Expected {wanted} value for datapoint"))
    };
    if item.text.is_some_and(|text| text != is_string) {
        return Err(mismatch());
    }
    let mut points = item.points;
    for (timestamp, point) in &mut points {
        if !(MIN_TIMESTAMP..=MAX_TIMESTAMP).contains(timestamp) {
            return Err(ApiError::bad_request(format!(
                "timestamp must be between {MIN_TIMESTAMP} and {MAX_TIMESTAMP}, got {timestamp}"
            )));
        }
        let bad = point.status.is_bad();
        match (&point.value, is_string) {
            (Datum::Null, _) if bad => {}
            (Datum::Null, _) => {
                return Err(ApiError::bad_request("A value is required unless the status is bad"));
            }
            (Datum::Number(number), false) => {
                if !bad && !number.is_finite() {
                    return Err(ApiError::bad_request(format!(
                        "Value {number} is only allowed if the status is bad"
                    )));
                }
                if !bad && number.abs() > MAX_VALUE {
                    return Err(ApiError::bad_request(format!(
                        "Value {number} is outside of -1e100 to 1e100"
                    )));
                }
            }
            (Datum::Text(text), false) => {
                let number = match text.as_ref() {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(mismatch()),
                };
                if !bad {
                    return Err(mismatch());
                }
                point.value = Datum::Number(number);
            }
            (Datum::Text(text), true) if text.len() > MAX_TEXT_BYTES => {
                return Err(ApiError::bad_request(format!(
                    "String values must be at most {MAX_TEXT_BYTES} bytes, got {}",
                    text.len()
                )));
            }
            (Datum::Text(_), true) => {}
            (Datum::Number(_), true) => return Err(mismatch()),
        }
    }
    Ok(points)
}

fn decode_protobuf(body: &[u8]) -> Result<Vec<Incoming>, ApiError> {
    let request = proto::InsertionRequest::decode(body)
        .map_err(|error| ApiError::bad_request(format!("Malformed protobuf: {error}")))?;
    let status = |status: Option<proto::Status>| match status {
        None => Ok(Status::default()),
        // proto3 does not tell an absent code from 0: with a symbol, 0 is no contradiction.
        Some(status) if status.symbol.is_empty() => Status::parse(Some(status.code), None),
        Some(status) => Status::parse(Some(status.code).filter(|code| *code != 0), Some(&status.symbol)),
    };
    let decode = |item: proto::InsertionItem| {
        let named = match item.reference {
            Some(proto::Reference::Id(id)) => json!({ "id": id }),
            Some(proto::Reference::ExternalId(external_id)) => json!({ "externalId": external_id }),
            Some(proto::Reference::InstanceId(id)) => {
                json!({ "instanceId": { "space": id.space, "externalId": id.external_id } })
            }
            None => json!({}),
        };
        let identity = identity(named.as_object().unwrap_or(&Map::new()), NAMES)?;
        let (text, points) = match item.datapoints {
            Some(proto::Datapoints::Numeric(list)) => {
                let point = |p: proto::NumericDatapoint| {
                    let value = if p.null_value { Datum::Null } else { Datum::Number(p.value) };
                    Ok((p.timestamp, Point { value, status: status(p.status)? }))
                };
                (false, list.datapoints.into_iter().map(point).collect::<Result<Vec<_>, ApiError>>()?)
            }
            Some(proto::Datapoints::String(list)) => {
                let point = |p: proto::StringDatapoint| {
                    let value = if p.null_value { Datum::Null } else { Datum::Text(p.value.into()) };
                    Ok((p.timestamp, Point { value, status: status(p.status)? }))
                };
                (true, list.datapoints.into_iter().map(point).collect::<Result<Vec<_>, ApiError>>()?)
            }
            None => return Err(ApiError::bad_request("Missing required field: datapoints")),
        };
        Ok(Incoming { identity, text: Some(text), points })
    };
    request.items.into_iter().map(decode).collect()
}

const NAMES: &[&str] = &["id", "externalId", "instanceId"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonInsert {
    items: Vec<JsonItem>,
}

// Keeps a null visible, so that it can be refused; Option's own deserialization would drop it.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct JsonItem {
    #[serde(default, deserialize_with = "given")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    external_id: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    instance_id: Option<Value>,
    datapoints: Vec<JsonPoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonPoint {
    timestamp: i64,
    #[serde(default)]
    value: JsonDatum,
    #[serde(default)]
    status: Option<JsonStatus>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonStatus {
    code: Option<i64>,
    symbol: Option<String>,
}

struct JsonDatum(Datum);

impl Default for JsonDatum {
    fn default() -> Self {
        Self(Datum::Null)
    }
}

impl<'de> Deserialize<'de> for JsonDatum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Read as a value: a number keeps its digits, so a visitor would not see it as a number.
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(JsonDatum(Datum::Null)),
            Value::String(text) => Ok(JsonDatum(Datum::Text(text.into()))),
            Value::Number(number) => match number.as_f64() {
                Some(number) => Ok(JsonDatum(Datum::Number(number))),
                None => Err(de::Error::custom(format!("the value {number} of a datapoint is out of range"))),
            },
            _ => Err(de::Error::custom("expected a number or a string as value of a datapoint")),
        }
    }
}

fn decode_json(body: &[u8]) -> Result<Vec<Incoming>, ApiError> {
    let insert: JsonInsert = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("Malformed datapoints: {error}")))?;
    let decode = |item: JsonItem| {
        let named: Map<String, Value> =
            [("id", item.id), ("externalId", item.external_id), ("instanceId", item.instance_id)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect();
        let named = Value::Object(named);
        refuse_nulls(&named)?;
        let identity = identity(named.as_object().unwrap_or(&Map::new()), NAMES)?;
        let point = |point: JsonPoint| {
            let status = match point.status {
                None => Status::default(),
                Some(status) => Status::parse(status.code, status.symbol.as_deref())?,
            };
            Ok((point.timestamp, Point { value: point.value.0, status }))
        };
        let points = item.datapoints.into_iter().map(point).collect::<Result<Vec<_>, ApiError>>()?;
        Ok(Incoming { identity, text: None, points })
    };
    insert.items.into_iter().map(decode).collect()
}

/// Parses a time in a query: milliseconds, "now", or "2d-ago" (and "-ahead").
fn parse_time(name: &str, value: &Value) -> Result<i64, ApiError> {
    let wrong =
        || ApiError::bad_request(format!("{name}: expected milliseconds, 'now' or 'N[w|d|h|m|s]-ago'"));
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let text = value.as_str().ok_or_else(wrong)?;
    if text == "now" {
        return Ok(now_ms());
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let (span, sign) = match (text.strip_suffix("-ago"), text.strip_suffix("-ahead")) {
        (Some(span), _) => (span, -1),
        (_, Some(span)) => (span, 1),
        _ => return Err(wrong()),
    };
    let (count, unit) = span.split_at_checked(span.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let count: i64 = count.parse().map_err(|_| wrong())?;
    count.checked_mul(seconds * 1000 * sign).and_then(|span| now_ms().checked_add(span)).ok_or_else(wrong)
}

type Object = Map<String, Value>;

fn take_items(body: &mut Object, max: usize, known: &[&str]) -> Result<Vec<Object>, ApiError> {
    let items = body.shift_remove("items");
    refuse_unknown("the request", body, known)?;
    let Some(Value::Array(items)) = items else {
        return Err(ApiError::bad_request("Missing required field: items"));
    };
    if !(1..=max).contains(&items.len()) {
        return Err(size_error("items", 1, max, items.len()));
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::Object(item) => Ok(item),
            _ => Err(ApiError::bad_request("items: expected objects")),
        })
        .collect()
}

/// Returns the items of a query. The official SDK sends null for settings that it leaves open, so null means absent
/// here.
fn take_queries(body: &mut Object, known: &[&str]) -> Result<Vec<Object>, ApiError> {
    body.retain(|_, value| !value.is_null());
    let mut items = take_items(body, MAX_LIST_ITEMS, known)?;
    items.iter_mut().for_each(|item| item.retain(|_, value| !value.is_null()));
    Ok(items)
}

fn flag_or(body: &Object, name: &str, default: bool) -> Result<bool, ApiError> {
    if body.contains_key(name) {
        flag(body, name)
    } else {
        Ok(default)
    }
}

/// Refuses what is valid in CDF but not emulated, so that nobody takes raw points for something else.
fn refuse_unemulated(body: &Object) -> Result<(), ApiError> {
    const NAMES: [&str; 5] = ["aggregates", "granularity", "targetUnit", "targetUnitSystem", "timeZone"];
    match NAMES.into_iter().find(|name| body.contains_key(*name)) {
        Some(name) => Err(ApiError::new(501, format!("{name} is not emulated"))),
        None => Ok(()),
    }
}

/// One series and its points in an answer.
struct Answer {
    series: Entity,
    is_string: bool,
    include_status: bool,
    next_cursor: Option<String>,
    points: Vec<(i64, Point)>,
}

fn list(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    body.retain(|_, value| !value.is_null());
    refuse_unemulated(&body)?;
    let known = ["start", "end", "limit", "includeOutsidePoints", "ignoreUnknownIds"];
    let items = take_queries(&mut body, &known)?;
    let ignore_unknown = flag(&body, "ignoreUnknownIds")?;
    let queries = items.iter().map(|item| Query::of(item, &body)).collect::<Result<Vec<_>, ApiError>>()?;
    let identities: Vec<Identity> = queries.iter().map(|query| query.identity.clone()).collect();
    let series = if ignore_unknown {
        find_known_series(project, &identities)
    } else {
        find_series(project, &identities, false)?
    };
    let mut room = MAX_POINTS;
    let mut answers = Vec::with_capacity(queries.len());
    for (query, series) in queries.into_iter().zip(series) {
        let Some(series) = series else { continue };
        let answer = query.run(series, room);
        room = room.saturating_sub(answer.points.len());
        answers.push(answer);
    }
    Ok(if request.accept.contains(PROTOBUF) {
        protobuf_reply(answers)
    } else {
        Reply::json(200, &json!({ "items": answers }))
    })
}

/// One item of a list request.
struct Query {
    identity: Identity,
    view: View,
    limit: usize,
    include_status: bool,
    outside: bool,
    parameters: Value,
}

impl Query {
    fn of(item: &Object, body: &Object) -> Result<Self, ApiError> {
        refuse_unemulated(item)?;
        let known = [
            "id",
            "externalId",
            "instanceId",
            "start",
            "end",
            "limit",
            "cursor",
            "includeOutsidePoints",
            "includeStatus",
            "ignoreBadDataPoints",
            "treatUncertainAsBad",
        ];
        refuse_unknown("items", item, &known)?;
        let setting = |name: &str| item.get(name).or_else(|| body.get(name));
        let start = setting("start").cloned().unwrap_or(json!(0));
        let end = setting("end").cloned().unwrap_or(json!("now"));
        let limit = setting("limit").cloned().unwrap_or(json!(100));
        // 0 is useful with includeOutsidePoints.
        check_integer("limit", &limit, 0, MAX_POINTS as i64)?;
        let identity = identity(item, NAMES)?;
        let mut view = View {
            start: parse_time("start", &start)?,
            end: parse_time("end", &end)?,
            ignore_bad: flag_or(item, "ignoreBadDataPoints", true)?,
            uncertain_is_bad: flag_or(item, "treatUncertainAsBad", true)?,
        };
        if view.start >= view.end {
            return Err(ApiError::bad_request("start must be before end"));
        }
        let outside = match setting("includeOutsidePoints") {
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| ApiError::bad_request("includeOutsidePoints: expected a boolean"))?,
        };
        let include_status = flag(item, "includeStatus")?;
        // Unlike elsewhere, start and end may change between pages: the official SDK moves both while it follows a
        // cursor. The cursor says where to continue, whatever the start.
        let parameters = json!([identity.json(), view.ignore_bad, view.uncertain_is_bad, include_status]);
        if let Some(cursor) = item.get("cursor") {
            if outside {
                return Err(ApiError::bad_request("cursor cannot be combined with includeOutsidePoints"));
            }
            let cursor = cursor.as_str().ok_or_else(|| ApiError::bad_request("cursor: expected a string"))?;
            let next = codec::decode_cursor(&parameters, cursor)?;
            view.start = next.as_i64().ok_or_else(|| ApiError::bad_request("Invalid cursor"))?;
        }
        let limit = limit.as_u64().unwrap_or(100) as usize;
        Ok(Self { identity, view, limit, include_status, outside, parameters })
    }

    /// Returns at most `room` points, so that the whole answer keeps its limit; the cursor leads to the others.
    fn run(self, series: Series, room: usize) -> Answer {
        let points = series.points.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.limit.min(room);
        let mut found: Vec<(i64, Point)> = Vec::new();
        let mut next_cursor = None;
        for (at, point) in points.view(self.view) {
            if found.len() == limit {
                next_cursor = Some(codec::encode_cursor(&self.parameters, &json!(at)));
                break;
            }
            found.push((at, point.clone()));
        }
        if self.outside {
            next_cursor = None;
            let before = View { start: i64::MIN, end: self.view.start, ..self.view };
            let after = View { start: self.view.end, end: i64::MAX, ..self.view };
            let copy = |(at, point): (i64, &Point)| (at, point.clone());
            found.splice(0..0, points.view(before).next_back().map(copy));
            found.extend(points.view(after).next().map(copy));
        }
        drop(points);
        let Series { entity, is_string, .. } = series;
        Answer { series: entity, is_string, include_status: self.include_status, next_cursor, points: found }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.series.id)?;
        for name in ["externalId", "instanceId", "isString", "isStep", "unit", "unitExternalId"] {
            if let Some(value) = self.series.fields.get(name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("type", if self.is_string { "string" } else { "numeric" })?;
        if let Some(cursor) = &self.next_cursor {
            map.serialize_entry("nextCursor", cursor)?;
        }
        map.serialize_entry("datapoints", &JsonPoints(&self.points, self.include_status))?;
        map.end()
    }
}

struct JsonPoints<'a>(&'a [(i64, Point)], bool);

impl Serialize for JsonPoints<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (at, point) in self.0 {
            list.serialize_element(&point_json(*at, point, self.1))?;
        }
        list.end()
    }
}

/// Returns a point as CDF writes it in JSON.
pub fn point_json(at: i64, point: &Point, include_status: bool) -> Value {
    let mut json = Map::new();
    json.insert("timestamp".into(), json!(at));
    if let Some(value) = point.value.json() {
        json.insert("value".into(), value);
    }
    if include_status && !point.status.is_plain_good() {
        json.insert("status".into(), json!({ "code": point.status.0, "symbol": point.status.symbol() }));
    }
    Value::Object(json)
}

fn protobuf_reply(answers: Vec<Answer>) -> Reply {
    let items = answers.into_iter().map(protobuf_item).collect();
    let body = proto::ListResponse { items }.encode_to_vec();
    Reply { status: 200, content_type: PROTOBUF.into(), body, headers: Vec::new(), cut: None }
}

fn protobuf_item(answer: Answer) -> proto::ListItem {
    let text = |name: &str| answer.series.text(name).unwrap_or_default().to_owned();
    let status = |point: &Point| {
        let status = point.status;
        (answer.include_status && !status.is_plain_good())
            .then(|| proto::Status { code: i64::from(status.0), symbol: status.symbol().to_owned() })
    };
    let datapoints = if answer.is_string {
        proto::Datapoints::String(proto::StringDatapoints {
            datapoints: answer
                .points
                .iter()
                .map(|(timestamp, point)| proto::StringDatapoint {
                    timestamp: *timestamp,
                    value: if let Datum::Text(text) = &point.value {
                        text.to_string()
                    } else {
                        String::new()
                    },
                    status: status(point),
                    null_value: point.value == Datum::Null,
                })
                .collect(),
        })
    } else {
        proto::Datapoints::Numeric(proto::NumericDatapoints {
            datapoints: answer
                .points
                .iter()
                .map(|(timestamp, point)| proto::NumericDatapoint {
                    timestamp: *timestamp,
                    value: if let Datum::Number(number) = point.value { number } else { 0.0 },
                    status: status(point),
                    null_value: point.value == Datum::Null,
                })
                .collect(),
        })
    };
    let instance = answer.series.fields.get("instanceId").map(|id| proto::InstanceId {
        space: id["space"].as_str().unwrap_or_default().to_owned(),
        external_id: id["externalId"].as_str().unwrap_or_default().to_owned(),
    });
    proto::ListItem {
        id: answer.series.id,
        external_id: text("externalId"),
        instance_id: instance,
        is_string: answer.is_string,
        is_step: answer.series.fields.get("isStep") == Some(&json!(true)),
        unit: text("unit"),
        next_cursor: answer.next_cursor.unwrap_or_default(),
        unit_external_id: text("unitExternalId"),
        series_type: if answer.is_string { 2 } else { 1 },
        datapoints: Some(datapoints),
    }
}

fn latest(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let items = take_queries(&mut body, &["ignoreUnknownIds"])?;
    let ignore_unknown = flag(&body, "ignoreUnknownIds")?;
    let mut identities = Vec::new();
    let mut views = Vec::new();
    for item in &items {
        refuse_unemulated(item)?;
        let known = [
            "id",
            "externalId",
            "instanceId",
            "before",
            "includeStatus",
            "ignoreBadDataPoints",
            "treatUncertainAsBad",
        ];
        refuse_unknown("items", item, &known)?;
        identities.push(identity(item, NAMES)?);
        let view = View {
            start: i64::MIN,
            end: parse_time("before", item.get("before").unwrap_or(&json!("now")))?,
            ignore_bad: flag_or(item, "ignoreBadDataPoints", true)?,
            uncertain_is_bad: flag_or(item, "treatUncertainAsBad", true)?,
        };
        views.push((view, flag(item, "includeStatus")?));
    }
    let series = if ignore_unknown {
        find_known_series(project, &identities)
    } else {
        find_series(project, &identities, false)?
    };
    let answers: Vec<Answer> = series
        .into_iter()
        .zip(views)
        .filter_map(|(series, view)| Some((series?, view)))
        .map(|(Series { entity, is_string, points }, (view, include_status))| {
            let points = points.lock().unwrap_or_else(PoisonError::into_inner);
            let last = points.view(view).next_back().map(|(at, point)| (at, point.clone()));
            let points = last.into_iter().collect();
            Answer { series: entity, is_string, include_status, next_cursor: None, points }
        })
        .collect();
    Ok(Reply::json(200, &json!({ "items": answers })))
}

fn delete(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let items = take_items(&mut body, MAX_INSERT_ITEMS, &[])?;
    let mut identities = Vec::new();
    let mut ranges = Vec::new();
    for item in &items {
        refuse_unknown("items", item, &["id", "externalId", "instanceId", "inclusiveBegin", "exclusiveEnd"])?;
        identities.push(identity(item, NAMES)?);
        let Some(begin) = item.get("inclusiveBegin") else {
            return Err(ApiError::bad_request("Missing required field: inclusiveBegin"));
        };
        check_integer("inclusiveBegin", begin, MIN_TIMESTAMP, i64::MAX)?;
        let begin = begin.as_i64().unwrap_or_default();
        let end = match item.get("exclusiveEnd") {
            // Without an end, only the point at the beginning.
            None => begin.saturating_add(1),
            Some(end) => {
                check_integer("exclusiveEnd", end, MIN_TIMESTAMP, i64::MAX)?;
                end.as_i64().unwrap_or_default()
            }
        };
        if end <= begin {
            return Err(ApiError::bad_request("exclusiveEnd must be greater than inclusiveBegin"));
        }
        ranges.push((begin, end));
    }
    let series = find_series(project, &identities, false)?;
    for (series, (begin, end)) in series.into_iter().flatten().zip(ranges) {
        series.points.lock().unwrap_or_else(PoisonError::into_inner).delete(begin, end);
    }
    Ok(Reply::empty())
}

/// Returns the points of every series that was written to, by external id (or the instance's, or the id).
pub fn by_name(project: &Project) -> HashMap<String, SharedPoints> {
    let mut classic = project.classic();
    let series: Vec<(i64, String)> = classic
        .table("timeseries")
        .after(0)
        .map(|(_, entity)| {
            let instance = || entity.fields.get("instanceId")?.get("externalId")?.as_str();
            let name = entity.text("externalId").or_else(instance);
            (entity.id, name.map_or_else(|| entity.id.to_string(), str::to_owned))
        })
        .collect();
    series.into_iter().map(|(id, name)| (name, classic.points(id))).collect()
}

/// Runs a function over the points behind a shared handle.
pub fn with_points<T>(points: &SharedPoints, run: impl FnOnce(&Points) -> T) -> T {
    run(&points.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: Value) -> Result<Vec<(i64, Point)>, ApiError> {
        decode_json(json.to_string().as_bytes()).and_then(|mut items| admit(items.remove(0), false))
    }

    fn item(point: Value) -> Value {
        json!({"items": [{"externalId": "a", "datapoints": [point]}]})
    }

    #[test]
    fn numbers_and_statuses() {
        for good in [
            json!({"timestamp": 1, "value": 1}),
            json!({"timestamp": MIN_TIMESTAMP, "value": -1e100}),
            json!({"timestamp": MAX_TIMESTAMP, "value": "NaN", "status": {"symbol": "Bad"}}),
            json!({"timestamp": 1, "value": null, "status": {"code": 2147483648u32}}),
            json!({"timestamp": 1, "status": {"symbol": "Bad", "code": 2147483648u32}}),
            json!({"timestamp": 1, "value": 1e200, "status": {"symbol": "Bad"}}),
        ] {
            assert!(decoded(item(good.clone())).is_ok(), "{good}");
        }
        for bad in [
            json!({"timestamp": 1}),
            json!({"timestamp": 1, "value": null}),
            json!({"timestamp": 1.5, "value": 1}),
            json!({"timestamp": MIN_TIMESTAMP - 1, "value": 1}),
            json!({"timestamp": MAX_TIMESTAMP + 1, "value": 1}),
            json!({"timestamp": 1, "value": "NaN"}),
            json!({"timestamp": 1, "value": "text", "status": {"symbol": "Bad"}}),
            json!({"timestamp": 1, "value": 1.1e100}),
            json!({"timestamp": 1, "value": true}),
            json!({"timestamp": 1, "value": 1, "extra": 1}),
            json!({"timestamp": 1, "value": 1, "status": {"symbol": "Bad", "code": 0}}),
        ] {
            assert!(decoded(item(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn protobuf_and_json_mean_the_same() {
        let numeric = |timestamp, value, status, null_value| proto::NumericDatapoint {
            timestamp,
            value,
            status,
            null_value,
        };
        let bad = proto::Status { code: 0, symbol: "Bad".into() };
        let points = vec![
            numeric(0, 0.0, None, false),
            numeric(1, f64::INFINITY, Some(bad.clone()), false),
            numeric(2, 0.0, Some(bad), true),
        ];
        let body = proto::InsertionRequest {
            items: vec![proto::InsertionItem {
                reference: Some(proto::Reference::ExternalId("a".into())),
                datapoints: Some(proto::Datapoints::Numeric(proto::NumericDatapoints { datapoints: points })),
            }],
        };
        let mut items = decode_protobuf(&body.encode_to_vec()).unwrap();
        let from_protobuf = admit(items.remove(0), false).unwrap();
        let status = json!({"symbol": "Bad"});
        let from_json = decoded(json!({"items": [{"externalId": "a", "datapoints": [
            {"timestamp": 0, "value": 0},
            {"timestamp": 1, "value": "Infinity", "status": status},
            {"timestamp": 2, "status": status},
        ]}]}));
        assert_eq!(from_json, Ok(from_protobuf));
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("start", &json!(-5)), Ok(-5));
        assert_eq!(parse_time("start", &json!("17")), Ok(17));
        let day_ago = parse_time("start", &json!("1d-ago")).unwrap();
        assert!((now_ms() - day_ago - 86_400_000).abs() < 60_000);
        for bad in [json!("d-ago"), json!("1y-ago"), json!(""), json!("-ago"), json!(1.5)] {
            assert!(parse_time("start", &bad).is_err(), "{bad}");
        }
    }
}
