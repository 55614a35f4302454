//! Nodes and edges behind a data-model view (API description, `POST /models/instances`).

use super::*;

/// Instances per request.
pub const INSTANCES_PER_REQUEST: usize = 1000;
/// Requests that write instances at a time: CDF takes no more of a project.
pub const REQUESTS_IN_PARALLEL: usize = 4;
/// Characters of an instance's external id.
pub const INSTANCE_ID_CHARS: usize = 256;
/// UTF-8 bytes of a text.
pub const TEXT_BYTES: usize = 128_000;
/// Bytes of a JSON document, or of a list of them.
pub const JSON_BYTES: usize = 40_960;
/// Keys of an object in a JSON document.
pub const JSON_KEYS: usize = 256;
/// Characters of a key in a JSON document.
pub const JSON_KEY_CHARS: usize = 128;
/// Bytes of what an object in a JSON document holds under a key.
pub const JSON_VALUE_BYTES: usize = 10_240;
/// Elements of a list, where the property sets no limit of its own.
pub const LIST_ELEMENTS: usize = 1000;
/// As [`LIST_ELEMENTS`], of direct relations.
pub const LIST_RELATIONS: usize = 100;

const fn part(name: &'static str, property: &'static str) -> Column {
    fixed(name, property, ColumnType::Text, Rule::Part("of the instance"))
}

const VERSION: Column = fixed("version", "version", ColumnType::Int8, Rule::ReadOnly);

pub static NODES: Resource = Resource {
    name: "view",
    noun: "node",
    columns: &[
        part("space", "space"),
        part("external_id", "externalId"),
        part("type_space", "type.space"),
        part("type_external_id", "type.externalId"),
        VERSION,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Nodes,
    shape: Shape::Instances { edges: false },
    acl: "dataModelInstancesAcl",
    usual_rows: 10_000,
};

pub static EDGES: Resource = Resource {
    name: "view",
    noun: "edge",
    columns: &[
        part("space", "space"),
        part("external_id", "externalId"),
        part("type_space", "type.space"),
        part("type_external_id", "type.externalId"),
        part("start_node_space", "startNode.space"),
        part("start_node_external_id", "startNode.externalId"),
        part("end_node_space", "endNode.space"),
        part("end_node_external_id", "endNode.externalId"),
        VERSION,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Edges,
    shape: Shape::Instances { edges: true },
    acl: "dataModelInstancesAcl",
    usual_rows: 10_000,
};

/// What an instance has besides its properties: CDF's name, and the columns that hold its space and external id.
pub const ENDS: [(&str, &str, &str); 3] = [
    ("type", "type_space", "type_external_id"),
    ("startNode", "start_node_space", "start_node_external_id"),
    ("endNode", "end_node_space", "end_node_external_id"),
];
