//! An open request of datapoints, grouped by series.

use hashbrown::HashTable;

use super::chunk::Body;
use super::Room;
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
    /// How many requests of the lane were closed when this one was begun: after another, what earlier requests hold is
    /// not known any more.
    begun: u64,
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
    /// `closed`: how many requests of the lane are closed.
    pub fn new(closed: u64) -> PointBatch {
        PointBatch { begun: closed, ..Default::default() }
    }

    pub fn points(&self) -> usize {
        self.entries.len()
    }

    /// Makes room for as much as a full batch had.
    pub fn reserve(&mut self, like: Room) {
        self.log.reserve(like.bytes);
        self.entries.reserve(like.rows);
        self.series.reserve(like.keys);
        let series = &self.series;
        self.index.reserve(like.keys, |at| series[*at as usize].hash);
    }

    /// What is in it.
    pub fn room(&self) -> Room {
        Room { bytes: self.log.len(), rows: self.entries.len(), keys: self.series.len() }
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
    /// points take. `closed` as in [`Self::new`], but now; `held`: whether one does, for a moment at which one may. Gives the bytes by which the memory has
    /// changed, None if nothing was added.
    #[inline]
    pub fn push_known(
        &mut self,
        hash: u64,
        point: &PlainPoint<'_>,
        closed: u64,
        held: impl FnOnce() -> bool,
    ) -> Option<isize> {
        let same = |at: &u32| {
            let candidate = &self.series[*at as usize];
            candidate.hash == hash
                && matches!(&candidate.reference, wire::Reference::ExternalId(name) if name == point.external_id)
        };
        let at = *self.index.find(hash, same)? as usize;
        let (first, last) = self.series[at].earlier;
        if (self.begun != closed || point.timestamp >= first && point.timestamp <= last) && held() {
            return None;
        }
        let room = (self.log.capacity(), self.entries.capacity());
        point.encode(&mut self.log);
        self.note(at, point.timestamp);
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
        encode(&mut self.log)?;
        self.note(at, timestamp);
        Ok(())
    }

    /// Takes note of a point that was appended to the log.
    #[inline]
    fn note(&mut self, at: usize, timestamp: i64) {
        self.entries.push(Entry { series: at as u32, end: self.log.len() as u32 });
        let series = &mut self.series[at];
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
            series.count += later.count;
            series.ordered &= later.ordered && later.first > series.last;
            series.first = series.first.min(later.first);
            series.last = series.last.max(later.last);
        }
        self.log.extend_from_slice(&later.log);
        let moved = |entry: Entry| Entry { series: places[entry.series as usize], end: entry.end + offset };
        self.entries.extend(later.entries.into_iter().map(moved));
    }

    /// Whether points of a series came in another order than that of time.
    pub fn is_shuffled(&self) -> bool {
        self.series.iter().any(|series| !series.ordered)
    }

    /// Every point's series, by the series' hash, and moment.
    pub fn moments(&self) -> impl Iterator<Item = Result<(u64, i64), Error>> + '_ {
        let mut from = 0;
        self.entries.iter().map(move |entry| {
            let point = &self.log[std::mem::replace(&mut from, entry.end as usize)..entry.end as usize];
            Ok((self.series[entry.series as usize].hash, point::moment_of(point)?))
        })
    }

    /// The places of the points in the log by series, each series' in the order in which they came, and where each series'
    /// end.
    fn grouped(&self) -> (Vec<(u32, u32)>, Vec<usize>) {
        let mut ends = Vec::with_capacity(self.series.len());
        let mut start = 0;
        for series in &self.series {
            ends.push(start);
            start += series.count as usize;
        }
        let mut places = vec![(0, 0); self.entries.len()];
        let mut from = 0;
        for entry in &self.entries {
            let end = &mut ends[entry.series as usize];
            places[*end] = (from, entry.end);
            *end += 1;
            from = entry.end;
        }
        (places, ends)
    }

    /// Calls `each` for every series with its encoded points, in order, each moment once, and how many these are.
    fn for_each_series(
        &self,
        keep_first: bool,
        mut each: impl FnMut(&Series, &[u8], usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (places, ends) = self.grouped();
        let mut points = Vec::new();
        for (series, end) in self.series.iter().zip(ends) {
            let places = &places[end - series.count as usize..end];
            let found = places.iter().map(|(from, to)| &self.log[*from as usize..*to as usize]);
            points.clear();
            let count = match series.ordered {
                true => {
                    found.for_each(|point| points.extend_from_slice(point));
                    places.len()
                }
                false => {
                    let ordered = point::order(found, keep_first)?;
                    ordered.iter().for_each(|point| points.extend_from_slice(point));
                    ordered.len()
                }
            };
            // A series whose only row was refused has none.
            if count > 0 {
                each(series, &points, count)?;
            }
        }
        Ok(())
    }

    /// The points as they would be sent.
    pub fn messages(&self, string: bool, keep_first: bool) -> Result<Vec<wire::InsertionItem>, Error> {
        let unreadable = |error: prost::DecodeError| {
            Error::internal(format!("encoded datapoints are not readable: {error}"))
        };
        let mut messages = Vec::new();
        self.for_each_series(keep_first, |series, points, _| {
            let points = match string {
                true => wire::Points::String(prost::Message::decode(points).map_err(unreadable)?),
                false => wire::Points::Numeric(prost::Message::decode(points).map_err(unreadable)?),
            };
            let reference = Some(series.reference.clone());
            messages.push(wire::InsertionItem { reference, points: Some(points) });
            Ok(())
        })?;
        Ok(messages)
    }

    /// Ends the request; also gives the number of points in it.
    pub fn close(self, string: bool, keep_first: bool) -> Result<(Body, usize), Error> {
        let mut bytes = Vec::with_capacity(self.log.len() + self.series.len() * 48);
        let mut total = 0;
        self.for_each_series(keep_first, |series, points, count| {
            point::write_item(&mut bytes, &series.reference, points, string);
            total += count;
            Ok(())
        })?;
        Ok((Body { bytes, ..Default::default() }, total))
    }
}
