//! Paths of resources that others refer to.

pub const ASSETS: &str = "/assets";
pub const DATA_SETS: &str = "/datasets";
pub const EXTRACTION_PIPELINES: &str = "/extpipes";
pub const INSTANCES: &str = "/models/instances";
pub const LABELS: &str = "/labels";
pub const SEQUENCES: &str = "/sequences";
pub const TIME_SERIES: &str = "/timeseries";
