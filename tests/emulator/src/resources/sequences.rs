//! Sequences; their rows are in `sequence_rows`.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::classic::{Draft, Hooks, Kind, Operation, Words};
use super::columns;
use super::fields::{Dangling, Field, FieldType, MetadataLimits, Target};
use super::filter::Filter;
use crate::errors::ApiError;
use crate::store::Classic;

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 };

/// The resource.
pub static KIND: Kind = Kind {
    path: "sequences",
    noun: "Sequence",
    acl: "sequencesAcl",
    fields: &[
        Field::external_id(),
        Field::text("name", 0, 255),
        Field::text("description", 0, 1000),
        Field::new(
            "assetId",
            FieldType::Reference(Target {
                path: "assets",
                dangling: Dangling::Listed("asset ids not found"),
            }),
        ),
        Field::metadata(&METADATA),
        Field::new("columns", FieldType::Columns).required(),
        Field::data_set(Dangling::Listed("dataset ids not found")),
    ],
    defaults: Map::new,
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words::alike("Sequence id not found", "Sequence id duplicated"),
    nulls: false,
    keeps_unchanged: false,
    has_id: true,
    operations: &[
        Operation::Get,
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::Partitions,
    ],
    filters: &[
        ("name", Filter::Equal),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("metadata", Filter::Metadata),
        ("assetIds", Filter::AssetIds("assetId", 100)),
        ("rootAssetIds", Filter::AssetSubtrees("assetId", 100)),
        ("assetSubtreeIds", Filter::AssetSubtrees("assetId", 100)),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("dataSetIds", Filter::DataSets(100)),
    ],
    hooks: Hooks { check, link, remove, render, ..Hooks::NONE },
};

fn link(_: &Classic, drafts: &mut [Draft]) -> Result<(), ApiError> {
    for draft in drafts {
        if let Some(value) = draft.fields.get_mut("columns") {
            columns::complete(value);
        }
    }
    Ok(())
}

fn check(sequence: &Map<String, Value>) -> Result<(), ApiError> {
    let none = Vec::new();
    let columns = sequence.get("columns").and_then(Value::as_array).unwrap_or(&none);
    if !(1..=400).contains(&columns.len()) {
        let got = columns.len();
        return Err(ApiError::bad_request(format!("columns: size must be between 1 and 400, got {got}")));
    }
    if columns.iter().filter(|column| column["valueType"] == "STRING").count() > 200 {
        return Err(ApiError::bad_request("columns: at most 200 columns may be of type STRING"));
    }
    let mut seen = HashSet::new();
    match columns.iter().find(|column| !seen.insert(column["externalId"].as_str())) {
        Some(column) => {
            Err(ApiError::bad_request(format!("columns: externalId {} is not unique", column["externalId"])))
        }
        None => Ok(()),
    }
}

fn remove(classic: &mut Classic, ids: &mut BTreeSet<i64>, _recursive: bool) -> Result<(), ApiError> {
    ids.iter().for_each(|id| classic.drop_rows(*id));
    Ok(())
}

fn render(_: &Classic, fields: &mut Map<String, Value>, _: &[String]) {
    for column in fields.get_mut("columns").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(column) = column.as_object_mut() {
            column.shift_remove(columns::KEY);
        }
    }
}
