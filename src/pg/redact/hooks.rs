//! The hooks that see statements. Each passes on the statement's text with its secrets masked.

use std::ffi::{c_char, c_int, CStr};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::literals::{find, Text};
use super::log;
use super::names::Session;
use super::statement::{copied, is_suspect, show_statement, CALLED, SECRET_TREE};
use crate::pg::ddl::{casts, comments, trust};

/// How often one of our hooks can be put in front again.
const LEVELS: usize = 8;

/// One of our hooks: the hook that it calls next, and how it gets in front of hooks that were set after it.
///
/// Whoever sets a hook later is called earlier, and sees the statement as it came. So the hook is set once more when a
/// statement with a secret is analysed. Each time it is another function, that calls what it found, so that no hook
/// is left out or called twice.
macro_rules! hook {
    ($name:ident, $variable:ident, $type:ident, $function:ident) => {
        mod $name {
            use super::{$function, LEVELS};
            use pgrx::pg_sys;
            use std::sync::OnceLock;

            static NEXT: [OnceLock<pg_sys::$type>; LEVELS] = [const { OnceLock::new() }; LEVELS];

            /// What the hook of this level calls.
            pub fn next(level: usize) -> pg_sys::$type {
                NEXT[level].get().copied().flatten()
            }

            /// Puts the hook in front of all others, if it is not in front already.
            pub fn put_in_front() {
                let ours: [pg_sys::$type; LEVELS] = [
                    Some($function::<0>),
                    Some($function::<1>),
                    Some($function::<2>),
                    Some($function::<3>),
                    Some($function::<4>),
                    Some($function::<5>),
                    Some($function::<6>),
                    Some($function::<7>),
                ];
                let used = NEXT.iter().take_while(|next| next.get().is_some()).count();
                // SAFETY: the backend's one thread that runs PostgreSQL is the only one here.
                unsafe {
                    let address = |hook: pg_sys::$type| hook.map(|function| function as usize);
                    let is_in_front = used > 0 && address(pg_sys::$variable) == address(ours[used - 1]);
                    if !is_in_front && used < LEVELS {
                        NEXT[used].get_or_init(|| pg_sys::$variable);
                        pg_sys::$variable = ours[used];
                    }
                }
            }
        }
    };
}

hook!(analysis, post_parse_analyze_hook, post_parse_analyze_hook_type, analyse);
hook!(planning, planner_hook, planner_hook_type, plan);
hook!(start, ExecutorStart_hook, ExecutorStart_hook_type, start_executor);
hook!(run, ExecutorRun_hook, ExecutorRun_hook_type, run_executor);
hook!(utility, ProcessUtility_hook, ProcessUtility_hook_type, run_utility);

/// PostgreSQL's own functions, where no hook comes next. The bindings of pgrx would catch an ERROR and raise it again
/// without the fields that it does not know, such as the constraint and the position in the statement.
mod standard {
    use super::{c_char, c_int, pg_sys};

    extern "C-unwind" {
        #[link_name = "standard_planner"]
        pub fn planner(
            query: *mut pg_sys::Query,
            text: *const c_char,
            cursor_options: c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        #[link_name = "standard_ExecutorStart"]
        pub fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int);
        #[cfg(not(feature = "pg18"))]
        #[link_name = "standard_ExecutorRun"]
        pub fn executor_run(query: *mut pg_sys::QueryDesc, direction: c_int, count: u64, once: bool);
        #[cfg(feature = "pg18")]
        #[link_name = "standard_ExecutorRun"]
        pub fn executor_run(query: *mut pg_sys::QueryDesc, direction: c_int, count: u64);
        #[link_name = "standard_ProcessUtility"]
        pub fn process_utility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            read_only: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Installs the hooks, and masks the statement that has loaded the library. Called once, from `_PG_init`.
pub fn init() {
    log::init();
    put_in_front();
    show_statement(&Session, false);
}

fn put_in_front() {
    analysis::put_in_front();
    planning::put_in_front();
    start::put_in_front();
    run::put_in_front();
    utility::put_in_front();
}

/// The text to pass on: unchanged, or a masked copy.
unsafe fn passed_on(text: *const c_char, location: c_int, length: c_int, execute: bool) -> *const c_char {
    CALLED.set(true);
    // SAFETY: as for `is_suspect`.
    unsafe {
        let suspect = is_suspect(text, location, length, execute);
        show_statement(&Session, suspect);
        if !suspect {
            SECRET_TREE.set(false);
            return text;
        }
        let bytes = CStr::from_ptr(text).to_bytes();
        let secrets = find(bytes, Text::Statements, &Session);
        // Statements of function bodies include expressions, and their texts may be SQL.
        SECRET_TREE.set(!secrets.is_empty() || !find(bytes, Text::Body, &Session).is_empty());
        if secrets.is_empty() {
            return text;
        }
        put_in_front();
        copied(&secrets.masked(bytes), pg_sys::CurrentMemoryContext)
    }
}

// The hooks. Each does its own work in a function under pgrx's guard. What comes next is called without a guard, for the
// sake of the error's fields (see `standard`); so a hook's own frame holds nothing that would have to be dropped, and an
// ERROR may pass over it as over a frame of C.

unsafe extern "C-unwind" fn analyse<const LEVEL: usize>(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL passes the state of an analysis that has just ended, and its query.
    unsafe {
        before_analysis(state, query);
        if let Some(next) = analysis::next(LEVEL) {
            next(state, query, jumble);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_analysis(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    // SAFETY: as for `analyse`. Whoever is called after or before us takes the text from the state.
    unsafe {
        let execute = !(*query).utilityStmt.is_null() && may_execute((*query).utilityStmt);
        (*state).p_sourcetext =
            passed_on((*state).p_sourcetext, (*query).stmt_location, (*query).stmt_len, execute);
    }
}

unsafe extern "C-unwind" fn plan<const LEVEL: usize>(
    query: *mut pg_sys::Query,
    text: *const c_char,
    cursor_options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: PostgreSQL passes an analysed query and its text, for which NULL may stand.
    unsafe {
        let text = before_planning(query, text);
        match planning::next(LEVEL) {
            Some(next) => next(query, text, cursor_options, parameters),
            None => standard::planner(query, text, cursor_options, parameters),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_planning(query: *mut pg_sys::Query, text: *const c_char) -> *const c_char {
    // SAFETY: as for `plan`.
    unsafe { passed_on(text, (*query).stmt_location, (*query).stmt_len, false) }
}

unsafe extern "C-unwind" fn start_executor<const LEVEL: usize>(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL passes a query that is to be started.
    unsafe {
        before_execution(query);
        match start::next(LEVEL) {
            Some(next) => next(query, flags),
            None => standard::executor_start(query, flags),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_execution(query: *mut pg_sys::QueryDesc) {
    // SAFETY: as for `start_executor`; a query has its plan. The copy is made in the memory that the query is in.
    unsafe {
        let plan = (*query).plannedstmt;
        (*query).sourceText = passed_on((*query).sourceText, (*plan).stmt_location, (*plan).stmt_len, false);
    }
}

#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn run_executor<const LEVEL: usize>(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: PostgreSQL passes a query that has been started.
    unsafe {
        before_run();
        match run::next(LEVEL) {
            Some(next) => next(query, direction, count, once),
            None => standard::executor_run(query, direction, count, once),
        }
    }
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn run_executor<const LEVEL: usize>(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    // SAFETY: PostgreSQL passes a query that has been started.
    unsafe {
        before_run();
        match run::next(LEVEL) {
            Some(next) => next(query, direction, count),
            None => standard::executor_run(query, direction, count),
        }
    }
}

/// In the extended protocol, each message that runs a statement shows its text anew.
#[pg_guard]
extern "C-unwind" fn before_run() {
    show_statement(&Session, false);
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn run_utility<const LEVEL: usize>(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL passes a utility statement and its text.
    unsafe {
        let text = before_utility(statement, text);
        match utility::next(LEVEL) {
            Some(next) => {
                next(statement, text, read_only, context, parameters, environment, destination, completion)
            }
            None => standard::process_utility(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
        // However often the hook is in front again, each statement runs once.
        if LEVEL == 0 {
            comments::after_utility(statement, context);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
) -> *const c_char {
    // SAFETY: as for `run_utility`.
    unsafe {
        let tree = (*statement).utilityStmt;
        let text = passed_on(text, (*statement).stmt_location, (*statement).stmt_len, may_execute(tree));
        trust::check_mapping(tree);
        casts::make_way(tree);
        text
    }
}

/// Whether a utility statement is one that EXECUTE may be in.
unsafe fn may_execute(tree: *mut pg_sys::Node) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: a statement's tree is a node.
    unsafe { matches!((*tree).type_, T_ExecuteStmt | T_CreateTableAsStmt | T_ExplainStmt) }
}
