//! Events (API description, `POST /events`).

use super::*;

pub static EVENTS: Resource = Resource {
    name: "events",
    noun: "event",
    columns: &[
        ID,
        EXTERNAL_ID,
        column("start_time", "startTime", ColumnType::Timestamptz, Rule::Timestamp),
        column("end_time", "endTime", ColumnType::Timestamptz, Rule::Timestamp),
        column("type", "type", ColumnType::Text, Rule::Text { min: 0, max: 64 }),
        column("subtype", "subtype", ColumnType::Text, Rule::Text { min: 0, max: 64 }),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 500 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 128_000, total: 200_000 }),
        ),
        column("asset_ids", "assetIds", ColumnType::Int8Array, Rule::Ids { max: 10_000 }),
        column(
            "asset_external_ids",
            "assetExternalIds",
            ColumnType::TextArray,
            Rule::References { to: &ASSET, property: "assetIds", max: 10_000 },
        ),
        column("source", "source", ColumnType::Text, Rule::Text { min: 0, max: 128 }),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Items,
    shape: Shape::Items(Items {
        path: "/events",
        per_request: 1000,
        create: Create::Many,
        required: &[],
        ordered: &[("start_time", "end_time")],
        updatable: true,
        deletable: true,
    }),
    acl: "eventsAcl",
};
