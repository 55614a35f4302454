//! The protocol buffer messages of data points, field for field as CDF numbers them. State series are left out.

use prost::{Message, Oneof};

/// Body of an insert.
#[derive(Clone, PartialEq, Message)]
pub struct InsertionRequest {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<InsertionItem>,
}

/// Points of one series.
#[derive(Clone, PartialEq, Message)]
pub struct InsertionItem {
    #[prost(oneof = "Reference", tags = "1, 2, 5")]
    pub reference: Option<Reference>,
    #[prost(oneof = "Datapoints", tags = "3, 4")]
    pub datapoints: Option<Datapoints>,
}

/// Which series.
#[derive(Clone, PartialEq, Oneof)]
pub enum Reference {
    #[prost(int64, tag = "1")]
    Id(i64),
    #[prost(string, tag = "2")]
    ExternalId(String),
    #[prost(message, tag = "5")]
    InstanceId(InstanceId),
}

/// A data model instance.
#[derive(Clone, PartialEq, Message)]
pub struct InstanceId {
    #[prost(string, tag = "1")]
    pub space: String,
    #[prost(string, tag = "2")]
    pub external_id: String,
}

/// Points of either type. The tags are the same in requests and answers.
#[derive(Clone, PartialEq, Oneof)]
pub enum Datapoints {
    #[prost(message, tag = "3")]
    Numeric(NumericDatapoints),
    #[prost(message, tag = "4")]
    String(StringDatapoints),
}

/// Numeric points.
#[derive(Clone, PartialEq, Message)]
pub struct NumericDatapoints {
    #[prost(message, repeated, tag = "1")]
    pub datapoints: Vec<NumericDatapoint>,
}

/// String points.
#[derive(Clone, PartialEq, Message)]
pub struct StringDatapoints {
    #[prost(message, repeated, tag = "1")]
    pub datapoints: Vec<StringDatapoint>,
}

/// A numeric point. Absent fields are their defaults: 0 is not on the wire.
#[derive(Clone, PartialEq, Message)]
pub struct NumericDatapoint {
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(message, optional, tag = "3")]
    pub status: Option<Status>,
    #[prost(bool, tag = "4")]
    pub null_value: bool,
}

/// A string point.
#[derive(Clone, PartialEq, Message)]
pub struct StringDatapoint {
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(message, optional, tag = "3")]
    pub status: Option<Status>,
    #[prost(bool, tag = "4")]
    pub null_value: bool,
}

/// Status of a point.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int64, tag = "1")]
    pub code: i64,
    #[prost(string, tag = "2")]
    pub symbol: String,
}

/// Answer to a list.
#[derive(Clone, PartialEq, Message)]
pub struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<ListItem>,
}

/// Points of one series in an answer.
#[derive(Clone, PartialEq, Message)]
pub struct ListItem {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(string, tag = "2")]
    pub external_id: String,
    #[prost(message, optional, tag = "11")]
    pub instance_id: Option<InstanceId>,
    #[prost(bool, tag = "6")]
    pub is_string: bool,
    #[prost(bool, tag = "7")]
    pub is_step: bool,
    #[prost(string, tag = "8")]
    pub unit: String,
    #[prost(string, tag = "9")]
    pub next_cursor: String,
    #[prost(string, tag = "10")]
    pub unit_external_id: String,
    /// 1: numeric, 2: string.
    #[prost(int32, tag = "12")]
    pub series_type: i32,
    #[prost(oneof = "Datapoints", tags = "3, 4")]
    pub datapoints: Option<Datapoints>,
}
