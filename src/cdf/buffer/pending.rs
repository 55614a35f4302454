//! What a transaction has written but not sent, for its own SELECT, UPDATE and DELETE.

use std::sync::Arc;

use hashbrown::HashMap;

use super::batch::Batch;
use super::chunk::{Chunk, Spill};
use super::lane::Lane;
use super::moment::Moment;
use super::trace::KeyTrace;
use super::transaction::TransactionBuffer;
use super::wave::WaveTrace;
use crate::cdf::encode::fragment::{Fragment, Key, ParsedRow};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::view::View;
use crate::cdf::table::Mode;

/// A write of one item or RAW row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingItem {
    /// Increases with write order for each item, however the writes name it.
    pub order: u64,
    pub mode: Mode,
    pub kind: KeyKind,
    /// The encoded row.
    pub fragment: Vec<u8>,
    /// The RAW database and table.
    pub raw: Option<(String, String)>,
    /// The view through which an instance is written.
    pub view: Option<Arc<View>>,
}

/// All writes to a table except datapoints, in write order for each key.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pending {
    pub items: Vec<PendingItem>,
}

impl PendingItem {
    /// Parses the encoded row.
    pub fn parse(&self) -> Result<ParsedRow<'_>, Error> {
        Fragment::of(&self.fragment).parse()
    }
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// The requested keys and their hashes.
struct Keys(HashMap<Key, u64>);

impl Keys {
    /// Checks whether the fragment has one of the keys, or a key of another kind that only CDF can resolve.
    fn want(&self, kind: KeyKind, fragment: Fragment<'_>) -> bool {
        if kind != KeyKind::Key {
            return kind != KeyKind::None;
        }
        self.0.contains_key(fragment.first_member())
    }

    fn any_in(&self, trace: &KeyTrace) -> bool {
        self.0.values().any(|hash| trace.contains(*hash))
    }
}

impl TransactionBuffer {
    /// Returns what was written to a resource in the project of a connection; only `before` a moment if it is given.
    /// With `keys`, rows with other keys are left out.
    pub fn pending(
        &mut self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        keys: Option<Vec<Key>>,
        before: Option<Moment>,
        spill: &mut dyn Spill,
    ) -> Result<Pending, Error> {
        let with_hash = |key: Key| {
            let hash = key.hash_of_value();
            (key, hash)
        };
        // An item written by id may have been written earlier under a name that it had then.
        let reached = |lane: &&Lane| lane.destination.reaches(connection, resource);
        let by_id = self.lanes.iter().filter(reached).any(Lane::writes_by_id);
        let keys = keys.filter(|_| !by_id).map(|keys| Keys(keys.into_iter().map(with_hash).collect()));
        let mut pending = Pending::default();
        self.settle()?;
        let lanes = self.lanes.iter().filter(|lane| lane.destination.reaches(connection, resource));
        let mut parts: Vec<PendingChunk<'_>> =
            lanes.flat_map(|lane| lane.parts(keys.as_ref(), before)).collect();
        parts.sort_by_key(|part| part.wave);
        for part in parts {
            part.add_to(&mut pending, keys.as_ref(), spill)?;
        }
        Ok(pending)
    }
}

/// Writes of one kind and wave in a lane.
struct PendingChunk<'l> {
    lane: &'l Lane,
    wave: usize,
    mode: Mode,
    kind: KeyKind,
    place: ChunkPlace<'l>,
}

/// Where pending writes are stored.
enum ChunkPlace<'l> {
    Open(&'l Batch),
    Closed(&'l Chunk),
}

impl Lane {
    fn writes_by_id(&self) -> bool {
        KeyKind::ADDRESSES.iter().zip(self.highest).any(|(kind, wave)| *kind == KeyKind::Id && wave.is_some())
    }

    /// Returns all chunks and batches that may hold what is asked for.
    fn parts(&self, keys: Option<&Keys>, before: Option<Moment>) -> Vec<PendingChunk<'_>> {
        // A chunk in a temporary file is read only if its wave's trace may hold one of the keys.
        let may_hold = |chunk: &Chunk| match (keys, self.traces.get(chunk.wave)) {
            (Some(keys), Some(WaveTrace::Keys(trace))) if chunk.header.kind == KeyKind::Key => {
                keys.any_in(trace) && chunk.keys.as_ref().is_none_or(|filter| keys.any_in(filter))
            }
            _ => true,
        };
        let mut parts = Vec::new();
        for segment in &self.segments {
            let closed = segment
                .closed
                .iter()
                .filter(|chunk| before.is_none_or(|moment| chunk.closed < moment) && may_hold(chunk));
            parts.extend(closed.map(|chunk| {
                let place = ChunkPlace::Closed(chunk);
                PendingChunk {
                    lane: self,
                    wave: chunk.wave,
                    mode: chunk.header.mode,
                    kind: chunk.header.kind,
                    place,
                }
            }));
            // Batches that were open at that moment have been closed since.
            let open = segment.open.iter().filter(|_| before.is_none());
            parts.extend(open.map(|open| {
                let place = ChunkPlace::Open(&open.batch);
                PendingChunk { lane: self, wave: open.wave, mode: open.mode, kind: open.kind, place }
            }));
        }
        parts
    }
}

impl PendingChunk<'_> {
    fn add_to(self, pending: &mut Pending, keys: Option<&Keys>, spill: &mut dyn Spill) -> Result<(), Error> {
        let PendingChunk { lane, mode, kind, place, .. } = self;
        let add = |fragment: Fragment<'_>| {
            if keys.is_none_or(|keys| keys.want(kind, fragment)) {
                pending.items.push(PendingItem {
                    order: pending.items.len() as u64,
                    mode,
                    kind,
                    fragment: fragment.bytes().to_vec(),
                    raw: lane.destination.raw.clone(),
                    view: lane.destination.view.clone(),
                });
            }
        };
        match place {
            ChunkPlace::Open(Batch::Items(batch)) => match keys {
                Some(keys) if kind == KeyKind::Key => {
                    keys.0.iter().filter_map(|(key, hash)| batch.get(*hash, key.as_bytes())).for_each(add);
                }
                _ => batch.fragments().for_each(add),
            },
            ChunkPlace::Open(Batch::Points(_) | Batch::Ranges(_)) => {}
            ChunkPlace::Closed(chunk) => chunk.read(spill)?.fragments().for_each(add),
        }
        Ok(())
    }
}
