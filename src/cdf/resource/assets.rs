//! Assets (API description, `POST /assets`).

use super::declare::*;

pub static ASSETS: Resource = Resource {
    name: "assets",
    noun: "asset",
    columns: &[
        ID,
        EXTERNAL_ID.filter(Filter::Prefix),
        fixed("name", "name", ColumnType::Text, Rule::Text { min: 1, max: 140 }).filter_equal(),
        fixed("parent_id", "parentId", ColumnType::Int8, Rule::IdOf).filter(Filter::List {
            property: "parentIds",
            max: 100,
            root: true,
        }),
        fixed("parent_external_id", "parentExternalId", ColumnType::Text, Rule::Parent)
            .filter(Filter::List { property: "parentExternalIds", max: 100, root: false }),
        column("description", "description", ColumnType::Text, Rule::Text { min: 0, max: 500 }),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 }),
        )
        .filter(Filter::Metadata),
        column("source", "source", ColumnType::Text, Rule::Text { min: 0, max: 128 }).filter_equal(),
        DATA_SET_ID,
        DATA_SET_EXTERNAL_ID,
        column("labels", "labels", ColumnType::TextArray, Rule::Labels { max: 10 }).filter(Filter::Labels),
        column("geo_location", "geoLocation", ColumnType::Jsonb, Rule::GeoLocation),
        fixed("root_id", "rootId", ColumnType::Int8, Rule::ReadOnly),
        CREATED_TIME.filter(Filter::Range { nullable: false }),
        LAST_UPDATED_TIME.filter(Filter::Range { nullable: false }),
    ],
    path: paths::ASSETS,
    shape: Shape::Items(Items { required: &["name"], ..ITEMS }),
    turn: Turn::At(Stage::Assets),
    hierarchy: true,
    acl: "assetsAcl",
    ..CLASSIC
};
