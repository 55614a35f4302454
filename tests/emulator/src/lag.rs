//! Lists that lag behind: they still show an older state of what was created, changed and deleted moments ago.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::codec::scatter;

/// The copies of the data that answer lists in turn. They catch up at different times, so a list may show less than the
/// one before.
const COPIES: u64 = 2;

/// How far behind lists are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lag {
    /// The longest lag.
    pub most: Duration,
    lists: u64,
}

impl Lag {
    /// Makes a lag that starts now.
    pub fn new(most: Duration) -> Self {
        Self { most, lists: 0 }
    }

    /// Returns what the next list sees.
    pub fn next(&mut self) -> Sight {
        self.lists += 1;
        Sight { now: Instant::now(), most: self.most, copy: self.lists % COPIES }
    }
}

/// What one list sees: each object as it was some time ago, a different time for each.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    now: Instant,
    most: Duration,
    copy: u64,
}

impl Sight {
    /// Returns the time at which the object is shown; None: before anything was written.
    fn of(&self, place: u64) -> Option<Instant> {
        // Between a quarter of the lag and all of it.
        let share = 0.25 + 0.75 * (scatter(place ^ self.copy << 63) >> 11) as f64 / (1u64 << 53) as f64;
        self.now.checked_sub(self.most.mul_f64(share))
    }
}

/// Earlier versions of objects, for as long as lists may show them.
#[derive(Debug)]
pub struct History<K, V> {
    /// Until when the object had a version, oldest first; None: it did not exist.
    versions: BTreeMap<K, Vec<(Instant, Option<V>)>>,
    tidied: Option<Instant>,
}

impl<K, V> Default for History<K, V> {
    fn default() -> Self {
        Self { versions: BTreeMap::new(), tidied: None }
    }
}

impl<K: Ord + Clone, V> History<K, V> {
    /// Records that an object is about to change.
    pub fn record(&mut self, key: K, before: Option<V>, lag: Duration) {
        if lag.is_zero() {
            return;
        }
        let now = Instant::now();
        if self.tidied.is_none_or(|tidied| now.duration_since(tidied) > lag) {
            self.tidied = Some(now);
            self.versions.retain(|_, versions| {
                versions.retain(|(until, _)| now.duration_since(*until) <= lag);
                !versions.is_empty()
            });
        }
        self.versions.entry(key).or_default().push((now, before));
    }

    /// Returns the objects after a key as a list sees them, in the order of their keys. `place` determines how far
    /// behind an object is.
    pub fn seen<'a>(
        &'a self,
        objects: &'a BTreeMap<K, V>,
        after: Bound<&K>,
        sight: Sight,
        place: impl Fn(&K) -> u64 + 'a,
    ) -> Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a> {
        if sight.most.is_zero() || self.versions.is_empty() {
            return Box::new(objects.range((after, Bound::Unbounded)));
        }
        let then = self.versions.range((after, Bound::Unbounded)).map(|(key, _)| key);
        let keys: BTreeSet<&K> =
            objects.range((after, Bound::Unbounded)).map(|(key, _)| key).chain(then).collect();
        Box::new(keys.into_iter().filter_map(move |key| {
            let moment = sight.of(place(key));
            let then = self.versions.get(key).and_then(|versions| {
                versions.iter().find(|(until, _)| moment.is_none_or(|moment| *until > moment))
            });
            let object = match then {
                Some((_, object)) => object.as_ref(),
                None => objects.get(key),
            };
            object.map(|object| (key, object))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn seen(
        history: &History<u64, &'static str>,
        objects: &BTreeMap<u64, &'static str>,
        lag: Duration,
    ) -> Vec<&'static str> {
        let sight = Lag::new(lag).next();
        history.seen(objects, Bound::Unbounded, sight, |key| *key).map(|(_, object)| *object).collect()
    }

    #[test]
    fn lists_show_what_was() {
        let mut history = History::default();
        let mut objects = BTreeMap::from([(1, "kept"), (2, "old"), (3, "gone")]);
        for key in [2, 3, 4] {
            history.record(key, objects.get(&key).copied(), HOUR);
        }
        objects.remove(&3);
        objects.extend([(2, "new"), (4, "fresh")]);
        assert_eq!(seen(&history, &objects, HOUR), ["kept", "old", "gone"]);
        assert_eq!(seen(&history, &objects, Duration::ZERO), ["kept", "new", "fresh"]);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(seen(&history, &objects, Duration::from_millis(1)), ["kept", "new", "fresh"]);
    }

    #[test]
    fn objects_come_one_by_one_and_copies_differ() {
        let mut lag = Lag::new(SECOND);
        let (one, other) = (lag.next(), lag.next());
        let moments: BTreeSet<Option<Instant>> = (0..100).map(|place| one.of(place)).collect();
        assert!(moments.len() > 90);
        assert!((0..100)
            .any(|place| one.of(place).map(|at| one.now - at) != other.of(place).map(|at| other.now - at)));
        assert!((0..100).all(|place| one.of(place).is_none_or(|at| at <= one.now - SECOND / 4)));
    }
}
