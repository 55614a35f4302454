//! SELECT: conditions that CDF can be asked by are pushed down, rows come page by page, PostgreSQL checks all conditions
//! again.

use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use super::errors::OrRaise;
use super::list::{integers, pointers};
use super::tuple::RowWriter;
use super::{options, transaction, wait};
use crate::cdf::cell::EPOCH_MILLIS;
use crate::cdf::error::Error;
use crate::cdf::read::{self, filters_on, Comparison, Query, Reader, Row};
use crate::cdf::table::Table;

/// Rows that a scan by key, and any other, probably gives.
const ROWS_BY_KEY: f64 = 1.0;
const ROWS: f64 = 1000.0;
/// What a request costs, in units of a page read in sequence: some ten milliseconds.
const REQUEST_COST: f64 = 100.0;

/// An operator that is understood: its OID (pg_operator.dat), what it means, and what its right side is.
pub struct Operator {
    oid: u32,
    pub comparison: Comparison,
    operand: OperandType,
}

#[derive(Clone, Copy)]
enum OperandType {
    Text,
    Int2,
    Int4,
    Int8,
    Timestamp,
}

impl OperandType {
    /// # Safety
    /// The datum is of this type.
    unsafe fn read(self, datum: pg_sys::Datum) -> Option<read::Operand> {
        Some(match self {
            // SAFETY: the caller's promise.
            OperandType::Text => read::Operand::Text(unsafe { String::from_datum(datum, false) }?),
            OperandType::Int2 => read::Operand::Int(i64::from(datum.value() as i16)),
            OperandType::Int4 => read::Operand::Int(i64::from(datum.value() as i32)),
            OperandType::Int8 => read::Operand::Int(datum.value() as i64),
            // Infinity is beyond all that CDF has; it must not wrap around.
            OperandType::Timestamp => {
                read::Operand::Micros((datum.value() as i64).saturating_add(EPOCH_MILLIS * 1000))
            }
        })
    }

    /// The elements of an array that are not NULL.
    ///
    /// # Safety
    /// The datum is an array of this type.
    unsafe fn read_array(self, datum: pg_sys::Datum) -> Option<Vec<read::Operand>> {
        fn list<T>(elements: Vec<Option<T>>, operand: impl Fn(T) -> read::Operand) -> Vec<read::Operand> {
            elements.into_iter().flatten().map(operand).collect()
        }
        let int = read::Operand::Int;
        // SAFETY: the caller's promise.
        unsafe {
            Some(match self {
                OperandType::Text => list(FromDatum::from_datum(datum, false)?, read::Operand::Text),
                OperandType::Int2 => {
                    list(FromDatum::from_datum(datum, false)?, |value: i16| int(value.into()))
                }
                OperandType::Int4 => {
                    list(FromDatum::from_datum(datum, false)?, |value: i32| int(value.into()))
                }
                OperandType::Int8 => list(FromDatum::from_datum(datum, false)?, int),
                OperandType::Timestamp => return None,
            })
        }
    }
}

const fn operator(oid: u32, comparison: Comparison, operand: OperandType) -> Operator {
    Operator { oid, comparison, operand }
}

static OPERATORS: [Operator; 16] = [
    operator(98, Comparison::Equal, OperandType::Text),
    operator(410, Comparison::Equal, OperandType::Int8),
    operator(416, Comparison::Equal, OperandType::Int4),
    operator(1868, Comparison::Equal, OperandType::Int2),
    operator(96, Comparison::Equal, OperandType::Int4),
    operator(15, Comparison::Equal, OperandType::Int8),
    operator(1320, Comparison::Equal, OperandType::Timestamp),
    operator(1322, Comparison::Less, OperandType::Timestamp),
    operator(1323, Comparison::LessOrEqual, OperandType::Timestamp),
    operator(1324, Comparison::Greater, OperandType::Timestamp),
    operator(1325, Comparison::GreaterOrEqual, OperandType::Timestamp),
    operator(2060, Comparison::Equal, OperandType::Timestamp),
    operator(2062, Comparison::Less, OperandType::Timestamp),
    operator(2063, Comparison::LessOrEqual, OperandType::Timestamp),
    operator(2064, Comparison::Greater, OperandType::Timestamp),
    operator(2065, Comparison::GreaterOrEqual, OperandType::Timestamp),
];

/// A condition that CDF can be asked by, as a plan holds it; its value is among the plan's expressions.
#[derive(Clone, Copy)]
pub struct Condition {
    pub column: usize,
    operator: &'static Operator,
    /// The value is an array, of which one element has to be equal.
    any_of: bool,
}

impl Condition {
    pub fn comparison(&self) -> Comparison {
        if self.any_of {
            Comparison::AnyOf
        } else {
            self.operator.comparison
        }
    }
}

/// A condition of the query that CDF can be asked by.
struct Pushed {
    condition: Condition,
    value: *mut pg_sys::Expr,
}

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_rel_size(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning; its restrictions are RestrictInfo nodes.
    unsafe {
        let table = open_table(foreigntableid, (*baserel).userid);
        let by_key = pointers::<pg_sys::RestrictInfo>((*baserel).baserestrictinfo).iter().any(|info| {
            pushed(root, baserel, &table, (**info).clause).is_some_and(|pushed| {
                matches!(
                    pushed.condition.operator.operand,
                    OperandType::Text | OperandType::Int8 | OperandType::Int4
                )
            })
        });
        (*baserel).rows = if by_key { ROWS_BY_KEY } else { ROWS };
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn get_foreign_paths(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    _foreigntableid: pg_sys::Oid,
) {
    // SAFETY: the planner passes the relation that it is planning.
    unsafe {
        let rows = (*baserel).rows;
        let total = REQUEST_COST + rows * pg_sys::cpu_tuple_cost * 10.0;
        let path = pg_sys::create_foreignscan_path(
            root,
            baserel,
            std::ptr::null_mut(),
            rows,
            #[cfg(feature = "pg18")]
            0,
            REQUEST_COST,
            total,
            std::ptr::null_mut(),
            (*baserel).lateral_relids,
            std::ptr::null_mut(),
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        pg_sys::add_path(baserel, path.cast());
    }
}

/// The plan's private list: how many rows are probably enough (-1: all), the number of conditions, column and comparison
/// of each, and the columns that are needed. The conditions' values are the plan's expressions, in the same order.
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
        let table = open_table(foreigntableid, (*baserel).userid);
        let scan_clauses = pg_sys::extract_actual_clauses(scan_clauses, false);
        let clauses = pointers::<pg_sys::Expr>(scan_clauses);
        let conditions: Vec<Pushed> =
            clauses.iter().filter_map(|clause| pushed(root, baserel, &table, *clause)).collect();

        // With rows dropped here, more are needed than the query gives.
        let exact = conditions.len() == clauses.len();
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
            private = append(private, condition.condition.column as i32);
            private = append(private, condition.condition.operator.oid as i32);
            private = append(private, i32::from(condition.condition.any_of));
            values = pg_sys::lappend(values, condition.value.cast());
        }
        for column in needed(baserel, clauses, table.bindings.len()) {
            private = append(private, column as i32);
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

/// Positions of the columns that the query uses.
unsafe fn needed(
    baserel: *mut pg_sys::RelOptInfo,
    clauses: &[*mut pg_sys::Expr],
    columns: usize,
) -> Vec<usize> {
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
        (0..columns).filter(|at| all || has(*at as i32 + 1)).collect()
    }
}

/// The definition of a table that the planner has locked.
unsafe fn open_table(relid: pg_sys::Oid, user: pg_sys::Oid) -> Table {
    // SAFETY: the relation is locked by the query, so that it can be opened without a lock of its own.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            Err::<(), _>(Error::internal("the foreign table has disappeared")).or_raise();
        }
        let user = if user == pg_sys::InvalidOid { pg_sys::GetUserId() } else { user };
        let table = options::table_definition(relation, user);
        pg_sys::RelationClose(relation);
        table.or_raise().1
    }
}

/// The condition, if it is one that CDF can be asked by: a column compared with something that holds for the whole scan.
unsafe fn pushed(
    root: *mut pg_sys::PlannerInfo,
    baserel: *mut pg_sys::RelOptInfo,
    table: &Table,
    clause: *mut pg_sys::Expr,
) -> Option<Pushed> {
    // SAFETY: the clause is an expression; a node's tag tells its type, and an operator's arguments are one or two.
    unsafe {
        let (arguments, operator, collation, any_of) = match (*clause).type_ {
            pg_sys::NodeTag::T_OpExpr => {
                let expression = clause.cast::<pg_sys::OpExpr>();
                ((*expression).args, (*expression).opno, (*expression).inputcollid, false)
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                let expression = clause.cast::<pg_sys::ScalarArrayOpExpr>();
                if !(*expression).useOr {
                    return None;
                }
                ((*expression).args, (*expression).opno, (*expression).inputcollid, true)
            }
            _ => return None,
        };
        let &mut [left, right] = pointers::<pg_sys::Expr>(arguments) else {
            return None;
        };
        let (column, value, oid) = match (column_of(left, baserel), column_of(right, baserel)) {
            (Some(column), None) => (column, right, operator),
            (None, Some(column)) if !any_of => (column, left, pg_sys::get_commutator(operator)),
            _ => return None,
        };
        let operator = OPERATORS.iter().find(|operator| operator.oid == oid.to_u32())?;
        if any_of && operator.comparison != Comparison::Equal {
            return None;
        }
        let bytewise = collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation);
        let constant = pg_sys::pull_varnos(root, value.cast()).is_null()
            && !pg_sys::contain_volatile_functions(value.cast())
            && !pg_sys::contain_subplans(value.cast());
        let condition = Condition { column, operator, any_of };
        (bytewise && constant && filters_on(table, column, condition.comparison()))
            .then_some(Pushed { condition, value })
    }
}

/// The position of the column that the expression is.
unsafe fn column_of(mut expression: *mut pg_sys::Expr, baserel: *mut pg_sys::RelOptInfo) -> Option<usize> {
    // SAFETY: as for `pushed`.
    unsafe {
        if (*expression).type_ == pg_sys::NodeTag::T_RelabelType {
            expression = (*expression.cast::<pg_sys::RelabelType>()).arg;
        }
        if (*expression).type_ != pg_sys::NodeTag::T_Var {
            return None;
        }
        let variable = expression.cast::<pg_sys::Var>();
        let ours = (*variable).varno as pg_sys::Index == (*baserel).relid && (*variable).varlevelsup == 0;
        (ours && (*variable).varattno > 0).then(|| (*variable).varattno as usize - 1)
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
}

impl ScanPlan {
    /// # Safety
    /// `plan` was made by this module, for a table of so many columns.
    pub unsafe fn of(plan: *mut pg_sys::ForeignScan, columns: usize) -> ScanPlan {
        // SAFETY: the caller's promise.
        let private = unsafe { integers((*plan).fdw_private) };
        let (limit, count) = (private[0], private[1] as usize);
        let (pairs, used) = private[2..].split_at(3 * count);
        let conditions = pairs.chunks_exact(3).filter_map(|condition| {
            let operator = OPERATORS.iter().find(|operator| operator.oid as i32 == condition[1])?;
            Some(Condition { column: condition[0] as usize, operator, any_of: condition[2] != 0 })
        });
        let mut needed = vec![false; columns];
        used.iter().for_each(|column| needed[*column as usize] = true);
        ScanPlan { limit: usize::try_from(limit).ok(), conditions: conditions.collect(), needed }
    }
}

/// A scan that runs.
struct ScanState {
    table: Arc<Table>,
    connection: Arc<crate::cdf::client::Connection>,
    writer: RowWriter,
    needed: Vec<bool>,
    limit: Option<usize>,
    conditions: Vec<(Condition, *mut pg_sys::ExprState)>,
    progress: Progress,
}

enum Progress {
    /// Nothing was asked for yet.
    NotStarted,
    Reading {
        reader: Option<Box<Reader>>,
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

        let user = acting_user(plan, estate);
        let (server, table) = options::table_definition(relation, user).or_raise();
        let connection = options::connection(server, user).or_raise();
        let ScanPlan { limit, conditions, needed } = ScanPlan::of(plan, table.bindings.len());
        let states = pg_sys::ExecInitExprList((*plan).fdw_exprs, node.cast());
        let states = pointers::<pg_sys::ExprState>(states);
        let conditions = conditions.into_iter().zip(states).map(|(condition, state)| (condition, *state));
        let state = ScanState {
            conditions: conditions.collect(),
            writer: RowWriter::new((*relation).rd_att, context),
            table: Arc::new(table),
            connection,
            needed,
            limit,
            progress: Progress::NotStarted,
        };
        (*node).fdw_state = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
    }
}

/// The role whose rights the scan runs with: a view's owner where the table is reached through a view.
///
/// # Safety
/// Both belong to a scan that begins.
pub unsafe fn acting_user(plan: *mut pg_sys::ForeignScan, estate: *mut pg_sys::EState) -> pg_sys::Oid {
    // SAFETY: both belong to a scan that begins.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let user = {
            let entries = pointers::<pg_sys::RangeTblEntry>((*estate).es_range_table);
            (*entries[(*plan).scan.scanrelid as usize - 1]).checkAsUser
        };
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let user = {
            let _ = estate;
            (*plan).checkAsUser
        };
        match user {
            pg_sys::InvalidOid => pg_sys::GetUserId(),
            user => user,
        }
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
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
        if let Some(row) = state.next(node).or_raise() {
            state.writer.store(row, slot).or_raise();
        }
        slot
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn re_scan_foreign_scan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: the executor passes a scan that has begun.
    unsafe {
        if let Some(state) = (*node).fdw_state.cast::<ScanState>().as_mut() {
            state.progress = Progress::NotStarted;
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
        }
    }
}

impl ScanState {
    /// # Safety
    /// `node` is the scan's own.
    unsafe fn next(&mut self, node: *mut pg_sys::ForeignScanState) -> Result<Option<Row>, Error> {
        loop {
            match &mut self.progress {
                Progress::Done => return Ok(None),
                Progress::NotStarted => {
                    // SAFETY: the caller's promise.
                    let query = unsafe { self.query(node) }?;
                    self.progress = match query {
                        Some(query) => Progress::Reading {
                            reader: Some(Box::new(Reader::new(wait::client()?, query))),
                            rows: Vec::new().into_iter(),
                        },
                        None => Progress::Done,
                    };
                }
                Progress::Reading { reader, rows } => {
                    if let Some(row) = rows.next() {
                        return Ok(Some(row));
                    }
                    // If the wait is interrupted, the reader is gone with it, and so is the scan.
                    let Some(mut waiting) = reader.take() else {
                        return Ok(None);
                    };
                    let limits = transaction::limits();
                    let (waiting, page) = wait::run(async move {
                        let page = waiting.page(limits).await;
                        (waiting, page)
                    })?;
                    match page? {
                        Some(page) => {
                            *rows = page.into_iter();
                            *reader = Some(waiting);
                        }
                        None => self.progress = Progress::Done,
                    }
                }
            }
        }
    }

    /// What CDF is asked for; None if a condition compares with NULL, which no row fulfils.
    ///
    /// # Safety
    /// `node` is the scan's own.
    unsafe fn query(&self, node: *mut pg_sys::ForeignScanState) -> Result<Option<Query>, Error> {
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
                match condition.any_of {
                    false => condition.operator.operand.read(datum),
                    true => condition.operator.operand.read_array(datum).map(read::Operand::List),
                }
            };
            let operand = operand.ok_or_else(|| Error::internal("a condition without a value"))?;
            let (column, comparison) = (condition.column, condition.comparison());
            conditions.push(read::Condition { column, comparison, operand });
        }
        Ok(Some(Query {
            table: self.table.clone(),
            connection: self.connection.clone(),
            conditions,
            needed: self.needed.clone(),
            limit: self.limit,
        }))
    }
}
