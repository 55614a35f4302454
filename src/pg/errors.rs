//! Rust errors as PostgreSQL's: one ERROR with SQLSTATE, message, DETAIL and HINT.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::text::is_foreign;
use crate::cdf::error::{Error, Report};

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
    report(PgLogLevel::WARNING, sqlstate(error.kind.sqlstate()), error);
}

#[track_caller]
fn report(level: PgLogLevel, code: PgSqlErrorCode, error: Error) {
    let Report { message, detail, hint, .. } = error.into_report();
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

/// PostgreSQL's messages end at the first NUL, and CDF's words may hold one. They are in the database's encoding: where
/// that is not UTF-8, what is beyond ASCII is escaped.
fn printable(text: String) -> String {
    let foreign = !text.is_ascii() && is_foreign();
    escaped(text, foreign)
}

fn escaped(text: String, foreign: bool) -> String {
    let text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match foreign {
        false => text,
        true => text
            .chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() })
            .collect(),
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
        assert_eq!(escaped("a\0b".into(), false), "a\u{fffd}b");
        assert_eq!(escaped("aø…".into(), true), "a\\u{f8}\\u{2026}");
    }
}
