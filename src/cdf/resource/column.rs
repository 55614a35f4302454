//! Columns of built-in tables.

use super::filter::Filter;
use super::properties;
use super::reference::DATA_SET;
use super::role::Role;
use super::rule::Rule;

/// The SQL type of a built-in column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Int8,
    Float8,
    Bool,
    Text,
    Timestamptz,
    Jsonb,
    TextArray,
    Int8Array,
}

impl ColumnType {
    pub fn sql(self) -> &'static str {
        match self {
            ColumnType::Int8 => "bigint",
            ColumnType::Float8 => "double precision",
            ColumnType::Bool => "boolean",
            ColumnType::Text => "text",
            ColumnType::Timestamptz => "timestamp with time zone",
            ColumnType::Jsonb => "jsonb",
            ColumnType::TextArray => "text[]",
            ColumnType::Int8Array => "bigint[]",
        }
    }
}

/// The most data sets in a filter, which all resources take.
const FILTER_DATA_SETS: usize = 100;

/// One column of a built-in table.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// CDF's name of it.
    pub property: &'static str,
    pub column_type: ColumnType,
    pub rule: Rule,
    pub role: Role,
    /// Whether an update may clear it (`setNull`).
    pub nullable: bool,
    /// The JSON that stands for no value, if CDF has neither null nor setNull for the property.
    pub empty: Option<&'static str>,
    pub filter: Filter,
}

impl Column {
    /// The column with the filter of list requests.
    pub const fn filter(self, filter: Filter) -> Column {
        Column { filter, ..self }
    }

    /// The column with its role.
    pub const fn role(self, role: Role) -> Column {
        Column { role, ..self }
    }

    /// The column with the JSON that stands for no value.
    pub const fn empty(self, json: &'static str) -> Column {
        Column { empty: Some(json), ..self }
    }

    /// The column as one that an update cannot clear.
    pub const fn needed(self) -> Column {
        Column { nullable: false, ..self }
    }

    /// The change in an update request that leaves the property without a value.
    pub fn cleared(&self) -> String {
        match (self.empty, self.rule) {
            (Some(empty), _) => format!("{{\"set\":{empty}}}"),
            // CDF has no setNull for these (API description of the update operations).
            (None, Rule::Metadata(_)) => "{\"set\":{}}".into(),
            (None, Rule::Labels { .. } | Rule::Ids { .. }) => "{\"set\":[]}".into(),
            (None, _) => "{\"setNull\":true}".into(),
        }
    }

    /// A column that list requests can filter on by equality.
    pub const fn filter_equal(self) -> Column {
        self.filter(Filter::Equal)
    }
}

/// A column that an update may clear.
pub const fn column(
    name: &'static str,
    property: &'static str,
    column_type: ColumnType,
    rule: Rule,
) -> Column {
    Column { nullable: true, ..fixed(name, property, column_type, rule) }
}

/// A column that keeps its value once it has one.
pub const fn fixed(
    name: &'static str,
    property: &'static str,
    column_type: ColumnType,
    rule: Rule,
) -> Column {
    let role = match rule {
        Rule::Id => Role::Id,
        Rule::ExternalId | Rule::Subject => Role::ExternalId,
        Rule::Parent => Role::Parent,
        _ => Role::Property,
    };
    Column { name, property, column_type, rule, role, nullable: false, empty: None, filter: Filter::None }
}

// Columns that several resources share.
pub const ID: Column = fixed("id", properties::ID, ColumnType::Int8, Rule::Id);
pub const EXTERNAL_ID: Column =
    fixed("external_id", properties::EXTERNAL_ID, ColumnType::Text, Rule::ExternalId);
pub const DATA_SET_ID: Column = column("data_set_id", "dataSetId", ColumnType::Int8, Rule::IdOf)
    .filter(Filter::DataSets { by: properties::ID, max: FILTER_DATA_SETS });
pub const DATA_SET_EXTERNAL_ID: Column = column(
    "data_set_external_id",
    "dataSetExternalId",
    ColumnType::Text,
    Rule::Reference { to: &DATA_SET, property: "dataSetId" },
)
.filter(Filter::DataSets { by: properties::EXTERNAL_ID, max: FILTER_DATA_SETS });
pub const CREATED_TIME: Column =
    fixed("created_time", "createdTime", ColumnType::Timestamptz, Rule::ReadOnly);
pub const LAST_UPDATED_TIME: Column =
    fixed("last_updated_time", "lastUpdatedTime", ColumnType::Timestamptz, Rule::ReadOnly);
