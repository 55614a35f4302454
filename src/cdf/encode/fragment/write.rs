//! Writes fragments.

use super::key::{Key, KeyMember};
use super::member::{begin_member, head};
use crate::cdf::encode::json::{self, Properties};
use crate::cdf::encode::{EncodedRow, KeyKind};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::sequence_rows::ROW_NUMBER;
use crate::cdf::resource::InstanceEnd;

/// A fragment whose key is being written.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    member: KeyMember,
    start: usize,
    /// Where the hashed part of the key begins.
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

    /// Appends the second part of a key that has two. The hash then covers both, with the name of the first.
    pub fn row_number(mut self, out: &mut Vec<u8>, number: i64) -> Self {
        begin_member(out, ROW_NUMBER);
        json::write(out, &number);
        self.hashed = self.start;
        self
    }

    /// Returns what is known of the row once its key has been written to `out`. The members follow.
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

/// Returns the [`head`] of the member that holds an instance's `type`, `startNode` or `endNode`.
pub fn head_of_end(end: InstanceEnd) -> Vec<u8> {
    head(&format!("({})", end.property()))
}

/// Appends `,"columns":`. The columns of a RAW row, or of a sequence's row, follow.
#[inline]
pub fn begin_columns(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"columns\":");
}

/// Begins the member with what an existing item gets; the object follows.
pub fn begin_existing(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"\":");
}

/// Appends an object with no other member than columns, which `columns` appends.
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

/// Ends the object whose members begin at `start`. The brace replaces the comma of the first member, so that no member has to
/// know whether it is the first.
#[inline]
pub fn end_object(out: &mut Vec<u8>, start: usize) {
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

/// Ends a fragment that begins with its key.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.push(b'}');
}

/// Removes the end of a fragment, so that members can follow.
pub fn reopen(out: &mut Vec<u8>) {
    out.pop();
}

/// Makes the fragment of a RAW row.
pub fn raw_row(key: &str, columns: &Properties<'_>) -> Vec<u8> {
    let mut out = Key::of_raw_row(key).as_bytes().to_vec();
    begin_columns(&mut out);
    columns.write(&mut out);
    end(&mut out);
    out
}
