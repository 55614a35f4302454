//! Cells to wire bytes. A row becomes a [fragment](fragment) of JSON in one pass over its cells; a batch collects fragments
//! into a request. A point becomes an element of a protobuf message: one that is no more than a moment and a number when
//! its request is finished, any other when it is written.

pub mod document;
pub mod fragment;
#[cfg(test)]
mod fuzz;
mod geo;
pub mod instances;
pub mod items;
pub mod json;
pub mod length;
pub mod object;
pub mod points;
pub mod property;
pub mod raw;
pub mod row_name;
pub mod sequence_rows;
mod value;

use super::cell::Cell;
use super::error::{Error, Kind};
use super::table::Table;

/// How a row names its item. Only rows of one kind share a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// By external id, or a RAW row's key: written as an upsert.
    Key,
    /// By internal id: the item must exist.
    Id,
    /// By the instance of a data model that is the time series.
    Instance,
    /// No key: a plain create, which must never be sent twice.
    None,
}

impl KeyKind {
    /// The kinds that address an item. Only CDF knows whether two of them mean the same item.
    pub const ADDRESSES: [KeyKind; 3] = [KeyKind::Key, KeyKind::Id, KeyKind::Instance];
}

/// What the buffer needs to know of a row that was just encoded.
#[derive(Debug, Clone, Copy)]
pub struct EncodedRow {
    pub kind: KeyKind,
    /// How many bytes hold the key at the beginning of the fragment. Two fragments of one key begin with the same bytes.
    pub prefix: usize,
    /// Hash of the key as it stands in the fragment.
    pub hash: u64,
    /// The fragment holds literal nulls, or references to be resolved: it cannot be sent as it is.
    pub deferred: bool,
    /// Hash of the parent's key, comparable with `hash`.
    pub parent: Option<u64>,
    /// The row has every property that CDF requires to create the item.
    pub complete: bool,
}

impl EncodedRow {
    /// Returns what is known of a row without a key before its members are written.
    pub fn unkeyed() -> Self {
        EncodedRow { kind: KeyKind::None, prefix: 0, hash: 0, deferred: false, parent: None, complete: true }
    }
}

/// Makes the error for a refused value. It names the column and the row.
pub(crate) fn refuse(
    kind: Kind,
    table: &Table,
    row: &[Cell<'_>],
    at: usize,
    why: impl std::fmt::Display,
) -> Error {
    let resource = table.options.resource;
    let why = why.to_string();
    let why = length::reason(&why);
    Error::new(kind, format!("column \"{}\" of {}: {why}", table.names[at], resource.name))
        .of_row(row_name::describe_keys(table, row))
}
