//! Converts cells to JSON values that several kinds of rows have: texts, numbers, ids, timestamps, arrays, metadata.

use std::borrow::Cow;

use hashbrown::HashSet;

use super::json::{self, MetadataSize, Refusal};
use super::length;
use crate::cdf::cell::{Cell, EPOCH_MILLIS};
use crate::cdf::error::Kind;
use crate::cdf::resource::{MetadataLimits, ID_RANGE};

pub(super) fn metadata(
    out: &mut Vec<u8>,
    document: &str,
    valid: bool,
    limits: MetadataLimits,
) -> Result<(), Refusal> {
    limited(json::metadata(out, document, valid)?, limits)
}

pub(super) fn limited(size: MetadataSize, limits: MetadataLimits) -> Result<(), Refusal> {
    let sizes = [
        (size.pairs, limits.pairs, "pairs"),
        (size.longest_key, limits.key, "bytes in a key"),
        (size.longest_value, limits.value, "bytes in a value"),
        (size.total, limits.total, "bytes in all"),
    ];
    match sizes.into_iter().find(|(has, limit, _)| has > limit) {
        Some((has, limit, what)) => {
            Err((Kind::TooLong, format!("the metadata has {has} {what}; CDF takes {limit}")))
        }
        None => Ok(()),
    }
}

pub(super) fn list(
    out: &mut Vec<u8>,
    cell: &Cell<'_>,
    max: usize,
    mut element: impl FnMut(&mut Vec<u8>, &Cell<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Cell::List(cells) = cell else {
        return Err(mismatch(cell, "an array"));
    };
    if cells.len() > max {
        return Err((Kind::TooLong, format!("the array has {} elements; CDF takes {max}", cells.len())));
    }
    out.push(b'[');
    let mut places = Vec::with_capacity(cells.len());
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let start = out.len();
        if cell.is_null() {
            return Err((Kind::MissingValue, format!("element {} of the array is NULL", at + 1)));
        }
        element(out, cell)?;
        places.push(start..out.len());
    }
    if let Some(twice) = repeated(out, places) {
        return Err((
            Kind::InvalidValue,
            format!("the array has {twice} twice; CDF takes each element once"),
        ));
    }
    out.push(b']');
    Ok(())
}

/// Returns the first element that occurs twice.
fn repeated(out: &[u8], places: Vec<std::ops::Range<usize>>) -> Option<String> {
    let mut seen = HashSet::with_capacity(places.len());
    let place = places.into_iter().find(|place| !seen.insert(&out[place.clone()]))?;
    Some(String::from_utf8_lossy(&out[place]).into_owned())
}

pub(super) fn text(out: &mut Vec<u8>, cell: &Cell<'_>, min: usize, max: usize) -> Result<(), Refusal> {
    let digits;
    let text = match cell {
        Cell::Text(text) => *text,
        other => {
            digits = as_text(other)?;
            &*digits
        }
    };
    // Bytes bound characters from above, so most texts are never counted.
    if text.len() > max {
        let chars = text.chars().count();
        if chars > max {
            return Err((Kind::TooLong, format!("the value has {chars} characters; CDF takes {max}")));
        }
    }
    if text.len() < min {
        return Err((Kind::InvalidValue, "the value is empty; CDF needs at least one character".into()));
    }
    json::text(out, text);
    Ok(())
}

/// Returns a text, or the digits of a number: tools declare codes and tags as numbers.
pub(super) fn as_text<'c>(cell: &'c Cell<'_>) -> Result<Cow<'c, str>, Refusal> {
    Ok(match cell {
        Cell::Text(text) | Cell::Number(text) => (*text).into(),
        Cell::Int(value) => value.to_string().into(),
        other => return Err(mismatch(other, "a text")),
    })
}

pub(super) fn document<'c>(cell: &Cell<'c>) -> Result<&'c str, Refusal> {
    match cell {
        Cell::Json(text) | Cell::Text(text) => {
            length::check_document(text, length::DOCUMENT_BYTES)?;
            Ok(text)
        }
        other => Err(mismatch(other, "a JSON object")),
    }
}

pub(super) fn integer(cell: &Cell<'_>) -> Result<i64, Refusal> {
    match cell {
        Cell::Int(value) => Ok(*value),
        Cell::Number(digits) => digits
            .parse()
            .map_err(|_| (Kind::InvalidValue, format!("{digits} is not a whole number of 64 bits"))),
        other => Err(mismatch(other, "an integer")),
    }
}

pub(super) fn internal_id(cell: &Cell<'_>) -> Result<i64, Refusal> {
    let id = integer(cell)?;
    if !(ID_RANGE.0..=ID_RANGE.1).contains(&id) {
        return Err((
            Kind::OutOfRange,
            format!("{id} is no internal id; CDF's are {} to {}", ID_RANGE.0, ID_RANGE.1),
        ));
    }
    Ok(id)
}

/// Converts to CDF's milliseconds since 1970. The rest is cut off towards the past, so that no moment moves into the future.
#[inline]
pub(super) fn micros_to_millis(micros: i64) -> i64 {
    micros.div_euclid(1000) + EPOCH_MILLIS
}

pub(super) fn millis(cell: &Cell<'_>) -> Result<i64, Refusal> {
    match cell {
        Cell::Timestamp(micros) => Ok(micros_to_millis(*micros)),
        other => Err(mismatch(other, "a timestamp")),
    }
}

pub(super) fn mismatch(cell: &Cell<'_>, wanted: &str) -> Refusal {
    (Kind::InvalidValue, format!("the column holds {}; CDF takes {wanted} here", cell.describe()))
}
