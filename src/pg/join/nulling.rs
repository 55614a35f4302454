//! Which outer joins may make a column NULL. From PostgreSQL 16 on each column of an expression says so, and whoever
//! refers to a column of another node must say the same as that node.

use pgrx::pg_sys;

/// Has the columns of a join's row, and the expressions that are evaluated below its result, say of each column what
/// `above` says of it, which is what the nodes above look for. `columns` and `below` are changed, `above` is not.
///
/// # Safety
/// All are lists of expressions of a plan under construction; those that are changed belong to it alone.
pub unsafe fn agree(columns: *mut pg_sys::List, above: *mut pg_sys::List, below: *mut pg_sys::List) {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let _ = (columns, above, below);
    // SAFETY: the caller's promise.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    unsafe {
        said::agree(columns, above, below)
    }
}

#[cfg(not(any(feature = "pg14", feature = "pg15")))]
mod said {
    use pgrx::pg_sys;

    use crate::pg::list::pointers;

    pub unsafe fn agree(columns: *mut pg_sys::List, above: *mut pg_sys::List, below: *mut pg_sys::List) {
        // SAFETY: as for the caller.
        unsafe {
            let places = variables(columns);
            let above = variables(above);
            for place in &places {
                if let Some(same) = above.iter().find(|other| is_same(**other, *place)) {
                    say(*place, nulling(*same));
                }
            }
            for variable in variables(below) {
                if let Some(place) = places.iter().find(|place| is_same(**place, variable)) {
                    say(variable, nulling(*place));
                }
            }
        }
    }

    /// The columns and placeholders in expressions, themselves.
    unsafe fn variables(expressions: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
        // SAFETY: the caller passes a list of expressions. What PostgreSQL lists are their own nodes, no copies.
        unsafe {
            let listed = |placeholders: u32| {
                let flags = pg_sys::PVC_RECURSE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | placeholders;
                pointers::<pg_sys::Node>(pg_sys::pull_var_clause(expressions.cast(), flags as i32)).to_vec()
            };
            let mut all = listed(pg_sys::PVC_INCLUDE_PLACEHOLDERS);
            all.extend(listed(pg_sys::PVC_RECURSE_PLACEHOLDERS));
            all
        }
    }

    unsafe fn is_same(one: *mut pg_sys::Node, other: *mut pg_sys::Node) -> bool {
        // SAFETY: the caller passes columns or placeholders; a node's tag tells which.
        unsafe {
            match ((*one).type_, (*other).type_) {
                (pg_sys::NodeTag::T_Var, pg_sys::NodeTag::T_Var) => {
                    let (one, other) = (&*one.cast::<pg_sys::Var>(), &*other.cast::<pg_sys::Var>());
                    (one.varno, one.varattno, one.varlevelsup)
                        == (other.varno, other.varattno, other.varlevelsup)
                }
                (pg_sys::NodeTag::T_PlaceHolderVar, pg_sys::NodeTag::T_PlaceHolderVar) => {
                    let number = |node: *mut pg_sys::Node| (*node.cast::<pg_sys::PlaceHolderVar>()).phid;
                    number(one) == number(other)
                }
                _ => false,
            }
        }
    }

    unsafe fn nulling(node: *mut pg_sys::Node) -> *mut pg_sys::Bitmapset {
        // SAFETY: as for `is_same`.
        unsafe {
            match (*node).type_ {
                pg_sys::NodeTag::T_Var => (*node.cast::<pg_sys::Var>()).varnullingrels,
                _ => (*node.cast::<pg_sys::PlaceHolderVar>()).phnullingrels,
            }
        }
    }

    unsafe fn say(node: *mut pg_sys::Node, nulling: *mut pg_sys::Bitmapset) {
        // SAFETY: as for `is_same`; the node belongs to the plan under construction, and gets a set of its own.
        unsafe {
            let nulling = pg_sys::bms_copy(nulling);
            match (*node).type_ {
                pg_sys::NodeTag::T_Var => (*node.cast::<pg_sys::Var>()).varnullingrels = nulling,
                _ => (*node.cast::<pg_sys::PlaceHolderVar>()).phnullingrels = nulling,
            }
        }
    }
}
