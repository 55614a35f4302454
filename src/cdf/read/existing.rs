//! Finds out which rows exist, in CDF or among the transaction's own writes. It serves statements that leave existing rows
//! alone and count the new ones.

use std::sync::Arc;

use super::condition::{Comparison, Condition, Operand};
use super::field::{Field, Row};
use super::own::Own;
use super::query::{Query, Statistics};
use super::raw::KEYS;
use super::reader::Reader;
use crate::cdf::buffer::Pending;
use crate::cdf::cell::Cell;
use crate::cdf::encode::fragment::{key_object, Fragment, Key};
use crate::cdf::error::{Error, Identity};
use crate::cdf::http::client::Client;
use crate::cdf::http::connection::Connection;
use crate::cdf::http::request::Limits;
use crate::cdf::resource::Role;
use crate::cdf::table::Table;
use hashbrown::{HashMap, HashSet};

/// The key of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RowKey {
    Item(Identity),
    Raw {
        database: String,
        table: String,
        key: String,
    },
    /// A point of a series, by its milliseconds; or a row of a sequence, by its number.
    At(Identity, i64),
}

impl RowKey {
    /// Returns the key of an encoded row, if it has one. `prefix` is the beginning of the row's fragment, which holds
    /// the key; `place` the RAW database and table that the row goes to.
    pub fn of_key(key: &[u8], place: Option<(&str, &str)>) -> Option<RowKey> {
        let object = key_object(key);
        let row = Fragment::of(&object).parse().ok()?;
        let number = row.number().and_then(|number| number.parse().ok());
        Some(match (row.identity()?, place, number) {
            (Identity::ExternalId(key), Some((database, table)), _) => {
                RowKey::Raw { database: database.to_owned(), table: table.to_owned(), key }
            }
            (identity, _, Some(number)) => RowKey::At(identity, number),
            (identity, _, None) => RowKey::Item(identity),
        })
    }

    /// Returns the bytes that an encoded row of this key begins with; the buffer finds rows by them.
    fn written(&self) -> Option<Key> {
        match self {
            RowKey::Item(Identity::ExternalId(name)) => Some(Key::of_external_id(name)),
            RowKey::Raw { key, .. } => Some(Key::of_raw_row(key)),
            _ => None,
        }
    }
}

/// A query for CDF, and the keys to ask the buffer for.
pub struct Question {
    pub query: Query,
    /// As [`TransactionBuffer::pending`] takes them; None: own writes are read part by part.
    ///
    /// [`TransactionBuffer::pending`]: crate::cdf::buffer::TransactionBuffer::pending
    pub written_keys: Option<Vec<Key>>,
    keys: HashSet<RowKey>,
}

/// Returns the queries that find out which of these rows exist: as few as CDF allows.
pub fn questions(table: &Arc<Table>, connection: &Arc<Connection>, keys: &HashSet<RowKey>) -> Vec<Question> {
    // One query for each way of naming rows, and for each place that a request can address.
    let behind_view = table.options.resource.is_behind_view();
    let mut groups: HashMap<(u8, String, String), Vec<&RowKey>> = HashMap::new();
    for key in keys {
        let of_instance = |identity: &Identity| match identity {
            Identity::Id(_) => (0, String::new(), String::new()),
            Identity::ExternalId(_) => (1, String::new(), String::new()),
            Identity::Instance { space, .. } if behind_view => (2, space.clone(), String::new()),
            Identity::Instance { space, external_id } => (2, space.clone(), external_id.clone()),
        };
        let group = match key {
            RowKey::Item(identity) | RowKey::At(identity, _) => of_instance(identity),
            RowKey::Raw { database, table, .. } => (3, database.clone(), table.clone()),
        };
        groups.entry(group).or_default().push(key);
    }
    let needed: Vec<bool> = (0..table.bindings.len()).map(|at| table.keys().contains(&at)).collect();
    groups
        .into_values()
        .map(|keys| Question {
            query: Query {
                table: table.clone(),
                connection: connection.clone(),
                conditions: conditions(table, &keys),
                needed: needed.clone(),
                limit: None,
                composite: None,
                to_change: false,
                pending: Pending::default(),
            },
            written_keys: keys.iter().map(|key| key.written()).collect(),
            keys: keys.into_iter().cloned().collect(),
        })
        .collect()
}

/// Returns the conditions that the rows of a group share.
fn conditions(table: &Table, keys: &[&RowKey]) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |column: Option<usize>, comparison: Comparison, operand: Operand| {
        conditions.extend(column.map(|column| Condition { column, comparison, operand }));
    };
    let any_of = |operands: Vec<Operand>| (Comparison::AnyOf, Operand::List(operands));
    let identities = keys.iter().filter_map(|key| match key {
        RowKey::Item(identity) | RowKey::At(identity, _) => Some(identity),
        RowKey::Raw { .. } => None,
    });
    let mut distinct: Vec<&Identity> = identities.collect::<HashSet<_>>().into_iter().collect();
    distinct.sort_by_key(|identity| identity.to_string());
    let names = |pick: fn(&Identity) -> Option<Operand>| -> Vec<Operand> {
        distinct.iter().filter_map(|identity| pick(identity)).collect()
    };
    match distinct.first() {
        Some(Identity::Id(_)) => {
            let (comparison, operand) = any_of(names(|identity| match identity {
                Identity::Id(id) => Some(Operand::Int(*id)),
                _ => None,
            }));
            add(table.position_of(Role::Id), comparison, operand);
        }
        Some(Identity::ExternalId(_)) => {
            let (comparison, operand) = any_of(names(|identity| match identity {
                Identity::ExternalId(name) => Some(Operand::Text(name.clone())),
                _ => None,
            }));
            add(table.position_of(Role::ExternalId), comparison, operand);
        }
        Some(Identity::Instance { space, external_id }) => {
            let equal = |text: &String| (Comparison::Equal, Operand::Text(text.clone()));
            if table.options.resource.is_behind_view() {
                let (comparison, operand) = equal(space);
                add(table.position_of(Role::Space), comparison, operand);
                let (comparison, operand) = any_of(names(|identity| match identity {
                    Identity::Instance { external_id, .. } => Some(Operand::Text(external_id.clone())),
                    _ => None,
                }));
                add(table.position_of(Role::ExternalId), comparison, operand);
            } else {
                for (role, text) in [(Role::NodeSpace, space), (Role::NodeExternalId, external_id)] {
                    let (comparison, operand) = equal(text);
                    add(table.position_of(role), comparison, operand);
                }
            }
        }
        None => {}
    }
    let moments: Vec<i64> = keys
        .iter()
        .filter_map(|key| match key {
            RowKey::At(_, moment) => Some(*moment),
            _ => None,
        })
        .collect();
    if let (Some(first), Some(last)) = (moments.iter().min(), moments.iter().max()) {
        let (column, operand): (_, fn(i64) -> Operand) = if table.options.resource.holds_points() {
            (table.position_of(Role::Timestamp), |millis| Operand::Micros(millis.saturating_mul(1000)))
        } else {
            (table.position_of(Role::RowNumber), Operand::Int)
        };
        add(column, Comparison::GreaterOrEqual, operand(*first));
        add(column, Comparison::LessOrEqual, operand(*last));
    }
    if let Some(RowKey::Raw { database, table: name, .. }) = keys.first() {
        for (role, text) in [(Role::RawDatabase, database), (Role::RawTable, name)] {
            add(table.position_of(role), Comparison::Equal, Operand::Text(text.clone()));
        }
    }
    conditions
}

/// Returns the rows that exist.
pub async fn existing(
    client: Client,
    questions: Vec<Question>,
    limits: Limits,
) -> Result<HashSet<RowKey>, Error> {
    let mut found = HashSet::new();
    for question in questions {
        if question.query.table.options.resource.is_in_raw_tables() {
            of_raw_table(&client, question, limits.clone(), &mut found).await?
        } else {
            read_all(&client, question.query, limits.clone(), &mut found).await?
        }
    }
    Ok(found)
}

async fn read_all(
    client: &Client,
    query: Query,
    limits: Limits,
    found: &mut HashSet<RowKey>,
) -> Result<(), Error> {
    let table = query.table.clone();
    let mut reader = Reader::new(client.clone(), query)?;
    while let Some(rows) = reader.page(limits.clone()).await? {
        rows.iter().for_each(|row| keys_of(&table, row, None, found));
    }
    Ok(())
}

/// Reads rows of a RAW table. RAW answers for one row by key, or for a whole table. A single row is asked for by key.
/// For several rows the table is read; once that has taken more than one request and few rows are left, those are asked
/// for one by one.
async fn of_raw_table(
    client: &Client,
    question: Question,
    limits: Limits,
    found: &mut HashSet<RowKey>,
) -> Result<(), Error> {
    let Question { query, keys: mut missing, .. } = question;
    let table = query.table.clone();
    let Some(RowKey::Raw { database, table: name, .. }) = missing.iter().next().cloned() else {
        return Ok(());
    };
    let place = Some((&*database, &*name));
    let key_column = table.position_of(Role::RawKey);
    if missing.len() > 1 {
        let statistics = Arc::new(Statistics::default());
        let own = Own::default();
        let mut reader = Reader::counting(client.clone(), query.clone(), own, statistics.clone())?;
        loop {
            let Some(rows) = reader.page(limits.clone()).await? else { return Ok(()) };
            let mut page = HashSet::new();
            rows.iter().for_each(|row| keys_of(&table, row, place, &mut page));
            missing.retain(|key| !page.contains(key));
            found.extend(page);
            if missing.is_empty() {
                return Ok(());
            }
            let requests = statistics.requests.load(std::sync::atomic::Ordering::Relaxed);
            if requests > 1 && missing.len() <= KEYS {
                break;
            }
        }
    }
    let mut query = query;
    let operands = missing.iter().filter_map(|key| match key {
        RowKey::Raw { key, .. } => Some(Operand::Text(key.clone())),
        _ => None,
    });
    let (comparison, operand) = (Comparison::AnyOf, Operand::List(operands.collect()));
    query.conditions.extend(key_column.map(|column| Condition { column, comparison, operand }));
    let mut reader = Reader::new(client.clone(), query)?;
    while let Some(rows) = reader.page(limits.clone()).await? {
        rows.iter().for_each(|row| keys_of(&table, row, place, found));
    }
    Ok(())
}

/// Adds the keys that identify a row that was read. `place`: RAW's database and table, if the row does not have them.
pub fn keys_of(table: &Table, row: &Row, place: Option<(&str, &str)>, found: &mut HashSet<RowKey>) {
    let field = |role: Role| table.position_of(role).map(|at| &row[at]);
    let text = |role: Role| field(role).and_then(as_text);
    let number = |role: Role| match field(role).map(Field::cell) {
        Some(Cell::Int(value)) => Some(value),
        _ => None,
    };
    let named = [
        number(Role::Id).map(Identity::Id),
        text(Role::ExternalId).map(Identity::ExternalId),
        text(Role::NodeSpace)
            .zip(text(Role::NodeExternalId))
            .map(|(space, external_id)| Identity::Instance { space, external_id }),
    ];
    let resource = table.options.resource;
    if resource.is_in_raw_tables() {
        let (Some((database, table)), Some(key)) = (place, text(Role::RawKey)) else { return };
        found.insert(RowKey::Raw { database: database.to_owned(), table: table.to_owned(), key });
    } else if resource.is_behind_view() {
        let own_space = || table.view.as_ref().map(|view| view.name.space.clone());
        let space = text(Role::Space).or_else(own_space);
        let instance = space.zip(text(Role::ExternalId));
        let identity = |(space, external_id)| Identity::Instance { space, external_id };
        found.extend(instance.map(identity).map(RowKey::Item));
    } else if resource.holds_points() || resource.is_numbered() {
        let within = match field(Role::Timestamp) {
            Some(Field::Millis(millis)) => Some(*millis),
            _ => number(Role::RowNumber),
        };
        if let Some(within) = within {
            found.extend(named.into_iter().flatten().map(|of| RowKey::At(of, within)));
        }
    } else if resource.has_key() {
        found.extend(named.into_iter().flatten().map(RowKey::Item));
    }
}

fn as_text(field: &Field) -> Option<String> {
    match field {
        Field::Text(text) => Some(text.clone()),
        Field::Json(value) => value.as_str().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_the_beginning_of_a_row() {
        let key = |key: &str| RowKey::of_key(key.as_bytes(), None);
        let name = Identity::ExternalId("a\"b".into());
        assert_eq!(key(r#"{"externalId":"a\"b""#), Some(RowKey::Item(name.clone())));
        assert_eq!(key(r#"{"id":5"#), Some(RowKey::Item(Identity::Id(5))));
        assert_eq!(key(r#"{"externalId":"a\"b","rowNumber":7"#), Some(RowKey::At(name, 7)));
        let instance = Identity::Instance { space: "s".into(), external_id: "e".into() };
        assert_eq!(key(r#"{"(space, external_id)":["s","e"]"#), Some(RowKey::Item(instance)));
        assert_eq!(key("{"), None);
        let raw = RowKey::Raw { database: "d".into(), table: "t".into(), key: "k".into() };
        assert_eq!(RowKey::of_key(br#"{"key":"k""#, Some(("d", "t"))), Some(raw));
    }

    #[test]
    fn keys_are_found_again_by_what_a_row_begins_with() {
        let item = RowKey::Item(Identity::ExternalId("a\"ü".into()));
        assert_eq!(item.written().unwrap().as_bytes(), "{\"externalId\":\"a\\\"ü\"".as_bytes());
        let raw = RowKey::Raw { database: "d".into(), table: "t".into(), key: "k".into() };
        assert_eq!(raw.written().unwrap().as_bytes(), b"{\"key\":\"k\"");
        assert_eq!(RowKey::Item(Identity::Id(1)).written(), None);
    }
}
