//! The database's encoding. Everything on the CDF side is UTF-8; texts are converted here in both directions.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// In another encoding a character takes at most this many times its bytes (`MAX_CONVERSION_GROWTH`, mb/pg_wchar.h).
const GROWTH: usize = 4;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

fn encoding() -> i32 {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

/// Returns the name of the database's encoding.
fn encoding_name() -> String {
    // SAFETY: the name is a constant.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()).to_string_lossy().into_owned() }
}

/// Whether the database's texts have to be converted, or at least may not be UTF-8.
pub fn is_foreign() -> bool {
    encoding() != UTF8
}

/// Says why a text of the database cannot be sent.
pub fn not_unicode() -> String {
    format!(
        "the text is not valid in the encoding {}, or has characters that UTF-8 lacks",
        match encoding() {
            SQL_ASCII => "UTF8".to_owned(),
            _ => encoding_name(),
        }
    )
}

/// Says why a text of CDF cannot be read.
pub fn not_in_database(text: &str) -> String {
    let shown: String = text.chars().take(100).collect();
    format!("the database's encoding {} lacks a character of \"{shown}\"", encoding_name())
}

/// Decodes a text of the database; None if it is invalid, or has characters that UTF-8 lacks.
pub fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    match encoding() {
        // SQL_ASCII has bytes beyond ASCII without saying what they mean.
        UTF8 | SQL_ASCII => utf8(bytes).map(Cow::Borrowed),
        _ if is_ascii(bytes) => utf8(bytes).map(Cow::Borrowed),
        encoding => {
            let (converted, read) = convert(bytes, encoding, UTF8);
            (read == bytes.len()).then_some(())?;
            String::from_utf8(converted).ok().map(Cow::Owned)
        }
    }
}

/// Encodes a text for the database; None if its encoding lacks one of the characters.
pub fn encode(text: &str) -> Option<Cow<'_, [u8]>> {
    match encoding() {
        UTF8 | SQL_ASCII => Some(Cow::Borrowed(text.as_bytes())),
        _ if is_ascii(text.as_bytes()) => Some(Cow::Borrowed(text.as_bytes())),
        encoding => {
            let (converted, read) = convert(text.as_bytes(), UTF8, encoding);
            (read == text.len()).then_some(Cow::Owned(converted))
        }
    }
}

/// As [`encode`], but replaces NUL and what the encoding lacks by `?`: messages must not fail on their way.
pub fn encode_lossy(text: &str) -> CString {
    let mut bytes = Vec::new();
    let text = text.replace('\0', "\u{fffd}");
    let mut rest = text.as_str();
    // Outside a transaction there is no catalog in which to find the conversion.
    // SAFETY: reads variables of the backend.
    let can_convert = unsafe { pg_sys::IsTransactionState() };
    while !rest.is_empty() {
        match encoding() {
            UTF8 | SQL_ASCII => {
                bytes.extend_from_slice(rest.as_bytes());
                break;
            }
            encoding if can_convert => {
                let (converted, read) = convert(rest.as_bytes(), UTF8, encoding);
                bytes.extend_from_slice(&converted);
                let mut left = rest[rest.floor_char_boundary(read)..].chars();
                if left.next().is_some() {
                    bytes.push(b'?');
                }
                rest = left.as_str();
            }
            _ => {
                bytes.extend(rest.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }));
                break;
            }
        }
    }
    CString::new(bytes).unwrap_or_default()
}

/// Converts as much of a text as the other encoding can represent. Returns it, and how many bytes were converted.
fn convert(bytes: &[u8], from: i32, to: i32) -> (Vec<u8>, usize) {
    let Ok(len) = i32::try_from(bytes.len().saturating_mul(GROWTH) + 1) else {
        return (Vec::new(), 0);
    };
    let mut converted = vec![0; len as usize];
    // SAFETY: a catalog look-up, and a conversion that raises no errors into a buffer that is large enough.
    let read = unsafe {
        match pg_sys::FindDefaultConversionProc(from, to) {
            pg_sys::InvalidOid => 0,
            function => pg_sys::pg_do_encoding_conversion_buf(
                function,
                from,
                to,
                bytes.as_ptr().cast_mut(),
                bytes.len() as i32,
                converted.as_mut_ptr(),
                len,
                true,
            ),
        }
    };
    converted.truncate(converted.iter().position(|byte| *byte == 0).unwrap_or(converted.len()));
    (converted, usize::try_from(read).unwrap_or(0))
}

/// Returns bytes as a text if they are UTF-8. Most texts are ASCII, which is checked several times as fast.
#[inline]
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    if is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8.
        Some(unsafe { std::str::from_utf8_unchecked(bytes) })
    } else {
        std::str::from_utf8(bytes).ok()
    }
}

/// Checks eight bytes at a time: most texts are too short for the vector instructions that the standard library uses.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    match bytes.last_chunk::<8>() {
        // The last word overlaps the one before it.
        Some(last) => {
            let words = bytes.as_chunks::<8>().0;
            words.iter().fold(u64::from_ne_bytes(*last), |all, word| all | u64::from_ne_bytes(*word)) & HIGH
                == 0
        }
        None => bytes.iter().fold(0, |all, byte| all | byte) < 0x80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_told_from_other_bytes_wherever_they_stand() {
        for len in 0..40 {
            let plain = vec![b'x'; len];
            assert_eq!(utf8(&plain), std::str::from_utf8(&plain).ok());
            for at in 0..len {
                let mut broken = plain.clone();
                broken[at] = 0xff;
                assert_eq!(utf8(&broken), None, "{len} bytes, {at}");
                let mut accented = plain.clone();
                accented.splice(at..at, "é".bytes());
                assert_eq!(utf8(&accented), std::str::from_utf8(&accented).ok(), "{len} bytes, {at}");
            }
        }
    }
}
