//! gzip in both directions, opaque cursors, and values that have to look random.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::Compression;
use serde_json::Value;

use crate::errors::ApiError;

/// The largest body that is accepted, after decompression. CDF documents none; this only guards the machine.
pub const MAX_BODY: usize = 256 << 20;

/// Uncompresses a request body.
pub fn gunzip(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut plain = Vec::with_capacity(body.len() * 4);
    let read = MultiGzDecoder::new(body).take(MAX_BODY as u64 + 1).read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() > MAX_BODY => Err(ApiError::new(413, "Request Entity Too Large")),
        Ok(_) => Ok(plain),
        Err(error) => Err(ApiError::bad_request(format!("Malformed gzip: {error}"))),
    }
}

/// Compresses an answer. Speed matters more than size on loopback.
pub fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Returns the milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Returns 64 new bits, unpredictable enough for an emulator's tokens.
pub fn random_bits() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// Returns a random string in the form of a UUID.
pub fn uuid() -> String {
    let (a, b) = (random_bits(), random_bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

/// Hashes bytes with FNV-1a: short, well known, and easy to recompute elsewhere.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Hashes a number so that neighbours end up far apart. It makes orders that look arbitrary.
pub fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// As [`scatter`], for a text.
pub fn scatter_text(text: &str) -> u64 {
    scatter(fnv1a(text.as_bytes()))
}

/// Makes an opaque cursor: `state` and a fingerprint of the parameters that it was made for.
pub fn encode_cursor(parameters: &Value, state: &Value) -> String {
    let text = format!("{:016x}{state}", fnv1a(parameters.to_string().as_bytes()));
    text.bytes().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect()
}

/// Returns the state in a cursor, if the other parameters are those of the request that it was made for.
pub fn decode_cursor(parameters: &Value, cursor: &str) -> Result<Value, ApiError> {
    let invalid = || ApiError::bad_request("Invalid cursor");
    if !cursor.is_ascii() || !cursor.len().is_multiple_of(2) {
        return Err(invalid());
    }
    let bytes = (0..cursor.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&cursor[at..at + 2], 16).map(|byte| byte ^ 0x5a))
        .collect::<Result<Vec<u8>, _>>()
        .map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (fingerprint, state) = text.split_at_checked(16).ok_or_else(invalid)?;
    let state = serde_json::from_str(state).map_err(|_| invalid())?;
    if fingerprint != format!("{:016x}", fnv1a(parameters.to_string().as_bytes())) {
        return Err(ApiError::bad_request(
            "Invalid cursor: the other parameters must stay the same between pages",
        ));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cursors_come_back_only_with_the_same_parameters() {
        let cursor = encode_cursor(&json!({"filter": {"name": "å"}}), &json!(17));
        assert_eq!(decode_cursor(&json!({"filter": {"name": "å"}}), &cursor), Ok(json!(17)));
        assert!(decode_cursor(&json!({"filter": {}}), &cursor).is_err());
        for wrong in ["", "zz", "5", "ååå", "00"] {
            assert!(decode_cursor(&json!({}), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gzip_round_trip_and_refusal() {
        let text = b"abc".repeat(1000);
        assert_eq!(gunzip(&gzip(&text).unwrap()).unwrap(), text);
        assert_eq!(gunzip(b"not gzip").unwrap_err().status, 400);
    }
}
