//! The buffer of a transaction: its lanes and their memory.

use std::sync::Arc;

use hashbrown::HashMap;

use super::chunk::{Background, Chunk, Spill};
use super::destination::Destination;
use super::lane::{Lane, Outside};
use super::moment::{Moment, Subtransaction};
use super::points;
use super::wave::Touched;
use crate::cdf::encode::fragment::Fragment;
use crate::cdf::encode::points::{EncodedPoint, PlainPoint, SeriesRef};
use crate::cdf::encode::{EncodedRow, KeyKind};
use crate::cdf::error::Error;
use crate::cdf::http::connection::Connection;
use crate::cdf::resource::Resource;
use crate::cdf::table::view::View;
use crate::cdf::table::Mode;

/// All rows of a transaction that are not delivered yet.
#[derive(Debug)]
pub struct TransactionBuffer {
    pub(super) lanes: Vec<Lane>,
    /// Lanes of RAW tables by name: a generic RAW table may write to thousands of tables.
    pub(super) raw_lanes: HashMap<(String, String), Vec<usize>>,
    /// Bytes that may stay on the heap.
    pub(super) limit: usize,
    pub(super) memory: usize,
    /// A failure at a moment when PostgreSQL accepts no errors; reported at the next opportunity.
    pub(super) failure: Option<Error>,
    pub(super) moment: Moment,
    pub(super) background: &'static dyn Background,
}

/// The finished requests of one destination, in the order in which they were finished.
#[derive(Debug)]
pub struct Delivery {
    pub destination: Arc<Destination>,
    pub chunks: Vec<Chunk>,
}

impl TransactionBuffer {
    /// Creates a buffer. `limit`: bytes that may stay on the heap. `background`: where full requests are made while
    /// others are filled.
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

    /// Returns the lane of a destination. It stays the same for the transaction.
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

    /// Like [`TransactionBuffer::lane`], for nodes or edges written through a view.
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

    /// Checks whether the lane belongs to the destination.
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
        fragment: Fragment<'_>,
        encoded: &EncodedRow,
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        self.check()?;
        if encoded.kind == KeyKind::Id && !self.lanes[lane].destination.resource.is_numbered() {
            self.lanes[lane].renames |= fragment.may_rename(encoded);
        }
        let of = Touched::Item(encoded.hash, fragment.key_of(encoded));
        let floor = self.floor(lane, of, mode, encoded.kind);
        let outside = self.outside();
        let delta = self.lanes[lane].push_item(subtransaction, mode, fragment, encoded, floor, &outside)?;
        self.account(delta, spill)
    }

    /// Adds a plain point and returns true if its series is in the only open request of the lane and no earlier write
    /// is in the way. Otherwise [`Self::push_point`] must find the place.
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

    /// Adds an encoded point.
    pub fn push_point(
        &mut self,
        lane: usize,
        subtransaction: Subtransaction,
        mode: Mode,
        point: &EncodedPoint<'_>,
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        self.check()?;
        let of = Touched::Range(points::series_hash(&point.series), (point.timestamp, point.timestamp));
        let floor = self.floor(lane, of, mode, point.series.kind());
        let outside = self.outside();
        let delta = self.lanes[lane].push_point(subtransaction, mode, point, floor, &outside)?;
        self.account(delta, spill)
    }

    /// Adds a time range of a series to delete, in milliseconds; its end is exclusive.
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
        let of = Touched::Range(points::series_hash(series), (range.0, range.1 - 1));
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

    /// Waits for requests that are being made in the background.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.closed_mut().try_for_each(Chunk::settle)
    }

    fn closed_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.segments).flat_map(|segment| &mut segment.closed)
    }

    /// Moves closed chunks to temporary files, and open batches too if they take up the memory.
    fn relieve(&mut self, spill: &mut dyn Spill) -> Result<(), Error> {
        // A request being made counts as more memory than the finished one.
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
                // Close inner segments first: closing looks at what outer ones still have open.
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

    /// Returns the present moment, for a reader that must not see later writes: [`TransactionBuffer::pending`]. Closes
    /// the open batches of the resource, since later writes would be merged into them.
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

    /// Moves the rows of a committed subtransaction to its parent.
    pub fn release(&mut self, ended: Subtransaction, parent: Subtransaction) {
        for lane in &mut self.lanes {
            if let Err(error) = lane.release(ended, parent, self.limit) {
                self.failure = Some(error);
            }
        }
        self.memory = self.lanes.iter().map(Lane::memory).sum();
    }

    /// Discards the rows of a subtransaction that was rolled back.
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

    /// Returns the number of bytes on the heap.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Sets the limit of bytes on the heap. Any excess is moved off the heap when the next row is added.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Closes everything and returns the finished requests.
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

    // Views share instances. Several connections may reach one project, with the credentials of several roles or with
    // those that a role had before its user mapping was changed. Rows of such lanes share no request, since each
    // request is sent with the credentials of whoever wrote its rows. To keep the order of writes, a write goes into a
    // wave after all that such lanes hold of its item.

    /// Adds a lane, and links it with the lanes that may hold the same items.
    fn add_lane(&mut self, to: Destination, candidates: &[usize]) -> usize {
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

    /// Returns the first wave after what other lanes hold of an item.
    #[inline]
    fn floor(&self, lane: usize, of: Touched<'_>, mode: Mode, kind: KeyKind) -> usize {
        let kin = &self.lanes[lane].kin;
        // Rows without a key concern no existing item.
        if kin.is_empty() || kind == KeyKind::None {
            return 0;
        }
        kin.iter().map(|other| self.lanes[*other].after(of, mode, kind)).max().unwrap_or(0)
    }
}
