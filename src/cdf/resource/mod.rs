//! The registry: every CDF resource, declared. A new resource is one file here and one line in [`RESOURCES`].

pub mod assets;
mod column;
mod comment;
mod data_sets;
pub mod datapoints;
mod declare;
mod definition;
mod events;
mod extraction_pipeline_runs;
mod extraction_pipelines;
mod files;
mod filter;
mod labels;
mod member;
mod naming;
pub mod paths;
pub mod properties;
pub mod raw;
mod reference;
mod relationships;
mod role;
mod rule;
pub mod sequence_rows;
pub mod sequences;
mod shape;
pub mod status;
pub mod timeseries;
mod turn;
pub mod view;

pub use column::{Column, ColumnType};
pub use definition::{Change, Owner, Resource};
pub use filter::Filter;
pub use member::{Member, MemberType};
pub use naming::Naming;
pub use reference::{ReferenceTarget, ASSET, DATA_SET};
pub use role::{InstanceEnd, Role};
pub use rule::{MetadataLimits, Rule, EXTERNAL_ID_CHARS, ID_RANGE};
pub use shape::{Create, Items, Ordered, Shape};
pub use turn::Turn;

use super::error::{Error, Kind};

/// Every resource, in the order in which IMPORT FOREIGN SCHEMA creates their tables.
pub static RESOURCES: &[&Resource] = &[
    &assets::ASSETS,
    &events::EVENTS,
    &timeseries::TIMESERIES,
    &datapoints::DATAPOINTS,
    &datapoints::STRING_DATAPOINTS,
    &raw::RAW_ROWS,
    &sequences::SEQUENCES,
    &sequence_rows::SEQUENCE_ROWS,
    &relationships::RELATIONSHIPS,
    &files::FILES,
    &labels::LABELS,
    &data_sets::DATA_SETS,
    &extraction_pipelines::EXTRACTION_PIPELINES,
    &extraction_pipeline_runs::EXTRACTION_PIPELINE_RUNS,
];

impl Resource {
    pub fn find(name: &str) -> Option<&'static Resource> {
        RESOURCES.iter().copied().chain([&view::NODES]).find(|resource| resource.name == name)
    }

    /// As [`Resource::find`]. The error lists the existing names.
    pub fn get(name: &str) -> Result<&'static Resource, Error> {
        Resource::find(name).ok_or_else(|| {
            let names: Vec<&str> =
                RESOURCES.iter().map(|resource| resource.name).chain([view::NODES.name]).collect();
            Error::new(Kind::InvalidOption, format!("there is no resource \"{name}\""))
                .hint(format!("Resources are: {}.", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for resource in RESOURCES {
            assert_eq!(Resource::get(resource.name).unwrap().name, resource.name);
            for (at, column) in resource.columns.iter().enumerate() {
                assert!(
                    resource.columns[..at].iter().all(|other| other.name != column.name),
                    "{}",
                    column.name
                );
                assert_eq!(resource.column(column.property).unwrap().name, column.name);
            }
        }
        let error = Resource::get("asset").unwrap_err();
        assert!(error.hint.as_ref().unwrap().contains("string_datapoints"));
    }
}
