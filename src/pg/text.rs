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

/// The name of a column.
pub fn column_name(attribute: &pg_sys::FormData_pg_attribute) -> String {
    // SAFETY: a catalog's name is NUL-terminated.
    unsafe { from_server(attribute.attname.data.as_ptr()) }
}
