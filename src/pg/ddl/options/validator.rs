//! The validator: the options of an object that is made or altered, and who may set them.

use pgrx::prelude::*;
use pgrx::AnyArray;

use crate::cdf::options::check::{check, BadOption};
use crate::cdf::options::registry::Holder;
use crate::pg::ddl::trust;
use crate::pg::errors::{raise, raise_as, OrRaise};
use crate::pg::settings;
use crate::pg::text::from_array;

/// The validator of the foreign-data wrapper: `options` are all that the object is going to have. Everybody may call
/// it, so it does nothing but check them.
#[pg_extern]
fn cdf_fdw_validator(options: AnyArray, catalog: pg_sys::Oid, call: pg_sys::FunctionCallInfo) {
    let place = holder(catalog);
    // SAFETY: the extension's script declares an array of texts.
    let options = unsafe { from_array(options.datum()) }.or_raise();
    // PostgreSQL refuses option names with an equals sign.
    let pairs = options.iter().filter_map(|option| option.split_once('=')).collect::<Vec<_>>();
    match check(place, &pairs, settings::allow_http()) {
        Ok(()) => {}
        Err(BadOption::Name(error)) => raise_as(PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME, error),
        Err(BadOption::Value(error)) => raise(error),
    }
    // SAFETY: the call's own information. A command, unlike a query, calls the validator without an expression.
    let by_command = unsafe { (*(*call).flinfo).fn_expr.is_null() };
    if by_command {
        trust::check_superuser_options(&pairs).or_raise();
    }
    if place == Some(Holder::UserMapping) && by_command {
        trust::check_sealed(&pairs).or_raise();
        trust::check_new_mapping(&pairs).or_raise();
    }
}

/// Returns the kind of object, from the catalog that will hold the options. None is the wrapper itself.
fn holder(catalog: pg_sys::Oid) -> Option<Holder> {
    match catalog {
        pg_sys::ForeignServerRelationId => Some(Holder::Server),
        pg_sys::UserMappingRelationId => Some(Holder::UserMapping),
        pg_sys::ForeignTableRelationId => Some(Holder::Table),
        pg_sys::AttributeRelationId => Some(Holder::Column),
        _ => None,
    }
}
