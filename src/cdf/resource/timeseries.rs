//! Time series (API description, `POST /timeseries`).

use super::declare::*;

pub static TIMESERIES: Resource = Resource {
    name: "timeseries",
    noun: "time series",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        column("name", "name", ColumnType::Text, Rule::Text { min: 0, max: 255 }).filter_equal(),
        fixed("is_string", "isString", ColumnType::Bool, Rule::ImmutableBool).filter_equal(),
        fixed("is_step", "isStep", ColumnType::Bool, Rule::Bool).filter_equal(),
        column("unit", "unit", ColumnType::Text, Rule::Text { min: 0, max: 32 }).filter_equal(),
        column("unit_external_id", "unitExternalId", ColumnType::Text, Rule::Text { min: 0, max: 64 })
            .filter_equal(),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 1000 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 }),
        )
        .filter(Filter::Metadata),
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
        )
        .filter(Filter::List { property: "assetExternalIds", max: 100, root: false }),
        column("security_categories", "securityCategories", ColumnType::Int8Array, Rule::Ids { max: 100 }),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: paths::TIME_SERIES,
    turn: Turn::At(Stage::Series),
    acl: "timeSeriesAcl",
    ..CLASSIC
};
