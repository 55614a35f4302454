//! The requests that a statement would make, as method and path. No request is made to find out.

use super::http::endpoint::Endpoint;
use super::read::Comparison;
use super::resource::raw::{databases, tables, RawPlace};
use super::resource::{Change, Role, Rule};
use super::table::view;
use super::table::{Binding, Operation, Table};

/// The request for the definition of a table's view, if every transaction makes it.
pub fn definition(table: &Table) -> Option<String> {
    let newest = table.options.view.as_ref().is_some_and(|view| view.version.is_none());
    newest.then(|| view::by_ids().to_string())
}

/// The request that an UPDATE of these columns makes before it writes: definitions of columns are compared with those that
/// CDF has.
pub fn comparison(table: &Table, set: &[usize]) -> Option<String> {
    let defines = |at: &usize| matches!(&table.bindings[*at], Some(Binding::Column(column)) if column.rule == Rule::SequenceColumns);
    set.iter().any(defines).then(|| table.options.resource.by_ids().to_string())
}

/// The requests of a scan with conditions on these columns. `to_change`: the statement changes the rows.
pub fn scan(
    table: &Table,
    conditions: &[(usize, Comparison)],
    needed: &[bool],
    to_change: bool,
) -> Vec<String> {
    let requests = requests(table, conditions, needed, to_change);
    requests.iter().map(Endpoint::to_string).collect()
}

fn requests(
    table: &Table,
    conditions: &[(usize, Comparison)],
    needed: &[bool],
    to_change: bool,
) -> Vec<Endpoint> {
    let resource = table.options.resource;
    let equal = |role: Role| {
        let position = table.position_of(role);
        conditions.iter().any(|(column, comparison)| {
            Some(*column) == position && matches!(comparison, Comparison::Equal | Comparison::AnyOf)
        })
    };
    if resource.is_in_raw_tables() {
        let place = place(table);
        let mut requests = Vec::new();
        if place.table.is_none() {
            requests.extend((!equal(Role::RawDatabase)).then(databases));
            requests.extend((!equal(Role::RawTable)).then(|| tables(place.database)));
        }
        let key = table.position_of(Role::RawKey);
        requests.push(if conditions.iter().any(|(column, _)| Some(*column) == key) {
            place.any_row()
        } else {
            place.rows()
        });
        return requests;
    }
    if let Some(owner) = resource.owner {
        let named = owner.named_by.iter().any(|way| way.iter().all(|role| equal(*role)));
        let owners = (!named).then(|| owner.list());
        return owners.into_iter().chain([resource.list()]).collect();
    }
    let asked = |key: &&[Role]| key.iter().all(|role| table.fixes(*role) || equal(*role));
    let by_key = resource.keys.iter().any(asked);
    // Rows of a list that are to be changed are read again by key.
    let mut requests: Vec<Endpoint> = (!by_key).then(|| resource.list()).into_iter().collect();
    requests.extend((by_key || to_change).then(|| resource.by_ids()));
    for (binding, needed) in table.bindings.iter().zip(needed) {
        let Some(Binding::Column(column)) = binding else { continue };
        if let (true, Rule::Reference { to, .. } | Rule::References { to, .. }) = (*needed, column.rule) {
            if !requests.contains(&to.by_ids()) {
                requests.push(to.by_ids());
            }
        }
    }
    requests
}

/// The requests that find out which rows of a statement exist. `single`: the statement has one row.
pub fn existing(table: &Table, single: bool) -> Vec<String> {
    let raw_key = table.position_of(Role::RawKey);
    // A single RAW row is read by its key; for several rows the table is read.
    let named = table.keys().iter().filter(|at| single || Some(**at) != raw_key);
    let conditions: Vec<_> = named.map(|at| (*at, Comparison::AnyOf)).collect();
    scan(table, &conditions, &vec![false; table.bindings.len()], false)
}

/// The requests that write a statement's rows, and the most rows in one of them.
pub fn modify(table: &Table, operation: Operation) -> (Vec<String>, usize) {
    let resource = table.options.resource;
    let (write, delete) = if resource.is_in_raw_tables() {
        (place(table).write(), place(table).delete())
    } else {
        (resource.write(), resource.delete())
    };
    let (requests, rows) = match (operation, resource.change()) {
        (Operation::Delete, _) => (vec![delete], resource.per_delete),
        (Operation::Update, Change::Update) => (vec![resource.update()], resource.per_request),
        (Operation::Update, Change::DeleteAndWrite) => (vec![delete, write], resource.per_request),
        // What an update leaves alone has to be written again.
        (Operation::Update, Change::ReadAndWrite) if table.options.table.is_some() => {
            (vec![place(table).rows(), write], resource.per_request)
        }
        _ => (vec![write], resource.per_write()),
    };
    (requests.iter().map(Endpoint::whole).collect(), rows)
}

/// The RAW table behind a foreign table, as far as its options name it.
fn place(table: &Table) -> RawPlace<'_> {
    RawPlace { database: table.options.database.as_deref(), table: table.options.table.as_deref() }
}
