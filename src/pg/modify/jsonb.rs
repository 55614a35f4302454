//! Reads PostgreSQL's binary form of a JSON object in place. Printing it as text and parsing that would take longer than all
//! other work on a row.
//!
//! The form is that of `utils/jsonb.h`, which dumps of the data directory keep from one version to the next: a header with
//! the number of pairs, an entry for each key and then for each value, and their bytes one after another.

use bumpalo::collections::Vec;
use bumpalo::Bump;
use pgrx::pg_sys;

use crate::pg::encoding::utf8;

/// The pairs of an object that has only texts, booleans and nulls in it; the nulls are left out. None for any other
/// document, and if the bytes are not UTF-8.
///
/// `container`: the bytes of a jsonb value behind its length. `arena`: where the pairs are kept.
pub fn flat_pairs<'a>(container: &'a [u8], arena: &'a Bump) -> Option<&'a [(&'a str, &'a str)]> {
    let (words, _) = container.as_chunks::<4>();
    let header = u32::from_ne_bytes(*words.first()?);
    if header & pg_sys::JB_FOBJECT == 0 {
        return None;
    }
    let count = (header & pg_sys::JB_CMASK) as usize;
    let (keys, values) = words.get(1..1 + count * 2)?.split_at(count);
    let bytes = container.get((1 + count * 2) * 4..)?;
    let mut offset = 0;
    let mut next = |entry: &[u8; 4]| {
        let entry = u32::from_ne_bytes(*entry);
        let length = (entry & pg_sys::JENTRY_OFFLENMASK) as usize;
        let end = if entry & pg_sys::JENTRY_HAS_OFF != 0 { length } else { offset + length };
        let found = bytes.get(offset..end)?;
        offset = end;
        Some((entry & pg_sys::JENTRY_TYPEMASK, found))
    };
    let mut pairs = Vec::with_capacity_in(count, arena);
    for key in keys {
        pairs.push((utf8(next(key)?.1)?, ""));
    }
    let mut kept = 0;
    for (at, value) in values.iter().enumerate() {
        let (kind, bytes) = next(value)?;
        let value = match kind {
            pg_sys::JENTRY_ISSTRING => utf8(bytes)?,
            pg_sys::JENTRY_ISBOOL_TRUE => "true",
            pg_sys::JENTRY_ISBOOL_FALSE => "false",
            pg_sys::JENTRY_ISNULL => continue,
            _ => return None,
        };
        pairs[kept] = (pairs[at].0, value);
        kept += 1;
    }
    pairs.truncate(kept);
    Some(pairs.into_bump_slice())
}

/// The least bytes that a document has as text: those of its texts, and one for each other value. Escaping makes more of
/// them.
///
/// `container`: the bytes of a jsonb value behind its length.
pub fn least_bytes(container: &[u8]) -> usize {
    let mut total = 0;
    // A list instead of recursion: documents may be nested deeper than the stack is.
    let mut containers = vec![container];
    while let Some(container) = containers.pop() {
        let (words, _) = container.as_chunks::<4>();
        let Some((header, words)) = words.split_first() else { continue };
        let header = u32::from_ne_bytes(*header);
        let values = (header & pg_sys::JB_CMASK) as usize;
        let count = if header & pg_sys::JB_FOBJECT != 0 { values * 2 } else { values };
        let Some((entries, bytes)) = words.get(..count).zip(container.get((1 + count) * 4..)) else {
            continue;
        };
        let mut offset = 0;
        for entry in entries {
            let entry = u32::from_ne_bytes(*entry);
            let length = (entry & pg_sys::JENTRY_OFFLENMASK) as usize;
            let end = if entry & pg_sys::JENTRY_HAS_OFF != 0 { length } else { offset + length };
            total += match entry & pg_sys::JENTRY_TYPEMASK {
                pg_sys::JENTRY_ISSTRING => end.saturating_sub(offset),
                pg_sys::JENTRY_ISCONTAINER => {
                    // What stands in front of it fills the word up.
                    containers.extend(bytes.get(offset.next_multiple_of(4)..end));
                    1
                }
                _ => 1,
            };
            offset = end;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// As PostgreSQL lays an object of texts and others (kind, bytes) out.
    fn object(pairs: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut entries: Vec<(u32, &[u8])> = pairs.iter().map(|(key, ..)| (0, key.as_bytes())).collect();
        entries.extend(pairs.iter().map(|(_, kind, bytes)| (*kind, *bytes)));
        let mut out = (pairs.len() as u32 | pg_sys::JB_FOBJECT).to_ne_bytes().to_vec();
        let mut end = 0;
        for (at, (kind, bytes)) in entries.iter().enumerate() {
            end += bytes.len() as u32;
            // Every 32nd entry has the end of its bytes instead of their number.
            let entry = if at % 32 == 0 { end | pg_sys::JENTRY_HAS_OFF } else { bytes.len() as u32 };
            out.extend_from_slice(&(entry | kind).to_ne_bytes());
        }
        entries.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        out
    }

    #[test]
    fn texts_booleans_and_nulls_are_read() {
        let bytes = object(&[
            ("a", pg_sys::JENTRY_ISSTRING, b"one"),
            ("b", pg_sys::JENTRY_ISNULL, b""),
            ("c", pg_sys::JENTRY_ISBOOL_TRUE, b""),
            ("d", pg_sys::JENTRY_ISBOOL_FALSE, b""),
            ("e", pg_sys::JENTRY_ISSTRING, b""),
        ]);
        let pairs = [("a", "one"), ("c", "true"), ("d", "false"), ("e", "")];
        assert_eq!(flat_pairs(&bytes, &Bump::new()).unwrap(), pairs);
        assert_eq!(flat_pairs(&object(&[]), &Bump::new()).unwrap(), []);
    }

    #[test]
    fn more_pairs_than_one_stride_of_offsets() {
        let names: Vec<(String, String)> =
            (0..100).map(|at| (format!("key{at:03}"), "x".repeat(at))).collect();
        let pairs: Vec<(&str, u32, &[u8])> =
            names.iter().map(|(key, value)| (key.as_str(), 0, value.as_bytes())).collect();
        let read: Vec<(String, String)> = flat_pairs(&object(&pairs), &Bump::new())
            .unwrap()
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(read, names);
    }

    #[test]
    fn texts_of_all_depths_are_counted() {
        let inner = object(&[
            ("key", pg_sys::JENTRY_ISSTRING, b"\x01\x01"),
            ("n", pg_sys::JENTRY_ISNUMERIC, b"...."),
        ]);
        assert_eq!(least_bytes(&inner), 3 + 2 + 1 + 1);
        // The container begins at a multiple of four: three bytes of a name, one in between.
        let padded = [b"\0", &*inner].concat();
        let outer = object(&[("abc", pg_sys::JENTRY_ISCONTAINER, &padded)]);
        assert_eq!(least_bytes(&outer), 3 + 1 + 7);
        assert!((0..outer.len()).all(|end| least_bytes(&outer[..end]) <= 11), "cut off");
    }

    #[test]
    fn everything_else_is_left_to_others() {
        assert_eq!(flat_pairs(&object(&[("a", pg_sys::JENTRY_ISNUMERIC, b"....")]), &Bump::new()), None);
        assert_eq!(flat_pairs(&object(&[("a", pg_sys::JENTRY_ISCONTAINER, b"....")]), &Bump::new()), None);
        assert_eq!(flat_pairs(&object(&[("a", 0, b"\xff")]), &Bump::new()), None);
        assert_eq!(flat_pairs(&(pg_sys::JB_FARRAY | 1).to_ne_bytes(), &Bump::new()), None);
        let whole = object(&[("key", 0, b"value")]);
        assert!((0..whole.len()).all(|end| flat_pairs(&whole[..end], &Bump::new()).is_none()), "cut off");
    }
}
