//! An open request of datapoints, grouped by series.

use hashbrown::HashTable;

use super::chunk::Body;
use crate::cdf::encode::point::{self, wire, PlainPoint, SeriesRef};
use crate::cdf::error::Error;
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::datapoints::{POINTS_PER_REQUEST, SERIES_PER_REQUEST};

/// Bytes of a request body: long strings reach it before they are 100 000.
const BODY_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct Series {
    reference: wire::Reference,
    hash: u64,
    count: u32,
    /// Bytes of its points.
    bytes: usize,
    first: i64,
    last: i64,
    /// Every point is later than the one before.
    ordered: bool,
    /// First and last moment of what earlier requests hold of the series.
    earlier: (i64, i64),
}

/// A point in the log.
#[derive(Debug, Clone, Copy)]
struct Entry {
    series: u32,
    /// Where its bytes end.
    end: u32,
}

/// All of time: of a series whose earlier requests are not known.
pub const ALWAYS: (i64, i64) = (i64::MIN, i64::MAX);

/// The request that points are added to: a log of encoded points in the order in which they came, which is what the
/// processor's caches like of thousands of series, grouped by series when it is closed.
#[derive(Debug, Default)]
pub struct PointBatch {
    series: Vec<Series>,
    index: HashTable<u32>,
    /// The encoded elements of the series' lists.
    log: Vec<u8>,
    entries: Vec<Entry>,
    /// Other batches of the lane were closed since: what earlier requests hold is not known any more.
    outdated: bool,
}

/// The hash by which a series is found that is named by its external id.
#[inline]
pub fn external_id_hash(external_id: &str) -> u64 {
    hash_bytes(external_id.as_bytes())
}

/// The hash by which a series is found.
pub fn series_hash(reference: &SeriesRef<'_>) -> u64 {
    match reference {
        SeriesRef::ExternalId(external_id) => external_id_hash(external_id),
        SeriesRef::Id(id) => hash_bytes(&id.to_le_bytes()),
        SeriesRef::Instance(space, external_id) => {
            hash_bytes(space.as_bytes()).rotate_left(1) ^ hash_bytes(external_id.as_bytes())
        }
    }
}

impl PointBatch {
    pub fn points(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.log.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.series.len() * (size_of::<Series>() + 48)
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= POINTS_PER_REQUEST || self.log.len() >= BODY_BYTES
    }

    /// Whether a point of the series has room.
    pub fn has_room(&self, reference: &SeriesRef<'_>, hash: u64) -> bool {
        !self.is_full() && (self.series.len() < SERIES_PER_REQUEST || self.find(reference, hash).is_some())
    }

    /// Whether everything of `other` has room here too.
    pub fn has_room_for(&self, other: &PointBatch) -> bool {
        self.entries.len() + other.entries.len() <= POINTS_PER_REQUEST
            && self.series.len() + other.series.len() <= SERIES_PER_REQUEST
            && self.log.len() + other.log.len() <= BODY_BYTES
    }

    /// Takes note that what earlier requests hold has changed.
    pub fn outdate(&mut self) {
        self.outdated = true;
    }

    /// First and last moment of each series, by the series' hash.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, (i64, i64))> + '_ {
        self.series.iter().map(|series| (series.hash, (series.first, series.last)))
    }

    /// Whether a series has points before and after, or in, a stretch of time.
    pub fn overlaps(&self, hash: u64, (first, last): (i64, i64)) -> bool {
        self.index.find(hash, |at| self.series[*at as usize].hash == hash).is_some_and(|at| {
            first <= self.series[*at as usize].last && last >= self.series[*at as usize].first
        })
    }

    fn find(&self, reference: &SeriesRef<'_>, hash: u64) -> Option<usize> {
        let same = |at: &u32| {
            let candidate = &self.series[*at as usize];
            candidate.hash == hash && reference.is(&candidate.reference)
        };
        self.index.find(hash, same).map(|at| *at as usize)
    }

    fn add_series(&mut self, reference: wire::Reference, hash: u64) -> usize {
        let at = self.series.len();
        self.series.push(Series {
            reference,
            hash,
            count: 0,
            bytes: 0,
            first: i64::MAX,
            last: i64::MIN,
            ordered: true,
            earlier: ALWAYS,
        });
        let series = &self.series;
        self.index.insert_unique(hash, at as u32, |at| series[*at as usize].hash);
        at
    }

    /// Adds a point if its series is here and no earlier request holds anything of that moment: the way that nearly all
    /// points take. Gives the bytes by which the memory has changed, None if nothing was added.
    #[inline]
    pub fn push_known(&mut self, hash: u64, point: &PlainPoint<'_>) -> Option<isize> {
        let same = |at: &u32| {
            let candidate = &self.series[*at as usize];
            candidate.hash == hash
                && matches!(&candidate.reference, wire::Reference::ExternalId(name) if name == point.external_id)
        };
        let at = *self.index.find(hash, same)? as usize;
        let (first, last) = self.series[at].earlier;
        if self.outdated || point.timestamp >= first && point.timestamp <= last {
            return None;
        }
        let room = (self.log.capacity(), self.entries.capacity());
        let before = self.log.len();
        point.encode(&mut self.log);
        self.note(at, before, point.timestamp);
        let grown = (self.log.capacity() - room.0) + (self.entries.capacity() - room.1) * size_of::<Entry>();
        Some(grown as isize)
    }

    /// Adds one point; `encode` appends it to the log, and leaves the log as it was if it fails. `earlier`: first and last
    /// moment of what earlier requests hold of a series that is new here.
    pub fn push(
        &mut self,
        reference: &SeriesRef<'_>,
        hash: u64,
        timestamp: i64,
        earlier: impl FnOnce() -> (i64, i64),
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let at = match self.find(reference, hash) {
            Some(at) => at,
            None => {
                let at = self.add_series(reference.to_wire(), hash);
                self.series[at].earlier = earlier();
                at
            }
        };
        let before = self.log.len();
        encode(&mut self.log)?;
        self.note(at, before, timestamp);
        Ok(())
    }

    /// Takes note of a point that was appended to the log, which ended at `before`.
    #[inline]
    fn note(&mut self, at: usize, before: usize, timestamp: i64) {
        let end = self.log.len();
        self.entries.push(Entry { series: at as u32, end: end as u32 });
        let series = &mut self.series[at];
        series.bytes += end - before;
        series.count += 1;
        series.ordered &= timestamp > series.last;
        series.first = series.first.min(timestamp);
        series.last = series.last.max(timestamp);
    }

    /// Takes over the points of a later batch. The caller has checked that there is room.
    pub fn absorb(&mut self, later: PointBatch) {
        let offset = self.log.len() as u32;
        let mut places = Vec::with_capacity(later.series.len());
        for later in later.series {
            let found = self.index.find(later.hash, |at| {
                let candidate = &self.series[*at as usize];
                candidate.hash == later.hash && candidate.reference == later.reference
            });
            let at = match found {
                Some(at) => *at as usize,
                None => self.add_series(later.reference, later.hash),
            };
            places.push(at as u32);
            let series = &mut self.series[at];
            series.bytes += later.bytes;
            series.count += later.count;
            series.ordered &= later.ordered && later.first > series.last;
            series.first = series.first.min(later.first);
            series.last = series.last.max(later.last);
        }
        self.log.extend_from_slice(&later.log);
        let moved = |entry: Entry| Entry { series: places[entry.series as usize], end: entry.end + offset };
        self.entries.extend(later.entries.into_iter().map(moved));
    }

    /// The points by series, each series' in the order in which they came, and where each series' end.
    fn grouped(&self) -> (Vec<u8>, Vec<usize>) {
        let mut ends = Vec::with_capacity(self.series.len());
        let mut start = 0;
        for series in &self.series {
            ends.push(start);
            start += series.bytes;
        }
        let mut grouped = vec![0; self.log.len()];
        let mut from = 0;
        for entry in &self.entries {
            let point = &self.log[from..entry.end as usize];
            let end = &mut ends[entry.series as usize];
            grouped[*end..*end + point.len()].copy_from_slice(point);
            *end += point.len();
            from = entry.end as usize;
        }
        (grouped, ends)
    }

    /// The points as they would be sent.
    pub fn messages(&self, string: bool, keep_first: bool) -> Result<Vec<wire::InsertionItem>, Error> {
        let unreadable = |error: prost::DecodeError| {
            Error::internal(format!("encoded datapoints are not readable: {error}"))
        };
        let (grouped, ends) = self.grouped();
        let written = self.series.iter().zip(ends).filter(|(series, _)| series.count > 0);
        written
            .map(|(series, end)| {
                let points = &grouped[end - series.bytes..end];
                let (points, _) = point::sort_and_deduplicate(points, string, keep_first)?;
                let points = match string {
                    true => wire::Points::String(prost::Message::decode(&*points).map_err(unreadable)?),
                    false => wire::Points::Numeric(prost::Message::decode(&*points).map_err(unreadable)?),
                };
                Ok(wire::InsertionItem { reference: Some(series.reference.clone()), points: Some(points) })
            })
            .collect()
    }

    /// Ends the request; also gives the number of points in it.
    pub fn close(self, string: bool, keep_first: bool) -> Result<(Body, usize), Error> {
        let (grouped, ends) = self.grouped();
        let mut bytes = Vec::with_capacity(grouped.len() + self.series.len() * 48);
        let mut total = 0;
        for (series, end) in self.series.iter().zip(ends) {
            let points = &grouped[end - series.bytes..end];
            match series.count {
                // Its only row was refused.
                0 => {}
                _ if series.ordered => {
                    point::write_item(&mut bytes, &series.reference, points, string);
                    total += series.count as usize;
                }
                _ => {
                    let (points, count) = point::sort_and_deduplicate(points, string, keep_first)?;
                    point::write_item(&mut bytes, &series.reference, &points, string);
                    total += count;
                }
            }
        }
        Ok((Body { bytes, ..Default::default() }, total))
    }
}
