//! Runs of extraction pipelines (POST /extpipes/runs, as Cognite's SDKs send it). A run is only ever added, and listed by its
//! pipeline.

use super::extraction_pipelines::PATH;
use super::*;

/// What a run may report.
const STATUSES: &[&str] = &["success", "failure", "seen"];

pub static EXTRACTION_PIPELINE_RUNS: Resource = Resource {
    name: "extraction_pipeline_runs",
    noun: "extraction pipeline run",
    columns: &[
        fixed("id", "id", ColumnType::Int8, Rule::ReadOnly),
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
    stage: Stage::Journals,
    shape: Shape::Journal(Journal {
        // CDF takes one run per request.
        items: Items {
            path: "/extpipes/runs",
            per_request: 1,
            create: Create::Many,
            required: &["external_id", "status"],
            ordered: &[],
            updatable: false,
            deletable: false,
            shortest_key: 1,
        },
        of: PATH,
        of_capability: "extractionPipelinesAcl:READ",
    }),
    acl: "extractionRunsAcl",
    usual_rows: 10_000,
};
