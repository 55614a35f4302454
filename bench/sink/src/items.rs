//! Assets, events, time series and RAW rows: what is in a JSON request.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A request with `items`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// The items.
    #[serde(borrow)]
    pub items: Vec<Item<'a>>,
    /// In `byids`: leave out what does not exist.
    #[serde(default)]
    pub ignore_unknown_ids: bool,
}

/// An element of a request, as far as it is counted. Absent fields are empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    /// Of an item.
    #[serde(borrow, default)]
    pub external_id: Cow<'a, str>,
    /// Of an asset.
    #[serde(borrow, default)]
    pub parent_external_id: Cow<'a, str>,
    /// Of an asset or a time series.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// Of an item.
    #[serde(default)]
    pub metadata: Count,
    /// Of an update.
    #[serde(default)]
    pub update: Option<Update>,
    /// Of a RAW row.
    #[serde(borrow, default)]
    pub key: Cow<'a, str>,
    /// Of a RAW row.
    #[serde(default)]
    pub columns: Option<Count>,
}

/// What an update changes.
#[derive(Deserialize)]
pub struct Update {
    #[serde(default)]
    metadata: Set,
}

#[derive(Default, Deserialize)]
struct Set {
    #[serde(default)]
    set: Count,
}

impl Item<'_> {
    /// Returns the number of pairs of metadata, or of columns of a RAW row.
    pub fn parts(&self) -> u64 {
        let update = self.update.as_ref().map_or(0, |update| update.metadata.set.0);
        self.metadata.0 + update + self.columns.as_ref().map_or(0, |columns| columns.0)
    }
}

/// The number of members of an object. They are checked to be JSON, but not kept.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Reads a request of at most `most` items.
///
/// # Errors
/// A text if it is not readable, or too long.
pub fn read(body: &[u8], most: usize) -> Result<Request<'_>, String> {
    let request: Request<'_> = sonic_rs::from_slice(body).map_err(|error| error.to_string())?;
    match request.items.len() {
        0 => Err("no items".into()),
        count if count > most => Err(format!("{count} items; {most} are allowed")),
        _ => Ok(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_parts() {
        let body = br#"{"items": [
            {"externalId": "a\u00e5", "name": "A", "metadata": {"x": "1", "y": "{\"z\":0}"}, "labels": [{"externalId": "l"}]},
            {"externalId": "b", "update": {"metadata": {"set": {"x": "1"}}, "name": {"set": "B"}}},
            {"externalId": "c", "update": {"description": {"setNull": true}}},
            {"key": "k", "columns": {"a": {"nested": [1, {"b": 2}]}, "b": null, "c": "}"}}]}"#;
        let request = read(body, 4).unwrap();
        let seen: Vec<(&str, &str, u64)> =
            request.items.iter().map(|item| (&*item.external_id, &*item.key, item.parts())).collect();
        assert_eq!(seen, [("aå", "", 2), ("b", "", 1), ("c", "", 0), ("", "k", 3)]);
        assert!(request.items[0].update.is_none() && request.items[2].update.is_some());
        assert!(!request.ignore_unknown_ids);
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        let refused: [(&[u8], usize); 6] = [
            (br#"{"items":[]}"#, 1),
            (br#"{"items":[{"key":"a"},{"key":"b"}]}"#, 1),
            (br#"{"items":[{"key":"a","columns":{"a":1"#, 1),
            (br#"{"items":[{"key":"a","columns":[]}]}"#, 1),
            (br#"{"items":[{"externalId":1}]}"#, 1),
            (b"", 1),
        ];
        for (body, most) in refused {
            assert!(read(body, most).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
