//! The data, by project. Classic resources share one lock, since references and hierarchies span them; each series has
//! a lock for its points, so that large inserts do not wait for one another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{json, Map, Value};

use crate::lag::{History, Lag, Sight};
use crate::resources::models::Models;
use crate::resources::points::Points;
use crate::resources::raw::Databases;
use crate::resources::sequence_rows::Rows;

/// All projects.
#[derive(Default)]
pub struct Store(Mutex<HashMap<String, Arc<Project>>>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Project>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a project, which is created on first use: the client's list of projects decides who may use it.
    pub fn project(&self, name: &str) -> Arc<Project> {
        self.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Forgets all data.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// One project's data.
#[derive(Default)]
pub struct Project {
    classic: Mutex<Classic>,
    raw: Mutex<Databases>,
    models: Mutex<Models>,
}

impl Project {
    /// Returns the resources that are lists of objects, and the points of each series.
    pub fn classic(&self) -> MutexGuard<'_, Classic> {
        self.classic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the data models and their instances.
    pub fn models(&self) -> MutexGuard<'_, Models> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the RAW databases.
    pub fn raw(&self) -> MutexGuard<'_, Databases> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The points of one series, shared by the requests that read or write them.
pub type SharedPoints = Arc<Mutex<Points>>;

/// Classic resources by the name of their path.
#[derive(Default)]
pub struct Classic {
    tables: HashMap<&'static str, Table>,
    points: HashMap<i64, SharedPoints>,
    rows: HashMap<i64, Rows>,
    issued: u64,
    empty: Table,
    /// How long new objects are not found by references and by their keys.
    pub lag: Duration,
    /// How far lists lag behind.
    pub lists: Lag,
}

impl Classic {
    /// Returns a resource's objects.
    pub fn table(&self, path: &str) -> &Table {
        self.tables.get(path).unwrap_or(&self.empty)
    }

    /// Returns a resource's objects, to change them.
    pub fn table_mut(&mut self, path: &'static str) -> &mut Table {
        let table = self.tables.entry(path).or_default();
        (table.lag, table.lists_lag) = (self.lag, self.lists.most);
        table
    }

    /// Returns a new id: unique, and like CDF's ids neither consecutive nor ascending.
    pub fn new_id(&mut self) -> i64 {
        self.issued += 1;
        // An odd factor permutes the residues modulo 2^53, so no id occurs twice; 0 is never reached.
        (self.issued.wrapping_mul(0x0014_5f30_6dc9_c883) & ((1 << 53) - 1)) as i64
    }

    /// Returns the points of a series.
    pub fn points(&mut self, series: i64) -> SharedPoints {
        self.points.entry(series).or_default().clone()
    }

    /// Returns the rows of a sequence.
    pub fn rows(&self, sequence: i64) -> Option<&Rows> {
        self.rows.get(&sequence)
    }

    /// Returns the rows of a sequence, to change them.
    pub fn rows_mut(&mut self, sequence: i64) -> &mut Rows {
        self.rows.entry(sequence).or_default()
    }

    /// Drops the rows of a deleted sequence.
    pub fn drop_rows(&mut self, sequence: i64) {
        self.rows.remove(&sequence);
    }

    /// Drops the points of a deleted series.
    pub fn drop_points(&mut self, series: i64) {
        self.points.remove(&series);
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Server-generated id.
    pub id: i64,
    /// CDF's fields as answers show them, without those that are computed on reading.
    pub fields: Map<String, Value>,
}

impl Entity {
    /// A string field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// An integer field.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.fields.get(name).and_then(Value::as_i64)
    }

    fn instance(&self) -> Option<Identity> {
        self.fields.get("instanceId").and_then(Identity::instance)
    }
}

/// How a request names an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// By id.
    Id(i64),
    /// By external id.
    External(String),
    /// By the data model instance behind it.
    Instance {
        /// Its space.
        space: String,
        /// Its external id in the space.
        external_id: String,
    },
}

impl Identity {
    /// Returns the identity as CDF writes it in `missing` and `duplicated`.
    pub fn json(&self) -> Value {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::External(external_id) => json!({ "externalId": external_id }),
            Self::Instance { space, external_id } => {
                json!({ "instanceId": { "space": space, "externalId": external_id } })
            }
        }
    }

    fn instance(value: &Value) -> Option<Self> {
        let part = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        Some(Self::Instance { space: part("space")?, external_id: part("externalId")? })
    }
}

/// The objects of one resource, in the order of their creation, found by any identity.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<u64, Entity>,
    keys: HashMap<Identity, u64>,
    /// Children by parent id, of resources with a parentId.
    children: HashMap<i64, BTreeSet<i64>>,
    inserted: u64,
    lag: Duration,
    /// Until when objects are not found, by id.
    hidden: HashMap<i64, Instant>,
    lists_lag: Duration,
    /// Earlier versions that lists still show.
    history: History<u64, Entity>,
}

impl Table {
    /// Adds a new object.
    pub fn insert(&mut self, entity: Entity) {
        self.inserted += 1;
        let seq = self.inserted;
        if !self.lag.is_zero() {
            self.hidden.insert(entity.id, Instant::now() + self.lag);
        }
        self.history.record(seq, None, self.lists_lag);
        self.index(seq, &entity);
        self.rows.insert(seq, entity);
    }

    /// Replaces the object of the same id.
    pub fn replace(&mut self, entity: Entity) {
        let Some(seq) = self.keys.get(&Identity::Id(entity.id)).copied() else {
            return;
        };
        if let Some(old) = self.rows.remove(&seq) {
            self.unindex(seq, &old);
            self.history.record(seq, Some(old), self.lists_lag);
        }
        self.index(seq, &entity);
        self.rows.insert(seq, entity);
    }

    /// Removes an object.
    pub fn remove(&mut self, id: i64) {
        let Some(seq) = self.keys.get(&Identity::Id(id)).copied() else {
            return;
        };
        if let Some(old) = self.rows.remove(&seq) {
            self.unindex(seq, &old);
            self.history.record(seq, Some(old), self.lists_lag);
        }
    }

    fn identities(entity: &Entity) -> impl Iterator<Item = Identity> {
        let external =
            entity.text("externalId").map(|external_id| Identity::External(external_id.to_owned()));
        [Some(Identity::Id(entity.id)), external, entity.instance()].into_iter().flatten()
    }

    fn index(&mut self, seq: u64, entity: &Entity) {
        for key in Self::identities(entity) {
            self.keys.insert(key, seq);
        }
        if let Some(parent) = entity.integer("parentId") {
            self.children.entry(parent).or_default().insert(entity.id);
        }
    }

    fn unindex(&mut self, seq: u64, entity: &Entity) {
        for key in Self::identities(entity) {
            // After a swap of external ids in one update, the key may already belong to another object.
            if self.keys.get(&key) == Some(&seq) {
                self.keys.remove(&key);
            }
        }
        if let Some(parent) = entity.integer("parentId") {
            if let Some(children) = self.children.get_mut(&parent) {
                children.remove(&entity.id);
                if children.is_empty() {
                    self.children.remove(&parent);
                }
            }
        }
    }

    /// Returns the object with an identity.
    pub fn find(&self, identity: &Identity) -> Option<&Entity> {
        self.keys.get(identity).and_then(|seq| self.rows.get(seq))
    }

    /// Returns the object with an identity, if requests that name it find it already.
    pub fn visible(&self, identity: &Identity) -> Option<&Entity> {
        let found = self.find(identity)?;
        self.hidden.get(&found.id).is_none_or(|until| *until <= Instant::now()).then_some(found)
    }

    /// Returns the object with an id.
    pub fn by_id(&self, id: i64) -> Option<&Entity> {
        self.find(&Identity::Id(id))
    }

    /// Returns the object with an external id.
    pub fn by_external_id(&self, external_id: &str) -> Option<&Entity> {
        self.find(&Identity::External(external_id.to_owned()))
    }

    /// Returns the ids of an object's children.
    pub fn children(&self, id: i64) -> impl Iterator<Item = i64> + '_ {
        self.children.get(&id).into_iter().flatten().copied()
    }

    /// Returns the objects after a position, oldest first, each with its position.
    pub fn after(&self, position: u64) -> impl Iterator<Item = (u64, &Entity)> {
        self.rows.range(position.saturating_add(1)..).map(|(seq, entity)| (*seq, entity))
    }

    /// As `after`, as a list sees them.
    pub fn listed(&self, position: u64, sight: Sight) -> impl Iterator<Item = (u64, &Entity)> {
        let seen = self.history.seen(&self.rows, Bound::Excluded(&position), sight, |seq| *seq);
        seen.map(|(seq, entity)| (*seq, entity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(id: i64, external_id: &str) -> Entity {
        Entity { id, fields: Map::from_iter([("externalId".to_owned(), json!(external_id))]) }
    }

    #[test]
    fn ids_are_unique_and_in_range() {
        let mut classic = Classic::default();
        let ids: BTreeSet<i64> = (0..10_000).map(|_| classic.new_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| (1..=9_007_199_254_740_991).contains(id)));
    }

    #[test]
    fn what_is_created_with_a_lag_is_found_later() {
        let mut classic = Classic { lag: Duration::from_secs(3600), ..Classic::default() };
        classic.table_mut("assets").insert(entity(1, "a"));
        classic.lag = Duration::ZERO;
        classic.table_mut("assets").insert(entity(2, "b"));
        let table = classic.table("assets");
        assert!(table.find(&Identity::Id(1)).is_some() && table.visible(&Identity::Id(1)).is_none());
        assert!(table.visible(&Identity::External("b".into())).is_some());
    }

    #[test]
    fn external_ids_can_be_swapped() {
        let mut table = Table::default();
        table.insert(entity(1, "a"));
        table.insert(entity(2, "b"));
        table.replace(entity(1, "b"));
        table.replace(entity(2, "a"));
        assert_eq!(table.by_external_id("a").map(|e| e.id), Some(2));
        assert_eq!(table.by_external_id("b").map(|e| e.id), Some(1));
        table.remove(1);
        assert!(table.by_external_id("b").is_none());
        assert_eq!(table.after(0).count(), 1);
    }
}
