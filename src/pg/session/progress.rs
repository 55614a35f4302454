//! What the client and the log are told about a wait for CDF: its progress now and then, and what had been accepted if
//! something from outside ends it.
//!
//! PostgreSQL ends a wait with an ERROR or a FATAL of its own, whose message knows nothing of CDF. It is completed
//! here, so that nobody has to look elsewhere for what had been accepted: an ERROR on its way through Rust; a FATAL,
//! which never gets there, by an error context callback.

use std::cell::{Cell, RefCell};
use std::ffi::{c_void, CStr, CString};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{pg_sys, PgLogLevel, PgSqlErrorCode};

use crate::cdf::activity::Activity;
use crate::cdf::error::{Error, Kind};
use crate::pg::encoding::encode_lossy;
use crate::pg::errors::{self, raise_as, tell};
use crate::pg::settings;

/// The pause before checking again whether a client that reads nothing takes more.
const FULL: Duration = Duration::from_millis(500);

/// What is added to a FATAL: the end of its message, and its DETAIL.
struct Encoded {
    message: CString,
    detail: CString,
}

thread_local! {
    /// The current statement, identified by its start, and when its client last heard of it: when it first waited, or
    /// when its progress was last told. The backend has one thread.
    static HEARD_OF: Cell<Option<(pg_sys::TimestampTz, Instant)>> = const { Cell::new(None) };
    /// What a FATAL that is raised now has to tell.
    static ACCOUNT: RefCell<Option<Encoded>> = const { RefCell::new(None) };
    /// The SQLSTATE of the error that ended the wait.
    static ENDED_BY: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Tells the progress if it is due. Returns when it is due next; None: never. May unwind as [`serve_interrupts`] does.
pub fn tell_if_due(activity: &Activity) -> Option<Duration> {
    let interval = settings::progress_interval()?;
    // SAFETY: reads the backend's state.
    let (statement, anybody_listens) = unsafe {
        (
            pg_sys::GetCurrentStatementStartTimestamp(),
            pg_sys::message_level_is_interesting(PgLogLevel::NOTICE as i32),
        )
    };
    if !anybody_listens {
        return None;
    }
    let heard_of = HEARD_OF.get().filter(|(known, _)| *known == statement);
    let (_, since) = heard_of.unwrap_or_else(|| (statement, Instant::now()));
    HEARD_OF.set(Some((statement, since)));
    let silence = since.elapsed();
    if silence < interval {
        return Some(interval - silence);
    }
    if !client_takes_more() {
        return Some(FULL);
    }
    HEARD_OF.set(Some((statement, Instant::now())));
    let text = activity.progress();
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    // PostgreSQL sends the message at once, and serves interrupts afterwards.
    accounting_for(activity, || tell(PgLogLevel::NOTICE, code, &text, None, None));
    Some(interval)
}

/// Whether the client's connection takes a message without waiting for the client. A cancel would not end such a wait.
fn client_takes_more() -> bool {
    // SAFETY: the port lives as long as the session; there is none without a client. poll reads one descriptor's state.
    unsafe {
        if pg_sys::MyProcPort.is_null() {
            return true;
        }
        // The fields that pgrx does not declare begin with the descriptor (libpq/libpq-be.h).
        let socket = *pg_sys::MyProcPort.cast::<pg_sys::pgsocket>();
        let mut poll = libc::pollfd { fd: socket, events: libc::POLLOUT, revents: 0 };
        // A broken connection counts as ready: a write finds out that it is broken.
        libc::poll(&mut poll, 1, 0) != 0
    }
}

/// Serves interrupts as PostgreSQL does in its own waits. It may unwind with an ERROR, or end the process; either tells
/// what has become of the activity.
pub fn serve_interrupts(activity: &Activity) {
    // SAFETY: reads a flag of the backend.
    if unsafe { pg_sys::InterruptPending } != 0 {
        accounting_for(activity, || {
            pg_sys::check_for_interrupts!();
        });
    }
}

/// Ends the process after its postmaster died, as PostgreSQL ends a session that reads from its client.
pub fn die_with_the_postmaster(activity: &Activity) {
    let why = "terminating connection due to unexpected postmaster exit";
    let code = PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN;
    accounting_for(activity, || tell(PgLogLevel::FATAL, code, why, None, None));
}

/// Runs `serve` so that an error in it also tells what has become of the activity.
fn accounting_for(activity: &Activity, serve: impl FnOnce()) {
    let account = activity.account();
    let encoded =
        Encoded { message: encode_lossy(&account.message), detail: encode_lossy(&account.detail.join("\n")) };
    ACCOUNT.with_borrow_mut(|waiting| *waiting = Some(encoded));
    let mut callback = pg_sys::ErrorContextCallback {
        // SAFETY: a variable of the backend.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(complete_fatal),
        arg: std::ptr::null_mut(),
    };
    // SAFETY: the callback is removed before it goes out of scope: by the boundary that catches an ERROR, and below.
    unsafe { pg_sys::error_context_stack = &mut callback };
    let previous = callback.previous;
    let take_away = || {
        // SAFETY: as above; this restores the previous value.
        unsafe { pg_sys::error_context_stack = previous };
        ACCOUNT.with_borrow_mut(Option::take);
    };
    let served = catch_unwind(AssertUnwindSafe(serve));
    take_away();
    let Err(thrown) = served else { return };
    match thrown.downcast().map(|caught| *caught) {
        Ok(CaughtError::PostgresError(error)) => {
            let code = error.sql_error_code();
            ENDED_BY.set(Some(code as i32));
            // The kind does not matter: the SQLSTATE is PostgreSQL's.
            let mut completed =
                Error::new(Kind::TimedOut, format!("{}: {}", error.message(), account.message));
            completed.detail.extend(error.detail().map(str::to_owned));
            completed.detail.extend(account.detail);
            completed.hint = error.hint().map(str::to_owned);
            raise_as(code, completed)
        }
        Ok(caught) => caught.rethrow(),
        Err(thrown) => resume_unwind(thrown),
    }
}

/// Completes a FATAL that is being raised. Other errors are completed where they are caught.
unsafe extern "C-unwind" fn complete_fatal(_arg: *mut c_void) {
    ACCOUNT.with_borrow(|account| {
        let Some(Encoded { message, detail }) = account else { return };
        // SAFETY: PostgreSQL calls this while it raises an error. The memory of the copy is freed with the process.
        unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let error = errors::being_made();
            pg_sys::MemoryContextSwitchTo(context);
            if (*error).elevel != PgLogLevel::FATAL as i32 || (*error).message.is_null() {
                return;
            }
            ENDED_BY.set(Some((*error).sqlerrcode));
            errors::complete(CStr::from_ptr((*error).message), message, (*error).detail, detail);
        }
    });
}

/// Returns the SQLSTATE of the error that ended the last interrupted wait, once.
pub fn ended_by() -> Option<String> {
    ENDED_BY.take().map(errors::sqlstate_text)
}
