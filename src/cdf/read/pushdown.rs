//! Which conditions go into requests: for items as [`filter`] says, for instances as [`properties`] does.

use super::condition::{is_order, Comparison, OperandKind};
use super::points::SERIES;
use super::{filter, properties};
use crate::cdf::resource::{ColumnType, Filter, Role, Rule};
use crate::cdf::table::{Binding, Part, Table};

/// Whether such a condition can narrow down a request for the rows of a table.
pub fn filters_on(table: &Table, at: usize, comparison: Comparison) -> bool {
    let equal = comparison == Comparison::Equal;
    let one_of = equal || comparison == Comparison::AnyOf;
    let resource = table.options.resource;
    let column = match &table.bindings[at] {
        Some(Binding::Column(column)) => column,
        Some(Binding::RawColumn { key, .. }) => return *key && one_of,
        Some(Binding::Property { .. }) => return properties::filters_on(table, at, comparison),
        None => return false,
    };
    let as_key = match column.role {
        Role::Id | Role::ExternalId | Role::Space | Role::RawKey => resource.is_in_key(column.role) && one_of,
        Role::NodeSpace | Role::NodeExternalId | Role::RawDatabase | Role::RawTable => equal,
        Role::Timestamp | Role::RowNumber | Role::Changed => is_order(comparison),
        _ => false,
    };
    as_key
        || if resource.is_behind_view() {
            properties::filters_on(table, at, comparison)
        } else {
            filter::filters_on(column, comparison)
        }
}

/// Keys that one request asks for.
pub fn keys_per_request(table: &Table) -> usize {
    let resource = table.options.resource;
    if resource.holds_points() {
        SERIES
    } else if resource.is_in_raw_tables() || resource.owner.is_some() {
        1
    } else {
        resource.per_page
    }
}

/// Whether a column by itself names what a row belongs to.
pub fn names_owner(table: &Table, column: usize) -> bool {
    let ways = table.options.resource.owner.map_or(&[][..], |owner| owner.named_by);
    ways.iter().any(|way| matches!(way, [role] if table.position_of(*role) == Some(column)))
}

/// Whether a column tells the rows of one owner apart, and can be asked for as a range.
pub fn is_place(table: &Table, column: usize) -> bool {
    let places = [Role::Timestamp, Role::RowNumber];
    table.options.resource.owner.is_some()
        && places.into_iter().any(|role| table.position_of(role) == Some(column))
}

/// Returns the type that a condition's value needs to be compared with a column in CDF.
pub fn operand_kind(table: &Table, column: usize) -> Option<OperandKind> {
    Some(match table.bindings[column].as_ref()? {
        Binding::RawColumn { .. } => OperandKind::Text,
        Binding::Property { .. } => return properties::operand_kind(table, column),
        Binding::Column(column) => match column.column_type {
            ColumnType::Int8 | ColumnType::Int8Array => OperandKind::Int,
            ColumnType::Text | ColumnType::TextArray => OperandKind::Text,
            ColumnType::Timestamptz => OperandKind::Time,
            ColumnType::Bool => OperandKind::Bool,
            ColumnType::Jsonb => OperandKind::Json,
            _ => return None,
        },
    })
}

/// Whether a filter returns exactly the rows that fulfil such a condition, for any value that CDF takes.
pub fn is_exact(table: &Table, column: usize, comparison: Comparison) -> bool {
    match (&table.bindings[column], comparison) {
        // Wildcards may stand anywhere in the pattern, and pairs that are no texts are not asked for.
        (_, Comparison::Like) => false,
        (Some(Binding::Property { property, part: Part::Whole }), comparison) => {
            properties::is_exact(property, comparison)
        }
        (Some(Binding::Column(column)), Comparison::Contains) => matches!(column.filter, Filter::Labels),
        _ => true,
    }
}

/// Keeps only the conditions that the requests of a scan really carry: keys are asked for by themselves.
pub fn keep_effective<T>(table: &Table, conditions: &mut Vec<T>, of: impl Fn(&T) -> (usize, Comparison)) {
    let resource = table.options.resource;
    if resource.is_behind_view() {
        return properties::keep_effective(table, conditions, of);
    }
    // Rows of another item are asked for by all of its conditions.
    if !resource.has_key() || resource.owner.is_some() || resource.is_in_raw_tables() {
        return;
    }
    let is_key = |condition: &T| {
        let (column, comparison) = of(condition);
        matches!(comparison, Comparison::Equal | Comparison::AnyOf)
            && matches!(&table.bindings[column], Some(Binding::Column(column)) if matches!(column.rule, Rule::Id | Rule::ExternalId))
    };
    // Prefer the id, as the reader does.
    let by_id = |condition: &T| matches!(&table.bindings[of(condition).0], Some(Binding::Column(column)) if column.rule == Rule::Id);
    if let Some(first) = conditions
        .iter()
        .position(|condition| is_key(condition) && by_id(condition))
        .or_else(|| conditions.iter().position(is_key))
    {
        let key = conditions.swap_remove(first);
        conditions.clear();
        conditions.push(key);
    }
}
