//! How errors name a row.

use super::{json, length};
use crate::cdf::cell::Cell;
use crate::cdf::table::Table;

/// Returns how errors name a row: by its keys, as in `external_id "a", row_number 5`.
pub fn describe_keys(table: &Table, row: &[Cell<'_>]) -> Option<String> {
    let mut parts = Vec::new();
    for at in table.keys() {
        if !row[*at].is_null() {
            let mut text = Vec::new();
            let shown;
            let cell = match &row[*at] {
                // The text may be too long for a key.
                Cell::Text(key) => {
                    shown = length::shown(key);
                    Cell::Text(&shown)
                }
                other => *other,
            };
            if json::value(&mut text, &cell).is_ok() {
                parts.push(format!("{} {}", table.names[*at], String::from_utf8_lossy(&text)));
            }
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
