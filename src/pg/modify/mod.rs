//! INSERT, COPY, UPDATE and DELETE: a row goes from its slot into the transaction's buffer.

pub mod datum;
pub mod direct_modify;
pub mod jsonb;
pub mod new_rows;
pub mod slot;
pub mod statement;
pub mod truncate;

use std::sync::Arc;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;

use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::seen::SeenRows;
use crate::cdf::table::{OnConflict, Operation};
use crate::cdf::writer::Writer;
use crate::pg::compat::checked_as;
use crate::pg::ddl::options;
use crate::pg::errors::{raise, OrRaise};
use crate::pg::list::{integers, pointers};
use crate::pg::modify::datum::{holds_values, Change, RowReader};
use crate::pg::modify::new_rows::NewRows;
use crate::pg::modify::statement::Statement;
use crate::pg::plan::conflict_condition::Condition;
use crate::pg::plan::extent::{extent, Extent};
use crate::pg::plan::row_identity::{attribute, Places};
use crate::pg::plan::{coerce, copy_defaults, on_conflict, system_columns};
use crate::pg::rights;
use crate::pg::scan::key_text::ExactKey;
use crate::pg::session::spill::StatementFile;
use crate::pg::session::transaction;

/// What a statement needs to write rows to one foreign table.
pub struct ModifyState {
    pub reader: RowReader,
    pub writer: Writer,
    /// Which rows are new, for a statement that leaves the others alone.
    pub new_rows: NewRows,
    /// Which rows leave an existing one as it is.
    pub conditional: Option<Conditional>,
    /// PostgreSQL leaves NOT NULL and CHECK of foreign tables to the wrapper.
    constrained: bool,
    /// The policies whose WITH CHECK an inserted row has to pass.
    policies: &'static [pg_sys::WCOKind::Type],
    /// Where the plan's rows have what a row is found again by.
    places: Places,
    /// How many of the table's rows an UPDATE or DELETE changes.
    extent: Extent,
    operation: Operation,
    /// Where they have what finds the key of a row whose text is not that of its value.
    exact_key: Option<ExactKey>,
    /// The columns that an UPDATE sets.
    changed: Vec<bool>,
    /// A trigger may have changed other columns.
    triggered: bool,
    /// What COPY has computed otherwise than it should.
    defaults: Vec<copy_defaults::Default>,
    /// The rows that a statement which joins has changed: one that matches twice is changed, and counted, once.
    seen: Option<Seen>,
}

/// What `ON CONFLICT DO UPDATE … WHERE` makes of a row.
pub struct Conditional {
    pub condition: Condition,
    /// Writes the rows that do not fulfil the condition.
    pub keeping: Writer,
}

/// The rows that were changed: in memory up to a part of the transaction's, then in a file.
struct Seen {
    rows: SeenRows,
    file: StatementFile,
    _memory: transaction::SetAside,
}

impl Seen {
    fn new() -> Seen {
        let memory = transaction::SetAside::new();
        Seen { rows: SeenRows::new(memory.bytes), file: StatementFile::default(), _memory: memory }
    }
}

/// Rows can be inserted, updated and deleted; what a table does not allow is refused with a reason when it is planned.
#[pg_guard]
pub unsafe extern "C-unwind" fn is_foreign_rel_updatable(_relation: pg_sys::Relation) -> std::ffi::c_int {
    [pg_sys::CmdType::CMD_INSERT, pg_sys::CmdType::CMD_UPDATE, pg_sys::CmdType::CMD_DELETE]
        .into_iter()
        .fold(0, |all, command| all | 1 << command as std::ffi::c_int)
}

/// The plan's private list, for UPDATE and DELETE: how many of the table's rows are changed, then the columns that an UPDATE
/// sets, counted from 1.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan_foreign_modify(
    root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    result_relation: pg_sys::Index,
    subplan_index: std::ffi::c_int,
) -> *mut pg_sys::List {
    // SAFETY: the planner passes the plan that it is making, and the range table entry of a table that it has locked.
    unsafe {
        let operation = operation((*plan).operation);
        let entry = *(*root).simple_rte_array.add(result_relation as usize);
        let table = options::open_table((*entry).relid, checked_as((*root).parse, entry));
        system_columns::check_written(plan, result_relation, subplan_index as usize, (*entry).relid, &table);
        if operation == Operation::Upsert {
            coerce::plan_reads_timestamps_as_utc((*plan).plan.lefttree);
            return std::ptr::null_mut();
        }
        table.check_operation(operation).or_raise();
        let extent = extent(root, plan, result_relation).to_integer();
        let mut private = pg_sys::lappend_int(std::ptr::null_mut(), extent);
        if operation == Operation::Update {
            coerce::updates_read_timestamps_as_utc((*plan).plan.lefttree);
            let lists = pointers::<pg_sys::List>((*plan).updateColnosLists);
            if let Some(list) = lists.get(subplan_index as usize) {
                private = pg_sys::list_concat(private, *list);
            }
        }
        private
    }
}

/// What a statement asks of CDF.
pub fn operation(command: pg_sys::CmdType::Type) -> Operation {
    match command {
        pg_sys::CmdType::CMD_UPDATE => Operation::Update,
        pg_sys::CmdType::CMD_DELETE => Operation::Delete,
        _ => Operation::Upsert,
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_modify(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    fdw_private: *mut pg_sys::List,
    _subplan_index: std::ffi::c_int,
    eflags: std::ffi::c_int,
) {
    if eflags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as std::ffi::c_int == 0 {
        // SAFETY: the executor passes the state of a statement that begins, and what plan_foreign_modify has made.
        unsafe { begin(mtstate, rinfo, operation((*mtstate).operation), fdw_private) }
    }
}

/// COPY, and rows that are routed to a foreign partition.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin_foreign_insert(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: the executor passes the state of a statement that begins; COPY's has no plan.
    unsafe {
        let plan = (*mtstate).ps.plan;
        if !plan.is_null() && coerce::plan_reads_timestamps_as_local((*plan).lefttree) {
            raise(
                Error::new(
                    Kind::Unsupported,
                    "a moment would be read in the session's TimeZone, not as UTC",
                )
                .detail("The statement was planned before this session had loaded cdf_fdw, and writes to a partition.")
                .hint("Run it again, or have cdf_fdw in session_preload_libraries."),
            );
        }
        // An UPDATE that also changes rows of this table: what it has prepared inserts as well.
        if !(*rinfo).ri_FdwState.is_null() {
            return;
        }
        // Whatever the statement is, this row is inserted: an UPDATE may move it here.
        begin(mtstate, rinfo, Operation::Upsert, std::ptr::null_mut());
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        system_columns::check_routed(mtstate, rinfo, state.writer.table());
        if plan.is_null() {
            state.defaults = copy_defaults::in_utc(rinfo, (*mtstate).ps.state);
        }
    }
}

/// The one way into a statement's writing.
///
/// # Safety
/// Both are what the executor passes when a statement begins.
unsafe fn begin(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    operation: Operation,
    private: *mut pg_sys::List,
) {
    // SAFETY: the caller's promise: the relation is open, and the executor state lives until the statement ends.
    unsafe {
        let estate = (*mtstate).ps.state;
        let relation = (*rinfo).ri_RelationDesc;
        let context = (*estate).es_query_cxt;
        let new_rows = NewRows::of_statement(mtstate, rinfo);
        let user = rights::of_change(rinfo, estate);
        let mut state = new_state(rinfo, user, mtstate, operation, context, new_rows).or_raise();
        if let Some((extent, set)) = integers(private).split_first() {
            state.extent = Extent::from_integer(*extent);
            if state.extent == Extent::All {
                state.check_whole();
            }
            if operation == Operation::Update {
                state.sets(relation, set);
            }
        }
        transaction::begin();
        // Dropped with the statement's memory: at an ERROR end_foreign_modify is not called.
        (*rinfo).ri_FdwState = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
    }
}

/// # Safety
/// As for [`begin`]; `context` lives as long as the statement.
unsafe fn new_state(
    rinfo: *mut pg_sys::ResultRelInfo,
    user: pg_sys::Oid,
    mtstate: *mut pg_sys::ModifyTableState,
    operation: Operation,
    context: pg_sys::MemoryContext,
    new_rows: NewRows,
) -> Result<ModifyState, Error> {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = (*rinfo).ri_RelationDesc;
        let (server, table) = options::table_definition(relation, user)?;
        let connection = options::connection(server, user)?;
        let (on_conflict, listed) = on_conflict::of_statement(mtstate, rinfo, &table)
            .unwrap_or((table.options.mode.on_conflict, None));
        let (mut places, mut repeats, mut exact_key) = (Places::default(), false, None);
        if operation != Operation::Upsert {
            let subplan = (*(*mtstate).ps.lefttree).plan;
            let targets = (*subplan).targetlist;
            repeats = may_repeat(subplan);
            places = Places::of(&table, (*relation).rd_att, targets)?;
            exact_key = ExactKey::find(targets, &table, Statement::of((*mtstate).ps.state));
        }
        let on_conflict = match operation {
            Operation::Upsert => on_conflict,
            _ => OnConflict::Update,
        };
        let table = Arc::new(table);
        let conditional = match Condition::of_statement(mtstate, rinfo) {
            Some(condition) => {
                let keeping = Writer::new(table.clone(), connection.clone(), OnConflict::Ignore, None)?;
                Some(Conditional { condition, keeping })
            }
            None => None,
        };
        let mut reader = RowReader::new((*relation).rd_att, context, table.options.resource.longest_document);
        table.metadata().for_each(|column| reader.read_pairs(column));
        Ok(ModifyState {
            policies: policies((*mtstate).operation),
            places,
            extent: Extent::Part,
            operation,
            exact_key,
            changed: vec![false; table.bindings.len()],
            triggered: false,
            defaults: Vec::new(),
            seen: repeats.then(Seen::new),
            reader,
            new_rows,
            conditional,
            writer: Writer::new(table, connection, on_conflict, listed.as_deref())?,
            constrained: !(*(*relation).rd_att).constr.is_null(),
        })
    }
}

/// The policies that PostgreSQL checks when a statement inserts a row. An UPDATE inserts one that moves to another
/// partition; of a MERGE both may be meant.
fn policies(command: pg_sys::CmdType::Type) -> &'static [pg_sys::WCOKind::Type] {
    const INSERTED: pg_sys::WCOKind::Type = pg_sys::WCOKind::WCO_RLS_INSERT_CHECK;
    const UPDATED: pg_sys::WCOKind::Type = pg_sys::WCOKind::WCO_RLS_UPDATE_CHECK;
    match command {
        pg_sys::CmdType::CMD_UPDATE => &[UPDATED],
        pg_sys::CmdType::CMD_INSERT => &[INSERTED],
        _ => &[INSERTED, UPDATED],
    }
}

/// Whether a plan may give a row of a table more than once: unless it reads tables one after another.
///
/// # Safety
/// `plan` is a plan, or null.
unsafe fn may_repeat(plan: *mut pg_sys::Plan) -> bool {
    // SAFETY: the caller's promise; a node's tag tells its type.
    unsafe {
        if plan.is_null() {
            return false;
        }
        match (*plan).type_ {
            // One that stands for a join is none of this extension's.
            pg_sys::NodeTag::T_ForeignScan => (*plan.cast::<pg_sys::ForeignScan>()).scan.scanrelid == 0,
            pg_sys::NodeTag::T_SeqScan
            | pg_sys::NodeTag::T_IndexScan
            | pg_sys::NodeTag::T_IndexOnlyScan
            | pg_sys::NodeTag::T_BitmapHeapScan
            | pg_sys::NodeTag::T_TidScan
            | pg_sys::NodeTag::T_TidRangeScan => false,
            pg_sys::NodeTag::T_Result | pg_sys::NodeTag::T_Sort | pg_sys::NodeTag::T_LockRows => {
                may_repeat((*plan).lefttree)
            }
            pg_sys::NodeTag::T_Append => {
                pointers::<pg_sys::Plan>((*plan.cast::<pg_sys::Append>()).appendplans)
                    .iter()
                    .any(|plan| may_repeat(*plan))
            }
            _ => true,
        }
    }
}

/// Whether a row may be one that another partition takes: it was not routed here, or a trigger has changed it since.
/// PostgreSQL leaves this check to the wrapper too.
///
/// # Safety
/// `rinfo` is of a statement that has begun.
unsafe fn may_miss_partition(rinfo: *mut pg_sys::ResultRelInfo) -> bool {
    // SAFETY: the caller's promise: its relation is open.
    unsafe {
        (*(*(*rinfo).ri_RelationDesc).rd_rel).relispartition
            && ((*rinfo).ri_RootResultRelInfo.is_null()
                || (*rinfo).ri_TrigDesc.as_ref().is_some_and(|triggers| triggers.trig_insert_before_row))
    }
}

/// Checks a row that is to be written against row security's WITH CHECK, which PostgreSQL leaves to the wrapper: only a
/// parent can have policies, and they hold for what goes through it. It checks itself WITH CHECK OPTION of views.
///
/// # Safety
/// All are of a statement that is running.
unsafe fn check_policies(
    kinds: &[pg_sys::WCOKind::Type],
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*rinfo).ri_WithCheckOptions.is_null() {
            kinds.iter().for_each(|kind| pg_sys::ExecWithCheckOptions(*kind, rinfo, slot, estate));
        }
    }
}

/// What PostgreSQL leaves to the wrapper before a row is inserted.
///
/// # Safety
/// All belong to a statement that is running; the slot holds a row of the table.
pub unsafe fn check_row(
    state: &ModifyState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !state.defaults.is_empty() {
            copy_defaults::put(&state.defaults, slot, estate);
        }
        check_policies(state.policies, rinfo, slot, estate);
        if state.constrained {
            pg_sys::ExecConstraints(rinfo, slot, estate);
        }
        if may_miss_partition(rinfo) {
            pg_sys::ExecPartitionCheck(rinfo, slot, estate, true);
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_insert(
    estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    _plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, and a slot that holds a row of the table.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        check_row(state, rinfo, slot, estate);
        if slot == (*rinfo).ri_newTupleSlot {
            take_rows_as_they_are(estate, rinfo);
        }
        let ModifyState { reader, writer, new_rows, conditional, .. } = state;
        let (writer, updates) = match conditional {
            Some(conditional) if !conditional.condition.holds(slot) => (&mut conditional.keeping, false),
            Some(_) => (writer, true),
            None => (writer, false),
        };
        if new_rows.asks_by_row() {
            if updates {
                new_rows.note(reader, writer, slot).or_raise();
            } else if !new_rows.is_new(reader, writer, slot).or_raise() {
                return std::ptr::null_mut();
            }
        }
        reader.read(slot, |row| transaction::write(|target| writer.insert(target, row))).or_raise();
    }
    slot
}

/// Has the executor hand over the plan's rows as they are. For a foreign table it would make a heap tuple of each, to be taken
/// apart again here: as much work as to encode it. The plan's slots are virtual, and used as they are if the one for new
/// rows is too (`ExecGetInsertNewTuple`).
///
/// Not where something else looks at the row, or changes it, afterwards.
///
/// # Safety
/// Both belong to a statement that is running.
unsafe fn take_rows_as_they_are(estate: *mut pg_sys::EState, rinfo: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the caller's promise. The executor frees the new slot with all others of the statement, at its end.
    unsafe {
        let table = (*rinfo).ri_RelationDesc;
        let constraints = (*(*table).rd_att).constr;
        let generates = constraints.as_ref().is_some_and(|all| all.has_generated_stored);
        let alone = (*rinfo).ri_projectNew.is_null()
            && (*rinfo).ri_projectReturning.is_null()
            && (*rinfo).ri_TrigDesc.is_null()
            && !generates;
        let own = std::ptr::eq((*(*rinfo).ri_newTupleSlot).tts_ops, &raw const pg_sys::TTSOpsVirtual);
        if alone && !own {
            let context = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            (*rinfo).ri_newTupleSlot =
                pg_sys::ExecInitExtraTupleSlot(estate, (*table).rd_att, &raw const pg_sys::TTSOpsVirtual);
            pg_sys::MemoryContextSwitchTo(context);
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_update(
    estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, the row as it is to be, and the plan's row; an UPDATE keeps
    // the row as it was in a slot of its own.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        check_policies(&[pg_sys::WCOKind::WCO_RLS_UPDATE_CHECK], rinfo, slot, estate);
        if state.constrained {
            pg_sys::ExecConstraints(rinfo, slot, estate);
        }
        // PostgreSQL moves rows between its own tables only: this one has to stay where it is.
        if (*(*(*rinfo).ri_RelationDesc).rd_rel).relispartition {
            pg_sys::ExecPartitionCheck(rinfo, slot, estate, true);
        }
        if state.extent != Extent::Part {
            state.check_whole();
        }
        let old = if state.triggered { (*rinfo).ri_oldTupleSlot } else { std::ptr::null_mut() };
        let ModifyState { reader, writer, places, exact_key, changed, seen, .. } = state;
        let exact = exact_key.as_ref().and_then(|key| key.of(plan_slot));
        let first = reader
            .read_change(plan_slot, &places.keys, slot, old, |change| {
                let change = match (&*exact_key, &exact) {
                    (Some(key), Some(exact)) => key.put(exact, change),
                    _ => change,
                };
                let Change { keys, new, old } = &change;
                if is_seen(seen, keys)? {
                    return Ok(false);
                }
                let differs = |at: usize| old.get(at).is_some_and(|old| new[at] != *old);
                let changed: Vec<bool> =
                    changed.iter().enumerate().map(|(at, set)| *set || differs(at)).collect();
                transaction::write(|target| writer.update(target, keys, new, &changed)).map(|()| true)
            })
            .or_raise();
        if first {
            slot
        } else {
            std::ptr::null_mut()
        }
    }
}

#[pg_guard]
pub unsafe extern "C-unwind" fn exec_foreign_delete(
    _estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the executor passes what begin has prepared, an empty slot of the table, and the plan's row, which lives
    // until the slot has been used.
    unsafe {
        let state = &mut *(*rinfo).ri_FdwState.cast::<ModifyState>();
        if state.extent != Extent::Part {
            state.check_whole();
        }
        let ModifyState { reader, writer, places, exact_key, seen, .. } = state;
        let exact = exact_key.as_ref().and_then(|key| key.of(plan_slot));
        let none = std::ptr::null_mut();
        let first = reader
            .read_change(plan_slot, &places.keys, none, none, |change| {
                let change = match (&*exact_key, &exact) {
                    (Some(key), Some(exact)) => key.put(exact, change),
                    _ => change,
                };
                if is_seen(seen, &change.keys)? {
                    return Ok(false);
                }
                transaction::write(|target| writer.delete(target, &change.keys)).map(|()| true)
            })
            .or_raise();
        if !first {
            return std::ptr::null_mut();
        }
        if places.whole > 0 {
            if let Some(row) = datum::value(plan_slot, i32::from(places.whole)) {
                pg_sys::ExecStoreHeapTupleDatum(row, slot);
            }
        }
    }
    slot
}

/// Whether the statement has changed the row with these keys before. Takes note of it.
fn is_seen(seen: &mut Option<Seen>, keys: &[Cell<'_>]) -> Result<bool, Error> {
    match seen {
        Some(Seen { rows, file, .. }) => rows.insert(keys, file).map(|new| !new),
        None => Ok(false),
    }
}

/// The state itself goes with the statement's memory.
#[pg_guard]
pub unsafe extern "C-unwind" fn end_foreign_modify(
    _estate: *mut pg_sys::EState,
    rinfo: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: the executor passes a table of a statement that ends well; it has no state after EXPLAIN.
    unsafe {
        let state = (*rinfo).ri_FdwState.cast::<ModifyState>().as_mut();
        if let Some(seen) = state.and_then(|state| state.seen.as_mut()) {
            seen.file.close();
        }
    }
}

impl ModifyState {
    /// Refuses a statement that goes over the whole table, where the table's option does not allow that.
    fn check_whole(&self) {
        let statement = match self.operation {
            Operation::Delete => "DELETE",
            _ => "UPDATE",
        };
        self.writer.table().check_whole(statement).or_raise();
    }

    /// Takes note of the columns that an UPDATE sets, counted from 1. Generated columns follow others.
    ///
    /// # Safety
    /// `relation` is open.
    unsafe fn sets(&mut self, relation: pg_sys::Relation, columns: &[i32]) {
        columns.iter().for_each(|number| self.changed[*number as usize - 1] = true);
        // SAFETY: the caller's promise.
        unsafe {
            for at in 0..self.changed.len() {
                let attribute = attribute((*relation).rd_att, at);
                self.changed[at] |= (*attribute).attgenerated != 0 && holds_values(&*attribute);
            }
            let triggers = (*relation).trigdesc;
            self.triggered = !triggers.is_null() && (*triggers).trig_update_before_row;
        }
    }
}
