//! The request log and the statistics over it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{json, Value};

use crate::codec::now_ms;
use crate::reply::Counts;

/// The number of entries that are kept; older ones are dropped.
const CAPACITY: usize = 100_000;
/// The largest JSON body that is kept.
const KEPT_BODY: usize = 64 << 10;

/// One request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry {
    /// Counts up from 1 after each reset.
    pub seq: u64,
    /// HTTP method.
    pub method: String,
    /// Path and query; for a resource request, the part after the project.
    pub path: String,
    /// The project of a resource request.
    pub project: Option<String>,
    /// The status of the answer; 0 if the connection was dropped or the client left first.
    pub status: u16,
    /// The x-request-id of the answer.
    pub request_id: String,
    /// Size of the body.
    #[serde(flatten)]
    pub counts: Counts,
    /// Body bytes on the wire.
    pub body_bytes: u64,
    /// Body bytes after decompression.
    pub decoded_bytes: u64,
    /// Bytes of the answer's body on the wire.
    pub response_bytes: u64,
    /// Content-Type of the request.
    pub content_type: String,
    /// Content-Encoding of the request.
    pub content_encoding: String,
    /// The header that tells clients apart.
    pub user_agent: String,
    /// Milliseconds since the epoch.
    pub started_ms: i64,
    /// Milliseconds since the epoch.
    pub ended_ms: i64,
    /// Requests in flight when this one began, including itself.
    pub in_flight: u64,
    /// The client that sent it.
    pub client_id: Option<String>,
    /// The JSON body, if small.
    #[serde(skip)]
    pub body: Option<Value>,
}

impl Entry {
    /// Keeps a JSON body that is not too large.
    pub fn keep_body(&mut self, body: &[u8]) {
        if body.len() <= KEPT_BODY {
            self.body = serde_json::from_slice(body).ok();
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    last: u64,
    max_in_flight: u64,
    requests: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    items: u64,
    points: u64,
    body_bytes: u64,
    decoded_bytes: u64,
}

/// The log of all requests except those to /admin.
#[derive(Default)]
pub struct Record {
    in_flight: AtomicU64,
    inner: Mutex<Inner>,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request as in flight. It is logged when the returned value is dropped.
    pub fn begin(&self) -> Flight<'_> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let mut inner = self.lock();
        inner.max_in_flight = inner.max_in_flight.max(in_flight);
        drop(inner);
        Flight { record: self, entry: Entry { in_flight, started_ms: now_ms(), ..Entry::default() } }
    }

    /// Forgets everything logged.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// Returns the entries whose path contains `path`, oldest first.
    pub fn entries(&self, path: Option<&str>, method: Option<&str>, bodies: bool) -> Vec<Value> {
        self.lock()
            .entries
            .iter()
            .filter(|entry| path.is_none_or(|part| entry.path.contains(part)))
            .filter(|entry| method.is_none_or(|method| entry.method.eq_ignore_ascii_case(method)))
            .map(|entry| {
                let mut value = json!(entry);
                if let Some(body) = entry.body.as_ref().filter(|_| bodies) {
                    value["body"] = body.clone();
                }
                value
            })
            .collect()
    }

    /// Returns totals since the last reset.
    pub fn stats(&self) -> Value {
        let inner = self.lock();
        json!({
            "requests": inner.last,
            "paths": inner.requests,
            "statuses": inner.statuses,
            "in_flight": self.in_flight.load(Ordering::SeqCst),
            "max_in_flight": inner.max_in_flight,
            "items": inner.items,
            "points": inner.points,
            "body_bytes": inner.body_bytes,
            "decoded_bytes": inner.decoded_bytes,
        })
    }
}

/// A request in flight.
pub struct Flight<'a> {
    record: &'a Record,
    /// What is known about it so far.
    pub entry: Entry,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.record.in_flight.fetch_sub(1, Ordering::SeqCst);
        let mut entry = std::mem::take(&mut self.entry);
        entry.ended_ms = now_ms();
        let mut inner = self.record.lock();
        inner.last += 1;
        entry.seq = inner.last;
        let path = entry.path.split('?').next().unwrap_or_default();
        let key = format!("{} {path}", entry.method);
        *inner.requests.entry(key).or_default() += 1;
        *inner.statuses.entry(entry.status).or_default() += 1;
        inner.items += entry.counts.items;
        inner.points += entry.counts.points;
        inner.body_bytes += entry.body_bytes;
        inner.decoded_bytes += entry.decoded_bytes;
        if inner.entries.len() == CAPACITY {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
    }
}
