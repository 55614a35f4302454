//! What a transaction has written, for a reader that asks for it in parts, since it may not fit in memory.
//!
//! For each page that CDF returns, a reader asks for the writes to the page's keys. After the last page it asks, in
//! parts, for the writes to keys that were on no page. An index in memory locates each row that was written with a key.

use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;

use super::batch::Batch;
use super::body::Body;
use super::chunk::{Chunk, Spill};
use super::destination::Destination;
use super::moment::Moment;
use super::pending::PendingItem;
use super::transaction::TransactionBuffer;
use crate::cdf::encode::fragment::{Fragment, Key};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::hash::hash_bytes;
use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::Mode;

/// Maximum rows, and bytes of rows, per answer to [`WantedRows::Rest`].
const ROWS: usize = 1000;
const BYTES: usize = 256 << 10;

/// If more than one in this many rows of a chunk are wanted, the whole chunk is read.
const SPARSE: usize = 8;

/// RAW database and table.
type RawTable = (String, String);

/// A reader's request, limited to one RAW table if `place` is given.
#[derive(Debug)]
pub enum WantedRows {
    /// All writes to these keys. `anew`: only keys of which nothing was returned yet.
    OfKeys { place: Option<RawTable>, keys: Vec<Key>, anew: bool },
    /// The next writes to keys that nobody has asked for; all writes to a key come together.
    Rest { place: Option<RawTable> },
}

/// The rows written to a resource that a reader sees, and which of them were returned.
#[derive(Debug, Default)]
pub struct OwnRows {
    /// In write order for each key.
    parts: Vec<OwnChunk>,
    /// The rows that have a key, sorted by key and then by part.
    index: Vec<RowPlace>,
    /// One bit per entry of `index`: whether it was returned.
    given: Vec<u64>,
    /// Where [`WantedRows::Rest`] continues.
    next: (usize, usize),
    place: Option<RawTable>,
    /// The body of the part that it is in.
    body: Option<(usize, Rc<Body>)>,
}

/// A chunk as a reader sees it. Batches that were open when the reader began are copied; closed chunks stay where they
/// are.
#[derive(Debug)]
struct OwnChunk {
    /// The lane and the chunk's number in it.
    id: (usize, u64),
    wave: usize,
    mode: Mode,
    kind: KeyKind,
    rows: usize,
    destination: Arc<Destination>,
    copy: Option<Rc<Body>>,
}

impl OwnChunk {
    fn is_of(&self, place: &Option<RawTable>) -> bool {
        place.is_none() || self.destination.raw == *place
    }

    fn item(&self, order: u64, fragment: Fragment<'_>) -> PendingItem {
        PendingItem {
            order,
            mode: self.mode,
            kind: self.kind,
            fragment: fragment.bytes().to_vec(),
            raw: self.destination.raw.clone(),
            view: self.destination.view.clone(),
        }
    }
}

/// The place of a row and the hash of its key. It is small because there is one per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowPlace {
    hash: u32,
    part: u32,
    row: u32,
}

impl OwnRows {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Checks whether some rows are addressed by `id`.
    pub fn by_id(&self) -> bool {
        self.parts.iter().any(|part| part.kind == KeyKind::Id)
    }

    /// Returns the RAW tables that were written to.
    pub fn places(&self) -> Vec<RawTable> {
        let mut places: Vec<_> = self.parts.iter().filter_map(|part| part.destination.raw.clone()).collect();
        places.sort();
        places.dedup();
        places
    }

    /// Returns the range of entries that may have a key of this hash.
    fn of_hash(&self, hash: u32) -> std::ops::Range<usize> {
        let first = self.index.partition_point(|entry| entry.hash < hash);
        let same = self.index[first..].iter().take_while(|entry| entry.hash == hash).count();
        first..first + same
    }

    fn was_given(&self, entry: usize) -> bool {
        self.given[entry / 64] & 1 << (entry % 64) != 0
    }

    fn give(&mut self, entry: usize) {
        self.given[entry / 64] |= 1 << (entry % 64);
    }
}

fn order(part: usize, row: usize) -> u64 {
    (part as u64) << 32 | row as u64
}

fn short_hash(key: &[u8]) -> u32 {
    (hash_bytes(key) >> 32) as u32
}

impl TransactionBuffer {
    /// Checks whether [`TransactionBuffer::own_rows`] can look up writes to a resource by the keys of CDF's rows. It
    /// cannot where CDF returns other names, or names a time series as an instance.
    pub fn is_by_key(&self, connection: &Connection, resource: &'static Resource) -> bool {
        let mut lanes = self.lanes.iter().filter(|lane| lane.destination.reaches(connection, resource));
        lanes.all(|lane| {
            let addresses = KeyKind::ADDRESSES.iter().zip(lane.highest);
            let found = |kind: &KeyKind| *kind == KeyKind::Key || *kind == KeyKind::Id && !lane.renames;
            addresses.into_iter().all(|(kind, wave)| wave.is_none() || found(kind))
        })
    }

    /// Returns what was written to a resource in the project of a connection: only `before` a moment, and only to one
    /// RAW database or table, if these are given.
    ///
    /// # Errors
    /// Returns the error of reading it.
    pub fn own_rows(
        &mut self,
        connection: &Connection,
        resource: &'static Resource,
        (database, table): (Option<&str>, Option<&str>),
        before: Option<Moment>,
        spill: &mut dyn Spill,
    ) -> Result<OwnRows, Error> {
        self.settle()?;
        let is_of = |destination: &Destination| match &destination.raw {
            Some(raw) => {
                database.is_none_or(|name| *name == raw.0) && table.is_none_or(|name| *name == raw.1)
            }
            None => true,
        };
        let mut parts = Vec::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            let destination = &lane.destination;
            if !destination.reaches(connection, resource) || !is_of(destination) {
                continue;
            }
            for segment in &lane.segments {
                let closed =
                    segment.closed.iter().filter(|chunk| before.is_none_or(|now| chunk.closed < now));
                parts.extend(closed.map(|chunk| OwnChunk {
                    id: (at, chunk.number),
                    wave: chunk.wave,
                    mode: chunk.header.mode,
                    kind: chunk.header.kind,
                    rows: chunk.rows,
                    destination: destination.clone(),
                    copy: None,
                }));
                // Batches that were open at that moment have been closed since.
                for open in segment.open.iter().filter(|_| before.is_none()) {
                    let Batch::Items(batch) = &open.batch else { continue };
                    if batch.items() == 0 {
                        continue;
                    }
                    parts.push(OwnChunk {
                        id: (at, 0),
                        wave: open.wave,
                        mode: open.mode,
                        kind: open.kind,
                        rows: batch.items(),
                        destination: destination.clone(),
                        copy: Some(Rc::new(Body::of(batch.fragments()))),
                    });
                }
            }
        }
        parts.sort_by_key(|part| part.wave);
        let mut own = OwnRows { parts, ..OwnRows::default() };
        self.fill_index(&mut own, resource, spill)?;
        Ok(own)
    }

    fn fill_index(&self, own: &mut OwnRows, resource: &Resource, spill: &mut dyn Spill) -> Result<(), Error> {
        let keyed = |part: &&OwnChunk| part.kind != KeyKind::None;
        let rows = own.parts.iter().filter(keyed).map(|part| part.rows).sum();
        own.index.reserve_exact(rows);
        let mut reading = RowReading { chunks: self.chunks(own, &None), own, spill, resource };
        for part in 0..reading.own.parts.len() {
            if reading.own.parts[part].kind == KeyKind::None {
                continue;
            }
            let Some(body) = reading.body(part)? else { continue };
            for (row, fragment) in body.fragments().enumerate() {
                let hash = short_hash(fragment.key(resource));
                reading.own.index.push(RowPlace { hash, part: part as u32, row: row as u32 });
            }
        }
        drop(reading);
        own.index.sort_unstable();
        own.given = vec![0; own.index.len().div_ceil(64)];
        Ok(())
    }

    /// Answers a reader's request.
    ///
    /// # Errors
    /// Returns the error of reading it.
    pub fn answer(
        &self,
        own: &mut OwnRows,
        wanted: WantedRows,
        spill: &mut dyn Spill,
    ) -> Result<Vec<PendingItem>, Error> {
        let Some(part) = own.parts.first() else { return Ok(Vec::new()) };
        let resource = part.destination.resource;
        let (WantedRows::OfKeys { place, .. } | WantedRows::Rest { place }) = &wanted;
        let mut reading = RowReading { chunks: self.chunks(own, place), own, spill, resource };
        match wanted {
            WantedRows::OfKeys { place, keys, anew } => reading.of_keys(&place, keys, anew),
            WantedRows::Rest { place } => reading.rest(place),
        }
    }

    /// Returns the chunks of the lanes that a reader reads.
    fn chunks(&self, own: &OwnRows, place: &Option<RawTable>) -> HashMap<(usize, u64), &Chunk> {
        let parts = own.parts.iter().filter(|part| part.is_of(place));
        self.closed_in(parts.map(|part| part.id.0).collect())
    }

    /// Returns the closed chunks of lanes, by lane and number.
    pub(super) fn closed_in(&self, mut lanes: Vec<usize>) -> HashMap<(usize, u64), &Chunk> {
        lanes.sort_unstable();
        lanes.dedup();
        let of_lane = |at: usize| {
            let closed = self.lanes[at].segments.iter().flat_map(|segment| &segment.closed);
            closed.map(move |chunk| ((at, chunk.number), chunk))
        };
        lanes.into_iter().flat_map(of_lane).collect()
    }
}

struct RowReading<'r> {
    chunks: HashMap<(usize, u64), &'r Chunk>,
    own: &'r mut OwnRows,
    spill: &'r mut dyn Spill,
    resource: &'r Resource,
}

impl RowReading<'_> {
    /// Returns the body of a part; None if the part was discarded by a rollback to a savepoint.
    fn body(&mut self, part: usize) -> Result<Option<Rc<Body>>, Error> {
        let OwnChunk { id, copy, .. } = &self.own.parts[part];
        if copy.is_some() {
            return Ok(copy.clone());
        }
        let Some(chunk) = self.chunks.get(id) else { return Ok(None) };
        Ok(Some(Rc::new(chunk.read(self.spill)?.into_owned())))
    }

    /// Adds a row if it has the key, and marks it as returned.
    fn add(&mut self, at: usize, fragment: Fragment<'_>, key: &[u8], into: &mut Vec<PendingItem>) {
        if fragment.key(self.resource) == key {
            let RowPlace { part, row, .. } = self.own.index[at];
            into.push(self.own.parts[part as usize].item(order(part as usize, row as usize), fragment));
            self.own.give(at);
        }
    }

    fn of_keys(
        &mut self,
        place: &Option<RawTable>,
        mut keys: Vec<Key>,
        anew: bool,
    ) -> Result<Vec<PendingItem>, Error> {
        keys.sort_unstable();
        keys.dedup();
        // The entries that may have one of the keys, and the index of that key.
        let mut found = Vec::new();
        for (which, key) in keys.iter().enumerate() {
            let entries = self.own.of_hash(short_hash(key.as_bytes()));
            found.extend(entries.map(|at| (self.own.index[at].part, self.own.index[at].row, at, which)));
        }
        found.retain(|(part, _, at, _)| {
            self.own.parts[*part as usize].is_of(place) && !(anew && self.own.was_given(*at))
        });
        // Keep the write order, and read each chunk once.
        found.sort_unstable();
        let mut items = Vec::with_capacity(found.len());
        for of_part in found.chunk_by(|a, b| a.0 == b.0) {
            let part = of_part[0].0 as usize;
            let many = of_part.len() * SPARSE > self.own.parts[part].rows;
            let whole = if many { self.body(part)? } else { None };
            for (_, row, at, which) in of_part {
                let key = keys[*which].as_bytes();
                match &whole {
                    Some(body) => self.add(*at, body.fragment(*row as usize), key, &mut items),
                    None => self.add_one(*at, key, &mut items)?,
                }
            }
        }
        Ok(items)
    }

    /// Like `add`, but reads only this row.
    fn add_one(&mut self, at: usize, key: &[u8], into: &mut Vec<PendingItem>) -> Result<(), Error> {
        let RowPlace { part, row, .. } = self.own.index[at];
        let OwnChunk { id, copy, .. } = &self.own.parts[part as usize];
        if let Some(copy) = copy.clone() {
            self.add(at, copy.fragment(row as usize), key, into);
        } else if let Some(chunk) = self.chunks.get(id).copied() {
            let fragment = chunk.fragment(row as usize, self.spill)?;
            self.add(at, Fragment::of(&fragment), key, into);
        }
        Ok(())
    }

    fn rest(&mut self, place: Option<RawTable>) -> Result<Vec<PendingItem>, Error> {
        if self.own.place != place {
            self.own.next = (0, 0);
            self.own.place = place.clone();
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < ROWS && bytes < BYTES {
            let (at, row) = self.own.next;
            let Some(part) = self.own.parts.get(at) else {
                self.own.body = None;
                break;
            };
            if row >= part.rows || !part.is_of(&place) {
                self.own.next = (at + 1, 0);
                continue;
            }
            let body = match &self.own.body {
                Some((of, body)) if *of == at => body.clone(),
                _ => {
                    // Keep one body in memory at a time.
                    self.own.body = None;
                    let Some(body) = self.body(at)? else {
                        self.own.next = (at + 1, 0);
                        continue;
                    };
                    self.own.body.insert((at, body)).1.clone()
                }
            };
            self.own.next = (at, row + 1);
            let before = items.len();
            self.add_rest(at, row, &place, body.fragment(row), &mut items)?;
            bytes += items[before..].iter().map(|item| item.fragment.len()).sum::<usize>();
        }
        Ok(items)
    }

    /// Adds a row that was not returned yet, and the later rows of its key.
    fn add_rest(
        &mut self,
        part: usize,
        row: usize,
        place: &Option<RawTable>,
        fragment: Fragment<'_>,
        items: &mut Vec<PendingItem>,
    ) -> Result<(), Error> {
        if self.own.parts[part].kind == KeyKind::None {
            items.push(self.own.parts[part].item(order(part, row), fragment));
            return Ok(());
        }
        let key = fragment.key(self.resource);
        let same = self.own.of_hash(short_hash(key));
        let is_this = |at: &usize| {
            let entry = self.own.index[*at];
            (entry.part as usize, entry.row as usize) == (part, row)
        };
        let Some(this) = same.clone().find(is_this) else { return Ok(()) };
        if self.own.was_given(this) {
            return Ok(());
        }
        self.add(this, fragment, key, items);
        for later in this + 1..same.end {
            let of_place = self.own.parts[self.own.index[later].part as usize].is_of(place);
            if of_place && !self.own.was_given(later) {
                self.add_one(later, key, items)?;
            }
        }
        Ok(())
    }
}
