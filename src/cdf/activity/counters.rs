//! What an activity counts, and what its requests are doing at the moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One flush, or one read.
#[derive(Debug)]
pub struct Activity {
    pub(super) what: What,
    pub(super) since: Instant,
    /// What belongs to no resource in particular; of a read it is everything.
    pub(super) own: Arc<Counters>,
    /// What a flush delivers.
    pub(super) resources: Mutex<Vec<Arc<Counters>>>,
    pub(super) network: Mutex<Network>,
}

#[derive(Debug)]
pub(super) enum What {
    Delivery,
    /// Rows are read, of what the activity's own counters names.
    Read,
    /// Something else is asked for, which the activity's own counters names: for the definition of a view, say.
    Question,
}

/// What has become of the rows of one resource, and what that has taken.
#[derive(Debug, Default)]
pub struct Counters {
    /// As errors name the resource.
    pub name: String,
    /// Rows that are to be delivered, or that have been read.
    pub rows: AtomicU64,
    /// Rows that CDF has acknowledged.
    pub acknowledged: AtomicU64,
    /// Those of the acknowledged that have no key: written again they are there twice.
    pub blind: AtomicU64,
    /// Rows, at most, that CDF may have accepted without its answer having come.
    pub unsure: AtomicU64,
    /// Attempts, repeats among them.
    pub requests: AtomicU64,
    /// Attempts that repeat another one.
    pub retries: AtomicU64,
    /// Bodies, as they are on the wire.
    pub bytes_sent: AtomicU64,
    /// When the first request was made.
    pub(super) began: OnceLock<Instant>,
    /// Why requests were repeated, and how many of them.
    pub(super) reasons: Mutex<Vec<(String, u64)>>,
    pub(super) last: Mutex<Option<AttemptEnd>>,
}

/// How an attempt has ended, in words.
#[derive(Debug, Clone)]
pub(super) struct AttemptEnd {
    pub(super) at: Instant,
    pub(super) words: String,
}

/// The requests of an activity at this moment, and how its time was spent so far.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) sending: u32,
    pub(super) waiting_for_token: u32,
    pub(super) pauses: Vec<Pause>,
    pub(super) numbered: u64,
    pub(super) changed: Instant,
    /// Time with requests under way.
    pub(super) sent: Duration,
    /// Time without any, in which attempts or a token were waited for.
    pub(super) waited: Duration,
}

/// A request that waits for its next attempt.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    pub(super) number: u64,
    pub(super) until: Instant,
    pub(super) why: String,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Activity {
    /// A transaction's rows are delivered. Its resources are [added](Activity::resource) as they are known.
    pub fn delivery() -> Arc<Activity> {
        Activity::new(What::Delivery, String::new())
    }

    /// Rows are read of what is called so.
    pub fn reading(name: String) -> Arc<Activity> {
        Activity::new(What::Read, name)
    }

    /// CDF is asked `what`: "for the definition of view a", "which of 3 events exist".
    pub fn asking(what: String) -> Arc<Activity> {
        Activity::new(What::Question, what)
    }

    fn new(what: What, name: String) -> Arc<Activity> {
        let since = Instant::now();
        let network = Network {
            sending: 0,
            waiting_for_token: 0,
            pauses: Vec::new(),
            numbered: 0,
            changed: since,
            sent: Duration::ZERO,
            waited: Duration::ZERO,
        };
        let own = Arc::new(Counters { name, ..Counters::default() });
        Arc::new(Activity { what, since, own, resources: Mutex::default(), network: Mutex::new(network) })
    }

    /// How long it has lasted.
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }

    /// Adds a resource with so many rows to deliver.
    pub fn resource(&self, name: String, rows: usize) -> Arc<Counters> {
        let counters = Arc::new(Counters { name, rows: AtomicU64::new(rows as u64), ..Counters::default() });
        lock(&self.resources).push(counters.clone());
        counters
    }

    /// The resources, in the order in which they were added, and what belongs to none.
    pub(super) fn all_counters(&self) -> Vec<Arc<Counters>> {
        let mut all = lock(&self.resources).clone();
        all.push(self.own.clone());
        all
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Network)) {
        let mut network = lock(&self.network);
        network.take_time(Instant::now());
        change(&mut network);
    }
}

impl Network {
    /// Adds the time since the last change to what it was spent on.
    pub(super) fn take_time(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.changed);
        if self.sending > 0 {
            self.sent += time;
        } else if self.waiting_for_token > 0 || !self.pauses.is_empty() {
            self.waited += time;
        }
        self.changed = now;
    }
}

impl Counters {
    pub(super) fn get(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }
}
