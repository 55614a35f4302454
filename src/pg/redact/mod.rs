//! Keeps client secrets out of what a server shows of statements: its log, pg_stat_activity, and what extensions such as
//! pg_stat_statements and pgaudit record.
//!
//! Each byte of a secret literal is masked in a copy of the statement's text, and the copy is passed on instead. Every
//! position in the text stays what it is. Nothing else of a statement is hidden, and no message is suppressed, so that
//! nobody can use this to hide what he does.

pub mod literals;
pub mod log_text;
pub mod tokens;

use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr, CString};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::ddl::{casts, trust};
use crate::pg::redact::literals::{find, may_hold, Names, Text};

/// How often a hook of ours can be put in front again.
const LEVELS: usize = 8;

/// A hook of PostgreSQL that is ours: what it calls next, and how it gets in front of hooks that were set after it.
///
/// Whoever sets a hook later is called earlier, and sees the statement as it came. So the hook is set once more when a
/// statement with a secret is analysed. Each time it is another function, that calls what it found, so that no hook
/// is left out or called twice.
macro_rules! hook {
    ($name:ident, $variable:ident, $type:ident, $function:ident) => {
        mod $name {
            use super::{$function, LEVELS};
            use pgrx::pg_sys;

            static mut NEXT: [pg_sys::$type; LEVELS] = [None; LEVELS];
            static mut USED: usize = 0;

            /// What the hook of this level calls.
            pub fn next(level: usize) -> pg_sys::$type {
                // SAFETY: the backend's one thread that runs PostgreSQL is the only one here.
                unsafe { NEXT[level] }
            }

            /// Puts the hook in front of all others, if it is not there.
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
                // SAFETY: as above.
                unsafe {
                    let address = |hook: pg_sys::$type| hook.map(|function| function as usize);
                    let is_in_front = USED > 0 && address(pg_sys::$variable) == address(ours[USED - 1]);
                    if !is_in_front && USED < LEVELS {
                        NEXT[USED] = pg_sys::$variable;
                        pg_sys::$variable = ours[USED];
                        USED += 1;
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

static mut PREVIOUS_LOG_HOOK: pg_sys::emit_log_hook_type = None;

/// Installs the hooks, and masks the statement that has loaded the library. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point.
    unsafe {
        PREVIOUS_LOG_HOOK = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(hide_in_log);
    }
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

/// What is known of the statement that the session runs for its client.
#[derive(Clone, Copy, Default)]
struct Shown {
    /// When it began, which tells it from the next one at the same address.
    began: i64,
    /// Its text as it came, and as it is shown now; addresses.
    original: usize,
    shown: usize,
}

thread_local! {
    static SHOWN: Cell<Shown> = Cell::default();
    /// Whether the statement that a hook saw last has a secret in it: its tree may be logged next.
    static SECRET_TREE: Cell<bool> = const { Cell::new(false) };
    /// Whether a hook has been called since the library was loaded.
    static CALLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the hooks have seen the statement that runs: not, if it is the one that has loaded the library.
pub(in crate::pg) fn sees_statement() -> bool {
    CALLED.get()
}

/// Masks the client's statement in pg_stat_activity, and wherever the server log shows it.
pub(in crate::pg) fn show_current_statement() {
    show_statement(&Session, false);
}

/// `again`: also if that has been done, since names may mean something else by now.
fn show_statement(names: &dyn Names, again: bool) {
    // SAFETY: the session's own variables; the statement's text is NULL or NUL-terminated, and lives as long as the
    // variable points to it. So does the copy, in the memory of the message that brought the statement.
    unsafe {
        let text = pg_sys::debug_query_string;
        if text.is_null() {
            return;
        }
        let began = pg_sys::GetCurrentStatementStartTimestamp();
        let known = SHOWN.get();
        let is_known = known.began == began && [known.original, known.shown].contains(&(text as usize));
        if is_known && !again {
            return;
        }
        let original = if is_known { known.original as *const c_char } else { text };
        SHOWN.set(Shown { began, original: original as usize, shown: text as usize });
        let bytes = CStr::from_ptr(original).to_bytes();
        if !may_hold(bytes) && !executes(bytes) {
            return;
        }
        let mut masked = find(bytes, Text::Statements, names).masked(bytes);
        // What has been hidden stays so.
        for (byte, shown) in masked.iter_mut().zip(CStr::from_ptr(text).to_bytes()) {
            if *shown == b'*' {
                *byte = b'*';
            }
        }
        if masked == CStr::from_ptr(text).to_bytes() {
            return;
        }
        let context = match pg_sys::MessageContext.is_null() {
            true => pg_sys::TopMemoryContext,
            false => pg_sys::MessageContext,
        };
        let copy = copied(&masked, context);
        SHOWN.set(Shown { began, original: original as usize, shown: copy as usize });
        pg_sys::debug_query_string = copy;
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, copy);
    }
}

/// A copy of a text with no NUL in it.
unsafe fn copied(text: &[u8], context: pg_sys::MemoryContext) -> *mut c_char {
    // SAFETY: the allocation has room for the text and its end.
    unsafe {
        let copy = pg_sys::MemoryContextAlloc(context, text.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy.cast()
    }
}

/// Whether a text may EXECUTE a prepared statement, whose own text tells what its arguments are.
fn executes(text: &[u8]) -> bool {
    const WORD: &[u8] = b"execute";
    let is_x = |byte: &u8| byte | 0x20 == b'x';
    let begins_before = |x: usize| {
        let word = x.checked_sub(1).and_then(|start| text.get(start..start + WORD.len()));
        word.is_some_and(|word| word.eq_ignore_ascii_case(WORD))
    };
    text.chunks(64).enumerate().any(|(number, chunk)| {
        chunk.iter().fold(false, |any, byte| any | is_x(byte))
            && chunk.iter().enumerate().any(|(at, byte)| is_x(byte) && begins_before(number * 64 + at))
    })
}

/// Whether a statement of a text may have a secret in it. It begins at `location`, and has `length` bytes (0: the rest).
unsafe fn is_suspect(text: *const c_char, location: c_int, length: c_int, execute: bool) -> bool {
    // SAFETY: the text is NULL or NUL-terminated, and has the statement in it. Where its length is known, the rest is
    // not looked at: a script may have thousands of statements.
    unsafe {
        if text.is_null() {
            return false;
        }
        let start = text.add(usize::try_from(location).unwrap_or(0));
        let statement = match usize::try_from(length) {
            Ok(length) if length > 0 && location >= 0 => std::slice::from_raw_parts(start.cast(), length),
            _ => CStr::from_ptr(start).to_bytes(),
        };
        may_hold(statement) || (execute && executes(statement))
    }
}

/// The text to be passed on: the same, or a masked copy.
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
        // Code's own statements are expressions, too, whose texts may be SQL.
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
            crate::pg::ddl::comments::after_utility(statement, context);
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

/// What the session knows, asked in its catalogs.
struct Session;

impl Names for Session {
    fn is_ours(&self, schema: Option<&[u8]>, function: &[u8]) -> bool {
        // SAFETY: reads a variable of the backend.
        let may_ask = unsafe { pg_sys::IsTransactionState() && pg_sys::MyDatabaseId != pg_sys::InvalidOid };
        !may_ask || is_function_of_ours(schema, function)
    }

    fn prepared(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = CString::new(name).ok()?;
        // SAFETY: a look-up by a NUL-terminated name; a prepared statement has its text.
        unsafe {
            let prepared = pg_sys::FetchPreparedStatement(name.as_ptr(), false).as_ref()?;
            Some(CStr::from_ptr((*prepared.plansource).query_string).to_bytes().to_vec())
        }
    }

    fn backslashes(&self) -> bool {
        // SAFETY: reads a setting.
        unsafe { !pg_sys::standard_conforming_strings }
    }
}

/// What is known while the catalogs cannot be asked: nothing of functions.
struct Unasked;

impl Names for Unasked {
    fn is_ours(&self, _: Option<&[u8]>, _: &[u8]) -> bool {
        true
    }

    fn prepared(&self, name: &[u8]) -> Option<Vec<u8>> {
        Session.prepared(name)
    }

    fn backslashes(&self) -> bool {
        Session.backslashes()
    }
}

/// Whether a function of this name may be the extension's. Not, if there are functions of that name where it would be
/// looked for, and none is. Where there are none yet, the name may still become ours.
fn is_function_of_ours(schema: Option<&[u8]>, function: &[u8]) -> bool {
    let name = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    let (schema, function) = (schema.map(name), name(function));
    // SAFETY: look-ups in the catalogs by NUL-terminated names. A list of the cache has so many members, which are
    // tuples of pg_proc, until it is released.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"cdf_fdw".as_ptr(), true);
        let schemas = match &schema {
            Some(schema) => vec![pg_sys::get_namespace_oid(schema.as_ptr(), true)],
            None => oids(pg_sys::fetch_search_path(true)),
        };
        let list = pg_sys::SearchSysCacheList(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            1,
            function.as_ptr().into(),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        );
        let (mut any, mut ours) = (false, false);
        for member in (*list).members.as_slice((*list).n_members as usize) {
            let tuple = &raw mut (**member).tuple;
            let found = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            if schemas.contains(&(*found).pronamespace) {
                any = true;
                ours |= extension != pg_sys::InvalidOid
                    && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, (*found).oid) == extension;
            }
        }
        pg_sys::ReleaseCatCacheList(list);
        ours || !any
    }
}

/// # Safety
/// `list` is null or a list of OIDs.
unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: the caller's promise: each cell holds an OID.
    unsafe {
        let length = list.as_ref().map_or(0, |list| list.length as usize);
        (0..length).map(|at| (*(*list).elements.add(at)).oid_value).collect()
    }
}

/// Masks the secrets in a message on its way to the server log.
///
/// # Safety
/// Called by PostgreSQL, with the message in its own memory context.
#[pg_guard]
unsafe extern "C-unwind" fn hide_in_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes a valid message, of which each text is NULL or NUL-terminated and allocated in the
    // current memory context. Nothing here raises an error, which would recurse into reporting.
    unsafe {
        hide(&mut *error);
        if let Some(previous) = PREVIOUS_LOG_HOOK {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(error));
        }
    }
}

/// # Safety
/// As `hide_in_log`.
unsafe fn hide(error: &mut pg_sys::ErrorData) {
    // SAFETY: the caller's promise.
    unsafe {
        // A statement is logged before it is analysed. The catalogs can be asked then, but not in the middle of anything.
        let names: &dyn Names = if logs_statement(error) { &Session } else { &Unasked };
        show_statement(names, false);
        let current = pg_sys::debug_query_string;
        let known = SHOWN.get();
        let original = match !current.is_null() && known.shown == current as usize {
            true => known.original as *const c_char,
            false => current,
        };
        let (original, shown) = (bytes(original), bytes(current));
        let mut numbers = match may_hold(original) {
            true => find(original, Text::Statements, names).parameters,
            false => Vec::new(),
        };

        let mut near = (original, shown.to_vec(), error.cursorpos);
        let internal = bytes(error.internalquery);
        if may_hold(internal) || executes(internal) {
            let masked = find(internal, Text::Body, &Unasked).masked(internal);
            near = (internal, masked.clone(), error.internalpos);
            replace(&mut error.internalquery, masked);
        }

        let message = bytes(error.message);
        if original.is_empty() || !message.ends_with(original) {
            hide_sql(&mut error.message, Text::Message, &mut numbers);
        } else if original != shown {
            // The statement stands in it as it came.
            let begin = &message[..message.len() - original.len()];
            replace(&mut error.message, [begin, shown].concat());
        }
        let message = bytes(error.message);
        let audited =
            log_text::audited(message, |statement| find(statement, Text::Statements, &Unasked).parameters);
        replace_ranges(&mut error.message, &audited);
        if near.2 > 0 && near.0 != near.1.as_slice() {
            quote_masked(&mut error.message, near.0, &near.1, near.2);
        }

        hide_sql(&mut error.detail, Text::Message, &mut numbers);
        hide_sql(&mut error.detail_log, Text::Message, &mut numbers);
        hide_sql(&mut error.context, Text::Context, &mut numbers);
        if !numbers.is_empty() {
            for field in [&mut error.message, &mut error.detail, &mut error.detail_log, &mut error.context] {
                let ranges = log_text::parameters(bytes(*field), &numbers);
                replace_ranges(field, &ranges);
            }
        }
        let trees: [&[u8]; 3] = [b"parse tree:", b"rewritten parse tree:", b"plan:"];
        if SECRET_TREE.get() && trees.contains(&bytes(error.message)) {
            let ranges = log_text::constants(bytes(error.detail));
            replace_ranges(&mut error.detail, &ranges);
        }
    }
}

/// Whether the message is that of log_statement or log_min_duration_statement, in a transaction.
unsafe fn logs_statement(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: the texts are NULL or NUL-terminated; reads variables of the backend.
    unsafe {
        error.elevel <= pg_sys::LOG_SERVER_ONLY as i32
            && bytes(error.filename).ends_with(b"postgres.c")
            && bytes(error.funcname).starts_with(b"exec_")
            && pg_sys::IsTransactionState()
    }
}

/// Masks the secrets of SQL that stands somewhere in a text, and notes the parameters that bring secrets.
unsafe fn hide_sql(field: &mut *mut c_char, kind: Text, numbers: &mut Vec<u16>) {
    // SAFETY: the text is NULL or NUL-terminated.
    unsafe {
        let text = bytes(*field);
        if may_hold(text) || executes(text) {
            let secrets = find(text, kind, &Unasked);
            replace_ranges(field, &secrets.ranges);
            numbers.extend(secrets.parameters);
        }
    }
}

/// The parser quotes the statement from a position on.
unsafe fn quote_masked(field: &mut *mut c_char, original: &[u8], masked: &[u8], position: c_int) {
    // SAFETY: the text is NULL or NUL-terminated; the position counts the original's characters from 1.
    unsafe {
        let length = original.len() as c_int;
        let offset = pg_sys::pg_mbcharcliplen(original.as_ptr().cast(), length, position - 1) as usize;
        let mut message = bytes(*field).to_vec();
        let (at, length) = log_text::repeated(&message, &original[offset..]);
        message[at..at + length].copy_from_slice(&masked[offset..offset + length]);
        replace(field, message);
    }
}

unsafe fn replace_ranges(field: &mut *mut c_char, ranges: &[std::ops::Range<usize>]) {
    if ranges.is_empty() {
        return;
    }
    // SAFETY: the text is NUL-terminated, and the ranges are its own.
    unsafe {
        let mut text = bytes(*field).to_vec();
        ranges.iter().for_each(|range| text[range.clone()].fill(b'*'));
        replace(field, text);
    }
}

/// Gives a field of a message another text.
unsafe fn replace(field: &mut *mut c_char, text: Vec<u8>) {
    // SAFETY: the copy is made in the memory context of the message.
    unsafe { *field = copied(&text, pg_sys::CurrentMemoryContext) };
}

/// # Safety
/// `text` is null or NUL-terminated, and outlives the result.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    match text.is_null() {
        true => &[],
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(text).to_bytes() },
    }
}
