//! Datapoints: a row becomes a point of its series in CDF's protobuf messages.
//!
//! Message and field numbers: `DataPointInsertionRequest` in CDF's published protobuf files (`v1/timeseries`).

use std::borrow::Cow;

use super::json::Refusal;
use super::row_name::describe_keys;
use super::value::{as_text, integer, internal_id, micros_to_millis, millis, mismatch};
use super::{json, refuse, KeyKind};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Identity, Kind};
use crate::cdf::resource::datapoints::{FIRST_TIMESTAMP, LARGEST_VALUE, LAST_TIMESTAMP, STRING_BYTES};
use crate::cdf::resource::{status, Role, EXTERNAL_ID_CHARS};
use crate::cdf::table::Table;

/// Wire messages.
pub mod wire {
    /// One request to insert datapoints.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InsertionRequest {
        #[prost(message, repeated, tag = "1")]
        pub items: Vec<InsertionItem>,
    }

    /// The points of one series.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InsertionItem {
        #[prost(oneof = "Reference", tags = "1, 2, 5")]
        pub reference: Option<Reference>,
        #[prost(oneof = "Points", tags = "3, 4")]
        pub points: Option<Points>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Reference {
        #[prost(int64, tag = "1")]
        Id(i64),
        #[prost(string, tag = "2")]
        ExternalId(String),
        #[prost(message, tag = "5")]
        Instance(InstanceId),
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Points {
        #[prost(message, tag = "3")]
        Numeric(NumericPoints),
        #[prost(message, tag = "4")]
        String(StringPoints),
    }

    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct InstanceId {
        #[prost(string, tag = "1")]
        pub space: String,
        #[prost(string, tag = "2")]
        pub external_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(int64, tag = "1")]
        pub code: i64,
        #[prost(string, tag = "2")]
        pub symbol: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NumericPoint {
        #[prost(int64, tag = "1")]
        pub timestamp: i64,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(message, optional, tag = "3")]
        pub status: Option<Status>,
        #[prost(bool, tag = "4")]
        pub null_value: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NumericPoints {
        #[prost(message, repeated, tag = "1")]
        pub datapoints: Vec<NumericPoint>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct StringPoint {
        #[prost(int64, tag = "1")]
        pub timestamp: i64,
        #[prost(string, tag = "2")]
        pub value: String,
        #[prost(message, optional, tag = "3")]
        pub status: Option<Status>,
        #[prost(bool, tag = "4")]
        pub null_value: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct StringPoints {
        #[prost(message, repeated, tag = "1")]
        pub datapoints: Vec<StringPoint>,
    }

    /// One page of an answer.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ListResponse {
        #[prost(message, repeated, tag = "1")]
        pub items: Vec<ListItem>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ListItem {
        #[prost(int64, tag = "1")]
        pub id: i64,
        #[prost(string, tag = "2")]
        pub external_id: String,
        #[prost(oneof = "Points", tags = "3, 4")]
        pub points: Option<Points>,
        #[prost(bool, tag = "6")]
        pub is_string: bool,
        #[prost(string, tag = "9")]
        pub next_cursor: String,
        #[prost(message, optional, tag = "11")]
        pub instance_id: Option<InstanceId>,
    }
}

/// The series of a row, borrowed from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SeriesRef<'a> {
    Id(i64),
    ExternalId(Cow<'a, str>),
    Instance(Cow<'a, str>, Cow<'a, str>),
}

impl SeriesRef<'_> {
    /// Returns an owned copy.
    pub fn identity(&self) -> Identity {
        match self {
            SeriesRef::Id(id) => Identity::Id(*id),
            SeriesRef::ExternalId(name) => Identity::ExternalId(name.clone().into_owned()),
            SeriesRef::Instance(space, external_id) => Identity::Instance {
                space: space.clone().into_owned(),
                external_id: external_id.clone().into_owned(),
            },
        }
    }

    /// Returns how the series is addressed.
    pub fn kind(&self) -> KeyKind {
        match self {
            SeriesRef::ExternalId(_) => KeyKind::Key,
            SeriesRef::Id(_) => KeyKind::Id,
            SeriesRef::Instance(..) => KeyKind::Instance,
        }
    }

    /// Appends the reference as members of a JSON object, without braces.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            SeriesRef::Id(id) => {
                out.extend_from_slice(b"\"id\":");
                json::write(out, id);
            }
            SeriesRef::ExternalId(external_id) => {
                out.extend_from_slice(b"\"externalId\":");
                json::write(out, &**external_id);
            }
            SeriesRef::Instance(space, external_id) => {
                out.extend_from_slice(b"\"instanceId\":{\"space\":");
                json::write(out, &**space);
                out.extend_from_slice(b",\"externalId\":");
                json::write(out, &**external_id);
                out.push(b'}');
            }
        }
    }
}

/// Reads the rows of one table of datapoints.
#[derive(Debug, Clone)]
pub struct PointEncoder {
    string: bool,
    id: Option<usize>,
    external_id: Option<usize>,
    instance_space: Option<usize>,
    instance_external_id: Option<usize>,
    timestamp: usize,
    value: usize,
    status_code: Option<usize>,
    status_symbol: Option<usize>,
    /// The columns that are NULL in a plain point.
    beside: Vec<usize>,
}

/// A point with nothing but a series' external id, a timestamp after 1970 in milliseconds, and a number. Nearly all points
/// are plain.
#[derive(Debug, Clone, Copy)]
pub struct PlainPoint<'r> {
    pub external_id: &'r str,
    pub timestamp: i64,
    pub value: f64,
}

/// A point that is not a plain one.
#[derive(Debug)]
pub struct EncodedPoint<'r> {
    pub series: SeriesRef<'r>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The point as an element of its series' list.
    pub element: &'r [u8],
}

/// Returns the ways to name a series, for errors.
fn ways(table: &Table) -> String {
    let [external_id, space, node] =
        [Role::ExternalId, Role::NodeSpace, Role::NodeExternalId].map(|role| table.name_of(role));
    format!("{external_id}, or id, or {space} and {node}")
}

impl PointEncoder {
    pub fn new(table: &Table, string: bool) -> Result<Self, Error> {
        let (timestamp, value) = (table.need(Role::Timestamp)?, table.need(Role::Value)?);
        let external_id = table.position_of(Role::ExternalId);
        let beside = |at: &usize| !(*at == timestamp || *at == value || Some(*at) == external_id);
        Ok(PointEncoder {
            beside: (0..table.bindings.len()).filter(beside).collect(),
            string,
            id: table.position_of(Role::Id),
            external_id,
            instance_space: table.position_of(Role::NodeSpace),
            instance_external_id: table.position_of(Role::NodeExternalId),
            timestamp,
            value,
            status_code: table.position_of(Role::StatusCode),
            status_symbol: table.position_of(Role::StatusSymbol),
        })
    }

    /// Returns the row's point if it is a plain one that CDF takes. [`Self::encode`] handles any other, and reports what is
    /// wrong with a row.
    #[inline]
    pub fn plain<'r>(&self, row: &'r [Cell<'_>]) -> Option<PlainPoint<'r>> {
        let (Cell::Text(external_id), Cell::Timestamp(micros), Cell::Float(value)) =
            (&row[self.external_id?], &row[self.timestamp], &row[self.value])
        else {
            return None;
        };
        let timestamp = micros_to_millis(*micros);
        // Bytes bound characters from above.
        let plain = external_id.len() <= EXTERNAL_ID_CHARS
            && (1..=LAST_TIMESTAMP).contains(&timestamp)
            && value.abs() <= LARGEST_VALUE
            && !self.string
            && self.beside.iter().all(|at| row[*at].is_null());
        plain.then_some(PlainPoint { external_id, timestamp, value: *value })
    }

    /// Returns the series that the row's point belongs to.
    pub fn series<'r>(&self, table: &Table, row: &'r [Cell<'_>]) -> Result<SeriesRef<'r>, Error> {
        let cell = |at: Option<usize>| at.map(|at| (at, &row[at])).filter(|(_, cell)| !cell.is_null());
        let text = |(at, cell): (usize, &'r Cell<'_>)| {
            // Bytes bound characters from above, so most names are never counted.
            let checked = as_text(cell).and_then(|text| match text.len() > EXTERNAL_ID_CHARS {
                true if text.chars().count() > EXTERNAL_ID_CHARS => Err((
                    Kind::TooLong,
                    format!(
                        "the value has {} characters; CDF takes {EXTERNAL_ID_CHARS}",
                        text.chars().count()
                    ),
                )),
                _ => Ok(text),
            });
            checked.map_err(|(kind, why)| refuse(kind, table, row, at, why))
        };
        match (
            cell(self.external_id),
            cell(self.id),
            cell(self.instance_space),
            cell(self.instance_external_id),
        ) {
            (Some(external_id), None, None, None) => Ok(SeriesRef::ExternalId(text(external_id)?)),
            (None, Some((at, id)), None, None) => {
                internal_id(id).map(SeriesRef::Id).map_err(|(kind, why)| refuse(kind, table, row, at, why))
            }
            (None, None, Some(space), Some(external_id)) => {
                Ok(SeriesRef::Instance(text(space)?, text(external_id)?))
            }
            (None, None, None, None) => Err(self
                .unnamed(Kind::MissingValue, "names no series", table, row)
                .hint(format!("Give {}.", ways(table)))),
            _ => Err(self
                .unnamed(
                    Kind::InvalidValue,
                    "names its series in more than one way, or incompletely",
                    table,
                    row,
                )
                .hint(format!("Give either {}.", ways(table)))),
        }
    }

    /// Returns the series of a row that was read. Such a row names its series in every way; the first one counts.
    pub fn one_series<'r>(&self, table: &Table, row: &'r [Cell<'_>]) -> Result<SeriesRef<'r>, Error> {
        let has = |at: Option<usize>| at.is_some_and(|at| !row[at].is_null());
        let none = PointEncoder {
            id: None,
            external_id: None,
            instance_space: None,
            instance_external_id: None,
            ..self.clone()
        };
        let one = match (has(self.external_id), has(self.instance_space) && has(self.instance_external_id)) {
            (true, _) => PointEncoder { external_id: self.external_id, ..none },
            (_, true) => PointEncoder {
                instance_space: self.instance_space,
                instance_external_id: self.instance_external_id,
                ..none
            },
            _ => PointEncoder { id: self.id, ..none },
        };
        one.series(table, row)
    }

    /// Returns a changed row with its series named in one way: the changed one, or else that of [`Self::one_series`].
    pub fn with_one_series<'r>(&self, keys: &[Cell<'_>], row: &[Cell<'r>]) -> Vec<Cell<'r>> {
        let ways =
            [vec![self.external_id], vec![self.instance_space, self.instance_external_id], vec![self.id]];
        let any =
            |way: &[Option<usize>], test: &dyn Fn(usize) -> bool| way.iter().flatten().any(|at| test(*at));
        let kept = ways
            .iter()
            .position(|way| any(way, &|at| row[at] != keys[at]))
            .or_else(|| ways.iter().position(|way| any(way, &|at| !row[at].is_null())));
        let mut row = row.to_vec();
        for (at, way) in ways.iter().enumerate() {
            if Some(at) != kept {
                way.iter().flatten().for_each(|at| row[*at] = Cell::Null);
            }
        }
        row
    }

    /// Returns a changed row with one status: a new code replaces the symbol that was read with the old one, and a new symbol
    /// the code.
    pub fn with_one_status<'r>(&self, mut row: Vec<Cell<'r>>, changed: &[bool]) -> Vec<Cell<'r>> {
        if let (Some(code), Some(symbol)) = (self.status_code, self.status_symbol) {
            match (changed[code], changed[symbol]) {
                (true, false) => row[symbol] = Cell::Null,
                (false, true) => row[code] = Cell::Null,
                _ => {}
            }
        }
        row
    }

    fn unnamed(&self, kind: Kind, why: &str, table: &Table, row: &[Cell<'_>]) -> Error {
        Error::new(kind, format!("a row of {} {why}", table.options.resource.name))
            .of_row(describe_keys(table, row))
    }

    /// Returns the row's timestamp in milliseconds since 1970.
    pub fn timestamp(&self, table: &Table, row: &[Cell<'_>]) -> Result<i64, Error> {
        let refused = |(kind, why): Refusal| refuse(kind, table, row, self.timestamp, why);
        if row[self.timestamp].is_null() {
            return Err(refused((
                Kind::MissingValue,
                "the value is NULL; every datapoint has a timestamp".into(),
            )));
        }
        let millis = millis(&row[self.timestamp]).map_err(refused)?;
        if !(FIRST_TIMESTAMP..=LAST_TIMESTAMP).contains(&millis) {
            let why = "the timestamp is outside of 1900-01-01 to 2099-12-31, which is what CDF takes";
            return Err(refused((Kind::OutOfRange, why.into())));
        }
        Ok(millis)
    }

    /// Encodes the row's point. Replaces the content of `out`.
    pub fn encode<'r>(
        &self,
        table: &Table,
        row: &'r [Cell<'_>],
        out: &'r mut Vec<u8>,
    ) -> Result<EncodedPoint<'r>, Error> {
        out.clear();
        let series = self.series(table, row)?;
        let timestamp = self.timestamp(table, row)?;
        self.write(table, row, timestamp, out)?;
        Ok(EncodedPoint { series, timestamp, element: out })
    }

    /// Appends the row's point as an element of its series' list.
    fn write(&self, table: &Table, row: &[Cell<'_>], timestamp: i64, out: &mut Vec<u8>) -> Result<(), Error> {
        let (status, bad) = self.status(table, row)?;
        let cell = &row[self.value];
        let refused = |(kind, why): Refusal| refuse(kind, table, row, self.value, why);
        let null_value = cell.is_null();
        if null_value && !bad {
            let why = "the value is NULL; only a datapoint with a Bad status may have none";
            return Err(refused((Kind::MissingValue, why.into())));
        }
        if self.string {
            let value = if null_value { "".into() } else { as_text(cell).map_err(refused)? };
            if value.len() > STRING_BYTES {
                let why = format!("the value has {} bytes of UTF-8; CDF takes {STRING_BYTES}", value.len());
                return Err(refused((Kind::TooLong, why)));
            }
            let point = wire::StringPoint { timestamp, value: value.into_owned(), status, null_value };
            prost::encoding::message::encode(1, &point, out);
        } else {
            let value = match cell {
                Cell::Null => 0.0,
                Cell::Float(value) => *value,
                Cell::Int(value) => *value as f64,
                Cell::Number(digits) => digits.parse().map_err(|_| {
                    refused((Kind::OutOfRange, format!("{digits} is no number that CDF takes")))
                })?,
                other => return Err(refused(mismatch(other, "a number"))),
            };
            if !bad && (value.is_nan() || value.abs() > LARGEST_VALUE) {
                let why = format!("the value {value} is outside of -1e100 to 1e100, which is what CDF takes");
                return Err(refused((Kind::OutOfRange, why)));
            }
            write_numeric(out, timestamp, value, status.as_ref(), null_value);
        }
        Ok(())
    }

    /// Returns the point's status, and whether it is Bad.
    fn status(&self, table: &Table, row: &[Cell<'_>]) -> Result<(Option<wire::Status>, bool), Error> {
        let cell = |at: Option<usize>| at.map(|at| (at, &row[at])).filter(|(_, cell)| !cell.is_null());
        let (code, symbol) = (cell(self.status_code), cell(self.status_symbol));
        if code.is_none() && symbol.is_none() {
            return Ok((None, false));
        }
        let mut wire = wire::Status::default();
        let by_symbol = match symbol {
            None => None,
            Some((at, cell)) => {
                let refused = |(kind, why): Refusal| refuse(kind, table, row, at, why);
                wire.symbol = as_text(cell).map_err(refused)?.into_owned();
                Some(status::code_of(&wire.symbol).map_err(refused)?)
            }
        };
        let by_code = match code {
            None => None,
            Some((at, cell)) => {
                let refused = |(kind, why): Refusal| refuse(kind, table, row, at, why);
                let code = integer(cell).and_then(status::check_code).map_err(refused)?;
                if by_symbol.is_some_and(|symbol| !status::match_each_other(code, symbol)) {
                    let why = format!("the code {code} does not match the symbol \"{}\"", wire.symbol);
                    return Err(refused((Kind::InvalidValue, why)));
                }
                wire.code = i64::from(code);
                Some(code)
            }
        };
        let bad = by_code.or(by_symbol).is_some_and(status::is_bad);
        Ok((Some(wire), bad))
    }
}

/// The most bytes that [`write_plain`] appends: two keys and a length of one byte each, the timestamp's varint, a key and
/// the value.
pub const PLAIN_BYTES: usize = 3 + 10 + 1 + 8;

/// Appends a plain point as an element of its series' list.
#[inline]
pub fn write_plain(out: &mut Vec<u8>, timestamp: i64, value: f64) {
    write_numeric(out, timestamp, value, None, false);
}

/// Appends a point as an element of its series' list. It is written by hand because prost leaves out a value of -0.0, which
/// equals the default.
fn write_numeric(
    out: &mut Vec<u8>,
    timestamp: i64,
    value: f64,
    status: Option<&wire::Status>,
    null_value: bool,
) {
    use prost::encoding::{bool, double, encode_key, encode_varint, int64, key_len, message, WireType};
    let value_is_set = value.to_bits() != 0;
    if status.is_none() && !null_value && timestamp > 0 && value_is_set {
        return write_positive(out, timestamp as u64, value);
    }
    let mut len = 0;
    if timestamp != 0 {
        len += int64::encoded_len(1, &timestamp);
    }
    if value_is_set {
        len += double::encoded_len(2, &value);
    }
    if let Some(status) = status {
        len += message::encoded_len(3, status);
    }
    if null_value {
        len += key_len(4) + 1;
    }
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
    if timestamp != 0 {
        int64::encode(1, &timestamp, out);
    }
    if value_is_set {
        double::encode(2, &value, out);
    }
    if let Some(status) = status {
        message::encode(3, status, out);
    }
    if null_value {
        bool::encode(4, &true, out);
    }
}

/// The fast path of [`write_numeric`], for a point with nothing but a timestamp after 1970 and a value. It appends the point
/// at once, because a load spends more time here than anywhere else.
#[inline]
fn write_positive(out: &mut Vec<u8>, timestamp: u64, value: f64) {
    const ELEMENT: u8 = 1 << 3 | 2;
    const TIMESTAMP: u8 = 1 << 3;
    const VALUE: u8 = 2 << 3 | 1;
    let mut point = [0; PLAIN_BYTES];
    point[0] = ELEMENT;
    point[2] = TIMESTAMP;
    let mut at = 3;
    let mut rest = timestamp;
    while rest >= 0x80 {
        point[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    point[at] = rest as u8;
    point[at + 1] = VALUE;
    at += 2;
    point[at..at + 8].copy_from_slice(&value.to_le_bytes());
    at += 8;
    point[1] = at as u8 - 2;
    out.extend_from_slice(&point[..at]);
}

/// Appends one series' item to a request body; `points` are the encoded elements of its list.
pub fn write_item(out: &mut Vec<u8>, reference: &wire::Reference, points: &[u8], string: bool) {
    use prost::encoding::{encode_key, encode_varint, encoded_len_varint, WireType};
    let list_tag = if string { 4 } else { 3 };
    let list_len = 1 + encoded_len_varint(points.len() as u64) + points.len();
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint((reference.encoded_len() + list_len) as u64, out);
    reference.encode(out);
    encode_key(list_tag, WireType::LengthDelimited, out);
    encode_varint(points.len() as u64, out);
    out.extend_from_slice(points);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn point(timestamp: i64, value: f64) -> wire::NumericPoint {
        wire::NumericPoint { timestamp, value, ..Default::default() }
    }

    #[test]
    fn a_point_is_written_as_the_message_has_it() {
        let status = wire::Status { code: 0x8000_0000, symbol: "Bad".into() };
        let cases = [
            (0, 0.0, None, false),
            (-5, -0.0, None, false),
            (1 << 40, 1.5, Some(&status), false),
            (1, 0.0, Some(&status), true),
            (i64::MAX, 2.5, None, false),
            (127, 1e300, None, false),
            (128, -1.0, None, false),
            (7, f64::NAN, Some(&status), false),
        ];
        for (timestamp, value, status, null_value) in cases {
            let mut out = Vec::new();
            write_numeric(&mut out, timestamp, value, status, null_value);
            let read = wire::NumericPoints::decode(&*out).unwrap().datapoints;
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].value.to_bits(), value.to_bits());
            let rest = (read[0].timestamp, read[0].status.as_ref(), read[0].null_value);
            assert_eq!(rest, (timestamp, status, null_value));
        }
    }

    #[test]
    fn an_item_written_by_parts_is_the_message() {
        let mut points = Vec::new();
        let list: Vec<_> = (0..300).map(|at| point(at, at as f64)).collect();
        for each in &list {
            prost::encoding::message::encode(1, each, &mut points);
        }
        let instance = wire::InstanceId { space: "space".into(), external_id: "ü".into() };
        let reference = wire::Reference::Instance(instance);
        let mut body = Vec::new();
        write_item(&mut body, &reference, &points, false);
        let request = wire::InsertionRequest::decode(&*body).unwrap();
        assert_eq!(request.items.len(), 1);
        assert_eq!(request.items[0].reference, Some(reference));
        assert_eq!(
            request.items[0].points,
            Some(wire::Points::Numeric(wire::NumericPoints { datapoints: list }))
        );
    }
}
