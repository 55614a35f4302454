//! Events (API description, `POST /events`).

use super::declare::*;

pub static EVENTS: Resource = Resource {
    name: "events",
    noun: "event",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        column("start_time", "startTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
        column("end_time", "endTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: true }),
        column("type", "type", ColumnType::Text, Rule::Text { min: 0, max: 64 }).filter_equal(),
        column("subtype", "subtype", ColumnType::Text, Rule::Text { min: 0, max: 64 }).filter_equal(),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 500 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 128_000, total: 200_000 }),
        )
        .filter(Filter::Metadata),
        column("asset_ids", "assetIds", ColumnType::Int8Array, Rule::Ids { max: 10_000 })
            .filter(Filter::List { property: "assetIds", max: 5000, root: false }),
        column(
            "asset_external_ids",
            "assetExternalIds",
            ColumnType::TextArray,
            Rule::References { to: &ASSET, property: "assetIds", max: 10_000 },
        )
        .filter(Filter::List { property: "assetExternalIds", max: 5000, root: false }),
        column("source", "source", ColumnType::Text, Rule::Text { min: 0, max: 128 }).filter_equal(),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: "/events",
    shape: Shape::Items(Items {
        ordered: &[Ordered { first: "start_time", second: "end_time", may_be_equal: true }],
        ..ITEMS
    }),
    acl: "eventsAcl",
    usual_rows: 100_000,
    ..CLASSIC
};
