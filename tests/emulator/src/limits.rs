//! Throttling: 429 above a number of concurrent requests, or of requests per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::errors::ApiError;
use crate::reply::Reply;

/// A limit as `POST /admin/limits` takes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    max_concurrent: Option<u64>,
    rate_per_second: Option<u64>,
    /// Applies to paths that contain this text; to all when absent.
    path: Option<String>,
    /// Sent as Retry-After, which CDF itself does not do.
    retry_after: Option<String>,
}

struct Gauge {
    limit: Limit,
    in_flight: Arc<AtomicU64>,
    second: Instant,
    in_second: u64,
}

/// Keeps a request counted as in flight until it is dropped.
pub struct Permit(Vec<Arc<AtomicU64>>);

impl Drop for Permit {
    fn drop(&mut self) {
        for counter in &self.0 {
            counter.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The limits that were ordered.
#[derive(Default)]
pub struct Limits(Mutex<Vec<Gauge>>);

impl Limits {
    fn lock(&self) -> MutexGuard<'_, Vec<Gauge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a limit, or replaces the one for the same path.
    pub fn set(&self, limit: Limit) {
        let mut gauges = self.lock();
        gauges.retain(|gauge| gauge.limit.path != limit.path);
        gauges.push(Gauge { limit, in_flight: Arc::default(), second: Instant::now(), in_second: 0 });
    }

    /// Removes all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Lets a request in, or answers 429. As in CDF, a throttled request still counts against the rate.
    pub fn enter(&self, path: &str) -> Result<Permit, Reply> {
        let mut permit = Permit(Vec::new());
        for gauge in self.lock().iter_mut() {
            if gauge.limit.path.as_ref().is_some_and(|part| !path.contains(part)) {
                continue;
            }
            let counter = &gauge.in_flight;
            let running = counter.fetch_add(1, Ordering::SeqCst);
            permit.0.push(counter.clone());
            if let Some(max) = gauge.limit.max_concurrent.filter(|max| running >= *max) {
                return Err(throttled(&gauge.limit, max, "concurrent requests"));
            }
            if let Some(max) = gauge.limit.rate_per_second {
                if gauge.second.elapsed() >= Duration::from_secs(1) {
                    (gauge.second, gauge.in_second) = (Instant::now(), 0);
                }
                gauge.in_second += 1;
                if gauge.in_second > max {
                    return Err(throttled(&gauge.limit, max, "requests per second"));
                }
            }
        }
        Ok(permit)
    }
}

fn throttled(limit: &Limit, max: u64, what: &str) -> Reply {
    let message = format!("Project exceeded maximum number='{max}' of {what}. Please try again later.");
    let mut reply = Reply::from(ApiError::new(429, message));
    reply.headers.extend(limit.retry_after.iter().map(|seconds| ("retry-after".into(), seconds.clone())));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(json: serde_json::Value) -> Limits {
        let limits = Limits::default();
        limits.set(serde_json::from_value(json).unwrap());
        limits
    }

    #[test]
    fn concurrency_frees_itself() {
        let limits = limit(serde_json::json!({"max_concurrent": 1, "path": "/assets", "retry_after": "3"}));
        let first = limits.enter("/assets").ok();
        assert!(first.is_some());
        let reply = limits.enter("/assets/list").err().unwrap();
        assert_eq!(reply.status, 429);
        assert_eq!(reply.headers, [("retry-after".to_owned(), "3".to_owned())]);
        assert!(limits.enter("/events").is_ok());
        drop(first);
        assert!(limits.enter("/assets").is_ok());
    }

    #[test]
    fn rate() {
        let limits = limit(serde_json::json!({"rate_per_second": 2}));
        let admitted = (0..5).filter(|_| limits.enter("/x").is_ok()).count();
        assert_eq!(admitted, 2);
    }
}
