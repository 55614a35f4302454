//! What the closed requests of a wave hold, to check the next write against.

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

    /// Checks whether it may hold a key of this hash.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        matches!(self, WaveTrace::Keys(trace) if trace.contains(hash))
    }

    /// Checks whether it may hold a point of a series.
    pub(super) fn holds(&self, series: u64, moment: i64) -> bool {
        match self {
            WaveTrace::Ranges(trace) => trace.holds(series, moment),
            WaveTrace::Keys(_) => true,
        }
    }

    /// Checks whether it may hold something that the batch also holds.
    pub(super) fn conflicts_with(&self, batch: &Batch) -> bool {
        match (self, batch) {
            (WaveTrace::Keys(trace), Batch::Items(batch)) => batch.hashes().any(|hash| trace.contains(hash)),
            (WaveTrace::Ranges(trace), batch) => {
                batch.ranges().any(|(series, range)| trace.overlaps(series, range))
            }
            _ => false,
        }
    }

    /// Adds the content of a batch; `list`: also each moment of its points.
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

/// The part of an item or series that a lane may hold.
#[derive(Clone, Copy)]
pub(super) enum Touched<'k> {
    /// The hash and the bytes of its key.
    Item(u64, &'k [u8]),
    /// The hash of a series and a time range, its last moment included.
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
            (Touched::Item(hash, key), batch) => batch.holds(hash, key),
            (Touched::Range(series, range), Batch::Points(batch)) => batch.overlaps(series, range),
            (Touched::Range(series, range), Batch::Ranges(batch)) => batch.overlaps(series, range),
            (Touched::Range(..), Batch::Items(_)) => false,
        }
    }
}
