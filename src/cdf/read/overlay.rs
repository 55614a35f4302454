//! What the transaction itself has written, laid over what CDF answers: as if it had been sent already.

use hashbrown::HashMap;
use serde_json::{json, Map, Value};

use crate::cdf::buffer::{PendingItem, PendingPoints};
use crate::cdf::encode::fragment::{for_existing, EXISTING};
use crate::cdf::encode::instance::{end_member, KEY};
use crate::cdf::encode::point::wire::{
    self, ListItem, NumericPoint, NumericPoints, Points, StringPoint, StringPoints,
};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Error, Identity};
use crate::cdf::resource::sequence_rows::{COLUMNS, ROW_NUMBER};
use crate::cdf::resource::view::ENDS;
use crate::cdf::resource::Resource;
use crate::cdf::table::{Mode, NullHandling, OnConflict, Operation};
use crate::cdf::view::View;

type Object = Map<String, Value>;

/// One write, and when it was written among all of them.
#[derive(Debug)]
struct Write {
    at: usize,
    mode: Mode,
    object: Object,
}

impl Write {
    /// What an item gets of it that exists, or that does not.
    fn members(&self, exists: bool) -> impl Iterator<Item = (&String, &Value)> {
        let existing = for_existing(&self.object).filter(|_| exists);
        existing.unwrap_or(&self.object).iter().filter(|(name, _)| *name != EXISTING)
    }

    /// As `members`, of those that are in an object of their own.
    fn columns(&self, exists: bool) -> impl Iterator<Item = (&String, &Value)> {
        let existing = for_existing(&self.object).filter(|_| exists);
        existing.unwrap_or(&self.object).get(COLUMNS).and_then(Value::as_object).into_iter().flatten()
    }
}

/// Writes to items, by what they address.
#[derive(Debug, Default)]
pub struct ItemOverlay {
    writes: HashMap<Identity, Vec<Write>>,
    /// Rows without a key, which are new.
    blind: Vec<Value>,
}

/// The rows that only the transaction knows of, and those that CDF has to be asked for, since what was written makes
/// them fit the conditions.
#[derive(Debug, Default)]
pub struct Rest {
    pub ask: Vec<Value>,
    pub fresh: Vec<Value>,
}

fn object(fragment: &[u8]) -> Result<Object, Error> {
    serde_json::from_slice(fragment)
        .map_err(|error| Error::internal(format!("an encoded row is not JSON: {error}")))
}

impl ItemOverlay {
    pub fn new(pending: &[PendingItem]) -> Result<Self, Error> {
        let mut overlay = ItemOverlay::default();
        for (at, item) in pending.iter().enumerate() {
            let mut object = object(&item.fragment)?;
            let identity = match item.kind {
                KeyKind::Key => {
                    object["externalId"].as_str().map(|name| Identity::ExternalId(name.to_owned()))
                }
                KeyKind::Id => object.remove("id").and_then(|id| id.as_i64()).map(Identity::Id),
                _ => None,
            };
            match identity {
                Some(identity) => {
                    let write = Write { at, mode: item.mode, object };
                    overlay.writes.entry(identity).or_default().push(write);
                }
                None => overlay.blind.push(Value::Object(object)),
            }
        }
        Ok(overlay)
    }

    /// An item of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, resource: &Resource, item: Value) -> Option<Value> {
        if self.writes.is_empty() {
            return Some(item);
        }
        let name =
            |item: &Value| item["externalId"].as_str().map(|name| Identity::ExternalId(name.to_owned()));
        let mut writes = Vec::new();
        for identity in name(&item).into_iter().chain(item["id"].as_i64().map(Identity::Id)) {
            writes.extend(self.writes.remove(&identity).into_iter().flatten());
        }
        writes.sort_by_key(|write| write.at);
        let first = name(&item);
        let renamed_at = writes
            .iter()
            .find(|write| name(&Value::Object(write.object.clone())).is_some_and(|new| Some(new) != first))
            .map(|write| write.at);
        let mut item = Some(item);
        for write in &writes {
            apply(resource, &mut item, write);
        }
        // Under its new name it may have been written to again.
        if let (Some(renamed_at), Some(new)) = (renamed_at, item.as_ref().and_then(name)) {
            let again = self.writes.remove(&new).unwrap_or_default();
            again
                .iter()
                .filter(|write| write.at > renamed_at)
                .for_each(|write| apply(resource, &mut item, write));
        }
        item
    }

    /// What is left when CDF's items have been seen. `complete`: they were all that have one of the keys that are left,
    /// so that these do not exist in CDF.
    pub fn rest(&mut self, resource: &Resource, complete: bool) -> Rest {
        let mut rest = Rest::default();
        let mut later = HashMap::new();
        for (identity, mut writes) in self.writes.drain() {
            match &identity {
                Identity::ExternalId(_) if complete => {
                    writes.sort_by_key(|write| write.at);
                    let mut item = None;
                    writes.iter().for_each(|write| apply(resource, &mut item, write));
                    rest.fresh.extend(item);
                    continue;
                }
                Identity::ExternalId(name) => rest.ask.push(json!({ "externalId": name })),
                Identity::Id(id) => rest.ask.push(json!({ "id": id })),
                Identity::Instance { .. } => {}
            }
            later.insert(identity, writes);
        }
        self.writes = later;
        rest.fresh.append(&mut self.blind);
        rest
    }

    /// Forgets the rows without a key: none of them has one of the keys that are asked for.
    pub fn only_keyed(&mut self) {
        self.blind.clear();
    }
}

fn apply(resource: &Resource, item: &mut Option<Value>, write: &Write) {
    let exists = item.is_some();
    match (write.mode.operation, write.mode.on_conflict, exists) {
        (Operation::Delete, ..) => *item = None,
        (Operation::Update, _, false) | (Operation::Upsert, OnConflict::Ignore, true) => {}
        _ => {
            let properties = item.get_or_insert_with(|| Value::Object(Map::new()));
            for (name, value) in write.members(exists) {
                if let (Some(twin), Value::Object(properties)) = (resource.twin(name), &mut *properties) {
                    properties.remove(twin);
                }
                match value {
                    Value::Null => properties[name] = Value::Null,
                    value => properties[name] = value.clone(),
                }
            }
        }
    }
}

/// Writes to RAW rows, by database, table and key.
#[derive(Debug, Default)]
pub struct RawOverlay {
    writes: HashMap<(String, String), HashMap<String, Vec<Write>>>,
}

impl RawOverlay {
    pub fn new(pending: &[PendingItem]) -> Result<Self, Error> {
        let mut overlay = RawOverlay::default();
        for (at, item) in pending.iter().enumerate() {
            let object = object(&item.fragment)?;
            let (Some(place), Some(key)) = (item.raw.clone(), object["key"].as_str().map(str::to_owned))
            else {
                return Err(Error::internal("a RAW row without its place"));
            };
            let write = Write { at, mode: item.mode, object };
            overlay.writes.entry(place).or_default().entry(key).or_default().push(write);
        }
        Ok(overlay)
    }

    /// The tables that were written to.
    pub fn tables(&self) -> impl Iterator<Item = &(String, String)> {
        self.writes.keys()
    }

    /// A row of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, place: &(String, String), row: Value) -> Option<Value> {
        let writes = self.writes.get_mut(place).and_then(|keys| keys.remove(row["key"].as_str()?));
        let mut row = Some(row);
        writes.iter().flatten().for_each(|write| apply_raw(&mut row, write));
        row
    }

    /// The rows of a table that CDF does not have yet.
    pub fn rest(&mut self, place: &(String, String)) -> Vec<Value> {
        let keys = self.writes.remove(place).unwrap_or_default();
        keys.into_values()
            .filter_map(|writes| {
                let mut row = None;
                writes.iter().for_each(|write| apply_raw(&mut row, write));
                row
            })
            .collect()
    }
}

fn apply_raw(row: &mut Option<Value>, write: &Write) {
    let exists = row.is_some();
    let partial =
        write.mode.operation == Operation::Update || write.mode.on_conflict == OnConflict::UpdateListed;
    match (write.mode.operation, write.mode.on_conflict, exists) {
        (Operation::Delete, ..) => *row = None,
        (Operation::Update, _, false) | (Operation::Upsert, OnConflict::Ignore, true) => {}
        _ if exists && partial => {
            let Some(row) = row else { return };
            for (name, value) in write.columns(exists) {
                match (value, &mut row["columns"]) {
                    (Value::Null, Value::Object(columns))
                        if write.mode.null_handling == NullHandling::Ignore =>
                    {
                        columns.remove(name);
                    }
                    (value, columns) => columns[name] = value.clone(),
                }
            }
        }
        _ => *row = Some(json!({ "key": write.object["key"], "columns": write.object["columns"] })),
    }
}

/// Writes to instances, by space and external id.
#[derive(Debug, Default)]
pub struct InstanceOverlay {
    writes: HashMap<(String, String), Vec<Write>>,
}

impl InstanceOverlay {
    /// What was written through the view, and what was deleted through any.
    pub fn new(pending: &[PendingItem], view: &View) -> Result<Self, Error> {
        let mut overlay = InstanceOverlay::default();
        for (at, item) in pending.iter().enumerate() {
            let same = item.view.as_ref().is_some_and(|other| other.name == view.name);
            if !same && item.mode.operation != Operation::Delete {
                continue;
            }
            let mut object = object(&item.fragment)?;
            let key = object.remove(KEY).and_then(|key| serde_json::from_value(key).ok());
            let key = key.ok_or_else(|| Error::internal("an instance without its key"))?;
            overlay.writes.entry(key).or_default().push(Write { at, mode: item.mode, object });
        }
        Ok(overlay)
    }

    /// An instance of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, view: &View, item: Value) -> Option<Value> {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let key = (text("space"), text("externalId"));
        let Some(writes) = self.writes.remove(&key) else { return Some(item) };
        let item = written(view, Some(item), &writes);
        // Deleted and written again, it is another one of the same key.
        item.map(|item| with_key(item, key))
    }

    /// The keys that CDF has not been seen to have.
    pub fn keys(&self) -> Vec<(String, String)> {
        self.writes.keys().cloned().collect()
    }

    /// The instances that CDF does not have yet.
    pub fn rest(&mut self, view: &View) -> Vec<Value> {
        let mut items = Vec::new();
        for (key, writes) in self.writes.drain() {
            items.extend(written(view, None, &writes).map(|item| with_key(item, key)));
        }
        items
    }
}

fn written(view: &View, mut item: Option<Value>, writes: &[Write]) -> Option<Value> {
    writes.iter().for_each(|write| apply_properties(view, &mut item, write));
    item
}

fn with_key(mut item: Value, (space, external_id): (String, String)) -> Value {
    item["space"] = space.into();
    item["externalId"] = external_id.into();
    item
}

fn apply_properties(view: &View, item: &mut Option<Value>, write: &Write) {
    let exists = item.is_some();
    match (write.mode.operation, write.mode.on_conflict, exists) {
        (Operation::Delete, ..) => *item = None,
        (Operation::Update, _, false) | (Operation::Upsert, OnConflict::Ignore, true) => {}
        _ => {
            let item = item.get_or_insert_with(|| json!({}));
            for (name, value) in write.members(exists) {
                let end = ENDS.iter().find(|(end, ..)| end_member(end) == *name);
                match end {
                    Some((end, ..)) => item[*end] = value.clone(),
                    None => {
                        let place = format!("{}/{}", view.name.external_id, view.name.version);
                        item["properties"][&view.name.space][&place][name] = value.clone();
                    }
                }
            }
        }
    }
}

/// Writes to rows of sequences, by sequence and row number.
#[derive(Debug, Default)]
pub struct SequenceRowOverlay {
    writes: HashMap<(Identity, i64), Vec<Write>>,
    /// Both names of the sequences that were seen.
    names: HashMap<Identity, (Value, Value)>,
}

impl SequenceRowOverlay {
    pub fn new(pending: &[PendingItem]) -> Result<Self, Error> {
        let mut overlay = SequenceRowOverlay::default();
        for (at, item) in pending.iter().enumerate() {
            let object = object(&item.fragment)?;
            let number = object[ROW_NUMBER].as_i64();
            let sequence = Identity::from_json(&Value::Object(object.clone()));
            let (Some(sequence), Some(number)) = (sequence, number) else {
                return Err(Error::internal("a sequence row without its key"));
            };
            let write = Write { at, mode: item.mode, object };
            overlay.writes.entry((sequence, number)).or_default().push(write);
        }
        Ok(overlay)
    }

    /// A row of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, row: Value) -> Option<Value> {
        if self.writes.is_empty() {
            return Some(row);
        }
        let number = row[ROW_NUMBER].as_i64().unwrap_or_default();
        let mut writes = Vec::new();
        let name = row["externalId"].as_str().map(|name| Identity::ExternalId(name.to_owned()));
        for sequence in name.into_iter().chain(row["id"].as_i64().map(Identity::Id)) {
            self.names.insert(sequence.clone(), (row["id"].clone(), row["externalId"].clone()));
            writes.extend(self.writes.remove(&(sequence, number)).into_iter().flatten());
        }
        writes.sort_by_key(|write| write.at);
        let mut row = Some(row);
        writes.iter().for_each(|write| apply_cells(&mut row, write));
        row
    }

    /// The rows that CDF does not have yet.
    pub fn rest(&mut self) -> Vec<Value> {
        let mut rows = Vec::new();
        for ((sequence, _), writes) in self.writes.drain() {
            let mut row = None;
            writes.iter().for_each(|write| apply_cells(&mut row, write));
            if let (Some(row), Some((id, external_id))) = (&mut row, self.names.get(&sequence)) {
                row["id"] = id.clone();
                row["externalId"] = external_id.clone();
            }
            rows.extend(row);
        }
        rows
    }
}

fn apply_cells(row: &mut Option<Value>, write: &Write) {
    match (write.mode.operation, row) {
        (Operation::Delete, row) => *row = None,
        (_, Some(_)) if write.mode.on_conflict == OnConflict::Ignore => {}
        (_, Some(row)) => {
            for (name, value) in write.columns(true) {
                row[COLUMNS][name] = value.clone();
            }
        }
        (_, row) => *row = Some(Value::Object(write.object.clone())),
    }
}

/// Writes to series, as what their points end in.
#[derive(Debug, Default)]
pub struct PointOverlay {
    series: HashMap<Identity, Changes>,
    /// What CDF has called the series that were seen.
    seen: HashMap<Identity, ListItem>,
}

#[derive(Debug, Default)]
struct Changes {
    numeric: std::collections::BTreeMap<i64, NumericPoint>,
    string: std::collections::BTreeMap<i64, StringPoint>,
    /// Stretches that are deleted; the end is excluded.
    deleted: Vec<(i64, i64)>,
}

impl Changes {
    fn hides(&self, timestamp: i64) -> bool {
        self.numeric.contains_key(&timestamp)
            || self.string.contains_key(&timestamp)
            || self.deleted.iter().any(|(first, end)| (*first..*end).contains(&timestamp))
    }
}

impl PointOverlay {
    pub fn new(pending: Vec<PendingPoints>) -> Self {
        let mut overlay = PointOverlay::default();
        for write in pending {
            match write {
                PendingPoints::Delete { series, first, end } => {
                    let changes = overlay.series.entry(series).or_default();
                    changes.numeric.retain(|timestamp, _| !(first..end).contains(timestamp));
                    changes.string.retain(|timestamp, _| !(first..end).contains(timestamp));
                    changes.deleted.push((first, end));
                }
                PendingPoints::Write(item) => {
                    let Some(series) = item.reference.as_ref().map(identity) else { continue };
                    let changes = overlay.series.entry(series).or_default();
                    match item.points {
                        Some(Points::Numeric(points)) => changes
                            .numeric
                            .extend(points.datapoints.into_iter().map(|point| (point.timestamp, point))),
                        Some(Points::String(points)) => changes
                            .string
                            .extend(points.datapoints.into_iter().map(|point| (point.timestamp, point))),
                        None => {}
                    }
                }
            }
        }
        overlay
    }

    /// Takes out of CDF's points those that the transaction replaces or deletes.
    pub fn apply(&mut self, item: &mut ListItem) {
        if self.series.is_empty() {
            return;
        }
        for identity in identities(item) {
            let Some(changes) = self.series.get(&identity) else { continue };
            match &mut item.points {
                Some(Points::Numeric(points)) => {
                    points.datapoints.retain(|point| !changes.hides(point.timestamp));
                }
                Some(Points::String(points)) => {
                    points.datapoints.retain(|point| !changes.hides(point.timestamp));
                }
                None => {}
            }
            self.seen.insert(identity, ListItem { points: None, ..item.clone() });
        }
    }

    /// The points written, of the moments that are asked for. Milliseconds; the end is excluded.
    pub fn rest(&mut self, start: i64, end: i64) -> Vec<ListItem> {
        let mut items = Vec::new();
        for (identity, changes) in self.series.drain() {
            let mut item = self.seen.remove(&identity).unwrap_or_else(|| named(&identity));
            let numeric: Vec<_> = changes.numeric.range(start..end).map(|(_, point)| point.clone()).collect();
            let string: Vec<_> = changes.string.range(start..end).map(|(_, point)| point.clone()).collect();
            if !numeric.is_empty() {
                item.points = Some(Points::Numeric(NumericPoints { datapoints: numeric }));
                items.push(item);
            } else if !string.is_empty() {
                item.points = Some(Points::String(StringPoints { datapoints: string }));
                items.push(item);
            }
        }
        items
    }
}

fn identity(reference: &wire::Reference) -> Identity {
    match reference {
        wire::Reference::Id(id) => Identity::Id(*id),
        wire::Reference::ExternalId(name) => Identity::ExternalId(name.clone()),
        wire::Reference::Instance(instance) => {
            Identity::Instance { space: instance.space.clone(), external_id: instance.external_id.clone() }
        }
    }
}

/// Every way in which the series can be addressed.
fn identities(item: &ListItem) -> Vec<Identity> {
    let mut all = vec![Identity::Id(item.id)];
    if !item.external_id.is_empty() {
        all.push(Identity::ExternalId(item.external_id.clone()));
    }
    all.extend(item.instance_id.as_ref().map(|instance| Identity::Instance {
        space: instance.space.clone(),
        external_id: instance.external_id.clone(),
    }));
    all
}

/// A series that CDF has not been seen to have.
fn named(identity: &Identity) -> ListItem {
    let mut item = ListItem::default();
    match identity {
        Identity::Id(id) => item.id = *id,
        Identity::ExternalId(name) => item.external_id = name.clone(),
        Identity::Instance { space, external_id } => {
            item.instance_id =
                Some(wire::InstanceId { space: space.clone(), external_id: external_id.clone() });
        }
    }
    item
}
