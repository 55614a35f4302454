//! A series of requests that counts for its activity.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::counters::{lock, Activity, AttemptEnd, Counters, Pause};

/// A series of requests: a read, or one part of a flush. It counts for its activity.
#[derive(Debug)]
pub struct Errand {
    activity: Arc<Activity>,
    counters: Arc<Counters>,
    /// The number of rows to deliver. `blind` rows have no key.
    rows: u64,
    blind: bool,
    state: Mutex<Acknowledged>,
}

#[derive(Debug, Default)]
struct Acknowledged {
    acknowledged: u64,
    /// As in the counters.
    unsure: u64,
    /// Whether a request was not answered. A later refusal then does not prove that nothing was written.
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

    /// Counts rows that CDF has acknowledged.
    pub fn acknowledge(&self, rows: usize) {
        let mut state = lock(&self.state);
        state.acknowledged += rows as u64;
        self.counters.acknowledged.fetch_add(rows as u64, Ordering::Relaxed);
        if self.blind {
            self.counters.blind.fetch_add(rows as u64, Ordering::Relaxed);
        }
        // In this order, so that the rows are acknowledged or unsure at every moment.
        state.doubt = false;
        self.set_unsure(&mut state, 0);
    }

    /// Counts rows that were read.
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

    fn set_unsure(&self, state: &mut Acknowledged, rows: u64) {
        let before = std::mem::replace(&mut state.unsure, rows);
        // Of two steps the one that adds goes first, so that the counter never wraps.
        self.counters.unsure.fetch_add(rows, Ordering::Relaxed);
        self.counters.unsure.fetch_sub(before, Ordering::Relaxed);
    }

    /// Begins an attempt. It lasts until the returned guard is dropped.
    pub fn attempt(&self, bytes: usize) -> Stay<'_> {
        self.counters.began.get_or_init(Instant::now);
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.activity.change(|network| network.sending += 1);
        Stay { activity: &self.activity, phase: Phase::Sending }
    }

    /// Begins a wait for a token. It lasts until the returned guard is dropped.
    pub fn waits_for_token(&self) -> Stay<'_> {
        self.activity.change(|network| network.waiting_for_token += 1);
        Stay { activity: &self.activity, phase: Phase::Token }
    }

    /// Begins a pause before the next attempt. It lasts until the returned guard is dropped.
    pub fn pauses(&self, pause: Duration, why: String) -> Stay<'_> {
        let mut number = 0;
        let until = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
        self.activity.change(|network| {
            network.numbered += 1;
            number = network.numbered;
            network.pauses.push(Pause { number, until, why });
        });
        Stay { activity: &self.activity, phase: Phase::Pause(number) }
    }

    /// Counts a request that is sent again, and why.
    pub fn repeats(&self, why: &str) {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        let mut reasons = lock(&self.counters.reasons);
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why.to_owned(), 1)),
        }
    }

    /// Records how an attempt ended: "CDF's last answer to POST /events was 429 …".
    pub fn ended(&self, words: String) {
        *lock(&self.counters.last) = Some(AttemptEnd { at: Instant::now(), words });
    }
}

/// What an errand does for a while.
enum Phase {
    Sending,
    Token,
    Pause(u64),
}

/// A guard for a state of an errand. The state ends when the guard is dropped, also when the task is aborted.
pub struct Stay<'a> {
    activity: &'a Activity,
    phase: Phase,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.activity.change(|network| match self.phase {
            Phase::Sending => network.sending -= 1,
            Phase::Token => network.waiting_for_token -= 1,
            Phase::Pause(number) => network.pauses.retain(|pause| pause.number != number),
        });
    }
}
