//! Time series (API description, `POST /timeseries`).

use super::*;

pub static TIMESERIES: Resource = Resource {
    name: "timeseries",
    noun: "time series",
    columns: &[
        ID,
        EXTERNAL_ID,
        column("name", "name", ColumnType::Text, Rule::Text { min: 0, max: 255 }),
        fixed("is_string", "isString", ColumnType::Bool, Rule::ImmutableBool),
        fixed("is_step", "isStep", ColumnType::Bool, Rule::Bool),
        column("unit", "unit", ColumnType::Text, Rule::Text { min: 0, max: 32 }),
        column("unit_external_id", "unitExternalId", ColumnType::Text, Rule::Text { min: 0, max: 64 }),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 1000 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_000, total: 10_000 }),
        ),
        column("asset_id", "assetId", ColumnType::Int8, Rule::IdOf),
        column(
            "asset_external_id",
            "assetExternalId",
            ColumnType::Text,
            Rule::Reference { to: &ASSET, property: "assetId" },
        ),
        column("security_categories", "securityCategories", ColumnType::Int8Array, Rule::Ids { max: 100 }),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    stage: Stage::Series,
    shape: Shape::Items(Items {
        path: "/timeseries",
        per_request: 1000,
        create: Create::Many,
        required: &[],
        ordered: &[],
        updatable: true,
        deletable: true,
    }),
    acl: "timeSeriesAcl",
};
