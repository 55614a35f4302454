//! The definition of a resource: everything that delivery, reading and plans need to know about it.

use std::borrow::Cow;

use super::column::Column;
use super::naming::Naming;
use super::paths;
use super::role::Role;
use super::rule::{Rule, DOCUMENT_BYTES, PARENT_ID};
use super::shape::{Create, Items, Shape};
use super::turn::{Stage, Turn};
use crate::cdf::http::endpoint::Endpoint;

/// The items that rows of another resource belong to. A query that names none of them lists all of them.
#[derive(Debug)]
pub struct Owner {
    pub path: &'static str,
    /// The columns by which a row names its owner, one list for each way that requests accept.
    pub named_by: &'static [&'static [Role]],
    /// The capability for listing them; None: the one for reading the rows.
    pub capability: Option<&'static str>,
}

impl Owner {
    /// The request for all of them.
    pub fn list(&self) -> Endpoint {
        Endpoint::post(self.path).list()
    }

    /// The request for those that have some keys.
    pub fn by_ids(&self) -> Endpoint {
        Endpoint::post(self.path).by_ids()
    }
}

/// A CDF resource: its table, keys, limits, endpoints, and its turn among the others.
#[derive(Debug)]
pub struct Resource {
    /// The name of the built-in table and the value of the `resource` option.
    pub name: &'static str,
    /// What one of them is called, for example `time series`.
    pub noun: &'static str,
    pub columns: &'static [Column],
    /// How its rows are encoded, delivered and read.
    pub shape: Shape,
    /// The path that its requests begin with.
    pub path: &'static str,
    /// The most rows or items in a request that writes.
    pub per_request: usize,
    /// The most items in a request that updates: more than in others where these are created one by one.
    pub per_update: usize,
    /// The most rows or items in a request that deletes.
    pub per_delete: usize,
    /// Bytes of the longest JSON document that any column takes.
    pub longest_document: usize,
    /// Rows in a page that is read.
    pub per_page: usize,
    /// How many write requests CDF takes at a time for a project.
    pub at_once: usize,
    /// The columns of each of its keys.
    pub keys: &'static [&'static [Role]],
    /// What its rows belong to.
    pub owner: Option<&'static Owner>,
    pub turn: Turn,
    /// Whether items have parents of the same resource: parents are written first, and children deleted first.
    pub hierarchy: bool,
    /// Whether CDF can update a row. If not, a repeated write must be equal to what exists.
    pub updatable: bool,
    /// Whether CDF can delete rows.
    pub deletable: bool,
    /// Paths of other resources that rows may refer to. A flush waits until CDF finds what it has just written there.
    pub refers_to: &'static [&'static str],
    /// Whether other rows may refer to its rows.
    pub referred_to: bool,
    /// CDF's access control list for it.
    pub acl: &'static str,
    /// A capability that using a table of it takes besides.
    pub also_needs: Option<&'static str>,
    /// How many a project probably has, for plans of tables that were never analyzed.
    pub usual_rows: u32,
}

/// The defaults of resources of items.
pub const CLASSIC: Resource = Resource {
    name: "",
    noun: "",
    columns: &[],
    shape: Shape::Items(ITEMS),
    path: "",
    per_request: 1000,
    per_update: 1000,
    per_delete: 1000,
    longest_document: DOCUMENT_BYTES,
    per_page: 1000,
    at_once: usize::MAX,
    keys: &[&[Role::ExternalId], &[Role::Id]],
    owner: None,
    turn: Turn::At(Stage::Items),
    hierarchy: false,
    updatable: true,
    deletable: true,
    refers_to: &[paths::ASSETS, paths::DATA_SETS, paths::LABELS],
    referred_to: true,
    acl: "",
    also_needs: None,
    usual_rows: 10_000,
};

/// Items without anything particular.
pub const ITEMS: Items = Items { create: Create::Many, required: &[], ordered: &[], shortest_key: 0 };

/// What CDF needs to change a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An update request.
    Update,
    /// The same as an insert: CDF keeps what the request leaves out.
    Write,
    /// The old row must go first: CDF keeps cells that the new row does not have.
    DeleteAndWrite,
    /// The old row must be read first: CDF replaces rows whole.
    ReadAndWrite,
}

impl Resource {
    /// The request that writes its rows.
    pub fn write(&self) -> Endpoint {
        match &self.shape {
            // What exists is updated instead: its content stays.
            Shape::Items(Items { create: Create::One, .. }) => {
                Endpoint::post(self.path).with("overwrite", "false")
            }
            _ => Endpoint::post(self.path),
        }
    }

    /// Rows in such a request.
    pub fn per_write(&self) -> usize {
        match &self.shape {
            Shape::Items(Items { create: Create::One, .. }) => 1,
            _ => self.per_request,
        }
    }

    /// Whether each item takes a request of its own to be created.
    pub fn creates_one_by_one(&self) -> bool {
        matches!(self.shape, Shape::Items(Items { create: Create::One, .. }))
    }

    pub fn update(&self) -> Endpoint {
        Endpoint::post(self.path).below("update")
    }

    pub fn delete(&self) -> Endpoint {
        Endpoint::post(self.path).below("delete")
    }

    pub fn by_ids(&self) -> Endpoint {
        Endpoint::post(self.path).by_ids()
    }

    pub fn list(&self) -> Endpoint {
        Endpoint::post(self.path).list()
    }

    /// The column called so, by its SQL name or by CDF's name of the property.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        let columns: &'static [Column] = self.columns;
        columns
            .iter()
            .find(|column| column.name == name)
            .or_else(|| columns.iter().find(|c| c.property == name))
            .or_else(|| columns.iter().find(|c| Naming::CamelCase.of(c) == name))
    }

    /// How errors name a built-in column.
    pub fn column_name(&self, name: &'static str, naming: Naming) -> Cow<'static, str> {
        self.column(name).map_or(Cow::Borrowed(name), |column| naming.of(column))
    }

    /// The name of the column with a role.
    pub fn name_of(&self, role: Role) -> Option<&'static str> {
        self.columns.iter().find(|column| column.role == role).map(|column| column.name)
    }

    /// How errors name the column with a role.
    pub fn named_as(&self, role: Role, naming: Naming) -> Cow<'static, str> {
        self.name_of(role).map_or(Cow::Borrowed(""), |name| self.column_name(name, naming))
    }

    /// The names of the columns, as errors list them.
    pub fn column_names(&self, naming: Naming) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| naming.of(column)).collect();
        names.join(", ")
    }

    /// The other property for the same reference: by external id or by internal id.
    pub fn twin(&self, property: &str) -> Option<&'static str> {
        let columns: &'static [Column] = self.columns;
        columns.iter().find_map(|column| {
            let id = match column.rule {
                Rule::Parent => PARENT_ID,
                Rule::Reference { property, .. } | Rule::References { property, .. } => property,
                _ => return None,
            };
            match property {
                property if property == column.property => Some(id),
                property if property == id => Some(column.property),
                _ => None,
            }
        })
    }

    /// Whether every item has an external id, so that CDF takes no empty one.
    pub fn needs_external_id(&self) -> bool {
        let name = self.name_of(Role::ExternalId);
        matches!(&self.shape, Shape::Items(items) if items.required.iter().any(|needed| Some(*needed) == name))
    }

    /// Whether no row is without its key: there is one only, and CDF takes no row without it.
    pub fn always_has_its_key(&self) -> bool {
        self.is_in_raw_tables()
            || self.is_behind_view()
            || self.needs_external_id() && self.name_of(Role::Id).is_none()
    }

    /// Whether a column is a part of a key.
    pub fn is_in_key(&self, role: Role) -> bool {
        self.keys.iter().any(|key| key.contains(&role))
    }

    /// Whether a row has a key, by which it can be written again, changed or deleted.
    pub fn has_key(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether rows belong to series, and a table holds points of them.
    pub fn holds_points(&self) -> bool {
        matches!(self.shape, Shape::Datapoints { .. })
    }

    /// Whether the points that it holds have texts as values.
    pub fn holds_texts(&self) -> bool {
        matches!(self.shape, Shape::Datapoints { string: true })
    }

    /// Whether rows are numbered within what they belong to: the number is a part of their key.
    pub fn is_numbered(&self) -> bool {
        matches!(self.shape, Shape::SequenceRows)
    }

    /// Whether a write of an existing row can leave some of its columns as they are.
    pub fn takes_listed_columns(&self) -> bool {
        !self.holds_points() && !self.is_numbered()
    }

    /// What an UPDATE sends.
    pub fn change(&self) -> Change {
        match self.shape {
            Shape::Items(_) => Change::Update,
            Shape::SequenceRows => Change::DeleteAndWrite,
            Shape::Raw => Change::ReadAndWrite,
            Shape::Journal(_) | Shape::Datapoints { .. } | Shape::Instances { .. } => Change::Write,
        }
    }

    /// Whether rows are in databases and tables of RAW.
    pub fn is_in_raw_tables(&self) -> bool {
        matches!(self.shape, Shape::Raw)
    }

    /// Whether rows are instances behind a view of a data model.
    pub fn is_behind_view(&self) -> bool {
        matches!(self.shape, Shape::Instances { .. })
    }

    /// The property whose parts are merged one by one where two writes of a row are: each counts as a column.
    pub fn merged_inside(&self) -> Option<&'static str> {
        let columns: &'static [Column] = self.columns;
        columns.iter().find(|column| column.role == Role::Columns).map(|column| column.property)
    }

    /// Its rows in words, as counts name them.
    pub fn rows(&self) -> Cow<'static, str> {
        if self.is_behind_view() {
            format!("{}s", self.noun).into()
        } else {
            self.name.into()
        }
    }

    /// The resource, and where in it, as errors name it: with the name of its view, or with a RAW database and table.
    pub fn named(&self, view: Option<&dyn std::fmt::Display>, raw: Option<(&str, &str)>) -> String {
        match (view, raw) {
            (Some(view), _) => format!("{} {view} ({}s)", self.name, self.noun),
            (None, Some((database, table))) => format!("{} ({database}.{table})", self.name),
            (None, None) => self.name.to_owned(),
        }
    }

    /// The capability that writing needs.
    pub fn write_capability(&self) -> String {
        format!("{}:WRITE", self.acl)
    }

    /// The capability that reading needs.
    pub fn read_capability(&self) -> String {
        format!("{}:READ", self.acl)
    }

    /// All capabilities that using a table of it needs, beside those for what its rows refer to.
    pub fn capabilities(&self) -> Vec<String> {
        let mut all = vec![self.read_capability(), self.write_capability()];
        all.extend(self.also_needs.map(str::to_owned));
        all
    }
}
