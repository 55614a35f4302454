//! Datapoints of time series (API description, `POST /timeseries/data`).

use super::*;

/// Points per insert request.
pub const POINTS_PER_REQUEST: usize = 100_000;
/// Series per insert request.
pub const SERIES_PER_REQUEST: usize = 10_000;
/// Stretches of time per delete request.
pub const RANGES_PER_REQUEST: usize = 10_000;
/// First millisecond of a point: 1900-01-01.
pub const FIRST_TIMESTAMP: i64 = -2_208_988_800_000;
/// Last millisecond of a point: 2099-12-31 23:59:59.999.
pub const LAST_TIMESTAMP: i64 = 4_102_444_799_999;
/// Largest magnitude of a numeric value.
pub const LARGEST_VALUE: f64 = 1e100;
/// UTF-8 bytes of a string value.
pub const STRING_BYTES: usize = 1023;

const fn columns(value: ColumnType) -> [Column; 8] {
    [
        fixed("id", "id", ColumnType::Int8, Rule::Part),
        fixed("external_id", "externalId", ColumnType::Text, Rule::Part),
        fixed("instance_space", "instanceSpace", ColumnType::Text, Rule::Part),
        fixed("instance_external_id", "instanceExternalId", ColumnType::Text, Rule::Part),
        fixed("timestamp", "timestamp", ColumnType::Timestamptz, Rule::Part),
        fixed("value", "value", value, Rule::Part),
        fixed("status_code", "statusCode", ColumnType::Int8, Rule::Part),
        fixed("status_symbol", "statusSymbol", ColumnType::Text, Rule::Part),
    ]
}

static NUMERIC_COLUMNS: [Column; 8] = columns(ColumnType::Float8);
static STRING_COLUMNS: [Column; 8] = columns(ColumnType::Text);

pub static DATAPOINTS: Resource = Resource {
    name: "datapoints",
    noun: "datapoint",
    columns: &NUMERIC_COLUMNS,
    stage: Stage::Points,
    shape: Shape::Datapoints { string: false },
    acl: "timeSeriesAcl",
    usual_rows: 1_000_000,
};

pub static STRING_DATAPOINTS: Resource = Resource {
    name: "string_datapoints",
    noun: "string datapoint",
    columns: &STRING_COLUMNS,
    stage: Stage::Points,
    shape: Shape::Datapoints { string: true },
    acl: "timeSeriesAcl",
    usual_rows: 1_000_000,
};
