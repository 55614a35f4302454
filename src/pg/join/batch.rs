//! Rows of the outer side that are joined together, found by their keys.

use hashbrown::{HashMap, HashSet};
use pgrx::pg_sys;

use crate::cdf::read::Operand;

/// Bytes that a row and a key take beside their own.
const OVERHEAD: usize = 64;

/// The rows of a batch: copies in the batch's own memory.
pub struct OuterRows {
    memory: pg_sys::MemoryContext,
    rows: Vec<pg_sys::MinimalTuple>,
    /// Whether each has been joined with another row.
    joined: Vec<bool>,
    /// The group of the rows with each key.
    by_key: HashMap<Operand, usize>,
    groups: Vec<Vec<usize>>,
    /// The different keys, where a key has several values.
    composite: HashSet<Vec<Operand>>,
    /// The least and the greatest value of each range.
    ranges: Vec<(Operand, Operand)>,
    key_bytes: usize,
}

impl OuterRows {
    /// # Safety
    /// The current memory context lives as long as the batch.
    pub unsafe fn new() -> OuterRows {
        // SAFETY: the caller's promise; the name is static.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"cdf_fdw rows of a join".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        OuterRows {
            memory,
            rows: Vec::new(),
            joined: Vec::new(),
            by_key: HashMap::new(),
            groups: Vec::new(),
            composite: HashSet::new(),
            ranges: Vec::new(),
            key_bytes: 0,
        }
    }

    /// Forgets all rows.
    ///
    /// # Safety
    /// Nothing points to them any more.
    pub unsafe fn clear(&mut self) {
        self.rows.clear();
        self.joined.clear();
        self.by_key.clear();
        self.groups.clear();
        self.composite.clear();
        self.ranges.clear();
        self.key_bytes = 0;
        // SAFETY: the caller's promise.
        unsafe { pg_sys::MemoryContextReset(self.memory) };
    }

    /// Where its rows have to be.
    pub fn memory(&self) -> pg_sys::MemoryContext {
        self.memory
    }

    /// Adds a row. `key` is what it is found by and what may belong to that; None if one of them is NULL, which equals
    /// nothing.
    pub fn add(&mut self, row: pg_sys::MinimalTuple, key: Option<Vec<Operand>>) {
        let number = self.rows.len();
        self.rows.push(row);
        self.joined.push(false);
        let Some((first, rest)) = key.as_ref().and_then(|key| key.split_first()) else { return };
        let mut bytes = 0;
        let group = match self.by_key.get(first) {
            Some(group) => *group,
            None => {
                bytes += size(first);
                self.by_key.insert(first.clone(), self.groups.len());
                self.groups.push(Vec::new());
                self.groups.len() - 1
            }
        };
        self.groups[group].push(number);
        if !rest.is_empty() {
            let taken = key.iter().flatten().map(size).sum::<usize>();
            bytes += if self.composite.insert(key.unwrap_or_default()) { taken } else { 0 };
        }
        self.key_bytes += bytes;
    }

    /// Widens the ranges to the values of a row that has a key.
    pub fn widen(&mut self, values: Vec<Operand>) {
        if self.ranges.is_empty() {
            self.ranges = values.into_iter().map(|value| (value.clone(), value)).collect();
            return;
        }
        for ((least, greatest), value) in self.ranges.iter_mut().zip(values) {
            if place(&value) < place(least) {
                *least = value;
            } else if place(&value) > place(greatest) {
                *greatest = value;
            }
        }
    }

    pub fn ranges(&self) -> Vec<(Operand, Operand)> {
        self.ranges.clone()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn row(&self, number: usize) -> pg_sys::MinimalTuple {
        self.rows[number]
    }

    pub fn is_joined(&self, number: usize) -> bool {
        self.joined[number]
    }

    pub fn set_joined(&mut self, number: usize) {
        self.joined[number] = true;
    }

    /// The rows with a key, as a group, whose rows have positions from 0.
    pub fn group(&self, key: &Operand) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// The number of a group's row.
    pub fn in_group(&self, group: usize, position: usize) -> Option<usize> {
        self.groups[group].get(position).copied()
    }

    /// The different keys.
    pub fn keys(&self) -> Vec<Vec<Operand>> {
        if self.composite.is_empty() {
            self.by_key.keys().map(|key| vec![key.clone()]).collect()
        } else {
            self.composite.iter().cloned().collect()
        }
    }

    /// How many they are.
    pub fn different_keys(&self) -> usize {
        self.by_key.len().max(self.composite.len())
    }

    /// Bytes that the batch takes.
    pub fn bytes(&self) -> usize {
        // SAFETY: the memory context lives as long as the batch.
        let rows = unsafe { pg_sys::MemoryContextMemAllocated(self.memory, true) };
        rows + self.rows.len() * OVERHEAD + self.key_bytes
    }
}

/// Bytes that a key takes.
fn size(key: &Operand) -> usize {
    OVERHEAD + if let Operand::Text(text) = key { text.len() } else { 0 }
}

/// Where a value is in a range.
fn place(value: &Operand) -> i64 {
    match value {
        Operand::Int(number) | Operand::Micros(number) => *number,
        _ => 0,
    }
}
