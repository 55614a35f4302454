//! Adds a row to the open request of its wave. Each kind of row has a fast path, which needs no search, and a slow
//! path, which finds the wave first.

use super::batch::{Batch, Open};
use super::lane::{Lane, Outside};
use super::moment::Subtransaction;
use super::points::{self, PointBatch};
use super::wave::{Touched, WaveTrace};
use crate::cdf::encode::fragment::{shown_key, Fragment};
use crate::cdf::encode::points::{EncodedPoint, PlainPoint, SeriesRef};
use crate::cdf::encode::{EncodedRow, KeyKind};
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::{Mode, OnConflict};

impl Lane {
    /// Adds an item if a quick check shows that nothing holds its key. Returns the change in memory in bytes if it was
    /// added.
    #[inline]
    pub(super) fn push_new_item(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        fragment: Fragment<'_>,
        encoded: &EncodedRow,
        floor: usize,
    ) -> Option<isize> {
        let per_request = self.per_request();
        self.tied |= floor > 0;
        let [segment] = &mut *self.segments else { return None };
        let [open] = &mut *segment.open else { return None };
        let suits = segment.subtransaction == subtransaction
            && open.wave >= floor
            && open.is(open.wave, mode, KeyKind::Key);
        let Batch::Items(batch) = &mut open.batch else { return None };
        let held = |hash| self.traces.iter().skip(open.wave).any(|trace| trace.may_hold(hash));
        if !suits
            || self.mixed
            || encoded.kind != KeyKind::Key
            || !batch.has_room(fragment.bytes().len(), per_request)
            || batch.contains(encoded.hash, fragment.key_of(encoded))
            || held(encoded.hash)
        {
            return None;
        }
        let before = batch.bytes() as isize;
        batch.push_new(fragment, encoded);
        Some(batch.bytes() as isize - before)
    }

    /// Adds an item. Returns the change in memory in bytes. `floor`: the first wave allowed.
    pub(super) fn push_item(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        fragment: Fragment<'_>,
        encoded: &EncodedRow,
        floor: usize,
        outside: &Outside,
    ) -> Result<isize, Error> {
        if let Some(delta) = self.push_new_item(subtransaction, mode, fragment, encoded, floor) {
            return Ok(delta);
        }
        let segment = self.segment(subtransaction);
        let key = fragment.key_of(encoded);
        let wave = match encoded.kind {
            // Waves are sent one after another, whichever savepoint a row was written in.
            KeyKind::None if !self.destination.resource.has_key() => {
                self.written += 1;
                self.written
            }
            KeyKind::None => 0,
            _ => self.wave(segment, mode, encoded.kind, floor, Touched::Item(encoded.hash, key)),
        };
        let merge = self.merge(mode);
        let per_request = self.per_request();
        let mut at = self.open(segment, wave, mode, encoded.kind);
        let mut freed = 0;
        let Batch::Items(batch) = &self.segments[segment].open[at].batch else {
            return Err(Error::internal("a row of items in a batch of datapoints"));
        };
        if batch.contains(encoded.hash, key) {
            if mode.on_conflict == OnConflict::Error {
                let noun = self.destination.resource.noun;
                return Err(Error::new(
                    Kind::Duplicate,
                    format!("the {noun} is written twice in this transaction"),
                )
                .about(self.destination.name())
                .refusing(vec![shown_key(key)], 1)
                .hint("The table's option on_conflict is \"error\"."));
            }
        } else if !batch.has_room(fragment.bytes().len(), per_request) {
            let before = self.memory() as isize;
            let room = self.close_full(segment, at, outside)?;
            at = self.open(segment, wave, mode, encoded.kind);
            self.segments[segment].open[at].batch.reserve(room);
            freed = self.memory() as isize - before;
        }
        let Batch::Items(batch) = &mut self.segments[segment].open[at].batch else { unreachable!() };
        let before = batch.bytes() as isize;
        batch.push(fragment, encoded, merge)?;
        Ok(batch.bytes() as isize - before + freed)
    }

    /// Adds a plain point if looking at its series is enough. Returns the change in memory in bytes if it was added.
    #[inline]
    pub(super) fn push_known(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        point: &PlainPoint<'_>,
    ) -> Option<isize> {
        let (last, outer) = self.segments.split_last_mut()?;
        if self.mixed || !self.kin.is_empty() || last.subtransaction != subtransaction {
            return None;
        }
        let hash = points::external_id_hash(point.external_id);
        // Of several open batches the one of the earliest wave: later ones exist only for rows that had to come later.
        let suits = |open: &Open| open.mode == mode && open.kind == KeyKind::Key;
        let target = match &*last.open {
            // Nearly always.
            [only] => suits(only).then_some(0)?,
            several => {
                let suiting = several.iter().enumerate().filter(|(_, open)| suits(open));
                suiting.min_by_key(|(_, open)| open.wave)?.0
            }
        };
        if last.open.len() > 1 || !outer.is_empty() {
            let outer = outer.iter().flat_map(|segment| &segment.open);
            let beside = last.open.iter().enumerate().filter(|(at, _)| *at != target).map(|(_, open)| open);
            if beside.chain(outer).any(|open| open.batch.overlaps(hash, point.timestamp)) {
                return None;
            }
        }
        let Open { wave, batch: Batch::Points(batch), .. } = &mut last.open[target] else { return None };
        let later = self.traces.get(*wave..).unwrap_or_default();
        let held = || later.iter().any(|trace| trace.holds(hash, point.timestamp));
        if batch.is_full() {
            None
        } else {
            batch.push_known(hash, point, self.closed, held)
        }
    }

    /// Adds a point. Returns the change in memory in bytes. `floor`: the first wave allowed.
    pub(super) fn push_point(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        point: &EncodedPoint<'_>,
        floor: usize,
        outside: &Outside,
    ) -> Result<isize, Error> {
        let hash = points::series_hash(&point.series);
        let kind = point.series.kind();
        let segment = self.segment(subtransaction);
        let of = Touched::Range(hash, (point.timestamp, point.timestamp));
        let first = self.wave(segment, mode, kind, floor, of);
        self.shuffled |= first > 0;
        let mut at = self.open(segment, first, mode, kind);
        let mut freed = 0;
        let has_room = |batch: &PointBatch| batch.has_room(&point.series, hash);
        if matches!(&self.segments[segment].open[at].batch, Batch::Points(batch) if !has_room(batch)) {
            let before = self.memory() as isize;
            let room = self.close_full(segment, at, outside)?;
            // The full batch is closed now, so the point may have to come after it.
            let next = self.wave(segment, mode, kind, floor, of);
            at = self.open(segment, next, mode, kind);
            self.segments[segment].open[at].batch.reserve(room);
            freed = self.memory() as isize - before;
        }
        let open = &mut self.segments[segment].open[at];
        let wave = open.wave;
        let Batch::Points(batch) = &mut open.batch else {
            return Err(Error::internal("a datapoint in a batch of items"));
        };
        let before = batch.bytes() as isize;
        let earlier = || earlier(self.traces.get(wave..).unwrap_or_default(), hash);
        batch.push(hash, point, earlier);
        Ok(batch.bytes() as isize - before + freed)
    }

    /// Adds a time range of a series to delete. Returns the change in memory in bytes.
    pub(super) fn push_range(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        series: &SeriesRef<'_>,
        (first, end): (i64, i64),
        floor: usize,
        outside: &Outside,
    ) -> Result<isize, Error> {
        let hash = points::series_hash(series);
        let kind = series.kind();
        let segment = self.segment(subtransaction);
        let wave = self.wave(segment, mode, kind, floor, Touched::Range(hash, (first, end - 1)));
        let mut at = self.open(segment, wave, mode, kind);
        let mut freed = 0;
        if matches!(&self.segments[segment].open[at].batch, Batch::Ranges(batch) if batch.is_full()) {
            let before = self.memory() as isize;
            let room = self.close_full(segment, at, outside)?;
            at = self.open(segment, wave, mode, kind);
            self.segments[segment].open[at].batch.reserve(room);
            freed = self.memory() as isize - before;
        }
        let Batch::Ranges(batch) = &mut self.segments[segment].open[at].batch else {
            return Err(Error::internal("a deletion of datapoints in a batch of something else"));
        };
        let before = batch.bytes() as isize;
        batch.push(series, hash, first, end);
        Ok(batch.bytes() as isize - before + freed)
    }
}

/// Returns the first and last moment that the closed chunks of some waves hold of a series.
fn earlier(traces: &[WaveTrace], series: u64) -> (i64, i64) {
    let ranges = traces.iter().filter_map(|trace| match trace {
        WaveTrace::Ranges(trace) => trace.range(series),
        WaveTrace::Keys(_) => Some(points::ALWAYS),
    });
    ranges.fold((i64::MAX, i64::MIN), |all, range| (all.0.min(range.0), all.1.max(range.1)))
}
