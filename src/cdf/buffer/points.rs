//! An open request of datapoints, grouped by series.

use hashbrown::HashTable;

use super::chunk::Body;
use crate::cdf::encode::point::{self, wire, SeriesRef};
use crate::cdf::error::Error;
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::datapoints::{POINTS_PER_REQUEST, SERIES_PER_REQUEST};

/// Bytes of a request body: long strings reach it before they are 100 000.
const BODY_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct Series {
    reference: wire::Reference,
    hash: u64,
    /// The encoded elements of the series' list.
    points: Vec<u8>,
    count: u32,
    first: i64,
    last: i64,
    /// Every point is later than the one before.
    ordered: bool,
}

/// The request that points are added to.
#[derive(Debug, Default)]
pub struct PointBatch {
    series: Vec<Series>,
    index: HashTable<u32>,
    points: usize,
    bytes: usize,
}

/// The hash by which a series is found.
pub fn series_hash(reference: &SeriesRef<'_>) -> u64 {
    match reference {
        SeriesRef::ExternalId(external_id) => hash_bytes(external_id.as_bytes()),
        SeriesRef::Id(id) => hash_bytes(&id.to_le_bytes()),
        SeriesRef::Instance(space, external_id) => {
            hash_bytes(space.as_bytes()).rotate_left(1) ^ hash_bytes(external_id.as_bytes())
        }
    }
}

impl PointBatch {
    pub fn points(&self) -> usize {
        self.points
    }

    pub fn bytes(&self) -> usize {
        self.bytes * 3 / 2 + self.series.len() * (size_of::<Series>() + 48)
    }

    pub fn is_full(&self) -> bool {
        self.points >= POINTS_PER_REQUEST
            || self.series.len() >= SERIES_PER_REQUEST
            || self.bytes >= BODY_BYTES
    }

    /// Whether everything of `other` has room here too.
    pub fn has_room_for(&self, other: &PointBatch) -> bool {
        self.points + other.points <= POINTS_PER_REQUEST
            && self.series.len() + other.series.len() <= SERIES_PER_REQUEST
            && self.bytes + other.bytes <= BODY_BYTES
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

    fn series(&mut self, reference: &SeriesRef<'_>, hash: u64) -> usize {
        let series = &self.series;
        let found = self.index.find(hash, |at| {
            let candidate = &series[*at as usize];
            candidate.hash == hash && reference.is(&candidate.reference)
        });
        if let Some(at) = found {
            return *at as usize;
        }
        self.add_series(reference.to_wire(), hash)
    }

    fn add_series(&mut self, reference: wire::Reference, hash: u64) -> usize {
        let at = self.series.len();
        self.series.push(Series {
            reference,
            hash,
            points: Vec::new(),
            count: 0,
            first: i64::MAX,
            last: i64::MIN,
            ordered: true,
        });
        let series = &self.series;
        self.index.insert_unique(hash, at as u32, |at| series[*at as usize].hash);
        at
    }

    /// Adds one point; `encode` appends it to the series' list, and leaves the list as it was if it fails.
    pub fn push(
        &mut self,
        reference: &SeriesRef<'_>,
        hash: u64,
        timestamp: i64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let at = self.series(reference, hash);
        let series = &mut self.series[at];
        let before = series.points.len();
        encode(&mut series.points)?;
        self.bytes += series.points.len() - before;
        self.points += 1;
        series.count += 1;
        series.ordered &= timestamp > series.last;
        series.first = series.first.min(timestamp);
        series.last = series.last.max(timestamp);
        Ok(())
    }

    /// Takes over the points of a later batch. The caller has checked that there is room.
    pub fn absorb(&mut self, later: PointBatch) {
        for later in later.series {
            let found = self.index.find(later.hash, |at| {
                let candidate = &self.series[*at as usize];
                candidate.hash == later.hash && candidate.reference == later.reference
            });
            let at = match found {
                Some(at) => *at as usize,
                None => self.add_series(later.reference, later.hash),
            };
            let series = &mut self.series[at];
            series.points.extend_from_slice(&later.points);
            series.count += later.count;
            series.ordered &= later.ordered && later.first > series.last;
            series.first = series.first.min(later.first);
            series.last = series.last.max(later.last);
            self.bytes += later.points.len();
            self.points += later.count as usize;
        }
    }

    /// The points as they would be sent.
    pub fn messages(&self, string: bool, keep_first: bool) -> Result<Vec<wire::InsertionItem>, Error> {
        let unreadable = |error: prost::DecodeError| {
            Error::internal(format!("encoded datapoints are not readable: {error}"))
        };
        let written = self.series.iter().filter(|series| series.count > 0);
        written
            .map(|series| {
                let (points, _) = point::sort_and_deduplicate(&series.points, string, keep_first)?;
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
        let mut bytes = Vec::with_capacity(self.bytes + self.series.len() * 48);
        let mut total = 0;
        for series in &self.series {
            match series.count {
                // Its only row was refused.
                0 => {}
                _ if series.ordered => {
                    point::write_item(&mut bytes, &series.reference, &series.points, string);
                    total += series.count as usize;
                }
                _ => {
                    let (points, count) = point::sort_and_deduplicate(&series.points, string, keep_first)?;
                    point::write_item(&mut bytes, &series.reference, &points, string);
                    total += count;
                }
            }
        }
        Ok((Body { bytes, ..Default::default() }, total))
    }
}
