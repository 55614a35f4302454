//! What a transaction has written, as requests that are ready to send.
//!
//! A *lane* per destination; in it a *segment* per subtransaction, so that a rolled-back savepoint takes its rows with
//! it; in that open batches that rows are added to, and closed chunks. A key is at most once in a request, and writes
//! of one key are in requests of growing *wave*, which are sent one after another.

mod chunk;
mod items;
mod kin;
mod own;
mod own_points;
mod pending;
mod points;
mod ranges;
mod trace;

use std::sync::Arc;

use hashbrown::HashMap;

#[cfg(test)]
pub use chunk::MemorySpill;
pub use chunk::{Background, Body, BodyBuilder, Chunk, Extent, Foreground, Header, Spill};
use items::{ItemBatch, Merge};
pub use items::{BODY_BYTES, HEAD, TAIL};
use kin::Of;
pub use own::{OwnRows, Wanted};
pub use own_points::{OwnPoints, PointWrite, SeriesWrites, Stretch, WantedPoints};
pub use pending::{Pending, PendingItem};
use points::PointBatch;
use ranges::RangeBatch;
use trace::{KeyTrace, RangeTrace};

use super::encode::points::{PlainPoint, SeriesRef};
use super::encode::{Encoded, KeyKind};
use super::error::{Error, Kind};
use super::http::connection::Connection;
use super::resource::{Resource, Shape};
use super::table::view::View;
use super::table::{Mode, OnConflict, Operation};

/// A point in a transaction between two writes: see [`TransactionBuffer::moment`].
pub type Moment = u64;

/// Number of a subtransaction, as PostgreSQL counts them: a child's is larger than its parent's.
pub type Subtransaction = u32;

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Destination {
    pub connection: Arc<Connection>,
    pub resource: &'static Resource,
    /// RAW's database and table.
    pub raw: Option<(String, String)>,
    /// The view through which instances are written.
    pub view: Option<Arc<View>>,
}

impl Destination {
    /// Whether rows of a resource that are written over this connection go to it.
    fn takes(&self, connection: &Arc<Connection>, resource: &'static Resource) -> bool {
        Arc::ptr_eq(&self.connection, connection) && std::ptr::eq(self.resource, resource)
    }

    /// Whether it holds rows of a resource that are also reached over this connection: of the same project, whatever the
    /// credentials.
    fn reaches(&self, connection: &Connection, resource: &'static Resource) -> bool {
        std::ptr::eq(self.resource, resource) && self.connection.reaches_same_as(connection)
    }

    /// Whether a write to one may be about the same item as a write to the other.
    pub fn shares_items_with(&self, other: &Destination) -> bool {
        self.reaches(&other.connection, other.resource) && self.raw == other.raw
    }

    fn is(
        &self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        raw: Option<(&str, &str)>,
    ) -> bool {
        self.takes(connection, resource)
            && self.raw.as_ref().map(|(database, table)| (&**database, &**table)) == raw
    }
}

/// All rows of a transaction that are not delivered yet.
#[derive(Debug)]
pub struct TransactionBuffer {
    lanes: Vec<Lane>,
    /// Lanes of RAW tables by name: a generic RAW table may write to thousands.
    raw_lanes: HashMap<(String, String), Vec<usize>>,
    /// Bytes that may stay on the heap.
    limit: usize,
    memory: usize,
    /// A failure at a moment when PostgreSQL takes no errors; told at the next one.
    failure: Option<Error>,
    moment: Moment,
    background: &'static dyn Background,
}

/// What a lane gets from around it: bytes that may stay on the heap, and where requests are made.
struct Outside {
    budget: usize,
    background: &'static dyn Background,
}

/// Requests of a segment that are made in the background at the same time.
const IN_BACKGROUND: usize = 2;

#[derive(Debug)]
struct Lane {
    destination: Arc<Destination>,
    segments: Vec<Segment>,
    /// What closed chunks of each wave hold.
    traces: Vec<Trace>,
    /// The highest wave of each of [`KeyKind::ADDRESSES`].
    highest: [Option<usize>; 3],
    /// Items are addressed in more than one of these ways.
    mixed: bool,
    /// Points come in another order than that of time.
    shuffled: bool,
    /// Chunks that were closed.
    closed: u64,
    /// When its chunks are being closed.
    moment: Moment,
    /// A write by `id` may change the item's external id.
    renames: bool,
    /// A write had to come after one in another lane.
    tied: bool,
    /// The highest wave of a deletion.
    deleted: Option<usize>,
    /// Rows of a journal that were written.
    written: usize,
    /// Other lanes that may hold the same items.
    kin: Vec<usize>,
}

#[derive(Debug)]
struct Segment {
    subtransaction: Subtransaction,
    open: Vec<Open>,
    closed: Vec<Chunk>,
}

#[derive(Debug)]
struct Open {
    wave: usize,
    mode: Mode,
    kind: KeyKind,
    batch: Batch,
}

impl Open {
    fn is(&self, wave: usize, mode: Mode, kind: KeyKind) -> bool {
        self.wave == wave && self.mode == mode && self.kind == kind
    }
}

#[derive(Debug)]
enum Batch {
    Items(ItemBatch),
    Points(PointBatch),
    /// Stretches of time to be deleted.
    Ranges(RangeBatch),
}

/// What a full batch held, which the one after it is likely to hold too.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    bytes: usize,
    rows: usize,
    keys: usize,
}

#[derive(Debug)]
enum Trace {
    Keys(KeyTrace),
    Ranges(RangeTrace),
}

/// The finished requests of one destination, in the order in which they were finished.
#[derive(Debug)]
pub struct Delivery {
    pub destination: Arc<Destination>,
    pub chunks: Vec<Chunk>,
}

impl Batch {
    fn bytes(&self) -> usize {
        match self {
            Batch::Items(batch) => batch.bytes(),
            Batch::Points(batch) => batch.bytes(),
            Batch::Ranges(batch) => batch.bytes(),
        }
    }

    fn room(&self) -> Option<Room> {
        match self {
            Batch::Items(batch) => Some(batch.room()),
            Batch::Points(batch) => Some(batch.room()),
            Batch::Ranges(_) => None,
        }
    }

    /// Makes room for as much as another held, if nothing is in it yet.
    fn reserve(&mut self, like: Option<Room>) {
        match (self, like) {
            (Batch::Items(batch), Some(room)) if batch.items() == 0 => batch.reserve(room),
            (Batch::Points(batch), Some(room)) if batch.points() == 0 => batch.reserve(room),
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Batch::Items(batch) => batch.items() == 0,
            Batch::Points(batch) => batch.points() == 0,
            Batch::Ranges(batch) => batch.len() == 0,
        }
    }

    /// Whether something of a series' time around a moment is in it.
    fn overlaps(&self, series: u64, moment: i64) -> bool {
        match self {
            Batch::Points(batch) => batch.overlaps(series, (moment, moment)),
            Batch::Ranges(batch) => batch.overlaps(series, (moment, moment)),
            Batch::Items(_) => false,
        }
    }

    /// Whether an item whose object begins with `prefix` is in it.
    fn holds(&self, hash: u64, prefix: &[u8]) -> bool {
        matches!(self, Batch::Items(batch) if batch.contains(hash, prefix))
    }

    /// Whether a key, or a stretch of a series' time, is in both.
    fn conflicts_with(&self, other: &Batch) -> bool {
        match (self, other) {
            (Batch::Items(a), Batch::Items(b)) => a.shares_a_key_with(b),
            (Batch::Points(a), b) => b.ranges().any(|(series, range)| a.overlaps(series, range)),
            (Batch::Ranges(a), b) => b.ranges().any(|(series, range)| a.overlaps(series, range)),
            _ => false,
        }
    }
}

impl Batch {
    /// First and last moment of what it holds of each series.
    fn ranges(&self) -> Box<dyn Iterator<Item = (u64, (i64, i64))> + '_> {
        match self {
            Batch::Points(batch) => Box::new(batch.ranges()),
            Batch::Ranges(batch) => Box::new(batch.ranges()),
            Batch::Items(_) => Box::new(std::iter::empty()),
        }
    }
}

impl Trace {
    fn bytes(&self) -> usize {
        match self {
            Trace::Keys(trace) => trace.bytes(),
            Trace::Ranges(trace) => trace.bytes(),
        }
    }

    /// Whether it may hold the key of such a hash.
    fn may_hold(&self, hash: u64) -> bool {
        matches!(self, Trace::Keys(trace) if trace.contains(hash))
    }

    /// Whether it may hold a point of a series.
    fn holds(&self, series: u64, moment: i64) -> bool {
        match self {
            Trace::Ranges(trace) => trace.holds(series, moment),
            Trace::Keys(_) => true,
        }
    }

    /// Whether it may hold something that the batch holds too.
    fn conflicts_with(&self, batch: &Batch) -> bool {
        match (self, batch) {
            (Trace::Keys(trace), Batch::Items(batch)) => batch.hashes().any(|hash| trace.contains(hash)),
            (Trace::Ranges(trace), batch) => {
                batch.ranges().any(|(series, range)| trace.overlaps(series, range))
            }
            _ => false,
        }
    }

    /// Adds what a batch holds; `list`: each moment of its points too.
    fn add(&mut self, batch: &Batch, list: bool, budget: usize) {
        match (self, batch) {
            (Trace::Keys(trace), Batch::Items(batch)) => {
                trace.reserve(batch.items(), budget);
                batch.hashes().for_each(|hash| trace.insert(hash, budget))
            }
            (Trace::Ranges(trace), Batch::Points(batch)) if list => {
                batch.ranges().for_each(|(series, range)| trace.insert_listed(series, range, budget));
                batch.moments().for_each(|(series, moment)| trace.insert_moment(series, moment, budget));
            }
            (Trace::Ranges(trace), batch) => {
                batch.ranges().for_each(|(series, range)| trace.insert(series, range, budget))
            }
            _ => {}
        }
    }
}

impl Lane {
    fn to(destination: Destination, moment: Moment) -> Lane {
        Lane {
            destination: Arc::new(destination),
            segments: Vec::new(),
            traces: Vec::new(),
            highest: [None; 3],
            mixed: false,
            shuffled: false,
            closed: 0,
            moment,
            renames: false,
            tied: false,
            deleted: None,
            written: 0,
            kin: Vec::new(),
        }
    }

    fn per_request(&self) -> usize {
        self.destination.resource.per_request
    }

    fn string(&self) -> bool {
        matches!(self.destination.resource.shape, Shape::Datapoints { string: true })
    }

    /// Bytes on the heap.
    fn memory(&self) -> usize {
        let segments = self.segments.iter().map(|segment| {
            segment.open.iter().map(|open| open.batch.bytes()).sum::<usize>()
                + segment.closed.iter().map(Chunk::memory).sum::<usize>()
        });
        segments.sum::<usize>() + self.traces.iter().map(Trace::bytes).sum::<usize>()
    }

    /// The segment that rows of `subtransaction` go to.
    fn segment(&mut self, subtransaction: Subtransaction) -> usize {
        if self.segments.last().is_none_or(|segment| segment.subtransaction < subtransaction) {
            self.segments.push(Segment { subtransaction, open: Vec::new(), closed: Vec::new() });
        }
        self.segments.len() - 1
    }

    /// The highest wave in which items are addressed in another way.
    fn highest_of_others(&self, kind: KeyKind) -> Option<usize> {
        let others = KeyKind::ADDRESSES.iter().zip(self.highest).filter(|(address, _)| **address != kind);
        others.filter_map(|(_, highest)| highest).max()
    }

    /// The wave of a write: where the same key already is in an open batch of the segment that is written in the same
    /// mode, else after all closed chunks and all other batches that hold it: what is deleted and then inserted must
    /// not arrive the other way round.
    ///
    /// Writes of another kind of address come before it: they may mean the same item. `floor`: the first wave after
    /// what other lanes hold of it.
    fn wave(&mut self, segment: usize, mode: Mode, kind: KeyKind, floor: usize, of: Of<'_>) -> usize {
        self.tied |= floor > 0;
        let closed = self.traces.iter().rposition(|trace| of.is_in_trace(trace)).map(|wave| wave + 1);
        let holding = |at: usize| {
            let open = self.segments[at].open.iter().filter(|open| of.is_in_batch(&open.batch));
            open.map(move |open| if at == segment && open.mode == mode { open.wave } else { open.wave + 1 })
                .max()
        };
        let others = self.highest_of_others(kind).map(|wave| wave + 1);
        let wave =
            (0..=segment).filter_map(holding).chain(closed).chain(others).max().unwrap_or(0).max(floor);
        if let Some(at) = KeyKind::ADDRESSES.iter().position(|address| *address == kind) {
            self.highest[at] = self.highest[at].max(Some(wave));
            self.mixed = self.highest.iter().flatten().count() > 1;
        }
        if mode.operation == Operation::Delete {
            self.deleted = self.deleted.max(Some(wave));
        }
        wave
    }

    /// The open batch for rows of this wave and kind.
    fn open(&mut self, segment: usize, wave: usize, mode: Mode, kind: KeyKind) -> usize {
        let open = &mut self.segments[segment].open;
        if let Some(at) = open.iter().position(|open| open.is(wave, mode, kind)) {
            return at;
        }
        let batch = match (&self.destination.resource.shape, mode.operation) {
            (Shape::Datapoints { .. }, Operation::Delete) => Batch::Ranges(RangeBatch::default()),
            (Shape::Datapoints { .. }, _) => Batch::Points(PointBatch::new(self.closed)),
            _ => Batch::Items(ItemBatch::default()),
        };
        open.push(Open { wave, mode, kind, batch });
        open.len() - 1
    }

    /// Makes a chunk of a full batch, in the background if that takes long; gives what it held.
    fn close_full(&mut self, segment: usize, at: usize, outside: &Outside) -> Result<Option<Room>, Error> {
        let full = self.segments[segment].open.swap_remove(at);
        let room = full.batch.room();
        // Where the background is slower than the rows come, it must not pile up.
        let closed = &mut self.segments[segment].closed;
        let making = closed.iter_mut().rev().take_while(|chunk| chunk.is_unsettled());
        for chunk in making.skip(IN_BACKGROUND - 1) {
            chunk.settle()?;
        }
        self.close(segment, full, outside.budget, outside.background).map(|()| room)
    }

    fn close_segment(&mut self, segment: usize, budget: usize) -> Result<(), Error> {
        while let Some(open) = self.segments[segment].open.pop() {
            self.close(segment, open, budget, &Foreground)?;
        }
        Ok(())
    }

    /// Makes a chunk of a batch.
    fn close(
        &mut self,
        segment: usize,
        open: Open,
        budget: usize,
        background: &dyn Background,
    ) -> Result<(), Error> {
        let Open { wave, mode, kind, batch } = open;
        if batch.is_empty() {
            return Ok(());
        }
        let string = self.string();
        if kind != KeyKind::None {
            while self.traces.len() <= wave {
                self.traces.push(match batch {
                    Batch::Items(_) => Trace::Keys(KeyTrace::default()),
                    _ => Trace::Ranges(RangeTrace::default()),
                });
            }
            self.shuffled |= matches!(&batch, Batch::Points(batch) if batch.is_shuffled());
            self.traces[wave].add(&batch, self.shuffled, budget);
        }
        let header = Header::new(mode, kind);
        let mut chunk = match batch {
            Batch::Items(batch) => {
                let header = Header {
                    deferred: batch.deferred(),
                    has_parents: batch.has_parents(),
                    complete: batch.complete(),
                    ..header
                };
                let rows = batch.items();
                let with_family = self.destination.resource.hierarchy;
                let keys = (kind == KeyKind::Key).then(|| batch.keys());
                let mut chunk = Chunk::new(wave, header, rows, batch.close(with_family));
                chunk.keys = keys;
                chunk
            }
            Batch::Points(batch) => {
                let (bytes, on_conflict) = (batch.bytes(), mode.on_conflict);
                let make = move || batch.close(string, on_conflict);
                Chunk::made(wave, header, bytes, make, background)
            }
            Batch::Ranges(batch) => Chunk::new(wave, header, batch.len(), batch.close()),
        };
        chunk.closed = self.moment;
        chunk.number = self.closed;
        self.closed += 1;
        self.segments[segment].closed.push(chunk);
        Ok(())
    }

    /// What a second write of a key does with the first one.
    fn merge(&self, mode: Mode) -> Merge {
        match (&self.destination.resource.shape, mode.operation, mode.on_conflict) {
            (_, Operation::Delete, _) => Merge::Keep,
            (_, Operation::Upsert, OnConflict::UpdateListed) => {
                Merge::OverlayByExistence(self.destination.resource)
            }
            (_, _, OnConflict::Ignore) => Merge::Keep,
            // CDF replaces a RAW row whole.
            (Shape::Raw, Operation::Upsert, _) => Merge::Replace,
            _ => Merge::Overlay(self.destination.resource),
        }
    }

    /// Adds an item if that takes no more than to see that nothing holds its key; gives the bytes by which the memory has
    /// changed if it has.
    #[inline]
    fn push_new_item(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        fragment: &[u8],
        encoded: &Encoded,
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
            || !batch.has_room(fragment.len(), per_request)
            || batch.contains(encoded.hash, &fragment[..encoded.prefix])
            || held(encoded.hash)
        {
            return None;
        }
        let before = batch.bytes() as isize;
        batch.push_new(fragment, encoded);
        Some(batch.bytes() as isize - before)
    }

    /// Adds an item; gives the bytes by which the memory has changed. `floor`: the first wave that it may go in.
    fn push_item(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        fragment: &[u8],
        encoded: &Encoded,
        floor: usize,
        outside: &Outside,
    ) -> Result<isize, Error> {
        if let Some(delta) = self.push_new_item(subtransaction, mode, fragment, encoded, floor) {
            return Ok(delta);
        }
        let segment = self.segment(subtransaction);
        let prefix = &fragment[..encoded.prefix];
        let wave = match encoded.kind {
            // Waves go one after another, whatever savepoint a row was written in.
            KeyKind::None if !self.destination.resource.has_key() => {
                self.written += 1;
                self.written
            }
            KeyKind::None => 0,
            _ => self.wave(segment, mode, encoded.kind, floor, Of::Item(encoded.hash, prefix)),
        };
        let merge = self.merge(mode);
        let per_request = self.per_request();
        let mut at = self.open(segment, wave, mode, encoded.kind);
        let mut freed = 0;
        let Batch::Items(batch) = &self.segments[segment].open[at].batch else {
            return Err(Error::internal("a row of items in a batch of datapoints"));
        };
        if batch.contains(encoded.hash, prefix) {
            if mode.on_conflict == OnConflict::Error {
                let noun = self.destination.resource.noun;
                let key = String::from_utf8_lossy(&fragment[1..encoded.prefix]).into_owned();
                return Err(Error::new(
                    Kind::Duplicate,
                    format!("the {noun} is written twice in this transaction"),
                )
                .about(self.destination.name())
                .refusing(vec![key], 1)
                .hint("The table's option on_conflict is \"error\"."));
            }
        } else if !batch.has_room(fragment.len(), per_request) {
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

    /// Adds a plain point if that takes no more than a look at its series; gives the bytes by which the memory has changed
    /// if it has.
    #[inline]
    fn push_known(
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
        // Of several the first that takes it: what is later is only what had to be.
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
        match batch.is_full() {
            true => None,
            false => batch.push_known(hash, point, self.closed, held),
        }
    }

    /// Adds a point; gives the bytes by which the memory has changed. `floor`: the first wave that it may go in.
    #[allow(clippy::too_many_arguments)]
    fn push_point(
        &mut self,
        subtransaction: Subtransaction,
        mode: Mode,
        series: &SeriesRef<'_>,
        timestamp: i64,
        floor: usize,
        outside: &Outside,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<isize, Error> {
        let hash = points::series_hash(series);
        let kind = series.kind();
        let segment = self.segment(subtransaction);
        let of = Of::Range(hash, (timestamp, timestamp));
        let wave = |lane: &mut Lane| lane.wave(segment, mode, kind, floor, of);
        let first = wave(self);
        self.shuffled |= first > 0;
        let mut at = self.open(segment, first, mode, kind);
        let mut freed = 0;
        if matches!(&self.segments[segment].open[at].batch, Batch::Points(batch) if !batch.has_room(series, hash))
        {
            let before = self.memory() as isize;
            let room = self.close_full(segment, at, outside)?;
            // The full batch is closed now: the point may belong behind it.
            let next = wave(self);
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
        let earlier = || earlier(&self.traces[wave.min(self.traces.len())..], hash);
        batch.push(series, hash, timestamp, earlier, encode)?;
        Ok(batch.bytes() as isize - before + freed)
    }

    /// Adds a stretch of a series' time that is to be deleted; gives the bytes by which the memory has changed.
    fn push_range(
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
        let wave = self.wave(segment, mode, kind, floor, Of::Range(hash, (first, end - 1)));
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

    /// Gives the rows of an ended subtransaction to its parent.
    fn release(&mut self, ended: Subtransaction, parent: Subtransaction, budget: usize) -> Result<(), Error> {
        if self.segments.last().is_none_or(|segment| segment.subtransaction < ended) {
            return Ok(());
        }
        let into =
            self.segments.len().checked_sub(2).filter(|at| self.segments[*at].subtransaction >= parent);
        let Some(into) = into else {
            if let Some(segment) = self.segments.last_mut() {
                segment.subtransaction = parent;
            }
            return Ok(());
        };
        let Some(child) = self.segments.pop() else {
            return Ok(());
        };
        self.segments[into].closed.extend(child.closed);
        let mut opened = child.open;
        // Earlier writes of a key first.
        opened.sort_by_key(|open| open.wave);
        for open in opened {
            self.adopt(into, open, budget)?;
        }
        Ok(())
    }

    /// Adds a batch that was written after everything in the segment: to an open batch if it may, else beside them.
    fn adopt(&mut self, into: usize, open: Open, budget: usize) -> Result<(), Error> {
        let mut candidates: Vec<usize> = (0..self.segments[into].open.len()).collect();
        // The earliest wave that will do: otherwise savepoint after savepoint would add another.
        candidates.sort_by_key(|at| self.segments[into].open[*at].wave);
        if let Some(at) = candidates.into_iter().find(|at| self.may_join(into, *at, &open)) {
            let merge = self.merge(open.mode);
            return match (&mut self.segments[into].open[at].batch, open.batch) {
                (Batch::Items(batch), Batch::Items(later)) => batch.absorb(&later, merge),
                (Batch::Points(batch), Batch::Points(later)) => {
                    batch.absorb(later);
                    Ok(())
                }
                (Batch::Ranges(batch), Batch::Ranges(later)) => {
                    batch.absorb(later);
                    Ok(())
                }
                _ => Err(Error::internal("batches of items and of datapoints in one lane")),
            };
        }
        let same = |candidate: &Open| candidate.is(open.wave, open.mode, open.kind);
        if let Some(at) = self.segments[into].open.iter().position(same) {
            let earlier = self.segments[into].open.swap_remove(at);
            self.close(into, earlier, budget, &Foreground)?;
        }
        self.segments[into].open.push(open);
        Ok(())
    }

    /// Whether a later batch has room in an open one, and nothing of it is in a wave after that.
    fn may_join(&self, into: usize, at: usize, later: &Open) -> bool {
        let open = &self.segments[into].open[at];
        let wave = if self.tied { open.wave == later.wave } else { open.wave <= later.wave };
        if open.mode != later.mode || open.kind != later.kind || !wave {
            return false;
        }
        let room = match (&open.batch, &later.batch) {
            (Batch::Items(batch), Batch::Items(later)) => {
                batch.items() + later.items() <= self.per_request()
                    && batch.bytes() + later.bytes() < BODY_BYTES
            }
            (Batch::Points(batch), Batch::Points(later)) => batch.has_room_for(later),
            (Batch::Ranges(batch), Batch::Ranges(later)) => batch.has_room_for(later),
            _ => false,
        };
        // Two writes of a key are an error then, which only CDF's answer to separate requests brings up.
        let refused = open.mode.on_conflict == OnConflict::Error && open.batch.conflicts_with(&later.batch);
        let between = || {
            let others = self.highest_of_others(later.kind);
            open.wave == later.wave
                || others.is_none_or(|wave| wave < open.wave)
                    && !self.traces.iter().skip(open.wave).any(|trace| trace.conflicts_with(&later.batch))
        };
        let outer = self.segments[..into].iter().flat_map(|segment| &segment.open);
        let before = |other: &Open| other.wave >= open.wave && other.batch.conflicts_with(&later.batch);
        let after = |other: &Open| {
            let beside = other.wave == open.wave && other.mode != open.mode;
            (other.wave > open.wave || beside) && other.batch.conflicts_with(&later.batch)
        };
        room && !refused
            && between()
            && !self.segments[into].open.iter().any(after)
            && !outer.into_iter().any(before)
    }
}

/// First and last moment of what the closed chunks of some waves hold of a series.
fn earlier(traces: &[Trace], series: u64) -> (i64, i64) {
    let ranges = traces.iter().filter_map(|trace| match trace {
        Trace::Ranges(trace) => trace.range(series),
        Trace::Keys(_) => Some(points::ALWAYS),
    });
    ranges.fold((i64::MAX, i64::MIN), |all, range| (all.0.min(range.0), all.1.max(range.1)))
}

impl TransactionBuffer {
    /// `limit`: bytes that may stay on the heap. `background`: where full requests are made while others are filled.
    pub fn new(limit: usize, background: &'static dyn Background) -> Self {
        TransactionBuffer {
            lanes: Vec::new(),
            raw_lanes: HashMap::new(),
            limit,
            memory: 0,
            failure: None,
            moment: 0,
            background,
        }
    }

    /// The lane of a destination. It stays the same for the transaction.
    pub fn lane(
        &mut self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        raw: Option<(&str, &str)>,
    ) -> usize {
        let found = match raw {
            Some((database, table)) => {
                let lanes = self.raw_lanes.entry((database.to_owned(), table.to_owned())).or_default();
                lanes.iter().copied().find(|at| self.lanes[*at].destination.is(connection, resource, raw))
            }
            None => self.lanes.iter().position(|lane| lane.destination.is(connection, resource, raw)),
        };
        found.unwrap_or_else(|| {
            let owned = raw.map(|(database, table)| (database.to_owned(), table.to_owned()));
            let candidates = match &owned {
                Some(names) => self.raw_lanes.get(names).cloned().unwrap_or_default(),
                None => (0..self.lanes.len()).collect(),
            };
            let to = Destination { connection: connection.clone(), resource, raw: owned.clone(), view: None };
            let at = self.add_lane(to, &candidates);
            if let Some(names) = owned {
                self.raw_lanes.entry(names).or_default().push(at);
            }
            at
        })
    }

    /// As [`TransactionBuffer::lane`], of nodes or edges that are written through a view.
    pub fn lane_of_view(
        &mut self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        view: &Arc<View>,
    ) -> usize {
        let is = |lane: &Lane| {
            let to = &lane.destination;
            to.takes(connection, resource) && to.view.as_ref().is_some_and(|other| other.name == view.name)
        };
        self.lanes.iter().position(is).unwrap_or_else(|| {
            let view = Some(view.clone());
            let to = Destination { connection: connection.clone(), resource, raw: None, view };
            let all: Vec<usize> = (0..self.lanes.len()).collect();
            self.add_lane(to, &all)
        })
    }

    /// Whether the lane is the destination's.
    pub fn is_lane(&self, lane: usize, connection: &Arc<Connection>, raw: Option<(&str, &str)>) -> bool {
        let destination = &self.lanes[lane].destination;
        destination.is(connection, destination.resource, raw)
    }

    /// Adds an encoded item or RAW row.
    pub fn push_item(
        &mut self,
        lane: usize,
        subtransaction: Subtransaction,
        mode: Mode,
        fragment: &[u8],
        encoded: &Encoded,
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        self.check()?;
        if encoded.kind == KeyKind::Id
            && !matches!(self.lanes[lane].destination.resource.shape, Shape::SequenceRows)
        {
            let rest = &fragment[encoded.prefix..];
            self.lanes[lane].renames |= memchr::memmem::find(rest, b"\"externalId\":").is_some();
        }
        let of = Of::Item(encoded.hash, &fragment[..encoded.prefix]);
        let floor = self.floor(lane, of, mode, encoded.kind);
        let outside = self.outside();
        let delta = self.lanes[lane].push_item(subtransaction, mode, fragment, encoded, floor, &outside)?;
        self.account(delta, spill)
    }

    /// Adds a plain point, and gives true, if its series is in the only open request of the lane and nothing earlier is in
    /// its way. Otherwise [`Self::push_point`] is to find the place.
    #[inline]
    pub fn push_known_point(
        &mut self,
        lane: usize,
        subtransaction: Subtransaction,
        mode: Mode,
        point: &PlainPoint<'_>,
        spill: &mut dyn Spill,
    ) -> Result<bool, Error> {
        if self.failure.is_some() {
            return Ok(false);
        }
        match self.lanes[lane].push_known(subtransaction, mode, point) {
            Some(0) => Ok(true),
            Some(delta) => self.account(delta, spill).map(|()| true),
            None => Ok(false),
        }
    }

    /// Adds a point; `encode` appends it to the list of its series.
    #[allow(clippy::too_many_arguments)]
    pub fn push_point(
        &mut self,
        lane: usize,
        subtransaction: Subtransaction,
        mode: Mode,
        series: &SeriesRef<'_>,
        timestamp: i64,
        spill: &mut dyn Spill,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check()?;
        let of = Of::Range(points::series_hash(series), (timestamp, timestamp));
        let floor = self.floor(lane, of, mode, series.kind());
        let outside = self.outside();
        let delta =
            self.lanes[lane].push_point(subtransaction, mode, series, timestamp, floor, &outside, encode)?;
        self.account(delta, spill)
    }

    /// Adds a stretch of a series' time, its end excluded, that is to be deleted. Milliseconds.
    pub fn push_range(
        &mut self,
        lane: usize,
        subtransaction: Subtransaction,
        mode: Mode,
        series: &SeriesRef<'_>,
        range: (i64, i64),
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        self.check()?;
        let of = Of::Range(points::series_hash(series), (range.0, range.1 - 1));
        let floor = self.floor(lane, of, mode, series.kind());
        let outside = self.outside();
        let delta = self.lanes[lane].push_range(subtransaction, mode, series, range, floor, &outside)?;
        self.account(delta, spill)
    }

    fn outside(&self) -> Outside {
        Outside { budget: self.limit, background: self.background }
    }

    fn check(&mut self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(failure.clone()),
        }
    }

    fn account(&mut self, delta: isize, spill: &mut dyn Spill) -> Result<(), Error> {
        self.memory = self.memory.saturating_add_signed(delta);
        if self.memory > self.limit {
            self.relieve(spill)?;
        }
        Ok(())
    }

    /// Waits for what is made in the background.
    fn settle(&mut self) -> Result<(), Error> {
        self.closed_mut().try_for_each(Chunk::settle)
    }

    fn closed_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.segments).flat_map(|segment| &mut segment.closed)
    }

    /// Moves closed chunks to temporary files, and open batches too if they are what fills the memory.
    fn relieve(&mut self, spill: &mut dyn Spill) -> Result<(), Error> {
        // What is being made counts as more than what comes of it.
        self.settle()?;
        self.memory = self.lanes.iter().map(Lane::memory).sum();
        if self.memory <= self.limit {
            return Ok(());
        }
        let opened = |lane: &Lane| {
            lane.segments.iter().flat_map(|s| &s.open).map(|open| open.batch.bytes()).sum::<usize>()
        };
        if self.lanes.iter().map(opened).sum::<usize>() > self.limit / 2 {
            for lane in &mut self.lanes {
                // Inner segments first: closing looks at what surrounding ones still have open.
                for segment in (0..lane.segments.len()).rev() {
                    lane.close_segment(segment, self.limit)?;
                }
            }
        }
        for chunk in self.closed_mut() {
            chunk.spill(spill)?;
        }
        self.memory = self.lanes.iter().map(Lane::memory).sum();
        Ok(())
    }

    /// The present, for a reader that must not see what is written later: [`TransactionBuffer::pending`]. What is open
    /// of the resource is closed, since later writes would be merged into it.
    pub fn moment(
        &mut self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
    ) -> Result<Moment, Error> {
        for lane in &mut self.lanes {
            if lane.destination.reaches(connection, resource) {
                for segment in (0..lane.segments.len()).rev() {
                    lane.close_segment(segment, self.limit)?;
                }
            }
            lane.moment = self.moment + 1;
        }
        self.moment += 1;
        self.memory = self.lanes.iter().map(Lane::memory).sum();
        Ok(self.moment)
    }

    /// A subtransaction ended well: its rows are its parent's now.
    pub fn release(&mut self, ended: Subtransaction, parent: Subtransaction) {
        for lane in &mut self.lanes {
            if let Err(error) = lane.release(ended, parent, self.limit) {
                self.failure = Some(error);
            }
        }
        self.memory = self.lanes.iter().map(Lane::memory).sum();
    }

    /// A subtransaction was rolled back: its rows were never written.
    pub fn rollback(&mut self, ended: Subtransaction) {
        for lane in &mut self.lanes {
            lane.segments.retain(|segment| segment.subtransaction < ended);
        }
        self.memory = self.lanes.iter().map(Lane::memory).sum();
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| {
            lane.segments.iter().all(|segment| {
                segment.closed.is_empty() && segment.open.iter().all(|open| open.batch.is_empty())
            })
        })
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes that may stay on the heap from now on. What is there already leaves it when the next row comes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Everything, as finished requests.
    pub fn finish(mut self) -> Result<Vec<Delivery>, Error> {
        self.check()?;
        let mut deliveries = Vec::with_capacity(self.lanes.len());
        for mut lane in self.lanes {
            for segment in (0..lane.segments.len()).rev() {
                lane.close_segment(segment, self.limit)?;
            }
            let mut chunks: Vec<Chunk> =
                lane.segments.into_iter().flat_map(|segment| segment.closed).collect();
            chunks.iter_mut().try_for_each(Chunk::settle)?;
            if !chunks.is_empty() {
                deliveries.push(Delivery { destination: lane.destination, chunks });
            }
        }
        Ok(deliveries)
    }
}

#[cfg(test)]
mod tests;
