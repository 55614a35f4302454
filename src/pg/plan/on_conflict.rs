//! `INSERT … ON CONFLICT (key) DO NOTHING | DO UPDATE SET c = EXCLUDED.c [WHERE …]`.
//!
//! PostgreSQL looks for a unique index on the columns, and a foreign table has none. If they are the key of one of this
//! extension's tables, the clause becomes DO NOTHING without columns before the query is planned. PostgreSQL passes
//! that on to the wrapper, which does what the clause says. What DO UPDATE sets stays in the clause.

use pgrx::spi::quote_identifier;
use pgrx::{pg_sys, PgSqlErrorCode};

use super::{conflict_condition, rights};
use crate::cdf::error::{Error, Kind};
use crate::cdf::table::{OnConflict, Table};
use crate::pg::compat::checked_as;
use crate::pg::ddl::options::open_table;
use crate::pg::errors::{raise, raise_as};
use crate::pg::list::{integers, pointers};
use crate::pg::ours;
use crate::pg::text::relation_name;

/// Rewrites the ON CONFLICT clause of an INSERT into a foreign table of this extension, or into a partitioned table all
/// of whose partitions are such tables, and those of the INSERTs in its WITH.
///
/// # Safety
/// `query` is an analysed query.
pub unsafe fn query_resolves_conflicts(query: *mut pg_sys::Query) {
    // SAFETY: the caller's promise; lists hold what the analysis puts there.
    unsafe {
        for common in pointers::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (**common).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                query_resolves_conflicts(inner.cast());
            }
        }
        let clause = (*query).onConflict;
        if clause.is_null() || (*query).commandType != pg_sys::CmdType::CMD_INSERT {
            return;
        }
        let entries = pointers::<pg_sys::RangeTblEntry>((*query).rtable);
        let Some(target) = entries.get((*query).resultRelation as usize - 1) else {
            return;
        };
        // DO NOTHING without columns is what the rest becomes.
        let constraint = (*clause).constraint;
        if (*clause).arbiterElems.is_null() && constraint == pg_sys::InvalidOid {
            return;
        }
        let named = (**target).relid;
        let Some(leaves) = leaves(named) else {
            return;
        };
        let columns = match constraint {
            pg_sys::InvalidOid => conflict_target(clause),
            // Of any other constraint PostgreSQL says that it has no index.
            _ => match unique_columns(constraint) {
                None => return,
                columns => columns,
            },
        };
        for leaf in leaves {
            let table = open_table(leaf, checked_as(query, *target), || rights::check_query(query));
            let columns = columns.as_ref().map(|columns| of_leaf(columns, named, leaf));
            if !columns.as_ref().is_some_and(|columns| table.is_key(columns)) {
                refuse_target(leaf, &table, columns);
            }
        }
        if (*clause).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE {
            check_assignments(clause);
            conflict_condition::resolve(clause, (*query).resultRelation, &columns.unwrap_or_default());
            (*clause).action = pg_sys::OnConflictAction::ONCONFLICT_NOTHING;
        }
        // A key that holds for all rows also holds for those of a predicate.
        (*clause).arbiterElems = std::ptr::null_mut();
        (*clause).constraint = pg_sys::InvalidOid;
        (*clause).arbiterWhere = std::ptr::null_mut();
    }
}

/// Returns the foreign tables that rows of an INSERT into a table go to; None if some go elsewhere, or to tables that
/// are not this extension's.
///
/// # Safety
/// The statement has locked the table.
unsafe fn leaves(relid: pg_sys::Oid) -> Option<Vec<pg_sys::Oid>> {
    // SAFETY: catalog look-ups; partitions are locked before they are looked at, as they are when rows are routed to
    // them.
    unsafe {
        match pg_sys::get_rel_relkind(relid) as u8 {
            pg_sys::RELKIND_FOREIGN_TABLE => ours::is_table(relid).then(|| vec![relid]),
            pg_sys::RELKIND_PARTITIONED_TABLE if ours::is_table(relid) => {
                let parts = ours::members(relid).into_iter().filter(|part| *part != relid);
                let parts: Vec<pg_sys::Oid> = parts
                    .inspect(|part| {
                        pg_sys::LockRelationOid(*part, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE)
                    })
                    .filter(|part| pg_sys::get_rel_relkind(*part) as u8 != pg_sys::RELKIND_PARTITIONED_TABLE)
                    .collect();
                let ours = |part: &pg_sys::Oid| {
                    pg_sys::get_rel_relkind(*part) as u8 == pg_sys::RELKIND_FOREIGN_TABLE
                        && ours::is_table(*part)
                };
                parts.iter().all(ours).then_some(parts)
            }
            _ => None,
        }
    }
}

/// Returns the positions of a table's columns in a partition. A partition has all of them, perhaps in another order.
unsafe fn of_leaf(columns: &[usize], named: pg_sys::Oid, leaf: pg_sys::Oid) -> Vec<usize> {
    if named == leaf {
        return columns.to_vec();
    }
    // SAFETY: catalog look-ups of columns that the statement names.
    unsafe {
        let place = |at: &usize| {
            let name = pg_sys::get_attname(named, *at as pg_sys::AttrNumber + 1, false);
            usize::try_from(i32::from(pg_sys::get_attnum(leaf, name)) - 1).ok()
        };
        columns.iter().filter_map(place).collect()
    }
}

/// Positions of the columns of a unique constraint, which a partitioned table may have; None of another one.
unsafe fn unique_columns(constraint: pg_sys::Oid) -> Option<Vec<usize>> {
    // SAFETY: catalog look-ups; an index that is open has its description, with as many numbers of columns as it says.
    unsafe {
        let index = pg_sys::get_constraint_index(constraint);
        if index == pg_sys::InvalidOid {
            return None;
        }
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let description = &*(*relation).rd_index;
        let numbers = description.indkey.values.as_slice(description.indnkeyatts as usize);
        let columns = numbers.iter().map(|number| usize::try_from(i32::from(*number) - 1).ok()).collect();
        let unique = description.indisunique;
        pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        unique.then_some(columns).flatten()
    }
}

/// Returns the positions of the columns between the parentheses; None if there is something else between them.
unsafe fn conflict_target(clause: *mut pg_sys::OnConflictExpr) -> Option<Vec<usize>> {
    // SAFETY: a clause's target is a list of InferenceElem, whose expressions are nodes.
    unsafe {
        pointers::<pg_sys::InferenceElem>((*clause).arbiterElems)
            .iter()
            .map(|element| {
                let expression = (**element).expr;
                ((*expression).type_ == pg_sys::NodeTag::T_Var)
                    .then(|| (*expression.cast::<pg_sys::Var>()).varattno)
                    .and_then(|number| usize::try_from(i32::from(number) - 1).ok())
            })
            .collect()
    }
}

/// Says which columns the parentheses may name. PostgreSQL would only say that there is no unique constraint, and a
/// foreign table never has one.
fn refuse_target(relid: pg_sys::Oid, table: &Table, columns: Option<Vec<usize>>) -> ! {
    let list = |columns: &Vec<usize>| {
        let names: Vec<String> = columns.iter().map(|at| quote_identifier(&table.names[*at])).collect();
        format!("({})", names.join(", "))
    };
    let keys: Vec<String> = table.conflict_keys().iter().map(list).collect();
    let named = columns.map_or_else(|| "with an expression".to_owned(), |columns| list(&columns));
    let name = relation_name(relid);
    let resource = table.options.resource;
    let message = match keys.len() {
        _ if !resource.has_key() => {
            format!("ON CONFLICT {named}: rows of foreign table \"{name}\" have no key")
        }
        0 => format!("ON CONFLICT {named}: foreign table \"{name}\" has no column of its key"),
        1 => format!("ON CONFLICT {named} is not the key of foreign table \"{name}\", which is {}", keys[0]),
        _ => format!(
            "ON CONFLICT {named} is not a key of foreign table \"{name}\", which are {}",
            keys.join(", ")
        ),
    };
    let error = Error::new(Kind::Unsupported, message);
    let error = match keys.first() {
        _ if !resource.has_key() => {
            error.hint(format!("Leave ON CONFLICT out: each row is a new {}.", resource.noun))
        }
        Some(key) => error.hint(format!(
            "Write ON CONFLICT {key} DO UPDATE SET c = EXCLUDED.c, …; or leave ON CONFLICT out: an INSERT updates the row that exists."
        )),
        None => error.hint("Leave ON CONFLICT out, or add the key's columns to the table."),
    };
    raise_as(PgSqlErrorCode::ERRCODE_INVALID_COLUMN_REFERENCE, error)
}

/// Checks that each column only gets the value that the row brings for it. Other values would depend on rows that are
/// not read.
unsafe fn check_assignments(clause: *mut pg_sys::OnConflictExpr) {
    // SAFETY: what DO UPDATE sets is a list of TargetEntry, whose expressions are nodes.
    unsafe {
        let refuse = |what: String| {
            raise(
                Error::new(Kind::Unsupported, format!("ON CONFLICT DO UPDATE {what} is not supported"))
                    .hint("Set columns to what the row brings for them: SET c = EXCLUDED.c."),
            )
        };
        for target in pointers::<pg_sys::TargetEntry>((*clause).onConflictSet) {
            let mut expression = (**target).expr;
            while (*expression).type_ == pg_sys::NodeTag::T_RelabelType {
                expression = (*expression.cast::<pg_sys::RelabelType>()).arg;
            }
            let same = (*expression).type_ == pg_sys::NodeTag::T_Var && {
                let variable = expression.cast::<pg_sys::Var>();
                i64::from((*variable).varno) == i64::from((*clause).exclRelIndex)
                    && (*variable).varattno == (**target).resno
            };
            if !same {
                let name = if (**target).resname.is_null() {
                    "?".into()
                } else {
                    crate::pg::text::from_server((**target).resname)
                };
                refuse(format!("with another expression than EXCLUDED.{name} for column \"{name}\""));
            }
        }
    }
}

/// Returns what a statement does with rows that exist, and which of their columns it updates if not all. None: the
/// table's options decide. COPY has no plan.
///
/// # Safety
/// Both belong to a statement.
pub unsafe fn of_statement(
    mtstate: *mut pg_sys::ModifyTableState,
    rinfo: *mut pg_sys::ResultRelInfo,
    table: &Table,
) -> Option<(OnConflict, Option<Vec<usize>>)> {
    // SAFETY: the caller's promise; a ModifyTableState that has a plan has a ModifyTable, and the relations of a
    // ResultRelInfo are open.
    unsafe {
        let plan = (*mtstate).ps.plan.cast::<pg_sys::ModifyTable>();
        if plan.is_null() || (*plan).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NOTHING {
            return None;
        }
        if (*plan).onConflictSet.is_null() {
            return Some((OnConflict::Ignore, None));
        }
        let set: Vec<usize> =
            integers((*plan).onConflictCols).into_iter().map(|number| number as usize - 1).collect();
        let root = (*rinfo).ri_RootResultRelInfo;
        let named = if root.is_null() { rinfo } else { root };
        let oid = |rinfo: *mut pg_sys::ResultRelInfo| (*(*rinfo).ri_RelationDesc).rd_id;
        let set = of_leaf(&set, oid(named), oid(rinfo));
        let listed = table.listed(&set);
        Some((if listed.is_some() { OnConflict::UpdateListed } else { OnConflict::Update }, listed))
    }
}
