//! `INSERT … ON CONFLICT … DO NOTHING`, and rows that fail the WHERE of DO UPDATE. CDF is asked which rows exist while the
//! statement runs, so that the statement counts and returns the new ones. At COMMIT they are delivered under the same mode,
//! because somebody else may have written them since.
//!
//! There is never a question per row: the executor's batches are asked for, or all rows at the first one. If neither is
//! possible, existing rows are found at COMMIT, and count.

use std::sync::Arc;

use hashbrown::HashSet;
use pgrx::pg_sys;

use super::datum::RowReader;
use crate::cdf::activity::Activity;
use crate::cdf::error::Error;
use crate::cdf::read::existing::{existing, keys_of, questions, RowKey};
use crate::cdf::writer::Writer;
use crate::pg::list::pointers;
use crate::pg::plan::conflict_condition;
use crate::pg::scan::pages::Pages;
use crate::pg::session::{transaction, wait};

/// When a statement asks which of its rows exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Never: the statement does not need to know.
    Never,
    /// At the statement's only row.
    AtRow,
    /// At the first row, for all rows of the plan. The plan returns the same rows again.
    AtFirstRow(*mut pg_sys::PlanState),
    /// For each batch of rows that the executor has collected.
    InBatches,
    /// Not before delivery.
    AtCommit,
}

/// When a statement asks. COPY and what is routed by an UPDATE have no clause.
///
/// # Safety
/// Both belong to a statement that begins, if only to be explained.
pub unsafe fn of_statement(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
) -> Asking {
    // SAFETY: the caller's promise: the plan of a ModifyTableState that has one is a ModifyTable; a node's tag tells its type.
    unsafe {
        let plan = (*mtstate).ps.plan.cast::<pg_sys::ModifyTable>();
        if plan.is_null()
            || (*plan).operation != pg_sys::CmdType::CMD_INSERT
            || (*plan).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NOTHING
            || (!(*plan).onConflictSet.is_null() && conflict_condition::planned(mtstate).is_none())
        {
            return Asking::Never;
        }
        let subplan = (*plan).plan.lefttree;
        if (*subplan).type_ == pg_sys::NodeTag::T_Result && (*subplan).lefttree.is_null() {
            return Asking::AtRow;
        }
        // Triggers may look at what is there so far.
        let triggers = (*rinfo).ri_TrigDesc.as_ref();
        let before = triggers.is_some_and(|all| all.trig_insert_before_row);
        let after = triggers.is_some_and(|all| all.trig_insert_after_row);
        if (*plan).returningLists.is_null() && (*plan).withCheckOptionLists.is_null() && !before && !after {
            return Asking::InBatches;
        }
        let constraints = (*(*(*rinfo).ri_RelationDesc).rd_att).constr.as_ref();
        let generates = constraints.is_some_and(|all| all.has_generated_stored);
        if (*subplan).type_ == pg_sys::NodeTag::T_ValuesScan
            && (*rinfo).ri_RootResultRelInfo.is_null()
            && !before
            && !generates
        {
            let values = (*subplan.cast::<pg_sys::ValuesScan>()).values_lists;
            let lists = pointers::<pg_sys::Node>(values);
            if !pg_sys::contain_volatile_functions((*subplan).targetlist.cast())
                && !lists.iter().any(|list| pg_sys::contain_volatile_functions(*list))
            {
                return Asking::AtFirstRow((*mtstate).ps.lefttree);
            }
        }
        Asking::AtCommit
    }
}

/// What a statement knows about its rows.
pub struct NewRows {
    pub asking: Asking,
    /// Bytes of a row, as the planner estimates them.
    pub width: usize,
    /// Keys that exist, or were written; None: they were not asked for yet.
    known: Option<HashSet<RowKey>>,
    /// The rows of a batch that are new.
    pub slots: Vec<*mut pg_sys::TupleTableSlot>,
}

impl NewRows {
    /// # Safety
    /// As for [`of_statement`].
    pub unsafe fn of_statement(
        mtstate: *mut pg_sys::ModifyTableState,
        rinfo: *mut pg_sys::ResultRelInfo,
    ) -> NewRows {
        // SAFETY: the caller's promise; what asks has a plan.
        unsafe {
            let asking = of_statement(mtstate, rinfo);
            let width = match asking {
                Asking::Never => 0,
                _ => usize::try_from((*(*(*mtstate).ps.plan).lefttree).plan_width).unwrap_or(0),
            };
            NewRows { asking, width, known: None, slots: Vec::new() }
        }
    }

    /// Whether the statement asks for a row that is inserted by itself.
    pub fn asks_by_row(&self) -> bool {
        matches!(self.asking, Asking::AtRow | Asking::AtFirstRow(_))
    }

    /// Remembers a row that is written, new or not.
    ///
    /// # Safety
    /// As for [`Self::is_new`].
    pub unsafe fn note(
        &mut self,
        reader: &mut RowReader,
        writer: &mut Writer,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<(), Error> {
        // What was written before CDF is asked, is among the transaction's own rows then.
        if let Some(known) = &mut self.known {
            // SAFETY: the caller's promise.
            known.extend(unsafe { reader.read(slot, |row| writer.key(row)) }?);
        }
        Ok(())
    }

    /// Whether a row is new to CDF and to the statement. The first call asks for all rows.
    ///
    /// # Safety
    /// `slot` holds a row of the table that reader and writer are for, and of the statement that this was made for.
    pub unsafe fn is_new(
        &mut self,
        reader: &mut RowReader,
        writer: &mut Writer,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Result<bool, Error> {
        // SAFETY: the caller's promise.
        let Some(key) = (unsafe { reader.read(slot, |row| writer.key(row)) })? else { return Ok(true) };
        if self.known.is_none() {
            let mut keys = HashSet::from_iter([key.clone()]);
            if let Asking::AtFirstRow(plan) = self.asking {
                // SAFETY: as above: the plan is the statement's.
                keys.extend(unsafe { keys_of_plan(plan, reader, writer) }?);
            }
            self.known = Some(ask(writer, &keys)?);
        }
        Ok(self.known.get_or_insert_default().insert(key))
    }
}

/// The keys of all rows that a plan of VALUES gives. It then is where it was: at its first row.
///
/// # Safety
/// The plan has given its first row, gives the same rows again, and they are whole rows of the table.
unsafe fn keys_of_plan(
    plan: *mut pg_sys::PlanState,
    reader: &mut RowReader,
    writer: &mut Writer,
) -> Result<HashSet<RowKey>, Error> {
    let mut keys = HashSet::new();
    // SAFETY: the caller's promise.
    unsafe {
        let next = (*plan).ExecProcNode.ok_or_else(|| Error::internal("a plan that gives no rows"))?;
        let next = || {
            let slot = pg_sys::ffi::pg_guard_ffi_boundary(|| next(plan));
            let empty = slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0;
            (!empty).then_some(slot)
        };
        pg_sys::ExecReScan(plan);
        while let Some(slot) = next() {
            // An invalid row is reported when its turn comes.
            keys.extend(reader.read(slot, |row| writer.key(row)).ok().flatten());
        }
        pg_sys::ExecReScan(plan);
        next();
    }
    Ok(keys)
}

/// Those of the keys that exist.
pub fn ask(writer: &Writer, keys: &HashSet<RowKey>) -> Result<HashSet<RowKey>, Error> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let (table, connection) = (writer.table(), writer.connection());
    let (mut by_key, in_parts): (Vec<_>, Vec<_>) =
        questions(table, connection, keys).into_iter().partition(|question| question.written_keys.is_some());
    for question in &mut by_key {
        let keys = question.written_keys.take();
        question.query.pending = transaction::pending(connection, table.options.resource, keys, None)?;
    }
    let name =
        by_key.iter().chain(&in_parts).next().map(|question| question.query.name()).unwrap_or_default();
    let activity = Activity::asking(format!("which of {} {name} exist", keys.len()));
    let (client, limits) = (wait::client()?, transaction::limits(&activity));
    let mut found = wait::run(&activity, async move { existing(client, by_key, limits).await })??;
    for question in in_parts {
        let mut pages = Pages::new(question.query, None, activity.clone(), Arc::default())?;
        while let Some(rows) = pages.next()? {
            rows.iter().for_each(|row| keys_of(table, row, None, &mut found));
        }
    }
    Ok(found)
}
