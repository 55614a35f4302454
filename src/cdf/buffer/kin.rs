//! Lanes that may hold the same items: views share instances, and several connections may reach one project, with the
//! credentials of several roles, or with those that a role had before its user mapping was changed.
//!
//! Their rows share no request, since each request goes with the credentials of whoever wrote its rows. So that rows still
//! count one after another, a write goes into a wave after all that such lanes hold of its item.

use super::{Batch, Destination, Lane, Trace, TransactionBuffer};
use crate::cdf::encode::KeyKind;
use crate::cdf::table::{Mode, Operation};

/// What of an item, or of a series, a lane may hold.
#[derive(Clone, Copy)]
pub(super) enum Of<'k> {
    /// The hash of its key, and the first bytes of its object.
    Item(u64, &'k [u8]),
    /// The hash of a series, and a stretch of time, its last moment included.
    Range(u64, (i64, i64)),
}

impl Of<'_> {
    pub(super) fn is_in_trace(self, trace: &Trace) -> bool {
        match (self, trace) {
            (Of::Item(hash, _), trace) => trace.may_hold(hash),
            (Of::Range(series, range), Trace::Ranges(trace)) => trace.overlaps(series, range),
            (Of::Range(..), Trace::Keys(_)) => false,
        }
    }

    pub(super) fn is_in_batch(self, batch: &Batch) -> bool {
        match (self, batch) {
            (Of::Item(hash, prefix), batch) => batch.holds(hash, prefix),
            (Of::Range(series, range), Batch::Points(batch)) => batch.overlaps(series, range),
            (Of::Range(series, range), Batch::Ranges(batch)) => batch.overlaps(series, range),
            (Of::Range(..), Batch::Items(_)) => false,
        }
    }
}

impl Lane {
    /// The first wave after everything that the lane holds of something, and after what may be about the same item because
    /// it is addressed in another way.
    fn after(&self, of: Of<'_>, mode: Mode, kind: KeyKind) -> usize {
        let closed = self.traces.iter().rposition(|trace| of.is_in_trace(trace));
        let open = self.segments.iter().flat_map(|segment| &segment.open);
        let open = open.filter(|open| of.is_in_batch(&open.batch)).map(|open| open.wave);
        // CDF deletes no asset that has children: they may be in the other lane, and are deleted as the statements say.
        let deletes = mode.operation == Operation::Delete && self.destination.resource.hierarchy;
        let deleted = self.deleted.filter(|_| deletes);
        let last = open.chain(closed).chain(self.highest_of_others(kind)).chain(deleted).max();
        last.map_or(0, |wave| wave + 1)
    }
}

impl TransactionBuffer {
    /// Adds a lane, and tells those about it that may hold the same items.
    pub(super) fn add_lane(&mut self, to: Destination, candidates: &[usize]) -> usize {
        let at = self.lanes.len();
        let mut lane = Lane::to(to, self.moment);
        for other in candidates {
            if self.lanes[*other].destination.shares_items_with(&lane.destination) {
                self.lanes[*other].kin.push(at);
                lane.kin.push(*other);
            }
        }
        self.lanes.push(lane);
        at
    }

    /// The first wave after what other lanes hold of an item.
    #[inline]
    pub(super) fn floor(&self, lane: usize, of: Of<'_>, mode: Mode, kind: KeyKind) -> usize {
        let kin = &self.lanes[lane].kin;
        // Rows without a key are about no item that there is.
        if kin.is_empty() || kind == KeyKind::None {
            return 0;
        }
        kin.iter().map(|other| self.lanes[*other].after(of, mode, kind)).max().unwrap_or(0)
    }
}
