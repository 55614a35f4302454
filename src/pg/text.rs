//! Names and texts of PostgreSQL, which are in the database's encoding.

use std::ffi::{c_char, CStr};

use pgrx::pg_sys;

/// Whether the database's texts have to be converted: everything on the CDF side is UTF-8.
pub fn is_foreign() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetDatabaseEncoding() != pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// A text of the database.
///
/// # Safety
/// `text` is NUL-terminated and in the database's encoding.
pub unsafe fn from_server(text: *const c_char) -> String {
    // SAFETY: the caller's promise; the converted text is a copy in the current memory context, or the text itself.
    unsafe {
        let len = CStr::from_ptr(text).to_bytes().len() as i32;
        let converted = match is_foreign() {
            true => pg_sys::pg_server_to_any(text, len, pg_sys::pg_enc::PG_UTF8 as i32).cast_const(),
            false => text,
        };
        CStr::from_ptr(converted).to_string_lossy().into_owned()
    }
}

/// Bytes as a text, if they are UTF-8. Most texts are ASCII, which is seen several times as fast.
#[inline]
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    match is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8.
        true => Some(unsafe { std::str::from_utf8_unchecked(bytes) }),
        false => std::str::from_utf8(bytes).ok(),
    }
}

/// Eight bytes at a time: most texts are too short for vector instructions, which the standard library uses.
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

/// The name of a column.
pub fn column_name(attribute: &pg_sys::FormData_pg_attribute) -> String {
    // SAFETY: a catalog's name is NUL-terminated.
    unsafe { from_server(attribute.attname.data.as_ptr()) }
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
