//! SELECT runs: the callbacks of the executor, and the state of a scan.

use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashSet;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use crate::cdf::activity::Activity;
use crate::cdf::buffer::{Moment, Pending};
use crate::cdf::error::Error;
use crate::cdf::read::{self, Comparison, CompositeKeys, Field, Operand, Query, Row, Statistics};
use crate::cdf::table::{OnUnfit, Table};
use crate::pg::ddl::options;
use crate::pg::errors::OrRaise;
use crate::pg::list::{integers, pointers};
use crate::pg::modify::slot;
use crate::pg::modify::statement::Statement;
use crate::pg::rights;
use crate::pg::scan::key_text::{ExactKeys, HELD_BY};
use crate::pg::scan::pages::Pages;
use crate::pg::scan::plan::ScanPlan;
use crate::pg::scan::pushdown::PushedCondition;
use crate::pg::scan::tuple::RowWriter;
use crate::pg::scan::unfit::{raise_unfit, relation_name, Unfit};
use crate::pg::session::transaction;

/// The state of a running scan.
pub struct ScanState {
    table: Arc<Table>,
    connection: Arc<crate::cdf::http::connection::Connection>,
    writer: RowWriter,
    needed: Vec<bool>,
    shown: Vec<bool>,
    /// The plan's conditions with the columns that they look at, once a value does not fit.
    filters: Option<Vec<(*mut pg_sys::ExprState, Vec<bool>)>>,
    statement: Rc<Statement>,
    /// The rows are to be changed, and their keys may have another text than their values.
    exact_keys: Option<ExactKeys>,
    ended: bool,
    /// Whether the scan runs more than once: once for each row of the other side of a join.
    again: bool,
    limit: Option<usize>,
    to_change: bool,
    conditions: Vec<(PushedCondition, *mut pg_sys::ExprState)>,
    /// Conditions whose values a join brings, each with the number of the join's key.
    joined: Vec<(usize, PushedCondition)>,
    /// The keys that the join has brought, each with a value for each of these numbers: those of the batch that is under
    /// way.
    keys: Rc<[Vec<Operand>]>,
    /// The least and the greatest that the join has brought for its ranges, in the order of their numbers.
    ranges: Vec<(Operand, Operand)>,
    /// Only what was written before this is seen.
    before: Option<Moment>,
    progress: ScanProgress,
    statistics: Arc<Statistics>,
    /// Of all that the scan reads, however often it begins again.
    activity: Option<Arc<Activity>>,
}

/// What a scan's requests have given so far; None if it only is explained.
///
/// # Safety
/// `node` is a scan of this module that has begun.
pub unsafe fn statistics<'s>(node: *mut pg_sys::ForeignScanState) -> Option<&'s Statistics> {
    // SAFETY: the caller's promise.
    unsafe { (*node).fdw_state.cast::<ScanState>().as_ref().map(|state| &*state.statistics) }
}

enum ScanProgress {
    /// No request was made yet.
    NotStarted,
    Reading {
        pages: Box<Pages>,
        rows: std::vec::IntoIter<Row>,
    },
    Done,
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
    eflags: std::ffi::c_int,
) {
    if eflags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as std::ffi::c_int != 0 {
        return;
    }
    // SAFETY: the executor passes the state of a scan that begins; its plan is what get_foreign_plan has made.
    unsafe {
        let estate = (*node).ss.ps.state;
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let relation = (*node).ss.ss_currentRelation;
        let context = (*estate).es_query_cxt;

        let user = rights::of_scan(plan, estate);
        let (server, table) = options::table_definition(relation, user).or_raise();
        let connection = options::connection(server, user).or_raise();
        let ScanPlan { limit, conditions, joined, needed, shown } = ScanPlan::of(plan, table.bindings.len());
        let states = pg_sys::ExecInitExprList((*plan).fdw_exprs, node.cast());
        let states = pointers::<pg_sys::ExprState>(states);
        let conditions = conditions.into_iter().zip(states).map(|(condition, state)| (condition, *state));
        // The statement does not see the rows that it writes itself, however often it scans.
        let before = may_read_after_writing(plan, estate)
            .then(|| transaction::moment(&connection, table.options.resource).or_raise());
        let exact_keys =
            if (*plan).fsSystemCol { ExactKeys::new((*relation).rd_att, &table, context) } else { None };
        let state = ScanState {
            conditions: conditions.collect(),
            joined,
            keys: Rc::default(),
            ranges: Vec::new(),
            writer: RowWriter::new((*relation).rd_att, context),
            table: Arc::new(table),
            connection,
            needed,
            shown,
            filters: None,
            statement: Statement::of(estate),
            exact_keys,
            ended: false,
            again: false,
            limit,
            to_change: is_changed(plan, estate),
            before,
            progress: ScanProgress::NotStarted,
            statistics: Arc::default(),
            activity: None,
        };
        state.statement.begin_scan();
        (*node).fdw_state = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
    }
}

/// Whether the statement may scan after it has begun to write: it may, unless this scan is all that it reads.
///
/// # Safety
/// Both belong to a scan that begins.
unsafe fn may_read_after_writing(plan: *mut pg_sys::ForeignScan, estate: *mut pg_sys::EState) -> bool {
    // SAFETY: the caller's promise; the executor state holds the statement's plan.
    unsafe {
        let statement = (*estate).es_plannedstmt;
        let writes = (*statement).commandType != pg_sys::CmdType::CMD_SELECT || (*statement).hasModifyingCTE;
        let top = (*statement).planTree;
        let alone =
            (*top).type_ == pg_sys::NodeTag::T_ModifyTable && (*top).lefttree == plan.cast::<pg_sys::Plan>();
        writes && !alone
    }
}

/// Whether the statement changes the rows that the scan gives.
///
/// # Safety
/// Both belong to a scan that begins.
pub unsafe fn is_changed(plan: *mut pg_sys::ForeignScan, estate: *mut pg_sys::EState) -> bool {
    // SAFETY: the caller's promise; the executor state holds the statement's plan, and that a list of integers.
    unsafe {
        let changed = integers((*(*estate).es_plannedstmt).resultRelations);
        changed.contains(&((*plan).scan.scanrelid as i32))
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn iterate_foreign_scan(
    node: *mut pg_sys::ForeignScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes a scan that has begun, and its slot.
    unsafe {
        let state = &mut *(*node).fdw_state.cast::<ScanState>();
        let slot = (*node).ss.ss_ScanTupleSlot;
        loop {
            slot::clear(slot);
            let Some(row) = state.next(node).or_raise() else {
                if !state.again {
                    state.statement.scan_is_done();
                }
                return slot;
            };
            let unfit = state.writer.store(&row, &state.needed, slot);
            if !unfit.is_empty() && !state.settle(node, slot, &row, &unfit) {
                continue;
            }
            if let Some(keys) = &mut state.exact_keys {
                let number = keys.number(&row, slot, &state.statement).or_raise();
                (*slot).tts_tid = HELD_BY.of(number);
            }
            return slot;
        }
    }
}

/// Whether a scan is one that a join by key brings its keys.
///
/// # Safety
/// `node` is a scan of any foreign table that has begun, and not only to be explained.
pub unsafe fn is_joined_by_key(node: *mut pg_sys::ForeignScanState) -> bool {
    // SAFETY: the caller's promise; the state is that of this module if the functions are.
    unsafe {
        let iterate = iterate_foreign_scan as *const () as usize;
        let ours = (*node).fdwroutine.as_ref().and_then(|routine| routine.IterateForeignScan);
        ours.is_some_and(|ours| ours as *const () as usize == iterate)
            && (*node).fdw_state.cast::<ScanState>().as_ref().is_some_and(|state| !state.joined.is_empty())
    }
}

/// Brings a scan the keys of the next batch. It asks for them when it begins again.
///
/// # Safety
/// `node` is a scan of this module that has begun, and not only to be explained.
pub unsafe fn set_keys(
    node: *mut pg_sys::ForeignScanState,
    keys: Rc<[Vec<Operand>]>,
    ranges: Vec<(Operand, Operand)>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(state) = (*node).fdw_state.cast::<ScanState>().as_mut() {
            state.keys = keys;
            state.ranges = ranges;
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn re_scan_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: the executor passes a scan that has begun.
    unsafe {
        if let Some(state) = (*node).fdw_state.cast::<ScanState>().as_mut() {
            state.progress = ScanProgress::NotStarted;
            state.again = true;
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn end_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // The state itself goes with the statement's memory; what it has read can go now.
    // SAFETY: as for re_scan_foreign_scan; fdw_state is null after EXPLAIN.
    unsafe {
        if let Some(state) = (*node).fdw_state.cast::<ScanState>().as_mut() {
            state.progress = ScanProgress::Done;
            if !std::mem::replace(&mut state.ended, true) {
                state.statement.end_scan();
            }
        }
    }
}

impl ScanState {
    /// # Safety
    /// `node` is the scan's own.
    pub unsafe fn next(&mut self, node: *mut pg_sys::ForeignScanState) -> Result<Option<Row>, Error> {
        loop {
            match &mut self.progress {
                ScanProgress::Done => return Ok(None),
                ScanProgress::NotStarted => {
                    // SAFETY: the caller's promise.
                    let query = unsafe { self.query(node) }?;
                    self.progress = match query {
                        Some(query) => {
                            let new = || Activity::reading(query.name());
                            let activity = self.activity.get_or_insert_with(new).clone();
                            let pages = Pages::new(query, self.before, activity, self.statistics.clone())?;
                            ScanProgress::Reading { pages: Box::new(pages), rows: Vec::new().into_iter() }
                        }
                        None => ScanProgress::Done,
                    };
                }
                ScanProgress::Reading { pages, rows } => {
                    if let Some(row) = rows.next() {
                        return Ok(Some(row));
                    }
                    match pages.next()? {
                        Some(page) => *rows = page.into_iter(),
                        None => self.progress = ScanProgress::Done,
                    }
                }
            }
        }
    }

    /// Handles a row with values that do not fit, which are NULL in the slot. Returns false if conditions on other columns
    /// exclude it.
    ///
    /// # Safety
    /// `node` is the scan's own, and its slot holds the row.
    unsafe fn settle(
        &mut self,
        node: *mut pg_sys::ForeignScanState,
        slot: *mut pg_sys::TupleTableSlot,
        row: &[Field],
        unfit: &[Unfit],
    ) -> bool {
        let matters = unfit.iter().filter(|unfit| self.shown[unfit.column]);
        let matters: Vec<&Unfit> = matters.collect();
        if matters.is_empty() {
            return true;
        }
        // SAFETY: the caller's promise: the plan's conditions are initialised for the node, in the memory of the statement,
        // and read nothing but the slot and what was there before.
        unsafe {
            let columns = self.needed.len();
            let filters = self.filters.get_or_insert_with(|| filters(node, columns));
            let context = (*node).ss.ps.ps_ExprContext;
            (*context).ecxt_scantuple = slot;
            for (state, looks_at) in filters {
                if unfit.iter().any(|unfit| looks_at[unfit.column]) {
                    continue;
                }
                let Some(evaluate) = (**state).evalfunc else { continue };
                let mut null = false;
                let passes = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(*state, context, &mut null));
                if passes.value() & 0xff == 0 {
                    return false;
                }
            }
            let relation = (*node).ss.ss_currentRelation;
            for unfit in matters {
                match self.table.on_unfit[unfit.column] {
                    OnUnfit::Error => raise_unfit(relation, &self.table, row, unfit),
                    OnUnfit::Null => {
                        let name = &self.table.names[unfit.column];
                        self.statement.unfit.borrow_mut().add(&relation_name(relation), name);
                    }
                }
            }
        }
        true
    }

    /// The query for CDF; None if a condition compares with NULL, which no row fulfils.
    ///
    /// # Safety
    /// `node` is the scan's own.
    pub unsafe fn query(&self, node: *mut pg_sys::ForeignScanState) -> Result<Option<Query>, Error> {
        let mut conditions = Vec::with_capacity(self.conditions.len());
        for (condition, state) in &self.conditions {
            // SAFETY: the expression was initialised for this node; what it gives is of the condition's type.
            let operand = unsafe {
                let context = (*node).ss.ps.ps_ExprContext;
                let mut null = false;
                let evaluate =
                    (**state).evalfunc.ok_or_else(|| Error::internal("an expression without evaluator"))?;
                let datum = pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(*state, context, &mut null));
                if null {
                    return Ok(None);
                }
                let column = &self.table.names[condition.column];
                condition.read(datum).map_err(|mut error| {
                    error.message = format!(
                        "column \"{column}\" is compared with a value that cannot be sent: {}",
                        error.message
                    );
                    error
                })?
            };
            let operand = operand.ok_or_else(|| Error::internal("a condition without a value"))?;
            let (column, comparison) = (condition.column, condition.comparison());
            conditions.push(read::Condition { column, comparison, operand });
        }
        if !self.joined.is_empty() && self.keys.is_empty() {
            return Ok(None);
        }
        for (number, condition) in &self.joined {
            let range = || self.ranges.get(*number);
            let bound = match condition.comparison() {
                Comparison::GreaterOrEqual => range().map(|(least, _)| least),
                Comparison::LessOrEqual => range().map(|(_, greatest)| greatest),
                _ => None,
            };
            if condition.comparison() != Comparison::AnyOf {
                if let Some(operand) = bound.cloned() {
                    let (column, comparison) = (condition.column, condition.comparison());
                    conditions.push(read::Condition { column, comparison, operand });
                }
                continue;
            }
            let values: HashSet<&Operand> = self.keys.iter().filter_map(|key| key.get(*number)).collect();
            let operand = Operand::List(values.into_iter().cloned().collect());
            let (column, comparison) = (condition.column, condition.comparison());
            conditions.push(read::Condition { column, comparison, operand });
        }
        let parts = self.joined.iter().filter(|(_, condition)| condition.comparison() == Comparison::AnyOf);
        let composite = (parts.clone().count() > 1).then(|| {
            let of_columns = |key: &Vec<Operand>| {
                parts.clone().filter_map(|(number, _)| key.get(*number).cloned()).collect()
            };
            let columns = parts.clone().map(|(_, condition)| condition.column).collect();
            CompositeKeys { columns, keys: self.keys.iter().map(of_columns).collect() }
        });
        // Errors about values name the row by its keys.
        let mut needed = self.needed.clone();
        if needed.contains(&true) {
            self.table.keys().iter().for_each(|key| needed[*key] = true);
        }
        Ok(Some(Query {
            table: self.table.clone(),
            connection: self.connection.clone(),
            conditions,
            composite,
            needed,
            limit: self.limit,
            to_change: self.to_change,
            pending: Pending::default(),
        }))
    }
}

/// The conditions that the executor checks each row by, one by one, with the columns that they look at.
///
/// # Safety
/// `node` is a scan of this module that has begun.
unsafe fn filters(
    node: *mut pg_sys::ForeignScanState,
    columns: usize,
) -> Vec<(*mut pg_sys::ExprState, Vec<bool>)> {
    // SAFETY: the caller's promise: the plan's conditions are a list of expressions, and the executor state lives as long as
    // the node.
    unsafe {
        let plan = (*node).ss.ps.plan;
        let relation = (*plan.cast::<pg_sys::ForeignScan>()).scan.scanrelid;
        let previous = pg_sys::MemoryContextSwitchTo((*(*node).ss.ps.state).es_query_cxt);
        let filters = pointers::<pg_sys::Node>((*plan).qual).iter().map(|clause| {
            let mut used = std::ptr::null_mut();
            pg_sys::pull_varattnos(*clause, relation, &mut used);
            let has = |attribute: i32| {
                pg_sys::bms_is_member(attribute - pg_sys::FirstLowInvalidHeapAttributeNumber, used)
            };
            let looks_at = (0..columns).map(|at| has(0) || has(at as i32 + 1)).collect();
            let alone = pg_sys::lappend(std::ptr::null_mut(), clause.cast());
            (pg_sys::ExecInitQual(alone, node.cast()), looks_at)
        });
        let filters = filters.collect();
        pg_sys::MemoryContextSwitchTo(previous);
        filters
    }
}
