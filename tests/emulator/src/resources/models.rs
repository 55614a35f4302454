//! The schema of data modeling: spaces, containers and views. Instances are in [`super::instances`].

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{json, Map, Value};

use super::instances::{self, Instance, Instances, Key};
use super::Route;
use crate::codec::{self, now_ms};
use crate::errors::ApiError;
use crate::lag::{History, Lag};
use crate::reply::{Reply, Request};
use crate::store::Project;

const ACL: &str = "dataModelsAcl";
const MAX_ITEMS: usize = 100;

/// A space and an external id in it.
pub type Name = (String, String);

/// Everything of data modeling in a project.
#[derive(Default)]
pub struct Models {
    schema: Schema,
    /// Nodes and edges.
    pub instances: Instances,
    /// Earlier versions that lists still show.
    pub history: History<Key, Instance>,
    /// How far lists lag behind.
    pub lists: Lag,
    /// How many changes of containers are still refused, as while another change of the schema runs.
    pub schema_locks: u32,
    /// How long a list takes; compared with the timeout that its request sets.
    pub list_ms: i64,
}

impl std::ops::Deref for Models {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        &self.schema
    }
}

impl Models {
    /// Stores or removes an instance; None: it is removed.
    pub fn put(&mut self, key: Key, instance: Option<Instance>) -> bool {
        let before = match instance {
            Some(instance) => self.instances.insert(key.clone(), instance),
            None => self.instances.remove(&key),
        };
        let existed = before.is_some();
        self.history.record(key, before, self.lists.most);
        existed
    }
}

/// Spaces, containers and views.
#[derive(Default, Clone)]
pub struct Schema {
    spaces: BTreeMap<String, Value>,
    containers: BTreeMap<Name, Value>,
    /// By name and version.
    views: BTreeMap<(Name, String), Value>,
    /// When the last view was created, so that of two versions one is always newer.
    last_view: i64,
}

impl Schema {
    /// Whether the space exists.
    pub fn has_space(&self, space: &str) -> bool {
        self.spaces.contains_key(space)
    }

    /// Returns a container's definition.
    pub fn container(&self, name: &Name) -> Option<&Value> {
        self.containers.get(name)
    }

    /// Returns a view's definition as answers show it.
    pub fn view(&self, name: &Name, version: &str) -> Option<&Value> {
        self.views.get(&(name.clone(), version.to_owned()))
    }
}

/// Returns the route of a request below /models.
pub fn route(method: &Method, rest: &[&str]) -> Option<Route> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    match rest {
        ["instances", rest @ ..] if post => instances::route(rest),
        ["spaces"] if post => Some(Route::new(ACL, "WRITE", create_spaces)),
        ["spaces"] if get => Some(Route::new(ACL, "READ", list_spaces)),
        ["spaces", "byids"] if post => Some(Route::new(ACL, "READ", spaces_by_ids)),
        ["containers"] if post => Some(Route::new(ACL, "WRITE", create_containers)),
        ["containers"] if get => Some(Route::new(ACL, "READ", list_containers)),
        ["containers", "byids"] if post => Some(Route::new(ACL, "READ", containers_by_ids)),
        ["views"] if post => Some(Route::new(ACL, "WRITE", create_views)),
        ["views"] if get => Some(Route::new(ACL, "READ", list_views)),
        ["views", "byids"] if post => Some(Route::new(ACL, "READ", views_by_ids)),
        _ => None,
    }
}

/// Returns the objects in `items`, at most this many.
pub fn items(body: &mut Map<String, Value>, max: usize) -> Result<Vec<Map<String, Value>>, ApiError> {
    let Some(Value::Array(items)) = body.shift_remove("items") else {
        return Err(ApiError::bad_request("Missing required field: items"));
    };
    if !(1..=max).contains(&items.len()) {
        let got = items.len();
        return Err(ApiError::bad_request(format!("items: size must be between 1 and {max}, got {got}")));
    }
    let object = |item| match item {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::bad_request("items: expected objects")),
    };
    items.into_iter().map(object).collect()
}

/// Returns a required text.
pub fn text(object: &Map<String, Value>, name: &str) -> Result<String, ApiError> {
    object
        .get(name)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request(format!("Missing required field: {name}")))
}

/// Returns the `space` and `externalId` of an object.
pub fn name(object: &Map<String, Value>) -> Result<Name, ApiError> {
    Ok((text(object, "space")?, text(object, "externalId")?))
}

/// Checks that a text is an identifier: a letter, then letters, digits and what `more` allows.
fn check_identifier(what: &str, text: &str, max: usize, more: &str) -> Result<(), ApiError> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    let ends_well = !text.ends_with('-');
    if text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(known)
        && ends_well
        && text.len() <= max
    {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!("{what} '{text}' does not match the expected pattern")))
    }
}

/// Checks the version of a view.
fn check_version(version: &str) -> Result<(), ApiError> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if version.chars().all(known)
        && ends(version.chars().next())
        && ends(version.chars().last())
        && version.len() <= 43
    {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!("version '{version}' does not match the expected pattern")))
    }
}

/// Checks the name of a space.
pub fn check_space(space: &str) -> Result<(), ApiError> {
    check_identifier("space", space, 43, "-")
}

/// Returns a page of a GET, with `limit` and `cursor` in its query.
fn page(request: &Request, place: &Value, all: Vec<Value>) -> Result<Reply, ApiError> {
    let limit = request.query_integer("limit", 1, 1000)?.unwrap_or(10) as usize;
    let from = match request.query("cursor") {
        None => 0,
        Some(cursor) => codec::decode_cursor(place, cursor)?.as_u64().unwrap_or(0) as usize,
    };
    let more = all.len() > from + limit;
    let cursor = more.then(|| codec::encode_cursor(place, &json!(from + limit)));
    Ok(Reply::items(200, all.into_iter().skip(from).take(limit).collect(), cursor))
}

/// Adds the times; an object that is written again keeps the time of its creation.
fn stamp(mut object: Map<String, Value>, before: Option<&Value>) -> Value {
    let now = now_ms();
    object.insert("createdTime".into(), before.map_or(json!(now), |before| before["createdTime"].clone()));
    object.insert("lastUpdatedTime".into(), json!(now));
    object.insert("isGlobal".into(), json!(false));
    Value::Object(object)
}

fn create_spaces(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let mut models = project.models();
    // Changed as a copy, which replaces the original only if everything succeeds.
    let mut schema = models.schema.clone();
    let mut made = Vec::new();
    for item in items {
        let space = text(&item, "space")?;
        check_space(&space)?;
        let stored = stamp(item, schema.spaces.get(&space));
        schema.spaces.insert(space, stored.clone());
        made.push(stored);
    }
    models.schema = schema;
    Ok(Reply::items(200, made, None))
}

fn list_spaces(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let all = project.models().spaces.values().cloned().collect();
    page(request, &json!("spaces"), all)
}

fn spaces_by_ids(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let models = project.models();
    let mut found = Vec::new();
    for item in items {
        found.extend(models.spaces.get(&text(&item, "space")?).cloned());
    }
    Ok(Reply::items(200, found, None))
}

fn create_containers(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    const TYPES: [&str; 14] = [
        "text",
        "boolean",
        "float32",
        "float64",
        "int32",
        "int64",
        "timestamp",
        "date",
        "json",
        "direct",
        "timeseries",
        "file",
        "sequence",
        "enum",
    ];
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let mut models = project.models();
    if models.schema_locks > 0 {
        models.schema_locks -= 1;
        return Err(locked());
    }
    let mut schema = models.schema.clone();
    let mut made = Vec::new();
    for mut item in items {
        let name = name(&item)?;
        if !schema.has_space(&name.0) {
            return Err(no_space(&name.0));
        }
        let Some(Value::Object(properties)) = item.get_mut("properties") else {
            return Err(ApiError::bad_request("Missing required field: properties"));
        };
        for (identifier, property) in properties.iter_mut() {
            check_identifier("property", identifier, 255, "")?;
            let kind = property["type"]["type"].as_str().unwrap_or_default().to_owned();
            if !TYPES.contains(&kind.as_str()) {
                return Err(ApiError::bad_request(format!(
                    "Unknown type '{kind}' of property '{identifier}'"
                )));
            }
            if kind == "enum" {
                check_enum(identifier, &property["type"])?;
            } else if property["type"]["list"].is_null() {
                property["type"]["list"] = json!(false);
            }
            if kind == "text" && property["type"]["collation"].is_null() {
                property["type"]["collation"] = json!("ucs_basic");
            }
            for (field, default) in [("nullable", true), ("immutable", false), ("autoIncrement", false)] {
                if property[field].is_null() {
                    property[field] = json!(default);
                }
            }
            property["constraintState"] = json!({});
        }
        if item.get("usedFor").is_none_or(Value::is_null) {
            item.insert("usedFor".into(), json!("node"));
        }
        for field in ["constraints", "indexes"] {
            item.entry(field).or_insert_with(|| json!({}));
        }
        let stored = stamp(item, schema.containers.get(&name));
        schema.containers.insert(name, stored.clone());
        made.push(stored);
    }
    models.schema = schema;
    Ok(Reply::items(200, made, None))
}

/// Returns CDF's refusal of a change of the schema while another one runs.
fn locked() -> ApiError {
    let message = "Schema lock conflict occurred. Another schema change is under way; try again later.";
    ApiError::new(409, message).with("isAutoRetryable", json!(true)).header("cdf-is-auto-retryable", "true")
}

/// Checks the values of an enumeration: 1 to 32 identifiers.
fn check_enum(property: &str, of: &Value) -> Result<(), ApiError> {
    let wrong = |what: &str| ApiError::bad_request(format!("enum values of property '{property}': {what}"));
    let values = of["values"].as_object().ok_or_else(|| wrong("expected an object"))?;
    if !(1..=32).contains(&values.len()) {
        return Err(wrong("expected 1 to 32 of them"));
    }
    for name in values.keys() {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && name.len() <= 128;
        if !first || !rest || matches!(name.as_str(), "true" | "false" | "null") {
            return Err(wrong(&format!("'{name}' does not match the expected pattern")));
        }
    }
    match of["unknownValue"].as_str().filter(|unknown| !values.contains_key(*unknown)) {
        Some(unknown) => Err(wrong(&format!("the unknown value '{unknown}' is none of them"))),
        None => Ok(()),
    }
}

/// Returns CDF's refusal of a space that does not exist.
pub fn no_space(space: &str) -> ApiError {
    ApiError::bad_request(format!("One or more spaces do not exist: '{space}'"))
}

fn list_containers(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let space = request.query("space").map(str::to_owned);
    let models = project.models();
    let wanted = models.containers.iter().filter(|((s, _), _)| space.as_ref().is_none_or(|space| s == space));
    page(request, &json!(["containers", space]), wanted.map(|(_, container)| container.clone()).collect())
}

fn containers_by_ids(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let models = project.models();
    let mut found = Vec::new();
    for item in items {
        found.extend(models.containers.get(&name(&item)?).cloned());
    }
    Ok(Reply::items(200, found, None))
}

fn create_views(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let mut models = project.models();
    let mut schema = models.schema.clone();
    let mut made = Vec::new();
    for item in items {
        let key = (name(&item)?, text(&item, "version")?);
        if !schema.has_space(&key.0 .0) {
            return Err(no_space(&key.0 .0));
        }
        check_version(&key.1)?;
        let resolved = resolve(&schema, item)?;
        let mut stored = stamp(resolved, schema.views.get(&key));
        if !schema.views.contains_key(&key) {
            schema.last_view = now_ms().max(schema.last_view + 1);
            stored["createdTime"] = json!(schema.last_view);
        }
        schema.views.insert(key, stored.clone());
        made.push(stored);
    }
    models.schema = schema;
    Ok(Reply::items(200, made, None))
}

/// Returns a view as answers show it: each property has the type of the container property behind it.
fn resolve(models: &Schema, mut view: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let mut properties = Map::new();
    for parent in view.get("implements").and_then(Value::as_array).into_iter().flatten() {
        let parent = parent.as_object().cloned().unwrap_or_default();
        let (name, version) = (name(&parent)?, text(&parent, "version")?);
        let parent = models.view(&name, &version).ok_or_else(|| no_view(&name, &version))?;
        properties.extend(parent["properties"].as_object().cloned().unwrap_or_default());
    }
    for (identifier, property) in view.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_identifier("property", identifier, 255, "")?;
        let Some(container) = property["container"].as_object() else {
            // A connection is no value of the instance itself.
            properties.insert(identifier.clone(), property.clone());
            continue;
        };
        let container_name = name(container)?;
        let behind = property["containerPropertyIdentifier"].as_str().unwrap_or_default();
        let found = models
            .container(&container_name)
            .map(|container| &container["properties"][behind])
            .filter(|found| found.is_object())
            .ok_or_else(|| {
                let (space, external_id) = &container_name;
                ApiError::bad_request(format!(
                    "View property '{identifier}' maps to an unknown container property '{space}:{external_id}.{behind}'"
                ))
            })?;
        let mut made = found.clone();
        for field in ["name", "description"] {
            if !property[field].is_null() {
                made[field] = property[field].clone();
            }
        }
        if made["type"]["type"] == "direct" && !property["source"].is_null() {
            made["type"]["source"] = property["source"].clone();
        }
        made["container"] =
            json!({ "type": "container", "space": container_name.0, "externalId": container_name.1 });
        made["containerPropertyIdentifier"] = json!(behind);
        properties.insert(identifier.clone(), made);
    }
    let mut mapped: Vec<Value> = Vec::new();
    for property in properties.values() {
        let container = &property["container"];
        if container.is_object() && !mapped.contains(container) {
            mapped.push(container.clone());
        }
    }
    let used_for = |what: &str| {
        mapped.iter().all(|container| {
            let name = container.as_object().and_then(|container| name(container).ok());
            let used = name.and_then(|name| models.container(&name)).map(|container| &container["usedFor"]);
            used.is_some_and(|used| used == what || used == "all")
        })
    };
    let used_for = match (used_for("node"), used_for("edge")) {
        (true, true) => "all",
        (false, true) => "edge",
        _ => "node",
    };
    // A view that leaves out a property that needs a value is read-only.
    let writable = mapped.iter().all(|container| {
        let name = container.as_object().and_then(|container| name(container).ok());
        let definition = name.and_then(|name| models.container(&name));
        definition.and_then(|d| d["properties"].as_object()).into_iter().flatten().all(
            |(behind, property)| {
                let maps = |view: &Value| {
                    view["container"] == *container && view["containerPropertyIdentifier"] == json!(behind)
                };
                !needs_value(property) || properties.values().any(maps)
            },
        )
    });
    view.insert("queryable".into(), json!(!mapped.is_empty() || view.contains_key("filter")));
    view.insert("properties".into(), Value::Object(properties));
    view.insert("usedFor".into(), json!(used_for));
    view.insert("mappedContainers".into(), json!(mapped));
    view.insert("writable".into(), json!(writable));
    view.entry("implements").or_insert_with(|| json!([]));
    Ok(view)
}

/// Whether a container's property has to be given a value.
pub fn needs_value(property: &Value) -> bool {
    property["nullable"] == json!(false) && property["defaultValue"].is_null()
}

/// Returns CDF's refusal of a view that does not exist.
pub fn no_view((space, external_id): &Name, version: &str) -> ApiError {
    ApiError::bad_request(format!("One or more views do not exist: '{space}:{external_id}/{version}'"))
}

/// Returns the version of each view that was created last, unless all are wanted.
fn newest(views: Vec<&Value>) -> Vec<&Value> {
    let mut newest: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
    for view in views {
        let key =
            (view["space"].as_str().unwrap_or_default(), view["externalId"].as_str().unwrap_or_default());
        let kept = newest.entry(key).or_insert(view);
        if view["createdTime"].as_i64() >= kept["createdTime"].as_i64() {
            *kept = view;
        }
    }
    newest.into_values().collect()
}

fn list_views(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let space = request.query("space").map(str::to_owned);
    let all_versions = request.query_flag("allVersions")?;
    request.query_flag("includeGlobal")?;
    let models = project.models();
    let mut views: Vec<&Value> = models
        .views
        .iter()
        .filter(|(((s, _), _), _)| space.as_ref().is_none_or(|space| s == space))
        .map(|(_, view)| view)
        .collect();
    if !all_versions {
        views = newest(views);
    }
    page(request, &json!(["views", space, all_versions]), views.into_iter().cloned().collect())
}

fn views_by_ids(project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
    let items = items(&mut request.json()?, MAX_ITEMS)?;
    let models = project.models();
    let mut found = Vec::new();
    for item in items {
        let name = name(&item)?;
        let version = item.get("version").and_then(Value::as_str);
        let versions = models
            .views
            .iter()
            .filter(|((n, v), _)| *n == name && version.is_none_or(|version| v == version));
        found.extend(versions.map(|(_, view)| view.clone()));
    }
    Ok(Reply::items(200, found, None))
}
