//! SELECT: conditions that CDF can be asked by are pushed down, rows come page by page, PostgreSQL checks all conditions
//! again.

pub mod analyze;
pub mod estimate;
pub mod explain;
pub mod key_text;
pub mod pages;
pub mod pushdown;
pub mod tuple;
pub mod unfit;

use std::rc::Rc;
use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use crate::cdf::activity::Activity;
use crate::cdf::buffer::{Moment, Pending};
use crate::cdf::error::Error;
use crate::cdf::read::filter::keep_effective;
use crate::cdf::read::{self, Field, Query, Row, Statistics};
use crate::cdf::resource::Role;
use crate::cdf::table::{OnUnfit, Table};
use crate::pg::compat;
use crate::pg::ddl::options;
use crate::pg::errors::OrRaise;
use crate::pg::list::{integers, pointers};
use crate::pg::modify::slot;
use crate::pg::modify::statement::Statement;
use crate::pg::plan::system_columns;
use crate::pg::rights;
use crate::pg::scan::estimate::{estimate, is_key, Estimate};
use crate::pg::scan::key_text::{ExactKeys, HELD_BY};
use crate::pg::scan::pages::Pages;
use crate::pg::scan::pushdown::{column_of, pushed, Condition, Pushed};
use crate::pg::scan::tuple::RowWriter;
use crate::pg::scan::unfit::{raise_unfit, relation_name, Unfit};
use crate::pg::session::transaction;

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_rel_size(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid);
        system_columns::check_scan(root, baserel, foreigntableid, &table);
        if (*baserel).tuples < 0.0 {
            (*baserel).tuples = f64::from(table.options.resource.usual_rows);
        }
        pg_sys::set_baserel_size_estimates(root, baserel);
        (*baserel).rows = estimate(root, baserel, &table, (*baserel).baserestrictinfo).rows;
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_paths(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning; the callback's argument lives as long as the call.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid);
        let restrictions = (*baserel).baserestrictinfo;
        add_path(root, baserel, &estimate(root, baserel, &table, restrictions), (*baserel).lateral_relids);

        // Joined by key, as often as the other side has rows.
        let mut joins: Vec<*mut pg_sys::RestrictInfo> = pointers::<pg_sys::RestrictInfo>((*baserel).joininfo)
            .iter()
            .copied()
            .filter(|info| pg_sys::join_clause_is_movable_to(*info, baserel))
            .collect();
        if (*baserel).has_eclass_joins {
            for column in (0..table.bindings.len()).filter(|column| joins_by(&table, *column)) {
                let mut attribute = column as i32 + 1;
                let implied = pg_sys::generate_implied_equalities_for_column(
                    root,
                    baserel,
                    Some(is_column),
                    (&raw mut attribute).cast(),
                    (*baserel).lateral_referencers,
                );
                joins.extend(pointers::<pg_sys::RestrictInfo>(implied).iter());
            }
        }
        let mut seen: Vec<pg_sys::Relids> = Vec::new();
        for join in joins {
            let by_key = pushed(root, baserel, &table, (*join).clause)
                .is_some_and(|pushed| joins_by(&table, pushed.condition.column));
            if !by_key {
                continue;
            }
            let outer = pg_sys::bms_union((*join).clause_relids, (*baserel).lateral_relids);
            let outer = pg_sys::bms_del_member(outer, (*baserel).relid as i32);
            if outer.is_null()
                || pg_sys::bms_membership(outer) == pg_sys::BMS_Membership::BMS_EMPTY_SET
                || seen.iter().any(|other| pg_sys::bms_equal(*other, outer))
            {
                continue;
            }
            seen.push(outer);
            let parameters = pg_sys::get_baserel_parampathinfo(root, baserel, outer);
            let clauses = pg_sys::list_concat(
                pg_sys::list_copy((*parameters).ppi_clauses),
                pg_sys::list_copy(restrictions),
            );
            let mut estimate = estimate(root, baserel, &table, clauses);
            estimate.rows = (*parameters).ppi_rows.min(estimate.rows);
            (*parameters).ppi_rows = estimate.rows;
            add_path(root, baserel, &estimate, outer);
        }
    }
}

/// Whether few rows have the same value in a column, so that a join may ask for them alone.
fn joins_by(table: &Table, column: usize) -> bool {
    // Instances of several spaces may have one external id.
    let of_instances =
        table.options.resource.is_behind_view() && Some(column) == table.position_of(Role::ExternalId);
    of_instances || is_key(table, column)
}

/// Whether the member of an equivalence class is the column that `attribute` points to.
#[pg_guard]
unsafe extern "C-unwind" fn is_column(
    _root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    _class: *mut pg_sys::EquivalenceClass,
    member: *mut pg_sys::EquivalenceMember,
    attribute: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: the planner passes a member, and the argument that get_foreign_paths has given.
    unsafe {
        column_of((*member).em_expr, baserel).is_some_and(|at| at as i32 + 1 == *attribute.cast::<i32>())
    }
}

unsafe fn add_path(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    estimate: &Estimate,
    outer: pg_sys::Relids,
) {
    // SAFETY: the relation is being planned.
    unsafe {
        let path =
            compat::foreign_scan_path(root, baserel, estimate.rows, estimate.startup, estimate.total, outer);
        pg_sys::add_path(baserel, path.cast());
    }
}

/// The plan's private list: how many rows are probably enough (-1: all), the number of conditions, three
/// integers for each, and the columns that are needed. The conditions' values are the plan's expressions, in the same order.
#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_plan(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
    _best_path: *mut pg_sys::ForeignPath,
    tlist: *mut pg_sys::List,
    scan_clauses: *mut pg_sys::List,
    outer_plan: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    // SAFETY: the planner passes the relation that it is planning, and its clauses as RestrictInfo nodes.
    unsafe {
        let table = options::open_table(foreigntableid, (*baserel).userid);
        let scan_clauses = pg_sys::extract_actual_clauses(scan_clauses, false);
        let clauses = pointers::<pg_sys::Expr>(scan_clauses);
        let mut conditions: Vec<Pushed> =
            clauses.iter().filter_map(|clause| pushed(root, baserel, &table, *clause)).collect();
        keep_effective(&table, &mut conditions, |pushed| {
            (pushed.condition.column, pushed.condition.comparison())
        });

        // With rows dropped here, more are needed than the query gives.
        let exact = conditions.len() == clauses.len() && conditions.iter().all(|pushed| pushed.exact);
        let limit = match (*root).limit_tuples {
            limit if exact && limit > 0.0 && (*(*root).parse).sortClause.is_null() => {
                limit.min(f64::from(i32::MAX)) as i32
            }
            _ => -1,
        };
        let mut private = append(std::ptr::null_mut(), limit);
        private = append(private, conditions.len() as i32);
        let mut values = std::ptr::null_mut();
        for condition in &conditions {
            for integer in condition.condition.to_integers() {
                private = append(private, integer);
            }
            values = pg_sys::lappend(values, condition.value.cast());
        }
        let spared = spares_unchanged(root, baserel);
        for (column, shown) in needed(baserel, clauses, table.bindings.len()) {
            let flag = if shown || !spared { SHOWN } else { 0 };
            private = append(private, (column as i32) << 1 | flag);
        }
        pg_sys::make_foreignscan(
            tlist,
            scan_clauses,
            (*baserel).relid,
            values,
            private,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            outer_plan,
        )
    }
}

unsafe fn append(list: *mut pg_sys::List, value: i32) -> *mut pg_sys::List {
    // SAFETY: the list is null or a list of integers.
    unsafe { pg_sys::lappend_int(list, value) }
}

/// The bit beside a column of the plan's list that says that its value is needed, and not only the row that it is in.
const SHOWN: i32 = 1;

/// Whether the scan's rows are to be updated, and nothing looks at the columns that are not set: these stay as they are in
/// CDF, whatever they hold.
unsafe fn spares_unchanged(root: *mut pg_sys::PlannerInfo, baserel: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the relation is being planned, so that it is locked.
    unsafe {
        let query = (*root).parse;
        if (*query).commandType != pg_sys::CmdType::CMD_UPDATE
            || !(*query).returningList.is_null()
            || !pg_sys::bms_is_member((*baserel).relid as i32, (*root).all_result_relids)
        {
            return false;
        }
        let entry = *(*root).simple_rte_array.add((*baserel).relid as usize);
        let relation = pg_sys::RelationIdGetRelation((*entry).relid);
        if relation.is_null() {
            return false;
        }
        let alone = (*(*relation).rd_att).constr.is_null()
            && (*relation).trigdesc.is_null()
            && !(*(*relation).rd_rel).relispartition
            && (*query).withCheckOptions.is_null();
        pg_sys::RelationClose(relation);
        alone
    }
}

/// Positions of the columns that the query uses, and whether it names them: otherwise they are part of a whole row.
unsafe fn needed(
    baserel: *mut pg_sys::RelOptInfo,
    clauses: &[*mut pg_sys::Expr],
    columns: usize,
) -> Vec<(usize, bool)> {
    // SAFETY: the relation's target and clauses are expressions.
    unsafe {
        let mut used = std::ptr::null_mut();
        for expression in pointers::<pg_sys::Node>((*(*baserel).reltarget).exprs) {
            pg_sys::pull_varattnos(*expression, (*baserel).relid, &mut used);
        }
        for clause in clauses {
            pg_sys::pull_varattnos(clause.cast(), (*baserel).relid, &mut used);
        }
        let has = |attribute: i32| {
            pg_sys::bms_is_member(attribute - pg_sys::FirstLowInvalidHeapAttributeNumber, used)
        };
        // Attribute 0 is the whole row.
        let all = has(0);
        let named = |at: usize| has(at as i32 + 1);
        (0..columns).filter(|at| all || named(*at)).map(|at| (at, named(at))).collect()
    }
}

/// What `get_foreign_plan` has put into a plan.
pub struct ScanPlan {
    /// So many rows are probably enough.
    pub limit: Option<usize>,
    /// What is pushed down.
    pub conditions: Vec<Condition>,
    /// Whether each column is needed.
    pub needed: Vec<bool>,
    /// Whether its value is.
    shown: Vec<bool>,
}

impl ScanPlan {
    /// # Safety
    /// `plan` was made by this module, for a table of so many columns.
    pub unsafe fn of(plan: *mut pg_sys::ForeignScan, columns: usize) -> ScanPlan {
        // SAFETY: the caller's promise.
        let private = unsafe { integers((*plan).fdw_private) };
        let (limit, count) = (private[0], private[1] as usize);
        let (listed, used) = private[2..].split_at(Condition::INTEGERS * count);
        let conditions = listed.chunks_exact(Condition::INTEGERS).filter_map(Condition::from_integers);
        let (mut needed, mut shown) = (vec![false; columns], vec![false; columns]);
        for column in used {
            needed[(column >> 1) as usize] = true;
            shown[(column >> 1) as usize] = column & SHOWN != 0;
        }
        ScanPlan { limit: usize::try_from(limit).ok(), conditions: conditions.collect(), needed, shown }
    }
}

/// A scan that runs.
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
    /// It is read more than once, as often as another side of a join has rows.
    again: bool,
    limit: Option<usize>,
    to_change: bool,
    conditions: Vec<(Condition, *mut pg_sys::ExprState)>,
    /// Only what was written before this is seen.
    before: Option<Moment>,
    progress: Progress,
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

enum Progress {
    /// Nothing was asked for yet.
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
        let ScanPlan { limit, conditions, needed, shown } = ScanPlan::of(plan, table.bindings.len());
        let states = pg_sys::ExecInitExprList((*plan).fdw_exprs, node.cast());
        let states = pointers::<pg_sys::ExprState>(states);
        let conditions = conditions.into_iter().zip(states).map(|(condition, state)| (condition, *state));
        // Rows of the resource that the statement itself writes are not there for it, however often it looks.
        let before = match may_read_after_writing(plan, estate) {
            true => Some(transaction::moment(&connection, table.options.resource).or_raise()),
            false => None,
        };
        let exact_keys = match (*plan).fsSystemCol {
            true => ExactKeys::new((*relation).rd_att, &table, context),
            false => None,
        };
        let state = ScanState {
            conditions: conditions.collect(),
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
            progress: Progress::NotStarted,
            statistics: Arc::default(),
            activity: None,
        };
        state.statement.begin_scan();
        (*node).fdw_state = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
    }
}

/// Whether the statement writes rows, and may ask for rows after it has begun to: unless the scan is all that it reads.
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

#[pg_guard]
pub unsafe extern "C-unwind" fn re_scan_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: the executor passes a scan that has begun.
    unsafe {
        if let Some(state) = (*node).fdw_state.cast::<ScanState>().as_mut() {
            state.progress = Progress::NotStarted;
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
            state.progress = Progress::Done;
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
                Progress::Done => return Ok(None),
                Progress::NotStarted => {
                    // SAFETY: the caller's promise.
                    let query = unsafe { self.query(node) }?;
                    self.progress = match query {
                        Some(query) => {
                            let new = || Activity::reading(query.name());
                            let activity = self.activity.get_or_insert_with(new).clone();
                            let pages = Pages::new(query, self.before, activity, self.statistics.clone())?;
                            Progress::Reading { pages: Box::new(pages), rows: Vec::new().into_iter() }
                        }
                        None => Progress::Done,
                    };
                }
                Progress::Reading { pages, rows } => {
                    if let Some(row) = rows.next() {
                        return Ok(Some(row));
                    }
                    match pages.next()? {
                        Some(page) => *rows = page.into_iter(),
                        None => self.progress = Progress::Done,
                    }
                }
            }
        }
    }

    /// What becomes of a row with values that do not fit, which are NULL in the slot; false if it is excluded by conditions on
    /// other columns.
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

    /// What CDF is asked for; None if a condition compares with NULL, which no row fulfils.
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
                        "column \"{column}\" is compared with what cannot be sent: {}",
                        error.message
                    );
                    error
                })?
            };
            let operand = operand.ok_or_else(|| Error::internal("a condition without a value"))?;
            let (column, comparison) = (condition.column, condition.comparison());
            conditions.push(read::Condition { column, comparison, operand });
        }
        // Errors about values name the row by its keys.
        let mut needed = self.needed.clone();
        if needed.contains(&true) {
            self.table.keys().iter().for_each(|key| needed[*key] = true);
        }
        Ok(Some(Query {
            table: self.table.clone(),
            connection: self.connection.clone(),
            conditions,
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
