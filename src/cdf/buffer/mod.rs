//! What a transaction has written, as requests ready to send.
//!
//! Each destination has a *lane*. A lane has a *segment* per subtransaction, so that rolling back a savepoint discards
//! its rows. A segment has open batches, to which rows are added, and closed chunks. A key occurs at most once in a
//! request. Successive writes of a key are in requests of increasing *wave*, and waves are sent one after another.

mod batch;
mod body;
mod chunk;
mod destination;
mod items;
mod lane;
mod moment;
mod own;
mod own_points;
mod pending;
mod points;
mod push;
mod ranges;
mod savepoint;
mod trace;
mod transaction;
mod wave;

#[cfg(test)]
mod tests;

pub use body::{Body, BodyBuilder, BODY_BYTES, HEAD, TAIL};
#[cfg(test)]
pub use chunk::MemorySpill;
pub use chunk::{Background, Chunk, Extent, Foreground, Header, Spill};
pub use destination::Destination;
pub use moment::{Moment, Subtransaction};
pub use own::{OwnRows, WantedRows};
pub use own_points::{OwnPoints, PointWrite, SeriesWrites, Stretch, WantedPoints};
pub use pending::{Pending, PendingItem};
pub use transaction::{Delivery, TransactionBuffer};
