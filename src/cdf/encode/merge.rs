//! What several writes of a key become, as one [fragment](super::fragment).
//!
//! Rows count as applied one after another, to an item that exists and to one that does not, and nobody knows yet which of
//! the two it is. Only writes of one [mode](crate::cdf::table::Mode) are merged; those of different modes are sent one
//! after another. Within a mode:
//!
//! | mode | what is kept |
//! |---|---|
//! | DELETE, DO NOTHING | the first write |
//! | INSERT as an upsert | for each property the last value; a RAW row is replaced whole |
//! | UPDATE | for each property, or RAW column, the last value |
//! | DO UPDATE SET some | what a new item gets: the first row, with what later ones give an existing item laid over it, since it exists by then. What an existing item gets: what each of them gives an existing item, the last value counting |
//!
//! The two of the last line must be kept apart: a value of the first row that is only meant for a new item must not reach
//! one that exists because a later row sets the same property, and leaves it NULL.

use serde_json::value::RawValue;

use super::fragment::{self, EXISTING};
use super::json::Properties;
use crate::cdf::error::Error;
use crate::cdf::resource::sequence_rows::COLUMNS;
use crate::cdf::resource::Resource;

/// Appends what two writes of a key in one mode become: property by property, RAW column by RAW column.
pub fn merge(resource: &Resource, earlier: &[u8], later: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    if resource.is_in_raw_tables() {
        return overlay_columns(earlier, later, out);
    }
    let twin = |property: &str| resource.twin(property);
    match resource.merged_inside() {
        Some(property) => {
            let mut whole = Vec::new();
            add_inside(earlier, later, property, &mut whole)?;
            overlay(earlier, &whole, twin, out)
        }
        None => overlay(earlier, later, twin, out),
    }
}

/// As [`merge`], of rows that give an existing item less than a new one.
pub fn merge_by_existence(
    resource: &Resource,
    earlier: &[u8],
    later: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let (first, second) = (Properties::parse(earlier)?, Properties::parse(later)?);
    let existing = |row: &Properties<'_>| row.object(EXISTING).to_owned();
    let (before, after) = (existing(&first), existing(&second));
    let first = first.into_new();
    let mut new = Vec::with_capacity(earlier.len());
    Properties::write(&mut new, first.0.iter().map(|(property, value)| (&**property, *value)));
    merge(resource, &new, after.as_bytes(), out)?;
    fragment::reopen(out);
    fragment::begin_existing(out);
    merge(resource, before.as_bytes(), after.as_bytes(), out)?;
    fragment::end(out);
    Ok(())
}

/// The later write of an item, with the members of one property, an object, added that only the earlier write has.
fn add_inside(earlier: &[u8], later: &[u8], property: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    let unreadable = |error: serde_json::Error| Error::internal(format!("merging rows: {error}"));
    let (first, mut second) = (Properties::parse(earlier)?, Properties::parse(later)?);
    let merged;
    if let (Some(before), Some(after)) = (first.get(property), second.get(property)) {
        let mut text = Vec::new();
        overlay(before.get().as_bytes(), after.get().as_bytes(), |_| None, &mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        merged = RawValue::from_string(text).map_err(unreadable)?;
        second.0.iter_mut().filter(|(name, _)| name == property).for_each(|(_, value)| *value = &merged);
    }
    Properties::write(out, second.0.iter().map(|(name, value)| (&**name, *value)));
    Ok(())
}

/// Lays the later write of an item over the earlier one, column by column, into `out`. `twin` names the property that
/// says the same in another way: the later one of the two counts.
fn overlay(
    earlier: &[u8],
    later: &[u8],
    twin: impl Fn(&str) -> Option<&'static str>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut merged = Properties::parse(earlier)?;
    let later = Properties::parse(later)?;
    merged.0.retain(|(name, _)| twin(name).is_none_or(|twin| later.get(twin).is_none()));
    for (property, value) in later.0 {
        match merged.0.iter_mut().find(|(name, _)| *name == property) {
            Some(slot) => slot.1 = value,
            None => merged.0.push((property, value)),
        }
    }
    Properties::write(out, merged.0.iter().map(|(property, value)| (&**property, *value)));
    Ok(())
}

/// Lays the columns of the later write of a RAW row over those of the earlier one.
fn overlay_columns(earlier: &[u8], later: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let (mut earlier, later) = (Properties::parse(earlier)?, Properties::parse(later)?);
    let columns = |row: &Properties<'_>| row.object(COLUMNS).to_owned();
    let mut merged = Vec::new();
    overlay(columns(&earlier).as_bytes(), columns(&later).as_bytes(), |_| None, &mut merged)?;
    let merged: Box<RawValue> = serde_json::from_slice(&merged)
        .map_err(|error| Error::internal(format!("merged columns: {error}")))?;
    earlier.0.retain(|(property, _)| property != COLUMNS);
    earlier.0.push((COLUMNS.into(), &merged));
    Properties::write(out, earlier.0.iter().map(|(property, value)| (&**property, *value)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_write_wins_column_by_column() {
        let merged = |earlier: &str, later: &str| {
            let mut out = Vec::new();
            let twin = |name: &str| match name {
                "id" => Some("name"),
                "name" => Some("id"),
                _ => None,
            };
            overlay(earlier.as_bytes(), later.as_bytes(), twin, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            merged(r#"{"k":"a","x":1,"y":"\u00e9"}"#, r#"{"k":"a","x":2,"z":null}"#),
            r#"{"k":"a","x":2,"y":"\u00e9","z":null}"#
        );
        assert_eq!(merged(r#"{"k":"a","name":"n"}"#, r#"{"k":"a","id":2}"#), r#"{"k":"a","id":2}"#);
        assert_eq!(
            merged(r#"{"k":"a","id":1}"#, r#"{"k":"a","id":null,"name":"n"}"#),
            r#"{"k":"a","id":null,"name":"n"}"#
        );
    }

    fn by_existence(resource: &str, writes: &[&str]) -> String {
        let resource = Resource::get(resource).unwrap();
        let merged = writes.iter().map(|write| write.as_bytes().to_vec()).reduce(|earlier, later| {
            let mut out = Vec::new();
            merge_by_existence(resource, &earlier, &later, &mut out).unwrap();
            out
        });
        String::from_utf8(merged.unwrap()).unwrap()
    }

    #[test]
    fn what_only_a_new_item_gets_does_not_reach_one_that_exists() {
        let first = r#"{"externalId":"e","type":"t","source":"new only","":{"type":"t"}}"#;
        let nothing = r#"{"externalId":"e","":{}}"#;
        assert_eq!(by_existence("events", &[first, nothing]), first);
        let second =
            r#"{"externalId":"e","type":"u","subtype":"v","source":"w","":{"source":"w","subtype":null}}"#;
        assert_eq!(
            by_existence("events", &[first, second]),
            r#"{"externalId":"e","type":"t","source":"w","subtype":null,"":{"type":"t","source":"w","subtype":null}}"#
        );
    }

    #[test]
    fn of_two_references_the_later_counts_for_new_and_for_existing_items() {
        let by_id = r#"{"externalId":"e","dataSetId":5,"":{"dataSetId":5}}"#;
        let by_name = r#"{"externalId":"e","dataSetExternalId":"d","":{"dataSetExternalId":"d"}}"#;
        let unset = r#"{"externalId":"e","dataSetId":7,"":{}}"#;
        assert_eq!(by_existence("events", &[by_id, by_name, unset]), by_name);
        assert_eq!(by_existence("events", &[by_name, by_id, unset]), by_id);
    }

    #[test]
    fn raw_columns_are_merged_for_new_and_for_existing_rows() {
        let first = r#"{"key":"k","columns":{"a":1,"b":2},"":{"columns":{"a":1}}}"#;
        let second = r#"{"key":"k","columns":{"a":3,"b":4,"c":5},"":{"columns":{"c":5}}}"#;
        assert_eq!(
            by_existence("raw_rows", &[first, second]),
            r#"{"key":"k","columns":{"a":1,"b":2,"c":5},"":{"columns":{"a":1,"c":5}}}"#
        );
    }
}
