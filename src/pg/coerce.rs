//! Timestamps without time zone, written to columns with one, are UTC whatever the session's TimeZone.
//!
//! Npgsql, psycopg and others bind moments as `timestamp`. PostgreSQL would add a cast that reads them in the session's
//! TimeZone, so that the same load would mean other moments in another session. That implicit cast is replaced by one
//! to UTC, in INSERTs into this extension's tables only; a cast that the user has written stays.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::list::pointers;
use super::modify;

/// `timestamptz(timestamp)` and `timestamptz(date)`, the implicit casts (pg_proc.dat).
const TIMESTAMP_TO_TIMESTAMPTZ: u32 = 2028;
const DATE_TO_TIMESTAMPTZ: u32 = 1174;
/// `timestamp(date)` and `timezone(text, timestamp)` (pg_proc.dat).
const DATE_TO_TIMESTAMP: u32 = 2024;
const TIMESTAMP_AT_ZONE: u32 = 2069;

/// Rewrites what a plan hands to the insertion, wherever in it the casts are evaluated.
///
/// # Safety
/// `plan` is a plan under construction, or null.
pub unsafe fn plan_reads_timestamps_as_utc(plan: *mut pg_sys::Plan) {
    // SAFETY: the caller's promise; a node's tag tells its type.
    unsafe {
        if plan.is_null() {
            return;
        }
        rewrite_targets((*plan).targetlist);
        match (*plan).type_ {
            pg_sys::NodeTag::T_ValuesScan => {
                rewrite_lists((*plan.cast::<pg_sys::ValuesScan>()).values_lists);
            }
            pg_sys::NodeTag::T_Append => {
                for child in pointers::<pg_sys::Plan>((*plan.cast::<pg_sys::Append>()).appendplans) {
                    plan_reads_timestamps_as_utc(*child);
                }
            }
            _ => {}
        }
        plan_reads_timestamps_as_utc((*plan).lefttree);
    }
}

/// Rewrites an INSERT before it is planned, where the table is one of this extension's or may route rows to one.
///
/// # Safety
/// `query` is an analysed query.
pub unsafe fn query_reads_timestamps_as_utc(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise: range table entries and targets are of the types that their lists hold.
    unsafe {
        for common in pointers::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (**common).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                query_reads_timestamps_as_utc(inner.cast());
            }
        }
        if (*query).commandType != pg_sys::CmdType::CMD_INSERT || (*query).resultRelation <= 0 {
            return;
        }
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        let Some(target) = entries.get((*query).resultRelation as usize - 1) else {
            return;
        };
        if !is_ours((**target).relid) {
            return;
        }
        rewrite_targets((*query).targetList);
        for entry in entries {
            if (**entry).rtekind == pg_sys::RTEKind::RTE_VALUES {
                rewrite_lists((**entry).values_lists);
            }
        }
    }
}

extern "C-unwind" {
    /// catalog/pg_inherits.h; the relation itself is among the result.
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

/// Whether rows of the table may come to this extension: it is its foreign table, or has one among its partitions.
///
/// # Safety
/// The relation is locked by the statement.
unsafe fn is_ours(relid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups. Partitions are looked at without a lock: one that disappears meanwhile has no kind any
    // more, and takes no rows.
    unsafe {
        match pg_sys::get_rel_relkind(relid) as u8 {
            pg_sys::RELKIND_FOREIGN_TABLE => {
                let routine = pg_sys::GetFdwRoutineByRelId(relid);
                let insert = (*routine).ExecForeignInsert.map_or(0, |callback| callback as usize);
                insert == modify::exec_foreign_insert as *const () as usize
            }
            pg_sys::RELKIND_PARTITIONED_TABLE => {
                let members = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    find_all_inheritors(relid, pg_sys::NoLock as pg_sys::LOCKMODE, std::ptr::null_mut())
                });
                let count = members.as_ref().map_or(0, |list| list.length as usize);
                (0..count).map(|at| (*(*members).elements.add(at)).oid_value).any(|member| {
                    pg_sys::get_rel_relkind(member) as u8 == pg_sys::RELKIND_FOREIGN_TABLE && is_ours(member)
                })
            }
            _ => false,
        }
    }
}

unsafe fn rewrite_targets(targets: *mut pg_sys::List) {
    // SAFETY: a target list holds TargetEntry nodes.
    unsafe {
        for target in pointers::<pg_sys::TargetEntry>(targets) {
            (**target).expr = rewritten((**target).expr);
        }
    }
}

unsafe fn rewrite_lists(lists: *mut pg_sys::List) {
    // SAFETY: values are lists of lists of expressions.
    unsafe {
        for list in pointers::<pg_sys::List>(lists) {
            for expression in pointers::<pg_sys::Expr>(*list) {
                *expression = rewritten(*expression);
            }
        }
    }
}

/// The expression, or its replacement if it is one of the casts.
unsafe fn rewritten(expression: *mut pg_sys::Expr) -> *mut pg_sys::Expr {
    // SAFETY: an expression is a node; what is made here is allocated in the current memory context, as the tree is.
    unsafe {
        if expression.is_null() || (*expression).type_ != pg_sys::NodeTag::T_FuncExpr {
            return expression;
        }
        let cast = expression.cast::<pg_sys::FuncExpr>();
        if (*cast).funcformat != pg_sys::CoercionForm::COERCE_IMPLICIT_CAST {
            return expression;
        }
        let argument = pointers::<std::ffi::c_void>((*cast).args)[0];
        let moment = match (*cast).funcid.to_u32() {
            TIMESTAMP_TO_TIMESTAMPTZ => argument,
            DATE_TO_TIMESTAMPTZ => function(
                DATE_TO_TIMESTAMP,
                pg_sys::TIMESTAMPOID,
                pg_sys::InvalidOid,
                pg_sys::lappend(std::ptr::null_mut(), argument),
            )
            .cast(),
            _ => return expression,
        };
        let zone = pg_sys::makeConst(
            pg_sys::TEXTOID,
            -1,
            pg_sys::DEFAULT_COLLATION_OID,
            -1,
            pg_sys::cstring_to_text(c"UTC".as_ptr()).into(),
            false,
            false,
        );
        let arguments = pg_sys::lappend(pg_sys::lappend(std::ptr::null_mut(), zone.cast()), moment);
        function(TIMESTAMP_AT_ZONE, pg_sys::TIMESTAMPTZOID, pg_sys::DEFAULT_COLLATION_OID, arguments)
    }
}

unsafe fn function(
    oid: u32,
    result: pg_sys::Oid,
    collation: pg_sys::Oid,
    arguments: *mut pg_sys::List,
) -> *mut pg_sys::Expr {
    // SAFETY: built-in functions of these OIDs exist in every supported version.
    unsafe {
        pg_sys::makeFuncExpr(
            oid.into(),
            result,
            arguments,
            pg_sys::InvalidOid,
            collation,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
        )
        .cast()
    }
}

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;

/// Installs the hook. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point; the hook of another extension is called on.
    unsafe {
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    cursor_options: std::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes an analysed and rewritten query, which the planner may change.
    unsafe {
        query_reads_timestamps_as_utc(query);
        match PREVIOUS_PLANNER {
            Some(previous) => previous(query, text, cursor_options, parameters),
            None => pg_sys::standard_planner(query, text, cursor_options, parameters),
        }
    }
}
