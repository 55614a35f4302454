//! Definitions of data-model views, and how a session gets them from CDF.

use bytes::Bytes;
use serde_json::{json, Value};

use crate::cdf::document;
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::client::Client;
use crate::cdf::http::connection::Connection;
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::{Limits, Request, RequestBody};
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::view::{LIST_ELEMENTS, LIST_RELATIONS, READ_DEFINITIONS, TEXT_BYTES, VIEWS};

/// The request for definitions of views that are named.
pub fn by_ids() -> Endpoint {
    Endpoint::post(VIEWS).by_ids()
}

/// Views per page, CDF's maximum.
const PER_PAGE: usize = 1000;

/// The name of a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ViewName {
    pub space: String,
    pub external_id: String,
    pub version: String,
}

impl ViewName {
    /// The view as requests name it.
    pub fn source(&self) -> Value {
        json!({
            "type": "view",
            "space": self.space,
            "externalId": self.external_id,
            "version": self.version,
        })
    }
}

impl std::fmt::Display for ViewName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.space, self.external_id, self.version)
    }
}

/// A view as a table names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ViewReference {
    pub space: String,
    pub external_id: String,
    /// None: the newest one that there is.
    pub version: Option<String>,
}

impl std::fmt::Display for ViewReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.space, self.external_id)?;
        match &self.version {
            Some(version) => write!(f, "/{version}"),
            None => Ok(()),
        }
    }
}

/// Which instances a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsedFor {
    Nodes,
    Edges,
    Both,
}

/// What a property holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyType {
    Text,
    Boolean,
    Int32,
    Int64,
    Float32,
    Float64,
    Timestamp,
    Date,
    Json,
    /// A direct relation: another instance's space and external id.
    Direct,
    /// A text that CDF must know: the external id of a time series, file or sequence, or a value of an enumeration.
    Reference,
}

impl PropertyType {
    fn of(name: &str) -> PropertyType {
        match name {
            "boolean" => PropertyType::Boolean,
            "int32" => PropertyType::Int32,
            "int64" => PropertyType::Int64,
            "float32" => PropertyType::Float32,
            "float64" => PropertyType::Float64,
            "timestamp" => PropertyType::Timestamp,
            "date" => PropertyType::Date,
            "json" => PropertyType::Json,
            "direct" => PropertyType::Direct,
            "text" => PropertyType::Text,
            // `timeseries`, `file`, `sequence`, `enum`, and whatever else CDF may come to have: written as text.
            _ => PropertyType::Reference,
        }
    }

    /// The SQL type of a column for one value.
    pub fn sql(self) -> &'static str {
        match self {
            PropertyType::Text | PropertyType::Reference => "text",
            PropertyType::Boolean => "boolean",
            PropertyType::Int32 => "integer",
            PropertyType::Int64 => "bigint",
            PropertyType::Float32 => "real",
            PropertyType::Float64 => "double precision",
            PropertyType::Timestamp => "timestamp with time zone",
            PropertyType::Date => "date",
            PropertyType::Json | PropertyType::Direct => "jsonb",
        }
    }
}

/// A property that instances hold values of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub property_type: PropertyType,
    /// Elements of a list; None for a single value.
    pub list: Option<usize>,
    /// UTF-8 bytes of a text.
    pub text_bytes: usize,
    /// The values of an enumeration that can be written.
    pub values: Option<Vec<String>>,
    /// Whether a value can be cleared.
    pub nullable: bool,
}

impl Property {
    /// A property without limits of its own.
    pub fn new(name: impl Into<String>, property_type: PropertyType, list: bool) -> Property {
        let most = match property_type {
            PropertyType::Direct => LIST_RELATIONS,
            _ => LIST_ELEMENTS,
        };
        Property {
            name: name.into(),
            property_type,
            list: list.then_some(most),
            text_bytes: TEXT_BYTES,
            values: None,
            nullable: true,
        }
    }

    /// Reads a property of a definition as CDF answers it.
    fn read(name: &str, property: &Value) -> Property {
        let definition = &property["type"];
        let number = |name: &str| definition[name].as_u64().and_then(|most| usize::try_from(most).ok());
        let of = PropertyType::of(definition["type"].as_str().unwrap_or_default());
        let list = definition["list"].as_bool().unwrap_or_default();
        let mut read = Property::new(name, of, list);
        if let (Some(most), Some(own)) = (&mut read.list, number("maxListSize")) {
            *most = own;
        }
        if let Some(own) = number("maxTextSize") {
            read.text_bytes = own.min(TEXT_BYTES);
        }
        if definition["type"] == "enum" {
            let unknown = definition["unknownValue"].as_str();
            let names = definition["values"].as_object().into_iter().flatten().map(|(name, _)| name);
            // The value that stands for unknown values cannot be written.
            read.values = Some(names.filter(|name| Some(name.as_str()) != unknown).cloned().collect());
        }
        read.nullable = property["nullable"].as_bool().unwrap_or(true);
        read
    }
}

/// A view's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: ViewName,
    pub used_for: UsedFor,
    /// In CDF's order; connections, which are no values of an instance, are left out.
    pub properties: Vec<Property>,
    created: i64,
}

impl View {
    /// Reads a definition as CDF answers it.
    pub(in crate::cdf) fn read(view: &Value) -> Option<View> {
        let text = |name: &str| view[name].as_str().map(str::to_owned);
        let name =
            ViewName { space: text("space")?, external_id: text("externalId")?, version: text("version")? };
        let used_for = match view["usedFor"].as_str() {
            Some("edge") => UsedFor::Edges,
            Some("all") => UsedFor::Both,
            _ => UsedFor::Nodes,
        };
        // Connections have no container.
        let own =
            view["properties"].as_object()?.iter().filter(|(_, property)| property["container"].is_object());
        let properties = own.map(|(name, property)| Property::read(name, property));
        let properties = properties.collect();
        Some(View { name, used_for, properties, created: view["createdTime"].as_i64().unwrap_or_default() })
    }

    /// The property with this name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.name == name)
    }
}

/// Asks CDF for definitions of data models.
pub struct Definitions {
    pub client: Client,
    pub connection: std::sync::Arc<Connection>,
    pub limits: Limits,
}

impl Definitions {
    async fn send(&self, endpoint: Endpoint, body: Option<Value>) -> Result<Response, RequestError> {
        let body = body.map_or(RequestBody::None, |body| RequestBody::Json(Bytes::from(body.to_string())));
        // Definitions come as lists only.
        let request = Request { endpoint, body, resend: Resend::Always, owed: Owed::List };
        self.client.send(&self.connection, &request, &self.limits).await
    }

    /// The answer to a GET.
    pub async fn get(&self, endpoint: Endpoint) -> Result<document::Value, RequestError> {
        Ok(self.send(endpoint, None).await?.document()?)
    }

    async fn read(&self, endpoint: Endpoint, body: Option<Value>) -> Result<Value, Error> {
        let answer = self.send(endpoint, body).await;
        answer.map_err(|error| error.into_error(READ_DEFINITIONS).about("data models"))?.json()
    }

    /// The definition of one view; None if there is no such view. Asked without a version, CDF answers with all of them:
    /// the newest is the one that was created last, as in a list of views without the others.
    pub async fn view(&self, name: &ViewReference) -> Result<Option<View>, Error> {
        let mut item = json!({ "space": name.space, "externalId": name.external_id });
        if let Some(version) = &name.version {
            item["version"] = json!(version);
        }
        let endpoint = by_ids().with("includeInheritedProperties", true);
        let answer = self.read(endpoint, Some(json!({ "items": [item] }))).await?;
        let views = answer["items"].as_array().into_iter().flatten().filter_map(View::read);
        Ok(views.max_by_key(|view| view.created))
    }

    /// The newest version of every view of a space; None if there is no such space.
    pub async fn views(&self, space: &str) -> Result<Option<Vec<View>>, Error> {
        let body = json!({ "items": [{ "space": space }] });
        let spaces = self.read(Endpoint::post("/models/spaces").by_ids(), Some(body)).await?;
        if spaces["items"].as_array().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let mut newest: Vec<View> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = Endpoint::get(VIEWS)
                .with("space", space)
                .with("includeGlobal", true)
                .with("allVersions", false)
                .with("limit", PER_PAGE)
                .with_cursor(cursor.as_deref());
            let answer = self.read(page, None).await?;
            for view in answer["items"].as_array().into_iter().flatten().filter_map(View::read) {
                match newest.iter_mut().find(|known| known.name.external_id == view.name.external_id) {
                    Some(known) if known.created <= view.created => *known = view,
                    Some(_) => {}
                    None => newest.push(view),
                }
            }
            cursor = answer["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(Some(newest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read_without_connections() {
        let container = json!({ "type": "container", "space": "sp", "externalId": "Pump" });
        let view = View::read(&json!({
            "space": "sp", "externalId": "Pump", "version": "v1", "usedFor": "all", "createdTime": 7,
            "properties": {
                "name": { "container": container, "type": { "type": "text", "list": false } },
                "tags": { "container": container, "type": { "type": "text", "list": true, "maxListSize": 5, "maxTextSize": 9 } },
                "parts": { "container": container, "type": { "type": "direct", "list": true }, "nullable": false },
                "state": { "container": container, "type": {
                    "type": "enum", "values": { "on": {}, "off": { "name": "Off" }, "other": {} }, "unknownValue": "other",
                } },
                "edges": { "connectionType": "multi_edge_connection" },
            },
        }))
        .unwrap();
        assert_eq!(view.used_for, UsedFor::Both);
        assert_eq!(view.properties.len(), 4);
        let tags = view.property("tags").unwrap();
        assert_eq!((tags.list, tags.text_bytes, tags.nullable), (Some(5), 9, true));
        let parts = view.property("parts").unwrap();
        assert_eq!((parts.list, parts.nullable), (Some(100), false));
        let state = view.property("state").unwrap();
        assert_eq!(state.values, Some(vec!["on".to_owned(), "off".to_owned()]));
        assert_eq!(state.property_type.sql(), "text");
        assert_eq!(view.property("name").unwrap().property_type, PropertyType::Text);
        assert_eq!(view.name.to_string(), "sp:Pump/v1");
        let newest = ViewReference { space: "sp".into(), external_id: "Pump".into(), version: None };
        assert_eq!(newest.to_string(), "sp:Pump");
    }
}
