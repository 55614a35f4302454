//! Rust errors as PostgreSQL's: one ERROR with SQLSTATE, message, DETAIL and HINT.

use std::cell::Cell;
use std::ffi::{c_char, c_int, CString};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_sys, PgLogLevel, PgSqlErrorCode};

use super::text::{encode_lossy, is_foreign};
use crate::cdf::error::Error;

/// Keeps Rust backtraces out of what users see: pgrx appends a captured one to DETAIL.
///
/// Called once, from `_PG_init`.
pub fn init() {
    // RUST_LIB_BACKTRACE goes before RUST_BACKTRACE, which an administrator may have set for another extension. The
    // backend has one thread at this point, so nobody reads the environment meanwhile.
    std::env::set_var("RUST_LIB_BACKTRACE", "0");
}

/// Raises the error as PostgreSQL's ERROR, with the SQLSTATE of its kind.
#[track_caller]
pub fn raise(error: Error) -> ! {
    let code = sqlstate(error.kind.sqlstate());
    raise_as(code, error)
}

/// As [`raise`], with a SQLSTATE that has no kind on the CDF side, since it is about SQL objects.
#[track_caller]
pub fn raise_as(code: PgSqlErrorCode, error: Error) -> ! {
    report(PgLogLevel::ERROR, code, error);
    unreachable!("an ERROR does not return")
}

/// Tells of an error as PostgreSQL's WARNING, after which the statement goes on.
#[track_caller]
pub fn warn(error: Error) {
    // SAFETY: a variable of the backend. What is put there for the texts' encoding is of no use afterwards, whether
    // anybody has asked for it or not.
    let callbacks = unsafe { pg_sys::error_context_stack };
    report(PgLogLevel::WARNING, sqlstate(error.kind.sqlstate()), error);
    // SAFETY: as above: this is what was there.
    unsafe { pg_sys::error_context_stack = callbacks };
    ENCODED.set(None);
}

#[track_caller]
fn report(level: PgLogLevel, code: PgSqlErrorCode, error: Error) {
    let (message, detail) = (error.headline(), error.details());
    let hint = error.into_report().hint;
    if is_foreign() {
        encode_next([Some(message.clone()), (!detail.is_empty()).then(|| detail.join("\n")), hint.clone()]);
    }
    let mut report = ErrorReport::new(code, printable(message), "cdf_fdw");
    if !detail.is_empty() {
        report = report.set_detail(printable(detail.join("\n")));
    }
    if let Some(hint) = hint {
        report = report.set_hint(printable(hint));
    }
    report.report(level);
}

/// Unwraps a result of the CDF side, raising its error.
pub trait OrRaise<T> {
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T, Error> {
    #[track_caller]
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => raise(error),
        }
    }
}

/// Message, detail and hint in the database's encoding.
type EncodedTexts = [Option<CString>; 3];

thread_local! {
    /// The texts of the error that is on its way. The backend has one thread.
    static ENCODED: Cell<Option<EncodedTexts>> = const { Cell::new(None) };
}

/// Has the texts of the error that is raised next put into the database's encoding: a Rust text, which is what becomes the
/// error on its way out of Rust, is UTF-8. PostgreSQL calls this callback when it makes the error, and forgets it when that
/// has been caught.
fn encode_next(texts: [Option<String>; 3]) {
    static mut CALLBACK: pg_sys::ErrorContextCallback = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(put_encoded),
        arg: std::ptr::null_mut(),
    };
    ENCODED.set(Some(texts.map(|text| text.map(|text| encode_lossy(&text)))));
    // SAFETY: the backend has one thread. Those whose callbacks are on the stack have called this code, so that they are
    // there until the error is made. One that is there already is not put there again, which would make a circle.
    unsafe {
        let ours = &raw mut CALLBACK;
        let mut known = pg_sys::error_context_stack;
        while !known.is_null() && known != ours {
            known = (*known).previous;
        }
        if known.is_null() {
            (*ours).previous = pg_sys::error_context_stack;
            pg_sys::error_context_stack = ours;
        }
    }
}

extern "C-unwind" {
    // utils/elog.h; pgrx keeps its declarations to itself.
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
}

/// Replaces the texts of the error that is being made.
unsafe extern "C-unwind" fn put_encoded(_arg: *mut std::ffi::c_void) {
    let Some([message, detail, hint]) = ENCODED.take() else { return };
    let format = c"%s".as_ptr();
    // SAFETY: called while an error is being made, which these functions change; they copy the NUL-terminated texts.
    unsafe {
        if let Some(message) = message {
            errmsg(format, message.as_ptr());
        }
        if let Some(detail) = detail {
            errdetail(format, detail.as_ptr());
        }
        if let Some(hint) = hint {
            errhint(format, hint.as_ptr());
        }
    }
}

/// PostgreSQL's messages end at the first NUL, and CDF's words may hold one.
fn printable(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
}

/// PostgreSQL packs the five characters of a SQLSTATE, six bits each.
fn sqlstate(text: &str) -> PgSqlErrorCode {
    let packed =
        text.bytes().rev().fold(0, |code, byte| (code << 6) | (isize::from(byte.wrapping_sub(b'0')) & 0x3f));
    PgSqlErrorCode::from(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_packed_as_postgresql_does() {
        assert_eq!(sqlstate("23505"), PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION);
        assert_eq!(sqlstate("HV00J"), PgSqlErrorCode::ERRCODE_FDW_OPTION_NAME_NOT_FOUND);
        assert_eq!(sqlstate("08001"), PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
        assert_eq!(sqlstate("0A000"), PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED);
    }

    #[test]
    fn messages_hold_no_nul() {
        assert_eq!(printable("a\0b".into()), "a\u{fffd}b");
        assert_eq!(printable("aø…".into()), "aø…");
    }
}
