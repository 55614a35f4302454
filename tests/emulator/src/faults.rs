//! Faults on demand: the answers, delays and dropped connections that a test orders.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{json, Value};

use crate::errors::ApiError;
use crate::reply::{Cut, Ending, Reply};

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answers `status`.
    Status,
    /// Waits `delay_ms`, then goes on.
    Delay,
    /// Closes the connection without an answer; the request is not applied.
    DropBefore,
    /// Applies the request, then closes the connection without an answer.
    DropAfter,
    /// Never answers; ends when the client goes away.
    Stall,
    /// Applies the request, but sends only the first `bytes` of the answer; `ending` says how it ends.
    Cut,
}

/// Whether the fault comes before or after the request is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The request is not applied (a delay: not yet).
    #[default]
    Before,
    /// The request is applied, and then the fault strikes.
    After,
}

/// How `path` is compared.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Match {
    #[default]
    Contains,
    Suffix,
    Exact,
}

/// A fault as `POST /admin/faults` takes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    path: String,
    #[serde(default, rename = "match")]
    matching: Match,
    method: Option<String>,
    mode: Mode,
    status: Option<u16>,
    body: Option<Value>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    bytes: usize,
    #[serde(default)]
    ending: Ending,
    #[serde(default)]
    delay_ms: u64,
    times: Option<u64>,
    every: Option<u64>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    when: When,
    #[serde(skip)]
    seen: u64,
    #[serde(skip)]
    fired: u64,
}

impl Fault {
    /// Returns what is wrong with this fault, if anything.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.mode == Mode::Status && self.status.is_none_or(|status| !(100..600).contains(&status)) {
            return Err(ApiError::bad_request("mode status needs a status between 100 and 599"));
        }
        if self.every == Some(0) {
            return Err(ApiError::bad_request("every must be at least 1"));
        }
        Ok(())
    }

    /// Returns what the fault does.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it strikes before or after the request is applied.
    pub fn when(&self) -> When {
        match self.mode {
            Mode::DropBefore => When::Before,
            Mode::DropAfter | Mode::Cut => When::After,
            Mode::Status | Mode::Delay | Mode::Stall => self.when,
        }
    }

    /// Returns how mode `cut` shortens an answer.
    pub fn cut(&self) -> Cut {
        Cut { how: self.ending, bytes: self.bytes }
    }

    /// Returns how long to wait first.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Returns the answer of mode `status`.
    pub fn reply(&self) -> Reply {
        let status = self.status.unwrap_or(500);
        let mut reply = match &self.body {
            None => {
                let message = format!("Fault asked for by a test: {status}");
                Reply::json(status, &json!({ "error": { "code": status, "message": message } }))
            }
            Some(Value::String(text)) => Reply {
                status,
                content_type: "text/plain".into(),
                body: text.clone().into_bytes(),
                headers: Vec::new(),
                cut: None,
            },
            Some(body) => Reply::json(status, body),
        };
        for (name, value) in &self.headers {
            if name.eq_ignore_ascii_case("content-type") {
                reply.content_type.clone_from(value);
            } else {
                reply.headers.push((name.clone(), value.clone()));
            }
        }
        reply
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        let path_matches = match self.matching {
            Match::Contains => path.contains(&self.path),
            Match::Suffix => path.ends_with(&self.path),
            Match::Exact => path == self.path,
        };
        path_matches && self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
    }

    /// Counts a matching request. Returns whether the fault strikes it.
    fn strike(&mut self) -> bool {
        self.seen += 1;
        let Some(turn) = self.seen.checked_sub(self.after).filter(|turn| *turn > 0) else {
            return false;
        };
        let fires = self.every.is_none_or(|every| turn % every == 0)
            && self.times.is_none_or(|times| self.fired < times);
        self.fired += u64::from(fires);
        fires
    }
}

/// The faults that were ordered.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    /// Removes all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Returns the faults that strike this request, in the order in which they were added. `path` is the one after the
    /// project.
    pub fn strike(&self, method: &str, path: &str) -> Vec<Fault> {
        self.lock()
            .iter_mut()
            .filter(|fault| fault.matches(method, path))
            .filter_map(|fault| fault.strike().then(|| fault.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: Value, requests: usize) -> Vec<bool> {
        let faults = Faults::default();
        faults.add(serde_json::from_value(fault).unwrap());
        (0..requests).map(|_| !faults.strike("POST", "/timeseries/data").is_empty()).collect()
    }

    #[test]
    fn times_every_and_after() {
        let base = json!({"path": "/timeseries/data", "mode": "drop_before"});
        let with = |extra: Value| {
            let mut fault = base.clone();
            fault.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            fault
        };
        assert_eq!(struck(with(json!({"times": 2})), 3), [true, true, false]);
        assert_eq!(struck(with(json!({"after": 1, "times": 1})), 3), [false, true, false]);
        assert_eq!(struck(with(json!({"every": 2})), 4), [false, true, false, true]);
        assert_eq!(
            struck(with(json!({"after": 1, "every": 2, "times": 1})), 5),
            [false, false, true, false, false]
        );
    }

    #[test]
    fn matching() {
        for (how, path, hit) in [
            ("contains", "series", true),
            ("suffix", "/data", true),
            ("suffix", "/timeseries", false),
            ("exact", "/timeseries/data", true),
            ("exact", "/data", false),
        ] {
            assert_eq!(
                struck(json!({"path": path, "match": how, "mode": "stall"}), 1),
                [hit],
                "{how} {path}"
            );
        }
        assert_eq!(struck(json!({"path": "/", "method": "get", "mode": "stall"}), 1), [false]);
    }
}
