//! The counters of an activity, and the current state of its requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One flush, or one read.
#[derive(Debug)]
pub struct Activity {
    pub(super) what: What,
    pub(super) since: Instant,
    /// Counters of requests that belong to no resource; a read has only these.
    pub(super) own: Arc<Counters>,
    /// The resources that a flush delivers.
    pub(super) resources: Mutex<Vec<Arc<Counters>>>,
    pub(super) network: Mutex<Network>,
}

#[derive(Debug)]
pub(super) enum What {
    Delivery,
    /// Rows are read; the activity's own counters have the name of what.
    Read,
    /// Something else is asked for, such as the definition of a view; the activity's own counters have its name.
    Question,
}

/// What became of the rows of one resource, and the requests that it took.
#[derive(Debug, Default)]
pub struct Counters {
    /// The resource, as errors name it.
    pub name: String,
    /// Rows that are to be delivered, or that have been read.
    pub rows: AtomicU64,
    /// Rows that CDF has acknowledged.
    pub acknowledged: AtomicU64,
    /// Acknowledged rows without a key: written again, they exist twice.
    pub blind: AtomicU64,
    /// The most rows that CDF may have accepted although its answer did not arrive.
    pub unsure: AtomicU64,
    /// Attempts, repeats among them.
    pub requests: AtomicU64,
    /// Attempts that repeat another one.
    pub retries: AtomicU64,
    /// Bytes of bodies on the wire.
    pub bytes_sent: AtomicU64,
    /// When the first request was made.
    pub(super) began: OnceLock<Instant>,
    /// Why requests were repeated, and how many of them.
    pub(super) reasons: Mutex<Vec<(String, u64)>>,
    pub(super) last: Mutex<Option<AttemptEnd>>,
}

/// How an attempt ended, in words.
#[derive(Debug, Clone)]
pub(super) struct AttemptEnd {
    pub(super) at: Instant,
    pub(super) words: String,
}

/// The current requests of an activity, and how its time was spent so far.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) sending: u32,
    pub(super) waiting_for_token: u32,
    pub(super) pauses: Vec<Pause>,
    pub(super) numbered: u64,
    pub(super) changed: Instant,
    /// Time with requests under way.
    pub(super) sent: Duration,
    /// Time without any, spent waiting for the next attempt or for a token.
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
    /// An activity that delivers a transaction's rows. Its resources are [added](Activity::resource) one by one.
    pub fn delivery() -> Arc<Activity> {
        Activity::new(What::Delivery, String::new())
    }

    /// An activity that reads rows of what has this name.
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

    /// How long the activity has lasted.
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }

    /// Adds a resource with so many rows to deliver.
    pub fn resource(&self, name: String, rows: usize) -> Arc<Counters> {
        let counters = Arc::new(Counters { name, rows: AtomicU64::new(rows as u64), ..Counters::default() });
        lock(&self.resources).push(counters.clone());
        counters
    }

    /// The counters of the resources, in the order in which they were added, and those that belong to none.
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
    /// Adds the time since the last change to the counter of what it was spent on.
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
