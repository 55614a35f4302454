//! A finished request, in memory or in a temporary file.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver};

use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::table::Mode;

use super::body::{Body, BodyBuilder};
use super::moment::Moment;
use super::trace::KeyTrace;

/// Where chunks are written that do not fit in memory.
pub trait Spill {
    /// Writes the parts one after another.
    fn write(&mut self, parts: &[&[u8]]) -> Result<Extent, Error>;
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, Error>;
}

/// Runs work whose result is not needed yet.
pub trait Background: std::fmt::Debug {
    /// Runs the work, now or later. Work that never runs becomes an error for whoever waits for its result.
    fn start(&self, work: Box<dyn FnOnce() + Send>);
}

/// Runs the work at once.
#[derive(Debug)]
pub struct Foreground;

impl Background for Foreground {
    fn start(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// A range of bytes in a temporary file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: i64,
    /// Length in bytes.
    pub len: usize,
}

/// A body and its number of rows.
type Made = Result<(Body, usize), Error>;

#[derive(Debug)]
enum Payload {
    Memory(Body),
    /// Being made in the background from `bytes` bytes.
    Making {
        body: Receiver<Made>,
        bytes: usize,
    },
    /// The error is kept: after a rollback to a savepoint the transaction may continue, and must not commit without
    /// these rows.
    Failed(Error),
    /// Items of other chunks, gathered when they are needed. `places`: the chunk and the index of each item.
    Picked {
        from: Rc<Vec<Chunk>>,
        places: Vec<(u32, u32)>,
        bytes: usize,
    },
    Spilled {
        extent: Extent,
        bytes: usize,
        items: usize,
        family: usize,
    },
}

/// How the items of a request are to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub mode: Mode,
    pub kind: KeyKind,
    /// Items hold nulls to clear or references to resolve, so they cannot be sent as they are.
    pub deferred: bool,
    /// An item has a parent given by external id. The order of the items matters then: later ones may need earlier
    /// ones.
    pub has_parents: bool,
    /// Every item has all properties that creating it requires.
    pub complete: bool,
}

impl Header {
    /// Returns the header of items about which nothing more is known.
    pub fn new(mode: Mode, kind: KeyKind) -> Header {
        Header { mode, kind, deferred: false, has_parents: false, complete: false }
    }
}

/// A finished request and how to deliver it.
#[derive(Debug)]
pub struct Chunk {
    pub wave: usize,
    pub header: Header,
    /// The number of items, rows or points, once the chunk is settled.
    pub rows: usize,
    /// When the chunk was closed.
    pub closed: Moment,
    /// The chunk's number in its lane.
    pub number: u64,
    /// The keys that the chunk may hold; None if unknown.
    pub keys: Option<KeyTrace>,
    payload: Payload,
}

impl Chunk {
    pub fn new(wave: usize, header: Header, rows: usize, body: Body) -> Chunk {
        Chunk { wave, header, rows, closed: 0, number: 0, keys: None, payload: Payload::Memory(body) }
    }

    /// Creates a chunk whose body of `bytes` bytes is made by `make` in the background. It can be used once it is
    /// [settled](Chunk::settle).
    pub fn made(
        wave: usize,
        header: Header,
        bytes: usize,
        make: impl FnOnce() -> Made + Send + 'static,
        background: &dyn Background,
    ) -> Chunk {
        let (sender, body) = channel();
        // The receiver may be gone already.
        background.start(Box::new(move || drop(sender.send(make()))));
        Chunk { payload: Payload::Making { body, bytes }, ..Chunk::new(wave, header, 0, Body::default()) }
    }

    /// Creates a chunk from items of other, settled chunks. `places`: the chunk and index of each item; `bytes`: their
    /// total size.
    pub fn picked(
        wave: usize,
        header: Header,
        from: Rc<Vec<Chunk>>,
        places: Vec<(u32, u32)>,
        bytes: usize,
    ) -> Chunk {
        let rows = places.len();
        let payload = Payload::Picked { from, places, bytes };
        Chunk { payload, ..Chunk::new(wave, header, rows, Body::default()) }
    }

    /// Waits until the body is made.
    ///
    /// # Errors
    /// Returns the error of making the body.
    pub fn settle(&mut self) -> Result<(), Error> {
        if let Payload::Making { body, .. } = &self.payload {
            let lost = |_| Err(Error::internal("a request was not made: see the server log"));
            self.payload = match body.recv().unwrap_or_else(lost) {
                Ok((body, rows)) => {
                    self.rows = rows;
                    Payload::Memory(body)
                }
                Err(error) => Payload::Failed(error),
            };
        }
        match &self.payload {
            Payload::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Checks whether the body is still being made.
    pub fn is_unsettled(&self) -> bool {
        matches!(self.payload, Payload::Making { .. })
    }

    /// Returns the number of bytes of its items.
    pub fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Memory(body) => body.bytes.len(),
            Payload::Making { bytes, .. }
            | Payload::Picked { bytes, .. }
            | Payload::Spilled { bytes, .. } => *bytes,
            Payload::Failed(_) => 0,
        }
    }

    /// Returns the number of bytes on the heap.
    pub fn memory(&self) -> usize {
        let body = match &self.payload {
            Payload::Memory(body) => body.heap(),
            Payload::Making { bytes, .. } => *bytes,
            Payload::Failed(_) | Payload::Picked { .. } | Payload::Spilled { .. } => 0,
        };
        body + self.keys.as_ref().map_or(0, KeyTrace::bytes)
    }

    /// Moves the body to a temporary file. If writing fails, the body stays in memory.
    pub fn spill(&mut self, to: &mut dyn Spill) -> Result<(), Error> {
        self.settle()?;
        let Payload::Memory(body) = &self.payload else {
            return Ok(());
        };
        let items: Vec<u8> = body
            .items
            .iter()
            .flat_map(|(start, end)| [start.to_le_bytes(), end.to_le_bytes()])
            .flatten()
            .collect();
        let family: Vec<u8> = body
            .family
            .iter()
            .flat_map(|(key, parent)| [key.to_le_bytes(), parent.to_le_bytes()])
            .flatten()
            .collect();
        let extent = to.write(&[&body.bytes, &items, &family])?;
        self.payload =
            Payload::Spilled { extent, bytes: body.bytes.len(), items: items.len(), family: family.len() };
        // The heap must not grow with the size of the transaction.
        self.keys = None;
        Ok(())
    }

    /// Returns the body of a settled chunk, read back if necessary. A chunk is sent once, so this consumes it.
    pub fn into_body(self, from: &mut dyn Spill) -> Result<Body, Error> {
        match self.payload {
            Payload::Memory(body) => Ok(body),
            _ => self.read(from).map(Cow::into_owned),
        }
    }

    /// Returns one item. Reads only that item if the body is in a temporary file.
    pub fn fragment(&self, at: usize, from: &mut dyn Spill) -> Result<Cow<'_, [u8]>, Error> {
        match &self.payload {
            Payload::Memory(body) => Ok(Cow::Borrowed(body.fragment(at).bytes())),
            Payload::Spilled { extent, bytes, .. } => {
                let place = extent.offset + (bytes + at * 8) as i64;
                let place = from.read(Extent { offset: place, len: 8 })?;
                let word = |at: &[u8]| u32::from_le_bytes(at.try_into().expect("four bytes"));
                let (start, end) = (word(&place[..4]), word(&place[4..]));
                let offset = extent.offset + i64::from(start);
                from.read(Extent { offset, len: (end - start) as usize }).map(Cow::Owned)
            }
            _ => self.read(from).map(|body| Cow::Owned(body.fragment(at).bytes().to_vec())),
        }
    }

    /// Returns some bytes of the body. Reads only those if the body is in a temporary file.
    pub fn part(&self, at: std::ops::Range<usize>, from: &mut dyn Spill) -> Result<Cow<'_, [u8]>, Error> {
        match &self.payload {
            Payload::Memory(body) => Ok(Cow::Borrowed(&body.bytes[at])),
            Payload::Spilled { extent, .. } => {
                let offset = extent.offset + at.start as i64;
                from.read(Extent { offset, len: at.len() }).map(Cow::Owned)
            }
            _ => self.read(from).map(|body| Cow::Owned(body.bytes[at].to_vec())),
        }
    }

    /// Returns the body of a settled chunk without consuming the chunk.
    pub fn read(&self, from: &mut dyn Spill) -> Result<Cow<'_, Body>, Error> {
        let (extent, bytes, items, family) = match &self.payload {
            Payload::Memory(body) => return Ok(Cow::Borrowed(body)),
            Payload::Making { .. } => return Err(Error::internal("a request is not made yet")),
            Payload::Failed(error) => return Err(error.clone()),
            Payload::Picked { from: chunks, places, bytes } => {
                return gather(chunks, places, *bytes, from).map(Cow::Owned)
            }
            Payload::Spilled { extent, bytes, items, family } => (*extent, *bytes, *items, *family),
        };
        let mut all = from.read(extent)?;
        if all.len() != bytes + items + family {
            return Err(Error::internal("a temporary file gave back fewer bytes than were written"));
        }
        let word = |at: &[u8]| u32::from_le_bytes(at.try_into().expect("four bytes"));
        let long = |at: &[u8]| u64::from_le_bytes(at.try_into().expect("eight bytes"));
        let family =
            all.split_off(bytes + items).chunks_exact(16).map(|p| (long(&p[..8]), long(&p[8..]))).collect();
        let items = all.split_off(bytes).chunks_exact(8).map(|p| (word(&p[..4]), word(&p[4..]))).collect();
        Ok(Cow::Owned(Body { bytes: all.into(), items, family }))
    }
}

/// Builds a body from items of other chunks, given the chunk and index of each.
fn gather(
    chunks: &[Chunk],
    places: &[(u32, u32)],
    bytes: usize,
    spill: &mut dyn Spill,
) -> Result<Body, Error> {
    let mut body = BodyBuilder::default();
    body.reserve(places.len(), bytes);
    if places.iter().all(|(chunk, _)| matches!(chunks[*chunk as usize].payload, Payload::Memory(_))) {
        for (chunk, item) in places {
            body.append(chunks[*chunk as usize].read(spill)?.fragment(*item as usize).bytes());
        }
        return Ok(body.build());
    }
    // Visit the items chunk by chunk, so that each chunk is read back once.
    let mut visits: Vec<usize> = (0..places.len()).collect();
    visits.sort_by_key(|at| places[*at]);
    let mut found = vec![0..0; places.len()];
    let mut copied = Vec::with_capacity(bytes);
    for visit in visits.chunk_by(|a, b| places[*a].0 == places[*b].0) {
        let source = chunks[places[visit[0]].0 as usize].read(spill)?;
        for at in visit {
            let start = copied.len();
            copied.extend_from_slice(source.fragment(places[*at].1 as usize).bytes());
            found[*at] = start..copied.len();
        }
    }
    found.into_iter().for_each(|range| body.append(&copied[range]));
    Ok(body.build())
}

/// Temporary storage in memory, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct MemorySpill {
    pub bytes: Vec<u8>,
}

#[cfg(test)]
impl Spill for MemorySpill {
    fn write(&mut self, parts: &[&[u8]]) -> Result<Extent, Error> {
        let offset = self.bytes.len() as i64;
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        Ok(Extent { offset, len: self.bytes.len() - offset as usize })
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, Error> {
        Ok(self.bytes[extent.offset as usize..][..extent.len].to_vec())
    }
}
