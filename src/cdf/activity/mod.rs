//! What a flush or a read does with CDF, counted while it happens, for whoever waits for it or wants to see it.
//!
//! Whoever sends requests fills the counters, on the I/O thread. They are looked at from the main thread, at any moment.
//! Counting is a few additions for a request, and nothing for a row.

mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use text::Account;

/// One flush, or one read.
#[derive(Debug)]
pub struct Activity {
    what: What,
    since: Instant,
    /// What belongs to no resource in particular; of a read it is everything.
    own: Arc<Counters>,
    /// What a flush delivers.
    resources: Mutex<Vec<Arc<Counters>>>,
    network: Mutex<Network>,
}

#[derive(Debug)]
enum What {
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
    began: OnceLock<Instant>,
    /// Why requests were repeated, and how many of them.
    reasons: Mutex<Vec<(String, u64)>>,
    last: Mutex<Option<Answer>>,
}

/// How an attempt has ended, in words.
#[derive(Debug, Clone)]
struct Answer {
    at: Instant,
    words: String,
}

/// The requests of an activity at this moment, and how its time was spent so far.
#[derive(Debug)]
struct Network {
    sending: u32,
    waiting_for_token: u32,
    pauses: Vec<Pause>,
    numbered: u64,
    changed: Instant,
    /// Time with requests under way.
    sent: Duration,
    /// Time without any, in which attempts or a token were waited for.
    waited: Duration,
}

/// A request that waits for its next attempt.
#[derive(Debug, Clone)]
struct Pause {
    number: u64,
    until: Instant,
    why: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    fn all_counters(&self) -> Vec<Arc<Counters>> {
        let mut all = lock(&self.resources).clone();
        all.push(self.own.clone());
        all
    }

    fn change(&self, change: impl FnOnce(&mut Network)) {
        let mut network = lock(&self.network);
        network.take_time(Instant::now());
        change(&mut network);
    }
}

impl Network {
    /// Adds the time since the last change to what it was spent on.
    fn take_time(&mut self, now: Instant) {
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
    fn get(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }
}

/// What makes requests one after another: a read, or one part of a flush. It counts for its activity.
#[derive(Debug)]
pub struct Errand {
    activity: Arc<Activity>,
    counters: Arc<Counters>,
    /// Rows that are to be delivered, which have no key if they are `blind`.
    rows: u64,
    blind: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    acknowledged: u64,
    /// As in the counters.
    unsure: u64,
    /// A request was not answered, so that a refusal of a later one does not say that nothing was written.
    doubt: bool,
}

impl Errand {
    /// Requests of the activity that belong to no resource in particular.
    pub fn of(activity: &Arc<Activity>) -> Arc<Errand> {
        Errand::for_rows(activity, &activity.own, 0, false)
    }

    /// Requests that deliver so many rows of a resource, which have no key if they are `blind`.
    pub fn for_rows(
        activity: &Arc<Activity>,
        counters: &Arc<Counters>,
        rows: usize,
        blind: bool,
    ) -> Arc<Errand> {
        let (activity, counters) = (activity.clone(), counters.clone());
        Arc::new(Errand { activity, counters, rows: rows as u64, blind, state: Mutex::default() })
    }

    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Rows of the errand that CDF has acknowledged.
    pub fn acknowledged(&self) -> usize {
        lock(&self.state).acknowledged as usize
    }

    /// Takes note of rows that CDF has acknowledged.
    pub fn acknowledge(&self, rows: usize) {
        let mut state = lock(&self.state);
        state.acknowledged += rows as u64;
        self.counters.acknowledged.fetch_add(rows as u64, Ordering::Relaxed);
        if self.blind {
            self.counters.blind.fetch_add(rows as u64, Ordering::Relaxed);
        }
        // Only now: at no moment are they neither acknowledged nor unsure.
        state.doubt = false;
        self.set_unsure(&mut state, 0);
    }

    /// Takes note of rows that were read.
    pub fn read(&self, rows: usize) {
        self.counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// From now on CDF may have accepted what is not acknowledged yet.
    pub fn is_sent(&self) {
        let mut state = lock(&self.state);
        let unsure = self.rows.saturating_sub(state.acknowledged);
        self.set_unsure(&mut state, unsure);
    }

    /// A request that writes has ended without success; `unknown`: CDF may have accepted it.
    pub fn is_not_acknowledged(&self, unknown: bool) {
        let mut state = lock(&self.state);
        state.doubt |= unknown;
        if !state.doubt {
            self.set_unsure(&mut state, 0);
        }
    }

    fn set_unsure(&self, state: &mut State, rows: u64) {
        let before = std::mem::replace(&mut state.unsure, rows);
        // Of two steps the one that adds goes first, so that the counter never wraps.
        self.counters.unsure.fetch_add(rows, Ordering::Relaxed);
        self.counters.unsure.fetch_sub(before, Ordering::Relaxed);
    }

    /// An attempt that begins. It is under way until what is returned is dropped.
    pub fn attempt(&self, bytes: usize) -> Stay<'_> {
        self.counters.began.get_or_init(Instant::now);
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.activity.change(|network| network.sending += 1);
        Stay { activity: &self.activity, place: Place::Sending }
    }

    /// A wait for a token, until what is returned is dropped.
    pub fn waits_for_token(&self) -> Stay<'_> {
        self.activity.change(|network| network.waiting_for_token += 1);
        Stay { activity: &self.activity, place: Place::Token }
    }

    /// A pause before the next attempt, until what is returned is dropped.
    pub fn pauses(&self, pause: Duration, why: String) -> Stay<'_> {
        let mut number = 0;
        let until = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
        self.activity.change(|network| {
            network.numbered += 1;
            number = network.numbered;
            network.pauses.push(Pause { number, until, why });
        });
        Stay { activity: &self.activity, place: Place::Pause(number) }
    }

    /// Takes note of a request that is sent again, and why.
    pub fn repeats(&self, why: &str) {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        let mut reasons = lock(&self.counters.reasons);
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why.to_owned(), 1)),
        }
    }

    /// Takes note of how an attempt has ended: "CDF's last answer to POST /events was 429 …".
    pub fn ended(&self, words: String) {
        *lock(&self.counters.last) = Some(Answer { at: Instant::now(), words });
    }
}

enum Place {
    Sending,
    Token,
    Pause(u64),
}

/// A state that an errand is in for as long as this lives, also when it is aborted.
pub struct Stay<'a> {
    activity: &'a Activity,
    place: Place,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.activity.change(|network| match self.place {
            Place::Sending => network.sending -= 1,
            Place::Token => network.waiting_for_token -= 1,
            Place::Pause(number) => network.pauses.retain(|pause| pause.number != number),
        });
    }
}
