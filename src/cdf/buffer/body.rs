//! The body of a request that carries items.

use bytes::Bytes;

use crate::cdf::encode::fragment::Fragment;

/// The beginning and end of every such body.
pub const HEAD: &[u8] = b"{\"items\":[";

pub const TAIL: &[u8] = b"]}";

/// Maximum size of a request body in bytes. CDF documents no limit, but gateways refuse very large bodies.
pub const BODY_BYTES: usize = 4 << 20;

/// A request body that is ready to send, and what delivery needs to know about its items.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Body {
    /// The bytes, shared by all attempts to send them.
    pub bytes: Bytes,
    /// Start and end of each item in `bytes`; empty for datapoints.
    pub items: Vec<(u32, u32)>,
    /// Hash of each item's key and of its parent's (0: none); kept for assets only.
    pub family: Vec<(u64, u64)>,
}

impl Body {
    pub fn fragment(&self, at: usize) -> Fragment<'_> {
        let (start, end) = self.items[at];
        Fragment::of(&self.bytes[start as usize..end as usize])
    }

    /// Returns the items' objects.
    pub fn fragments(&self) -> impl Iterator<Item = Fragment<'_>> + '_ {
        (0..self.items.len()).map(|at| self.fragment(at))
    }

    /// Builds the body `{"items":[…]}` from these objects.
    pub fn of(items: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Body {
        let mut body = BodyBuilder::default();
        for item in items {
            body.append(item.as_ref());
        }
        body.build()
    }

    pub(super) fn heap(&self) -> usize {
        self.bytes.len() + self.items.capacity() * 8 + self.family.capacity() * 16
    }
}

/// An unfinished `{"items":[…` that items are appended to.
#[derive(Debug)]
pub struct BodyBuilder {
    bytes: Vec<u8>,
    items: Vec<(u32, u32)>,
}

impl Default for BodyBuilder {
    fn default() -> Self {
        BodyBuilder { bytes: HEAD.to_vec(), items: Vec::new() }
    }
}

impl BodyBuilder {
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Reserves room for this many more items and bytes.
    pub fn reserve(&mut self, items: usize, bytes: usize) {
        self.items.reserve(items);
        self.bytes.reserve(bytes + TAIL.len());
    }

    pub fn append(&mut self, item: &[u8]) {
        if self.bytes.len() > HEAD.len() {
            self.bytes.push(b',');
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(item);
        self.items.push((start, self.bytes.len() as u32));
    }

    /// Returns the items' objects.
    pub fn fragments(&self) -> impl Iterator<Item = Fragment<'_>> + '_ {
        let item = |(start, end): &(u32, u32)| Fragment::of(&self.bytes[*start as usize..*end as usize]);
        self.items.iter().map(item)
    }

    /// Returns the number of bytes on the heap.
    pub fn heap(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * 8
    }

    pub fn build(mut self) -> Body {
        self.bytes.extend_from_slice(TAIL);
        Body { bytes: self.bytes.into(), items: self.items, family: Vec::new() }
    }
}

/// The size of a full batch, used to size the next one.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub(super) bytes: usize,
    pub(super) rows: usize,
    pub(super) keys: usize,
}
