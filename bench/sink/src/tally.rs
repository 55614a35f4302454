//! Counts what was received.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Counts of one resource since the last reset.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests that were answered, refusals included.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Bytes of bodies as they came over the wire, without headers.
    pub wire_bytes: u64,
    /// Bytes of bodies after decompression.
    pub plain_bytes: u64,
    /// Items created, points, or RAW rows that were accepted.
    pub items: u64,
    /// Items updated.
    pub updated: u64,
    /// The contents of the items: pairs of metadata, columns of RAW rows, series of points per request.
    pub parts: u64,
    /// Sum of the timestamps of points, in milliseconds since 1970, modulo 2^64.
    pub timestamps: u64,
    /// Sum of the values of points modulo 2^64: the IEEE 754 bits of numbers, the length of texts in bytes.
    pub values: u64,
    /// Distinct keys: external ids, RAW keys with their table, series.
    pub distinct: u64,
    /// The most requests in flight at the same time, including their latency.
    pub max_in_flight: u64,
}

impl Totals {
    /// Adds the contents of a request.
    pub fn add(&mut self, other: &Totals) {
        self.items += other.items;
        self.updated += other.updated;
        self.parts += other.parts;
        self.timestamps = self.timestamps.wrapping_add(other.timestamps);
        self.values = self.values.wrapping_add(other.values);
    }
}

/// The 128-bit hash of a key. With that many bits, two keys with the same hash are not to be expected.
pub type Key = u128;

/// Hashes keys, in the same way as long as the process lives.
#[derive(Default)]
pub struct Keys(DefaultHashBuilder, DefaultHashBuilder);

impl Keys {
    /// Returns the hash of a key within a scope, such as a RAW table.
    pub fn hash(&self, scope: &str, key: &[u8]) -> Key {
        let half = |state: &DefaultHashBuilder| {
            Key::from(if scope.is_empty() { state.hash_one(key) } else { state.hash_one((scope, key)) })
        };
        half(&self.0) << 64 | half(&self.1)
    }
}

/// One resource.
#[derive(Default)]
pub struct Tally {
    state: Mutex<State>,
}

/// The state of one resource.
#[derive(Default)]
pub struct State {
    /// Keys that were written.
    pub known: HashSet<Key>,
    /// Counts.
    pub totals: Totals,
    in_flight: u64,
}

impl Tally {
    /// Locks the state while the guard lives. State that a panic has left is used as it is.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything except the requests in flight.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.known.clear();
        state.totals = Totals::default();
    }

    /// Returns the counts.
    pub fn totals(&self) -> Totals {
        let state = self.lock();
        Totals { distinct: state.known.len() as u64, ..state.totals }
    }

    /// Counts a request as in flight until the result is dropped, even if the client has left.
    pub fn enter(&self) -> Flight<'_> {
        let mut state = self.lock();
        state.in_flight += 1;
        state.totals.max_in_flight = state.totals.max_in_flight.max(state.in_flight);
        Flight(self)
    }
}

/// A request in flight.
pub struct Flight<'t>(&'t Tally);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_scope_and_bytes() {
        let keys = Keys::default();
        assert_eq!(keys.hash("a", b"bc"), keys.hash("a", b"bc"));
        assert_ne!(keys.hash("a", b"bc"), keys.hash("ab", b"c"));
        assert_ne!(keys.hash("a", b"b"), keys.hash("a", b"c"));
    }

    #[test]
    fn requests_under_way_are_counted_at_their_most() {
        let tally = Tally::default();
        let first = tally.enter();
        drop((tally.enter(), tally.enter()));
        assert_eq!(tally.totals().max_in_flight, 3);
        tally.reset();
        drop(tally.enter());
        assert_eq!(tally.totals().max_in_flight, 2);
        drop(first);
        tally.reset();
        drop(tally.enter());
        assert_eq!(tally.totals().max_in_flight, 1);
    }
}
