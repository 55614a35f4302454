//! The datapoints that a transaction has written, for a reader that asks for them by time range, since they may not fit
//! in memory.
//!
//! An index in memory records which requests write to each series, and between which moments. Points are read only when
//! a reader asks for their time range.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use prost::encoding::{decode_key, decode_varint, WireType};
use prost::Message;

use super::batch::Batch;
use super::chunk::{Chunk, Spill};
use super::moment::Moment;
use super::ranges::range_of;
use super::transaction::TransactionBuffer;
use crate::cdf::encode::fragment::Fragment;
use crate::cdf::encode::points::wire::{
    self, NumericPoint, NumericPoints, Points, StringPoint, StringPoints,
};
use crate::cdf::error::{Error, Identity};
use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::{OnConflict, Operation};

/// Maximum points, and bytes of points, in an answer. The points of a single moment may exceed it.
const POINTS: usize = 20_000;
const BYTES: usize = 2 << 20;

/// A time range in milliseconds: its first moment and its exclusive end.
pub type Stretch = (i64, i64);

/// A reader's request.
#[derive(Debug)]
pub enum WantedPoints {
    /// Writes in a time range to series that CDF has, each given by all of its names.
    Of(Vec<(Vec<Identity>, Stretch)>),
    /// The next writes in a time range to series that nobody has asked for; limited to `only` if given.
    Rest { only: Option<HashSet<Identity>>, within: Stretch },
}

/// Writes to one series up to a moment, in write order.
#[derive(Debug, Default, PartialEq)]
pub struct SeriesWrites {
    /// The name of the series, for [`WantedPoints::Rest`].
    pub name: Option<Identity>,
    pub writes: Vec<PointWrite>,
    /// The first moment that the answer does not cover.
    pub end: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PointWrite {
    /// `keeps`: existing points are kept.
    Put {
        points: Points,
        keeps: bool,
    },
    Delete(Stretch),
}

/// The points written that a reader sees, and which of them were returned.
#[derive(Debug, Default)]
pub struct OwnPoints {
    string: bool,
    /// In write order for each moment of a series.
    parts: Vec<OwnRequest>,
    /// Sorted by series and then by part.
    index: Vec<SeriesPlace>,
    /// The number of each series that is written to.
    series: HashMap<Identity, u32>,
    /// The series that were asked for.
    asked: HashSet<u32>,
    /// Where [`WantedPoints::Rest`] continues: the series, and the moment if it stopped within one.
    next: (u32, Option<i64>),
}

/// A request as a reader sees it. Batches that were open when the reader began are copied; closed chunks stay where
/// they are.
#[derive(Debug)]
struct OwnRequest {
    /// The lane and the chunk's number in it.
    id: (usize, u64),
    wave: usize,
    deletes: bool,
    keeps: bool,
    copy: Option<Bytes>,
}

/// A part's points of a series, or its deletion of a time range. There is one per series of a request.
#[derive(Debug, Clone, Copy)]
struct SeriesPlace {
    series: u32,
    part: u32,
    /// Where the points are in the part's body, one after another in time order.
    place: (u32, u32),
    first: i64,
    last: i64,
}

impl SeriesPlace {
    fn is_in(&self, (first, end): Stretch) -> bool {
        self.first < end && self.last >= first
    }
}

impl OwnPoints {
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn add(&mut self, name: Identity, part: usize, place: (u32, u32), (first, last): (i64, i64)) {
        let next = self.series.len() as u32;
        let series = *self.series.entry(name).or_insert(next);
        if self.index.len() == self.index.capacity() {
            // Do not double the capacity: the index may be most of a reader's memory.
            self.index.reserve_exact(1024.max(self.index.len() / 8));
        }
        self.index.push(SeriesPlace { series, part: part as u32, place, first, last });
    }

    fn writes(&self, series: u32) -> &[SeriesPlace] {
        let first = self.index.partition_point(|write| write.series < series);
        let later = &self.index[first..];
        &later[..later.partition_point(|write| write.series == series)]
    }

    fn add_points(&mut self, part: usize, body: &[u8]) -> Result<(), Error> {
        for_each_item(body, |name, points| {
            let mut moments = PointElements(&body[points.0..points.1]).map(|element| moment(element?));
            let Some(first) = moments.next().transpose()? else { return Ok(()) };
            let last = moments.last().transpose()?.unwrap_or(first);
            let place = (points.0 as u32, points.1 as u32);
            self.add(name, part, place, (first, last));
            Ok(())
        })
    }

    fn add_deletions<'f>(
        &mut self,
        part: usize,
        stretches: impl Iterator<Item = Fragment<'f>>,
    ) -> Result<(), Error> {
        for stretch in stretches {
            let (name, (first, end)) = range_of(stretch)?;
            self.add(name, part, (0, 0), (first, end - 1));
        }
        Ok(())
    }
}

impl TransactionBuffer {
    /// Returns the points written to a resource in the project of a connection; only those `before` a moment if it is
    /// given.
    ///
    /// # Errors
    /// Returns the error of reading them.
    pub fn own_points(
        &mut self,
        connection: &Connection,
        resource: &'static Resource,
        before: Option<Moment>,
        spill: &mut dyn Spill,
    ) -> Result<OwnPoints, Error> {
        self.settle()?;
        let string = resource.holds_texts();
        let mut own = OwnPoints { string, ..OwnPoints::default() };
        let mut stretches = Vec::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            if !lane.destination.reaches(connection, resource) {
                continue;
            }
            for segment in &lane.segments {
                let closed =
                    segment.closed.iter().filter(|chunk| before.is_none_or(|now| chunk.closed < now));
                own.parts.extend(closed.map(|chunk| OwnRequest {
                    id: (at, chunk.number),
                    wave: chunk.wave,
                    deletes: chunk.header.mode.operation == Operation::Delete,
                    keeps: chunk.header.mode.on_conflict == OnConflict::Ignore,
                    copy: None,
                }));
                // Batches that were open at that moment have been closed since.
                for open in segment.open.iter().filter(|_| before.is_none()) {
                    let keeps = open.mode.on_conflict == OnConflict::Ignore;
                    let mut part =
                        OwnRequest { id: (at, 0), wave: open.wave, deletes: false, keeps, copy: None };
                    match &open.batch {
                        Batch::Points(batch) => part.copy = Some(batch.encode(string, keeps)?.bytes.into()),
                        Batch::Ranges(batch) => {
                            part.deletes = true;
                            // A temporary number tells them apart until the parts are sorted.
                            part.id.1 = stretches.len() as u64;
                            part.copy = Some(Bytes::new());
                            stretches.push(batch);
                        }
                        Batch::Items(_) => continue,
                    }
                    own.parts.push(part);
                }
            }
        }
        own.parts.sort_by_key(|part| part.wave);
        let chunks = self.own_chunks(&own);
        for part in 0..own.parts.len() {
            let OwnRequest { id, deletes, ref copy, .. } = own.parts[part];
            match (copy.clone(), deletes) {
                (Some(_), true) => own.add_deletions(part, stretches[id.1 as usize].fragments())?,
                (Some(body), false) => own.add_points(part, &body)?,
                (None, deletes) => {
                    let Some(chunk) = chunks.get(&id) else { continue };
                    let body = chunk.read(spill)?;
                    if deletes {
                        own.add_deletions(part, body.fragments())?
                    } else {
                        own.add_points(part, &body.bytes)?
                    }
                }
            }
        }
        own.index.sort_unstable_by_key(|write| (write.series, write.part));
        Ok(own)
    }

    /// Answers a reader's request: one answer per time range, or one for the next series. If an answer ends earlier
    /// than the range, the reader must ask for the remainder.
    ///
    /// # Errors
    /// Returns the error of reading it.
    pub fn answer_points(
        &self,
        own: &mut OwnPoints,
        wanted: WantedPoints,
        spill: &mut dyn Spill,
    ) -> Result<Vec<SeriesWrites>, Error> {
        self.answer_points_within(own, wanted, spill, PointRoom { points: POINTS, bytes: BYTES })
    }

    /// Like `answer_points`, with the given maximum per answer.
    pub(super) fn answer_points_within(
        &self,
        own: &mut OwnPoints,
        wanted: WantedPoints,
        spill: &mut dyn Spill,
        room: PointRoom,
    ) -> Result<Vec<SeriesWrites>, Error> {
        let mut reading = PointReading { chunks: self.own_chunks(own), own, spill, room };
        match wanted {
            WantedPoints::Of(series) => {
                series.into_iter().map(|(names, within)| reading.of(&names, within)).collect()
            }
            WantedPoints::Rest { only, within } => reading.rest(only, within),
        }
    }

    /// Returns the chunks that a reader reads.
    fn own_chunks(&self, own: &OwnPoints) -> HashMap<(usize, u64), &Chunk> {
        self.closed_in(own.parts.iter().map(|part| part.id.0).collect())
    }
}

/// The remaining room of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct PointRoom {
    pub points: usize,
    pub bytes: usize,
}

struct PointReading<'r> {
    chunks: HashMap<(usize, u64), &'r Chunk>,
    own: &'r mut OwnPoints,
    spill: &'r mut dyn Spill,
    room: PointRoom,
}

impl PointReading<'_> {
    fn of(&mut self, names: &[Identity], within: Stretch) -> Result<SeriesWrites, Error> {
        let mut writes = Vec::new();
        for name in names {
            if let Some(series) = self.own.series.get(name).copied() {
                self.own.asked.insert(series);
                writes.extend(self.own.writes(series).iter().filter(|write| write.is_in(within)));
            }
        }
        self.read(writes, within)
    }

    fn rest(&mut self, only: Option<HashSet<Identity>>, within: Stretch) -> Result<Vec<SeriesWrites>, Error> {
        let mut names: Vec<(u32, Identity)> = match only {
            Some(only) => {
                only.into_iter().filter_map(|name| Some((*self.own.series.get(&name)?, name))).collect()
            }
            None => self.own.series.iter().map(|(name, at)| (*at, name.clone())).collect(),
        };
        names.retain(|(at, _)| *at >= self.own.next.0 && !self.own.asked.contains(at));
        names.sort_unstable_by_key(|(at, _)| *at);
        let mut answers = Vec::new();
        for (at, name) in names {
            let from = if at == self.own.next.0 { self.own.next.1.unwrap_or(within.0) } else { within.0 };
            if self.room.points == 0 {
                self.own.next = (at, Some(from));
                break;
            }
            let within = (from, within.1);
            let writes = self.own.writes(at).iter().filter(|write| write.is_in(within));
            let answer = self.read(writes.copied().collect(), within)?;
            let more = answer.end < within.1;
            self.own.next = if more { (at, Some(answer.end)) } else { (at + 1, None) };
            answers.push(SeriesWrites { name: Some(name), ..answer });
            if more {
                break;
            }
        }
        Ok(answers)
    }

    /// Reads the writes of a time range, given in any order, up to the moment that fits.
    fn read(&mut self, mut writes: Vec<SeriesPlace>, (first, end): Stretch) -> Result<SeriesWrites, Error> {
        if self.room.points == 0 && !writes.is_empty() {
            return Ok(SeriesWrites { end: first, ..Default::default() });
        }
        // Writes that begin late are not read if they do not fit.
        writes.sort_by_key(|write| write.first);
        let mut found = PointsFound { first, end, points: Vec::new(), bytes: 0 };
        for write in &writes {
            let part = &self.own.parts[write.part as usize];
            if part.deletes || !write.is_in((first, found.end)) {
                continue;
            }
            let (start, stop) = (write.place.0 as usize, write.place.1 as usize);
            match (&part.copy, self.chunks.get(&part.id)) {
                (Some(copy), _) => found.add(write.part, &copy[start..stop], self.own.string, self.room)?,
                (None, Some(chunk)) => {
                    let points = chunk.part(start..stop, self.spill)?;
                    found.add(write.part, &points, self.own.string, self.room)?;
                }
                // The part was discarded by a rollback to a savepoint.
                (None, None) => {}
            }
        }
        let PointsFound { end, mut points, bytes, .. } = found;
        self.room.points = self.room.points.saturating_sub(points.len());
        self.room.bytes = self.room.bytes.saturating_sub(bytes);
        if self.room.bytes == 0 {
            self.room.points = 0;
        }
        // Sort into write order.
        points.sort_by_key(|(part, point)| (*part, point.timestamp()));
        writes.sort_by_key(|write| write.part);
        let mut points = points.into_iter().peekable();
        let mut answer = SeriesWrites { end, ..Default::default() };
        for of_part in writes.chunk_by(|a, b| a.part == b.part) {
            let part = &self.own.parts[of_part[0].part as usize];
            if part.deletes {
                if part.copy.is_some() || self.chunks.contains_key(&part.id) {
                    let stretches = of_part.iter().map(|write| (write.first, write.last.saturating_add(1)));
                    answer.writes.extend(stretches.map(PointWrite::Delete));
                }
                continue;
            }
            let mut of_this = Vec::new();
            while let Some((_, point)) = points.next_if(|(part, _)| *part == of_part[0].part) {
                of_this.push(point);
            }
            if !of_this.is_empty() {
                let points = together(of_this, self.own.string);
                answer.writes.push(PointWrite::Put { points, keeps: part.keeps });
            }
        }
        Ok(answer)
    }
}

#[derive(Debug)]
enum Point {
    Numeric(NumericPoint),
    String(StringPoint),
}

impl Point {
    fn read(element: &[u8], string: bool) -> Result<Point, Error> {
        if string {
            StringPoint::decode(element).map(Point::String)
        } else {
            NumericPoint::decode(element).map(Point::Numeric)
        }
        .map_err(unreadable)
    }

    fn timestamp(&self) -> i64 {
        match self {
            Point::Numeric(point) => point.timestamp,
            Point::String(point) => point.timestamp,
        }
    }

    /// Estimates the number of bytes taken.
    fn bytes(&self) -> usize {
        size_of::<Point>()
            + match self {
                Point::Numeric(_) => 0,
                Point::String(point) => point.value.len(),
            }
    }
}

fn together(points: Vec<Point>, string: bool) -> Points {
    let (mut numeric, mut strings) = (Vec::new(), Vec::new());
    for point in points {
        match point {
            Point::Numeric(point) => numeric.push(point),
            Point::String(point) => strings.push(point),
        }
    }
    if string {
        Points::String(StringPoints { datapoints: strings })
    } else {
        Points::Numeric(NumericPoints { datapoints: numeric })
    }
}

/// The points from a moment on, up to the moment that fits.
struct PointsFound {
    first: i64,
    end: i64,
    /// Each point with the part that writes it.
    points: Vec<(u32, Point)>,
    bytes: usize,
}

impl PointsFound {
    fn add(&mut self, part: u32, elements: &[u8], string: bool, room: PointRoom) -> Result<(), Error> {
        for element in PointElements(elements) {
            let element = element?;
            match moment(element)? {
                moment if moment < self.first => continue,
                moment if moment >= self.end => break,
                _ => {}
            }
            let point = Point::read(element, string)?;
            self.bytes += point.bytes();
            self.points.push((part, point));
            if self.points.len() > room.points.max(1) || self.bytes > room.bytes {
                self.halve();
            }
        }
        Ok(())
    }

    /// Drops the later half, to be read later, without splitting a moment.
    fn halve(&mut self) {
        let middle = self.points.len() / 2;
        let (earlier, (_, median), _) =
            self.points.select_nth_unstable_by_key(middle, |(_, point)| point.timestamp());
        let end = median.timestamp();
        let all_of_one = earlier.iter().all(|(_, point)| point.timestamp() == end);
        let end = if all_of_one { end.saturating_add(1) } else { end };
        self.end = self.end.min(end);
        self.points.retain(|(_, point)| point.timestamp() < end);
        self.bytes = self.points.iter().map(|(_, point)| point.bytes()).sum();
    }
}

fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::internal(format!("encoded datapoints are not readable: {why}"))
}

/// Splits a length-prefixed field off the front of `bytes` and returns its content.
fn take<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Error> {
    let length = decode_varint(bytes).map_err(unreadable)? as usize;
    let taken = bytes.get(..length).ok_or_else(|| unreadable("they end too early"))?;
    *bytes = &bytes[length..];
    Ok(taken)
}

/// The elements of a list of points.
struct PointElements<'b>(&'b [u8]);

impl<'b> Iterator for PointElements<'b> {
    type Item = Result<&'b [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = match decode_key(&mut self.0) {
            Ok((1, WireType::LengthDelimited)) => take(&mut self.0),
            Ok(_) => Err(unreadable("a list has something that is no point")),
            Err(error) => Err(unreadable(error)),
        };
        if element.is_err() {
            self.0 = &[];
        }
        Some(element)
    }
}

/// Returns the moment of an encoded point: its first field, which is omitted if it is 0.
fn moment(mut point: &[u8]) -> Result<i64, Error> {
    const TIMESTAMP: u8 = 1 << 3;
    match point.split_off_first() {
        Some(&TIMESTAMP) => decode_varint(&mut point).map(|moment| moment as i64).map_err(unreadable),
        _ => Ok(0),
    }
}

/// Calls `each` for every item of a request with its series and the place of its points in the request.
fn for_each_item(
    body: &[u8],
    mut each: impl FnMut(Identity, (usize, usize)) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rest = body;
    while !rest.is_empty() {
        decode_key(&mut rest).map_err(unreadable)?;
        let mut item = take(&mut rest)?;
        let (mut name, mut points) = (None, None);
        while !item.is_empty() {
            let (tag, _) = decode_key(&mut item).map_err(unreadable)?;
            match tag {
                1 => name = Some(Identity::Id(decode_varint(&mut item).map_err(unreadable)? as i64)),
                2 => {
                    let text = std::str::from_utf8(take(&mut item)?).map_err(unreadable)?;
                    name = Some(Identity::ExternalId(text.to_owned()));
                }
                5 => {
                    let instance = wire::InstanceId::decode(take(&mut item)?).map_err(unreadable)?;
                    name =
                        Some(Identity::Instance { space: instance.space, external_id: instance.external_id });
                }
                _ => {
                    let list = take(&mut item)?;
                    let start = list.as_ptr() as usize - body.as_ptr() as usize;
                    points = Some((start, start + list.len()));
                }
            }
        }
        match (name, points) {
            (Some(name), Some(points)) => each(name, points)?,
            _ => return Err(unreadable("an item has no series or no points")),
        }
    }
    Ok(())
}
