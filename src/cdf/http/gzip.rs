//! Compression of request bodies.

use std::io::Write;

use flate2::write::GzEncoder;
use flate2::Compression;

/// Bodies of at most this many bytes are sent as they are: compressing them saves no packet.
pub const THRESHOLD: usize = 1024;

/// The body in gzip format. Level 1, because a load is bounded by CPU sooner than by bandwidth, and higher levels
/// gain little on rows.
///
/// # Errors
/// None in practice: the only writer is memory.
pub fn compress(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let body = b"{\"items\":[]}".repeat(1000);
        let compressed = compress(&body).unwrap();
        assert!(compressed.len() < body.len() / 4);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, body);
    }
}
