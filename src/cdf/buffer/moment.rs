//! When and where in a transaction something was written.

/// A point in a transaction between two writes: see [`TransactionBuffer::moment`].
pub type Moment = u64;

/// Number of a subtransaction, as PostgreSQL counts them: a child's is larger than its parent's.
pub type Subtransaction = u32;
