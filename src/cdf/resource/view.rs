//! Nodes and edges behind a data-model view (API description, `POST /models/instances`).

use super::declare::*;

/// The capability that reading definitions of views needs.
pub const READ_DEFINITIONS: &str = "dataModelsAcl:READ";
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

/// Where the definitions of views are asked for.
pub const VIEWS: &str = "/models/views";

const fn part(name: &'static str, property: &'static str, role: Role) -> Column {
    fixed(name, property, ColumnType::Text, Rule::part("of the instance")).role(role)
}

const SPACE: Column = part("space", properties::SPACE, Role::Space);
const NAME: Column = part("external_id", properties::EXTERNAL_ID, Role::ExternalId);
const TYPE_SPACE: Column = part("type_space", "type.space", Role::EndSpace(InstanceEnd::Type));
const TYPE_NAME: Column = part("type_external_id", "type.externalId", Role::EndExternalId(InstanceEnd::Type));
const VERSION: Column = fixed("version", "version", ColumnType::Int8, Rule::ReadOnly).role(Role::Version);

const INSTANCES: Resource = Resource {
    name: "view",
    path: paths::INSTANCES,
    per_request: INSTANCES_PER_REQUEST,
    per_delete: INSTANCES_PER_REQUEST,
    longest_document: LIST_ELEMENTS * TEXT_BYTES,
    at_once: REQUESTS_IN_PARALLEL,
    keys: &[&[Role::Space, Role::ExternalId]],
    refers_to: &[paths::TIME_SERIES, paths::SEQUENCES],
    acl: "dataModelInstancesAcl",
    also_needs: Some(READ_DEFINITIONS),
    ..CLASSIC
};

pub static NODES: Resource = Resource {
    noun: "node",
    columns: &[SPACE, NAME, TYPE_SPACE, TYPE_NAME, VERSION, CREATED_TIME, LAST_UPDATED_TIME],
    shape: Shape::Instances { edges: false },
    turn: Turn::At(Stage::Nodes),
    ..INSTANCES
};

pub static EDGES: Resource = Resource {
    noun: "edge",
    columns: &[
        SPACE,
        NAME,
        TYPE_SPACE,
        TYPE_NAME,
        part("start_node_space", "startNode.space", Role::EndSpace(InstanceEnd::StartNode)),
        part("start_node_external_id", "startNode.externalId", Role::EndExternalId(InstanceEnd::StartNode)),
        part("end_node_space", "endNode.space", Role::EndSpace(InstanceEnd::EndNode)),
        part("end_node_external_id", "endNode.externalId", Role::EndExternalId(InstanceEnd::EndNode)),
        VERSION,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    shape: Shape::Instances { edges: true },
    turn: Turn::At(Stage::Edges),
    ..INSTANCES
};
