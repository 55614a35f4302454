//! Labels (API description, `POST /labels`). CDF knows them by external id only, and cannot update them.

use super::declare::*;

pub static LABELS: Resource = Resource {
    name: "labels",
    noun: "label",
    columns: &[
        EXTERNAL_ID.filter(Filter::Prefix),
        fixed("name", "name", ColumnType::Text, Rule::Text { min: 1, max: 140 }).filter_equal(),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 500 }),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME,
    ],
    path: paths::LABELS,
    shape: Shape::Items(Items { required: &["external_id", "name"], ..ITEMS }),
    turn: Turn::At(Stage::Labels),
    updatable: false,
    acl: "labelsAcl",
    usual_rows: 100,
    ..CLASSIC
};
