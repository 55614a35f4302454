//! Registers the callbacks of the foreign-data wrapper.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::ddl::import;
use crate::pg::modify::{batch, direct_modify, truncate};
use crate::pg::plan::row_identity;
use crate::pg::scan::{analyze, explain};
use crate::pg::{modify, scan};

/// The handler function of the foreign-data wrapper.
#[pg_extern]
fn cdf_fdw_handler() -> PgBox<pg_sys::FdwRoutine> {
    // SAFETY: the node is zeroed, which is what an FdwRoutine without callbacks is.
    let mut routine = unsafe { PgBox::<pg_sys::FdwRoutine>::alloc_node(pg_sys::NodeTag::T_FdwRoutine) };

    routine.GetForeignRelSize = Some(scan::plan::get_foreign_rel_size);
    routine.GetForeignPaths = Some(scan::plan::get_foreign_paths);
    routine.GetForeignPlan = Some(scan::plan::get_foreign_plan);
    routine.BeginForeignScan = Some(scan::execute::begin_foreign_scan);
    routine.IterateForeignScan = Some(scan::execute::iterate_foreign_scan);
    routine.ReScanForeignScan = Some(scan::execute::re_scan_foreign_scan);
    routine.EndForeignScan = Some(scan::execute::end_foreign_scan);
    routine.ExplainForeignScan = Some(explain::explain_foreign_scan);

    routine.IsForeignRelUpdatable = Some(modify::plan::is_foreign_rel_updatable);
    routine.PlanForeignModify = Some(modify::plan::plan_foreign_modify);
    routine.BeginForeignModify = Some(modify::execute::begin_foreign_modify);
    routine.AddForeignUpdateTargets = Some(row_identity::add_foreign_update_targets);
    routine.EndForeignModify = Some(modify::execute::end_foreign_modify);
    routine.ExecForeignUpdate = Some(modify::execute::exec_foreign_update);
    routine.ExecForeignDelete = Some(modify::execute::exec_foreign_delete);
    routine.ExecForeignTruncate = Some(truncate::exec_foreign_truncate);
    routine.ExecForeignInsert = Some(modify::execute::exec_foreign_insert);
    routine.BeginForeignInsert = Some(modify::execute::begin_foreign_insert);
    routine.GetForeignModifyBatchSize = Some(batch::get_foreign_modify_batch_size);
    routine.ExecForeignBatchInsert = Some(batch::exec_foreign_batch_insert);
    routine.ExplainForeignModify = Some(explain::explain_foreign_modify);

    routine.AnalyzeForeignTable = Some(analyze::analyze_foreign_table);
    routine.PlanDirectModify = Some(direct_modify::plan_direct_modify);
    routine.BeginDirectModify = Some(direct_modify::begin_direct_modify);
    routine.IterateDirectModify = Some(direct_modify::iterate_direct_modify);
    routine.EndDirectModify = Some(direct_modify::end_direct_modify);
    routine.ExplainDirectModify = Some(direct_modify::explain_direct_modify);

    routine.ImportForeignSchema = Some(import::import_foreign_schema);
    routine.into_pg_boxed()
}
