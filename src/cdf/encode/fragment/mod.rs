//! The form of an encoded row between its encoder and its delivery. Only the files of this folder know how its bytes are
//! arranged.
//!
//! # The format
//!
//! A *fragment* is a JSON object without white space outside of values. Encoders [write](Opening) it in one pass over the
//! cells of a row; the buffer [merges](merge()) several writes of a key into one; delivery and own reads
//! [parse](Fragment::parse) it where they have a question about it.
//!
//! - The first member is the [key](KeyMember), if the row has one: `id` or `externalId`, RAW's `key`, or an instance's space
//!   and external id. A row of a sequence has the key of its sequence, and then `rowNumber`. Two fragments of one key begin
//!   with the same bytes, the [`Key`].
//! - The other members are properties: for an INSERT what the row holds, for an UPDATE what it changes, for a DELETE none. RAW
//!   rows and rows of sequences have theirs in one member, `columns`.
//! - A `null` clears. A new item has nothing to clear, so delivery leaves nulls out of what it creates. RAW stores nulls.
//! - A reference by external id stays under its own property until delivery has looked up the internal id.
//! - Rows of `INSERT … ON CONFLICT DO UPDATE SET` some columns end with a member whose name is empty. It holds what an
//!   existing item gets; a new item gets everything before it.

mod key;
mod member;
mod merge;
mod row;
mod scan;
#[cfg(test)]
mod tests;
mod write;

pub use key::{key_object, shown_key, Key, KeyMember};
pub use member::{head, member};
pub use merge::{merge, merge_by_existence};
pub use row::{end_of, Fragment, ParsedRow};
pub use scan::Piece;
pub use write::{
    begin_columns, begin_existing, end, end_object, head_of_end, only_columns, raw_row, reopen, Opening,
};
