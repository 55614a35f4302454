//! The keys of typed RAW tables whose column is no text. RAW knows a row by the text of its key alone, and several texts may
//! be one value: `1.5` and `1.50` as a double, `7` and `007` as an integer. A row that is to be changed is found again by
//! the text that it was read with.
//!
//! Where that is the text which the value would be written with, the value is enough, and nearly all keys are such. The
//! others the scan keeps, and puts their numbers into its rows' ctid, of which RAW has none: that comes to the row's
//! change through whatever joins and sorts there are.

use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::cdf::cell::Cell;
use crate::cdf::encode::raw::{key_text, RawEncoder};
use crate::cdf::error::Error;
use crate::cdf::read::Field;
use crate::cdf::table::Table;
use crate::pg::modify::datum::{self, RowChange, RowReader};
use crate::pg::modify::statement::Statement;

/// The name in a plan's rows.
const NAME: &CStr = c"cdf_key_text";

/// What holds a number.
pub const HELD_BY: Ctid = Ctid;

/// A ctid as a number of 48 bits; 0: none.
pub struct Ctid;

impl Ctid {
    pub fn of(self, number: u64) -> pg_sys::ItemPointerData {
        pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: (number >> 32) as u16, bi_lo: (number >> 16) as u16 },
            ip_posid: number as u16,
        }
    }

    fn number(self, held: pg_sys::ItemPointerData) -> u64 {
        u64::from(held.ip_blkid.bi_hi) << 32 | u64::from(held.ip_blkid.bi_lo) << 16 | u64::from(held.ip_posid)
    }
}

/// Has the plan's rows carry the number.
///
/// # Safety
/// The planner is planning a change of the relation.
pub unsafe fn add_target(root: *mut pg_sys::PlannerInfo, rtindex: pg_sys::Index) {
    // SAFETY: the caller's promise; the planner keeps the name, which is static.
    unsafe {
        let variable = pg_sys::makeVar(
            rtindex as i32,
            pg_sys::SelfItemPointerAttributeNumber as i16,
            pg_sys::TIDOID,
            -1,
            pg_sys::InvalidOid,
            0,
        );
        pg_sys::add_row_identity_var(root, variable, rtindex, NAME.as_ptr());
    }
}

/// Whether the ctid of a table that is planned may be wanted for that, rather than by the statement's own words.
///
/// # Safety
/// The planner is planning the relation.
pub unsafe fn may_be_target(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::bms_is_member((*relation).relid as i32, (*root).all_result_relids) }
}

/// Whether a target of a query is that.
///
/// # Safety
/// The target is one of a query that is being planned.
pub unsafe fn is_target(target: *mut pg_sys::TargetEntry) -> bool {
    // SAFETY: the caller's promise; names of targets are NUL-terminated.
    unsafe { (*target).resjunk && !(*target).resname.is_null() && CStr::from_ptr((*target).resname) == NAME }
}

/// What a scan whose rows are to be changed needs to tell which keys must be kept.
pub struct ExactKeys {
    reader: RowReader,
    column: usize,
}

impl ExactKeys {
    /// None for tables whose keys are found again by their values.
    ///
    /// # Safety
    /// `descriptor` is the table's; `context` lives as long as the scan.
    pub unsafe fn new(
        descriptor: pg_sys::TupleDesc,
        table: &Table,
        context: pg_sys::MemoryContext,
    ) -> Option<ExactKeys> {
        let column = RawEncoder::typed_key(table)?;
        // SAFETY: the caller's promise.
        let reader = unsafe { RowReader::new(descriptor, context, table.options.resource.longest_document) };
        Some(ExactKeys { reader, column })
    }

    /// The number of the row's key, 0 if its value is enough.
    ///
    /// # Safety
    /// `slot` holds the row.
    pub unsafe fn number(
        &mut self,
        row: &[Field],
        slot: *mut pg_sys::TupleTableSlot,
        statement: &Statement,
    ) -> Result<u64, Error> {
        let Field::Text(exact) = &row[self.column] else {
            return Err(Error::internal("a RAW row without a key"));
        };
        let same = |cell: &Cell<'_>| key_text(cell).is_ok_and(|text| *text == **exact);
        // SAFETY: the caller's promise.
        let is_same = unsafe { self.reader.read_one(slot, self.column, same) };
        Ok(if is_same { 0 } else { statement.keep_key(exact) })
    }
}

/// Where a change finds the number of a key.
pub struct ExactKey {
    column: usize,
    number: i16,
    statement: Rc<Statement>,
}

impl ExactKey {
    /// # Safety
    /// The targets are those of a plan.
    pub unsafe fn find(
        targets: *mut pg_sys::List,
        table: &Table,
        statement: Rc<Statement>,
    ) -> Option<ExactKey> {
        let column = RawEncoder::typed_key(table)?;
        // SAFETY: the caller's promise.
        let number = unsafe { pg_sys::ExecFindJunkAttributeInTlist(targets, NAME.as_ptr()) };
        (number > 0).then_some(ExactKey { column, number, statement })
    }

    /// The key of a row, if its value is not enough.
    ///
    /// # Safety
    /// The slot holds a row of the plan.
    pub unsafe fn of(&self, plan: *mut pg_sys::TupleTableSlot) -> Option<String> {
        // SAFETY: the caller's promise; a ctid is passed by its address.
        unsafe {
            let datum = datum::value(plan, i32::from(self.number))?;
            self.statement.key(HELD_BY.number(*datum.cast_mut_ptr::<pg_sys::ItemPointerData>()))
        }
    }

    /// Has the change go by the text of the key. A key that is set to another value is left, for the change to be refused.
    pub fn put<'r>(&self, exact: &'r str, mut change: RowChange<'r>) -> RowChange<'r> {
        let RowChange { keys, new, .. } = &mut change;
        let same = new.is_empty() || new[self.column] == keys[self.column];
        if same {
            let rows = [keys, new];
            rows.into_iter()
                .filter(|row| !row.is_empty())
                .for_each(|row| row[self.column] = Cell::Text(exact));
        }
        change
    }
}
