//! Timestamps that are written to a column of another type are UTC, whatever the session's TimeZone.
//!
//! Npgsql, psycopg and others bind timestamps as `timestamp`, and tables may have `timestamp`, `date` and `time`
//! columns. PostgreSQL would add a cast that uses the session's TimeZone, so the same load would mean other times in
//! another session. In what is written to this extension's tables, and only there, that implicit cast is replaced by
//! one in UTC. A cast that the user has written stays.

use pgrx::pg_sys;

use crate::pg::list::pointers;
use crate::pg::ours;

/// The implicit casts that use the session's TimeZone (pg_proc.dat): `timestamptz(timestamp)`, `timestamptz(date)`,
/// `timestamp(timestamptz)`, `date(timestamptz)`, `time(timestamptz)`, `timetz(timestamptz)` and `timetz(time)`.
const TIMESTAMP_TO_TIMESTAMPTZ: u32 = 2028;
const DATE_TO_TIMESTAMPTZ: u32 = 1174;
const TIMESTAMPTZ_TO_TIMESTAMP: u32 = 2027;
const TIMESTAMPTZ_TO_DATE: u32 = 1178;
const TIMESTAMPTZ_TO_TIME: u32 = 2019;
const TIMESTAMPTZ_TO_TIMETZ: u32 = 1388;
const TIME_TO_TIMETZ: u32 = 2047;
const LOCAL_CASTS: [u32; 7] = [
    TIMESTAMP_TO_TIMESTAMPTZ,
    DATE_TO_TIMESTAMPTZ,
    TIMESTAMPTZ_TO_TIMESTAMP,
    TIMESTAMPTZ_TO_DATE,
    TIMESTAMPTZ_TO_TIME,
    TIMESTAMPTZ_TO_TIMETZ,
    TIME_TO_TIMETZ,
];

/// A built-in function (pg_proc.dat), and its result type.
type Function = (u32, pg_sys::Oid);

/// `timestamp(date)`, `date(timestamp)`, `time(timestamp)`, `timetz(timestamptz)`, and `date + time`.
const DATE_TO_TIMESTAMP: Function = (2024, pg_sys::TIMESTAMPOID);
const TIMESTAMP_TO_DATE: Function = (2029, pg_sys::DATEOID);
const TIMESTAMP_TO_TIME: Function = (1316, pg_sys::TIMEOID);
const TO_TIMETZ: Function = (TIMESTAMPTZ_TO_TIMETZ, pg_sys::TIMETZOID);
const DATE_AND_TIME: Function = (1272, pg_sys::TIMESTAMPOID);
/// `timezone(text, timestamp)`, `timezone(text, timestamptz)` and `timezone(text, timetz)`: AT TIME ZONE.
const TIMESTAMP_AT_ZONE: Function = (2069, pg_sys::TIMESTAMPTZOID);
const TIMESTAMPTZ_AT_ZONE: Function = (1159, pg_sys::TIMESTAMPOID);
const TIMETZ_AT_ZONE: Function = (2037, pg_sys::TIMETZOID);

/// Rewrites the expressions whose values a plan passes to the insertion, wherever in the plan the casts are evaluated.
///
/// # Safety
/// `plan` is a plan under construction, or null.
pub unsafe fn plan_reads_timestamps_as_utc(plan: *mut pg_sys::Plan) {
    // SAFETY: the caller's promise.
    unsafe { for_each_value(plan, &mut |expression| *expression = rewritten(*expression)) }
}

/// As [`plan_reads_timestamps_as_utc`], for the values that an UPDATE sets. They are computed at the top of its plan;
/// below it, expressions may compare with times of other tables.
///
/// # Safety
/// `plan` is a plan under construction, or null.
pub unsafe fn updates_read_timestamps_as_utc(plan: *mut pg_sys::Plan) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(plan) = plan.as_ref() {
            read_targets_as_utc(plan.targetlist);
        }
    }
}

unsafe fn read_targets_as_utc(targets: *mut pg_sys::List) {
    // SAFETY: a list of a query's or a plan's targets.
    unsafe {
        for target in pointers::<pg_sys::TargetEntry>(targets) {
            (**target).expr = rewritten((**target).expr);
        }
    }
}

/// Whether a plan that was made before this library was loaded would read timestamps in the session's TimeZone.
///
/// # Safety
/// `plan` is a plan, or null.
pub unsafe fn plan_reads_timestamps_as_local(plan: *mut pg_sys::Plan) -> bool {
    let mut local = false;
    // SAFETY: the caller's promise.
    unsafe { for_each_value(plan, &mut |expression| local |= is_local_cast(*expression)) }
    local
}

/// Calls `change` for each expression that computes a column's value.
unsafe fn for_each_value(plan: *mut pg_sys::Plan, change: &mut dyn FnMut(&mut *mut pg_sys::Expr)) {
    // SAFETY: a plan, or null; a node's tag tells its type.
    unsafe {
        if plan.is_null() {
            return;
        }
        for target in pointers::<pg_sys::TargetEntry>((*plan).targetlist) {
            change(&mut (**target).expr);
        }
        match (*plan).type_ {
            pg_sys::NodeTag::T_ValuesScan => {
                for_each_listed((*plan.cast::<pg_sys::ValuesScan>()).values_lists, change);
            }
            pg_sys::NodeTag::T_Append => {
                for child in pointers::<pg_sys::Plan>((*plan.cast::<pg_sys::Append>()).appendplans) {
                    for_each_value(*child, change);
                }
            }
            _ => {}
        }
        for_each_value((*plan).lefttree, change);
    }
}

/// Rewrites an INSERT or UPDATE before it is planned, if the table is one of this extension's or may route rows to one.
///
/// # Safety
/// `query` is an analysed query.
pub unsafe fn query_reads_timestamps_as_utc(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise; range table entries and targets have the types that their lists hold.
    unsafe {
        for common in pointers::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (**common).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                query_reads_timestamps_as_utc(inner.cast());
            }
        }
        let inserts = (*query).commandType == pg_sys::CmdType::CMD_INSERT;
        let updates = (*query).commandType == pg_sys::CmdType::CMD_UPDATE;
        if !(inserts || updates) || (*query).resultRelation <= 0 {
            return;
        }
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        let Some(target) = entries.get((*query).resultRelation as usize - 1) else {
            return;
        };
        if !ours::is_table((**target).relid) {
            return;
        }
        read_targets_as_utc((*query).targetList);
        for entry in entries {
            if inserts && (**entry).rtekind == pg_sys::RTEKind::RTE_VALUES {
                for_each_listed((**entry).values_lists, &mut |expression| {
                    *expression = rewritten(*expression)
                });
            }
        }
    }
}

/// Calls `change` for each expression of a list of rows.
unsafe fn for_each_listed(lists: *mut pg_sys::List, change: &mut dyn FnMut(&mut *mut pg_sys::Expr)) {
    // SAFETY: values are lists of lists of expressions.
    unsafe {
        let lists = pointers::<pg_sys::List>(lists);
        // All rows have the same types, and most columns are of none that matters. Those columns are skipped, as there
        // may be thousands of rows.
        let first = lists.first().map_or(&mut [] as &mut [_], |first| pointers::<pg_sys::Expr>(*first));
        let columns = (0..first.len()).filter(|at| may_be_a_moment(first[*at]));
        let columns: Vec<usize> = columns.collect();
        for list in lists {
            let values = pointers::<pg_sys::Expr>(*list);
            for at in &columns {
                values.get_mut(*at).map(&mut *change);
            }
        }
    }
}

/// Whether the expression's type may be, or contain, a time: false only for the most common other types.
unsafe fn may_be_a_moment(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: an expression is a node, or missing.
    let oid = unsafe { pg_sys::exprType(expression.cast()) };
    !matches!(
        oid,
        pg_sys::BOOLOID
            | pg_sys::FLOAT4OID
            | pg_sys::FLOAT8OID
            | pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::JSONOID
            | pg_sys::JSONBOID
            | pg_sys::NUMERICOID
            | pg_sys::TEXTOID
            | pg_sys::VARCHAROID
    )
}

/// Returns the place of the expression that a conversion applies to: below a domain's check or a conversion to the
/// column's precision, and for an array in what is evaluated for each element.
unsafe fn inner(expression: *mut pg_sys::Expr) -> Option<*mut *mut pg_sys::Expr> {
    // SAFETY: an expression is a node, whose tag tells its type.
    unsafe {
        match (*expression).type_ {
            pg_sys::NodeTag::T_CoerceToDomain => {
                Some(&raw mut (*expression.cast::<pg_sys::CoerceToDomain>()).arg)
            }
            pg_sys::NodeTag::T_ArrayCoerceExpr => {
                let array = expression.cast::<pg_sys::ArrayCoerceExpr>();
                let implicit = (*array).coerceformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
                implicit.then(|| &raw mut (*array).elemexpr)
            }
            pg_sys::NodeTag::T_FuncExpr => {
                let cast = expression.cast::<pg_sys::FuncExpr>();
                let implicit = (*cast).funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
                pointers::<pg_sys::Expr>((*cast).args)
                    .first_mut()
                    .filter(|_| implicit)
                    .map(|first| &raw mut *first)
            }
            _ => None,
        }
    }
}

/// Returns the time that the expression casts implicitly in the session's TimeZone, and the function that casts it.
unsafe fn implicit_cast(expression: *mut pg_sys::Expr) -> Option<(*mut pg_sys::Expr, u32)> {
    // SAFETY: an expression is a node, whose tag tells its type; a cast has an argument.
    unsafe {
        if (*expression).type_ != pg_sys::NodeTag::T_FuncExpr {
            return None;
        }
        let function = (*expression.cast::<pg_sys::FuncExpr>()).funcid.to_u32();
        let local = LOCAL_CASTS.contains(&function);
        inner(expression).filter(|_| local).map(|argument| (*argument, function))
    }
}

/// Whether the expression reads a time in the session's TimeZone.
///
/// # Safety
/// `expression` is an expression, or null.
pub unsafe fn is_local_cast(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: as for `inner`; arguments may be missing, never dangling.
    unsafe {
        !expression.is_null()
            && (implicit_cast(expression).is_some()
                || inner(expression).is_some_and(|inner| is_local_cast(*inner)))
    }
}

/// Returns the expression, or its replacement if it is one of the casts or contains one.
///
/// # Safety
/// `expression` is an expression, or null.
pub unsafe fn rewritten(expression: *mut pg_sys::Expr) -> *mut pg_sys::Expr {
    // SAFETY: an expression is a node; new nodes are allocated in the current memory context, as the tree is.
    unsafe {
        if expression.is_null() {
            return expression;
        }
        let Some((argument, cast)) = implicit_cast(expression) else {
            if let Some(inner) = inner(expression) {
                *inner = rewritten(*inner);
            }
            return expression;
        };
        let in_utc = |moment| call(TIMESTAMPTZ_AT_ZONE, &[utc(), moment]);
        let timetz = |moment| call(TIMETZ_AT_ZONE, &[utc(), call(TO_TIMETZ, &[moment])]);
        match cast {
            TIMESTAMPTZ_TO_TIMESTAMP => in_utc(argument),
            TIMESTAMPTZ_TO_DATE => call(TIMESTAMP_TO_DATE, &[in_utc(argument)]),
            TIMESTAMPTZ_TO_TIME => call(TIMESTAMP_TO_TIME, &[in_utc(argument)]),
            TIMESTAMPTZ_TO_TIMETZ => timetz(argument),
            TIME_TO_TIMETZ => {
                // Any day will do: in UTC all days are alike.
                let day = pg_sys::makeConst(
                    pg_sys::DATEOID,
                    -1,
                    pg_sys::InvalidOid,
                    std::mem::size_of::<i32>() as i32,
                    pg_sys::Datum::from(0_i32),
                    false,
                    true,
                );
                let moment = call(DATE_AND_TIME, &[day.cast(), argument]);
                timetz(call(TIMESTAMP_AT_ZONE, &[utc(), moment]))
            }
            DATE_TO_TIMESTAMPTZ => call(TIMESTAMP_AT_ZONE, &[utc(), call(DATE_TO_TIMESTAMP, &[argument])]),
            _ => call(TIMESTAMP_AT_ZONE, &[utc(), argument]),
        }
    }
}

/// Makes a constant of the zone.
unsafe fn utc() -> *mut pg_sys::Expr {
    // SAFETY: both are allocated in the current memory context.
    unsafe {
        pg_sys::makeConst(
            pg_sys::TEXTOID,
            -1,
            pg_sys::DEFAULT_COLLATION_OID,
            -1,
            pg_sys::cstring_to_text(c"UTC".as_ptr()).into(),
            false,
            false,
        )
        .cast()
    }
}

unsafe fn call((oid, result): Function, arguments: &[*mut pg_sys::Expr]) -> *mut pg_sys::Expr {
    // SAFETY: built-in functions of these OIDs exist in every supported version, and get the arguments that they take.
    unsafe {
        let list = arguments
            .iter()
            .fold(std::ptr::null_mut(), |list, argument| pg_sys::lappend(list, argument.cast()));
        // A function with a text argument uses that argument's collation.
        let collation = match pg_sys::exprType(arguments[0].cast()) {
            pg_sys::TEXTOID => pg_sys::DEFAULT_COLLATION_OID,
            _ => pg_sys::InvalidOid,
        };
        pg_sys::makeFuncExpr(
            oid.into(),
            result,
            list,
            pg_sys::InvalidOid,
            collation,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
        )
        .cast()
    }
}
