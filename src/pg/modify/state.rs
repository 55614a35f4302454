//! The state of a statement that writes to a foreign table.

use std::sync::Arc;

use pgrx::pg_sys;

use crate::cdf::error::Error;
use crate::cdf::seen::SeenRows;
use crate::cdf::table::{OnConflict, Operation};
use crate::cdf::writer::Writer;
use crate::pg::ddl::options;
use crate::pg::errors::OrRaise;
use crate::pg::list::pointers;
use crate::pg::modify::datum::{holds_values, RowReader};
use crate::pg::modify::new_rows::NewRows;
use crate::pg::modify::statement::Statement;
use crate::pg::plan::conflict_condition::ConflictCondition;
use crate::pg::plan::extent::StatementReach;
use crate::pg::plan::row_identity::{attribute, Places};
use crate::pg::plan::{copy_defaults, on_conflict};
use crate::pg::scan::key_text::ExactKey;
use crate::pg::session::spill::StatementFile;
use crate::pg::session::transaction;

/// The state of a statement that writes to one foreign table.
pub struct ModifyState {
    pub reader: RowReader,
    pub writer: Writer,
    /// Which rows are new, for a statement that leaves the others alone.
    pub new_rows: NewRows,
    /// The condition under which rows leave an existing one as it is.
    pub conditional: Option<Conditional>,
    /// PostgreSQL leaves NOT NULL and CHECK of foreign tables to the wrapper.
    pub constrained: bool,
    /// The policies whose WITH CHECK an inserted row has to pass.
    pub policies: &'static [pg_sys::WCOKind::Type],
    /// Where the plan's rows have the keys of the row.
    pub places: Places,
    /// How many of the table's rows an UPDATE or DELETE changes.
    pub extent: StatementReach,
    pub operation: Operation,
    /// Where they have the number of a key whose text differs from that of its value.
    pub exact_key: Option<ExactKey>,
    /// The columns that an UPDATE sets.
    pub changed: Vec<bool>,
    /// A trigger may have changed other columns.
    pub triggered: bool,
    /// Defaults that COPY computes wrongly.
    pub defaults: Vec<copy_defaults::Default>,
    /// The rows that a joining statement has changed, so that a row that matches twice is changed and counted once.
    pub seen: Option<ChangedRows>,
}

/// What `ON CONFLICT DO UPDATE … WHERE` makes of a row.
pub struct Conditional {
    pub condition: ConflictCondition,
    /// Writes the rows that do not fulfil the condition.
    pub keeping: Writer,
}

/// The rows that were changed: in memory up to a share of the transaction's memory, then in a file.
pub struct ChangedRows {
    pub rows: SeenRows,
    pub file: StatementFile,
    _memory: transaction::SetAside,
}

impl ChangedRows {
    fn new() -> ChangedRows {
        let memory = transaction::SetAside::new();
        ChangedRows { rows: SeenRows::new(memory.bytes), file: StatementFile::default(), _memory: memory }
    }
}

impl ModifyState {
    /// Refuses a statement that goes over the whole table, where the table's option does not allow that.
    pub fn check_whole(&self) {
        let statement = match self.operation {
            Operation::Delete => "DELETE",
            _ => "UPDATE",
        };
        self.writer.table().check_whole(statement).or_raise();
    }

    /// Records the columns that an UPDATE sets, counted from 1. Generated columns depend on others.
    ///
    /// # Safety
    /// `relation` is open.
    pub unsafe fn sets(&mut self, relation: pg_sys::Relation, columns: &[i32]) {
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

/// # Safety
/// The statement begins; `context` lives as long as the statement.
pub unsafe fn new_state(
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
        let conditional = match ConflictCondition::of_statement(mtstate, rinfo) {
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
            extent: StatementReach::Part,
            operation,
            exact_key,
            changed: vec![false; table.bindings.len()],
            triggered: false,
            defaults: Vec::new(),
            seen: repeats.then(ChangedRows::new),
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
