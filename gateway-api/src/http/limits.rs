//! Limits for one caller: requests per second, requests at a time, the time of one request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The longest time that a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The most addresses that are remembered.
const ADDRESSES: usize = 10_000;

/// How many seconds' worth of requests may come at once.
const BURST: f64 = 4.0;

/// Lets an address make this many requests per second, after a first burst.
pub struct Rate {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Rate {
    pub fn new(per_second: u32) -> Rate {
        Rate { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Whether one more request may be made now.
    pub fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let most = self.per_second * BURST;
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if buckets.len() >= ADDRESSES {
            // Buckets that have had time to fill up again need not be remembered.
            buckets.retain(|_, bucket| now.duration_since(bucket.at).as_secs_f64() < BURST);
            if buckets.len() >= ADDRESSES && !buckets.contains_key(&address) {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: most, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * self.per_second).min(most);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_in_a_second_for_each_address() {
        let rate = Rate::new(2);
        let (one, other): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| rate.allows(one, start)).count(), 8);
        assert!(rate.allows(other, start));
        assert_eq!((0..20).filter(|_| rate.allows(one, start + Duration::from_secs(1))).count(), 2);
        assert_eq!((0..20).filter(|_| rate.allows(one, start + Duration::from_secs(60))).count(), 8);
    }
}
