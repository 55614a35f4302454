//! Runs of extraction pipelines (POST /extpipes/runs, as Cognite's SDKs send it). A run is only ever added, and listed by its
//! pipeline.

use super::declare::*;

/// What a run may report.
const STATUSES: &[&str] = &["success", "failure", "seen"];

const READ_PIPELINES: &str = "extractionPipelinesAcl:READ";

static PIPELINES: Owner = Owner {
    path: paths::EXTRACTION_PIPELINES,
    named_by: &[&[Role::ExternalId]],
    capability: Some(READ_PIPELINES),
};

pub static EXTRACTION_PIPELINE_RUNS: Resource = Resource {
    name: "extraction_pipeline_runs",
    noun: "extraction pipeline run",
    columns: &[
        fixed("id", "id", ColumnType::Int8, Rule::ReadOnly).role(Role::Id),
        fixed("external_id", "externalId", ColumnType::Text, Rule::Subject).filter_equal(),
        fixed("status", "status", ColumnType::Text, Rule::OneOf(STATUSES)).filter(Filter::List {
            property: "statuses",
            max: STATUSES.len(),
            root: false,
        }),
        fixed("message", "message", ColumnType::Text, Rule::Text { min: 0, max: 1000 }),
        fixed("created_time", "createdTime", ColumnType::Timestamptz, Rule::Timestamp)
            .filter(Filter::Range { nullable: false }),
    ],
    shape: Shape::Journal(Items { required: &["external_id", "status"], shortest_key: 1, ..ITEMS }),
    path: "/extpipes/runs",
    // CDF takes one run per request.
    per_request: 1,
    keys: &[],
    owner: Some(&PIPELINES),
    turn: Turn::Last,
    updatable: false,
    deletable: false,
    refers_to: &[paths::EXTRACTION_PIPELINES],
    referred_to: false,
    acl: "extractionRunsAcl",
    also_needs: Some(READ_PIPELINES),
    ..CLASSIC
};
