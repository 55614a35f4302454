//! A join by key runs: the callbacks of the executor, and the state of a join.
//!
//! A batch of rows of the outer side is kept by their keys. The inner side is read for these keys, row by row, and each row
//! is joined with those of the batch that have its key. What is left of the batch comes at its end, where the join gives
//! rows that have no partner.

use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use super::batch::OuterRows;
use super::evaluate::{next_row, passes, project, unpack, value};
use super::kind::JoinKind;
use super::plan::{JoinKey, JoinPlan};
use crate::cdf::error::Error;
use crate::cdf::read::Operand;
use crate::pg::compat;
use crate::pg::errors::OrRaise;
use crate::pg::modify::slot;
use crate::pg::scan::execute::{is_joined_by_key, set_keys};
use crate::pg::scan::pushdown::OperandType;

/// The executor's node.
#[repr(C)]
pub struct JoinNode {
    pub scan: pg_sys::CustomScanState,
    /// Null before the node has begun.
    join: *mut Join,
}

/// The state of a running join.
pub struct Join {
    kind: JoinKind,
    per_batch: usize,
    /// What the rows of a batch may take.
    memory: usize,
    conditions: *mut pg_sys::ExprState,
    keys: Vec<JoinKey<*mut pg_sys::ExprState>>,
    ranges: Vec<JoinKey<*mut pg_sys::ExprState>>,
    outer: *mut pg_sys::PlanState,
    inner: *mut pg_sys::PlanState,
    /// The scans of the inner side, which are brought keys.
    scans: Vec<*mut pg_sys::ForeignScanState>,
    /// Holds a row of the batch.
    kept: *mut pg_sys::TupleTableSlot,
    batch: OuterRows,
    step: JoinStep,
    /// The outer side has no more rows.
    is_last: bool,
    /// The inner side has been read.
    again: bool,
    /// Batches that the inner side was read for.
    pub batches: u64,
}

#[derive(Debug, Clone, Copy)]
enum JoinStep {
    /// Rows for a batch are to be taken.
    Fill,
    /// The next row of the inner side is to be read.
    Read,
    /// The row of the inner side is to be joined with this row of a group of the batch.
    Pair { group: usize, position: usize },
    /// Rows that have no partner are given, from this one.
    Rest(usize),
}

/// The state of a join that has begun.
///
/// # Safety
/// `node` is one of this module.
pub unsafe fn state<'s>(node: *mut pg_sys::CustomScanState) -> Option<&'s mut Join> {
    // SAFETY: the caller's promise: the node was made as part of a JoinNode.
    unsafe { (*node.cast::<JoinNode>()).join.as_mut() }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_custom_scan(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    eflags: std::ffi::c_int,
) {
    // SAFETY: the executor passes a node of this module that begins; the current memory context is the statement's.
    unsafe {
        let plan = JoinPlan::of((*node).ss.ps.plan.cast()).or_raise();
        let forwards = eflags & !(pg_sys::EXEC_FLAG_BACKWARD | pg_sys::EXEC_FLAG_MARK) as std::ffi::c_int;
        let once = forwards & !pg_sys::EXEC_FLAG_REWIND as std::ffi::c_int;
        let outer = pg_sys::ExecInitNode(plan.outer, estate, forwards);
        // No batch reads what another one has read.
        let inner = pg_sys::ExecInitNode(plan.inner, estate, once);
        (*node).custom_ps = pg_sys::lappend((*node).custom_ps, outer.cast());
        (*node).custom_ps = pg_sys::lappend((*node).custom_ps, inner.cast());

        let parent = &raw mut (*node).ss.ps;
        let conditions = pg_sys::ExecInitQual(plan.conditions, parent);
        let initialised = |keys: &[JoinKey]| {
            let keys = keys.iter().map(|key| JoinKey {
                value: pg_sys::ExecInitExpr(key.value, parent),
                value_type: key.value_type,
                column: pg_sys::ExecInitExpr(key.column, parent),
                column_type: key.column_type,
            });
            keys.collect::<Vec<_>>()
        };
        let (keys, ranges) = (initialised(&plan.keys), initialised(&plan.ranges));
        let mut scans = Vec::new();
        find_scans(inner, &mut scans);
        let descriptor = pg_sys::ExecGetResultType(outer);
        let kept = pg_sys::ExecInitExtraTupleSlot(estate, descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
        let join = Join {
            kind: plan.kind,
            per_batch: plan.per_batch,
            memory: pg_sys::get_hash_memory_limit(),
            conditions,
            batch: OuterRows::new(),
            keys,
            ranges,
            outer,
            inner,
            scans,
            kept,
            step: JoinStep::Fill,
            is_last: false,
            again: false,
            batches: 0,
        };
        let context = (*estate).es_query_cxt;
        (*node.cast::<JoinNode>()).join = PgMemoryContexts::For(context).leak_and_drop_on_delete(join);
    }
}

/// The scans of tables of this extension below the inner side's node. Those of others are read as they are.
unsafe fn find_scans(node: *mut pg_sys::PlanState, found: &mut Vec<*mut pg_sys::ForeignScanState>) {
    // SAFETY: the caller passes a node that has begun, or null; a node's tag tells its type.
    unsafe {
        let Some(state) = node.as_ref() else { return };
        match state.type_ {
            pg_sys::NodeTag::T_ForeignScanState => {
                let scan = node.cast::<pg_sys::ForeignScanState>();
                if is_joined_by_key(scan) {
                    found.push(scan);
                }
            }
            pg_sys::NodeTag::T_AppendState => {
                let append = &*node.cast::<pg_sys::AppendState>();
                (0..append.as_nplans as usize).for_each(|at| find_scans(*append.appendplans.add(at), found));
            }
            _ => find_scans(state.lefttree, found),
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_custom_scan(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes a node that has begun.
    unsafe {
        let Some(join) = state(node) else { return std::ptr::null_mut() };
        pg_sys::MemoryContextReset((*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
        join.next(node).or_raise()
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn re_scan_custom_scan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the executor passes a node that has begun. Nothing of the last row is used any more.
    unsafe {
        let Some(join) = state(node) else { return };
        slot::clear((*node).ss.ss_ScanTupleSlot);
        slot::clear(join.kept);
        join.batch.clear();
        join.step = JoinStep::Fill;
        join.is_last = false;
        let changed = (*node).ss.ps.chgParam;
        for side in [join.outer, join.inner] {
            if !changed.is_null() {
                pg_sys::UpdateChangedParamSet(side, changed);
            }
        }
        // The inner side begins again with each batch; a side whose parameters have changed does when it is read.
        if (*join.outer).chgParam.is_null() {
            pg_sys::ExecReScan(join.outer);
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn end_custom_scan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the executor passes a node that has begun. The state itself goes with the statement's memory.
    unsafe {
        if let Some(join) = state(node) {
            slot::clear((*node).ss.ss_ScanTupleSlot);
            slot::clear(join.kept);
            join.batch.clear();
            pg_sys::ExecEndNode(join.outer);
            pg_sys::ExecEndNode(join.inner);
        }
    }
}

impl Join {
    /// The next row that the node gives; null if there is none.
    ///
    /// # Safety
    /// `node` is the join's own, and nothing of the row before is used any more.
    unsafe fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> Result<*mut pg_sys::TupleTableSlot, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            loop {
                // Many rows of one key, none of which is given, are joined without anybody being called.
                pg_sys::check_for_interrupts!();
                match self.step {
                    JoinStep::Fill => {
                        if !self.fill(node)? {
                            return Ok(std::ptr::null_mut());
                        }
                    }
                    JoinStep::Read => self.read(node)?,
                    JoinStep::Pair { group, position } => {
                        let Some(number) = self.batch.in_group(group, position) else {
                            self.step = JoinStep::Read;
                            continue;
                        };
                        self.step = JoinStep::Pair { group, position: position + 1 };
                        if self.pairs(node, number) {
                            if let Some(row) = given(node) {
                                return Ok(row);
                            }
                        }
                    }
                    JoinStep::Rest(number) => {
                        if number == self.batch.len() {
                            self.step = JoinStep::Fill;
                            continue;
                        }
                        self.step = JoinStep::Rest(number + 1);
                        if !self.batch.is_joined(number) {
                            pg_sys::MemoryContextReset((*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
                            self.put_outer(node, number);
                            self.put_inner(node, None);
                            if let Some(row) = given(node) {
                                return Ok(row);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Takes the rows of a batch; false if there are none.
    ///
    /// # Safety
    /// As for `next`.
    unsafe fn fill(&mut self, node: *mut pg_sys::CustomScanState) -> Result<bool, Error> {
        // SAFETY: the caller's promise. A row of the outer side is copied before the next one is asked for.
        unsafe {
            slot::clear((*node).ss.ss_ScanTupleSlot);
            slot::clear(self.kept);
            self.batch.clear();
            while !self.is_last
                && self.batch.different_keys() < self.per_batch
                && self.batch.bytes() < self.memory
            {
                let Some(row) = next_row(self.outer) else {
                    self.is_last = true;
                    break;
                };
                unpack(row);
                self.put(node, row, 0);
                self.put_inner(node, None);
                let keys = values(node, &self.keys)?;
                // A row without a place in a range has no partner either.
                let places = if keys.is_some() { values(node, &self.ranges)? } else { None };
                let previous = pg_sys::MemoryContextSwitchTo(self.batch.memory());
                let kept = compat::minimal_tuple(row);
                pg_sys::MemoryContextSwitchTo(previous);
                self.batch.add(kept, keys.filter(|_| places.is_some()));
                places.into_iter().for_each(|places| self.batch.widen(places));
                pg_sys::MemoryContextReset((*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
            }
            if self.batch.len() == 0 {
                return Ok(false);
            }
            if self.batch.different_keys() == 0 {
                self.step = self.after_reading();
                return Ok(true);
            }
            let keys: Rc<[Vec<Operand>]> = self.batch.keys().into();
            self.scans.iter().for_each(|scan| set_keys(*scan, keys.clone(), self.batch.ranges()));
            if self.again {
                pg_sys::ExecReScan(self.inner);
            }
            self.again = true;
            self.batches += 1;
            self.step = JoinStep::Read;
            Ok(true)
        }
    }

    /// Reads a row of the inner side, and looks for those of the batch that have its key.
    ///
    /// # Safety
    /// As for `next`.
    unsafe fn read(&mut self, node: *mut pg_sys::CustomScanState) -> Result<(), Error> {
        // SAFETY: the caller's promise. The row stays in place until the next one is asked for.
        unsafe {
            let Some(row) = next_row(self.inner) else {
                self.step = self.after_reading();
                return Ok(());
            };
            unpack(row);
            self.put_inner(node, Some(row));
            let key = &self.keys[0];
            let group = operand(node, key.column, key.column_type)?.and_then(|key| self.batch.group(&key));
            pg_sys::MemoryContextReset((*(*node).ss.ps.ps_ExprContext).ecxt_per_tuple_memory);
            if let Some(group) = group {
                self.step = JoinStep::Pair { group, position: 0 };
            }
            Ok(())
        }
    }

    /// Whether the join gives something for the inner side's row and this one of the batch, which are in place then.
    ///
    /// # Safety
    /// As for `next`.
    unsafe fn pairs(&mut self, node: *mut pg_sys::CustomScanState, number: usize) -> bool {
        let once = matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        if once && self.batch.is_joined(number) {
            return false;
        }
        // SAFETY: the caller's promise: both rows are in place.
        unsafe {
            self.put_outer(node, number);
            let context = (*node).ss.ps.ps_ExprContext;
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            (*context).ecxt_scantuple = (*node).ss.ss_ScanTupleSlot;
            if !passes(self.conditions, context) {
                return false;
            }
        }
        self.batch.set_joined(number);
        self.kind != JoinKind::Anti
    }

    /// What comes when the inner side has no more rows for the batch.
    fn after_reading(&self) -> JoinStep {
        match self.kind {
            JoinKind::Left | JoinKind::Anti => JoinStep::Rest(0),
            JoinKind::Inner | JoinKind::Semi => JoinStep::Fill,
        }
    }

    /// Puts a row of the batch in place.
    ///
    /// # Safety
    /// As for `next`.
    unsafe fn put_outer(&mut self, node: *mut pg_sys::CustomScanState, number: usize) {
        // SAFETY: the caller's promise; the row lives as long as the batch, and its slot is of its kind.
        unsafe {
            pg_sys::ExecStoreMinimalTuple(self.batch.row(number), self.kept, false);
            unpack(self.kept);
            self.put(node, self.kept, 0);
        }
    }

    /// Puts a row of the inner side in place, or NULLs.
    ///
    /// # Safety
    /// As for `next`; the row's values are unpacked.
    unsafe fn put_inner(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        row: Option<*mut pg_sys::TupleTableSlot>,
    ) {
        // SAFETY: the caller's promise: the joined row has the columns of the outer side before those of the inner side.
        unsafe {
            let from = (*(*self.kept).tts_tupleDescriptor).natts as usize;
            match row {
                Some(row) => self.put(node, row, from),
                None => {
                    let joined = (*node).ss.ss_ScanTupleSlot;
                    let columns = (*(*joined).tts_tupleDescriptor).natts as usize;
                    for at in from..columns {
                        *(*joined).tts_isnull.add(at) = true;
                        *(*joined).tts_values.add(at) = pg_sys::Datum::null();
                    }
                }
            }
        }
    }

    /// Puts a row's values into the joined row, from a column on.
    ///
    /// # Safety
    /// As for `put_inner`.
    unsafe fn put(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        row: *mut pg_sys::TupleTableSlot,
        from: usize,
    ) {
        // SAFETY: the caller's promise: a slot has room for all of its columns.
        unsafe {
            let joined = (*node).ss.ss_ScanTupleSlot;
            let columns = (*(*row).tts_tupleDescriptor).natts as usize;
            std::ptr::copy_nonoverlapping((*row).tts_values, (*joined).tts_values.add(from), columns);
            std::ptr::copy_nonoverlapping((*row).tts_isnull, (*joined).tts_isnull.add(from), columns);
            if u32::from((*joined).tts_flags) & pg_sys::TTS_FLAG_EMPTY != 0 {
                pg_sys::ExecStoreVirtualTuple(joined);
            }
        }
    }
}

/// The values of the outer side's row that is in place; None if one of them is NULL.
///
/// # Safety
/// The keys are those of the node's own join.
unsafe fn values(
    node: *mut pg_sys::CustomScanState,
    keys: &[JoinKey<*mut pg_sys::ExprState>],
) -> Result<Option<Vec<Operand>>, Error> {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        // SAFETY: the caller's promise; what the expression gives is of its type.
        match unsafe { operand(node, key.value, key.value_type) }? {
            Some(value) => values.push(value),
            None => return Ok(None),
        }
    }
    Ok(Some(values))
}

/// The value of an expression over the joined row that is in place; None for NULL.
///
/// # Safety
/// The expression was initialised for the node, and is of this type.
unsafe fn operand(
    node: *mut pg_sys::CustomScanState,
    expression: *mut pg_sys::ExprState,
    of: OperandType,
) -> Result<Option<Operand>, Error> {
    // SAFETY: the caller's promise.
    unsafe {
        let context = (*node).ss.ps.ps_ExprContext;
        (*context).ecxt_scantuple = (*node).ss.ss_ScanTupleSlot;
        match value(expression, context) {
            Some(value) => of.read(value),
            None => Ok(None),
        }
    }
}

/// What the node gives for the joined row that is in place; None if conditions on the result leave it out.
///
/// # Safety
/// As for [`Join::next`].
unsafe fn given(node: *mut pg_sys::CustomScanState) -> Option<*mut pg_sys::TupleTableSlot> {
    // SAFETY: the caller's promise; the node's expressions were initialised by the executor.
    unsafe {
        let context = (*node).ss.ps.ps_ExprContext;
        (*context).ecxt_scantuple = (*node).ss.ss_ScanTupleSlot;
        if !passes((*node).ss.ps.qual, context) {
            if let Some(instrument) = (*node).ss.ps.instrument.as_mut() {
                instrument.nfiltered1 += 1.0;
            }
            return None;
        }
        let projection = (*node).ss.ps.ps_ProjInfo;
        Some(if projection.is_null() { (*node).ss.ss_ScanTupleSlot } else { project(projection) })
    }
}
