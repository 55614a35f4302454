//! The metadata of files (API description, `POST /files`). Their content is not reached from here.

use super::declare::*;

pub static FILES: Resource = Resource {
    name: "files",
    noun: "file",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        fixed("name", "name", ColumnType::Text, Rule::ImmutableText { min: 1, max: 256 }).filter_equal(),
        column("directory", "directory", ColumnType::Text, Rule::Text { min: 0, max: 512 }),
        column("source", "source", ColumnType::Text, Rule::Text { min: 0, max: 128 }).filter_equal(),
        column("mime_type", "mimeType", ColumnType::Text, Rule::Text { min: 0, max: 256 }).filter_equal(),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 }),
        )
        .filter(Filter::Metadata),
        column("asset_ids", "assetIds", ColumnType::Int8Array, Rule::Ids { max: 1000 })
            .filter(Filter::List { property: "assetIds", max: 100, root: false }),
        column(
            "asset_external_ids",
            "assetExternalIds",
            ColumnType::TextArray,
            Rule::References { to: &ASSET, property: "assetIds", max: 1000 },
        )
        .filter(Filter::List { property: "assetExternalIds", max: 100, root: false }),
        column("labels", "labels", ColumnType::TextArray, Rule::Labels { max: 10 }).filter(Filter::Labels),
        column("source_created_time", "sourceCreatedTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
        column("source_modified_time", "sourceModifiedTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
        fixed("uploaded", "uploaded", ColumnType::Bool, Rule::ReadOnly),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: "/files",
    shape: Shape::Items(Items { create: Create::One, required: &["name"], ..ITEMS }),
    // CDF updates 1000 at a time, but creates one by one: smaller parts are created beside each other.
    per_request: 100,
    per_delete: 100,
    acl: "filesAcl",
    ..CLASSIC
};
