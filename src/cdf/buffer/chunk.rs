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

/// Where chunks go that have no room in memory.
pub trait Spill {
    /// Writes the parts one after another.
    fn write(&mut self, parts: &[&[u8]]) -> Result<Extent, Error>;
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, Error>;
}

/// Where work is done that nobody waits for yet.
pub trait Background: std::fmt::Debug {
    /// Does the work at some time; may do it at once. What it leaves undone is an error for whoever waits for it.
    fn start(&self, work: Box<dyn FnOnce() + Send>);
}

/// Does the work at once.
#[derive(Debug)]
pub struct Foreground;

impl Background for Foreground {
    fn start(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// A stretch of a temporary file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: i64,
    /// Bytes.
    pub len: usize,
}

/// A body and the rows in it.
type Made = Result<(Body, usize), Error>;

#[derive(Debug)]
enum Payload {
    Memory(Body),
    /// In the background. `bytes`: what it is made of.
    Making {
        body: Receiver<Made>,
        bytes: usize,
    },
    /// Kept: after a savepoint is rolled back, the transaction may go on, and must not end without its rows.
    Failed(Error),
    /// Items of other chunks, put together when they are needed. `places`: the chunk of each, and which of its items.
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
    /// Items hold nulls to clear or references to resolve: they cannot be sent as they are.
    pub deferred: bool,
    /// An item has a parent by external id, so that the items are in an order that matters: later ones may need earlier
    /// ones.
    pub has_parents: bool,
    /// Every item has all that creating it takes.
    pub complete: bool,
}

impl Header {
    /// Of items of which nothing more is known.
    pub fn new(mode: Mode, kind: KeyKind) -> Header {
        Header { mode, kind, deferred: false, has_parents: false, complete: false }
    }
}

/// A finished request and how it is to be delivered.
#[derive(Debug)]
pub struct Chunk {
    pub wave: usize,
    pub header: Header,
    /// Items, rows or points in it, once it is settled.
    pub rows: usize,
    /// When it was closed.
    pub closed: Moment,
    /// Which of its lane it is.
    pub number: u64,
    /// Which keys it may hold; None if that is not known.
    pub keys: Option<KeyTrace>,
    payload: Payload,
}

impl Chunk {
    pub fn new(wave: usize, header: Header, rows: usize, body: Body) -> Chunk {
        Chunk { wave, header, rows, closed: 0, number: 0, keys: None, payload: Payload::Memory(body) }
    }

    /// A chunk whose body is made by `make`, of so many bytes, while others are still filled. It can be used when it is
    /// [settled](Chunk::settle).
    pub fn made(
        wave: usize,
        header: Header,
        bytes: usize,
        make: impl FnOnce() -> Made + Send + 'static,
        background: &dyn Background,
    ) -> Chunk {
        let (sender, body) = channel();
        // Nobody may want it any more.
        background.start(Box::new(move || drop(sender.send(make()))));
        Chunk { payload: Payload::Making { body, bytes }, ..Chunk::new(wave, header, 0, Body::default()) }
    }

    /// A chunk of items of other chunks, which are settled: the chunk of each, and which of its items; `bytes`: how many
    /// they have.
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
    /// Those of what makes it.
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

    /// Whether the body is still being made.
    pub fn is_unsettled(&self) -> bool {
        matches!(self.payload, Payload::Making { .. })
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        let body = match &self.payload {
            Payload::Memory(body) => body.heap(),
            Payload::Making { bytes, .. } => *bytes,
            Payload::Failed(_) | Payload::Picked { .. } | Payload::Spilled { .. } => 0,
        };
        body + self.keys.as_ref().map_or(0, KeyTrace::bytes)
    }

    /// Moves the body to a temporary file. If writing fails, the body is still in memory.
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
        // Of a transaction of any size nothing may stay on the heap.
        self.keys = None;
        Ok(())
    }

    /// The body of a settled chunk, read back if need be. A chunk is sent once, so it is given away.
    pub fn into_body(self, from: &mut dyn Spill) -> Result<Body, Error> {
        match self.payload {
            Payload::Memory(body) => Ok(body),
            _ => self.read(from).map(Cow::into_owned),
        }
    }

    /// One of its items; of a body in a temporary file no more is read.
    pub fn fragment(&self, at: usize, from: &mut dyn Spill) -> Result<Cow<'_, [u8]>, Error> {
        match &self.payload {
            Payload::Memory(body) => Ok(Cow::Borrowed(body.fragment(at))),
            Payload::Spilled { extent, bytes, .. } => {
                let place = extent.offset + (bytes + at * 8) as i64;
                let place = from.read(Extent { offset: place, len: 8 })?;
                let word = |at: &[u8]| u32::from_le_bytes(at.try_into().expect("four bytes"));
                let (start, end) = (word(&place[..4]), word(&place[4..]));
                let offset = extent.offset + i64::from(start);
                from.read(Extent { offset, len: (end - start) as usize }).map(Cow::Owned)
            }
            _ => self.read(from).map(|body| Cow::Owned(body.fragment(at).to_vec())),
        }
    }

    /// Some of its body's bytes; of a body in a temporary file no more is read.
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

    /// The body of a settled chunk, for looking into it more than once.
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

/// The body of items that are in other chunks: the chunk of each, and which of its items.
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
            body.append(chunks[*chunk as usize].read(spill)?.fragment(*item as usize));
        }
        return Ok(body.build());
    }
    // Chunk by chunk, so that each is read back once.
    let mut visits: Vec<usize> = (0..places.len()).collect();
    visits.sort_by_key(|at| places[*at]);
    let mut found = vec![0..0; places.len()];
    let mut copied = Vec::with_capacity(bytes);
    for visit in visits.chunk_by(|a, b| places[*a].0 == places[*b].0) {
        let source = chunks[places[visit[0]].0 as usize].read(spill)?;
        for at in visit {
            let start = copied.len();
            copied.extend_from_slice(source.fragment(places[*at].1 as usize));
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
