//! An open request of datapoints, grouped by series.

use compact_str::CompactString;
use hashbrown::HashTable;

use super::body::{Body, Room};
use crate::cdf::encode::json;
use crate::cdf::encode::points::{self, wire, EncodedPoint, PlainPoint, SeriesRef};
use crate::cdf::error::{Error, Identity, Kind};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::datapoints::{POINTS_PER_REQUEST, SERIES_PER_REQUEST};
use crate::cdf::table::OnConflict;

/// Maximum size of a request body in bytes: long strings reach it before there are 100 000 points.
const BODY_BYTES: usize = 8 << 20;

/// How a request names a series. Most external ids are short enough to be stored inline.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SeriesName {
    ExternalId(CompactString),
    Id(i64),
    Instance(Box<(String, String)>),
}

impl SeriesName {
    fn of(reference: &SeriesRef<'_>) -> SeriesName {
        match reference {
            SeriesRef::ExternalId(external_id) => SeriesName::ExternalId(CompactString::from(&**external_id)),
            SeriesRef::Id(id) => SeriesName::Id(*id),
            SeriesRef::Instance(space, external_id) => {
                SeriesName::Instance(Box::new((space.to_string(), external_id.to_string())))
            }
        }
    }

    fn is(&self, reference: &SeriesRef<'_>) -> bool {
        match (self, reference) {
            (SeriesName::ExternalId(a), SeriesRef::ExternalId(b)) => *a == **b,
            (SeriesName::Id(a), SeriesRef::Id(b)) => a == b,
            (SeriesName::Instance(names), SeriesRef::Instance(space, external_id)) => {
                names.0 == *space && names.1 == *external_id
            }
            _ => false,
        }
    }

    /// Returns the number of bytes on the heap.
    fn bytes(&self) -> usize {
        match self {
            SeriesName::ExternalId(name) if name.is_heap_allocated() => name.capacity(),
            SeriesName::ExternalId(_) | SeriesName::Id(_) => 0,
            SeriesName::Instance(names) => size_of::<(String, String)>() + names.0.len() + names.1.len(),
        }
    }

    fn to_wire(&self) -> wire::Reference {
        match self {
            SeriesName::ExternalId(external_id) => wire::Reference::ExternalId(external_id.to_string()),
            SeriesName::Id(id) => wire::Reference::Id(*id),
            SeriesName::Instance(names) => wire::Reference::Instance(wire::InstanceId {
                space: names.0.clone(),
                external_id: names.1.clone(),
            }),
        }
    }

    fn to_identity(&self) -> Identity {
        match self {
            SeriesName::ExternalId(external_id) => Identity::ExternalId(external_id.to_string()),
            SeriesName::Id(id) => Identity::Id(*id),
            SeriesName::Instance(names) => {
                Identity::Instance { space: names.0.clone(), external_id: names.1.clone() }
            }
        }
    }
}

/// A series of the request. It fits in one cache line: points of thousands of series arrive in any order, and each
/// point accesses its series.
#[derive(Debug)]
#[repr(align(64))]
struct BatchSeries {
    name: SeriesName,
    hash: u64,
    first: i64,
    last: i64,
    /// First and last moment that earlier requests hold of the series.
    earlier: (i64, i64),
}

const _: () = assert!(size_of::<BatchSeries>() == 64);

/// A point, in order of arrival.
#[derive(Debug, Clone, Copy, Default)]
struct LoggedPoint {
    timestamp: i64,
    /// The bits of the value. If the point has more than a number: the start and exclusive end of its encoding in the
    /// log.
    value: u64,
    series: u32,
    logged: bool,
}

/// All of time, for a series whose earlier requests are unknown.
pub const ALWAYS: (i64, i64) = (i64::MIN, i64::MAX);

/// The request that points are added to. Points are listed in order of arrival, which suits the processor's caches with
/// thousands of series. Closing the request groups them by series and encodes them.
#[derive(Debug, Default)]
pub struct PointBatch {
    series: Vec<BatchSeries>,
    index: HashTable<u32>,
    entries: Vec<LoggedPoint>,
    /// Points with more than a moment and a number, encoded as elements of their series' lists.
    log: Vec<u8>,
    /// Bytes of long names.
    names: usize,
    /// A point was not later than the previous one of its series.
    shuffled: bool,
    /// Number of closed requests in the lane when this one was begun. After another is closed, `earlier` is out of
    /// date.
    begun: u64,
}

/// Returns the hash of a series that is named by its external id.
#[inline]
pub fn external_id_hash(external_id: &str) -> u64 {
    hash_bytes(external_id.as_bytes())
}

/// Returns the hash of a series.
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
    /// Creates an empty batch. `closed`: number of closed requests in the lane.
    pub fn new(closed: u64) -> PointBatch {
        PointBatch { begun: closed, ..Default::default() }
    }

    pub fn points(&self) -> usize {
        self.entries.len()
    }

    /// Reserves as much room as a full batch used.
    pub fn reserve(&mut self, like: Room) {
        self.log.reserve(like.bytes);
        self.entries.reserve(like.rows);
        self.series.reserve(like.keys);
        let series = &self.series;
        self.index.reserve(like.keys, |at| series[*at as usize].hash);
    }

    /// Returns the batch's size.
    pub fn room(&self) -> Room {
        Room { bytes: self.log.len(), rows: self.entries.len(), keys: self.series.len() }
    }

    /// Returns the number of bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.log.capacity()
            + self.entries.capacity() * size_of::<LoggedPoint>()
            + self.series.len() * (size_of::<BatchSeries>() + 2 * size_of::<u32>())
            + self.names
    }

    /// Returns an upper bound for the size of the encoded points.
    fn encoded(&self) -> usize {
        self.log.len() + self.entries.len() * points::PLAIN_BYTES
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= POINTS_PER_REQUEST || self.encoded() >= BODY_BYTES
    }

    /// Checks whether there is room for a point of the series.
    pub fn has_room(&self, reference: &SeriesRef<'_>, hash: u64) -> bool {
        !self.is_full() && (self.series.len() < SERIES_PER_REQUEST || self.find(reference, hash).is_some())
    }

    /// Checks whether there is room for everything in `other`.
    pub fn has_room_for(&self, other: &PointBatch) -> bool {
        self.entries.len() + other.entries.len() <= POINTS_PER_REQUEST
            && self.series.len() + other.series.len() <= SERIES_PER_REQUEST
            && self.encoded() + other.encoded() <= BODY_BYTES
    }

    /// Returns the first and last moment of each series, by the series' hash.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, (i64, i64))> + '_ {
        self.series.iter().map(|series| (series.hash, (series.first, series.last)))
    }

    /// Checks whether the span of a series' points overlaps a time range.
    pub fn overlaps(&self, hash: u64, (first, last): (i64, i64)) -> bool {
        self.index.find(hash, |at| self.series[*at as usize].hash == hash).is_some_and(|at| {
            first <= self.series[*at as usize].last && last >= self.series[*at as usize].first
        })
    }

    fn find(&self, reference: &SeriesRef<'_>, hash: u64) -> Option<usize> {
        let same = |at: &u32| {
            let candidate = &self.series[*at as usize];
            candidate.hash == hash && candidate.name.is(reference)
        };
        self.index.find(hash, same).map(|at| *at as usize)
    }

    fn add_series(&mut self, name: SeriesName, hash: u64) -> usize {
        let at = self.series.len();
        self.names += name.bytes();
        self.series.push(BatchSeries { name, hash, first: i64::MAX, last: i64::MIN, earlier: ALWAYS });
        let series = &self.series;
        self.index.insert_unique(hash, at as u32, |at| series[*at as usize].hash);
        at
    }

    /// Adds a point if its series is in the batch and no earlier request holds that moment. Nearly all points take this
    /// path. `closed`: as in [`Self::new`], but the current number. `held`: checks whether an earlier request holds a
    /// moment that it may hold. Returns the change in memory in bytes; None if nothing was added.
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
                && matches!(&candidate.name, SeriesName::ExternalId(name) if *name == *point.external_id)
        };
        let at = *self.index.find(hash, same)? as usize;
        let (first, last) = self.series[at].earlier;
        if (self.begun != closed || point.timestamp >= first && point.timestamp <= last) && held() {
            return None;
        }
        let room = self.entries.capacity();
        self.note(at, point.timestamp, point.value.to_bits(), false);
        Some(((self.entries.capacity() - room) * size_of::<LoggedPoint>()) as isize)
    }

    /// Adds a point. `earlier`: returns the first and last moment that earlier requests hold of its series. It is asked
    /// only if the series is new in this batch.
    pub fn push(&mut self, hash: u64, point: &EncodedPoint<'_>, earlier: impl FnOnce() -> (i64, i64)) {
        let at = match self.find(&point.series, hash) {
            Some(at) => at,
            None => {
                let at = self.add_series(SeriesName::of(&point.series), hash);
                self.series[at].earlier = earlier();
                at
            }
        };
        let start = self.log.len();
        self.log.extend_from_slice(point.element);
        self.note(at, point.timestamp, place(start, self.log.len()), true);
    }

    /// Records a point.
    #[inline]
    fn note(&mut self, at: usize, timestamp: i64, value: u64, logged: bool) {
        self.entries.push(LoggedPoint { timestamp, value, series: at as u32, logged });
        let series = &mut self.series[at];
        self.shuffled |= timestamp <= series.last;
        series.first = series.first.min(timestamp);
        series.last = series.last.max(timestamp);
    }

    /// Moves the points of a later batch into this one. The caller has checked that there is room.
    pub fn absorb(&mut self, later: PointBatch) {
        let offset = self.log.len();
        let mut places = Vec::with_capacity(later.series.len());
        self.shuffled |= later.shuffled;
        for later in later.series {
            let found = self.index.find(later.hash, |at| {
                let candidate = &self.series[*at as usize];
                candidate.hash == later.hash && candidate.name == later.name
            });
            let at = match found {
                Some(at) => *at as usize,
                None => self.add_series(later.name, later.hash),
            };
            places.push(at as u32);
            let series = &mut self.series[at];
            self.shuffled |= later.first <= series.last;
            series.first = series.first.min(later.first);
            series.last = series.last.max(later.last);
        }
        self.log.extend_from_slice(&later.log);
        self.entries.extend(later.entries.into_iter().map(|entry| LoggedPoint {
            series: places[entry.series as usize],
            value: if entry.logged { entry.value + place(offset, offset) } else { entry.value },
            ..entry
        }));
    }

    /// Checks whether points of a series arrived out of time order.
    pub fn is_shuffled(&self) -> bool {
        self.shuffled
    }

    /// Returns the series' hash and the moment of every point.
    pub fn moments(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.entries.iter().map(|entry| (self.series[entry.series as usize].hash, entry.timestamp))
    }

    /// Groups the points by series, in order of arrival. Also returns where each series' points end.
    fn grouped(&self) -> (Vec<LoggedPoint>, Vec<usize>) {
        let mut ends = vec![0; self.series.len() + 1];
        for entry in &self.entries {
            ends[entry.series as usize + 1] += 1;
        }
        for at in 1..ends.len() {
            ends[at] += ends[at - 1];
        }
        // Where each series' points begin, until all points are placed.
        let mut grouped = vec![LoggedPoint::default(); self.entries.len()];
        for entry in &self.entries {
            let end = &mut ends[entry.series as usize];
            grouped[*end] = *entry;
            *end += 1;
        }
        (grouped, ends)
    }

    /// Calls `each` for every series with its points in time order, each moment once.
    fn for_each_series(
        &self,
        keep_first: bool,
        mut each: impl FnMut(&BatchSeries, &mut PointsInOrder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut grouped, ends) = self.grouped();
        let mut rest = &mut *grouped;
        let mut start = 0;
        for (series, end) in self.series.iter().zip(ends) {
            let (points, others) = rest.split_at_mut(end - start);
            (rest, start) = (others, end);
            // A series has no points if its only row was refused.
            if !points.is_empty() {
                each(series, &mut PointsInOrder::of(points, &self.log, keep_first))?;
            }
        }
        Ok(())
    }

    /// Finishes the request. Also returns its number of points.
    ///
    /// # Errors
    /// `Duplicate` if a moment is written twice and that is not allowed.
    pub fn close(self, string: bool, on_conflict: OnConflict) -> Result<(Body, usize), Error> {
        let EncodedPoints { mut bytes, points, twice } =
            self.encode(string, on_conflict == OnConflict::Ignore)?;
        match twice {
            Some((series, timestamp)) if on_conflict == OnConflict::Error => {
                let count = self.entries.len() - points;
                let moment =
                    json::iso8601(i128::from(timestamp) * 1000).unwrap_or_else(|_| timestamp.to_string());
                Err(Error::new(
                    Kind::Duplicate,
                    format!("{count} datapoints are written twice in this transaction"),
                )
                .refusing(vec![format!("{series} at {moment}")], count)
                .hint("The table's option on_conflict is \"error\"."))
            }
            _ => {
                bytes.shrink_to_fit();
                Ok((Body { bytes: bytes.into(), ..Default::default() }, points))
            }
        }
    }

    /// Encodes the points as they would be sent.
    pub fn encode(&self, string: bool, keep_first: bool) -> Result<EncodedPoints, Error> {
        let mut bytes = Vec::with_capacity(self.encoded() + self.series.len() * 48);
        let (mut written, mut twice) = (0, None);
        let mut points = Vec::new();
        self.for_each_series(keep_first, |series, ordered| {
            points.clear();
            ordered.encode(&mut points);
            points::write_item(&mut bytes, &series.name.to_wire(), &points, string);
            written += ordered.points.len();
            if let (None, Some(timestamp)) = (&twice, ordered.twice) {
                twice = Some((series.name.to_identity(), timestamp));
            }
            Ok(())
        })?;
        Ok(EncodedPoints { bytes, points: written, twice })
    }
}

/// A request's body.
pub struct EncodedPoints {
    pub bytes: Vec<u8>,
    pub points: usize,
    /// A moment that was written more than once.
    twice: Option<(Identity, i64)>,
}

/// Packs a position in the log.
fn place(start: usize, end: usize) -> u64 {
    (start as u64) << 32 | end as u64
}

/// The points of a series in time order, each moment once with its last or first value. CDF does not say which of two
/// it keeps.
struct PointsInOrder<'p> {
    points: &'p [LoggedPoint],
    log: &'p [u8],
    /// A moment that occurs more than once.
    twice: Option<i64>,
}

impl<'p> PointsInOrder<'p> {
    /// Sorts `points`, which are in order of arrival.
    fn of(points: &'p mut [LoggedPoint], log: &'p [u8], keep_first: bool) -> Self {
        if points.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
            return PointsInOrder { points, log, twice: None };
        }
        // The sort is stable; reversing makes "keep the first" mean "keep the last written".
        if !keep_first {
            points.reverse();
        }
        points.sort_by_key(|point| point.timestamp);
        let (mut kept, mut twice) = (0, None);
        for at in 1..points.len() {
            if points[at].timestamp == points[kept].timestamp {
                twice = twice.or(Some(points[at].timestamp))
            } else {
                kept += 1;
                points[kept] = points[at];
            }
        }
        PointsInOrder { points: &points[..=kept], log, twice }
    }

    /// Appends the points as elements of the series' list.
    fn encode(&self, out: &mut Vec<u8>) {
        for point in self.points {
            if point.logged {
                let (start, end) = ((point.value >> 32) as usize, point.value as u32 as usize);
                out.extend_from_slice(&self.log[start..end]);
            } else {
                points::write_plain(out, point.timestamp, f64::from_bits(point.value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(points: &[(i64, f64)]) -> PointBatch {
        let mut batch = PointBatch::new(0);
        let series = SeriesRef::ExternalId("s".into());
        let hash = series_hash(&series);
        for (at, (timestamp, value)) in points.iter().enumerate() {
            // Add every second point by the slow way, and the others by the fast one.
            let plain = PlainPoint { external_id: "s", timestamp: *timestamp, value: *value };
            if at % 2 == 0 || batch.push_known(hash, &plain, 0, || false).is_none() {
                let mut element = Vec::new();
                points::write_plain(&mut element, *timestamp, *value);
                let point = EncodedPoint { series: series.clone(), timestamp: *timestamp, element: &element };
                batch.push(hash, &point, || ALWAYS);
            }
        }
        batch
    }

    fn sent(batch: PointBatch, on_conflict: OnConflict) -> Vec<(i64, f64)> {
        let (body, count) = batch.close(false, on_conflict).unwrap();
        let request: wire::InsertionRequest = prost::Message::decode(&*body.bytes).unwrap();
        let [item] = &*request.items else { panic!("one series") };
        let Some(wire::Points::Numeric(points)) = &item.points else { panic!("no numbers") };
        assert_eq!(points.datapoints.len(), count);
        points.datapoints.iter().map(|point| (point.timestamp, point.value)).collect()
    }

    #[test]
    fn the_last_value_of_a_moment_is_kept() {
        let points = [(5, 1.0), (3, 2.0), (5, 3.0), (0, 4.0), (5, 5.0), (-7, 6.0)];
        for (on_conflict, last) in [(OnConflict::Update, 5.0), (OnConflict::Ignore, 1.0)] {
            let ordered = sent(batch(&points), on_conflict);
            assert_eq!(ordered, [(-7, 6.0), (0, 4.0), (3, 2.0), (5, last)]);
        }
        let error = batch(&points).close(false, OnConflict::Error).unwrap_err();
        assert_eq!(error.kind, Kind::Duplicate);
        assert!(error.message.starts_with("2 datapoints"), "{error:?}");
        assert!(error.to_string().contains("1970-01-01T00:00:00.005000Z"), "{error:?}");
    }

    #[test]
    fn later_batches_are_appended() {
        let mut first = batch(&[(1, 1.0), (2, 2.0), (3, 3.0)]);
        assert!(!first.is_shuffled());
        first.absorb(batch(&[(4, 4.0), (5, 5.0)]));
        assert!(!first.is_shuffled());
        first.absorb(batch(&[(2, 9.0), (0, 0.5)]));
        assert!(first.is_shuffled());
        let expected = [(0, 0.5), (1, 1.0), (2, 9.0), (3, 3.0), (4, 4.0), (5, 5.0)];
        assert_eq!(sent(first, OnConflict::Update), expected);
    }

    #[test]
    fn series_are_told_apart_by_every_kind_of_name() {
        let long = "x".repeat(200);
        let names = [
            SeriesRef::Id(7),
            SeriesRef::ExternalId("7".into()),
            SeriesRef::ExternalId((&*long).into()),
            SeriesRef::Instance("a".into(), "b".into()),
            SeriesRef::Instance("b".into(), "a".into()),
        ];
        for (at, name) in names.iter().enumerate() {
            let own = SeriesName::of(name);
            assert!(names.iter().enumerate().all(|(other, name)| own.is(name) == (at == other)));
        }
        assert!(SeriesName::of(&names[2]).bytes() >= 200 && SeriesName::of(&names[1]).bytes() == 0);
    }
}
