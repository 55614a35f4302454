//! Applies the transaction's own writes to CDF's answers, as if they had been sent already.

use std::borrow::Cow;

use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;

use crate::cdf::buffer::PendingItem;
use crate::cdf::document::{self, Map, Value};
use crate::cdf::encode::fragment::{end_of, ParsedRow};
use crate::cdf::encode::json::Properties;
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Error, Identity};
use crate::cdf::resource::properties::{EXTERNAL_ID, ID, SPACE};
use crate::cdf::resource::raw::RAW_KEY;
use crate::cdf::resource::sequence_rows::{COLUMNS, ROW_NUMBER};
use crate::cdf::resource::Resource;
use crate::cdf::table::view::View;
use crate::cdf::table::{Mode, NullHandling, OnConflict, Operation};

/// One write, and its place in the order of writes.
#[derive(Debug)]
struct Write {
    at: u64,
    mode: Mode,
    /// What a new item gets.
    new: Map,
    /// What an existing item gets, if that differs.
    existing: Option<Map>,
}

impl Write {
    /// Takes over what the row writes, without its key.
    fn of(item: &PendingItem, row: &ParsedRow<'_>) -> Write {
        let [new, existing] = [false, true].map(|exists| row.properties(exists));
        let object = |properties: &Properties<'_>| -> Map {
            let member = |(name, value): &(Cow<'_, str>, &RawValue)| {
                (name.clone().into_owned(), document::member(value))
            };
            properties.0.iter().map(member).collect()
        };
        Write {
            at: item.order,
            mode: item.mode,
            new: object(new),
            existing: (!std::ptr::eq(new, existing)).then(|| object(existing)),
        }
    }

    /// Adds the row's key to what a new item gets.
    fn with_key(mut self, row: &ParsedRow<'_>) -> Write {
        if let Some((name, value)) = row.key() {
            self.new.insert(name, document::member(value));
        }
        self
    }

    /// Returns what an item gets; `exists` tells whether it exists or is new.
    fn members(&self, exists: bool) -> &Map {
        self.existing.as_ref().filter(|_| exists).unwrap_or(&self.new)
    }

    /// Returns the columns that a row gets.
    fn columns(&self, exists: bool) -> impl Iterator<Item = (&String, &Value)> {
        self.members(exists).get(COLUMNS).and_then(Value::as_object).into_iter().flatten()
    }
}

/// Returns the item's external id, if it has one.
fn name_of(item: &Value) -> Option<Identity> {
    item[EXTERNAL_ID].as_str().map(|name| Identity::ExternalId(name.to_owned()))
}

/// Writes to items, by the key that they name.
#[derive(Debug, Default)]
pub struct ItemOverlay {
    writes: HashMap<Identity, Vec<Write>>,
    /// Rows without a key, which are new.
    blind: Vec<Value>,
    /// Items of CDF whose external id was changed. If asked for the old one, CDF returns them again.
    renamed: HashSet<i64>,
}

/// The items that only the transaction knows, and the keys of those that CDF must be asked for, because own writes may make
/// them fulfil the conditions.
#[derive(Debug, Default)]
pub struct Rest {
    pub ask: Vec<serde_json::Value>,
    pub fresh: Vec<Value>,
}

impl ItemOverlay {
    pub fn new(pending: &[PendingItem]) -> Result<Self, Error> {
        let mut overlay = ItemOverlay::default();
        overlay.add(pending)?;
        Ok(overlay)
    }

    /// Adds all writes to some items.
    pub fn add(&mut self, pending: &[PendingItem]) -> Result<(), Error> {
        for item in pending {
            let row = item.parse()?;
            let write = Write::of(item, &row);
            match (item.kind, row.identity()) {
                (KeyKind::Id, Some(id)) => self.writes.entry(id).or_default().push(write),
                (KeyKind::Key, Some(name)) => self.writes.entry(name).or_default().push(write.with_key(&row)),
                _ => self.blind.push(Value::Object(write.with_key(&row).new)),
            }
        }
        Ok(())
    }

    /// Returns an item of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, resource: &Resource, item: Value) -> Option<Value> {
        if self.writes.is_empty() && self.renamed.is_empty() {
            return Some(item);
        }
        let id = item[ID].as_i64();
        if id.is_some_and(|id| self.renamed.contains(&id)) {
            return None;
        }
        let by_id = id.and_then(|id| self.writes.remove(&Identity::Id(id))).unwrap_or_default();
        let mut by_id = by_id.into_iter().peekable();
        // A write by external id counts only while the item has that external id.
        let (mut name, mut since) = (name_of(&item), 0);
        let mut touched: Vec<Identity> = name.iter().cloned().collect();
        let mut item = Some(item);
        loop {
            let named = name.as_ref().and_then(|name| self.writes.get_mut(name));
            let next = named.and_then(|writes| {
                let at = writes.iter().position(|write| write.at >= since)?;
                Some((writes, at))
            });
            let write = match (by_id.peek(), next) {
                (Some(first), Some((writes, at))) if writes[at].at < first.at => writes.remove(at),
                (Some(_), _) => by_id.next()?,
                (None, Some((writes, at))) => writes.remove(at),
                (None, None) => break,
            };
            apply(resource, &mut item, &write);
            let now = item.as_ref().and_then(name_of);
            if item.is_some() && now != name {
                touched.extend(now.clone());
                (name, since) = (now, write.at);
                self.renamed.extend(id);
            }
        }
        for name in touched {
            if self.writes.get(&name).is_some_and(Vec::is_empty) {
                self.writes.remove(&name);
            }
        }
        item
    }

    /// Returns the ids that were written to and not seen. They must be looked up before the rest: their items may also have
    /// been written by external id.
    pub fn ids(&self) -> Vec<serde_json::Value> {
        let is_id = |identity: &&Identity| matches!(identity, Identity::Id(_));
        self.writes.keys().filter(is_id).map(Identity::to_json).collect()
    }

    /// Returns what is left once CDF's items have been seen, including those of all ids. `complete`: the items that were seen
    /// are all with one of the remaining keys, so these do not exist in CDF.
    pub fn rest(&mut self, resource: &Resource, complete: bool) -> Rest {
        let mut rest = Rest::default();
        let mut later = HashMap::new();
        for (identity, writes) in self.writes.drain() {
            let Identity::ExternalId(_) = &identity else { continue };
            if complete {
                let mut item = None;
                writes.iter().for_each(|write| apply(resource, &mut item, write));
                rest.fresh.extend(item);
            } else {
                rest.ask.push(identity.to_json());
                later.insert(identity, writes);
            }
        }
        self.writes = later;
        rest.fresh.append(&mut self.blind);
        rest
    }

    /// Drops the rows without a key: the query asks for keys.
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
                properties[name.as_str()] = value.clone();
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
        overlay.add(pending)?;
        Ok(overlay)
    }

    /// Adds all writes to some rows.
    pub fn add(&mut self, pending: &[PendingItem]) -> Result<(), Error> {
        for item in pending {
            let row = item.parse()?;
            let (Some(place), Some(Identity::ExternalId(key))) = (item.raw.clone(), row.identity()) else {
                return Err(Error::internal("a RAW row without its place"));
            };
            let write = Write::of(item, &row).with_key(&row);
            self.writes.entry(place).or_default().entry(key).or_default().push(write);
        }
        Ok(())
    }

    /// Returns the tables that were written to.
    pub fn tables(&self) -> impl Iterator<Item = &(String, String)> {
        self.writes.keys()
    }

    /// Returns a row of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, place: &(String, String), row: Value) -> Option<Value> {
        let writes = self.writes.get_mut(place).and_then(|keys| keys.remove(row[RAW_KEY].as_str()?));
        let mut row = Some(row);
        writes.iter().flatten().for_each(|write| apply_raw(&mut row, write));
        row
    }

    /// Returns the rows of a table that CDF does not have yet.
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
                match (value, &mut row[COLUMNS]) {
                    (Value::Null, Value::Object(columns))
                        if write.mode.null_handling == NullHandling::Ignore =>
                    {
                        columns.remove(name);
                    }
                    (value, columns) => columns[name.as_str()] = value.clone(),
                }
            }
        }
        _ => {
            let parts = [RAW_KEY, COLUMNS].map(|name| (name.to_owned(), write.new[name].clone()));
            *row = Some(Value::Object(parts.into_iter().collect()));
        }
    }
}

/// Writes to instances, by space and external id.
#[derive(Debug, Default)]
pub struct InstanceOverlay {
    writes: HashMap<(String, String), Vec<Write>>,
}

impl InstanceOverlay {
    /// Takes what was written through the view, and what was deleted through any view.
    pub fn new(pending: &[PendingItem], view: &View) -> Result<Self, Error> {
        let mut overlay = InstanceOverlay::default();
        overlay.add(pending, view)?;
        Ok(overlay)
    }

    /// Adds all writes to some instances.
    pub fn add(&mut self, pending: &[PendingItem], view: &View) -> Result<(), Error> {
        for item in pending {
            let same = item.view.as_ref().is_some_and(|other| other.name == view.name);
            if !same && item.mode.operation != Operation::Delete {
                continue;
            }
            let row = item.parse()?;
            let Some(Identity::Instance { space, external_id }) = row.identity() else {
                return Err(Error::internal("an instance without its key"));
            };
            self.writes.entry((space, external_id)).or_default().push(Write::of(item, &row));
        }
        Ok(())
    }

    /// Returns an instance of CDF as it will be after COMMIT; None if it is deleted.
    pub fn apply(&mut self, view: &View, item: Value) -> Option<Value> {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let key = (text(SPACE), text(EXTERNAL_ID));
        let Some(writes) = self.writes.remove(&key) else { return Some(item) };
        let item = written(view, Some(item), &writes);
        // An instance that was deleted and written again has lost its key.
        item.map(|item| with_key(item, key))
    }

    /// Returns the keys that were not seen in CDF.
    pub fn keys(&self) -> Vec<(String, String)> {
        self.writes.keys().cloned().collect()
    }

    /// Returns the instances that CDF does not have yet.
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
    item[SPACE] = space.into();
    item[EXTERNAL_ID] = external_id.into();
    item
}

fn apply_properties(view: &View, item: &mut Option<Value>, write: &Write) {
    let exists = item.is_some();
    match (write.mode.operation, write.mode.on_conflict, exists) {
        (Operation::Delete, ..) => *item = None,
        (Operation::Update, _, false) | (Operation::Upsert, OnConflict::Ignore, true) => {}
        _ => {
            let item = item.get_or_insert_with(|| Value::Object(Map::new()));
            for (name, value) in write.members(exists) {
                match end_of(name) {
                    Some(end) => item[end.property()] = value.clone(),
                    None => {
                        let place = format!("{}/{}", view.name.external_id, view.name.version);
                        item["properties"][view.name.space.as_str()][place.as_str()][name.as_str()] =
                            value.clone();
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
    /// The id and external id of each sequence that was seen, by either of them.
    names: HashMap<Identity, (i64, Value)>,
}

impl SequenceRowOverlay {
    pub fn new(pending: &[PendingItem]) -> Result<Self, Error> {
        let mut overlay = SequenceRowOverlay::default();
        overlay.add(pending)?;
        Ok(overlay)
    }

    /// Adds all writes to some rows.
    pub fn add(&mut self, pending: &[PendingItem]) -> Result<(), Error> {
        for item in pending {
            let row = item.parse()?;
            let number = row.number().and_then(|number| number.parse().ok());
            let (Some(sequence), Some(number)) = (row.identity(), number) else {
                return Err(Error::internal("a sequence row without its key"));
            };
            let write = Write::of(item, &row).with_key(&row);
            self.writes.entry((sequence, number)).or_default().push(write);
        }
        Ok(())
    }

    /// Records a sequence's id and external id, so that writes by both names count as writes to one sequence.
    pub fn saw(&mut self, sequence: &Value) {
        let (Some(id), external_id) = (sequence[ID].as_i64(), &sequence[EXTERNAL_ID]) else { return };
        for identity in name_of(sequence).into_iter().chain([Identity::Id(id)]) {
            self.names.insert(identity, (id, external_id.clone()));
        }
    }

    /// Returns the remaining rows of sequences that were [seen](Self::saw), with both names of their sequence.
    pub fn left(&self) -> Vec<Value> {
        let row = |(sequence, number): &(Identity, i64)| {
            let (id, external_id) = self.names.get(sequence)?;
            let members =
                [(ID, (*id).into()), (EXTERNAL_ID, external_id.clone()), (ROW_NUMBER, (*number).into())];
            Some(Value::Object(members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()))
        };
        self.writes.keys().filter_map(row).collect()
    }

    /// Returns a row of CDF as it will be after COMMIT; None if it is deleted. Its sequence was [seen](Self::saw).
    pub fn apply(&mut self, row: Value) -> Option<Value> {
        if self.writes.is_empty() {
            return Some(row);
        }
        let number = row[ROW_NUMBER].as_i64().unwrap_or_default();
        let mut writes = Vec::new();
        for sequence in name_of(&row).into_iter().chain(row[ID].as_i64().map(Identity::Id)) {
            writes.extend(self.writes.remove(&(sequence, number)).into_iter().flatten());
        }
        let (id, external_id) = (row[ID].clone(), row[EXTERNAL_ID].clone());
        written_cells(Some(row), writes).map(|mut row| {
            row[ID] = id;
            row[EXTERNAL_ID] = external_id;
            row
        })
    }

    /// Returns the rows that CDF does not have yet.
    pub fn rest(&mut self) -> Vec<Value> {
        let mut rows: HashMap<(Identity, i64), Vec<Write>> = HashMap::new();
        for ((sequence, number), writes) in self.writes.drain() {
            let known = self.names.get(&sequence).map(|(id, _)| Identity::Id(*id));
            rows.entry((known.unwrap_or(sequence), number)).or_default().extend(writes);
        }
        let row = |((sequence, _), writes): ((Identity, i64), Vec<Write>)| {
            let mut row = written_cells(None, writes)?;
            if let Some((id, external_id)) = self.names.get(&sequence) {
                row[ID] = (*id).into();
                row[EXTERNAL_ID] = external_id.clone();
            }
            Some(row)
        };
        rows.into_iter().filter_map(row).collect()
    }
}

fn written_cells(mut row: Option<Value>, mut writes: Vec<Write>) -> Option<Value> {
    writes.sort_by_key(|write| write.at);
    writes.iter().for_each(|write| apply_cells(&mut row, write));
    row
}

fn apply_cells(row: &mut Option<Value>, write: &Write) {
    match (write.mode.operation, row) {
        (Operation::Delete, row) => *row = None,
        (_, Some(_)) if write.mode.on_conflict == OnConflict::Ignore => {}
        (_, Some(row)) => {
            for (name, value) in write.columns(true) {
                row[COLUMNS][name.as_str()] = value.clone();
            }
        }
        (_, row) => *row = Some(Value::Object(write.new.clone())),
    }
}
