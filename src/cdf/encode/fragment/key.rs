//! The key that a fragment begins with.

use std::borrow::Borrow;

use super::member::begin_member;
use crate::cdf::encode::json;
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::raw::RAW_KEY;
use crate::cdf::resource::sequence_rows::ROW_NUMBER;

/// The member that a fragment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMember {
    Id,
    ExternalId,
    RawKey,
    /// An instance's space and external id. No property can be called like this member.
    Instance,
}

impl KeyMember {
    pub(super) const ALL: [KeyMember; 4] =
        [KeyMember::Id, KeyMember::ExternalId, KeyMember::RawKey, KeyMember::Instance];

    pub(super) const fn name(self) -> &'static str {
        match self {
            KeyMember::Id => ID,
            KeyMember::ExternalId => EXTERNAL_ID,
            KeyMember::RawKey => RAW_KEY,
            KeyMember::Instance => "(space, external_id)",
        }
    }

    /// Returns the bytes before the key's value.
    #[inline]
    pub(super) const fn beginning(self) -> &'static [u8] {
        match self {
            KeyMember::Id => b"{\"id\":",
            KeyMember::ExternalId => b"{\"externalId\":",
            KeyMember::RawKey => b"{\"key\":",
            KeyMember::Instance => b"{\"(space, external_id)\":",
        }
    }

    /// Returns the member of this name, if it is one.
    pub(super) fn of(name: &str) -> Option<KeyMember> {
        KeyMember::ALL.into_iter().find(|member| member.name() == name)
    }
}

/// The bytes that all fragments of one item or row begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    fn of_text(member: KeyMember, text: &str) -> Key {
        let mut key = member.beginning().to_vec();
        json::text(&mut key, text);
        Key(key)
    }

    /// Returns the key of an item that is addressed by its external id.
    pub fn of_external_id(external_id: &str) -> Key {
        Key::of_text(KeyMember::ExternalId, external_id)
    }

    /// Returns the key of an item that is addressed by its id.
    pub fn of_id(id: i64) -> Key {
        let mut key = KeyMember::Id.beginning().to_vec();
        json::write(&mut key, &id);
        Key(key)
    }

    /// Returns the key of a RAW row.
    pub fn of_raw_row(key: &str) -> Key {
        Key::of_text(KeyMember::RawKey, key)
    }

    /// Returns the key of an instance.
    pub fn of_instance(space: &str, external_id: &str) -> Key {
        let mut key = KeyMember::Instance.beginning().to_vec();
        key.push(b'[');
        json::text(&mut key, space);
        key.push(b',');
        json::text(&mut key, external_id);
        key.push(b']');
        Key(key)
    }

    /// Turns the key of a sequence into that of one of its rows.
    pub fn with_row_number(mut self, number: i64) -> Key {
        begin_member(&mut self.0, ROW_NUMBER);
        json::write(&mut self.0, &number);
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the hash of a key of one member, as [`EncodedRow::hash`](crate::cdf::encode::EncodedRow::hash) has it.
    pub fn hash_of_value(&self) -> u64 {
        hash_bytes(&self.0[value_of_first(&self.0)..])
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Returns where the value of a fragment's first member begins. No name of a key has a colon.
pub(super) fn value_of_first(fragment: &[u8]) -> usize {
    fragment.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1)
}

/// Returns a key as errors show it: without the brace that it begins with.
pub fn shown_key(key: &[u8]) -> String {
    String::from_utf8_lossy(key.strip_prefix(b"{").unwrap_or(key)).into_owned()
}

/// Returns an object with nothing but the key.
pub fn key_object(key: &[u8]) -> Vec<u8> {
    [key, b"}"].concat()
}
