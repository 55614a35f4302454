//! A lane: what a transaction has written to one destination, and the wave of each request.

use std::sync::Arc;

use super::batch::{Batch, Open};
use super::body::Room;
use super::chunk::{Background, Chunk, Foreground, Header};
use super::destination::Destination;
use super::items::{ItemBatch, Merge};
use super::moment::{Moment, Subtransaction};
use super::points::PointBatch;
use super::ranges::RangeBatch;
use super::trace::{KeyTrace, RangeTrace};
use super::wave::{Touched, WaveTrace};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::table::{Mode, OnConflict, Operation};

/// What a lane needs from its surroundings: its memory budget, and where requests are made.
pub(super) struct Outside {
    pub(super) budget: usize,
    pub(super) background: &'static dyn Background,
}

/// Maximum number of requests of a segment that are made in the background at once.
const IN_BACKGROUND: usize = 2;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Arc<Destination>,
    pub(super) segments: Vec<Segment>,
    /// What the closed chunks of each wave hold.
    pub(super) traces: Vec<WaveTrace>,
    /// The highest wave of each of [`KeyKind::ADDRESSES`].
    pub(super) highest: [Option<usize>; 3],
    /// Items are addressed by more than one of these kinds.
    pub(super) mixed: bool,
    /// Points do not arrive in time order.
    pub(super) shuffled: bool,
    /// Number of closed chunks.
    pub(super) closed: u64,
    /// The moment recorded for chunks closed now.
    pub(super) moment: Moment,
    /// A write by `id` may change the item's external id.
    pub(super) renames: bool,
    /// A write had to be ordered after one in another lane.
    pub(super) tied: bool,
    /// The highest wave of a deletion.
    pub(super) deleted: Option<usize>,
    /// Number of journal rows written.
    pub(super) written: usize,
    /// Other lanes that may hold the same items.
    pub(super) kin: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) subtransaction: Subtransaction,
    pub(super) open: Vec<Open>,
    pub(super) closed: Vec<Chunk>,
}

impl Lane {
    pub(super) fn to(destination: Destination, moment: Moment) -> Lane {
        Lane {
            destination: Arc::new(destination),
            segments: Vec::new(),
            traces: Vec::new(),
            highest: [None; 3],
            mixed: false,
            shuffled: false,
            closed: 0,
            moment,
            renames: false,
            tied: false,
            deleted: None,
            written: 0,
            kin: Vec::new(),
        }
    }

    pub(super) fn per_request(&self) -> usize {
        self.destination.resource.per_request
    }

    /// Returns the number of bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        let segments = self.segments.iter().map(|segment| {
            segment.open.iter().map(|open| open.batch.bytes()).sum::<usize>()
                + segment.closed.iter().map(Chunk::memory).sum::<usize>()
        });
        segments.sum::<usize>() + self.traces.iter().map(WaveTrace::bytes).sum::<usize>()
    }

    /// Returns the segment for rows of `subtransaction`.
    pub(super) fn segment(&mut self, subtransaction: Subtransaction) -> usize {
        if self.segments.last().is_none_or(|segment| segment.subtransaction < subtransaction) {
            self.segments.push(Segment { subtransaction, open: Vec::new(), closed: Vec::new() });
        }
        self.segments.len() - 1
    }

    /// Returns the highest wave in which items are addressed by another kind.
    pub(super) fn highest_of_others(&self, kind: KeyKind) -> Option<usize> {
        let others = KeyKind::ADDRESSES.iter().zip(self.highest).filter(|(address, _)| **address != kind);
        others.filter_map(|(_, highest)| highest).max()
    }

    /// Returns the wave of a write. If an open batch of the segment, written in the same mode, already has the key, it
    /// is that batch's wave. Otherwise it is the wave after all closed chunks and all other batches that hold the key:
    /// a deletion followed by an insert must not arrive in the opposite order.
    ///
    /// It also comes after writes with another kind of address, which may mean the same item. `floor`: the first wave
    /// after what other lanes hold of the item.
    pub(super) fn wave(
        &mut self,
        segment: usize,
        mode: Mode,
        kind: KeyKind,
        floor: usize,
        of: Touched<'_>,
    ) -> usize {
        self.tied |= floor > 0;
        let closed = self.traces.iter().rposition(|trace| of.is_in_trace(trace)).map(|wave| wave + 1);
        let holding = |at: usize| {
            let open = self.segments[at].open.iter().filter(|open| of.is_in_batch(&open.batch));
            open.map(move |open| if at == segment && open.mode == mode { open.wave } else { open.wave + 1 })
                .max()
        };
        let others = self.highest_of_others(kind).map(|wave| wave + 1);
        let wave =
            (0..=segment).filter_map(holding).chain(closed).chain(others).max().unwrap_or(0).max(floor);
        if let Some(at) = KeyKind::ADDRESSES.iter().position(|address| *address == kind) {
            self.highest[at] = self.highest[at].max(Some(wave));
            self.mixed = self.highest.iter().flatten().count() > 1;
        }
        if mode.operation == Operation::Delete {
            self.deleted = self.deleted.max(Some(wave));
        }
        wave
    }

    /// Returns the open batch for rows of this wave and kind.
    pub(super) fn open(&mut self, segment: usize, wave: usize, mode: Mode, kind: KeyKind) -> usize {
        let open = &mut self.segments[segment].open;
        if let Some(at) = open.iter().position(|open| open.is(wave, mode, kind)) {
            return at;
        }
        let batch = match (self.destination.resource.holds_points(), mode.operation) {
            (true, Operation::Delete) => Batch::Ranges(RangeBatch::default()),
            (true, _) => Batch::Points(PointBatch::new(self.closed)),
            (false, _) => Batch::Items(ItemBatch::default()),
        };
        open.push(Open { wave, mode, kind, batch });
        open.len() - 1
    }

    /// Closes a full batch into a chunk, in the background if that takes long. Returns the batch's size.
    pub(super) fn close_full(
        &mut self,
        segment: usize,
        at: usize,
        outside: &Outside,
    ) -> Result<Option<Room>, Error> {
        let full = self.segments[segment].open.swap_remove(at);
        let room = full.batch.room();
        // If rows arrive faster than the background works, requests must not pile up.
        let closed = &mut self.segments[segment].closed;
        let making = closed.iter_mut().rev().take_while(|chunk| chunk.is_unsettled());
        for chunk in making.skip(IN_BACKGROUND - 1) {
            chunk.settle()?;
        }
        self.close(segment, full, outside.budget, outside.background).map(|()| room)
    }

    pub(super) fn close_segment(&mut self, segment: usize, budget: usize) -> Result<(), Error> {
        while let Some(open) = self.segments[segment].open.pop() {
            self.close(segment, open, budget, &Foreground)?;
        }
        Ok(())
    }

    /// Closes a batch into a chunk.
    pub(super) fn close(
        &mut self,
        segment: usize,
        open: Open,
        budget: usize,
        background: &dyn Background,
    ) -> Result<(), Error> {
        let Open { wave, mode, kind, batch } = open;
        if batch.is_empty() {
            return Ok(());
        }
        let string = self.destination.resource.holds_texts();
        if kind != KeyKind::None {
            while self.traces.len() <= wave {
                self.traces.push(match batch {
                    Batch::Items(_) => WaveTrace::Keys(KeyTrace::default()),
                    _ => WaveTrace::Ranges(RangeTrace::default()),
                });
            }
            self.shuffled |= matches!(&batch, Batch::Points(batch) if batch.is_shuffled());
            self.traces[wave].add(&batch, self.shuffled, budget);
        }
        let header = Header::new(mode, kind);
        let mut chunk = match batch {
            Batch::Items(batch) => {
                let header = Header {
                    deferred: batch.deferred(),
                    has_parents: batch.has_parents(),
                    complete: batch.complete(),
                    ..header
                };
                let rows = batch.items();
                let with_family = self.destination.resource.hierarchy;
                let keys = (kind == KeyKind::Key).then(|| batch.keys());
                let mut chunk = Chunk::new(wave, header, rows, batch.close(with_family));
                chunk.keys = keys;
                chunk
            }
            Batch::Points(batch) => {
                let (bytes, on_conflict) = (batch.bytes(), mode.on_conflict);
                let make = move || batch.close(string, on_conflict);
                Chunk::made(wave, header, bytes, make, background)
            }
            Batch::Ranges(batch) => Chunk::new(wave, header, batch.len(), batch.close()),
        };
        chunk.closed = self.moment;
        chunk.number = self.closed;
        self.closed += 1;
        self.segments[segment].closed.push(chunk);
        Ok(())
    }

    /// Returns how a second write of a key combines with the first.
    pub(super) fn merge(&self, mode: Mode) -> Merge {
        match (self.destination.resource.is_in_raw_tables(), mode.operation, mode.on_conflict) {
            (_, Operation::Delete, _) => Merge::Keep,
            (_, Operation::Upsert, OnConflict::UpdateListed) => {
                Merge::OverlayByExistence(self.destination.resource)
            }
            (_, _, OnConflict::Ignore) => Merge::Keep,
            // CDF replaces a RAW row as a whole.
            (true, Operation::Upsert, _) => Merge::Replace,
            _ => Merge::Overlay(self.destination.resource),
        }
    }

    /// Returns the first wave after everything that the lane holds of an item or series, and after writes with another
    /// kind of address, which may concern the same item.
    pub(super) fn after(&self, of: Touched<'_>, mode: Mode, kind: KeyKind) -> usize {
        let closed = self.traces.iter().rposition(|trace| of.is_in_trace(trace));
        let open = self.segments.iter().flat_map(|segment| &segment.open);
        let open = open.filter(|open| of.is_in_batch(&open.batch)).map(|open| open.wave);
        // CDF refuses to delete an asset that has children. They may be in the other lane, so deletions keep the order
        // of the statements.
        let deletes = mode.operation == Operation::Delete && self.destination.resource.hierarchy;
        let deleted = self.deleted.filter(|_| deletes);
        let last = open.chain(closed).chain(self.highest_of_others(kind)).chain(deleted).max();
        last.map_or(0, |wave| wave + 1)
    }
}
