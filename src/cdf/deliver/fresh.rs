//! What a flush has just written. CDF may not find it yet, so points, children and references wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::body::{key_of, BodyRows};
use crate::cdf::buffer::Destination;
use crate::cdf::encode::json;
use crate::cdf::error::{ApiError, Error, Identity};
use crate::cdf::hash::{self, hash_bytes};
use crate::cdf::resource::paths;

/// The most items that are remembered, in 5 MB. Beyond that, every item counts as written by this flush, so that none
/// is missed.
const MOST: usize = 1 << 18;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The pauses before an item that CDF does not find counts as missing: 13 seconds in all.
const PAUSES: u32 = 10;

/// What this flush has written.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    keys: Mutex<WrittenKeys>,
    /// Whether nothing in the flush refers to anything else in it. Series that are created for points are not counted.
    pub(super) idle: bool,
}

/// Hashes of the items that this flush has written.
#[derive(Debug, Default)]
struct WrittenKeys {
    keys: HashSet<u64, hash::IdentityHash>,
    /// Items that were added since the last question. Most flushes never ask.
    unsorted: Vec<u64>,
    /// Whether there were more items than are remembered.
    overflown: bool,
}

impl WrittenKeys {
    fn add(&mut self, key: u64) {
        if self.keys.len() + self.unsorted.len() == MOST {
            self.sort();
        }
        if self.keys.len() < MOST {
            self.unsorted.push(key);
        } else if !self.keys.contains(&key) {
            self.overflown = true;
        }
    }

    fn has(&mut self, key: u64) -> bool {
        self.sort();
        self.overflown || self.keys.contains(&key)
    }

    /// Moves the items that were added since the last question to where they are looked up.
    fn sort(&mut self) {
        self.keys.extend(self.unsorted.drain(..));
    }
}

/// Returns a hash of an item within a scope.
fn key(scope: u64, identity: &Identity) -> u64 {
    let mut text = Vec::new();
    match identity {
        Identity::Id(id) => json::write(&mut text, id),
        Identity::ExternalId(external_id) => json::text(&mut text, external_id),
        Identity::Instance { space, external_id } => json::write(&mut text, &(space, external_id)),
    }
    hashed(scope, &text)
}

fn hashed(scope: u64, identity: &[u8]) -> u64 {
    scope.rotate_left(1) ^ hash_bytes(identity)
}

/// The pauses that give CDF time to find an item.
pub(super) struct Patience {
    deadline: Instant,
    pauses: u32,
}

impl Patience {
    pub(super) fn until(deadline: Instant) -> Self {
        Patience { deadline, pauses: 0 }
    }

    /// Returns the next pause; None after the last one, or if no time is left.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses).min(LONGEST_PAUSE);
        let in_time = Instant::now().checked_add(pause).is_some_and(|end| end < self.deadline);
        (self.pauses < PAUSES && in_time).then(|| {
            self.pauses += 1;
            pause
        })
    }
}

/// Returns the scope of the items at a path of a destination's project, whichever role writes them.
pub(super) fn scope(destination: &Destination, path: &str) -> u64 {
    let connection = &destination.connection;
    [connection.base_url.as_str(), &connection.project, path]
        .iter()
        .fold(0, |scope: u64, part| scope.rotate_left(1) ^ hash_bytes(part.as_bytes()))
}

impl Fresh {
    fn keys(&self) -> MutexGuard<'_, WrittenKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers rows that CDF has acknowledged.
    pub(super) fn remember(
        &self,
        destination: &Destination,
        body: &BodyRows<'_>,
        rows: &[usize],
    ) -> Result<(), Error> {
        let resource = destination.resource;
        if self.idle || !resource.referred_to {
            return Ok(());
        }
        let scope = scope(destination, resource.path);
        let mut fresh = self.keys();
        for at in rows {
            // The fast path, which serves nearly all rows.
            if let Some(text) = body.fragment(*at).external_id() {
                fresh.add(hashed(scope, text));
            } else if let Some(identity) = key_of(body, *at)? {
                fresh.add(key(scope, &identity));
            }
        }
        Ok(())
    }

    /// Remembers series that were created for their points.
    pub(super) fn remember_series<'n>(
        &self,
        destination: &Destination,
        external_ids: impl IntoIterator<Item = &'n String>,
    ) {
        let scope = scope(destination, paths::TIME_SERIES);
        let mut fresh = self.keys();
        for external_id in external_ids {
            fresh.add(key(scope, &Identity::ExternalId(external_id.clone())));
        }
    }

    /// Remembers the id of an item if this flush has written the item: CDF's answers may name it by id.
    pub(super) fn remember_id(&self, destination: &Destination, path: &str, external_id: &str, id: i64) {
        if self.has(destination, path, &Identity::ExternalId(external_id.to_owned())) {
            self.keys().add(key(scope(destination, path), &Identity::Id(id)));
        }
    }

    /// Whether this flush has written the item.
    pub(super) fn has(&self, destination: &Destination, path: &str, identity: &Identity) -> bool {
        self.keys().has(key(scope(destination, path), identity))
    }

    /// Whether CDF has refused a request because it does not find yet what this flush has written.
    pub(super) fn is_missed(&self, destination: &Destination, api: &ApiError) -> bool {
        if !api.of_cdf || !matches!(api.status, 400 | 404 | 422) {
            return false;
        }
        let resource = destination.resource;
        if resource.refers_to.is_empty() {
            return false;
        }
        let named = if api.missing.is_empty() { named_in_words(&api.message) } else { api.missing.clone() };
        let paths = || resource.refers_to.iter().copied().chain([resource.path]);
        let known = |identity: &Identity| paths().any(|path| self.has(destination, path, identity));
        named.iter().any(known)
    }
}

/// Returns the items that a refusal names in words only, as in `Invalid dataSetIds: 1, 2` and `Reference to unknown
/// parent with externalId a`.
fn named_in_words(message: &str) -> Vec<Identity> {
    let mut named = Vec::new();
    for mark in [": ", "externalId "] {
        let Some((_, list)) = message.split_once(mark) else { continue };
        let list = list.trim_end_matches('.');
        for name in list.split(", ").chain([list]) {
            let name = name.trim_matches(['<', '>', '"', '\'']);
            named.extend(name.parse().ok().map(Identity::Id));
            named.push(Identity::ExternalId(name.to_owned()));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::encode::fragment::Fragment;

    #[test]
    fn items_are_told_apart_by_resource_and_key() {
        let name = |name: &str| Identity::ExternalId(name.into());
        assert_eq!(key(1, &name("a")), key(1, &name("a")));
        assert_ne!(key(1, &name("a")), key(2, &name("a")));
        assert_ne!(key(1, &name("1")), key(1, &Identity::Id(1)));
    }

    #[test]
    fn an_encoded_row_has_the_key_that_cdf_names() {
        for name in ["a", "", "q\"\\", "\\", "\u{1f6e2}\n", "\"}", "\\\""] {
            let row = serde_json::json!({ "externalId": name, "name": "x\"y" }).to_string();
            let text = Fragment::of(row.as_bytes()).external_id().unwrap();
            assert_eq!(hashed(1, text), key(1, &Identity::ExternalId(name.into())), "{row}");
        }
        assert_eq!(Fragment::of(b"{\"id\":1}").external_id(), None);
    }

    #[test]
    fn nothing_is_forgotten() {
        let mut fresh = WrittenKeys::default();
        (0..MOST as u64).for_each(|key| fresh.add(key));
        assert!(fresh.has(7) && !fresh.has(MOST as u64));
        // An item that is already there takes no room.
        fresh.add(7);
        assert!(!fresh.has(MOST as u64));
        fresh.add(MOST as u64);
        assert!(fresh.has(MOST as u64));
    }

    #[test]
    fn what_is_written_after_a_question_is_found_by_the_next() {
        let mut fresh = WrittenKeys::default();
        fresh.add(1);
        assert!(fresh.has(1) && !fresh.has(2));
        fresh.add(2);
        assert!(fresh.has(1) && fresh.has(2));
    }

    #[test]
    fn patience_grows_and_ends() {
        let pauses = |deadline| {
            let mut patience = Patience::until(deadline);
            std::iter::from_fn(|| patience.next()).collect::<Vec<_>>()
        };
        let all = pauses(Instant::now() + Duration::from_secs(3600));
        assert_eq!(all.len(), PAUSES as usize);
        assert!(all.is_sorted() && all[0] == FIRST_PAUSE && all.last() == Some(&LONGEST_PAUSE));
        assert!(pauses(Instant::now() + Duration::from_millis(50)).is_empty());
    }

    #[test]
    fn words_are_read() {
        let named = |message| named_in_words(message);
        assert!(named("Invalid dataSetIds: 1, 2").contains(&Identity::Id(2)));
        let parent = Identity::ExternalId("a, b".into());
        assert!(named("Reference to unknown parent with externalId a, b").contains(&parent));
        assert!(named("Reference to unknown parent with externalId <a, b>").contains(&parent));
        assert!(named("Forbidden").is_empty());
    }
}
