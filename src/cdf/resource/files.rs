//! The metadata of files (API description, `POST /files`). Their content is not reached from here.

use super::*;

pub static FILES: Resource = Resource {
    name: "files",
    noun: "file",
    columns: &[
        ID,
        EXTERNAL_ID,
        fixed("name", "name", ColumnType::Text, Rule::ImmutableText { min: 1, max: 256 }),
        column("directory", "directory", ColumnType::Text, Rule::Text { min: 0, max: 512 }),
        column("source", "source", ColumnType::Text, Rule::Text { min: 0, max: 128 }),
        column("mime_type", "mimeType", ColumnType::Text, Rule::Text { min: 0, max: 256 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 }),
        ),
        column("asset_ids", "assetIds", ColumnType::Int8Array, Rule::Ids { max: 1000 }),
        column(
            "asset_external_ids",
            "assetExternalIds",
            ColumnType::TextArray,
            Rule::References { to: &ASSET, property: "assetIds", max: 1000 },
        ),
        column("labels", "labels", ColumnType::TextArray, Rule::Labels { max: 10 }),
        column("source_created_time", "sourceCreatedTime", ColumnType::Timestamptz, Rule::Timestamp),
        column("source_modified_time", "sourceModifiedTime", ColumnType::Timestamptz, Rule::Timestamp),
        fixed("uploaded", "uploaded", ColumnType::Bool, Rule::ReadOnly),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Items,
    // CDF updates 1000 at a time, but creates one by one: smaller parts are created beside each other.
    shape: Shape::Items(Items {
        path: "/files",
        per_request: 100,
        create: Create::One,
        required: &["name"],
        ordered: &[],
        updatable: true,
        deletable: true,
    }),
    acl: "filesAcl",
};
