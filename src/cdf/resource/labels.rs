//! Labels (API description, `POST /labels`). CDF knows them by external id only, and cannot update them.

use super::*;

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
    stage: Stage::Labels,
    shape: Shape::Items(Items {
        path: "/labels",
        per_request: 1000,
        create: Create::Many,
        required: &["external_id", "name"],
        ordered: &[],
        updatable: false,
        deletable: true,
        shortest_key: 0,
    }),
    acl: "labelsAcl",
    usual_rows: 100,
};
