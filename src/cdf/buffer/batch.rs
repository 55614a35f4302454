//! An open batch: rows collected for one request.

use super::body::Room;
use super::items::ItemBatch;
use super::points::PointBatch;
use super::ranges::RangeBatch;
use crate::cdf::encode::KeyKind;
use crate::cdf::table::Mode;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) wave: usize,
    pub(super) mode: Mode,
    pub(super) kind: KeyKind,
    pub(super) batch: Batch,
}

impl Open {
    pub(super) fn is(&self, wave: usize, mode: Mode, kind: KeyKind) -> bool {
        self.wave == wave && self.mode == mode && self.kind == kind
    }
}

#[derive(Debug)]
pub(super) enum Batch {
    Items(ItemBatch),
    Points(PointBatch),
    /// Time ranges to delete.
    Ranges(RangeBatch),
}

impl Batch {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Batch::Items(batch) => batch.bytes(),
            Batch::Points(batch) => batch.bytes(),
            Batch::Ranges(batch) => batch.bytes(),
        }
    }

    pub(super) fn room(&self) -> Option<Room> {
        match self {
            Batch::Items(batch) => Some(batch.room()),
            Batch::Points(batch) => Some(batch.room()),
            Batch::Ranges(_) => None,
        }
    }

    /// Reserves as much room as another batch used, if this one is empty.
    pub(super) fn reserve(&mut self, like: Option<Room>) {
        match (self, like) {
            (Batch::Items(batch), Some(room)) if batch.items() == 0 => batch.reserve(room),
            (Batch::Points(batch), Some(room)) if batch.points() == 0 => batch.reserve(room),
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Batch::Items(batch) => batch.items() == 0,
            Batch::Points(batch) => batch.points() == 0,
            Batch::Ranges(batch) => batch.len() == 0,
        }
    }

    /// Checks whether the batch covers a moment of a series.
    pub(super) fn overlaps(&self, series: u64, moment: i64) -> bool {
        match self {
            Batch::Points(batch) => batch.overlaps(series, (moment, moment)),
            Batch::Ranges(batch) => batch.overlaps(series, (moment, moment)),
            Batch::Items(_) => false,
        }
    }

    /// Checks whether the batch holds an item of this key.
    pub(super) fn holds(&self, hash: u64, key: &[u8]) -> bool {
        matches!(self, Batch::Items(batch) if batch.contains(hash, key))
    }

    /// Checks whether both batches hold the same key, or overlapping time ranges of a series.
    pub(super) fn conflicts_with(&self, other: &Batch) -> bool {
        match (self, other) {
            (Batch::Items(a), Batch::Items(b)) => a.shares_a_key_with(b),
            (Batch::Points(a), b) => b.ranges().any(|(series, range)| a.overlaps(series, range)),
            (Batch::Ranges(a), b) => b.ranges().any(|(series, range)| a.overlaps(series, range)),
            _ => false,
        }
    }
}

impl Batch {
    /// Returns the first and last moment that the batch holds of each series.
    pub(super) fn ranges(&self) -> Box<dyn Iterator<Item = (u64, (i64, i64))> + '_> {
        match self {
            Batch::Points(batch) => Box::new(batch.ranges()),
            Batch::Ranges(batch) => Box::new(batch.ranges()),
            Batch::Items(_) => Box::new(std::iter::empty()),
        }
    }
}
