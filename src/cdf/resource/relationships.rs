//! Relationships (API description, `POST /relationships`). CDF knows them by external id only, and does not check that
//! what they connect exists.

use super::declare::*;

const TYPE: Rule = Rule::OneOf(&["asset", "timeSeries", "file", "event", "sequence"]);

pub static RELATIONSHIPS: Resource = Resource {
    name: "relationships",
    noun: "relationship",
    columns: &[
        EXTERNAL_ID,
        fixed("source_external_id", "sourceExternalId", ColumnType::Text, Rule::Text { min: 1, max: 255 })
            .filter(Filter::List { property: "sourceExternalIds", max: 1000, root: false }),
        fixed("source_type", "sourceType", ColumnType::Text, TYPE),
        fixed("target_external_id", "targetExternalId", ColumnType::Text, Rule::Text { min: 1, max: 255 })
            .filter(Filter::List { property: "targetExternalIds", max: 1000, root: false }),
        fixed("target_type", "targetType", ColumnType::Text, TYPE),
        column("start_time", "startTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
        column("end_time", "endTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
        column("confidence", "confidence", ColumnType::Float8, Rule::Number { min: 0.0, max: 1.0 }),
        column("labels", "labels", ColumnType::TextArray, Rule::Labels { max: 10 }).filter(Filter::Labels),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: "/relationships",
    shape: Shape::Items(Items {
        required: &["external_id", "source_external_id", "source_type", "target_external_id", "target_type"],
        ordered: &[Ordered { first: "start_time", second: "end_time", may_be_equal: false }],
        shortest_key: 1,
        ..ITEMS
    }),
    acl: "relationshipsAcl",
    ..CLASSIC
};
