//! The statement that the session runs for its client, as pg_stat_activity and the server log show it.

use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr};

use pgrx::pg_sys;

use super::literals::{find, may_hold, Names, Text};
use super::names::Session;

/// The statement that the session runs for its client.
#[derive(Clone, Copy, Default)]
pub struct Shown {
    /// When it began, which tells it from the next one at the same address.
    began: i64,
    /// Its text as it came, and as it is shown now; addresses.
    pub original: usize,
    pub shown: usize,
}

thread_local! {
    pub static SHOWN: Cell<Shown> = Cell::default();
    /// Whether the statement that a hook saw last has a secret in it: its tree may be logged next.
    pub static SECRET_TREE: Cell<bool> = const { Cell::new(false) };
    /// Whether a hook has been called since the library was loaded.
    pub static CALLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the hooks have seen the running statement. They have not if it is the one that loaded the library.
pub fn sees_statement() -> bool {
    CALLED.get()
}

/// Masks the client's statement in pg_stat_activity, and wherever the server log shows it.
pub fn show_current_statement() {
    show_statement(&Session, false);
}

/// `again`: also if it was done before, because names may have another meaning now.
pub fn show_statement(names: &dyn Names, again: bool) {
    // SAFETY: the session's own variables; the statement's text is NULL or NUL-terminated, and lives as long as the
    // variable points to it. So does the copy, in the memory of the message that brought the statement.
    unsafe {
        let text = pg_sys::debug_query_string;
        if text.is_null() {
            return;
        }
        let began = pg_sys::GetCurrentStatementStartTimestamp();
        let known = SHOWN.get();
        let is_known = known.began == began && [known.original, known.shown].contains(&(text as usize));
        if is_known && !again {
            return;
        }
        let original = if is_known { known.original as *const c_char } else { text };
        SHOWN.set(Shown { began, original: original as usize, shown: text as usize });
        let bytes = CStr::from_ptr(original).to_bytes();
        if !may_hold(bytes) && !executes(bytes) {
            return;
        }
        let mut masked = find(bytes, Text::Statements, names).masked(bytes);
        // What has been hidden stays so.
        for (byte, shown) in masked.iter_mut().zip(CStr::from_ptr(text).to_bytes()) {
            if *shown == b'*' {
                *byte = b'*';
            }
        }
        if masked == CStr::from_ptr(text).to_bytes() {
            return;
        }
        let context =
            if pg_sys::MessageContext.is_null() { pg_sys::TopMemoryContext } else { pg_sys::MessageContext };
        let copy = copied(&masked, context);
        SHOWN.set(Shown { began, original: original as usize, shown: copy as usize });
        pg_sys::debug_query_string = copy;
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, copy);
    }
}

/// A copy of a text with no NUL in it.
pub unsafe fn copied(text: &[u8], context: pg_sys::MemoryContext) -> *mut c_char {
    // SAFETY: the allocation has room for the text and its end.
    unsafe {
        let copy = pg_sys::MemoryContextAlloc(context, text.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy.cast()
    }
}

/// Whether a text may EXECUTE a prepared statement, whose own text tells what its arguments are.
pub fn executes(text: &[u8]) -> bool {
    const WORD: &[u8] = b"execute";
    let is_x = |byte: &u8| byte | 0x20 == b'x';
    let begins_before = |x: usize| {
        let word = x.checked_sub(1).and_then(|start| text.get(start..start + WORD.len()));
        word.is_some_and(|word| word.eq_ignore_ascii_case(WORD))
    };
    text.chunks(64).enumerate().any(|(number, chunk)| {
        chunk.iter().fold(false, |any, byte| any | is_x(byte))
            && chunk.iter().enumerate().any(|(at, byte)| is_x(byte) && begins_before(number * 64 + at))
    })
}

/// Whether a statement of a text may have a secret in it. It begins at `location`, and has `length` bytes (0: the rest).
pub unsafe fn is_suspect(text: *const c_char, location: c_int, length: c_int, execute: bool) -> bool {
    // SAFETY: the text is NULL or NUL-terminated, and has the statement in it. Where its length is known, the rest is
    // not looked at: a script may have thousands of statements.
    unsafe {
        if text.is_null() {
            return false;
        }
        let start = text.add(usize::try_from(location).unwrap_or(0));
        let statement = match usize::try_from(length) {
            Ok(length) if length > 0 && location >= 0 => std::slice::from_raw_parts(start.cast(), length),
            _ => CStr::from_ptr(start).to_bytes(),
        };
        may_hold(statement) || (execute && executes(statement))
    }
}
