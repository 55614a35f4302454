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

const fn columns(value: ColumnType, what: &'static str) -> [Column; 8] {
    [
        fixed(
            "id",
            "id",
            ColumnType::Int8,
            Rule::Part("CDF's internal id of the time series; a row names it in one way"),
        ),
        fixed(
            "external_id",
            "externalId",
            ColumnType::Text,
            Rule::Part("external id of the time series; a row names it in one way"),
        ),
        fixed(
            "instance_space",
            "instanceSpace",
            ColumnType::Text,
            Rule::Part("space of the node that is the time series"),
        ),
        fixed(
            "instance_external_id",
            "instanceExternalId",
            ColumnType::Text,
            Rule::Part("external id of the node that is the time series"),
        ),
        fixed(
            "timestamp",
            "timestamp",
            ColumnType::Timestamptz,
            Rule::Part("the key within the series; in milliseconds, from 1900 to 2099"),
        ),
        fixed("value", "value", value, Rule::Part(what)),
        fixed(
            "status_code",
            "statusCode",
            ColumnType::Int8,
            Rule::Part("OPC UA status; 0, Good, by default"),
        ),
        fixed(
            "status_symbol",
            "statusSymbol",
            ColumnType::Text,
            Rule::Part("name of the status; give this or the code"),
        ),
    ]
}

static NUMERIC_COLUMNS: [Column; 8] =
    columns(ColumnType::Float8, "a number of the series' unit, from -1e100 to 1e100");
static STRING_COLUMNS: [Column; 8] = columns(ColumnType::Text, "a text of at most 1023 bytes of UTF-8");

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
