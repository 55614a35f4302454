//! What a transaction has written, as requests that are ready to send.
//!
//! A *lane* per destination; in it a *segment* per subtransaction, so that a rolled-back savepoint takes its rows with
//! it; in that open batches that rows are added to, and closed chunks. A key is at most once in a request, and writes
//! of one key are in requests of growing *wave*, which are sent one after another.

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
