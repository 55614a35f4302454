//! The body of a request of items.

use bytes::Bytes;

/// Beginning and end of every such request.
pub const HEAD: &[u8] = b"{\"items\":[";

pub const TAIL: &[u8] = b"]}";

/// Bytes of a request body; CDF documents no limit, and gateways refuse very large bodies.
pub const BODY_BYTES: usize = 4 << 20;

/// A request body that is ready to send, and what delivery must know of its items.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Body {
    /// Shared by all attempts to send it.
    pub bytes: Bytes,
    /// Start and end of each item in `bytes`; empty for datapoints.
    pub items: Vec<(u32, u32)>,
    /// Hash of each item's key and of its parent's (0: none); kept for assets only.
    pub family: Vec<(u64, u64)>,
}

impl Body {
    pub fn fragment(&self, at: usize) -> &[u8] {
        let (start, end) = self.items[at];
        &self.bytes[start as usize..end as usize]
    }

    /// The items' objects.
    pub fn fragments(&self) -> impl Iterator<Item = &[u8]> + '_ {
        (0..self.items.len()).map(|at| self.fragment(at))
    }

    /// `{"items":[…]}` of these fragments.
    pub fn from_fragments<'f>(fragments: impl IntoIterator<Item = &'f [u8]>) -> Body {
        let mut body = BodyBuilder::default();
        for fragment in fragments {
            body.append(fragment);
        }
        body.build()
    }

    pub(super) fn heap(&self) -> usize {
        self.bytes.len() + self.items.capacity() * 8 + self.family.capacity() * 16
    }
}

/// `{"items":[…`, to be appended to.
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

    /// Makes room for so many more items, and bytes of them.
    pub fn reserve(&mut self, items: usize, bytes: usize) {
        self.items.reserve(items);
        self.bytes.reserve(bytes + TAIL.len());
    }

    pub fn append(&mut self, fragment: &[u8]) {
        if self.bytes.len() > HEAD.len() {
            self.bytes.push(b',');
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(fragment);
        self.items.push((start, self.bytes.len() as u32));
    }

    /// The items' objects.
    pub fn fragments(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.items.iter().map(|(start, end)| &self.bytes[*start as usize..*end as usize])
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * 8
    }

    pub fn build(mut self) -> Body {
        self.bytes.extend_from_slice(TAIL);
        Body { bytes: self.bytes.into(), items: self.items, family: Vec::new() }
    }
}

/// What a full batch held, which the one after it is likely to hold too.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub(super) bytes: usize,
    pub(super) rows: usize,
    pub(super) keys: usize,
}
