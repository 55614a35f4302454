//! What a SELECT wants from a foreign table.

use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use hashbrown::HashSet;
use serde_json::json;

use super::condition::{Comparison, Condition, Operand};
use crate::cdf::buffer::Pending;
use crate::cdf::encode::fragment::Key;
use crate::cdf::error::Identity;
use crate::cdf::http::connection::Connection;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::raw::KEY_CHARS;
use crate::cdf::resource::{Role, Shape, EXTERNAL_ID_CHARS, ID_RANGE};
use crate::cdf::table::Table;

/// The results of a scan's requests.
#[derive(Debug, Default)]
pub struct Statistics {
    pub requests: AtomicU64,
    pub pages: AtomicU64,
    pub rows: AtomicU64,
}

/// Keys of several columns, of which a row must have one.
#[derive(Debug, Clone, PartialEq)]
pub struct CompositeKeys {
    pub columns: Vec<usize>,
    /// A value for each of the columns.
    pub keys: Vec<Vec<Operand>>,
}

impl CompositeKeys {
    /// The texts of two columns, of each key that has texts there; None if they are not both among the columns.
    pub fn texts(&self, columns: [Option<usize>; 2]) -> Option<Vec<(&str, &str)>> {
        let place = |column: Option<usize>| self.columns.iter().position(|other| Some(*other) == column);
        let (first, second) = (place(columns[0])?, place(columns[1])?);
        let texts = self.keys.iter().filter_map(|key| match (key.get(first)?, key.get(second)?) {
            (Operand::Text(first), Operand::Text(second)) => Some((first.as_str(), second.as_str())),
            _ => None,
        });
        Some(texts.collect())
    }
}

/// What a SELECT wants from one foreign table.
#[derive(Debug, Clone)]
pub struct Query {
    pub table: Arc<Table>,
    pub connection: Arc<Connection>,
    pub conditions: Vec<Condition>,
    /// Beside the conditions, which say the same of each column by itself.
    pub composite: Option<CompositeKeys>,
    /// Whether each column is needed.
    pub needed: Vec<bool>,
    /// How many rows are probably enough.
    pub limit: Option<usize>,
    /// The rows are to be changed. CDF's lists lag behind by moments, so what they show is read again by key: a change
    /// must not be based on an old state.
    pub to_change: bool,
    /// What the transaction itself has written to the table's resource, unless the reader [asks](own::Own) for it.
    pub pending: Pending,
}

impl Query {
    /// Returns what is read, as errors name it.
    pub fn name(&self) -> String {
        let (database, table) = self.raw_place();
        self.table
            .options
            .resource
            .named(self.table.view.as_deref().map(|view| &view.name as _), database.zip(table))
    }

    /// Returns the value that the column of a role must equal.
    pub(super) fn equal(&self, role: Role) -> Option<&Operand> {
        let position = self.table.position_of(role)?;
        self.conditions
            .iter()
            .find(|condition| condition.column == position && condition.comparison == Comparison::Equal)
            .map(|condition| &condition.operand)
    }

    pub(super) fn equal_text(&self, role: Role) -> Option<&str> {
        match self.equal(role)? {
            Operand::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the keys of which rows must have one, as requests name them; None if no condition names keys.
    pub(super) fn keys(&self) -> Option<Vec<serde_json::Value>> {
        // CDF takes no empty external id for items that have no other key.
        let shortest = usize::from(self.table.options.resource.needs_external_id());
        let named = |role: Role, property: &str| {
            let position = self.table.position_of(role)?;
            let condition = self.conditions.iter().find(|condition| {
                condition.column == position
                    && matches!(condition.comparison, Comparison::Equal | Comparison::AnyOf)
            })?;
            let operands = match &condition.operand {
                Operand::List(operands) => operands.as_slice(),
                operand => std::slice::from_ref(operand),
            };
            let mut keys = Vec::with_capacity(operands.len());
            let mut seen = HashSet::new();
            for operand in operands.iter().filter(|operand| seen.insert(*operand)) {
                keys.push(match operand {
                    // CDF takes no other external ids and ids, so no item has them.
                    Operand::Text(text) if (shortest..=EXTERNAL_ID_CHARS).contains(&text.chars().count()) => {
                        json!({ property: text })
                    }
                    Operand::Int(id) if (ID_RANGE.0..=ID_RANGE.1).contains(id) => json!({ property: id }),
                    _ => continue,
                });
            }
            Some(keys)
        };
        named(Role::Id, ID).or_else(|| named(Role::ExternalId, EXTERNAL_ID))
    }

    /// Returns the beginnings of encoded rows that have one of the wanted keys; None if the query is not by key.
    pub fn written_keys(&self) -> Option<Vec<Key>> {
        match &self.table.options.resource.shape {
            Shape::Items(_) => {
                let named = |key| match Identity::from_json(key)? {
                    Identity::ExternalId(name) => Some(Key::of_external_id(&name)),
                    _ => None,
                };
                self.keys()?.iter().map(named).collect()
            }
            Shape::Raw => {
                let key = self.raw_key()?;
                // No row has a key that CDF does not take, and escaping makes such a key up to six times as long.
                let possible = key.len() <= KEY_CHARS || key.chars().count() <= KEY_CHARS;
                Some(possible.then(|| Key::of_raw_row(key)).into_iter().collect())
            }
            _ => None,
        }
    }

    /// Returns the RAW database and table that rows must be in, if the conditions leave only one.
    pub fn raw_place(&self) -> (Option<&str>, Option<&str>) {
        let options = &self.table.options;
        let database = options.database.as_deref().or_else(|| self.equal_text(Role::RawDatabase));
        (database, options.table.as_deref().or_else(|| self.equal_text(Role::RawTable)))
    }

    /// Returns the only RAW key that the conditions allow.
    fn raw_key(&self) -> Option<&str> {
        let key = self.table.position_of(Role::RawKey);
        self.conditions.iter().find_map(|condition| match &condition.operand {
            Operand::Text(text)
                if Some(condition.column) == key && condition.comparison == Comparison::Equal =>
            {
                Some(text.as_str())
            }
            _ => None,
        })
    }

    /// Whether the query needs the column of a role.
    pub(super) fn needs(&self, role: Role) -> bool {
        self.table.position_of(role).is_some_and(|at| self.needed[at])
    }

    /// Returns the rows per request: what is probably enough, up to CDF's maximum.
    pub(super) fn page(&self, most: usize) -> usize {
        self.limit.unwrap_or(most).clamp(1, most)
    }
}
