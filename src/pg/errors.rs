//! Raises Rust errors as PostgreSQL's: one ERROR with SQLSTATE, message, DETAIL and HINT.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int, CStr, CString};
use std::ptr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_sys, PgLogLevel, PgSqlErrorCode};

use crate::cdf::error::Error;
use crate::pg::encoding::{encode_lossy, is_foreign};

/// Keeps Rust backtraces out of what users see: pgrx appends a captured one to DETAIL.
///
/// `_PG_init` calls this once.
pub fn init() {
    // RUST_LIB_BACKTRACE overrides RUST_BACKTRACE, which an administrator may have set for another extension. The
    // backend has one thread at this point, so nobody reads the environment meanwhile.
    std::env::set_var("RUST_LIB_BACKTRACE", "0");
}

/// Raises the error as PostgreSQL's ERROR, with the SQLSTATE of its kind.
#[track_caller]
pub fn raise(error: Error) -> ! {
    let code = sqlstate(error.kind.sqlstate());
    raise_as(code, error)
}

/// As [`raise`], with a SQLSTATE that no kind of the CDF side has, because it is about SQL objects.
#[track_caller]
pub fn raise_as(code: PgSqlErrorCode, error: Error) -> ! {
    report(PgLogLevel::ERROR, code, error);
    unreachable!("an ERROR does not return")
}

/// Reports an error as PostgreSQL's WARNING, after which the statement goes on.
pub fn warn(error: Error) {
    let code = sqlstate(error.kind.sqlstate());
    let (message, details) = (error.headline(), error.details());
    let detail = (!details.is_empty()).then(|| details.join("\n"));
    tell(PgLogLevel::WARNING, code, &message, detail.as_deref(), error.hint.as_deref());
}

/// Sends a message of another level than ERROR. Unless that is FATAL, the statement usually goes on. But PostgreSQL
/// serves interrupts at the end of each message, so this may unwind with an ERROR of PostgreSQL's own.
pub fn tell(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let texts = [Some(message), detail, hint].map(|text| text.map(encode_lossy));
    let [message, detail, hint] =
        texts.each_ref().map(|text| text.as_deref().map_or(ptr::null(), CStr::as_ptr));
    let (level, code, format) = (level as c_int, code as c_int, c"%s".as_ptr());
    // A line for the log needs neither the statement nor the context.
    let alone = level == PgLogLevel::LOG as c_int;
    // SAFETY: this is the main thread, and these are PostgreSQL's functions in the order in which its macro ereport
    // calls them. They copy the NUL-terminated texts. The boundary turns an ERROR into a panic that unwinds Rust
    // frames; the closure owns nothing.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            if errstart(level, ptr::null()) {
                errcode(code);
                errmsg(format, message);
                if !detail.is_null() {
                    errdetail(format, detail);
                }
                if !hint.is_null() {
                    errhint(format, hint);
                }
                if alone {
                    errhidestmt(true);
                    errhidecontext(true);
                }
                errfinish(c"errors.rs".as_ptr(), 0, c"cdf_fdw".as_ptr());
            }
        });
    }
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

/// Unwraps a result of the CDF side, and raises its error.
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
    /// The texts of the error that is being raised. The backend has one thread.
    static ENCODED: Cell<Option<EncodedTexts>> = const { Cell::new(None) };
    /// PostgreSQL's list of callbacks links to it while such an error is being raised.
    static CALLBACK: UnsafeCell<pg_sys::ErrorContextCallback> = const {
        UnsafeCell::new(pg_sys::ErrorContextCallback {
            previous: ptr::null_mut(),
            callback: Some(put_encoded),
            arg: ptr::null_mut(),
        })
    };
}

/// Makes PostgreSQL replace the texts of the error that is raised next by these, in the database's encoding. The error leaves
/// Rust with a Rust text, which is UTF-8. PostgreSQL calls the callback when it makes the error of it, and forgets the callback
/// once that has been caught.
fn encode_next(texts: [Option<String>; 3]) {
    ENCODED.set(Some(texts.map(|text| text.map(|text| encode_lossy(&text)))));
    let ours = CALLBACK.with(UnsafeCell::get);
    // SAFETY: this is the backend's only thread that raises errors, and its thread-local variables, which need no dropping,
    // live as long as the process. Frames whose callbacks are on the stack have called this code, so they exist until the error
    // is made. A callback that is on the stack already is not pushed again, which would make a circle.
    unsafe {
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
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errhidestmt(hide: bool) -> c_int;
    fn errhidecontext(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
}

/// Replaces the texts of the error that is being raised.
unsafe extern "C-unwind" fn put_encoded(_arg: *mut std::ffi::c_void) {
    let Some([message, detail, hint]) = ENCODED.take() else { return };
    let format = c"%s".as_ptr();
    // SAFETY: called while an error is being raised, which these functions change; they copy the NUL-terminated texts.
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

/// Copies the error that is being raised into the current memory context.
///
/// # Safety
/// Only an error context callback may call this.
pub unsafe fn being_made() -> *mut pg_sys::ErrorData {
    // SAFETY: the caller's promise. It needs no boundary: an error in it is an error within an error, which PostgreSQL
    // handles.
    unsafe { CopyErrorData() }
}

/// Completes the error that is being raised, which has this message and detail: appends `what` and `more`.
///
/// # Safety
/// Only an error context callback may call this, with texts in the database's encoding; `detail` may be null.
pub unsafe fn complete(message: &CStr, what: &CStr, detail: *const c_char, more: &CStr) {
    // SAFETY: the caller's promise; these functions copy the NUL-terminated texts.
    unsafe {
        errmsg(c"%s: %s".as_ptr(), message.as_ptr(), what.as_ptr());
        if detail.is_null() {
            errdetail(c"%s".as_ptr(), more.as_ptr())
        } else {
            errdetail(c"%s\n%s".as_ptr(), detail, more.as_ptr())
        };
    }
}

/// Unpacks the five characters of a SQLSTATE.
pub fn sqlstate_text(packed: c_int) -> String {
    (0..5).map(|at| char::from(b'0' + (packed >> (6 * at) & 0x3f) as u8)).collect()
}

/// Replaces NULs, at which PostgreSQL's messages would end. CDF's words may hold one.
fn printable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// Packs the five characters of a SQLSTATE as PostgreSQL does, six bits each.
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
    fn packed_sqlstates_are_read() {
        for text in ["57014", "HV00J", "0A000", "57P01"] {
            assert_eq!(sqlstate_text(sqlstate(text) as c_int), text);
        }
    }

    #[test]
    fn messages_hold_no_nul() {
        assert_eq!(printable("a\0b".into()), "a\u{fffd}b");
        assert_eq!(printable("aø…".into()), "aø…");
    }
}
