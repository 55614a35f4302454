//! Nodes and edges of data models: applied as a whole or not at all, read through views, deleted.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde_json::{json, Map, Value};

use super::classic::flag;
use super::fields::refuse_unknown;
use super::models::{check_space, items, name, needs_value, no_space, no_view, text, Models, Name, Schema};
use super::Route;
use crate::codec::{self, now_ms};
use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::Project;

const ACL: &str = "dataModelInstancesAcl";
const MAX_ITEMS: usize = 1000;
const MAX_TEXT: usize = 128_000;
const MAX_JSON: usize = 40_960;
const MAX_KEYS: usize = 256;
const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE: usize = 10_240;
const MAX_LIST: u64 = 1000;
const MAX_RELATIONS: u64 = 100;
const MAX_SOURCES: usize = 100;

/// By kind (`node`, `edge`), space and external id.
pub type Instances = BTreeMap<Key, Instance>;
/// How an instance is named.
pub type Key = (&'static str, Name);

/// A node or an edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    version: i64,
    created: i64,
    updated: i64,
    /// `type`, `startNode`, `endNode`.
    ends: Map<String, Value>,
    /// Values by container.
    data: BTreeMap<Name, Map<String, Value>>,
}

/// The route of a request below /models/instances.
pub fn route(rest: &[&str]) -> Option<Route> {
    match rest {
        [] => Some(Route::new(ACL, "WRITE", apply)),
        ["delete"] => Some(Route::new(ACL, "WRITE", delete)),
        ["byids"] => Some(Route::new(ACL, "READ", by_ids)),
        ["list"] => Some(Route::new(ACL, "READ", list)),
        ["query" | "search" | "sync" | "aggregate"] => {
            Some(Route::new(ACL, "READ", |_, _| Err(ApiError::new(501, "This operation is not emulated"))))
        }
        _ => None,
    }
}

fn kind(item: &Map<String, Value>) -> Result<&'static str, ApiError> {
    match item.get("instanceType").and_then(Value::as_str) {
        Some("node") => Ok("node"),
        Some("edge") => Ok("edge"),
        _ => Err(ApiError::bad_request("instanceType: expected 'node' or 'edge'")),
    }
}

fn key(item: &Map<String, Value>) -> Result<Key, ApiError> {
    let name = name(item)?;
    check_space(&name.0)?;
    if !(1..=256).contains(&name.1.chars().count()) || name.1.contains('\0') {
        return Err(ApiError::bad_request(
            "externalId: size must be between 1 and 256 characters, without NUL",
        ));
    }
    Ok((kind(item)?, name))
}

/// Where the properties of a source are: by the source's name for each, the container, its name there, and its
/// definition.
type Mapping = BTreeMap<String, (Name, String, Value)>;

fn mapping(models: &Schema, source: &Value) -> Result<Mapping, ApiError> {
    let reference = source.as_object().cloned().unwrap_or_default();
    let source_name = name(&reference)?;
    if reference.get("type") == Some(&json!("container")) {
        let container = models.container(&source_name).ok_or_else(|| {
            let (space, external_id) = &source_name;
            ApiError::bad_request(format!("One or more containers do not exist: '{space}:{external_id}'"))
        })?;
        let properties = container["properties"].as_object().into_iter().flatten();
        return Ok(properties
            .map(|(name, property)| (name.clone(), (source_name.clone(), name.clone(), property.clone())))
            .collect());
    }
    let version = text(&reference, "version")?;
    let view = models.view(&source_name, &version).ok_or_else(|| no_view(&source_name, &version))?;
    let mut mapping = Mapping::new();
    for (property, definition) in view["properties"].as_object().into_iter().flatten() {
        if let Some(container) = definition["container"].as_object() {
            let behind = definition["containerPropertyIdentifier"].as_str().unwrap_or_default().to_owned();
            mapping.insert(property.clone(), (name(container)?, behind, definition.clone()));
        }
    }
    Ok(mapping)
}

fn relation(value: &Value) -> Option<Name> {
    let object = value.as_object().filter(|object| object.len() == 2)?;
    name(object).ok()
}

fn check(property: &str, definition: &Value, value: &Value) -> Result<(), ApiError> {
    let of = &definition["type"];
    let kind = of["type"].as_str().unwrap_or_default();
    let wrong =
        |what: &str| Err(ApiError::bad_request(format!("Invalid value for property '{property}': {what}")));
    if value.is_null() {
        return if definition["nullable"] == json!(false) {
            Err(ApiError::bad_request(format!(
                "Invalid value for non-nullable property '{property}'. Value cannot be null."
            )))
        } else {
            Ok(())
        };
    }
    let max_text = of["maxTextSize"].as_u64().map_or(MAX_TEXT, |most| MAX_TEXT.min(most as usize));
    let one = |value: &Value| {
        let good = match kind {
            "text" => value.as_str().is_some_and(|text| text.len() <= max_text && !text.contains('\0')),
            "timeseries" | "file" | "sequence" => value.is_string(),
            "enum" => value.as_str().is_some_and(|value| is_in(of, value)),
            "boolean" => value.is_boolean(),
            "int32" => value.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
            "int64" => value.is_i64(),
            "float32" => value.as_f64().is_some_and(|value| value.abs() <= f64::from(f32::MAX)),
            "float64" => value.is_number(),
            "timestamp" => value.as_str().is_some_and(is_timestamp),
            "date" => value.as_str().is_some_and(is_date),
            "json" => return check_json(value).or_else(|what| wrong(&what)),
            "direct" => relation(value).is_some(),
            _ => false,
        };
        if good {
            Ok(())
        } else {
            wrong(&format!(
                "expected {kind}, got {}",
                value.to_string().chars().take(100).collect::<String>()
            ))
        }
    };
    let most = of["maxListSize"].as_u64();
    let most = most.unwrap_or(if kind == "direct" { MAX_RELATIONS } else { MAX_LIST });
    match (of["list"] == json!(true), value) {
        (true, Value::Array(list)) if !(1..=most).contains(&(list.len() as u64)) => {
            wrong(&format!("the size of the list must be between 1 and {most}, got {}", list.len()))
        }
        (true, Value::Array(list)) => {
            let texts: usize = list.iter().filter_map(Value::as_str).map(str::len).sum();
            if texts > MAX_TEXT || kind == "json" && value.to_string().len() > MAX_JSON {
                return wrong("the list is too large");
            }
            list.iter().try_for_each(one)
        }
        (true, _) => wrong("expected a list"),
        (false, value) => one(value),
    }
}

/// Whether an enumeration has a value that may be written. The one for unknown values may not.
fn is_in(of: &Value, value: &str) -> bool {
    of["values"].get(value).is_some() && of["unknownValue"].as_str() != Some(value)
}

/// Checks the limits of a JSON document: its size, and the keys and values of each object in it.
fn check_json(value: &Value) -> Result<(), String> {
    let size = |value: &Value| value.as_str().map_or_else(|| value.to_string().len(), str::len);
    if value.to_string().len() > MAX_JSON {
        return Err(format!("the JSON value has more than {MAX_JSON} bytes"));
    }
    match value {
        Value::Array(list) => list.iter().try_for_each(check_json),
        Value::Object(object) => {
            if object.len() > MAX_KEYS {
                return Err(format!("the JSON object has more than {MAX_KEYS} keys"));
            }
            object.iter().try_for_each(|(key, value)| match () {
                () if key.chars().count() > MAX_KEY_CHARS => {
                    Err(format!("a key of the JSON object has more than {MAX_KEY_CHARS} characters"))
                }
                () if size(value) > MAX_VALUE => {
                    Err(format!("a value of the JSON object has more than {MAX_VALUE} bytes"))
                }
                () => check_json(value),
            })
        }
        _ => Ok(()),
    }
}

fn digits(text: &str, at: std::ops::Range<usize>) -> bool {
    text.get(at).is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_date(text: &str) -> bool {
    let dashes = text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    text.len() == 10 && dashes && digits(text, 0..4) && digits(text, 5..7) && digits(text, 8..10)
}

/// Whether a text is a timestamp as CDF documents it: `YYYY-MM-DDTHH:MM:SS[.millis][Z|time zone]`.
fn is_timestamp(text: &str) -> bool {
    if !text.is_ascii() || text.len() < 19 || !is_date(&text[..10]) || &text[10..11] != "T" {
        return false;
    }
    let time = digits(text, 11..13) && digits(text, 14..16) && digits(text, 17..19);
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if !(1..=3).contains(&end) {
            return false;
        }
        rest = &fraction[end..];
    }
    let zone = |zone: &str| zone.len() == 6 && digits(zone, 1..3) && &zone[3..4] == ":" && digits(zone, 4..6);
    time && (rest.is_empty() || rest == "Z" || rest.starts_with(['+', '-']) && zone(rest))
}

fn apply(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    // As recorded, these do not take null.
    let open =
        ["autoCreateDirectRelations", "autoCreateStartNodes", "autoCreateEndNodes", "skipOnVersionConflict"];
    body.retain(|name, value| !(value.is_null() && open.contains(&name.as_str())));
    let wanted = some_items(body.shift_remove("items"), "items")?;
    let gone = if body.contains_key("delete") {
        some_items(body.shift_remove("delete"), "delete")?
    } else {
        Vec::new()
    };
    if wanted.len() + gone.len() > MAX_ITEMS {
        let got = wanted.len() + gone.len();
        return Err(ApiError::bad_request(format!(
            "items and delete: at most {MAX_ITEMS} together are allowed, got {got}"
        )));
    }
    let flags = ["replace", "autoCreateDirectRelations", "autoCreateStartNodes", "autoCreateEndNodes"];
    let known = [&flags[..], &["skipOnVersionConflict"]].concat();
    refuse_unknown("the request", &body, &known)?;
    let replace = flag(&body, "replace")?;
    let create_relations = match body.get("autoCreateDirectRelations") {
        None => true,
        Some(_) => flag(&body, "autoCreateDirectRelations")?,
    };
    let create_ends = [flag(&body, "autoCreateStartNodes")?, flag(&body, "autoCreateEndNodes")?];
    let skip = flag(&body, "skipOnVersionConflict")?;

    let mut models = project.models();
    let gone = keys_of(&models, &gone)?;
    // Applied to a copy, which replaces the original only if everything succeeds.
    let mut changed: BTreeMap<Key, Instance> = BTreeMap::new();
    let mut targets: Vec<(Name, bool, &str)> = Vec::new();
    let mut answers = Vec::new();
    let now = now_ms();
    let mut seen = BTreeSet::new();
    for item in &wanted {
        refuse_unknown(
            "items",
            item,
            &[
                "instanceType",
                "space",
                "externalId",
                "existingVersion",
                "type",
                "startNode",
                "endNode",
                "sources",
            ],
        )?;
        let key = key(item)?;
        if !models.has_space(&key.1 .0) {
            return Err(no_space(&key.1 .0));
        }
        if !seen.insert(key.clone()) {
            let (space, external_id) = &key.1;
            return Err(ApiError::bad_request(format!(
                "Duplicate instance '{space}:{external_id}' in the request"
            )));
        }
        if gone.contains(&key) {
            let (space, external_id) = &key.1;
            return Err(ApiError::bad_request(format!(
                "Instance '{space}:{external_id}' is both written and deleted by the request"
            )));
        }
        let before = models.instances.get(&key);
        let expected = item.get("existingVersion");
        if expected.is_some_and(|version| !version.is_i64()) {
            return Err(ApiError::bad_request("existingVersion: expected an integer"));
        }
        if let Some(expected) = expected.and_then(Value::as_i64) {
            if before.is_some_and(|before| before.version > expected) {
                if skip {
                    continue;
                }
                return Err(ApiError::new(
                    409,
                    "UpsertConflict: A version conflict caused the ingest to fail.".to_owned(),
                ));
            }
        }
        let mut instance = before.cloned().unwrap_or_else(|| Instance {
            version: 0,
            created: now,
            updated: now,
            ends: Map::new(),
            data: BTreeMap::new(),
        });
        let ends: &[&str] = if key.0 == "edge" { &["type", "startNode", "endNode"] } else { &["type"] };
        for end in ends {
            match item.get(*end).filter(|value| !value.is_null()) {
                Some(value) => {
                    let target = relation(value).ok_or_else(|| {
                        ApiError::bad_request(format!("{end}: expected space and externalId"))
                    })?;
                    let create = match *end {
                        "startNode" => create_ends[0],
                        "endNode" => create_ends[1],
                        _ => create_relations,
                    };
                    targets.push((target, create, end));
                    instance.ends.insert((*end).to_owned(), value.clone());
                }
                None if key.0 == "edge" => {
                    return Err(ApiError::bad_request(format!("Missing required field: {end}")))
                }
                None => {}
            }
        }
        write_sources(&models, key.0, item, &mut instance, replace, &mut |target| {
            targets.push((target, create_relations, "direct relation"));
        })?;
        let modified = before != Some(&instance);
        if modified {
            instance.version += 1;
            instance.updated = now;
        }
        answers.push(json!({
            "instanceType": key.0,
            "space": key.1 .0,
            "externalId": key.1 .1,
            "version": instance.version,
            "wasModified": modified,
            "createdTime": instance.created,
            "lastUpdatedTime": instance.updated,
        }));
        changed.insert(key, instance);
    }
    for (target, create, what) in targets {
        let key = ("node", target);
        if changed.contains_key(&key) || models.instances.contains_key(&key) {
            continue;
        }
        let (space, external_id) = &key.1;
        if !create {
            return Err(ApiError::bad_request(match what {
                "direct relation" => format!(
                    "Node with external id '{external_id}' was referenced as the target of a direct relation, but it does not exist."
                ),
                _ => format!("The {what} refers to a node that does not exist: '{space}:{external_id}'"),
            }));
        }
        if !models.has_space(space) {
            return Err(no_space(space));
        }
        let made =
            Instance { version: 1, created: now, updated: now, ends: Map::new(), data: BTreeMap::new() };
        changed.insert(key, made);
    }
    for (key, instance) in changed {
        if models.instances.get(&key) != Some(&instance) {
            models.put(key, Some(instance));
        }
    }
    let deleted = remove(&mut models, &gone);
    Ok(Reply::json(200, &json!({ "items": answers, "deleted": deleted })))
}

/// Returns a list of objects, which may be empty.
fn some_items(value: Option<Value>, name: &str) -> Result<Vec<Map<String, Value>>, ApiError> {
    let Some(Value::Array(items)) = value else {
        return Err(ApiError::bad_request(format!("{name}: expected an array")));
    };
    let object = |item| match item {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::bad_request(format!("{name}: expected objects"))),
    };
    items.into_iter().map(object).collect()
}

/// Returns the instances to delete. They need not exist, but their spaces must.
fn keys_of(models: &Models, items: &[Map<String, Value>]) -> Result<BTreeSet<Key>, ApiError> {
    let one = |item: &Map<String, Value>| {
        refuse_unknown("items", item, &["instanceType", "space", "externalId"])?;
        let key = key(item)?;
        if models.has_space(&key.1 .0) {
            Ok(key)
        } else {
            Err(no_space(&key.1 .0))
        }
    };
    items.iter().map(one).collect()
}

fn write_sources(
    models: &Schema,
    kind: &str,
    item: &Map<String, Value>,
    instance: &mut Instance,
    replace: bool,
    refers_to: &mut dyn FnMut(Name),
) -> Result<(), ApiError> {
    let none = Vec::new();
    let sources = match item.get("sources") {
        None => &none,
        Some(Value::Array(sources)) if (1..=MAX_SOURCES).contains(&sources.len()) => sources,
        Some(_) => {
            let what = format!("sources: expected a list of 1 to {MAX_SOURCES} elements");
            return Err(ApiError::bad_request(what));
        }
    };
    for source in sources {
        let members = source.as_object().ok_or_else(|| ApiError::bad_request("sources: expected objects"))?;
        refuse_unknown("sources", members, &["source", "properties"])?;
        let mapping = mapping(models, &source["source"])?;
        let given = match &source["properties"] {
            Value::Null => Map::new(),
            Value::Object(given) if !given.is_empty() => given.clone(),
            Value::Object(_) => {
                return Err(ApiError::bad_request("properties: at least one property is needed"))
            }
            _ => return Err(ApiError::bad_request("properties: expected an object")),
        };
        let mut touched: BTreeMap<Name, Map<String, Value>> = BTreeMap::new();
        for (property, value) in given {
            let Some((container, behind, definition)) = mapping.get(&property) else {
                return Err(ApiError::bad_request(format!("Unknown property '{property}' in the source")));
            };
            check(&property, definition, &value)?;
            if definition["type"]["type"] == "direct" {
                let targets = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
                targets.iter().filter_map(relation).for_each(&mut *refers_to);
            }
            let value = as_stored(&definition["type"], value);
            touched.entry(container.clone()).or_default().insert(behind.clone(), value);
        }
        for (container, values) in touched {
            let definition = models.container(&container).cloned().unwrap_or_default();
            if definition["usedFor"] != kind && definition["usedFor"] != "all" {
                let (space, external_id) = &container;
                return Err(ApiError::bad_request(format!(
                    "Container '{space}:{external_id}' is not used for {kind}s"
                )));
            }
            let stored = instance.data.entry(container).or_default();
            if replace {
                stored.clear();
            }
            for (name, value) in values {
                if value.is_null() {
                    drop(stored.shift_remove(&name))
                } else {
                    drop(stored.insert(name, value))
                }
            }
            for (name, property) in definition["properties"].as_object().into_iter().flatten() {
                if !stored.contains_key(name) {
                    let default = &property["defaultValue"];
                    if !default.is_null() {
                        stored.insert(name.clone(), default.clone());
                    } else if needs_value(property) {
                        return Err(ApiError::bad_request(format!("Missing required property '{name}'")));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Returns a value as CDF stores it: timestamps in UTC, without a fraction that is 0.
fn as_stored(of: &Value, value: Value) -> Value {
    let moment = |text: &str| millis(text).map(timestamp);
    match value {
        Value::Array(list) => list.into_iter().map(|value| as_stored(of, value)).collect(),
        Value::String(text) if of["type"] == "timestamp" => {
            moment(&text).map_or(Value::String(text), Value::from)
        }
        value => value,
    }
}

/// Returns a timestamp as CDF writes it.
fn timestamp(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // The civil calendar of a day, with years that begin in March.
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (400 * era + year, month + 3),
        _ => (400 * era + year + 1, month - 9),
    };
    let (seconds, fraction) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// Returns an instance as answers show it, with the properties of the sources.
fn answer(key: &Key, instance: &Instance, sources: &[(Value, Mapping)]) -> Value {
    let mut answer = json!({
        "instanceType": key.0,
        "space": key.1 .0,
        "externalId": key.1 .1,
        "version": instance.version,
        "createdTime": instance.created,
        "lastUpdatedTime": instance.updated,
    });
    for (end, value) in &instance.ends {
        answer[end] = value.clone();
    }
    let mut properties = Map::new();
    for (source, mapping) in sources {
        let values = values(instance, mapping);
        if mapping.is_empty() || has_data(instance, mapping) {
            let external_id = source["externalId"].as_str().unwrap_or_default();
            let place = match source["version"].as_str() {
                Some(version) => format!("{external_id}/{version}"),
                None => external_id.to_owned(),
            };
            let space = source["space"].as_str().unwrap_or_default();
            let spaces = properties.entry(space.to_owned()).or_insert_with(|| json!({}));
            spaces[place] = Value::Object(values);
        }
    }
    if !sources.is_empty() {
        answer["properties"] = Value::Object(properties);
    }
    answer
}

fn values(instance: &Instance, mapping: &Mapping) -> Map<String, Value> {
    let value = |(property, (container, behind, _)): (&String, &(Name, String, Value))| {
        Some((property.clone(), instance.data.get(container)?.get(behind)?.clone()))
    };
    mapping.iter().filter_map(value).collect()
}

/// Whether the instance has values in every container of a source.
fn has_data(instance: &Instance, mapping: &Mapping) -> bool {
    !mapping.is_empty() && mapping.values().all(|(container, ..)| instance.data.contains_key(container))
}

/// Whether it has data in all sources; otherwise answers leave it out. A source without properties needs no data.
fn in_all(instance: &Instance, sources: &[(Value, Mapping)]) -> bool {
    sources.iter().all(|(_, mapping)| mapping.is_empty() || has_data(instance, mapping))
}

/// Returns the definitions of the sources' properties.
fn typing(sources: &[(Value, Mapping)]) -> Value {
    let mut typing = json!({});
    for (source, mapping) in sources {
        let mut properties = Map::new();
        for (property, (.., definition)) in mapping {
            let known =
                ["nullable", "immutable", "autoIncrement", "defaultValue", "name", "description", "type"];
            let kept = definition.as_object().into_iter().flatten();
            let kept = kept.filter(|(name, _)| known.contains(&name.as_str()));
            properties.insert(property.clone(), kept.map(|(n, v)| (n.clone(), v.clone())).collect());
        }
        let text = |name: &str| source[name].as_str().unwrap_or_default().to_owned();
        let place = format!("{}/{}", text("externalId"), text("version"));
        typing[text("space")][place] = Value::Object(properties);
    }
    typing
}

/// Returns an answer's items, with the definitions if they are wanted.
fn reply(
    items: Vec<Value>,
    cursor: Option<String>,
    sources: &[(Value, Mapping)],
    body: &Map<String, Value>,
) -> Result<Reply, ApiError> {
    let mut answer = json!({ "items": items });
    if let Some(cursor) = cursor {
        answer["nextCursor"] = json!(cursor);
    }
    if flag(body, "includeTyping")? {
        answer["typing"] = typing(sources);
    }
    Ok(Reply::json(200, &answer))
}

/// Returns the sources whose properties are wanted.
fn sources(models: &Models, body: &Map<String, Value>) -> Result<Vec<(Value, Mapping)>, ApiError> {
    let sources = body.get("sources").and_then(Value::as_array).cloned().unwrap_or_default();
    if sources.len() > 10 {
        return Err(ApiError::bad_request("sources: at most 10 are allowed"));
    }
    let one = |source: Value| {
        let source = source["source"].clone();
        if source["type"] != "view" {
            return Err(ApiError::bad_request("sources: expected views"));
        }
        let mapping = mapping(models, &source)?;
        Ok((source, mapping))
    };
    sources.into_iter().map(one).collect()
}

fn by_ids(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let wanted = items(&mut body, MAX_ITEMS)?;
    body.retain(|_, value| !value.is_null());
    refuse_unknown("the request", &body, &["sources", "includeTyping"])?;
    let models = project.models();
    let sources = sources(&models, &body)?;
    let mut found = Vec::new();
    for item in &wanted {
        let key = key(item)?;
        let instance = models.instances.get(&key).filter(|instance| in_all(instance, &sources));
        found.extend(instance.map(|instance| answer(&key, instance, &sources)));
    }
    reply(found, None, &sources, &body)
}

fn list(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    body.retain(|_, value| !value.is_null());
    refuse_unknown(
        "the request",
        &body,
        &["instanceType", "includeTyping", "sources", "filter", "sort", "limit", "cursor", "debug"],
    )?;
    let limit = match body.get("limit") {
        None => MAX_ITEMS,
        Some(limit) => limit
            .as_u64()
            .filter(|limit| (1..=MAX_ITEMS as u64).contains(limit))
            .ok_or_else(|| ApiError::bad_request("limit must be between 1 and 1000"))?
            as usize,
    };
    let wanted = match body.get("instanceType") {
        None => "node",
        Some(_) => kind(&body)?,
    };
    let cursor = body.shift_remove("cursor").filter(|cursor| !cursor.is_null());
    body.shift_remove("limit");
    let parameters = Value::Object(body.clone());
    let after = match &cursor {
        None => None,
        Some(cursor) => Some(codec::decode_cursor(&parameters, cursor.as_str().unwrap_or_default())?),
    };
    let mut models = project.models();
    let sight = models.lists.next();
    let sources = sources(&models, &body)?;
    let filter = match body.get("filter").filter(|filter| !filter.is_null()) {
        None => None,
        Some(filter) => Some(compile(&models, wanted, filter)?),
    };
    let timeout = body.get("debug").and_then(|debug| debug["timeout"].as_i64());
    if timeout.is_some_and(|timeout| timeout < models.list_ms) {
        return Err(timed_out(&sources));
    }
    let order = Order::of(&models, wanted, body.get("sort"))?;
    let models: &Models = &models;
    let seen =
        models.history.seen(&models.instances, Bound::Unbounded, sight, |(kind, (space, external_id))| {
            codec::scatter_text(&format!("{kind} {space} {external_id}"))
        });
    let mut matching: Vec<(Vec<Value>, &Key, &Instance)> = seen
        .filter(|(key, instance)| {
            key.0 == wanted
                && in_all(instance, &sources)
                && filter.as_ref().is_none_or(|filter| filter(key, instance))
        })
        .map(|(key, instance)| (order.values(key, instance), key, instance))
        .collect();
    if let Some(after) = &after {
        let values = after[0].as_array().cloned().unwrap_or_default();
        let part = |at: usize| after[at].as_str().unwrap_or_default().to_owned();
        let last = (wanted, (part(1), part(2)));
        matching
            .retain(|(own, key, _)| order.compare((own.as_slice(), key), (values.as_slice(), &last)).is_gt());
    }
    // Without an order they are already in the order of their keys.
    if !order.0.is_empty() {
        matching.sort_by(|a, b| order.compare((a.0.as_slice(), a.1), (b.0.as_slice(), b.1)));
    }
    let more = matching.len() > limit;
    matching.truncate(limit);
    let cursor = matching
        .last()
        .filter(|_| more)
        .map(|(values, key, _)| codec::encode_cursor(&parameters, &json!([values, key.1 .0, key.1 .1])));
    let page = matching.iter().map(|(_, key, instance)| answer(key, instance, &sources)).collect();
    reply(page, cursor, &sources, &body)
}

/// Returns CDF's refusal of a list that takes too long.
fn timed_out(sources: &[(Value, Mapping)]) -> ApiError {
    let containers: BTreeSet<&Name> =
        sources.iter().flat_map(|(_, mapping)| mapping.values().map(|(container, ..)| container)).collect();
    let reference = |name: &&Name| json!({ "type": "container", "space": name.0, "externalId": name.1 });
    let notice = json!({
        "code": "containersWithoutIndexesInvolved",
        "category": "indexing",
        "level": "warning",
        "grade": "C",
        "hint": "The query looks at containers without an index.",
        "resultExpression": "0",
        "containers": containers.iter().map(reference).collect::<Vec<Value>>(),
    });
    ApiError::new(408, "Graph query timed out. Reduce load or contention, or optimise your query.")
        .with("notices", json!([notice]))
}

/// What a list is sorted by, and after all that by its instances' keys.
struct Order(Vec<SortBy>);

/// One property that a list is sorted by.
struct SortBy {
    subject: Subject,
    of: String,
    descending: bool,
    nulls_first: bool,
}

impl Order {
    fn of(models: &Models, kind: &str, sort: Option<&Value>) -> Result<Self, ApiError> {
        const MOST: usize = 5;
        let wrong = |what: &str| ApiError::bad_request(format!("sort: {what}"));
        let list = match sort {
            None => return Ok(Self(Vec::new())),
            Some(Value::Array(list)) if list.len() <= MOST => list,
            Some(_) => return Err(wrong("expected at most 5 properties")),
        };
        let one = |by: &Value| {
            let members = by.as_object().ok_or_else(|| wrong("expected objects"))?;
            refuse_unknown("sort", members, &["property", "direction", "nullsFirst"])?;
            let (subject, definition) = subject(models, kind, &by["property"])?;
            let of = definition["type"]["type"].as_str().unwrap_or_default().to_owned();
            if definition["type"]["list"] == json!(true) || matches!(of.as_str(), "json" | "direct") {
                return Err(wrong("values of this type have no order"));
            }
            let descending = match by.get("direction").map(Value::as_str) {
                None | Some(Some("ascending")) => false,
                Some(Some("descending")) => true,
                _ => return Err(wrong("direction: expected 'ascending' or 'descending'")),
            };
            Ok(SortBy { subject, of, descending, nulls_first: flag(members, "nullsFirst")? })
        };
        list.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the values that an instance is sorted by.
    fn values(&self, key: &Key, instance: &Instance) -> Vec<Value> {
        self.0.iter().map(|by| value(&by.subject, key, instance)).collect()
    }

    fn compare(&self, (a, of_a): (&[Value], &Key), (b, of_b): (&[Value], &Key)) -> Ordering {
        let one = |(by, (a, b)): (&SortBy, (&Value, &Value))| match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if by.nulls_first => Ordering::Less,
            (false, true) if by.nulls_first => Ordering::Greater,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let order = match (a.as_bool(), b.as_bool()) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => order(&by.of, a, b).unwrap_or(Ordering::Equal),
                };
                if by.descending {
                    order.reverse()
                } else {
                    order
                }
            }
        };
        let by_values = self.0.iter().zip(a.iter().zip(b)).map(one).find(|order| order.is_ne());
        by_values.unwrap_or_else(|| of_a.cmp(of_b))
    }
}

/// A property that a filter names.
enum Subject {
    /// A property that every instance has.
    Base(String),
    /// A value in a container, by its name there.
    Value(Name, String),
}

/// Returns the property that a filter names, and its definition.
fn subject(models: &Schema, kind: &str, path: &Value) -> Result<(Subject, Value), ApiError> {
    let unknown = || ApiError::bad_request(format!("Unknown property {path} in filter"));
    let names: Option<Vec<&str>> =
        path.as_array().map(|path| path.iter().filter_map(Value::as_str).collect());
    match names.as_deref() {
        Some([of, name]) if *of == kind => {
            let of = match *name {
                "space" | "externalId" => "text",
                "createdTime" | "lastUpdatedTime" | "version" => "int64",
                "type" => "direct",
                "startNode" | "endNode" if kind == "edge" => "direct",
                _ => return Err(unknown()),
            };
            Ok((Subject::Base((*name).to_owned()), json!({ "type": { "type": of } })))
        }
        Some([space, source, name]) => {
            let source = match source.split_once('/') {
                Some((external_id, version)) => {
                    json!({ "type": "view", "space": space, "externalId": external_id, "version": version })
                }
                None => json!({ "type": "container", "space": space, "externalId": source }),
            };
            let (container, behind, definition) =
                mapping(models, &source)?.remove(*name).ok_or_else(unknown)?;
            Ok((Subject::Value(container, behind), definition))
        }
        _ => Err(unknown()),
    }
}

/// Returns the value of a property in an instance.
fn value(subject: &Subject, key: &Key, instance: &Instance) -> Value {
    match subject {
        Subject::Base(name) => match name.as_str() {
            "space" => json!(key.1 .0),
            "externalId" => json!(key.1 .1),
            "createdTime" => json!(instance.created),
            "lastUpdatedTime" => json!(instance.updated),
            "version" => json!(instance.version),
            end => instance.ends.get(end).cloned().unwrap_or_default(),
        },
        Subject::Value(container, name) => {
            instance.data.get(container).and_then(|values| values.get(name)).cloned().unwrap_or_default()
        }
    }
}

/// Returns the milliseconds since 1970 of a timestamp that CDF accepts; without a zone it is UTC.
fn millis(text: &str) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days from the civil calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = (number(11..13)? * 60 + number(14..16)?) * 60 + number(17..19)?;
    let rest = &text[19..];
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let fraction = format!("{fraction:0<3}").parse::<i64>().ok()?;
    let offset = match zone.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'-' {
                -minutes
            } else {
                minutes
            }
        }
        _ => 0,
    };
    Some(((days * 86_400 + seconds - offset * 60) * 1000) + fraction)
}

/// Compares two values of a type; None if they are not comparable, as with null.
fn order(of: &str, a: &Value, b: &Value) -> Option<Ordering> {
    match (of, a, b) {
        ("timestamp", Value::String(a), Value::String(b)) => Some(millis(a)?.cmp(&millis(b)?)),
        (_, Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        // It is stored with 32 bits, but compared with a value of full precision.
        ("float32", Value::Number(a), Value::Number(b)) => {
            f64::from(a.as_f64()? as f32).partial_cmp(&b.as_f64()?)
        }
        (_, Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (_, Value::Null, _) => None,
        (_, a, b) => (a == b).then_some(Ordering::Equal),
    }
}

type Predicate = Box<dyn Fn(&Key, &Instance) -> bool>;

/// Compiles a filter on instances of a kind; an unknown property or a value of a wrong type is refused.
fn compile(models: &Schema, kind: &str, filter: &Value) -> Result<Predicate, ApiError> {
    let Some((operator, operand)) = filter.as_object().filter(|f| f.len() == 1).and_then(|f| f.iter().next())
    else {
        return Err(ApiError::bad_request("filter: expected an object with one operator"));
    };
    let wrong = |what: &str| ApiError::bad_request(format!("filter.{operator}: {what}"));
    let list = |value: &Value| value.as_array().cloned().ok_or_else(|| wrong("expected an array"));
    let compiled = || -> Result<Vec<Predicate>, ApiError> {
        let parts = list(operand)?;
        if parts.is_empty() {
            Err(wrong("at least one clause is needed"))
        } else {
            parts.iter().map(|part| compile(models, kind, part)).collect()
        }
    };
    match operator.as_str() {
        "and" => {
            let parts = compiled()?;
            return Ok(Box::new(move |key, instance| parts.iter().all(|part| part(key, instance))));
        }
        "or" => {
            let parts = compiled()?;
            return Ok(Box::new(move |key, instance| parts.iter().any(|part| part(key, instance))));
        }
        "not" => {
            let part = compile(models, kind, operand)?;
            return Ok(Box::new(move |key, instance| !part(key, instance)));
        }
        "matchAll" => return Ok(Box::new(|_, _| true)),
        "hasData" => {
            let sources: Vec<Mapping> =
                list(operand)?.iter().map(|source| mapping(models, source)).collect::<Result<_, _>>()?;
            return Ok(Box::new(move |_, instance| sources.iter().all(|source| has_data(instance, source))));
        }
        "instanceReferences" => {
            let names: Vec<Name> = list(operand)?.iter().filter_map(relation).collect();
            return Ok(Box::new(move |key, _| names.contains(&key.1)));
        }
        _ => {}
    }
    let members: &[&str] = match operator.as_str() {
        "equals" | "prefix" => &["property", "value"],
        "in" | "containsAll" | "containsAny" => &["property", "values"],
        "exists" => &["property"],
        "range" => &["property", "gt", "gte", "lt", "lte"],
        // Valid in CDF; refused rather than ignored, so that nobody mistakes an unfiltered list for a filtered one.
        "nested" | "overlaps" | "search" => {
            return Err(ApiError::new(501, format!("filter.{operator} is not emulated")))
        }
        other => return Err(ApiError::bad_request(format!("Unknown filter '{other}'"))),
    };
    let given = operand.as_object().ok_or_else(|| wrong("expected an object"))?;
    refuse_unknown(operator, given, members)?;
    let (subject, definition) = subject(models, kind, &operand["property"])?;
    let of = definition["type"]["type"].as_str().unwrap_or_default().to_owned();
    let many = definition["type"]["list"] == json!(true);
    let mut single = definition["type"].clone();
    single["list"] = json!(false);
    let single = json!({ "type": single });
    let fits = |given: &Value| {
        if given.is_null() {
            Err(wrong("a value is needed"))
        } else {
            check("value", &single, given)
        }
    };
    let given_values = || -> Result<Vec<Value>, ApiError> {
        let values = list(&operand["values"])?;
        values.iter().try_for_each(fits)?;
        Ok(values)
    };
    let no_list = |what: &str| if many { Err(wrong(what)) } else { Ok(()) };
    let same = move |of: &str, a: &Value, b: &Value| order(of, a, b) == Some(Ordering::Equal);
    Ok(match operator.as_str() {
        "exists" => Box::new(move |key, instance| !value(&subject, key, instance).is_null()),
        "equals" => {
            no_list("the property is a list")?;
            let wanted = operand["value"].clone();
            fits(&wanted)?;
            Box::new(move |key, instance| same(&of, &value(&subject, key, instance), &wanted))
        }
        "in" => {
            no_list("the property is a list")?;
            let wanted = given_values()?;
            Box::new(move |key, instance| {
                let value = value(&subject, key, instance);
                wanted.iter().any(|wanted| same(&of, &value, wanted))
            })
        }
        "prefix" => {
            if many || of != "text" {
                return Err(wrong("the property is no single text"));
            }
            let prefix = operand["value"].as_str().ok_or_else(|| wrong("expected a string"))?.to_owned();
            Box::new(move |key, instance| {
                value(&subject, key, instance).as_str().is_some_and(|text| text.starts_with(&prefix))
            })
        }
        "range" => {
            no_list("the property is a list")?;
            if matches!(of.as_str(), "boolean" | "json" | "direct") {
                return Err(wrong("values of this type have no order"));
            }
            let bounds: Vec<(String, Value)> = given
                .iter()
                .filter(|(name, _)| *name != "property")
                .map(|(name, bound)| fits(bound).map(|()| (name.clone(), bound.clone())))
                .collect::<Result<_, _>>()?;
            let twice = |a: &str, b: &str| given.contains_key(a) && given.contains_key(b);
            if bounds.is_empty() || twice("gt", "gte") || twice("lt", "lte") {
                return Err(wrong("expected one of gt and gte, or one of lt and lte, or one of each"));
            }
            Box::new(move |key, instance| {
                let value = value(&subject, key, instance);
                bounds.iter().all(|(name, bound)| {
                    order(&of, &value, bound).is_some_and(|order| match name.as_str() {
                        "gt" => order.is_gt(),
                        "gte" => order.is_ge(),
                        "lt" => order.is_lt(),
                        _ => order.is_le(),
                    })
                })
            })
        }
        _ => {
            if !many {
                return Err(wrong("the property is no list"));
            }
            let all = operator == "containsAll";
            let wanted = given_values()?;
            Box::new(move |key, instance| {
                let value = value(&subject, key, instance);
                let elements = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
                let has = |wanted: &Value| elements.iter().any(|element| same(&of, element, wanted));
                if all {
                    value.is_array() && wanted.iter().all(has)
                } else {
                    wanted.iter().any(has)
                }
            })
        }
    })
}

/// Deletes instances, and the edges of deleted nodes. Returns those that existed.
fn remove(models: &mut Models, gone: &BTreeSet<Key>) -> Vec<Value> {
    let mut removed = Vec::new();
    for key in gone {
        if models.put(key.clone(), None) {
            removed.push(json!({ "instanceType": key.0, "space": key.1 .0, "externalId": key.1 .1 }));
        }
    }
    let is_gone = |end: &Value| relation(end).is_some_and(|node| gone.contains(&("node", node)));
    let loose = |instance: &Instance| {
        ["startNode", "endNode"].iter().any(|end| instance.ends.get(*end).is_some_and(is_gone))
    };
    let edges = models.instances.range(("edge", Name::default())..).take_while(|(key, _)| key.0 == "edge");
    let edges: Vec<Key> = edges.filter(|(_, edge)| loose(edge)).map(|(key, _)| key.clone()).collect();
    for key in edges {
        models.put(key, None);
    }
    removed
}

/// Deletes instances. It is no error if they do not exist.
fn delete(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let mut body = request.json()?;
    let gone = items(&mut body, MAX_ITEMS)?;
    refuse_unknown("the request", &body, &[])?;
    let mut models = project.models();
    let gone = keys_of(&models, &gone)?;
    Ok(Reply::items(200, remove(&mut models, &gone), None))
}

/// Returns all instances for the admin interface, with their values by container.
pub fn dump(project: &Project, wanted: Option<&str>) -> Vec<Value> {
    let models = project.models();
    let chosen = models.instances.iter().filter(|(key, _)| wanted.is_none_or(|wanted| key.1 .1 == wanted));
    chosen
        .map(|(key, instance)| {
            let mut json = answer(key, instance, &[]);
            let mut properties = Map::new();
            for values in instance.data.values() {
                properties.extend(values.clone());
            }
            json["properties"] = Value::Object(properties);
            json
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_as_cdf_documents_them() {
        for good in ["2024-01-01T00:00:00", "2024-01-01T00:00:00.123Z", "2024-01-01T00:00:00.1+02:00"] {
            assert!(is_timestamp(good), "{good}");
        }
        for bad in
            ["2024-01-01", "2024-01-01 00:00:00", "2024-01-01T00:00:00.1234Z", "2024-01-01T00:00:00+0200"]
        {
            assert!(!is_timestamp(bad), "{bad}");
        }
        assert!(is_date("2024-02-29") && !is_date("2024-2-29"));
        for text in
            ["0001-01-01T00:00:00+00:00", "2024-05-06T07:08:09+00:00", "1969-12-31T23:59:59.123+00:00"]
        {
            assert_eq!(millis(text).map(timestamp).as_deref(), Some(text));
        }
        assert_eq!(millis("1970-01-01T00:00:00"), Some(0));
        assert_eq!(millis("1969-12-31T23:59:59.9Z"), Some(-100));
        assert_eq!(millis("2024-02-29T12:00:00.123+02:00"), Some(1_709_200_800_123));
        assert!(check_space("a-b_1").is_ok() && check_space("1a").is_err());
    }
}
