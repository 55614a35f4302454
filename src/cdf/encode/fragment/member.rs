//! Writes members of objects.

use crate::cdf::encode::json;

/// Returns `,"name":`, ready to append. Every member of an object begins like this, including the first.
pub fn head(name: &str) -> Vec<u8> {
    let mut head = Vec::new();
    begin_member(&mut head, name);
    head
}

/// Appends `,"name":`.
pub(super) fn begin_member(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    json::write(out, name);
    out.push(b':');
}

/// Appends `,"name":value`.
pub fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    begin_member(out, name);
    out.extend_from_slice(value.as_bytes());
}
