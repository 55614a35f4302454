//! Converts PostgreSQL's names and texts to Rust's, and back.

use std::borrow::Cow;
use std::ffi::{c_char, CStr, CString};

use pgrx::pg_sys;

use crate::cdf::error::{Error, Kind};
use crate::pg::encoding::{decode, encode, not_in_database, not_unicode};
use crate::pg::errors::raise;

/// Reads a name, an option or another text of the database.
///
/// # Safety
/// `text` is NUL-terminated and in the database's encoding.
pub unsafe fn from_server(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text).to_bytes() };
    match decode(bytes) {
        Some(text) => text.into_owned(),
        None => raise(refused(bytes)),
    }
}

/// As [`from_server`], for text that is only shown.
///
/// # Safety
/// As for [`from_server`].
pub unsafe fn from_server_lossy(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text).to_bytes() };
    decode(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes)).into_owned()
}

fn refused(bytes: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(bytes);
    Error::new(Kind::InvalidEncoding, format!("{}: \"{shown}\"", not_unicode()))
}

/// Reads the text of a datum of type `text` or `varchar`, or of `jsonb`'s input.
///
/// # Safety
/// The datum is a varlena that holds text in the database's encoding.
pub unsafe fn from_datum(datum: pg_sys::Datum) -> Result<String, Error> {
    // SAFETY: the caller's promise; an unpacked value is a copy in the current memory context.
    let bytes = unsafe {
        let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(packed)
    };
    decode(bytes).map(Cow::into_owned).ok_or_else(|| refused(bytes))
}

/// Reads the texts of an array that are not NULL.
///
/// # Safety
/// The datum is an array of `text` or `varchar`.
pub unsafe fn from_array(datum: pg_sys::Datum) -> Result<Vec<String>, Error> {
    // SAFETY: the caller's promise; deconstruct_array fills two arrays of `count` elements. A text has a varlena header
    // and is aligned as an integer.
    unsafe {
        let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let align = pg_sys::TYPALIGN_INT as c_char;
        pg_sys::deconstruct_array(
            array,
            (*array).elemtype,
            -1,
            false,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let present = (0..count as usize).filter(|at| !*nulls.add(*at));
        present.map(|at| from_datum(*values.add(at))).collect()
    }
}

/// Makes a NUL-terminated text for PostgreSQL.
///
/// # Errors
/// `InvalidEncoding`, if the database's encoding lacks one of its characters, or if it holds a NUL.
pub fn to_server(text: &str) -> Result<CString, Error> {
    let refused = || Error::new(Kind::InvalidEncoding, not_in_database(text));
    CString::new(encode(text).ok_or_else(refused)?).map_err(|_| {
        Error::new(Kind::InvalidEncoding, format!("\"{}\" holds a NUL", text.replace('\0', "\\0")))
    })
}

/// As [`to_server`], in the current memory context; raises an ERROR if that is impossible.
pub fn to_palloc(text: &str) -> *mut c_char {
    let text = match to_server(text) {
        Ok(text) => text,
        Err(error) => raise(error),
    };
    // SAFETY: the text is NUL-terminated; PostgreSQL owns the copy.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// Makes the datum of a `text` in the current memory context.
pub fn to_datum(text: &str) -> pg_sys::Datum {
    // SAFETY: the text is NUL-terminated.
    unsafe { pg_sys::cstring_to_text(to_palloc(text)).into() }
}

/// Returns the name of a relation without its schema; `?` if it no longer exists.
pub fn relation_name(relid: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up, whose result is a copy, or null.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        if name.is_null() {
            "?".to_owned()
        } else {
            from_server(name)
        }
    }
}

/// Returns the name of a column.
pub fn column_name(attribute: &pg_sys::FormData_pg_attribute) -> String {
    // SAFETY: a catalog's name is NUL-terminated.
    unsafe { from_server(attribute.attname.data.as_ptr()) }
}
