//! The registry: every CDF resource, declared. A new resource is one file here and one line in [`RESOURCES`].

pub mod assets;
mod comment;
mod data_sets;
pub mod datapoints;
mod events;
mod extraction_pipeline_runs;
pub mod extraction_pipelines;
mod files;
mod labels;
mod member;
pub mod naming;
pub mod raw;
mod relationships;
pub mod sequence_rows;
pub mod sequences;
pub mod status;
pub mod timeseries;
pub mod view;

use std::borrow::Cow;

pub use member::{Member, MemberType};
pub use naming::Naming;

use super::error::{Error, Kind};
use super::view::View;

/// Every resource, in the order in which IMPORT FOREIGN SCHEMA creates their tables.
pub static RESOURCES: &[&Resource] = &[
    &assets::ASSETS,
    &events::EVENTS,
    &timeseries::TIMESERIES,
    &datapoints::DATAPOINTS,
    &datapoints::STRING_DATAPOINTS,
    &raw::RAW_ROWS,
    &sequences::SEQUENCES,
    &sequence_rows::SEQUENCE_ROWS,
    &relationships::RELATIONSHIPS,
    &files::FILES,
    &labels::LABELS,
    &data_sets::DATA_SETS,
    &extraction_pipelines::EXTRACTION_PIPELINES,
    &extraction_pipeline_runs::EXTRACTION_PIPELINE_RUNS,
];

/// CDF's internal ids: 1 to 2^53 − 1 (API description, `CogniteInternalId`).
pub const ID_RANGE: (i64, i64) = (1, 9_007_199_254_740_991);

/// Characters of an external id (API description, `CogniteExternalId`).
pub const EXTERNAL_ID_CHARS: usize = 255;

/// What a flush does first. Resources of one stage go in parallel, stages one after another: what a later stage
/// refers to exists by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    DataSets,
    Labels,
    Assets,
    Series,
    Items,
    Nodes,
    /// Edges refer to nodes.
    Edges,
    Points,
    /// RAW refers to nothing and nothing refers to it: it goes beside the other stages.
    Raw,
    /// What reports on a load goes when all of it is delivered, deletions and RAW included, in the order written.
    Journals,
}

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

/// Limits of a metadata object, in UTF-8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataLimits {
    pub pairs: usize,
    pub key: usize,
    pub value: usize,
    pub total: usize,
}

/// What CDF takes in a property, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// CDF's own: may be selected, never written.
    ReadOnly,
    /// The internal id: addresses an existing item.
    Id,
    /// The external id, by which items are upserted.
    ExternalId,
    /// Text of so many characters.
    Text {
        min: usize,
        max: usize,
    },
    /// As `Text`, but fixed when the item is created.
    ImmutableText {
        min: usize,
        max: usize,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A number within bounds.
    Number {
        min: f64,
        max: f64,
    },
    /// Definitions of a sequence's columns. CDF has an update of its own for them.
    SequenceColumns,
    Bool,
    /// As `Bool`, but fixed when the item is created.
    ImmutableBool,
    /// Milliseconds since 1970, not before.
    Timestamp,
    /// Text to text.
    Metadata(MetadataLimits),
    /// A GeoJSON feature.
    GeoLocation,
    /// External ids of labels, so many at most.
    Labels {
        max: usize,
    },
    /// The internal id of another item.
    IdOf,
    /// Internal ids of other items, or other integers CDF calls ids; so many at most.
    Ids {
        max: usize,
    },
    /// The external id of the parent, which may come in the same request.
    Parent,
    /// An external id of an item of `resource` that CDF takes only as an id, in `property`.
    Reference {
        to: &'static ReferenceTarget,
        property: &'static str,
    },
    /// As `Reference`, an array of them.
    References {
        to: &'static ReferenceTarget,
        property: &'static str,
        max: usize,
    },
    /// An object of these members.
    Object(&'static [Member]),
    /// An array of such objects.
    Objects(&'static [Member]),
    /// The external id of the item that a journal's row is about.
    Subject,
    /// The parts of datapoints, of RAW rows and of sequence rows, which have encoders of their own.
    Part(&'static str),
}

/// Where external ids are resolved to internal ids.
#[derive(Debug, PartialEq, Eq)]
pub struct ReferenceTarget {
    /// In words, as in `data set`.
    pub noun: &'static str,
    pub byids: &'static str,
    pub capability: &'static str,
}

impl ReferenceTarget {
    /// Where such items are.
    pub fn path(&self) -> &'static str {
        self.byids.trim_end_matches("/byids")
    }
}

pub static DATA_SET: ReferenceTarget =
    ReferenceTarget { noun: "data set", byids: "/datasets/byids", capability: "datasetsAcl:READ" };
pub static ASSET: ReferenceTarget =
    ReferenceTarget { noun: "asset", byids: "/assets/byids", capability: "assetsAcl:READ" };

/// What the resource's list requests can filter on in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    None,
    /// Equality, with the property of the same name.
    Equal,
    /// `{"min", "max"}`, both inclusive, of the property of the same name; where `nullable`, also `{"isNull"}`.
    Range {
        nullable: bool,
    },
    /// `externalIdPrefix`.
    Prefix,
    /// Pairs of texts, of which all must be there.
    Metadata,
    /// `{"containsAny"}` or `{"containsAll"}`.
    Labels,
    /// A list in `property`, of so many at most, of which one must be there. With `root` CDF can be asked for those
    /// that have none.
    List {
        property: &'static str,
        max: usize,
        root: bool,
    },
    /// `dataSetIds`, each `{by: …}`, of so many at most.
    DataSets {
        by: &'static str,
        max: usize,
    },
}

/// Data sets in a filter: the least that any resource takes.
const FILTER_DATA_SETS: usize = 100;

/// One column of a built-in table.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// CDF's name of it.
    pub property: &'static str,
    pub column_type: ColumnType,
    pub rule: Rule,
    /// Whether an update may clear it (`setNull`).
    pub nullable: bool,
    /// What CDF has in place of no value, as JSON: it has no null and no setNull for this.
    pub empty: Option<&'static str>,
    pub filter: Filter,
}

impl Column {
    /// The column, with what list requests can filter on in it.
    pub const fn filter(self, filter: Filter) -> Column {
        Column { filter, ..self }
    }

    /// The column, with what CDF has in place of no value.
    pub const fn empty(self, json: &'static str) -> Column {
        Column { empty: Some(json), ..self }
    }

    /// The column, which an update cannot clear.
    pub const fn needed(self) -> Column {
        Column { nullable: false, ..self }
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
    Column { name, property, column_type, rule, nullable: true, empty: None, filter: Filter::None }
}

/// A column that keeps its value once it has one.
pub const fn fixed(
    name: &'static str,
    property: &'static str,
    column_type: ColumnType,
    rule: Rule,
) -> Column {
    Column { name, property, column_type, rule, nullable: false, empty: None, filter: Filter::None }
}

/// The property that a parent's external id stands for.
pub const PARENT_ID: &str = "parentId";

// Columns that several resources have alike.
pub(crate) const ID: Column = fixed("id", "id", ColumnType::Int8, Rule::Id);
pub(crate) const EXTERNAL_ID: Column = fixed("external_id", "externalId", ColumnType::Text, Rule::ExternalId);
pub(crate) const DATA_SET_ID: Column = column("data_set_id", "dataSetId", ColumnType::Int8, Rule::IdOf)
    .filter(Filter::DataSets { by: "id", max: FILTER_DATA_SETS });
pub(crate) const DATA_SET_EXTERNAL_ID: Column = column(
    "data_set_external_id",
    "dataSetExternalId",
    ColumnType::Text,
    Rule::Reference { to: &DATA_SET, property: "dataSetId" },
)
.filter(Filter::DataSets { by: "externalId", max: FILTER_DATA_SETS });
pub(crate) const CREATED_TIME: Column =
    fixed("created_time", "createdTime", ColumnType::Timestamptz, Rule::ReadOnly);
pub(crate) const LAST_UPDATED_TIME: Column =
    fixed("last_updated_time", "lastUpdatedTime", ColumnType::Timestamptz, Rule::ReadOnly);

/// How a resource is written and read.
#[derive(Debug)]
pub enum Shape {
    /// `POST path`, `path/update`, `path/byids`, `path/list` with `{"items": […]}`.
    Items(Items),
    /// `POST path`, and `path/list` with what the rows are about: rows that are only ever added.
    Journal(Journal),
    /// `POST /timeseries/data`.
    Datapoints { string: bool },
    /// `POST /raw/dbs/{db}/tables/{table}/rows`.
    Raw,
    /// `POST /sequences/data`: rows grouped by sequence and columns.
    SequenceRows,
    /// `POST /models/instances`: nodes or edges of a data-model view.
    Instances { edges: bool },
}

/// How many items a create request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// `{"items": […]}`.
    Many,
    /// The item itself.
    One,
}

/// Two timestamp columns of which the second is not before the first.
#[derive(Debug)]
pub struct Ordered {
    pub first: &'static str,
    pub second: &'static str,
    /// Whether both may be the same moment.
    pub may_be_equal: bool,
}

/// What is particular to a resource of items.
#[derive(Debug)]
pub struct Items {
    pub path: &'static str,
    /// Items per create, update and byids request.
    pub per_request: usize,
    pub create: Create,
    /// Columns that an item must have when it is created.
    pub required: &'static [&'static str],
    /// Pairs of timestamp columns of which the second is never before the first.
    pub ordered: &'static [Ordered],
    /// Whether CDF can update an item; one that it cannot can be written again only as it is.
    pub updatable: bool,
    /// Whether CDF can delete items.
    pub deletable: bool,
    /// Characters that an external id has at least.
    pub shortest_key: usize,
}

/// Rows that are only ever added, in the order written. They have no key: each is new, and one that may have arrived is
/// not sent again.
#[derive(Debug)]
pub struct Journal {
    pub items: Items,
    /// The path of the items that rows are about, and what reading these takes.
    pub of: &'static str,
    pub of_capability: &'static str,
}

/// A CDF resource: its table, limits, endpoint and key.
#[derive(Debug)]
pub struct Resource {
    /// The name of the built-in table and the value of the `resource` option.
    pub name: &'static str,
    /// One of it, in words, as in `time series`.
    pub noun: &'static str,
    pub columns: &'static [Column],
    pub stage: Stage,
    pub shape: Shape,
    /// CDF's access control list for it.
    pub acl: &'static str,
    /// How many a project probably has, for plans of tables that were never analysed.
    pub usual_rows: u32,
}

impl Resource {
    pub fn find(name: &str) -> Option<&'static Resource> {
        RESOURCES.iter().copied().chain([&view::NODES]).find(|resource| resource.name == name)
    }

    /// As [`Resource::find`]; the error lists the names there are.
    pub fn get(name: &str) -> Result<&'static Resource, Error> {
        Resource::find(name).ok_or_else(|| {
            let names: Vec<&str> =
                RESOURCES.iter().map(|resource| resource.name).chain([view::NODES.name]).collect();
            Error::new(Kind::InvalidOption, format!("there is no resource \"{name}\""))
                .hint(format!("Resources are: {}.", names.join(", ")))
        })
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

    /// The names of the columns, as errors list them.
    pub fn column_names(&self, naming: Naming) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| naming.of(column)).collect();
        names.join(", ")
    }

    /// The property that says the same in another way: a reference by external id and by internal id.
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

    /// Whether a row has something that tells it from others, by which it can be written again, changed or deleted.
    pub fn has_key(&self) -> bool {
        !matches!(self.shape, Shape::Journal(_))
    }

    /// The property whose parts are written one by one: a second write adds to those of the first.
    pub fn merged_inside(&self) -> Option<&'static str> {
        matches!(self.shape, Shape::SequenceRows).then_some(sequence_rows::COLUMNS)
    }

    /// The resource, and where in it, as errors name it.
    pub fn named(&self, view: Option<&View>, raw: Option<(&str, &str)>) -> String {
        match (view, raw) {
            (Some(view), _) => format!("{} {} ({}s)", self.name, view.name, self.noun),
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
        let more = match &self.shape {
            Shape::Journal(journal) => Some(journal.of_capability),
            Shape::Instances { .. } => Some(super::view::CAPABILITY),
            _ => None,
        };
        let mut all = vec![self.read_capability(), self.write_capability()];
        all.extend(more.map(str::to_owned));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for resource in RESOURCES {
            assert_eq!(Resource::get(resource.name).unwrap().name, resource.name);
            for (at, column) in resource.columns.iter().enumerate() {
                assert!(
                    resource.columns[..at].iter().all(|other| other.name != column.name),
                    "{}",
                    column.name
                );
                assert_eq!(resource.column(column.property).unwrap().name, column.name);
            }
        }
        let error = Resource::get("asset").unwrap_err();
        assert!(error.hint.as_ref().unwrap().contains("string_datapoints"));
    }
}
