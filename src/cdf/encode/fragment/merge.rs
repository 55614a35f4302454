//! Merges several writes of a key into one [fragment](super).
//!
//! The result must be the same as that of the writes one after another, whether the item exists or not: nobody knows yet.
//! Only writes of one [mode](crate::cdf::table::Mode) are merged; those of different modes are sent one after another. Within
//! a mode:
//!
//! | mode | what is kept |
//! |---|---|
//! | DELETE, DO NOTHING | the first write |
//! | INSERT as an upsert | for each property the last value; a RAW row is replaced whole |
//! | UPDATE | for each property, or RAW column, the last value |
//! | DO UPDATE SET some | what a new item gets: the first row, with what later ones give an existing item laid over it, since it exists by then. What an existing item gets: what each of them gives an existing item, the last value counting |
//!
//! The two parts of the last line must be kept apart. Otherwise a value of the first row that only a new item gets could
//! reach an existing item, if a later row sets the same property and leaves it NULL.

use super::member::{head, member};
use super::row::{Fragment, ParsedRow};
use super::write::{begin_existing, end_object};
use crate::cdf::encode::json::Properties;
use crate::cdf::error::Error;
use crate::cdf::resource::Resource;

/// Merges two writes of a key in one mode: property by property, and column by column if rows have columns.
pub fn merge(
    resource: &Resource,
    earlier: Fragment<'_>,
    later: Fragment<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let (earlier, later) = (earlier.parse()?, later.parse()?);
    let start = out.len();
    merge_new(resource, &earlier, &later.properties, out)?;
    end_object(out, start);
    Ok(())
}

/// Merges rows that give an existing item less than a new one.
pub fn merge_by_existence(
    resource: &Resource,
    earlier: Fragment<'_>,
    later: Fragment<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let (earlier, later) = (earlier.parse()?, later.parse()?);
    let nothing = Properties::default();
    let [before, after] = [&earlier, &later].map(|row| row.existing.as_ref().unwrap_or(&nothing));
    let start = out.len();
    merge_new(resource, &earlier, after, out)?;
    begin_existing(out);
    let existing = out.len();
    lay_over(resource, before, after, out)?;
    end_object(out, existing);
    end_object(out, start);
    Ok(())
}

/// Appends the members that a new item gets: those of the earlier write, with properties of the later one laid over them.
fn merge_new(
    resource: &Resource,
    earlier: &ParsedRow<'_>,
    later: &Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    earlier.write_key(out);
    lay_over(resource, &earlier.properties, later, out)
}

/// Appends the members of the earlier write, with those of the later one laid over them.
fn lay_over(
    resource: &Resource,
    earlier: &Properties<'_>,
    later: &Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let inside = resource.merged_inside();
    for (name, value) in overlay(earlier, later, |name| resource.twin(name)).0 {
        match earlier.get(&name).filter(|_| inside == Some(&*name) && later.get(&name).is_some()) {
            Some(before) => {
                let before = Properties::parse(before.get().as_bytes())?;
                let after = Properties::parse(value.get().as_bytes())?;
                out.extend_from_slice(&head(&name));
                overlay(&before, &after, |_| None).write(out);
            }
            None => member(out, &name, value.get()),
        }
    }
    Ok(())
}

/// Lays the later members over the earlier ones. `twin` returns the other property for the same reference: of the two, the
/// later one counts.
fn overlay<'a>(
    earlier: &Properties<'a>,
    later: &Properties<'a>,
    twin: impl Fn(&str) -> Option<&'static str>,
) -> Properties<'a> {
    let mut merged = earlier.clone();
    merged.0.retain(|(name, _)| twin(name).is_none_or(|twin| later.get(twin).is_none()));
    for (property, value) in &later.0 {
        match merged.0.iter_mut().find(|(name, _)| name == property) {
            Some(slot) => slot.1 = value,
            None => merged.0.push((property.clone(), value)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_write_wins_column_by_column() {
        let merged = |earlier: &str, later: &str| {
            let twin = |name: &str| match name {
                "id" => Some("name"),
                "name" => Some("id"),
                _ => None,
            };
            let [earlier, later] = [earlier, later].map(|write| Properties::parse(write.as_bytes()).unwrap());
            let mut out = Vec::new();
            overlay(&earlier, &later, twin).write(&mut out);
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

    #[test]
    fn columns_are_merged_one_by_one() {
        for (resource, key) in [("raw_rows", r#""key":"k""#), ("sequence_rows", r#""id":1,"rowNumber":2"#)] {
            let row = |columns: &str| format!(r#"{{{key},"columns":{columns}}}"#);
            let (earlier, later) = (row(r#"{"a":1,"b":2}"#), row(r#"{"b":null,"c":3,"c":4}"#));
            let mut out = Vec::new();
            let [earlier, later] = [&earlier, &later].map(|row| Fragment::of(row.as_bytes()));
            merge(Resource::get(resource).unwrap(), earlier, later, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), row(r#"{"a":1,"b":null,"c":4}"#));
        }
    }

    fn by_existence(resource: &str, writes: &[&str]) -> String {
        let resource = Resource::get(resource).unwrap();
        let merged = writes.iter().map(|write| write.as_bytes().to_vec()).reduce(|earlier, later| {
            let mut out = Vec::new();
            merge_by_existence(resource, Fragment::of(&earlier), Fragment::of(&later), &mut out).unwrap();
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
