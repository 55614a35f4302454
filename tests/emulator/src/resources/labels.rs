//! Labels: known by external id only, and without an update.

use serde_json::Map;

use super::classic::{Hooks, Kind, Operation, Words};
use super::fields::{Dangling, Field};
use super::filter::Filter;

/// The resource.
pub static KIND: Kind = Kind {
    path: "labels",
    noun: "Label",
    acl: "labelsAcl",
    fields: &[
        Field::external_id().required(),
        Field::text("name", 1, 140).required(),
        Field::text("description", 0, 500),
        Field::data_set(Dangling::Inline("Invalid dataSetIds")),
    ],
    defaults: Map::new,
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words::alike("Label id not found", "Label id duplicated"),
    nulls: true,
    keeps_unchanged: false,
    has_id: false,
    operations: &[Operation::Delete],
    filters: &[
        ("name", Filter::Equal),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("dataSetIds", Filter::DataSets(1000)),
    ],
    hooks: Hooks::NONE,
};
