//! What the closed requests of one wave hold, and whether something that is written next is among it.

use super::batch::Batch;
use super::trace::{KeyTrace, RangeTrace};

#[derive(Debug)]
pub(super) enum WaveTrace {
    Keys(KeyTrace),
    Ranges(RangeTrace),
}

impl WaveTrace {
    pub(super) fn bytes(&self) -> usize {
        match self {
            WaveTrace::Keys(trace) => trace.bytes(),
            WaveTrace::Ranges(trace) => trace.bytes(),
        }
    }

    /// Whether it may hold the key of such a hash.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        matches!(self, WaveTrace::Keys(trace) if trace.contains(hash))
    }

    /// Whether it may hold a point of a series.
    pub(super) fn holds(&self, series: u64, moment: i64) -> bool {
        match self {
            WaveTrace::Ranges(trace) => trace.holds(series, moment),
            WaveTrace::Keys(_) => true,
        }
    }

    /// Whether it may hold something that the batch holds too.
    pub(super) fn conflicts_with(&self, batch: &Batch) -> bool {
        match (self, batch) {
            (WaveTrace::Keys(trace), Batch::Items(batch)) => batch.hashes().any(|hash| trace.contains(hash)),
            (WaveTrace::Ranges(trace), batch) => {
                batch.ranges().any(|(series, range)| trace.overlaps(series, range))
            }
            _ => false,
        }
    }

    /// Adds what a batch holds; `list`: each moment of its points too.
    pub(super) fn add(&mut self, batch: &Batch, list: bool, budget: usize) {
        match (self, batch) {
            (WaveTrace::Keys(trace), Batch::Items(batch)) => {
                trace.reserve(batch.items(), budget);
                batch.hashes().for_each(|hash| trace.insert(hash, budget))
            }
            (WaveTrace::Ranges(trace), Batch::Points(batch)) if list => {
                batch.ranges().for_each(|(series, range)| trace.insert_listed(series, range, budget));
                batch.moments().for_each(|(series, moment)| trace.insert_moment(series, moment, budget));
            }
            (WaveTrace::Ranges(trace), batch) => {
                batch.ranges().for_each(|(series, range)| trace.insert(series, range, budget))
            }
            _ => {}
        }
    }
}

/// What of an item, or of a series, a lane may hold.
#[derive(Clone, Copy)]
pub(super) enum Touched<'k> {
    /// The hash of its key, and the first bytes of its object.
    Item(u64, &'k [u8]),
    /// The hash of a series, and a stretch of time, its last moment included.
    Range(u64, (i64, i64)),
}

impl Touched<'_> {
    pub(super) fn is_in_trace(self, trace: &WaveTrace) -> bool {
        match (self, trace) {
            (Touched::Item(hash, _), trace) => trace.may_hold(hash),
            (Touched::Range(series, range), WaveTrace::Ranges(trace)) => trace.overlaps(series, range),
            (Touched::Range(..), WaveTrace::Keys(_)) => false,
        }
    }

    pub(super) fn is_in_batch(self, batch: &Batch) -> bool {
        match (self, batch) {
            (Touched::Item(hash, prefix), batch) => batch.holds(hash, prefix),
            (Touched::Range(series, range), Batch::Points(batch)) => batch.overlaps(series, range),
            (Touched::Range(series, range), Batch::Ranges(batch)) => batch.overlaps(series, range),
            (Touched::Range(..), Batch::Items(_)) => false,
        }
    }
}
