//! Masks the secrets in messages on their way to the server log.

use std::ffi::{c_char, c_int, CStr};
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::literals::{find, may_hold, Names, Text};
use super::log_text;
use super::names::{Session, Unasked};
use super::statement::{copied, executes, show_statement, SECRET_TREE, SHOWN};

static PREVIOUS: OnceLock<pg_sys::emit_log_hook_type> = OnceLock::new();

/// Installs the hook.
pub fn init() {
    // SAFETY: the backend has one thread at this point.
    unsafe {
        PREVIOUS.get_or_init(|| pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(hide_in_log);
    }
}

/// Masks the secrets in a message on its way to the server log.
///
/// # Safety
/// Called by PostgreSQL, with the message in its own memory context.
#[pg_guard]
unsafe extern "C-unwind" fn hide_in_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes a valid message, of which each text is NULL or NUL-terminated and allocated in the
    // current memory context. Nothing here raises an error, which would recurse into reporting.
    unsafe {
        hide(&mut *error);
        if let Some(previous) = PREVIOUS.get().copied().flatten() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(error));
        }
    }
}

/// # Safety
/// As `hide_in_log`.
unsafe fn hide(error: &mut pg_sys::ErrorData) {
    // SAFETY: the caller's promise.
    unsafe {
        // A statement is logged before it is analysed. The catalogs can be asked then, but not in the middle of anything.
        let names: &dyn Names = if logs_statement(error) { &Session } else { &Unasked };
        show_statement(names, false);
        let current = pg_sys::debug_query_string;
        let known = SHOWN.get();
        let is_known = !current.is_null() && known.shown == current as usize;
        let original = if is_known { known.original as *const c_char } else { current };
        let (original, shown) = (bytes(original), bytes(current));
        let mut numbers =
            if may_hold(original) { find(original, Text::Statements, names).parameters } else { Vec::new() };

        let mut near = (original, shown.to_vec(), error.cursorpos);
        let internal = bytes(error.internalquery);
        if may_hold(internal) || executes(internal) {
            let masked = find(internal, Text::Body, &Unasked).masked(internal);
            near = (internal, masked.clone(), error.internalpos);
            replace(&mut error.internalquery, masked);
        }

        let message = bytes(error.message);
        if original.is_empty() || !message.ends_with(original) {
            hide_sql(&mut error.message, Text::Message, &mut numbers);
        } else if original != shown {
            // The statement stands in it as it came.
            let begin = &message[..message.len() - original.len()];
            replace(&mut error.message, [begin, shown].concat());
        }
        let message = bytes(error.message);
        let audited =
            log_text::audited(message, |statement| find(statement, Text::Statements, &Unasked).parameters);
        replace_ranges(&mut error.message, &audited);
        if near.2 > 0 && near.0 != near.1.as_slice() {
            quote_masked(&mut error.message, near.0, &near.1, near.2);
        }

        hide_sql(&mut error.detail, Text::Message, &mut numbers);
        hide_sql(&mut error.detail_log, Text::Message, &mut numbers);
        hide_sql(&mut error.context, Text::Context, &mut numbers);
        if !numbers.is_empty() {
            for field in [&mut error.message, &mut error.detail, &mut error.detail_log, &mut error.context] {
                let ranges = log_text::parameters(bytes(*field), &numbers);
                replace_ranges(field, &ranges);
            }
        }
        let trees: [&[u8]; 3] = [b"parse tree:", b"rewritten parse tree:", b"plan:"];
        if SECRET_TREE.get() && trees.contains(&bytes(error.message)) {
            let ranges = log_text::constants(bytes(error.detail));
            replace_ranges(&mut error.detail, &ranges);
        }
    }
}

/// Whether the message is that of log_statement or log_min_duration_statement, in a transaction.
unsafe fn logs_statement(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: the texts are NULL or NUL-terminated; reads variables of the backend.
    unsafe {
        error.elevel <= pg_sys::LOG_SERVER_ONLY as i32
            && bytes(error.filename).ends_with(b"postgres.c")
            && bytes(error.funcname).starts_with(b"exec_")
            && pg_sys::IsTransactionState()
    }
}

/// Masks the secrets of SQL that stands somewhere in a text, and notes the parameters that bring secrets.
unsafe fn hide_sql(field: &mut *mut c_char, kind: Text, numbers: &mut Vec<u16>) {
    // SAFETY: the text is NULL or NUL-terminated.
    unsafe {
        let text = bytes(*field);
        if may_hold(text) || executes(text) {
            let secrets = find(text, kind, &Unasked);
            replace_ranges(field, &secrets.ranges);
            numbers.extend(secrets.parameters);
        }
    }
}

/// The parser quotes the statement from a position on.
unsafe fn quote_masked(field: &mut *mut c_char, original: &[u8], masked: &[u8], position: c_int) {
    // SAFETY: the text is NULL or NUL-terminated; the position counts the original's characters from 1.
    unsafe {
        let length = original.len() as c_int;
        let offset = pg_sys::pg_mbcharcliplen(original.as_ptr().cast(), length, position - 1) as usize;
        let mut message = bytes(*field).to_vec();
        let (at, length) = log_text::repeated(&message, &original[offset..]);
        message[at..at + length].copy_from_slice(&masked[offset..offset + length]);
        replace(field, message);
    }
}

unsafe fn replace_ranges(field: &mut *mut c_char, ranges: &[std::ops::Range<usize>]) {
    if ranges.is_empty() {
        return;
    }
    // SAFETY: the text is NUL-terminated, and the ranges are its own.
    unsafe {
        let mut text = bytes(*field).to_vec();
        ranges.iter().for_each(|range| text[range.clone()].fill(b'*'));
        replace(field, text);
    }
}

/// Gives a field of a message another text.
unsafe fn replace(field: &mut *mut c_char, text: Vec<u8>) {
    // SAFETY: the copy is made in the memory context of the message.
    unsafe { *field = copied(&text, pg_sys::CurrentMemoryContext) };
}

/// # Safety
/// `text` is null or NUL-terminated, and outlives the result.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text).to_bytes() }
}
