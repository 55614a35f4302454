//! Data sets (API description, `POST /datasets`). CDF cannot delete them.

use super::declare::*;

pub static DATA_SETS: Resource = Resource {
    name: "data_sets",
    noun: "data set",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        column("name", "name", ColumnType::Text, Rule::Text { min: 1, max: 50 }),
        column("description", "description", ColumnType::Text, Rule::Text { min: 1, max: 500 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 }),
        )
        .filter(Filter::Metadata),
        fixed("write_protected", "writeProtected", ColumnType::Bool, Rule::Bool).filter_equal(),
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: paths::DATA_SETS,
    per_request: 10,
    per_update: 10,
    per_delete: 10,
    turn: Turn::At(Stage::DataSets),
    deletable: false,
    acl: "datasetsAcl",
    usual_rows: 100,
    ..CLASSIC
};
