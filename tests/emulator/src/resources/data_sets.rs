//! Data sets, to which other objects may belong. They cannot be deleted.

use serde_json::json;

use super::classic::{Hooks, Kind, Operation, Words};
use super::fields::{Field, FieldType, MetadataLimits};
use super::filter::Filter;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 };

/// The resource.
pub static KIND: Kind = Kind {
    path: "datasets",
    noun: "Data set",
    acl: "datasetsAcl",
    fields: &[
        Field::external_id(),
        Field::text("name", 1, 50),
        Field::text("description", 1, 500),
        Field::metadata(&METADATA),
        Field::new("writeProtected", FieldType::Boolean).not_null(),
    ],
    defaults: || {
        let fields = [("metadata", json!({})), ("writeProtected", json!(false))];
        fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    },
    max_items: 10,
    created: 200,
    twice: 400,
    words: Words::alike("Data set id not found", "Data set id duplicated"),
    nulls: false,
    keeps_unchanged: false,
    has_id: true,
    operations: &[Operation::Update],
    filters: &[
        ("metadata", Filter::Metadata),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("writeProtected", Filter::Equal),
    ],
    hooks: Hooks::NONE,
};
