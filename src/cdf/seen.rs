//! The keys of the rows that a statement has changed, so that a row that a join returns twice is changed once.
//!
//! The set is exact, and its memory is bounded. Keys beyond its share of memory go to pages of a temporary file, as a hash
//! table that grows by one bucket at a time (linear hashing). A look-up then reads one page, and only the table's
//! dimensions stay in memory.

use hashbrown::HashSet;

use super::cell::Cell;
use super::error::Error;
use super::hash::hash_bytes;

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// Storage for pages.
pub trait PageStore {
    /// # Errors
    /// If the page cannot be read.
    fn read(&mut self, page: u64, into: &mut [u8; PAGE]) -> Result<(), Error>;
    /// Writes a page; it is created if it does not exist.
    ///
    /// # Errors
    /// If the page cannot be written.
    fn write(&mut self, page: u64, from: &[u8; PAGE]) -> Result<(), Error>;
}

/// A set of rows, known by their keys.
#[derive(Debug)]
pub struct SeenRows {
    /// Bytes that may stay in memory.
    limit: usize,
    memory: usize,
    keys: HashSet<Box<[u8]>>,
    table: Option<PagedTable>,
    /// The key of the current row; kept to reuse its memory.
    key: Vec<u8>,
}

/// Memory that a key uses besides its bytes: its place in the set, and the allocator's overhead.
const OVERHEAD: usize = 64;

impl SeenRows {
    pub fn new(limit: usize) -> Self {
        SeenRows { limit, memory: 0, keys: HashSet::new(), table: None, key: Vec::new() }
    }

    /// Adds a row and returns whether it is new.
    ///
    /// # Errors
    /// If pages cannot be read or written.
    pub fn insert(&mut self, keys: &[Cell<'_>], pages: &mut dyn PageStore) -> Result<bool, Error> {
        self.key.clear();
        keys.iter().for_each(|cell| append(&mut self.key, cell));
        if let Some(table) = &mut self.table {
            return table.insert(&self.key, pages);
        }
        if self.keys.contains(&*self.key) {
            return Ok(false);
        }
        self.memory += self.key.len() + OVERHEAD;
        if self.memory <= self.limit {
            self.keys.insert(self.key.as_slice().into());
            return Ok(true);
        }
        let mut table = PagedTable::new(self.memory, pages)?;
        for key in std::mem::take(&mut self.keys) {
            table.insert(&key, pages)?;
        }
        self.memory = 0;
        self.table.insert(table).insert(&self.key, pages)
    }

    /// Bytes of keys in memory.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

/// Appends a value in a form that is unique, also when values are put one after another.
fn append(key: &mut Vec<u8>, cell: &Cell<'_>) {
    let mut bytes = |tag: u8, bytes: &[u8]| {
        key.push(tag);
        key.extend((bytes.len() as u64).to_le_bytes());
        key.extend(bytes);
    };
    match cell {
        Cell::Null => key.push(0),
        Cell::Bool(value) => key.extend([1, u8::from(*value)]),
        Cell::Int(value) => bytes(2, &value.to_le_bytes()),
        Cell::Float(value) => bytes(3, &value.to_bits().to_le_bytes()),
        Cell::Timestamp(value) => bytes(4, &value.to_le_bytes()),
        Cell::Number(digits) => bytes(5, digits.as_bytes()),
        Cell::Text(text) => bytes(6, text.as_bytes()),
        Cell::Json(text) => bytes(7, text.as_bytes()),
        Cell::Bytes(value) => bytes(8, value),
        Cell::Pairs(pairs) => {
            bytes(9, &(pairs.len() as u64).to_le_bytes());
            for (name, value) in *pairs {
                append(key, &Cell::Text(name));
                append(key, &Cell::Text(value));
            }
        }
        Cell::List(cells) => {
            bytes(10, &(cells.len() as u64).to_le_bytes());
            cells.iter().for_each(|cell| append(key, cell));
        }
    }
}

/// Bytes of a page's header: the number of the next page of the bucket or of the free list (from 1, 0 for none), and the
/// number of used bytes.
const HEADER: usize = 16;
const CAPACITY: usize = PAGE - HEADER;
/// How full the first pages are on average before another bucket is added.
const FILL: f64 = 0.6;
/// Bytes of the length before each key.
const LENGTH: usize = 4;

/// A hash table in pages. A bucket's keys fill its first page and then further pages that are chained to it.
#[derive(Debug)]
struct PagedTable {
    /// Buckets at the beginning of this round, a power of two.
    round: u64,
    /// Buckets of the round that have been split.
    split: u64,
    /// Bytes of all keys, with their lengths.
    bytes: u64,
    /// Pages that buckets use besides their first.
    extra: u64,
    /// The head of the list of free pages.
    free: u64,
}

/// A bucket's first page. Every second page is left for chained pages.
fn first_page(bucket: u64) -> u64 {
    bucket * 2
}

/// The keys of a bucket and the pages that hold them.
struct Bucket {
    pages: Vec<u64>,
    bytes: Vec<u8>,
}

impl Bucket {
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.bytes;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<LENGTH>()?;
            let (key, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(key)
        })
    }
}

fn record(out: &mut Vec<u8>, key: &[u8]) {
    out.extend((key.len() as u32).to_le_bytes());
    out.extend(key);
}

impl PagedTable {
    /// Makes a table with buckets for so many bytes.
    fn new(bytes: usize, pages: &mut dyn PageStore) -> Result<PagedTable, Error> {
        let round = (bytes.div_ceil(CAPACITY) as u64).next_power_of_two();
        let table = PagedTable { round, split: 0, bytes: 0, extra: 0, free: 0 };
        for bucket in 0..round {
            pages.write(first_page(bucket), &[0; PAGE])?;
        }
        Ok(table)
    }

    fn bucket_of(&self, key: &[u8]) -> u64 {
        let hash = hash_bytes(key);
        let bucket = hash & (self.round - 1);
        // A bucket that was split in this round has moved half of its keys to a new bucket.
        if bucket < self.split {
            hash & (self.round * 2 - 1)
        } else {
            bucket
        }
    }

    fn insert(&mut self, key: &[u8], pages: &mut dyn PageStore) -> Result<bool, Error> {
        let mut bucket = self.read(self.bucket_of(key), pages)?;
        if bucket.keys().any(|other| other == key) {
            return Ok(false);
        }
        let before = bucket.bytes.len();
        record(&mut bucket.bytes, key);
        self.bytes += (bucket.bytes.len() - before) as u64;
        // Full pages stay as they are.
        self.write(&mut bucket, before / CAPACITY, pages)?;
        if self.bytes as f64 > (self.round + self.split) as f64 * CAPACITY as f64 * FILL {
            self.split_next(pages)?;
        }
        Ok(true)
    }

    /// Adds a bucket, and moves to it its share of the keys of the bucket that is next to be split.
    fn split_next(&mut self, pages: &mut dyn PageStore) -> Result<(), Error> {
        let (old, new) = (self.split, self.round + self.split);
        let mut bucket = self.read(old, pages)?;
        self.split += 1;
        let mut stays = Bucket { pages: vec![first_page(old)], bytes: Vec::new() };
        let mut moves = Bucket { pages: vec![first_page(new)], bytes: Vec::new() };
        for key in bucket.keys() {
            let to = if self.bucket_of(key) == old { &mut stays } else { &mut moves };
            record(&mut to.bytes, key);
        }
        for page in bucket.pages.drain(1..) {
            let mut freed = [0; PAGE];
            freed[..8].copy_from_slice(&self.free.to_le_bytes());
            pages.write(page, &freed)?;
            self.free = page + 1;
        }
        self.write(&mut stays, 0, pages)?;
        self.write(&mut moves, 0, pages)?;
        if self.split == self.round {
            (self.round, self.split) = (self.round * 2, 0);
        }
        Ok(())
    }

    fn read(&self, bucket: u64, pages: &mut dyn PageStore) -> Result<Bucket, Error> {
        let mut found = Bucket { pages: Vec::new(), bytes: Vec::new() };
        let mut page = [0; PAGE];
        let mut next = first_page(bucket) + 1;
        while next != 0 {
            pages.read(next - 1, &mut page)?;
            found.pages.push(next - 1);
            let (following, used) = header(&page);
            let used = page[HEADER..].get(..used);
            found.bytes.extend(used.ok_or_else(|| Error::internal("a page of keys with more than fits"))?);
            next = following;
        }
        Ok(found)
    }

    /// Writes a bucket's pages from `from` on, with more pages if it needs them.
    fn write(&mut self, bucket: &mut Bucket, from: usize, pages: &mut dyn PageStore) -> Result<(), Error> {
        let needed = bucket.bytes.len().div_ceil(CAPACITY).max(1);
        let known = bucket.pages.len();
        while bucket.pages.len() < needed {
            let page = self.another(pages)?;
            bucket.pages.push(page);
        }
        // Chain the last old page to the new ones.
        let from = if needed > known { from.min(known - 1) } else { from };
        for (at, number) in bucket.pages.iter().enumerate().skip(from) {
            let part = bucket.bytes.chunks(CAPACITY).nth(at).unwrap_or_default();
            let next = bucket.pages.get(at + 1).map_or(0, |next| next + 1);
            let mut page = [0; PAGE];
            page[..8].copy_from_slice(&next.to_le_bytes());
            page[8..HEADER].copy_from_slice(&(part.len() as u64).to_le_bytes());
            page[HEADER..HEADER + part.len()].copy_from_slice(part);
            pages.write(*number, &page)?;
        }
        Ok(())
    }

    /// Takes a page for a bucket that needs more than its first.
    fn another(&mut self, pages: &mut dyn PageStore) -> Result<u64, Error> {
        match self.free.checked_sub(1) {
            Some(page) => {
                let mut free = [0; PAGE];
                pages.read(page, &mut free)?;
                self.free = header(&free).0;
                Ok(page)
            }
            None => {
                self.extra += 1;
                Ok(self.extra * 2 - 1)
            }
        }
    }
}

/// The number of the next page, from 1, and the number of used bytes.
fn header(page: &[u8; PAGE]) -> (u64, usize) {
    let number = |at: usize| page[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number(0), number(8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct InMemory {
        pages: std::collections::HashMap<u64, Box<[u8; PAGE]>>,
        reads: usize,
    }

    impl PageStore for InMemory {
        fn read(&mut self, page: u64, into: &mut [u8; PAGE]) -> Result<(), Error> {
            self.reads += 1;
            into.copy_from_slice(&**self.pages.get(&page).ok_or_else(|| Error::internal("no such page"))?);
            Ok(())
        }
        fn write(&mut self, page: u64, from: &[u8; PAGE]) -> Result<(), Error> {
            self.pages.insert(page, Box::new(*from));
            Ok(())
        }
    }

    /// Pseudo-random numbers (SplitMix64).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    #[test]
    fn each_row_is_new_once_however_many_there_are() {
        for (limit, rows, longest) in
            [(1 << 30, 9000, 40), (0, 9000, 40), (4096, 20_000, 12), (1000, 300, 30_000), (0, 1, 1)]
        {
            let (mut seen, mut pages) = (SeenRows::new(limit), InMemory::default());
            let mut model = std::collections::HashSet::new();
            let mut state = 7 + rows as u64;
            for _ in 0..rows {
                let number = random(&mut state) % (rows as u64 / 2 + 1);
                let key = format!("{number}{}", "x".repeat((number % longest) as usize));
                let new = seen.insert(&[Cell::Text(&key), Cell::Null], &mut pages).unwrap();
                assert_eq!(new, model.insert(key.clone()), "{key} of {rows} within {limit} bytes");
                assert!(seen.memory() <= limit);
            }
            assert_eq!(pages.pages.is_empty(), limit > 1_000_000);
        }
    }

    #[test]
    fn a_look_takes_about_one_page() {
        let (mut seen, mut pages) = (SeenRows::new(0), InMemory::default());
        for number in 0..40_000 {
            assert!(seen.insert(&[Cell::Int(number)], &mut pages).unwrap());
        }
        pages.reads = 0;
        for number in 0..40_000 {
            assert!(!seen.insert(&[Cell::Int(number)], &mut pages).unwrap());
        }
        assert!(pages.reads < 60_000, "{} pages were read", pages.reads);
        // 40,000 keys of 21 bytes: half as much again, and what is free.
        assert!(pages.pages.len() * PAGE < 2_400_000, "{} pages are kept", pages.pages.len());
    }

    #[test]
    fn rows_that_differ_never_look_alike() {
        let rows: [&[Cell<'_>]; 20] = [
            &[Cell::Null],
            &[Cell::Null, Cell::Null],
            &[Cell::Text("")],
            &[Cell::Text("NULL")],
            &[Cell::Text("a"), Cell::Text("b")],
            &[Cell::Text("ab"), Cell::Text("")],
            &[Cell::Text(""), Cell::Text("ab")],
            &[Cell::Text("é")],
            &[Cell::Text("e\u{301}")],
            &[Cell::Text("1")],
            &[Cell::Int(1)],
            &[Cell::Number("1")],
            &[Cell::Number("1.0")],
            &[Cell::Float(1.0)],
            &[Cell::Timestamp(1)],
            &[Cell::Bool(true)],
            &[Cell::Json("1")],
            &[Cell::Bytes(b"1")],
            &[Cell::List(&[Cell::Text("a"), Cell::Null])],
            &[Cell::List(&[Cell::Text("a")]), Cell::Null],
        ];
        for limit in [0, 1 << 20] {
            let (mut seen, mut pages) = (SeenRows::new(limit), InMemory::default());
            for row in rows {
                assert!(seen.insert(row, &mut pages).unwrap(), "{row:?}");
            }
            for row in rows {
                assert!(!seen.insert(row, &mut pages).unwrap(), "{row:?}");
            }
        }
    }
}
