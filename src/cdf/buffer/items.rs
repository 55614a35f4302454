//! An open request of items or RAW rows: `{"items":[…]}` with each key once.

use hashbrown::HashTable;

use super::body::{Body, Room, BODY_BYTES, HEAD, TAIL};
use super::trace::KeyTrace;
use crate::cdf::encode::fragment::{merge, merge_by_existence, Fragment};
use crate::cdf::encode::{EncodedRow, KeyKind};
use crate::cdf::error::Error;
use crate::cdf::resource::Resource;

/// The number of items from which a batch is expected to become a full request of 1000.
const SMALL: usize = 56;

/// The hash that stands for "no parent". A parent with the same hash is only sorted like a root.
const NO_PARENT: u64 = 0;

/// How a second write of a key combines with the first.
#[derive(Debug, Clone, Copy)]
pub enum Merge {
    /// Later properties or columns of the resource replace earlier ones; the others stay.
    Overlay(&'static Resource),
    /// The later write replaces the earlier one.
    Replace,
    /// The earlier write stays.
    Keep,
    /// Like `Overlay`, for rows that set fewer properties on an existing item than on a new one.
    OverlayByExistence(&'static Resource),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u32,
    len: u32,
    /// Length of the leading bytes that hold the key; 0 without a key.
    prefix: u32,
    hash: u64,
    parent: u64,
}

/// The request that rows are appended to.
#[derive(Debug)]
pub struct ItemBatch {
    body: Vec<u8>,
    slots: Vec<Slot>,
    index: HashTable<u32>,
    /// Bytes of `body` taken by overwritten items.
    dead: usize,
    deferred: bool,
    has_parents: bool,
    complete: bool,
}

impl Default for ItemBatch {
    fn default() -> Self {
        ItemBatch {
            body: HEAD.to_vec(),
            slots: Vec::new(),
            index: HashTable::new(),
            dead: 0,
            deferred: false,
            has_parents: false,
            complete: true,
        }
    }
}

impl ItemBatch {
    pub fn items(&self) -> usize {
        self.slots.len()
    }

    /// Reserves as much room as a full batch used: growing step by step would copy all of it several times.
    pub fn reserve(&mut self, like: Room) {
        self.body.reserve(like.bytes);
        self.slots.reserve(like.rows);
        let slots = &self.slots;
        self.index.reserve(like.keys, |at| slots[*at as usize].hash);
    }

    /// Returns the batch's size.
    pub fn room(&self) -> Room {
        Room { bytes: self.body.len(), rows: self.slots.len(), keys: self.index.len() }
    }

    pub fn bytes(&self) -> usize {
        self.body.capacity() + self.slots.capacity() * (size_of::<Slot>() + 8)
    }

    /// Checks whether every item has all properties that creating it requires.
    pub fn complete(&self) -> bool {
        self.complete
    }

    pub fn deferred(&self) -> bool {
        self.deferred
    }

    /// Checks whether there is room for a fragment of this many bytes and its key.
    pub fn has_room(&self, bytes: usize, per_request: usize) -> bool {
        self.slots.is_empty()
            || (self.slots.len() < per_request && self.body.len() - self.dead + bytes < BODY_BYTES)
    }

    pub fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().filter(|slot| slot.prefix > 0).map(|slot| slot.hash)
    }

    /// Returns a filter of the keys.
    pub fn keys(&self) -> KeyTrace {
        KeyTrace::of(self.slots.iter().map(|slot| slot.hash))
    }

    fn fragment(&self, slot: &Slot) -> Fragment<'_> {
        Fragment::of(&self.body[slot.start as usize..(slot.start + slot.len) as usize])
    }

    /// Returns the bytes of the item's key.
    fn key(&self, slot: &Slot) -> &[u8] {
        &self.body[slot.start as usize..(slot.start + slot.prefix) as usize]
    }

    /// Returns the items' objects.
    pub fn fragments(&self) -> impl Iterator<Item = Fragment<'_>> + '_ {
        self.slots.iter().map(|slot| self.fragment(slot))
    }

    /// Returns the index of the item that has this key.
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let same = |at: &u32| {
            let slot = &self.slots[*at as usize];
            slot.hash == hash && self.key(slot) == key
        };
        self.index.find(hash, same).map(|at| *at as usize)
    }

    /// Returns the object of the item that has this key.
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Fragment<'_>> {
        self.find(hash, key).map(|at| self.fragment(&self.slots[at]))
    }

    pub fn contains(&self, hash: u64, key: &[u8]) -> bool {
        !key.is_empty() && self.find(hash, key).is_some()
    }

    /// Checks whether the batch shares a key with `other`.
    pub fn shares_a_key_with(&self, other: &ItemBatch) -> bool {
        other.slots.iter().any(|slot| self.contains(slot.hash, other.key(slot)))
    }

    /// Adds an item, or merges it with the one of the same key.
    pub fn push(&mut self, fragment: Fragment<'_>, encoded: &EncodedRow, how: Merge) -> Result<(), Error> {
        let key = fragment.key_of(encoded);
        let existing = if key.is_empty() { None } else { self.find(encoded.hash, key) };
        let Some(at) = existing else {
            self.push_new(fragment, encoded);
            return Ok(());
        };
        let earlier = self.fragment(&self.slots[at]);
        let mut merged = Vec::new();
        match how {
            Merge::Keep => {}
            Merge::Replace => self.replace(at, fragment, encoded),
            Merge::Overlay(resource) => {
                merged.reserve(fragment.bytes().len() * 2);
                merge(resource, earlier, fragment, &mut merged)?;
                let parent = encoded.parent.or(Some(self.slots[at].parent));
                self.replace(at, Fragment::of(&merged), &EncodedRow { parent, ..*encoded });
            }
            Merge::OverlayByExistence(resource) => {
                merged.reserve(fragment.bytes().len() * 2);
                merge_by_existence(resource, earlier, fragment, &mut merged)?;
                let merged = Fragment::of(&merged);
                // The later row's parent is not set if it is only meant for a new item.
                let parent = merged.parent_hash(resource)?;
                self.replace(at, merged, &EncodedRow { parent, ..*encoded });
            }
        }
        if self.dead > BODY_BYTES {
            self.compact();
        }
        Ok(())
    }

    /// Adds an item whose key is not in the batch.
    pub fn push_new(&mut self, fragment: Fragment<'_>, encoded: &EncodedRow) {
        let slot = self.append(fragment, encoded);
        if encoded.prefix > 0 {
            let slots = &self.slots;
            // Growing step by step would hash every key three times. Most batches are either small or full.
            if slots.len() == SMALL {
                self.index.reserve(1000 - SMALL, |at| slots[*at as usize].hash);
            }
            self.index.insert_unique(encoded.hash, slots.len() as u32, |at| slots[*at as usize].hash);
        }
        self.slots.push(slot);
    }

    fn append(&mut self, fragment: Fragment<'_>, encoded: &EncodedRow) -> Slot {
        let fragment = fragment.bytes();
        if self.body.len() > HEAD.len() {
            self.body.push(b',');
        }
        let start = self.body.len() as u32;
        self.body.extend_from_slice(fragment);
        self.deferred |= encoded.deferred;
        self.complete &= encoded.complete;
        let parent = encoded.parent.unwrap_or(NO_PARENT);
        self.has_parents |= parent != NO_PARENT;
        Slot { start, len: fragment.len() as u32, prefix: encoded.prefix as u32, hash: encoded.hash, parent }
    }

    fn replace(&mut self, at: usize, fragment: Fragment<'_>, encoded: &EncodedRow) {
        self.dead += self.slots[at].len as usize + 1;
        self.slots[at] = self.append(fragment, encoded);
    }

    /// Moves the items of a later batch into this one. The caller has checked that there is room.
    pub fn absorb(&mut self, later: &ItemBatch, merge: Merge) -> Result<(), Error> {
        for slot in &later.slots {
            let parent = (slot.parent != NO_PARENT).then_some(slot.parent);
            let encoded = EncodedRow {
                kind: KeyKind::None,
                prefix: slot.prefix as usize,
                hash: slot.hash,
                deferred: later.deferred,
                complete: later.complete,
                parent,
            };
            self.push(later.fragment(slot), &encoded, merge)?;
        }
        Ok(())
    }

    fn compact(&mut self) {
        let mut body = Vec::with_capacity(self.body.len() - self.dead);
        body.extend_from_slice(HEAD);
        for slot in &mut self.slots {
            if body.len() > HEAD.len() {
                body.push(b',');
            }
            let start = body.len() as u32;
            body.extend_from_slice(&self.body[slot.start as usize..(slot.start + slot.len) as usize]);
            slot.start = start;
        }
        self.body = body;
        self.dead = 0;
    }

    /// Finishes the request. `with_family` keeps the hashes needed to order parents before children.
    pub fn close(mut self, with_family: bool) -> Body {
        if self.dead > 0 {
            self.compact();
        }
        self.body.extend_from_slice(TAIL);
        self.body.shrink_to_fit();
        Body {
            items: self.slots.iter().map(|slot| (slot.start, slot.start + slot.len)).collect(),
            family: if with_family {
                self.slots.iter().map(|slot| (slot.hash, slot.parent)).collect()
            } else {
                Vec::new()
            },
            bytes: self.body.into(),
        }
    }

    pub fn has_parents(&self) -> bool {
        self.has_parents
    }
}
