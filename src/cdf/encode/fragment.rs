//! What a written row is between its encoder and its delivery. Only this file knows how its bytes are arranged.
//!
//! # The format
//!
//! A *fragment* is a JSON object without white space outside of values. Encoders make it; the buffer merges it; delivery and
//! own reads look into it. Several writes of a key become [one](super::merge).
//!
//! - The first member is the key, if the row has one: `id` or `externalId`, RAW's `key`, an instance's
//!   [`KEY`], for a row of a sequence the sequence and then `rowNumber`. Two fragments of one key begin
//!   with the same bytes ([`EncodedRow::prefix`](super::EncodedRow::prefix)).
//! - The other members are properties: of an INSERT what the row holds, of an UPDATE what it changes, of a DELETE none. RAW
//!   rows and rows of sequences have theirs in one member, `columns`.
//! - A `null` clears. What is created has nothing to clear, so that delivery leaves it out there. RAW stores nulls.
//! - A reference by external id stands under its own property until delivery has found the internal id.
//! - Rows of `INSERT … ON CONFLICT DO UPDATE SET` some columns end with a member of the empty name, [`EXISTING`]: an object
//!   of what an item gets that exists already. All before it is what a new item gets.

use memchr::{memchr2, memmem};
use serde_json::value::RawValue;

use super::json::{self, Properties};
use super::{EncodedRow, KeyKind};
use crate::cdf::error::{Error, Identity};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::sequence_rows::{COLUMNS, ROW_NUMBER};
use crate::cdf::resource::Resource;

/// The member of a fragment that holds what an existing item gets, if that is not all. No property of CDF has an empty name.
pub const EXISTING: &str = "";

/// The member that holds an instance's space and external id. No property can be called so, nor like [`end_member`].
pub const KEY: &str = "(space, external_id)";

/// The member that holds an instance's `type`, `startNode` or `endNode`.
pub fn end_member(end: &str) -> String {
    format!("({end})")
}

/// The member that a fragment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMember {
    Id,
    ExternalId,
    RawKey,
    Instance,
}

impl KeyMember {
    #[inline]
    const fn beginning(self) -> &'static [u8] {
        match self {
            KeyMember::Id => b"{\"id\":",
            KeyMember::ExternalId => b"{\"externalId\":",
            KeyMember::RawKey => b"{\"key\":",
            KeyMember::Instance => b"{\"(space, external_id)\":",
        }
    }
}

/// A fragment whose key is being written.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    member: KeyMember,
    start: usize,
    /// Where what is hashed of the key begins.
    hashed: usize,
}

impl Opening {
    /// Begins a fragment; the value of its key is to follow.
    #[inline]
    pub fn new(out: &mut Vec<u8>, member: KeyMember) -> Self {
        let start = out.len();
        out.extend_from_slice(member.beginning());
        Opening { member, start, hashed: out.len() }
    }

    /// Appends the second part of a key that has two: both count then, with the first one's name.
    pub fn row_number(mut self, out: &mut Vec<u8>, number: i64) -> Self {
        begin_member(out, ROW_NUMBER);
        json::write(out, &number);
        self.hashed = self.start;
        self
    }

    /// What is known of the row when its key stands in `out`. The members follow.
    #[inline]
    pub fn keyed(self, out: &[u8]) -> EncodedRow {
        EncodedRow {
            kind: if self.member == KeyMember::Id { KeyKind::Id } else { KeyKind::Key },
            prefix: out.len() - self.start,
            hash: hash_bytes(&out[self.hashed..]),
            deferred: false,
            parent: None,
            complete: true,
        }
    }
}

/// `,"name":`, ready to append: what the members of an object begin with, its first one too.
pub fn head(member: &str) -> Vec<u8> {
    let mut head = Vec::new();
    begin_member(&mut head, member);
    head
}

/// Appends `,"name":`.
pub fn begin_member(out: &mut Vec<u8>, member: &str) {
    out.push(b',');
    json::write(out, member);
    out.push(b':');
}

/// Appends `,"columns":`, which the columns of a RAW row, or of a sequence's, follow.
#[inline]
pub fn begin_columns(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"columns\":");
}

/// Begins what an existing item gets, an object that is to follow.
pub fn begin_existing(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"\":");
}

/// Appends an object that holds no more than columns, which `columns` appends.
pub fn only_columns<E>(
    out: &mut Vec<u8>,
    columns: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    begin_columns(out);
    columns(out)?;
    end_object(out, start);
    Ok(())
}

/// Ends the object whose members begin at `start`: the comma of its first member gives way to the brace, so that no member
/// has to know whether it is the first.
#[inline]
pub fn end_object(out: &mut Vec<u8>, start: usize) {
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

/// Ends a fragment that has begun with its key.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.push(b'}');
}

/// Takes the end of a fragment away, so that members can follow.
pub fn reopen(out: &mut Vec<u8>) {
    out.pop();
}

/// What the fragments of an item begin with that has this external id; of a RAW row that has it as its key.
pub fn key_of_text(member: KeyMember, text: &str) -> Vec<u8> {
    let mut key = member.beginning().to_vec();
    json::text(&mut key, text);
    key
}

/// What the fragments of an item begin with that are addressed by its id.
pub fn key_of_id(id: i64) -> Vec<u8> {
    let mut key = KeyMember::Id.beginning().to_vec();
    json::write(&mut key, &id);
    key
}

/// What the fragments of an instance begin with.
pub fn key_of_instance(space: &str, external_id: &str) -> Vec<u8> {
    let mut key = KeyMember::Instance.beginning().to_vec();
    key.push(b'[');
    json::text(&mut key, space);
    key.push(b',');
    json::text(&mut key, external_id);
    key.push(b']');
    key
}

/// The key of a sequence, made that of one of its rows.
pub fn with_row_number(mut key: Vec<u8>, number: i64) -> Vec<u8> {
    begin_member(&mut key, ROW_NUMBER);
    json::write(&mut key, &number);
    key
}

/// What a fragment begins with up to the end of its key: its first member, of a sequence's row its first two.
pub fn key<'f>(resource: &Resource, fragment: &'f [u8]) -> &'f [u8] {
    let first = first_member(fragment).len();
    let end = if resource.is_numbered() {
        let behind = fragment.iter().skip(first + 1).position(|byte| matches!(byte, b',' | b'}'));
        behind.map_or(fragment.len(), |at| first + 1 + at)
    } else {
        first
    };
    &fragment[..end]
}

/// A fragment up to the end of its first member, without parsing the others.
pub fn first_member(fragment: &[u8]) -> &[u8] {
    let value = value_of_first(fragment);
    let mut values = serde_json::Deserializer::from_slice(&fragment[value..]).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(_)) => &fragment[..value + values.byte_offset()],
        _ => fragment,
    }
}

/// Where the value of the first member begins. No name of a key has a colon.
fn value_of_first(fragment: &[u8]) -> usize {
    fragment.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1)
}

/// The hash of a key of one member, as [`EncodedRow::hash`] has it.
pub fn key_hash(key: &[u8]) -> u64 {
    hash_bytes(&key[value_of_first(key)..])
}

/// The key without the brace that it begins with, as errors show it.
pub fn shown_key(key: &[u8]) -> String {
    String::from_utf8_lossy(key.strip_prefix(b"{").unwrap_or(key)).into_owned()
}

/// The key as an object of its own.
pub fn key_object(key: &[u8]) -> Vec<u8> {
    [key, b"}"].concat()
}

/// Whether what follows the key may give the item another external id.
pub fn may_rename(fragment: &[u8], encoded: &EncodedRow) -> bool {
    memmem::find(&fragment[encoded.prefix..], b"\"externalId\":").is_some()
}

/// The external id that a fragment begins with, as JSON.
pub fn external_id(fragment: &[u8]) -> Option<&[u8]> {
    let text = fragment.strip_prefix(KeyMember::ExternalId.beginning())?.strip_prefix(b"\"")?;
    let mut end = 0;
    loop {
        end += memchr2(b'"', b'\\', text.get(end..)?)?;
        match text[end] {
            b'"' => break,
            _ => end += 2,
        }
    }
    // With its quotes.
    let start = fragment.len() - text.len() - 1;
    Some(&fragment[start..=start + 1 + end])
}

impl<'a> Properties<'a> {
    /// Which item, RAW row or instance the row is of; of a sequence's row, which sequence.
    pub fn identity(&self) -> Option<Identity> {
        let (member, value) = self.0.first()?;
        match &**member {
            "id" => value.get().parse().ok().map(Identity::Id),
            KEY => serde_json::from_str(value.get())
                .ok()
                .map(|(space, external_id)| Identity::Instance { space, external_id }),
            "externalId" | "key" => serde_json::from_str(value.get()).ok().map(Identity::ExternalId),
            _ => None,
        }
    }

    /// `{"externalId":…}` or `{"id":…}`.
    pub fn key_object(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Properties::write(&mut out, self.0.first().map(|(member, value)| (&**member, *value)).into_iter());
        out
    }

    /// The text of a member that is an object; `{}` if it is not there.
    pub fn object(&self, member: &str) -> &'a str {
        self.get(member).map_or("{}", RawValue::get)
    }

    /// The columns of a RAW row, or of a sequence's.
    pub fn columns(&self) -> Result<Properties<'a>, Error> {
        Properties::parse(self.object(COLUMNS).as_bytes())
    }

    /// What an existing item gets of the row: the key first, then the properties.
    pub fn into_existing(mut self) -> Result<Self, Error> {
        if let Some(existing) = self.get(EXISTING) {
            let properties = Properties::parse(existing.get().as_bytes())?;
            self.0.truncate(1);
            self.0.extend(properties.0);
        }
        Ok(self)
    }

    /// What a new item gets of the row.
    pub fn into_new(mut self) -> Self {
        self.0.retain(|(property, _)| property != EXISTING);
        self
    }

    /// Appends what a new item gets of the row, without what is `unset`.
    pub fn write_new(&self, out: &mut Vec<u8>, unset: impl Fn(&str) -> bool) {
        let sent = self.0.iter().filter(|(property, value)| property != EXISTING && !unset(value.get()));
        Properties::write(out, sent.map(|(property, value)| (&**property, *value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_and_found_in_one_way() {
        for name in ["a", "", "q\"\\", "\u{1f6e2}\n", "\"}", ":"] {
            let mut out = b"before".to_vec();
            let opening = Opening::new(&mut out, KeyMember::ExternalId);
            json::text(&mut out, name);
            let encoded = opening.keyed(&out);
            begin_columns(&mut out);
            out.extend_from_slice(b"{}");
            end(&mut out);
            let (row, wanted) = (&out["before".len()..], key_of_text(KeyMember::ExternalId, name));
            assert_eq!(&row[..encoded.prefix], wanted);
            assert_eq!(first_member(row), wanted);
            assert_eq!(key_hash(&wanted), encoded.hash);
            let parsed = Properties::parse(row).unwrap();
            assert_eq!(parsed.identity(), Some(Identity::ExternalId(name.into())));
            assert_eq!(parsed.key_object(), key_object(&wanted));
        }
    }

    #[test]
    fn the_members_written_at_once_have_the_names_they_are_read_by() {
        let mut row = Vec::new();
        let encoded = Opening::new(&mut row, KeyMember::Instance);
        row.extend_from_slice(br#"["s","x"]"#);
        assert_eq!(encoded.keyed(&row).prefix, row.len());
        assert_eq!(row, key_of_instance("s", "x"));
        begin_columns(&mut row);
        row.extend_from_slice(b"{}");
        begin_existing(&mut row);
        only_columns(&mut row, |out| {
            out.extend_from_slice(b"{\"a\":1}");
            Ok::<_, Error>(())
        })
        .unwrap();
        end(&mut row);
        let parsed = Properties::parse(&row).unwrap();
        assert_eq!(parsed.0.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), [KEY, COLUMNS, EXISTING]);
        assert_eq!(parsed.into_existing().unwrap().columns().unwrap().0.len(), 1);
    }
}
