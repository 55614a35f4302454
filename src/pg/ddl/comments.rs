//! Comments on the built-in tables that IMPORT FOREIGN SCHEMA creates, and on their columns. IMPORT may return only CREATE
//! FOREIGN TABLE, so the comments are set after each such statement of an IMPORT.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::cdf::resource::{Naming, Resource, RESOURCES};
use crate::pg::list::pointers;
use crate::pg::ours;
use crate::pg::text::{from_server, to_palloc};

/// Comments on the table that a statement has created, if it is a built-in one and the statement is part of an IMPORT.
///
/// # Safety
/// `statement` is a utility statement that has run.
#[pg_guard]
pub unsafe extern "C-unwind" fn after_utility(
    statement: *mut pg_sys::PlannedStmt,
    context: pg_sys::ProcessUtilityContext::Type,
) {
    // SAFETY: the caller's promise: a node's tag tells its type, names are NUL-terminated, and options are DefElem nodes.
    unsafe {
        let tree = (*statement).utilityStmt;
        // Only an IMPORT creates a foreign table as part of another statement.
        let by_import = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND;
        if !by_import || (*tree).type_ != pg_sys::NodeTag::T_CreateForeignTableStmt {
            return;
        }
        let create = &*tree.cast::<pg_sys::CreateForeignTableStmt>();
        let server = pg_sys::GetForeignServerByName(create.servername, true).as_ref();
        if !server.is_some_and(|server| ours::is_wrapper(server.fdwid)) {
            return;
        }
        let options = pointers::<pg_sys::DefElem>(create.options);
        // A typed RAW table, and a table of a view, has more options.
        let [option] = &*options else { return };
        let name = from_server(pg_sys::defGetString(*option));
        let Some(resource) = RESOURCES.iter().find(|resource| resource.name == name) else { return };
        pg_sys::CommandCounterIncrement();
        let relation = create.base.relation;
        let schema = pg_sys::get_namespace_oid((*relation).schemaname, true);
        let table = pg_sys::get_relname_relid((*relation).relname, schema);
        if table != pg_sys::InvalidOid {
            comment(table, resource);
        }
    }
}

/// # Safety
/// `table` is a table that the current statement has created.
unsafe fn comment(table: pg_sys::Oid, resource: &Resource) {
    // SAFETY: the caller's promise; the texts are copies, and NUL-terminated.
    unsafe {
        let set = |number: i16, text: String| {
            pg_sys::CreateComments(table, pg_sys::RelationRelationId, number.into(), to_palloc(&text));
        };
        set(0, resource.comment());
        for column in resource.columns {
            for naming in [Naming::SnakeCase, Naming::CamelCase] {
                let number = pg_sys::get_attnum(table, to_palloc(&naming.of(column)));
                if number > 0 {
                    set(number, column.comment());
                    break;
                }
            }
        }
    }
}
