//! Sequences (API description, `POST /sequences`).

use super::declare::*;

/// Columns of a sequence.
pub const COLUMNS: usize = 400;
/// Of these, columns of texts.
pub const TEXT_COLUMNS: usize = 200;
/// Types of a column's values.
pub const VALUE_TYPES: [&str; 3] = ["STRING", "DOUBLE", "LONG"];

/// Limits of the metadata of a sequence and of each of its columns.
pub const METADATA: MetadataLimits = MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 };

pub static SEQUENCES: Resource = Resource {
    name: "sequences",
    noun: "sequence",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        column("name", "name", ColumnType::Text, Rule::Text { min: 0, max: 255 }).filter_equal(),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 1000 }),
        column("asset_id", "assetId", ColumnType::Int8, Rule::IdOf).filter(Filter::List {
            property: "assetIds",
            max: 100,
            root: false,
        }),
        column(
            "asset_external_id",
            "assetExternalId",
            ColumnType::Text,
            Rule::Reference { to: &ASSET, property: "assetId" },
        ),
        column("metadata", "metadata", ColumnType::Jsonb, Rule::Metadata(METADATA)).filter(Filter::Metadata),
        fixed("columns", "columns", ColumnType::Jsonb, Rule::SequenceColumns),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: paths::SEQUENCES,
    shape: Shape::Items(Items { required: &["columns"], ..ITEMS }),
    turn: Turn::At(Stage::Series),
    acl: "sequencesAcl",
    ..CLASSIC
};
