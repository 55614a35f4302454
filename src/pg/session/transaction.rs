//! The transaction's buffer, and the one place that registers transaction callbacks.
//!
//! Rows leave at PRE_COMMIT, where an ERROR still aborts the transaction. Subtransactions take their rows with them.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::spill::TemporaryFile;
use super::{descriptors, known_views, progress, wait};
use crate::cdf::activity::{Activity, Errand};
use crate::cdf::buffer::{Moment, OwnPoints, OwnRows, Pending, Subtransaction, TransactionBuffer};
use crate::cdf::deliver::flush::{flush, Job, JobRunner};
use crate::cdf::deliver::{Context, Experiences, Receipt};
use crate::cdf::encode::fragment::Key;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::http::request::Limits;
use crate::cdf::read::own::Ask;
use crate::cdf::read::Query;
use crate::cdf::resource::Resource;
use crate::cdf::writer::Target;
use crate::pg::errors::{raise, tell, OrRaise};
use crate::pg::settings;

/// What a session's transaction has written.
struct State {
    registered: bool,
    subtransaction: Subtransaction,
    buffer: Option<TransactionBuffer>,
    file: TemporaryFile,
    /// The delivery that is under way.
    delivery: Option<Arc<Activity>>,
    /// Transactions that have ended.
    ended: u64,
    /// Bytes of cdf_fdw.buffer_memory that statements use for themselves.
    set_aside: usize,
}

thread_local! {
    /// The backend has one thread that runs transactions.
    static STATE: RefCell<State> =
        const { RefCell::new(State { registered: false, subtransaction: 0, buffer: None, file: TemporaryFile::new(), delivery: None, ended: 0, set_aside: 0 }) };
}

thread_local! {
    /// What deliveries of the session have learnt.
    static EXPERIENCES: RefCell<Experiences> = RefCell::default();
}

/// Prepares the session for rows of the current transaction. Each statement calls it before its first [`write`].
pub fn begin() {
    STATE.with_borrow_mut(|state| {
        if !state.registered {
            // SAFETY: both functions live as long as the library, which is never unloaded.
            unsafe {
                pg_sys::RegisterXactCallback(Some(xact_callback), std::ptr::null_mut());
                pg_sys::RegisterSubXactCallback(Some(subxact_callback), std::ptr::null_mut());
            }
            state.registered = true;
        }
        // The library may have been loaded inside a subtransaction, whose start no callback has seen.
        // SAFETY: a transaction is running.
        state.subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    });
}

/// Returns a number that no other transaction of this session has.
pub fn number() -> u64 {
    begin();
    STATE.with_borrow(|state| state.ended)
}

/// Calls `write` with the place that rows are written to.
pub fn write<R>(write: impl FnOnce(Target<'_>) -> R) -> R {
    STATE.with_borrow_mut(|state| {
        let limit = settings::buffer_memory().saturating_sub(state.set_aside);
        let new = || TransactionBuffer::new(limit, &wait::SecondThread);
        let buffer = state.buffer.get_or_insert_with(new);
        write(Target { buffer, subtransaction: state.subtransaction, spill: &mut state.file })
    })
}

/// Memory that a statement reserves for its own use while this value lives. It comes out of `cdf_fdw.buffer_memory`, so
/// the buffer may use that much less.
#[derive(Debug)]
pub struct SetAside {
    pub bytes: usize,
}

impl SetAside {
    /// Reserves an eighth of what is left, so that however many statements do so, the buffer keeps some memory.
    pub fn new() -> SetAside {
        let mut bytes = 0;
        with_state(|state| {
            bytes = settings::buffer_memory().saturating_sub(state.set_aside) / 8;
            state.change_set_aside(bytes as isize);
        });
        SetAside { bytes }
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        with_state(|state| state.change_set_aside(-(self.bytes as isize)));
    }
}

impl State {
    fn change_set_aside(&mut self, by: isize) {
        self.set_aside = self.set_aside.saturating_add_signed(by);
        if let Some(buffer) = &mut self.buffer {
            buffer.set_limit(settings::buffer_memory().saturating_sub(self.set_aside));
        }
    }
}

/// Returns the present, for a scan that must not see what its own statement writes.
pub fn moment(connection: &Arc<Connection>, resource: &'static Resource) -> Result<Moment, Error> {
    begin();
    write(|target| target.buffer.moment(connection, resource))
}

/// Returns what the transaction has written to a resource over a connection: to these keys, or to all without any, and
/// only `before` a moment if one is given.
pub fn pending(
    connection: &Arc<Connection>,
    resource: &'static Resource,
    keys: Option<Vec<Key>>,
    before: Option<Moment>,
) -> Result<Pending, Error> {
    STATE.with_borrow_mut(|state| match &mut state.buffer {
        Some(buffer) => buffer.pending(connection, resource, keys, before, &mut state.file),
        None => Ok(Pending::default()),
    })
}

/// The transaction's writes that a reader [asks](answer) for part by part.
pub enum OwnWrites {
    Rows(OwnRows),
    Points(OwnPoints),
}

impl OwnWrites {
    /// Whether rows are addressed by `id`.
    pub fn by_id(&self) -> bool {
        matches!(self, OwnWrites::Rows(rows) if rows.by_id())
    }

    /// Returns the RAW tables that were written to.
    pub fn places(&self) -> Vec<(String, String)> {
        match self {
            OwnWrites::Rows(rows) => rows.places(),
            OwnWrites::Points(_) => Vec::new(),
        }
    }
}

/// Gives a query what the transaction has written to its resource, `before` a moment if one is given. The writes go
/// into the query; where all of them might not fit into memory, they are returned to be [asked](answer) for instead.
pub fn own_writes(query: &mut Query, before: Option<Moment>) -> Result<Option<OwnWrites>, Error> {
    STATE.with_borrow_mut(|state| {
        let Some(buffer) = &mut state.buffer else { return Ok(None) };
        let (resource, connection, file) = (query.table.options.resource, &query.connection, &mut state.file);
        if resource.holds_points() {
            let own = buffer.own_points(connection, resource, before, file)?;
            return Ok((!own.is_empty()).then_some(OwnWrites::Points(own)));
        }
        let keys = query.written_keys();
        if keys.is_none() && buffer.is_by_key(connection, resource) {
            let own = buffer.own_rows(connection, resource, query.raw_place(), before, file)?;
            return Ok((!own.is_empty()).then_some(OwnWrites::Rows(own)));
        }
        query.pending = buffer.pending(connection, resource, keys, before, file)?;
        Ok(None)
    })
}

/// Answers a reader's question about the transaction's own writes.
pub fn answer(own: &mut OwnWrites, ask: Ask) {
    STATE.with_borrow_mut(|state| {
        let ended = || Error::internal("rows of a transaction that has ended");
        let buffer = state.buffer.as_ref().ok_or_else(ended);
        let file = &mut state.file;
        // A reader that is gone needs no answer, so a failed `send` is no error.
        match (own, ask) {
            (OwnWrites::Rows(own), Ask::Rows { wanted, reply }) => {
                let _ = reply.send(buffer.and_then(|buffer| buffer.answer(own, wanted, file)));
            }
            (OwnWrites::Points(own), Ask::Points { wanted, reply }) => {
                let _ = reply.send(buffer.and_then(|buffer| buffer.answer_points(own, wanted, file)));
            }
            // Dropping the question makes it an error for the reader.
            (OwnWrites::Rows(_), Ask::Points { .. }) | (OwnWrites::Points(_), Ask::Rows { .. }) => {}
        }
    });
}

/// Returns the limits of a request that starts now, as part of this activity.
pub fn limits(activity: &Arc<Activity>) -> Limits {
    let timeout = settings::flush_timeout();
    Limits {
        deadline: Instant::now() + timeout,
        deadline_setting: timeout,
        request_timeout: settings::request_timeout(),
        max_retries: settings::max_retries(),
        errand: Errand::of(activity),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn xact_callback(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => pre_commit(),
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => pre_prepare(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_ABORT
        | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            with_state(|state| {
                state.buffer = None;
                state.file.forget();
                state.ended += 1;
            });
            log_delivery(None);
            descriptors::release();
            if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
                known_views::forget();
            }
        }
        // Parallel workers write nothing.
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subxact_callback(
    event: pg_sys::SubXactEvent::Type,
    ended: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    with_state(|state| match event {
        // PostgreSQL passes the new subtransaction first here as well.
        pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => state.subtransaction = ended,
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            state.subtransaction = parent;
            if let Some(buffer) = &mut state.buffer {
                buffer.release(ended, parent);
            }
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            state.subtransaction = parent;
            if let Some(buffer) = &mut state.buffer {
                buffer.rollback(ended);
            }
        }
        _ => {}
    });
}

/// Changes the state unless it is borrowed. It is borrowed only if the backend is terminated in the middle of a row:
/// the transaction then aborts with the row's frames on the stack, and the process exits, so nothing needs clearing.
fn with_state(change: impl FnOnce(&mut State)) {
    STATE.with(|state| {
        if let Ok(mut state) = state.try_borrow_mut() {
            change(&mut state);
        }
    });
}

extern "C-unwind" {
    /// The last check of a SERIALIZABLE transaction (storage/predicate.h).
    fn PreCommit_CheckForSerializationFailure();
}

fn pre_commit() {
    // Take the rows out of the session first: whatever happens below, the session does not keep them.
    let (buffer, mut file) = STATE.with_borrow_mut(|state| {
        (state.buffer.take(), std::mem::replace(&mut state.file, TemporaryFile::new()))
    });
    let result = match buffer {
        Some(buffer) if !buffer.is_empty() => {
            check_serializable();
            deliver(buffer, &mut file)
        }
        _ => Ok(()),
    };
    file.close();
    log_delivery(Some(result.as_ref().err()));
    result.or_raise();
}

/// Logs the delivery that has just ended if it took at least `cdf_fdw.log_min_flush_duration` and was not logged yet.
/// `result` is the delivery's error, if any; None if something outside of the delivery ended it.
fn log_delivery(result: Option<Option<&Error>>) {
    let mut delivery = None;
    with_state(|state| delivery = state.delivery.take());
    let Some(delivery) = delivery else { return };
    let cause = progress::ended_by();
    let least = settings::log_min_flush_duration();
    if least.is_none_or(|least| delivery.duration() < least) {
        return;
    }
    let ended = match (result, cause) {
        (Some(None), _) => "delivered".to_owned(),
        (Some(Some(error)), _) => format!("ended with SQLSTATE {}", error.kind.sqlstate()),
        (None, Some(sqlstate)) => format!("ended from outside with SQLSTATE {sqlstate}"),
        (None, None) => "ended from outside".to_owned(),
    };
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    // SAFETY: a counter of the backend, which an ERROR resets to 0. Sending a message serves interrupts, and a cancel
    // then would abort a transaction whose rows are already delivered.
    unsafe { pg_sys::InterruptHoldoffCount += 1 };
    tell(PgLogLevel::LOG, code, &delivery.log_line(&ended), None, None);
    // SAFETY: as above.
    unsafe { pg_sys::InterruptHoldoffCount -= 1 };
}

/// Raises the serialization failure of a transaction that cannot be serialized, before anything is sent.
///
/// PostgreSQL makes this check after the callbacks. Once it has passed, the transaction counts as prepared, like one
/// after PREPARE TRANSACTION: in a conflict that arises while rows are delivered, the other transaction is the victim.
/// When PostgreSQL repeats the check, it finds nothing new.
fn check_serializable() {
    // SAFETY: a transaction is about to commit, its deferred triggers have run, and this is the main thread. The boundary
    // turns a PostgreSQL error into a panic that unwinds Rust frames.
    unsafe {
        if pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 {
            pg_sys::ffi::pg_guard_ffi_boundary(|| PreCommit_CheckForSerializationFailure());
        }
    }
}

fn deliver(buffer: TransactionBuffer, file: &mut TemporaryFile) -> Result<(), Error> {
    let activity = Activity::delivery();
    // Forget what ended an earlier wait, so that it is not taken for the cause of this one's end.
    progress::ended_by();
    with_state(|state| state.delivery = Some(activity.clone()));
    let context = Context::new(wait::client()?, limits(&activity));
    let jobs = wait::Jobs::new(settings::max_concurrent_requests(), activity)?;
    let in_parallel = jobs.most();
    let mut experiences = EXPERIENCES.take();
    let result = flush(buffer, in_parallel, context, &mut experiences, &mut IoThread(jobs), file);
    EXPERIENCES.set(experiences);
    result
}

fn pre_prepare() {
    let pending = STATE.with_borrow(|state| state.buffer.as_ref().is_some_and(|buffer| !buffer.is_empty()));
    if pending {
        raise(
            Error::new(
                Kind::Unsupported,
                "cannot PREPARE a transaction that has written to CDF foreign tables",
            )
            .hint("Rows are delivered at COMMIT, and CDF cannot take part in a two-phase commit."),
        );
    }
    // A savepoint that was rolled back may have written to the file.
    STATE.with_borrow_mut(|state| state.file.close());
}

/// Requests run on the I/O thread.
struct IoThread(wait::Jobs<(usize, Receipt)>);

impl JobRunner for IoThread {
    fn start(&mut self, job: Job) {
        self.0.spawn(0, job);
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn next(&mut self) -> Result<(usize, Receipt), Error> {
        self.0.next().map(|(_, result)| result)
    }
}
