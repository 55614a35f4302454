//! Extraction pipelines (POST /extpipes, as Cognite's SDKs send it). CDF has no setNull for them: what is empty is not set.

use super::declare::*;

const RAW_TABLES: Rule =
    Rule::Objects(&[Member::text("dbName").required(), Member::text("tableName").required()]);
const CONTACTS: Rule = Rule::Objects(&[
    Member::text("name"),
    Member::text("email"),
    Member::text("role"),
    Member::boolean("sendNotification"),
]);
const NOTIFICATION: Rule = Rule::Object(&[Member::integer("allowedNotSeenRangeInMinutes")]);

const EMPTY_TEXT: &str = "\"\"";

const fn text(name: &'static str, property: &'static str, max: usize) -> Column {
    column(name, property, ColumnType::Text, Rule::Text { min: 0, max }).empty(EMPTY_TEXT)
}

/// A time at which a run told something; 0 before there was one.
const fn last(name: &'static str, property: &'static str) -> Column {
    fixed(name, property, ColumnType::Timestamptz, Rule::ReadOnly).empty("0")
}

pub static EXTRACTION_PIPELINES: Resource = Resource {
    name: "extraction_pipelines",
    noun: "extraction pipeline",
    columns: &[
        ID,
        EXTERNAL_ID,
        fixed("name", "name", ColumnType::Text, Rule::Text { min: 1, max: 140 }).filter_equal(),
        text("description", "description", 500),
        DATA_SET_ID.filter(Filter::None).needed(),
        DATA_SET_EXTERNAL_ID.filter(Filter::None).needed(),
        column("raw_tables", "rawTables", ColumnType::Jsonb, RAW_TABLES).empty("[]"),
        text("schedule", "schedule", 255),
        column("contacts", "contacts", ColumnType::Jsonb, CONTACTS).empty("[]"),
        column(
            "metadata",
            "metadata",
            ColumnType::Jsonb,
            Rule::Metadata(MetadataLimits { pairs: 256, key: 128, value: 10_240, total: 10_240 }),
        ),
        text("source", "source", 255).filter_equal(),
        text("documentation", "documentation", 10_000),
        column("notification_config", "notificationConfig", ColumnType::Jsonb, NOTIFICATION).empty("{}"),
        fixed("created_by", "createdBy", ColumnType::Text, Rule::ImmutableText { min: 0, max: 255 }),
        last("last_success", "lastSuccess"),
        last("last_failure", "lastFailure"),
        fixed("last_message", "lastMessage", ColumnType::Text, Rule::ReadOnly).empty(EMPTY_TEXT),
        last("last_seen", "lastSeen"),
        CREATED_TIME,
        LAST_UPDATED_TIME,
    ],
    path: paths::EXTRACTION_PIPELINES,
    shape: Shape::Items(Items {
        required: &["external_id", "name", "data_set_id"],
        shortest_key: 1,
        ..ITEMS
    }),
    acl: "extractionPipelinesAcl",
    usual_rows: 100,
    ..CLASSIC
};
