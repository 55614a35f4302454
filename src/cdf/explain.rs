//! Which requests a statement would make, as method and path. Nothing is asked to find out.

use super::read::Comparison;
use super::resource::raw::{rows_path, ROWS_PER_REQUEST};
use super::resource::view::INSTANCES_PER_REQUEST;
use super::resource::{datapoints, sequence_rows, Create, Journal, Rule, Shape};
use super::table::{Binding, Operation, Table, RAW_KEY};
use super::view::VIEWS_BY_IDS;

/// The request for the definition of a table's view, where every transaction makes it.
pub fn definition(table: &Table) -> Option<String> {
    let newest = table.options.view.as_ref().is_some_and(|view| view.version.is_none());
    newest.then(|| format!("POST {VIEWS_BY_IDS}"))
}

/// The request that an UPDATE of these columns makes before it writes: definitions of columns are compared with those that
/// CDF has.
pub fn comparison(table: &Table, set: &[usize]) -> Option<String> {
    let Shape::Items(items) = &table.options.resource.shape else { return None };
    let defines = |at: &usize| matches!(&table.bindings[*at], Some(Binding::Column(column)) if column.rule == Rule::SequenceColumns);
    set.iter().any(defines).then(|| format!("POST {}/byids", items.path))
}

/// The requests of a scan with conditions on these columns. `to_change`: its rows are to be changed.
pub fn scan(
    table: &Table,
    conditions: &[(usize, Comparison)],
    needed: &[bool],
    to_change: bool,
) -> Vec<String> {
    let equal = |name: &str| {
        let position = table.position(name);
        conditions.iter().any(|(column, comparison)| {
            Some(*column) == position && matches!(comparison, Comparison::Equal | Comparison::AnyOf)
        })
    };
    match &table.options.resource.shape {
        Shape::Items(items) => {
            let by_key = equal("id") || equal("external_id");
            let mut requests = listed(items.path, by_key, to_change);
            for (binding, needed) in table.bindings.iter().zip(needed) {
                let Some(Binding::Column(column)) = binding else { continue };
                if let (true, Rule::Reference { to, .. } | Rule::References { to, .. }) =
                    (*needed, column.rule)
                {
                    let request = format!("POST {}", to.byids);
                    if !requests.contains(&request) {
                        requests.push(request);
                    }
                }
            }
            requests
        }
        Shape::Journal(journal) => {
            let list = format!("POST {}/list", journal.items.path);
            match equal("external_id") {
                true => vec![list],
                false => vec![format!("POST {}/list", journal.of), list],
            }
        }
        Shape::Datapoints { .. } => {
            let points = "POST /timeseries/data/list".to_owned();
            let instance = equal("instance_space") && equal("instance_external_id");
            match equal("id") || equal("external_id") || instance {
                true => vec![points],
                false => vec!["POST /timeseries/list".to_owned(), points],
            }
        }
        Shape::SequenceRows => {
            let rows = "POST /sequences/data/list".to_owned();
            match equal("id") || equal("external_id") {
                true => vec![rows],
                false => vec!["POST /sequences/list".to_owned(), rows],
            }
        }
        Shape::Instances { .. } => {
            let in_space = equal("space") || table.position("space").is_none();
            let by_key = in_space && equal("external_id");
            listed("/models/instances", by_key, to_change)
        }
        Shape::Raw => {
            let by_key = conditions.iter().any(|(column, _)| match &table.bindings[*column] {
                Some(Binding::Column(column)) => column.name == RAW_KEY,
                Some(Binding::RawColumn { key, .. }) => *key,
                _ => false,
            });
            let (mut requests, rows) = match (&table.options.database, &table.options.table) {
                (Some(database), Some(name)) => (Vec::new(), rows_path(database, name)),
                _ => {
                    let mut requests = Vec::new();
                    if !equal("db_name") {
                        requests.push("GET /raw/dbs".to_owned());
                    }
                    if !equal("table_name") {
                        requests.push("GET /raw/dbs/{db_name}/tables".to_owned());
                    }
                    (requests, "/raw/dbs/{db_name}/tables/{table_name}/rows".to_owned())
                }
            };
            requests.push(match by_key {
                true => format!("GET {rows}/{{key}}"),
                false => format!("GET {rows}"),
            });
            requests
        }
    }
}

/// The requests that find out which rows of a statement exist; `single`: it has one.
pub fn existing(table: &Table, single: bool) -> Vec<String> {
    let is_raw_key = |at: usize| match &table.bindings[at] {
        Some(Binding::Column(column)) => column.name == RAW_KEY,
        Some(Binding::RawColumn { key, .. }) => *key,
        _ => false,
    };
    // One row of RAW can be asked for; of several the table is read.
    let named = table.keys().iter().filter(|at| single || !is_raw_key(**at));
    let conditions: Vec<_> = named.map(|at| (*at, Comparison::AnyOf)).collect();
    scan(table, &conditions, &vec![false; table.bindings.len()], false)
}

/// The requests for what has some keys, or for a list, of which everything is asked for again that is to be changed.
fn listed(path: &str, by_key: bool, to_change: bool) -> Vec<String> {
    let list = (!by_key).then(|| format!("POST {path}/list"));
    let by_ids = (by_key || to_change).then(|| format!("POST {path}/byids"));
    list.into_iter().chain(by_ids).collect()
}

/// The requests that the rows of a statement go with, and how many rows there are in one at most.
pub fn modify(table: &Table, operation: Operation) -> (Vec<String>, usize) {
    let (create, rows) = create(table);
    match (&table.options.resource.shape, operation) {
        (Shape::Datapoints { .. }, Operation::Delete) => {
            (vec!["POST /timeseries/data/delete".to_owned()], datapoints::RANGES_PER_REQUEST)
        }
        (Shape::Items(items), Operation::Delete) => {
            (vec![format!("POST {}/delete", items.path)], items.per_request)
        }
        (Shape::Items(items), Operation::Update) => {
            (vec![format!("POST {}/update", items.path)], items.per_request)
        }
        (Shape::Instances { .. }, Operation::Delete) => {
            (vec!["POST /models/instances/delete".to_owned()], rows)
        }
        (_, Operation::Delete) => (vec![format!("{create}/delete")], rows),
        (Shape::SequenceRows, Operation::Update) => (vec![format!("{create}/delete"), create], rows),
        // What an update leaves alone has to be written again.
        (Shape::Raw, Operation::Update) if table.options.table.is_some() => {
            (vec![create.replacen("POST", "GET", 1), create], rows)
        }
        _ => (vec![create], rows),
    }
}

/// The request that inserted rows go with, and how many there are in it at most.
fn create(table: &Table) -> (String, usize) {
    match (&table.options.resource.shape, &table.options.database, &table.options.table) {
        (Shape::Items(items), ..) if items.create == Create::One => {
            (format!("POST {}?overwrite=false", items.path), 1)
        }
        (Shape::SequenceRows, ..) => ("POST /sequences/data".to_owned(), sequence_rows::ROWS_PER_REQUEST),
        (Shape::Items(items) | Shape::Journal(Journal { items, .. }), ..) => {
            (format!("POST {}", items.path), items.per_request)
        }
        (Shape::Datapoints { .. }, ..) => {
            ("POST /timeseries/data".to_owned(), datapoints::POINTS_PER_REQUEST)
        }
        (Shape::Instances { .. }, ..) => ("POST /models/instances".to_owned(), INSTANCES_PER_REQUEST),
        (Shape::Raw, Some(database), Some(name)) => {
            (format!("POST {}", rows_path(database, name)), ROWS_PER_REQUEST)
        }
        (Shape::Raw, ..) => ("POST /raw/dbs/{db_name}/tables/{table_name}/rows".to_owned(), ROWS_PER_REQUEST),
    }
}
