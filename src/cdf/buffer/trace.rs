//! What the closed chunks of a wave hold, so that a later write of the same key goes into a later wave.
//!
//! Waves are sent one after another, chunks of a wave in parallel. False positives are harmless: the key only goes one
//! wave later.

use hashbrown::{HashMap, HashSet};

use crate::cdf::hash::IdentityHash;

/// Keys of items, by hash.
#[derive(Debug)]
pub enum KeyTrace {
    Exact(HashSet<u64, IdentityHash>),
    /// A Bloom filter, for when exact hashes would take too much memory.
    Bloom {
        bits: Vec<u64>,
    },
}

/// Bits set per key.
const PROBES: u64 = 4;
/// Bytes per key of a set, including load factor and control bytes.
const EXACT_BYTES: usize = 18;

impl Default for KeyTrace {
    fn default() -> Self {
        KeyTrace::Exact(HashSet::default())
    }
}

impl KeyTrace {
    pub fn contains(&self, hash: u64) -> bool {
        match self {
            KeyTrace::Exact(hashes) => hashes.contains(&hash),
            KeyTrace::Bloom { bits } => positions(hash, bits.len()).all(|(word, bit)| bits[word] & bit != 0),
        }
    }

    /// Builds a filter of these keys, about two bytes per key.
    pub fn of(hashes: impl ExactSizeIterator<Item = u64>) -> KeyTrace {
        let mut bits = vec![0; hashes.len().div_ceil(4).next_power_of_two().max(8)];
        hashes.for_each(|hash| set(&mut bits, hash));
        KeyTrace::Bloom { bits }
    }

    /// Reserves room for this many keys, if keys are kept exactly.
    pub fn reserve(&mut self, keys: usize, budget: usize) {
        if let KeyTrace::Exact(hashes) = self {
            if (hashes.len() + keys) * EXACT_BYTES <= budget / 32 {
                hashes.reserve(keys);
            }
        }
    }

    /// Adds a key. The trace stays within an eighth of `budget` bytes.
    pub fn insert(&mut self, hash: u64, budget: usize) {
        match self {
            KeyTrace::Exact(hashes) => {
                hashes.insert(hash);
                if hashes.len() * EXACT_BYTES > budget / 32 {
                    let words = (budget / 8 / 8).next_power_of_two().max(1024);
                    let mut bits = vec![0; words];
                    hashes.iter().for_each(|hash| set(&mut bits, *hash));
                    *self = KeyTrace::Bloom { bits };
                }
            }
            KeyTrace::Bloom { bits } => set(bits, hash),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            KeyTrace::Exact(hashes) => hashes.capacity() * EXACT_BYTES / 2,
            KeyTrace::Bloom { bits } => bits.len() * 8,
        }
    }
}

fn set(bits: &mut [u64], hash: u64) {
    for (word, bit) in positions(hash, bits.len()) {
        bits[word] |= bit;
    }
}

/// Returns the positions of a key's bits, all in one cache line of eight words.
fn positions(hash: u64, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let line = (hash as usize) & (words - 1) & !7;
    let high = hash >> 28;
    (0..PROBES).map(move |probe| {
        let position = (high >> (probe * 9)) & 511;
        (line + (position >> 6) as usize, 1 << (position & 63))
    })
}

/// Where the points of each series lie. Ranges say little about points that arrive in no order, so their moments are
/// listed.
#[derive(Debug, Default)]
pub struct RangeTrace {
    /// Ranges of chunks whose moments are not listed.
    ranges: Ranges,
    listed: Ranges,
    moments: MomentFilters,
}

/// First and last moment of each series' points.
#[derive(Debug, Default)]
struct Ranges {
    series: HashMap<u64, (i64, i64), IdentityHash>,
    /// The series were dropped because there were too many: every point counts as present.
    all: bool,
}

/// Bytes per series.
const RANGE_BYTES: usize = 32;

impl Ranges {
    fn is_empty(&self) -> bool {
        self.series.is_empty() && !self.all
    }

    fn get(&self, series: u64) -> Option<(i64, i64)> {
        if self.all {
            Some((i64::MIN, i64::MAX))
        } else {
            self.series.get(&series).copied()
        }
    }

    fn overlaps(&self, series: u64, (first, last): (i64, i64)) -> bool {
        self.get(series).is_some_and(|range| first <= range.1 && last >= range.0)
    }

    /// Adds a series' range. The ranges stay within a sixteenth of `budget` bytes.
    fn insert(&mut self, series: u64, (first, last): (i64, i64), budget: usize) {
        if self.all {
            return;
        }
        self.series
            .entry(series)
            .and_modify(|range| *range = (range.0.min(first), range.1.max(last)))
            .or_insert((first, last));
        if self.series.len() * RANGE_BYTES > budget / 16 {
            self.series = HashMap::default();
            self.all = true;
        }
    }

    fn bytes(&self) -> usize {
        self.series.capacity() * RANGE_BYTES
    }
}

/// Bloom filters of points, each sized for its points.
#[derive(Debug, Default)]
struct MomentFilters {
    filters: Vec<Vec<u64>>,
    /// Number of points in the last filter.
    points: usize,
}

/// Points per filter, and bits per point.
const FILTER_POINTS: usize = 1 << 20;
const FILTER_BITS: usize = 16;

impl MomentFilters {
    fn contains(&self, series: u64, moment: i64) -> bool {
        let hash = moment_hash(series, moment);
        self.filters.iter().any(|bits| positions(hash, bits.len()).all(|(word, bit)| bits[word] & bit != 0))
    }

    /// Adds a point. The filters stay within an eighth of `budget` bytes.
    fn insert(&mut self, series: u64, moment: i64, budget: usize) {
        let words =
            (FILTER_POINTS * FILTER_BITS / 64).min((budget / 8 / 8).next_power_of_two() / 2).max(1024);
        let full = self.points >= words * 64 / FILTER_BITS;
        if self.filters.is_empty() || full && (self.filters.len() + 1) * words * 8 <= budget / 8 {
            self.filters.push(vec![0; words]);
            self.points = 0;
        }
        self.points += 1;
        if let Some(bits) = self.filters.last_mut() {
            set(bits, moment_hash(series, moment));
        }
    }

    fn bytes(&self) -> usize {
        self.filters.iter().map(|bits| bits.len() * 8).sum()
    }
}

fn moment_hash(series: u64, moment: i64) -> u64 {
    // Multiplying by an odd number makes neighbouring moments differ in all bits that choose a position.
    let mixed = (moment as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ series;
    mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl RangeTrace {
    /// Checks whether a series may have points in a time range, its end included.
    pub fn overlaps(&self, series: u64, (first, last): (i64, i64)) -> bool {
        if first == last {
            self.holds(series, first)
        } else {
            self.ranges.overlaps(series, (first, last)) || self.listed.overlaps(series, (first, last))
        }
    }

    /// Checks whether the series may have a point at that moment.
    pub fn holds(&self, series: u64, moment: i64) -> bool {
        let at = (moment, moment);
        !self.ranges.is_empty() && self.ranges.overlaps(series, at)
            || self.moments.contains(series, moment) && self.listed.overlaps(series, at)
    }

    /// Returns the first and last moment of a series' points; None if there are none.
    pub fn range(&self, series: u64) -> Option<(i64, i64)> {
        match (self.ranges.get(series), self.listed.get(series)) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (range, None) | (None, range) => range,
        }
    }

    /// Adds a series' range. The trace stays within a quarter of `budget` bytes.
    pub fn insert(&mut self, series: u64, range: (i64, i64), budget: usize) {
        self.ranges.insert(series, range, budget);
    }

    /// Adds a series' range whose moments are all added with [`Self::insert_moment`].
    pub fn insert_listed(&mut self, series: u64, range: (i64, i64), budget: usize) {
        self.listed.insert(series, range, budget);
    }

    pub fn insert_moment(&mut self, series: u64, moment: i64, budget: usize) {
        self.moments.insert(series, moment, budget);
    }

    pub fn bytes(&self) -> usize {
        self.ranges.bytes() + self.listed.bytes() + self.moments.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::hash::hash_bytes;

    #[test]
    fn no_key_is_forgotten_and_memory_stays_bounded() {
        let budget = 1 << 20;
        let mut trace = KeyTrace::default();
        let hash = |at: u32| hash_bytes(&at.to_le_bytes());
        for at in 0..100_000 {
            trace.insert(hash(at), budget);
        }
        assert!((0..100_000).all(|at| trace.contains(hash(at))));
        assert!(matches!(trace, KeyTrace::Bloom { .. }) && trace.bytes() <= budget / 8);
        let wrong = (100_000..200_000).filter(|at| trace.contains(hash(*at))).count();
        assert!(wrong < 20_000, "{wrong} of 100000 wrongly believed to be there");
    }

    #[test]
    fn few_keys_are_exact() {
        let mut trace = KeyTrace::default();
        (0..1000).for_each(|at| trace.insert(hash_bytes(&[at as u8, (at >> 8) as u8]), 64 << 20));
        assert!(!trace.contains(hash_bytes(b"other")));
    }

    #[test]
    fn ranges_grow_and_degrade_to_everything() {
        let mut trace = RangeTrace::default();
        trace.insert(1, (10, 20), 1 << 20);
        trace.insert(1, (30, 30), 1 << 20);
        let at = |trace: &RangeTrace, series, moment| trace.overlaps(series, (moment, moment));
        assert!(at(&trace, 1, 25) && !at(&trace, 1, 31) && !at(&trace, 2, 15));
        (0..100_000).for_each(|series| trace.insert(series, (0, 0), 1 << 20));
        assert!(at(&trace, 999_999_999, 5) && trace.bytes() == 0);
    }

    #[test]
    fn listed_moments_leave_the_others_free() {
        let budget = 64 << 20;
        let mut trace = RangeTrace::default();
        for series in 0..100 {
            trace.insert_listed(series, (0, 200_000), budget);
            (0..1000).for_each(|at| trace.insert_moment(series, at * 200, budget));
        }
        assert!((0..100).all(|series| (0..1000).all(|at| trace.holds(series, at * 200))));
        let wrong = (0..100).flat_map(|series| (0..1000).map(move |at| (series, at * 200 + 7)));
        assert!(wrong.filter(|(series, at)| trace.holds(*series, *at)).count() < 500);
        assert!(trace.overlaps(5, (3, 4)) && !trace.overlaps(5, (300_000, 300_001)));
        assert!(!trace.holds(100, 0) && trace.range(5) == Some((0, 200_000)));
    }

    #[test]
    fn filters_stay_within_their_budget_and_forget_nothing() {
        let budget = 1 << 20;
        let mut trace = RangeTrace::default();
        trace.insert_listed(1, (0, 1_000_000), budget);
        (0..1_000_000).for_each(|at| trace.insert_moment(1, at, budget));
        assert!((0..1_000_000).all(|at| trace.holds(1, at)) && trace.bytes() <= budget / 4);
    }
}
