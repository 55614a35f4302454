//! Decompresses request bodies.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

/// The longest body that is accepted, in bytes after decompression.
pub const LONGEST: usize = 256 << 20;

thread_local! {
    /// Kept between requests: fresh pages from the kernel would cost as much as filling them.
    static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `look` with the uncompressed body.
///
/// # Errors
/// A text if the body is not one gzip member, complete and with the right checksum, or is longer than [`LONGEST`].
pub fn with_plain<T>(body: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
    PLAIN.with_borrow_mut(|plain| {
        gunzip(body, plain)?;
        Ok(look(plain))
    })
}

fn gunzip(body: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
    plain.clear();
    // The format ends with the length of the decompressed data, modulo 2^32.
    let Some(length) = body.last_chunk() else { return Err("not gzip".into()) };
    plain.reserve((u32::from_le_bytes(*length) as usize).min(LONGEST) + 1);
    let mut decompress = Decompress::new_gzip(15);
    loop {
        let read = usize::try_from(decompress.total_in()).map_err(|error| error.to_string())?;
        let written = plain.len();
        match decompress.decompress_vec(&body[read..], plain, FlushDecompress::None) {
            Ok(Status::StreamEnd) if decompress.total_in() == body.len() as u64 => return Ok(()),
            Ok(Status::StreamEnd) => return Err("there is something behind the gzip member".into()),
            Ok(_) if plain.len() > LONGEST => return Err(format!("more than {LONGEST} bytes")),
            Ok(_) if plain.len() == plain.capacity() => plain.reserve(plain.len()),
            Ok(_) if plain.len() == written => return Err("the gzip member is incomplete".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("not gzip: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::Compression;

    use super::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for length in [0, 1, 1000, 3_000_000] {
            let text: Vec<u8> =
                (0..length).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 20) as u8).collect();
            assert!(with_plain(&compressed(&text), |plain| plain == text).unwrap(), "{length}");
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let good = compressed(&b"0123456789".repeat(1000));
        let mut wrong_checksum = good.clone();
        let at = good.len() - 8;
        wrong_checksum[at] ^= 1;
        let mut wrong_length = good.clone();
        *wrong_length.last_mut().unwrap() ^= 1;
        let longer = [&good[..], b"x"].concat();
        let shorter = &good[..good.len() - 1];
        for body in [&wrong_checksum[..], &wrong_length, &longer, shorter, b"", b"not gzip at all"] {
            assert!(with_plain(body, |_| ()).is_err(), "{body:?}");
        }
    }
}
