//! Assets: objects in trees.

use std::collections::{BTreeSet, HashMap};

use serde_json::{json, Map, Value};

use super::classic::{Draft, Hooks, Kind, Operation, Words};
use super::fields::{Dangling, Field, FieldType, MetadataLimits, MAX_ID};
use super::filter::Filter;
use crate::errors::ApiError;
use crate::store::{Classic, Identity};

static METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 };

/// The resource.
pub static KIND: Kind = Kind {
    path: "assets",
    noun: "Asset",
    acl: "assetsAcl",
    fields: &[
        Field::external_id(),
        Field::text("name", 1, 140).required(),
        // Not a Reference: unknown parents have their own messages, and the same request may create them.
        Field::new("parentId", FieldType::Integer { min: 1, max: MAX_ID }).not_null(),
        Field::text("parentExternalId", 0, 255).not_null(),
        Field::text("description", 0, 500),
        Field::data_set(Dangling::Inline("Invalid dataSetIds")),
        Field::metadata(&METADATA),
        Field::text("source", 0, 128),
        Field::new("labels", FieldType::Labels { max: 10 }).not_null(),
        Field::new("geoLocation", FieldType::GeoLocation),
    ],
    defaults: || Map::from_iter([("metadata".to_owned(), json!({}))]),
    max_items: 1000,
    created: 201,
    twice: 409,
    words: Words {
        unknown_external_id: "External id not found",
        ..Words::alike("Asset id not found", "Asset id duplicated")
    },
    nulls: true,
    keeps_unchanged: false,
    has_id: true,
    operations: &[
        Operation::Get,
        Operation::Update,
        Operation::Delete,
        Operation::IgnoreUnknownOnDelete,
        Operation::Recursive,
        Operation::Aggregates,
        Operation::Partitions,
    ],
    filters: &[
        ("name", Filter::Equal),
        ("parentIds", Filter::AssetIds("parentId", 100)),
        ("parentExternalIds", Filter::AssetExternalIds("parentId", 100)),
        ("rootIds", Filter::AssetSubtrees("rootId", 100)),
        ("assetSubtreeIds", Filter::AssetSubtrees("id", 100)),
        ("dataSetIds", Filter::DataSets(1000)),
        ("metadata", Filter::Metadata),
        ("source", Filter::Equal),
        ("createdTime", Filter::Range { nullable: false }),
        ("lastUpdatedTime", Filter::Range { nullable: false }),
        ("root", Filter::Root),
        ("externalIdPrefix", Filter::ExternalIdPrefix),
        ("labels", Filter::Labels),
    ],
    hooks: Hooks { admit, link, remove, render, ..Hooks::NONE },
};

fn admit(item: &Map<String, Value>, _create: bool) -> Result<(), ApiError> {
    if item.contains_key("parentId") && item.contains_key("parentExternalId") {
        Err(ApiError::bad_request("Only one of parentId and parentExternalId may be given"))
    } else {
        Ok(())
    }
}

/// Replaces parentExternalId by parentId, and finds every asset's root. Parents may be in the same request, in any
/// order.
fn link(classic: &Classic, drafts: &mut [Draft]) -> Result<(), ApiError> {
    let table = classic.table(KIND.path);
    let here: HashMap<String, i64> = drafts
        .iter()
        .filter(|draft| draft.before.is_none())
        .filter_map(|draft| Some((draft.text("externalId")?.to_owned(), draft.id)))
        .collect();
    let mut unknown_external = Vec::new();
    let mut unknown_ids = Vec::new();
    for draft in drafts.iter_mut() {
        if let Some(Value::String(external_id)) = draft.fields.shift_remove("parentExternalId") {
            let stored = || table.visible(&Identity::External(external_id.clone())).map(|entity| entity.id);
            match here.get(&external_id).copied().or_else(stored) {
                Some(id) => drop(draft.fields.insert("parentId".into(), json!(id))),
                None if unknown_external.contains(&external_id) => {}
                None => unknown_external.push(external_id),
            }
        } else if draft.changed.contains("parentId") {
            let id = draft.fields.get("parentId").and_then(Value::as_i64).unwrap_or_default();
            if table.visible(&Identity::Id(id)).is_none() && !unknown_ids.contains(&id) {
                unknown_ids.push(id);
            }
        }
    }
    if let Some(first) = unknown_external.first() {
        let message = format!("Reference to unknown parent with externalId {first}");
        let missing = unknown_external.iter().map(|id| json!({ "externalId": id })).collect();
        return Err(ApiError::missing(message, missing));
    }
    if !unknown_ids.is_empty() {
        let list = unknown_ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let missing = unknown_ids.iter().map(|id| json!({ "id": id })).collect();
        return Err(ApiError::missing(format!("The given parent ids do not exist: {list}"), missing));
    }

    let parents: HashMap<i64, Option<i64>> =
        drafts.iter().map(|d| (d.id, d.fields.get("parentId").and_then(Value::as_i64))).collect();
    let parent_of = |id: i64| {
        parents
            .get(&id)
            .copied()
            .unwrap_or_else(|| table.by_id(id).and_then(|asset| asset.integer("parentId")))
    };
    let mut roots: HashMap<i64, i64> = HashMap::new();
    for draft in drafts.iter_mut() {
        let root = root_of(draft.id, &parent_of, &mut roots)?;
        let old = draft.before.as_ref().and_then(|before| before.integer("rootId"));
        if old.is_some_and(|old| old != root) {
            return Err(ApiError::bad_request(format!("Asset {} cannot be moved to another root", draft.id)));
        }
        draft.fields.insert("rootId".into(), json!(root));
    }
    Ok(())
}

/// Walks up to the root, and remembers it for every asset on the way.
fn root_of(
    id: i64,
    parent_of: &impl Fn(i64) -> Option<i64>,
    roots: &mut HashMap<i64, i64>,
) -> Result<i64, ApiError> {
    let mut way = Vec::new();
    let mut passed = std::collections::HashSet::new();
    let mut at = id;
    let root = loop {
        if let Some(root) = roots.get(&at) {
            break *root;
        }
        if !passed.insert(at) {
            return Err(ApiError::bad_request("The asset hierarchy contains a cycle"));
        }
        way.push(at);
        match parent_of(at) {
            Some(parent) => at = parent,
            None => break at,
        }
    };
    roots.extend(way.into_iter().map(|id| (id, root)));
    Ok(root)
}

fn remove(classic: &mut Classic, ids: &mut BTreeSet<i64>, recursive: bool) -> Result<(), ApiError> {
    let table = classic.table(KIND.path);
    if recursive {
        let mut open: Vec<i64> = ids.iter().copied().collect();
        while let Some(id) = open.pop() {
            open.extend(table.children(id).filter(|child| ids.insert(*child)));
        }
        return Ok(());
    }
    match ids.iter().find(|id| table.children(**id).any(|child| !ids.contains(&child))) {
        Some(id) => {
            Err(ApiError::bad_request(format!("Asset {id} has children; delete them too or use recursive")))
        }
        None => Ok(()),
    }
}

fn render(classic: &Classic, fields: &mut Map<String, Value>, aggregates: &[String]) {
    let table = classic.table(KIND.path);
    let parent = fields.get("parentId").and_then(Value::as_i64).and_then(|id| table.by_id(id));
    if let Some(external_id) = parent.and_then(|parent| parent.fields.get("externalId")) {
        fields.insert("parentExternalId".into(), external_id.clone());
    }
    if aggregates.is_empty() {
        return;
    }
    let id = fields.get("id").and_then(Value::as_i64).unwrap_or_default();
    let mut path = vec![id];
    let mut at = parent;
    while let Some(asset) = at {
        path.push(asset.id);
        at = asset.integer("parentId").and_then(|id| table.by_id(id));
    }
    path.reverse();
    let mut result = Map::new();
    for name in aggregates {
        let value = match name.as_str() {
            "childCount" => json!(table.children(id).count()),
            "depth" => json!(path.len() - 1),
            "path" => path.iter().map(|id| json!({ "id": id })).collect(),
            _ => continue,
        };
        result.insert(name.clone(), value);
    }
    fields.insert("aggregates".into(), Value::Object(result));
}
