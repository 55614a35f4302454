//! The points of a request, in protobuf and in JSON.
//!
//! The protobuf messages are walked with prost's primitives instead of being decoded into structs. Nothing is
//! allocated, so that takes half of the time (16 ns per point instead of 31 to 33). The field numbers are those of
//! CDF's published `DataPointInsertionRequest`.

use hashbrown::HashSet;
use std::borrow::Cow;
use std::fmt;

use prost::encoding::{decode_key, decode_varint, skip_field, DecodeContext, WireType};
use prost::DecodeError;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::tally::{Key, Keys, Totals};

/// CDF's limit for one request.
const SERIES_PER_REQUEST: usize = 10_000;
const POINTS_PER_REQUEST: u64 = 100_000;

/// The contents of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Counts and sums; `parts` are series.
    pub totals: Totals,
    /// The series, each once.
    pub series: HashSet<Key>,
}

impl Points {
    fn add(&mut self, series: Key, points: Sums) -> Result<(), String> {
        if !self.series.insert(series) {
            return Err("a series is twice in one request".into());
        }
        self.totals.add(&Totals {
            items: points.count,
            parts: 1,
            timestamps: points.timestamps,
            values: points.values,
            ..Totals::default()
        });
        if self.series.len() > SERIES_PER_REQUEST || self.totals.items > POINTS_PER_REQUEST {
            return Err(format!("more than {SERIES_PER_REQUEST} series or {POINTS_PER_REQUEST} points"));
        }
        Ok(())
    }
}

/// The points of one series.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    count: u64,
    timestamps: u64,
    values: u64,
}

impl Sums {
    fn point(&mut self, timestamp: i64, value: u64) {
        self.count += 1;
        self.timestamps = self.timestamps.wrapping_add(timestamp as u64);
        self.values = self.values.wrapping_add(value);
    }
}

/// Reads a protobuf request.
///
/// # Errors
/// A text if the request is not readable, or is not what CDF takes.
pub fn from_protobuf(mut body: &[u8], keys: &Keys) -> Result<Points, String> {
    let mut points = Points::default();
    while !body.is_empty() {
        match field(&mut body)? {
            (1, Field::Bytes(item)) => {
                let (series, sums) = series(item, keys)?;
                points.add(series.ok_or("points without a series")?, sums)?;
            }
            (tag, _) => return Err(format!("field {tag} of the request is unknown")),
        }
    }
    Ok(points)
}

/// A field of a message, borrowed from it.
enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
    Other,
}

#[inline(always)]
fn field<'a>(message: &mut &'a [u8]) -> Result<(u32, Field<'a>), Unreadable> {
    let (tag, wire_type) = match message {
        // Nearly all keys have one byte.
        [key @ ..0x80, rest @ ..] if *key >= 8 => {
            *message = rest;
            (u32::from(*key >> 3), WireType::try_from(u64::from(*key & 7))?)
        }
        _ => decode_key(message)?,
    };
    let field = match wire_type {
        WireType::Varint => Field::Varint(varint(message)?),
        WireType::LengthDelimited => {
            let length = varint(message)?;
            let length = usize::try_from(length).map_err(|_| Unreadable)?;
            let (bytes, rest) = message.split_at_checked(length).ok_or(Unreadable)?;
            *message = rest;
            Field::Bytes(bytes)
        }
        WireType::SixtyFourBit => {
            let (bytes, rest) = message.split_first_chunk().ok_or(Unreadable)?;
            *message = rest;
            Field::Fixed(u64::from_le_bytes(*bytes))
        }
        other => {
            skip_field(other, tag, message, DecodeContext::default())?;
            Field::Other
        }
    };
    Ok((tag, field))
}

/// As prost's function, which is slower because it does not assume that lengths of points have one byte.
#[inline(always)]
fn varint(message: &mut &[u8]) -> Result<u64, Unreadable> {
    match message {
        [byte @ ..0x80, rest @ ..] => {
            let value = u64::from(*byte);
            *message = rest;
            Ok(value)
        }
        _ => Ok(decode_varint(message)?),
    }
}

/// The bytes are no message. It has no text, because a result with a text is several times slower to pass on.
#[derive(Debug)]
struct Unreadable;

impl From<DecodeError> for Unreadable {
    fn from(_: DecodeError) -> Self {
        Unreadable
    }
}

impl From<Unreadable> for String {
    fn from(_: Unreadable) -> Self {
        "the protobuf message is not readable".into()
    }
}

/// Reads a `DataPointInsertionItem`: the series, and its points.
fn series(mut item: &[u8], keys: &Keys) -> Result<(Option<Key>, Sums), Unreadable> {
    let (mut series, mut sums) = (None, Sums::default());
    while !item.is_empty() {
        match field(&mut item)? {
            (1, Field::Varint(id)) => series = Some(keys.hash("id", &id.to_le_bytes())),
            (2, Field::Bytes(name)) => series = Some(keys.hash("external id", name)),
            (5, Field::Bytes(instance)) => series = Some(keys.hash("instance", instance)),
            (3, Field::Bytes(numeric)) => datapoints(numeric, &mut sums)?,
            (4, Field::Bytes(texts)) => datapoints(texts, &mut sums)?,
            _ => {}
        }
    }
    Ok((series, sums))
}

/// Reads `NumericDatapoints` and `StringDatapoints`, which differ in the wire type of the value. Absent values are 0.
fn datapoints(mut points: &[u8], sums: &mut Sums) -> Result<(), Unreadable> {
    while !points.is_empty() {
        let (1, Field::Bytes(mut point)) = field(&mut points)? else { continue };
        let (mut timestamp, mut value) = (0, 0);
        while !point.is_empty() {
            match field(&mut point)? {
                (1, Field::Varint(milliseconds)) => timestamp = milliseconds as i64,
                (2, Field::Fixed(bits)) => value = bits,
                (2, Field::Bytes(text)) => value = text.len() as u64,
                _ => {}
            }
        }
        sums.point(timestamp, value);
    }
    Ok(())
}

#[derive(Deserialize)]
struct JsonRequest<'a> {
    #[serde(borrow)]
    items: Vec<JsonItem<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonItem<'a> {
    id: Option<i64>,
    #[serde(borrow, default)]
    external_id: Cow<'a, str>,
    datapoints: Sums,
}

#[derive(Deserialize)]
struct JsonPoint {
    timestamp: i64,
    #[serde(default)]
    value: Bits,
}

/// The value of a point, as it is added up.
#[derive(Default)]
struct Bits(u64);

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Bits;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_f64<E>(self, number: f64) -> Result<Bits, E> {
                Ok(Bits(number.to_bits()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Bits, E> {
                Ok(Bits((number as f64).to_bits()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Bits, E> {
                Ok(Bits((number as f64).to_bits()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Bits, E> {
                Ok(Bits(text.len() as u64))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

impl<'de> Deserialize<'de> for Sums {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Sums;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of points")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sums, A::Error> {
                let mut sums = Sums::default();
                while let Some(point) = list.next_element::<JsonPoint>()? {
                    sums.point(point.timestamp, point.value.0);
                }
                Ok(sums)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Reads a JSON request.
///
/// # Errors
/// As [`from_protobuf`].
pub fn from_json(body: &[u8], keys: &Keys) -> Result<Points, String> {
    let request: JsonRequest<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut points = Points::default();
    for item in request.items {
        let series = match (item.id, &*item.external_id) {
            (Some(id), "") => keys.hash("id", &id.to_le_bytes()),
            (None, name) if !name.is_empty() => keys.hash("external id", name.as_bytes()),
            _ => return Err("a series is addressed by its id or its external id".into()),
        };
        points.add(series, item.datapoints)?;
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The messages as prost encodes them.
    mod wire {
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Request {
            #[prost(message, repeated, tag = "1")]
            pub items: Vec<Item>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Item {
            #[prost(int64, optional, tag = "1")]
            pub id: Option<i64>,
            #[prost(string, optional, tag = "2")]
            pub external_id: Option<String>,
            #[prost(message, optional, tag = "3")]
            pub numeric: Option<Numeric>,
            #[prost(message, optional, tag = "4")]
            pub texts: Option<Texts>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Numeric {
            #[prost(message, repeated, tag = "1")]
            pub datapoints: Vec<Point>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Texts {
            #[prost(message, repeated, tag = "1")]
            pub datapoints: Vec<Text>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Point {
            #[prost(int64, tag = "1")]
            pub timestamp: i64,
            #[prost(double, tag = "2")]
            pub value: f64,
            #[prost(message, optional, tag = "3")]
            pub status: Option<Status>,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Text {
            #[prost(int64, tag = "1")]
            pub timestamp: i64,
            #[prost(string, tag = "2")]
            pub value: String,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Status {
            #[prost(int64, tag = "1")]
            pub code: i64,
        }
    }

    fn request(items: Vec<wire::Item>) -> Vec<u8> {
        wire::Request { items }.encode_to_vec()
    }

    fn item(name: &str, points: &[(i64, f64)]) -> wire::Item {
        let point = |&(timestamp, value): &(i64, f64)| wire::Point { timestamp, value, status: None };
        wire::Item {
            external_id: Some(name.into()),
            numeric: Some(wire::Numeric { datapoints: points.iter().map(point).collect() }),
            ..Default::default()
        }
    }

    #[test]
    fn both_formats_give_the_same_sums() {
        let keys = Keys::default();
        let protobuf = request(vec![
            item("a", &[(0, 0.0), (1_767_225_600_000, 20.5), (-5, -1e100)]),
            item("b", &[(7, 3.0)]),
            wire::Item {
                id: Some(4),
                texts: Some(wire::Texts {
                    datapoints: vec![wire::Text { timestamp: 9, value: "åb".into() }],
                }),
                ..Default::default()
            },
        ]);
        let json = br#"{"items": [
            {"externalId": "a", "datapoints": [{"timestamp": 0, "value": 0.0}, {"value": 20.5, "timestamp": 1767225600000},
                {"timestamp": -5, "value": -1e100}]},
            {"datapoints": [{"timestamp": 7, "value": 3}], "externalId": "b"},
            {"id": 4, "datapoints": [{"timestamp": 9, "value": "\u00e5b"}]}]}"#;
        let values =
            [0.0f64, 20.5, -1e100, 3.0].iter().fold(3u64, |sum, value| sum.wrapping_add(value.to_bits()));
        let expected =
            Totals { items: 5, parts: 3, timestamps: 1_767_225_600_011, values, ..Totals::default() };
        let read = from_protobuf(&protobuf, &keys).unwrap();
        assert_eq!((read.totals, read.series.len()), (expected, 3));
        assert_eq!(from_json(json, &keys).unwrap(), read);
    }

    #[test]
    fn a_status_does_not_count_as_anything_else() {
        let mut with = item("a", &[(5, 1.5)]);
        with.numeric.as_mut().unwrap().datapoints[0].status = Some(wire::Status { code: 1_073_741_824 });
        let keys = Keys::default();
        let read = |items| from_protobuf(&request(items), &keys).unwrap();
        assert_eq!(read(vec![with]), read(vec![item("a", &[(5, 1.5)])]));
    }

    #[test]
    fn what_cdf_refuses_is_refused() {
        let keys = Keys::default();
        let refused = |items: Vec<wire::Item>| from_protobuf(&request(items), &keys).unwrap_err();
        assert!(refused(vec![item("a", &[]), item("a", &[])]).contains("twice"));
        assert!(refused(vec![wire::Item::default()]).contains("without a series"));
        let many = |count: i64| (0..count).map(|at| (at, 1.0)).collect::<Vec<_>>();
        assert!(refused(vec![item("a", &many(100_001))]).contains("more than"));
        assert!(from_protobuf(&request(vec![item("a", &many(100_000))]), &keys).is_ok());
        let series = |count: i32| (0..count).map(|at| item(&at.to_string(), &[])).collect::<Vec<_>>();
        assert!(refused(series(10_001)).contains("more than"));
        assert!(from_protobuf(&request(series(10_000)), &keys).is_ok());
        assert!(from_json(br#"{"items":[{"externalId":"a","id":1,"datapoints":[]}]}"#, &keys).is_err());
        assert!(from_json(br#"{"items":[{"externalId":"a","datapoints":[{"value":1}]}]}"#, &keys).is_err());
    }

    #[test]
    fn a_request_that_was_cut_is_never_read_as_a_whole_one() {
        let keys = Keys::default();
        let whole = request(vec![item("series", &[(1_767_225_600_000, 20.5), (1_767_225_601_000, 21.5)])]);
        assert_eq!(from_protobuf(&whole, &keys).unwrap().totals.items, 2);
        for length in 1..whole.len() {
            assert!(from_protobuf(&whole[..length], &keys).is_err(), "{length}");
        }
    }
}
