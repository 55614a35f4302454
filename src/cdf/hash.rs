//! The hash of keys. It is the same throughout a process, because hashes of different tables and chunks are compared.

use std::hash::{BuildHasher, Hasher};

use once_cell::sync::Lazy;

static STATE: Lazy<hashbrown::DefaultHashBuilder> = Lazy::new(Default::default);

/// Hash of a key's bytes.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = STATE.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// A hasher for maps whose keys are such hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdentityHash(u64);

impl Hasher for IdentityHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl BuildHasher for IdentityHash {
    type Hasher = IdentityHash;
    fn build_hasher(&self) -> IdentityHash {
        IdentityHash::default()
    }
}
