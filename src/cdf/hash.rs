//! The hash by which keys are found again. Fixed per process: hashes of different tables and chunks are compared.

use std::hash::{BuildHasher, Hasher};

use once_cell::sync::Lazy;

static STATE: Lazy<hashbrown::DefaultHashBuilder> = Lazy::new(Default::default);

/// Hash of a key's bytes.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = STATE.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
