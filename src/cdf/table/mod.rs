//! A foreign table as CDF sees it: its resource, its options, and what each column stands for.

mod options;
pub mod view;

use std::borrow::Cow;
use std::sync::Arc;

pub use options::{Mode, NullHandling, OnConflict, OnUnfit, Operation, TableOptions};

use super::cell::Cell;
use super::error::{Error, Kind};
use super::resource::raw::RAW_KEY;
use super::resource::view::{EDGES, NODES};
use super::resource::{Column, InstanceEnd, Naming, Resource, Role, Rule, Shape};
use view::{Property, PropertyType, UsedFor, View};

/// A column as the foreign table declares it.
#[derive(Debug, Clone)]
pub struct ColumnDefinition {
    /// The column's SQL name.
    pub name: String,
    /// Its `name` option.
    pub cdf_name: Option<String>,
    /// Its `on_unfit` option.
    pub on_unfit: Option<OnUnfit>,
}

impl ColumnDefinition {
    /// What the column is called in CDF.
    pub fn cdf_name(&self) -> &str {
        self.cdf_name.as_deref().unwrap_or(&self.name)
    }
}

/// What a column of the foreign table stands for.
#[derive(Debug, Clone)]
pub enum Binding {
    /// A declared column of the resource.
    Column(&'static Column),
    /// A typed column of a RAW table: the name of the RAW column; `key` marks the one whose value is the row's key.
    RawColumn { name: String, key: bool },
    /// A property of a data-model view, or a part of it.
    Property { property: Property, part: Part },
}

/// The part of a property that a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// The space of a direct relation.
    Space,
    /// The external id of a direct relation.
    ExternalId,
}

impl Binding {
    fn is_same(&self, other: &Binding) -> bool {
        match (self, other) {
            (Binding::Column(a), Binding::Column(b)) => a.name == b.name,
            // The column `key` is the row's key and no RAW column. RAW may have a column of that name besides.
            (Binding::RawColumn { name: a, key }, Binding::RawColumn { name: b, key: other }) => {
                a == b && (key == other || a != RAW_KEY)
            }
            (Binding::Property { property: a, part }, Binding::Property { property: b, part: other }) => {
                a.name == b.name && (part == other || *part == Part::Whole || *other == Part::Whole)
            }
            _ => false,
        }
    }
}

/// A foreign table, checked: every column is known to the resource.
#[derive(Debug)]
pub struct Table {
    pub options: TableOptions,
    /// One per column of the foreign table, in order; None for one without values: a dropped one.
    pub bindings: Vec<Option<Binding>>,
    /// The columns' SQL names, for errors.
    pub names: Vec<String>,
    /// How a column that the table lacks would be named.
    naming: Naming,
    /// What happens to values that the columns cannot hold.
    pub on_unfit: Vec<OnUnfit>,
    /// Positions of the columns that tell rows apart.
    keys: Vec<usize>,
    /// The definition of the view behind the table.
    pub view: Option<Arc<View>>,
}

impl Table {
    /// Binds the columns of a foreign table. Unknown columns are refused, because their values would be lost silently.
    pub fn new(options: TableOptions, columns: Vec<Option<ColumnDefinition>>) -> Result<Table, Error> {
        Table::of_view(options, columns, None)
    }

    /// As [`Table::new`], with the definition of the view behind a table of `view`.
    pub fn of_view(
        mut options: TableOptions,
        columns: Vec<Option<ColumnDefinition>>,
        view: Option<Arc<View>>,
    ) -> Result<Table, Error> {
        if let Some(view) = &view {
            let holds_edges = match view.used_for {
                UsedFor::Nodes => false,
                UsedFor::Edges => true,
                UsedFor::Both => {
                    let of_edges = |name: &str| {
                        let column = EDGES.column(name).filter(|column| NODES.column(column.name).is_none());
                        column.is_some() && view.property(name).is_none()
                    };
                    columns.iter().flatten().any(|column| of_edges(column.cdf_name()))
                }
            };
            options.resource = if holds_edges { &EDGES } else { &NODES };
        }
        let typed_raw =
            options.resource.is_in_raw_tables()
                && match (&options.database, &options.table) {
                    (Some(_), Some(_)) => true,
                    (None, None) => false,
                    _ => return Err(Error::new(
                        Kind::InvalidOption,
                        "options \"database\" and \"table\" go together",
                    )
                    .hint(
                        "Give both for a typed RAW table, neither for db_name, table_name, key and columns.",
                    )),
                };
        let naming = naming(&columns, options.resource);
        let mut bindings: Vec<Option<Binding>> = Vec::with_capacity(columns.len());
        let mut names: Vec<String> = Vec::with_capacity(columns.len());
        let mut on_unfit = Vec::with_capacity(columns.len());
        for definition in columns {
            let Some(definition) = definition else {
                bindings.push(None);
                names.push(String::new());
                on_unfit.push(options.on_unfit);
                continue;
            };
            let binding = if typed_raw {
                let key = options.primary_key.as_deref().unwrap_or(RAW_KEY) == definition.name;
                Binding::RawColumn { name: definition.cdf_name().to_owned(), key }
            } else if let Some(view) = &view {
                view_column(&definition, view, options.resource)?
            } else {
                Binding::Column(options.resource.column(definition.cdf_name()).ok_or_else(|| {
                    Error::new(
                        Kind::InvalidOption,
                        format!("{} have no property \"{}\"", options.resource.name, definition.cdf_name()),
                    )
                    .hint(format!(
                        "Columns of {} are: {}.",
                        options.resource.name,
                        options.resource.column_names(naming)
                    ))
                })?)
            };
            if let Some(first) =
                bindings.iter().position(|other| other.as_ref().is_some_and(|o| binding.is_same(o)))
            {
                return Err(Error::new(
                    Kind::InvalidOption,
                    format!(
                        "columns \"{}\" and \"{}\" stand for the same property",
                        names[first], definition.name
                    ),
                )
                .hint("Of two values written to one property one would be lost."));
            }
            bindings.push(Some(binding));
            names.push(definition.name);
            on_unfit.push(definition.on_unfit.unwrap_or(options.on_unfit));
        }
        let keys = (0..bindings.len())
            .filter(|at| match &bindings[*at] {
                Some(Binding::Column(column)) => column.role.tells_rows_apart(),
                Some(Binding::RawColumn { key, .. }) => *key,
                Some(Binding::Property { .. }) | None => false,
            })
            .collect();
        let table = Table { options, bindings, names, naming, on_unfit, keys, view };
        table.check_pairs()?;
        if typed_raw
            && !table.bindings.iter().flatten().any(|b| matches!(b, Binding::RawColumn { key: true, .. }))
        {
            let key = table.options.primary_key.as_deref().unwrap_or(RAW_KEY);
            return Err(Error::new(
                Kind::InvalidOption,
                format!("the RAW table has no key column \"{key}\""),
            )
            .hint("Add a column of that name, or name another in the table's option primary_key."));
        }
        Ok(table)
    }

    /// A table of some built-in columns of a resource, with default options.
    pub fn of_columns(resource: &'static Resource, columns: &[&str]) -> Result<Table, Error> {
        Table::with_options(TableOptions::of(resource), columns)
    }

    /// A table whose columns have CDF's names.
    pub fn with_options(options: TableOptions, columns: &[&str]) -> Result<Table, Error> {
        let column =
            |name: &&str| Some(ColumnDefinition { name: (*name).to_owned(), cdf_name: None, on_unfit: None });
        Table::new(options, columns.iter().map(column).collect())
    }

    /// Positions of the columns that tell rows apart.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// Positions of the columns of metadata.
    pub fn metadata(&self) -> impl Iterator<Item = usize> + '_ {
        let holds = |binding: &Option<Binding>| matches!(binding, Some(Binding::Column(c)) if matches!(c.rule, Rule::Metadata(_)));
        self.bindings.iter().enumerate().filter(move |(_, binding)| holds(binding)).map(|(at, _)| at)
    }

    /// Positions of the columns of items that an update can set and cannot clear.
    pub fn uncleared(&self) -> impl Iterator<Item = usize> + '_ {
        let stays = |binding: &Option<Binding>| matches!(binding, Some(Binding::Column(c)) if !c.nullable && c.rule != Rule::ReadOnly);
        let items = matches!(self.options.resource.shape, Shape::Items(_));
        let places = self.bindings.iter().enumerate().filter(move |(_, binding)| items && stays(binding));
        places.map(|(at, _)| at).filter(|at| !self.keys.contains(at))
    }

    /// Positions of the columns of each key that the table has, as `ON CONFLICT (…)` may name it.
    pub fn conflict_keys(&self) -> Vec<Vec<usize>> {
        let columns = |key: &&[Role]| {
            key.iter().filter(|role| !self.fixes(**role)).map(|role| self.position_of(*role)).collect()
        };
        self.options.resource.keys.iter().filter_map(columns).collect()
    }

    /// Whether the table itself fixes this for all rows, in place of a column: the RAW table, or the view's space.
    pub fn fixes(&self, role: Role) -> bool {
        match role {
            Role::RawDatabase | Role::RawTable => self.options.table.is_some(),
            Role::Space => self.position_of(role).is_none(),
            _ => false,
        }
    }

    /// Whether these columns together are a key of the table.
    pub fn is_key(&self, columns: &[usize]) -> bool {
        self.conflict_keys().iter().any(|key| {
            columns.iter().all(|column| key.contains(column)) && key.iter().all(|at| columns.contains(at))
        })
    }

    /// The columns that an existing row gets, unless they are all that CDF replaces anyway.
    pub fn listed(&self, set: &[usize]) -> Option<Vec<usize>> {
        let replaced = |at: &usize| match &self.bindings[*at] {
            None => false,
            Some(Binding::Property { .. }) => true,
            Some(Binding::RawColumn { key, .. }) => !key,
            // A point is replaced whole, with its status.
            Some(Binding::Column(column)) if matches!(column.rule, Rule::Part(_)) => matches!(
                column.role,
                Role::Value | Role::Columns | Role::EndSpace(_) | Role::EndExternalId(_)
            ),
            Some(Binding::Column(column)) => {
                !matches!(column.rule, Rule::Id | Rule::ExternalId | Rule::ReadOnly)
            }
        };
        let all: Vec<usize> = (0..self.bindings.len()).filter(replaced).collect();
        (!all.iter().all(|at| set.contains(at))).then(|| set.to_vec())
    }

    /// A row that was read and is written again, without the values that CDF sets, unless the statement sets them.
    pub fn without_read_only<'r>(&self, row: &[Cell<'r>], changed: &[bool]) -> Vec<Cell<'r>> {
        let read_only = |at: usize| matches!(&self.bindings[at], Some(Binding::Column(column)) if column.rule == Rule::ReadOnly);
        row.iter()
            .enumerate()
            .map(|(at, cell)| if read_only(at) && !changed[at] { Cell::Null } else { *cell })
            .collect()
    }

    /// Whether rows of the table can be changed or deleted.
    ///
    /// # Errors
    /// `Unsupported`, if CDF has no such request or the table's option forbids it.
    pub fn check_operation(&self, operation: Operation) -> Result<(), Error> {
        let resource = self.options.resource;
        let (verb, possible) = match operation {
            Operation::Upsert => return Ok(()),
            Operation::Update => ("update", resource.updatable),
            Operation::Delete => ("delete", resource.deletable),
        };
        if !possible {
            let message = format!("CDF cannot {verb} {}", resource.name.replace('_', " "));
            let error = Error::new(Kind::Unsupported, message);
            return Err(if resource.has_key() {
                error
            } else {
                error.hint(format!("Rows can only be added: each is a new {}.", resource.noun))
            });
        }
        if !self.options.updatable {
            let message = format!("cannot {verb} rows of a foreign table that is insert-only");
            return Err(Error::new(Kind::Unsupported, message)
                .hint("The option updatable of the table, or of its server, is \"false\"."));
        }
        Ok(())
    }

    /// Whether a statement may go over every row that the table stands for; `statement` as it stands in SQL.
    ///
    /// # Errors
    /// `Unsupported`, unless the table's option allows it.
    pub fn check_whole(&self, statement: &str) -> Result<(), Error> {
        if self.options.truncatable {
            return Ok(());
        }
        let resource = self.options.resource.name;
        let (message, way_out) = match statement {
            "TRUNCATE" => (format!("cannot truncate a foreign table of {resource}"), "If that is wanted, "),
            _ => (
                format!(
                    "cannot {statement} all rows of a foreign table of {resource}: no condition tells its rows apart"
                ),
                "Add a WHERE clause on the table's columns or, if it is wanted for all, ",
            ),
        };
        let whole = if self.options.table.is_some() { "RAW table" } else { "resource" };
        Err(Error::new(Kind::Unsupported, message)
            .detail(format!("{statement} would go over the whole {whole} in CDF."))
            .hint(format!("{way_out}set the table's option truncatable to \"true\".")))
    }

    /// An instance is identified by its space and external id together only.
    fn check_pairs(&self) -> Result<(), Error> {
        let half = |have: &str, miss: &str| {
            Error::new(Kind::InvalidOption, format!("column \"{have}\" needs a column \"{miss}\" beside it"))
                .hint("A space and an external id together name an instance.")
        };
        for end in InstanceEnd::ALL {
            let (space, external_id) = (Role::EndSpace(end), Role::EndExternalId(end));
            match (self.position_of(space), self.position_of(external_id)) {
                (Some(at), None) => return Err(half(&self.names[at], &self.name_of(external_id))),
                (None, Some(at)) => return Err(half(&self.names[at], &self.name_of(space))),
                _ => {}
            }
        }
        for (at, binding) in self.bindings.iter().enumerate() {
            let Some(Binding::Property { property, part }) = binding else { continue };
            let (twin, suffix) = match part {
                Part::Whole => continue,
                Part::Space => (Part::ExternalId, "external_id"),
                Part::ExternalId => (Part::Space, "space"),
            };
            if self.property(&property.name, twin).is_none() {
                return Err(half(&self.names[at], &format!("{}_{suffix}", property.name)));
            }
        }
        Ok(())
    }

    /// The position of the column that holds this part of a view's property.
    pub fn property(&self, name: &str, wanted: Part) -> Option<usize> {
        self.bindings.iter().position(|binding| {
            matches!(binding, Some(Binding::Property { property, part }) if property.name == name && *part == wanted)
        })
    }

    /// How errors name a built-in column: by its name in the table, or the name that it would have.
    pub fn column_name(&self, name: &'static str) -> Cow<'_, str> {
        match self.position(name) {
            Some(at) => Cow::Borrowed(&self.names[at]),
            None => self.options.resource.column_name(name, self.naming),
        }
    }

    /// As [`Table::column_name`], of the column that has a role.
    pub fn name_of(&self, role: Role) -> Cow<'_, str> {
        self.options.resource.name_of(role).map_or(Cow::Borrowed(""), |name| self.column_name(name))
    }

    /// How the table calls its columns.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// The position of the column that has a role.
    pub fn position_of(&self, role: Role) -> Option<usize> {
        self.bindings.iter().position(|binding| match binding {
            Some(Binding::Column(column)) => column.role == role,
            Some(Binding::RawColumn { key, .. }) => *key && role == Role::RawKey,
            _ => false,
        })
    }

    /// The position of the column that has a role, without which no row can be written.
    ///
    /// # Errors
    /// `InvalidOption` for a table without it.
    pub fn need(&self, role: Role) -> Result<usize, Error> {
        self.position_of(role).ok_or_else(|| {
            let why = format!("the table needs a column \"{}\" to be written to", self.name_of(role));
            Error::new(Kind::InvalidOption, why)
        })
    }

    /// The position of a built-in column in the foreign table, by its built-in name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.bindings.iter().position(|binding| matches!(binding, Some(Binding::Column(c)) if c.name == name))
    }
}

/// How a table names its columns. The first column whose name differs between the namings decides.
fn naming(columns: &[Option<ColumnDefinition>], resource: &Resource) -> Naming {
    let telling = |definition: &ColumnDefinition| {
        Naming::of_name(&definition.name, resource.column(definition.cdf_name())?)
    };
    columns.iter().flatten().find_map(telling).unwrap_or_default()
}

/// What a column of a view's table stands for. An option `name` means a property first, a column's own name a fixed
/// column first: so a property that is called like a fixed column can be reached by the option.
fn view_column(
    definition: &ColumnDefinition,
    view: &View,
    resource: &'static Resource,
) -> Result<Binding, Error> {
    let name = definition.cdf_name();
    let property = |part: Part, property: &Property| Binding::Property { property: property.clone(), part };
    let whole = || view.property(name).map(|found| property(Part::Whole, found));
    let part = |suffix: &str, part: Part| {
        let relation = view.property(name.strip_suffix(suffix)?)?;
        let single = relation.property_type == PropertyType::Direct && relation.list.is_none();
        single.then(|| property(part, relation))
    };
    let fixed = || resource.columns.iter().find(|column| column.name == name).map(Binding::Column);
    let found = match definition.cdf_name {
        Some(_) => whole().or_else(fixed),
        None => fixed().or_else(whole),
    };
    // CDF's own name of a fixed column.
    let by_cdf_name = || resource.column(name).map(Binding::Column);
    found
        .or_else(by_cdf_name)
        .or_else(|| part("_external_id", Part::ExternalId))
        .or_else(|| part("_space", Part::Space))
        .ok_or_else(|| {
            let properties: Vec<&str> =
                view.properties.iter().map(|property| property.name.as_str()).collect();
            let other = if view.used_for != UsedFor::Edges
                && !std::ptr::eq(resource, &EDGES)
                && EDGES.column(name).is_some()
            {
                " The view holds nodes; only edges have this column."
            } else {
                ""
            };
            Error::new(Kind::InvalidOption, format!("view {} has no property \"{name}\"", view.name))
                .detail(format!("Properties of the view are: {}.{other}", properties.join(", ")))
                .hint(format!(
                    "Besides them a table may have the columns {}.",
                    resource.column_names(naming(&[Some(definition.clone())], &EDGES))
                ))
        })
}
