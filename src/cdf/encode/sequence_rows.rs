//! Sequences: the definitions of their columns, and their rows.
//!
//! A row becomes `{"externalId":…,"rowNumber":…,"columns":{…}}`, so that the buffer can recognise it and merge it with a second
//! write. Delivery groups rows into requests as CDF takes them.

use hashbrown::HashSet;
use serde_json::value::RawValue;

use super::fragment::{begin_columns, end, KeyMember, Opening};
use super::json::{self, Properties, Refusal};
use super::value::{document, integer, internal_id, metadata, text};
use super::{refuse, EncodedRow};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::sequence_rows::{LARGEST_VALUE, STRING_CHARS};
use crate::cdf::resource::sequences::{self, METADATA, VALUE_TYPES};
use crate::cdf::resource::{Role, EXTERNAL_ID_CHARS};
use crate::cdf::table::Table;

/// Members that CDF itself adds to a column. They are present when definitions that were read are written again.
const MADE_BY_CDF: [&str; 3] = [ID, "createdTime", "lastUpdatedTime"];

/// Appends the definitions of a sequence's columns, and checks them.
pub fn definitions(out: &mut Vec<u8>, document: &str) -> Result<(), Refusal> {
    let invalid = |why: String| (Kind::InvalidValue, why);
    json::check_depth(document)?;
    let columns: Vec<Properties> = serde_json::from_str(document).map_err(|error| {
        invalid(format!("the value must be an array of objects like {{\"externalId\": …}} ({error})"))
    })?;
    match columns.len() {
        0 => return Err(invalid("the array is empty; CDF needs at least one column".into())),
        has if has > sequences::COLUMNS => {
            let why = format!("the array has {has} columns; CDF takes {}", sequences::COLUMNS);
            return Err((Kind::TooLong, why));
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    let mut texts = 0;
    for (at, column) in columns.iter().enumerate() {
        let place = |(kind, why): Refusal| (kind, format!("column {}: {why}", at + 1));
        out.push(if at == 0 { b'[' } else { b',' });
        let name = column.get(EXTERNAL_ID).map(RawValue::get).unwrap_or("null");
        let Ok(name) = serde_json::from_str::<String>(name) else {
            return Err(place(invalid("it needs an \"externalId\"".into())));
        };
        let mut first = true;
        for (property, value) in &column.0 {
            if value.get() == "null" || MADE_BY_CDF.contains(&&**property) {
                continue;
            }
            out.push(if first { b'{' } else { b',' });
            first = false;
            json::write(out, &**property);
            out.push(b':');
            definition(out, property, value).map_err(place)?;
        }
        out.push(b'}');
        if !seen.insert(name.clone()) {
            return Err(place(invalid(format!("\"{name}\" is there twice"))));
        }
        texts += usize::from(
            column.get("valueType").is_some_and(|kind| kind.get().eq_ignore_ascii_case("\"STRING\"")),
        );
    }
    out.push(b']');
    if texts > sequences::TEXT_COLUMNS {
        let why = format!(
            "the array has {texts} columns of valueType STRING; CDF takes {}",
            sequences::TEXT_COLUMNS
        );
        Err((Kind::TooLong, why))
    } else {
        Ok(())
    }
}

fn definition(out: &mut Vec<u8>, property: &str, value: &RawValue) -> Result<(), Refusal> {
    let max = match property {
        EXTERNAL_ID | "name" => EXTERNAL_ID_CHARS,
        "description" => 1000,
        "valueType" => 16,
        "metadata" => return metadata(out, value.get(), true, METADATA),
        other => {
            let known = "externalId, name, description, valueType, metadata";
            return Err((Kind::InvalidValue, format!("there is no property \"{other}\"; there are {known}")));
        }
    };
    let Ok(string) = serde_json::from_str::<String>(value.get()) else {
        return Err((Kind::InvalidValue, format!("\"{property}\" must be a text")));
    };
    if property != "valueType" {
        return text(out, &Cell::Text(&string), 0, max)
            .map_err(|(kind, why)| (kind, format!("\"{property}\": {why}")));
    }
    let upper = string.to_uppercase();
    if !VALUE_TYPES.contains(&&*upper) {
        let why = format!("\"valueType\" is \"{string}\"; CDF takes {}", VALUE_TYPES.join(", "));
        return Err((Kind::InvalidValue, why));
    }
    json::write(out, &upper);
    Ok(())
}

/// Encodes the rows of one table.
#[derive(Debug)]
pub struct SequenceRowEncoder {
    id: Option<usize>,
    external_id: Option<usize>,
    row_number: usize,
    columns: usize,
}

impl SequenceRowEncoder {
    /// # Errors
    /// `InvalidOption` for a table without the columns that writing needs.
    pub fn new(table: &Table) -> Result<Self, Error> {
        let (id, external_id) = (table.position_of(Role::Id), table.position_of(Role::ExternalId));
        if id.is_none() {
            table.need(Role::ExternalId)?;
        }
        let (row_number, columns) = (table.need(Role::RowNumber)?, table.need(Role::Columns)?);
        Ok(SequenceRowEncoder { id, external_id, row_number, columns })
    }

    /// Appends the row's object to `out`. On an error `out` holds a part of it, which the caller removes.
    pub fn encode(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let encoded = self.encode_key(table, row, out)?;
        begin_columns(out);
        values(out, &row[self.columns]).map_err(|(kind, why)| refuse(kind, table, row, self.columns, why))?;
        end(out);
        Ok(encoded)
    }

    /// Appends the object that names a row.
    pub fn encode_delete(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let encoded = self.encode_key(table, keys, out)?;
        end(out);
        Ok(encoded)
    }

    /// Returns a row that was read with its sequence named in one way instead of two: the changed one, or else the external
    /// id.
    pub fn with_one_sequence<'r>(&self, keys: &[Cell<'_>], row: &[Cell<'r>]) -> Vec<Cell<'r>> {
        let mut row = row.to_vec();
        if let (Some(id), Some(external_id)) = (self.id, self.external_id) {
            let by_id =
                row[external_id].is_null() || row[id] != keys[id] && row[external_id] == keys[external_id];
            row[if by_id { external_id } else { id }] = Cell::Null;
        }
        row
    }

    fn encode_key(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        let cell = |at: Option<usize>| at.filter(|at| !row[*at].is_null());
        let opening = match (cell(self.id), cell(self.external_id)) {
            (Some(at), None) => {
                let opening = Opening::new(out, KeyMember::Id);
                json::write(out, &internal_id(&row[at]).map_err(|refusal| refused(at, refusal))?);
                opening
            }
            (None, Some(at)) => {
                let opening = Opening::new(out, KeyMember::ExternalId);
                text(out, &row[at], 0, EXTERNAL_ID_CHARS).map_err(|refusal| refused(at, refusal))?;
                opening
            }
            (given, _) => {
                let external_id = table.name_of(Role::ExternalId);
                let why = match given {
                    Some(_) => format!("give this or {external_id}, not both"),
                    None => format!("a sequence row needs the id or the {external_id} of its sequence"),
                };
                let kind = if given.is_some() { Kind::InvalidValue } else { Kind::MissingValue };
                let at = self.id.or(self.external_id).unwrap_or(self.row_number);
                return Err(refused(at, (kind, why)));
            }
        };
        let number = match &row[self.row_number] {
            Cell::Null => Err((Kind::MissingValue, "the value is NULL; CDF needs it".to_owned())),
            cell => match integer(cell) {
                Ok(number) if number < 0 => {
                    Err((Kind::OutOfRange, format!("the value is {number}; CDF counts rows from 0")))
                }
                other => other,
            },
        };
        let number = number.map_err(|refusal| refused(self.row_number, refusal))?;
        Ok(opening.row_number(out, number).keyed(out))
    }
}

/// Appends the values of a row, by column.
fn values(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    if cell.is_null() {
        return Err((Kind::MissingValue, "the value is NULL; CDF needs at least one column".into()));
    }
    let text = document(cell)?;
    let columns: Properties = serde_json::from_str(text).map_err(|error| {
        (Kind::InvalidValue, format!("the value must be a JSON object, column to value ({error})"))
    })?;
    if columns.0.is_empty() {
        return Err((Kind::InvalidValue, "the object is empty; CDF needs at least one column".into()));
    }
    for (name, value) in &columns.0 {
        let value = value.get();
        match value.as_bytes().first() {
            Some(b'n') => {}
            Some(b'"') => {
                let text: String = serde_json::from_str(value)
                    .map_err(|error| (Kind::InvalidValue, format!("\"{name}\" is no text ({error})")))?;
                let chars = text.chars().count();
                if chars > STRING_CHARS {
                    let why = format!("\"{name}\" has {chars} characters; CDF takes {STRING_CHARS}");
                    return Err((Kind::TooLong, why));
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                let size: f64 = value.parse().unwrap_or(f64::INFINITY);
                if size.abs() > LARGEST_VALUE {
                    let why = format!("\"{name}\" is {value}; CDF takes numbers within ±1e100");
                    return Err((Kind::OutOfRange, why));
                }
            }
            _ => {
                let shown: String = value.chars().take(100).collect();
                let why = format!("\"{name}\" is {shown}; CDF takes numbers, texts and null");
                return Err((Kind::InvalidValue, why));
            }
        }
    }
    columns.write(out);
    Ok(())
}
