//! State that the scans and the changes of one running statement share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use pgrx::pg_sys;

use crate::pg::scan::unfit::Tally;

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

    /// Keeps the key of a row. Returns the number by which it is found again.
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

    /// A scan has read all its rows. If it is the statement's only scan, its warning is given now: the statement itself ends
    /// when its portal is closed, which a client may leave to its next statement.
    pub fn scan_is_done(&self) {
        if self.scans.get() == 1 {
            self.unfit.borrow_mut().warn();
        }
    }

    /// The last scan gives the warning.
    pub fn end_scan(&self) {
        self.scans.set(self.scans.get().saturating_sub(1));
        if self.scans.get() == 0 {
            self.unfit.borrow_mut().warn();
        }
    }
}
