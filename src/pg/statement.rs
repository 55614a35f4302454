//! What the scans and the changes of one running statement share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::unfit::Tally;

#[derive(Debug, Default)]
pub struct Statement {
    pub unfit: RefCell<Tally>,
    /// Keys of rows that are not the texts that their values in the key column have.
    keys: RefCell<Vec<String>>,
    /// Scans that have not ended.
    scans: Cell<usize>,
}

thread_local! {
    /// Statements that run, by their executor state. Whoever has a part in one holds it for as long as the executor state
    /// lives; an entry without any is of a statement that has ended, or failed.
    static STATEMENTS: RefCell<Vec<(*mut pg_sys::EState, Weak<Statement>)>> = const { RefCell::new(Vec::new()) };
}

impl Statement {
    /// The statement of an executor state. To be dropped with its memory.
    pub fn of(estate: *mut pg_sys::EState) -> Rc<Statement> {
        STATEMENTS.with_borrow_mut(|statements| {
            statements.retain(|(_, statement)| statement.strong_count() > 0);
            let known = statements.iter().find(|(other, _)| *other == estate);
            known.and_then(|(_, statement)| statement.upgrade()).unwrap_or_else(|| {
                let statement = Rc::default();
                statements.push((estate, Rc::downgrade(&statement)));
                statement
            })
        })
    }

    /// Keeps the key of a row; gives a number to find it again by.
    pub fn keep_key(&self, key: &str) -> u64 {
        let mut keys = self.keys.borrow_mut();
        keys.push(key.to_owned());
        keys.len() as u64
    }

    pub fn key(&self, number: u64) -> Option<String> {
        self.keys.borrow().get(usize::try_from(number).ok()?.checked_sub(1)?).cloned()
    }

    pub fn begin_scan(&self) {
        self.scans.set(self.scans.get() + 1);
    }

    /// The last scan tells what there is to tell, if the end of the run has not.
    pub fn end_scan(&self) {
        self.scans.set(self.scans.get().saturating_sub(1));
        if self.scans.get() == 0 {
            self.unfit.borrow_mut().warn();
        }
    }
}

static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;

/// Installs the hook that knows when a statement has run. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called on.
    unsafe {
        PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

/// A scan only ends when the portal is closed, which a client may leave to its next statement: warnings would come with that.
#[cfg(not(feature = "pg18"))]
#[pg_guard]
unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: PostgreSQL passes a statement that has begun; the hook of another extension may raise an ERROR.
    unsafe {
        match PREVIOUS_RUN {
            Some(previous) => {
                pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, direction, count, once));
            }
            None => pg_sys::standard_ExecutorRun(query, direction, count, once),
        }
        has_run((*query).estate, count);
    }
}

/// As for the versions before.
#[cfg(feature = "pg18")]
#[pg_guard]
unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    // SAFETY: PostgreSQL passes a statement that has begun; the hook of another extension may raise an ERROR.
    unsafe {
        match PREVIOUS_RUN {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, direction, count)),
            None => pg_sys::standard_ExecutorRun(query, direction, count),
        }
        has_run((*query).estate, count);
    }
}

/// A run without a count is the whole statement.
fn has_run(estate: *mut pg_sys::EState, count: u64) {
    let statement = STATEMENTS.with_borrow(|statements| {
        let known = statements.iter().find(|(other, _)| *other == estate);
        known.and_then(|(_, statement)| statement.upgrade())
    });
    if let (Some(statement), 0) = (statement, count) {
        statement.unfit.borrow_mut().warn();
    }
}
