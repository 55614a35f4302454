//! Datapoints of time series (API description, `POST /timeseries/data`).

use super::declare::*;

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

const fn columns(value: Column) -> [Column; 8] {
    [
        fixed(
            "id",
            "id",
            ColumnType::Int8,
            Rule::part("CDF's internal id of the time series; a row names it in one way"),
        )
        .role(Role::Id),
        fixed(
            "external_id",
            "externalId",
            ColumnType::Text,
            Rule::part("external id of the time series; a row names it in one way"),
        )
        .role(Role::ExternalId),
        fixed(
            "instance_space",
            "instanceSpace",
            ColumnType::Text,
            Rule::part("space of the node that is the time series"),
        )
        .role(Role::NodeSpace),
        fixed(
            "instance_external_id",
            "instanceExternalId",
            ColumnType::Text,
            Rule::part("external id of the node that is the time series"),
        )
        .role(Role::NodeExternalId),
        fixed(
            "timestamp",
            "timestamp",
            ColumnType::Timestamptz,
            Rule::limited(
                "the key within the series; in milliseconds, from {} to {}",
                &[Limit::Year(FIRST_TIMESTAMP), Limit::Year(LAST_TIMESTAMP)],
            ),
        )
        .role(Role::Timestamp),
        value,
        fixed(
            "status_code",
            "statusCode",
            ColumnType::Int8,
            Rule::part("OPC UA status; 0, Good, by default"),
        )
        .role(Role::StatusCode),
        fixed(
            "status_symbol",
            "statusSymbol",
            ColumnType::Text,
            Rule::part("name of the status; give this or the code"),
        )
        .role(Role::StatusSymbol),
    ]
}

const fn value(column_type: ColumnType, rule: Rule) -> Column {
    fixed("value", "value", column_type, rule).role(Role::Value)
}

static NUMERIC_COLUMNS: [Column; 8] = columns(value(
    ColumnType::Float8,
    Rule::limited(
        "a number of the series' unit, from {} to {}",
        &[Limit::Number(-LARGEST_VALUE), Limit::Number(LARGEST_VALUE)],
    ),
));
static STRING_COLUMNS: [Column; 8] = columns(value(
    ColumnType::Text,
    Rule::limited("a text of at most {} bytes of UTF-8", &[Limit::Count(STRING_BYTES)]),
));

/// Where the series are that points are of.
pub static SERIES: Owner = Owner {
    path: paths::TIME_SERIES,
    named_by: &[&[Role::ExternalId], &[Role::Id], &[Role::NodeSpace, Role::NodeExternalId]],
    capability: None,
};

const POINTS: Resource = Resource {
    path: "/timeseries/data",
    per_request: POINTS_PER_REQUEST,
    per_delete: RANGES_PER_REQUEST,
    per_page: POINTS_PER_REQUEST,
    keys: &[
        &[Role::ExternalId, Role::Timestamp],
        &[Role::Id, Role::Timestamp],
        &[Role::NodeSpace, Role::NodeExternalId, Role::Timestamp],
    ],
    owner: Some(&SERIES),
    turn: Turn::At(Stage::Points),
    refers_to: &[paths::TIME_SERIES, paths::INSTANCES],
    referred_to: false,
    acl: "timeSeriesAcl",
    usual_rows: 1_000_000,
    ..CLASSIC
};

pub static DATAPOINTS: Resource = Resource {
    name: "datapoints",
    noun: "datapoint",
    columns: &NUMERIC_COLUMNS,
    shape: Shape::Datapoints { string: false },
    ..POINTS
};

pub static STRING_DATAPOINTS: Resource = Resource {
    name: "string_datapoints",
    noun: "string datapoint",
    columns: &STRING_COLUMNS,
    shape: Shape::Datapoints { string: true },
    ..POINTS
};
