//! The log: one JSON object per line, on standard error. It has nothing that a caller sends except for the path.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{json, Map, Value};

/// Returns the milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Writes a line: what happened, and the details.
pub fn line(event: &str, details: Value) {
    let mut entry = Map::new();
    entry.insert("time".into(), json!(now_ms()));
    entry.insert("event".into(), json!(event));
    if let Value::Object(details) = details {
        entry.extend(details);
    }
    let mut text = Value::Object(entry).to_string();
    text.push('\n');
    // If nobody reads the log, that is no reason to fail.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
