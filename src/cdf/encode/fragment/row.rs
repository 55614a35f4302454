//! Parses fragments.

use std::borrow::Cow;

use memchr::{memchr2, memmem};
use serde_json::value::RawValue;

use super::key::{value_of_first, KeyMember};
use super::member::member;
use super::write::{begin_existing, end_object};
use crate::cdf::encode::json::Properties;
use crate::cdf::encode::EncodedRow;
use crate::cdf::error::{Error, Identity};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::sequence_rows::{COLUMNS, ROW_NUMBER};
use crate::cdf::resource::{InstanceEnd, Resource, Role};

/// The member that holds what an existing item gets, if that is not all. No property of CDF has an empty name.
pub(super) const EXISTING: &str = "";

/// An encoded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a>(&'a [u8]);

impl<'a> Fragment<'a> {
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        Fragment(bytes)
    }

    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the bytes of the key of a row that was just encoded; no bytes if it has no key.
    #[inline]
    pub fn key_of(self, encoded: &EncodedRow) -> &'a [u8] {
        &self.0[..encoded.prefix]
    }

    /// Returns the bytes of the key: the first member, or the first two of a sequence's row.
    pub fn key(self, resource: &Resource) -> &'a [u8] {
        let first = self.first_member().len();
        let end = if resource.is_numbered() {
            let behind = self.0.iter().skip(first + 1).position(|byte| matches!(byte, b',' | b'}'));
            behind.map_or(self.0.len(), |at| first + 1 + at)
        } else {
            first
        };
        &self.0[..end]
    }

    /// Returns the bytes up to the end of the first member, without parsing the others.
    pub fn first_member(self) -> &'a [u8] {
        let value = value_of_first(self.0);
        let mut values = serde_json::Deserializer::from_slice(&self.0[value..]).into_iter::<&RawValue>();
        match values.next() {
            Some(Ok(_)) => &self.0[..value + values.byte_offset()],
            _ => self.0,
        }
    }

    /// Returns the external id that the fragment begins with, as JSON, without parsing anything else.
    pub fn external_id(self) -> Option<&'a [u8]> {
        let text = self.0.strip_prefix(KeyMember::ExternalId.beginning())?.strip_prefix(b"\"")?;
        let mut end = 0;
        loop {
            end += memchr2(b'"', b'\\', text.get(end..)?)?;
            match text[end] {
                b'"' => break,
                _ => end += 2,
            }
        }
        // Include the quotes.
        let start = self.0.len() - text.len() - 1;
        Some(&self.0[start..=start + 1 + end])
    }

    /// Checks whether the properties may give the item another external id.
    pub fn may_rename(self, encoded: &EncodedRow) -> bool {
        memmem::find(&self.0[encoded.prefix..], b"\"externalId\":").is_some()
    }

    /// Returns the hash of the parent's key, as [`EncodedRow::parent`] has it.
    pub fn parent_hash(self, resource: &Resource) -> Result<Option<u64>, Error> {
        let Some(column) = resource.columns.iter().find(|column| column.role == Role::Parent) else {
            return Ok(None);
        };
        let row = self.parse()?;
        Ok(row.properties.get(column.property).map(|parent| hash_bytes(parent.get().as_bytes())))
    }

    /// Parses the fragment into its members.
    pub fn parse(self) -> Result<ParsedRow<'a>, Error> {
        let mut properties = Properties::parse(self.0)?;
        let has_key = properties.0.first().is_some_and(|(name, _)| KeyMember::of(name).is_some());
        let key = has_key.then(|| properties.0.remove(0));
        let existing = properties.0.pop_if(|(name, _)| name == EXISTING);
        let existing = existing.map(|(_, value)| Properties::parse(value.get().as_bytes())).transpose()?;
        Ok(ParsedRow { key, properties, existing })
    }
}

impl AsRef<[u8]> for Fragment<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

/// A member's name, and its value as JSON.
type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// A parsed fragment.
#[derive(Debug, Default)]
pub struct ParsedRow<'a> {
    key: Option<Member<'a>>,
    /// What a new item gets, without the key.
    pub(super) properties: Properties<'a>,
    /// What an existing item gets, if that differs.
    pub(super) existing: Option<Properties<'a>>,
}

impl<'a> ParsedRow<'a> {
    /// Returns the first member if it is a key.
    pub fn key(&self) -> Option<(&str, &'a RawValue)> {
        self.key.as_ref().map(|(name, value)| (&**name, *value))
    }

    /// Returns the item, RAW row or instance that the row writes, or the sequence of a sequence's row.
    pub fn identity(&self) -> Option<Identity> {
        let (name, value) = self.key()?;
        let value = value.get();
        match KeyMember::of(name)? {
            KeyMember::Id => value.parse().ok().map(Identity::Id),
            KeyMember::ExternalId | KeyMember::RawKey => {
                serde_json::from_str(value).ok().map(Identity::ExternalId)
            }
            KeyMember::Instance => serde_json::from_str(value)
                .ok()
                .map(|(space, external_id)| Identity::Instance { space, external_id }),
        }
    }

    /// Returns the number of a sequence's row, as JSON.
    pub fn number(&self) -> Option<&'a str> {
        self.properties.get(ROW_NUMBER).map(RawValue::get)
    }

    /// Returns `{"externalId":…}` or `{"id":…}`.
    pub fn key_object(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_key(&mut out);
        end_object(&mut out, 0);
        out
    }

    /// Returns what an item gets, without the key; `exists` tells whether the item exists or is new.
    pub fn properties(&self, exists: bool) -> &Properties<'a> {
        self.existing.as_ref().filter(|_| exists).unwrap_or(&self.properties)
    }

    /// Returns the columns that a RAW row, or a sequence's row, gets.
    pub fn columns(&self, exists: bool) -> Result<Properties<'a>, Error> {
        match self.properties(exists).get(COLUMNS) {
            Some(columns) => Properties::parse(columns.get().as_bytes()),
            None => Ok(Properties::default()),
        }
    }

    /// Returns all members that a new item gets, the key first.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.key.iter().chain(&self.properties.0).map(|(name, value)| (&**name, *value))
    }

    /// Appends what a new item gets, without the members whose value is `unset`.
    pub fn write_new(&self, out: &mut Vec<u8>, unset: impl Fn(&str) -> bool) {
        let start = out.len();
        let sent = self.members().filter(|(_, value)| !unset(value.get()));
        sent.for_each(|(name, value)| member(out, name, value.get()));
        end_object(out, start);
    }

    /// Appends a fragment of the same key with other properties. `write` appends the new properties of a new item, and those
    /// of an existing one, each member with a comma before it.
    pub fn rewrite(
        &self,
        out: &mut Vec<u8>,
        write: impl Fn(&Properties<'a>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start = out.len();
        self.write_key(out);
        write(&self.properties, out)?;
        if let Some(existing) = &self.existing {
            begin_existing(out);
            let start = out.len();
            write(existing, out)?;
            end_object(out, start);
        }
        end_object(out, start);
        Ok(())
    }

    pub(super) fn write_key(&self, out: &mut Vec<u8>) {
        if let Some((name, value)) = self.key() {
            member(out, name, value.get());
        }
    }
}

/// Returns the end of an instance that a member holds; None for a property.
pub fn end_of(member: &str) -> Option<InstanceEnd> {
    let end = member.strip_prefix('(')?.strip_suffix(')')?;
    InstanceEnd::ALL.into_iter().find(|known| known.property() == end)
}
