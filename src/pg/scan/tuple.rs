//! Read fields to Datums: the counterpart of [`crate::pg::modify::datum`].

use std::borrow::Cow;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use super::unfit::{caught, Refusal, Unfit};
use crate::cdf::cell::EPOCH_MILLIS;
use crate::cdf::document::Value;
use crate::cdf::encode::json::{decode_base64, iso8601};
use crate::cdf::read::zone::in_utc;
use crate::cdf::read::Field;
use crate::pg::encoding::is_foreign;
use crate::pg::modify::datum::holds_values;
use crate::pg::session::transmission::TextForm;
use crate::pg::text::to_server;

/// Makes rows of one table from CDF's answers.
#[derive(Debug)]
pub struct RowWriter {
    columns: Vec<Option<TupleColumn>>,
    row_context: pg_sys::MemoryContext,
    /// The database's encoding is not UTF-8.
    recode: bool,
}

#[derive(Debug)]
struct TupleColumn {
    /// The type, or a domain's base type.
    base: Oid,
    is_domain: bool,
    /// The type of an array's elements; InvalidOid if the column is no array.
    element: Oid,
    /// The settings that the type's texts depend on.
    form: TextForm,
    /// Its input may run functions of users: the checks of a domain, or all of a type of theirs.
    runs_code: bool,
    typmod: i32,
    input: pg_sys::FmgrInfo,
    parameter: Oid,
}

impl RowWriter {
    /// # Safety
    /// `descriptor` is a table's; `context` lives as long as the writer.
    pub unsafe fn new(descriptor: pg_sys::TupleDesc, context: pg_sys::MemoryContext) -> Self {
        // SAFETY: the caller's promise; catalog look-ups of types that columns have.
        unsafe {
            let descriptor = pgrx::PgTupleDesc::from_pg_unchecked(descriptor);
            let mut columns = Vec::with_capacity(descriptor.len());
            for attribute in descriptor.iter() {
                if !holds_values(attribute) {
                    columns.push(None);
                    continue;
                }
                let base = pg_sys::getBaseType(attribute.atttypid);
                let element = pg_sys::get_element_type(base);
                let of_users = |oid: Oid| {
                    oid.to_u32() >= pg_sys::FirstNormalObjectId
                        && pg_sys::get_typtype(oid) as u8 != pg_sys::TYPTYPE_ENUM
                };
                let mut column = TupleColumn {
                    base,
                    is_domain: base != attribute.atttypid,
                    element,
                    runs_code: of_users(attribute.atttypid)
                        || element != pg_sys::InvalidOid && of_users(element),
                    form: input_form(attribute.atttypid),
                    typmod: attribute.atttypmod,
                    input: pg_sys::FmgrInfo::default(),
                    parameter: pg_sys::InvalidOid,
                };
                let mut function = pg_sys::InvalidOid;
                pg_sys::getTypeInputInfo(attribute.atttypid, &mut function, &mut column.parameter);
                pg_sys::fmgr_info_cxt(function, &mut column.input, context);
                columns.push(Some(column));
            }
            let row_context = pg_sys::AllocSetContextCreateInternal(
                context,
                c"cdf_fdw row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let recode = is_foreign();
            RowWriter { columns, row_context, recode }
        }
    }

    /// Stores the needed columns of a row in the slot. Returns the columns whose values do not fit: they are NULL. The row is
    /// valid until the next one.
    ///
    /// # Safety
    /// `slot` is an empty virtual slot of the table that the writer was made for.
    pub unsafe fn store(
        &mut self,
        row: &[Field],
        needed: &[bool],
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        // SAFETY: the caller's promise: the slot's arrays have as many elements as the writer has columns.
        unsafe {
            pg_sys::MemoryContextReset(self.row_context);
            let previous = pg_sys::MemoryContextSwitchTo(self.row_context);
            let recode = self.recode;
            for (at, (column, field)) in self.columns.iter_mut().zip(row).enumerate() {
                let datum = match (column, field) {
                    (None, _) | (_, Field::Null) => None,
                    _ if !needed[at] => None,
                    (Some(column), field) => match column.datum(field, recode) {
                        Ok(datum) => Some(datum),
                        Err((code, why)) => {
                            unfit.push(Unfit { column: at, code, why, value: shown(field) });
                            None
                        }
                    },
                };
                *(*slot).tts_isnull.add(at) = datum.is_none();
                *(*slot).tts_values.add(at) = datum.unwrap_or(Datum::null());
            }
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::ExecStoreVirtualTuple(slot);
        }
        unfit
    }
}

/// The beginning of a value, for errors.
fn shown(field: &Field) -> String {
    let text = match field {
        Field::Null => String::new(),
        Field::Int(value) => value.to_string(),
        Field::Float(value) => float(*value),
        Field::Millis(millis) => iso8601(i128::from(*millis) * 1000).unwrap_or_else(|_| millis.to_string()),
        Field::Text(text) => Value::String(text.chars().take(100).collect()).to_string(),
        Field::Json(value) => value.to_string(),
    };
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn refused<T>(code: PgSqlErrorCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err((code, why.into()))
}

/// Half of a surrogate pair, which JSON can hold.
fn no_text<T>() -> Result<T, Refusal> {
    refused(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, "half of a surrogate pair is no text")
}

fn holds_nul<T>() -> Result<T, Refusal> {
    refused(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, "a text of PostgreSQL cannot hold a NUL")
}

fn base64(text: &str) -> Result<Vec<u8>, Refusal> {
    match decode_base64(text) {
        Some(bytes) => Ok(bytes),
        None => refused(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, "the text is not base64"),
    }
}

impl TupleColumn {
    /// # Safety
    /// The current memory context lives as long as the row.
    unsafe fn datum(&mut self, field: &Field, recode: bool) -> Result<Datum, Refusal> {
        let made = |datum: Option<Datum>| Ok(datum.unwrap_or(Datum::null()));
        let text: Cow<'_, str> = match field {
            Field::Int(value) if self.is(pg_sys::INT8OID) => return Ok(Datum::from(*value)),
            Field::Float(value) if self.is(pg_sys::FLOAT8OID) => return Ok(Datum::from(value.to_bits())),
            Field::Millis(millis) if self.is(pg_sys::TIMESTAMPTZOID) || self.is(pg_sys::TIMESTAMPOID) => {
                return match millis
                    .checked_mul(1000)
                    .and_then(|micros| micros.checked_sub(EPOCH_MILLIS * 1000))
                    .filter(|micros| (FIRST_MICROS..END_MICROS).contains(micros))
                {
                    Some(micros) => Ok(Datum::from(micros)),
                    None => {
                        refused(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "timestamp out of range")
                    }
                }
            }
            Field::Text(text) if self.base == pg_sys::BYTEAOID => return made(base64(text)?.into_datum()),
            Field::Text(text) if self.is(pg_sys::TEXTOID) && !recode => {
                // JSON can hold a NUL, which would end the text silently.
                return if text.contains('\0') { holds_nul() } else { made(text.as_str().into_datum()) };
            }
            Field::Json(Value::Number(digits)) if self.is(pg_sys::FLOAT8OID) => match digits.parse::<f64>() {
                Ok(value) if value.is_finite() => return Ok(Datum::from(value.to_bits())),
                _ => digits.as_ref().into(),
            },
            Field::Json(Value::Number(digits)) => match digits.parse::<i64>() {
                Ok(value) if self.is(pg_sys::INT8OID) => return Ok(Datum::from(value)),
                _ => number(digits, self.base),
            },
            Field::Null => return Ok(Datum::null()),
            Field::Int(value) => value.to_string().into(),
            Field::Float(value) => float(*value).into(),
            Field::Millis(millis) => match iso8601(i128::from(*millis) * 1000) {
                Ok(text) => text.into(),
                Err((_, why)) => return refused(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, why),
            },
            Field::Text(text) if self.is_json() => Value::String(text.clone()).to_string().into(),
            Field::Text(text) if has_no_zone(self.base) => match in_utc(text) {
                Some(moment) => moment.into(),
                None => text.into(),
            },
            Field::Text(text) => text.into(),
            Field::Json(value) if self.is_json() => value.to_string().into(),
            Field::Json(Value::Json(text)) if text.starts_with('"') => return no_text(),
            Field::Json(value) => match value.elements().filter(|_| self.element != pg_sys::InvalidOid) {
                Some(elements) => array(&elements, self.element, 1)?.into(),
                None => value.to_string().into(),
            },
        };
        if text.contains('\0') {
            return holds_nul();
        }
        let text = to_server(&text)
            .map_err(|error| (PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, error.message.clone()))?;
        let fixed = (self.form != TextForm::Fixed).then(|| self.form.fix());
        // SAFETY: the input function was looked up for this type; it raises PostgreSQL's own ERROR for a text that the
        // type does not take.
        let datum = unsafe {
            caught(self.runs_code, || {
                let text = text.as_ptr().cast_mut();
                pg_sys::InputFunctionCall(&mut self.input, text, self.parameter, self.typmod)
            })
        };
        // Also where the value was refused, since its error goes no further.
        if let Some(fixed) = fixed {
            fixed.end();
        }
        datum
    }

    /// Whether values can be made without the type's input function, which checks domains and lengths.
    fn is(&self, oid: Oid) -> bool {
        self.base == oid && !self.is_domain && self.typmod < 0
    }

    fn is_json(&self) -> bool {
        self.base == pg_sys::JSONOID || self.base == pg_sys::JSONBOID
    }
}

/// The moments that a timestamp of PostgreSQL can hold (datatype/timestamp.h): beyond them are its infinities.
const FIRST_MICROS: i64 = -211_813_488_000_000_000;
const END_MICROS: i64 = 9_223_371_331_200_000_000;

/// What the texts hang on that a type is read from: a moment without a zone is UTC.
fn input_form(oid: Oid) -> TextForm {
    // SAFETY: look-ups in the catalogs, of a type that a column has.
    let base = unsafe { pg_sys::getBaseType(oid) };
    match base {
        pg_sys::TIMESTAMPOID | pg_sys::DATEOID | pg_sys::TIMEOID | pg_sys::BYTEAOID => TextForm::Fixed,
        pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => TextForm::Fixed,
        base => TextForm::of(base),
    }
}

/// Whether PostgreSQL ignores a zone that is written to the type.
fn has_no_zone(oid: Oid) -> bool {
    matches!(oid, pg_sys::TIMESTAMPOID | pg_sys::DATEOID)
}

fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => value.to_string(),
    }
}

/// A number's text as a type takes it: 3.0 and 1e3 are whole numbers to integers, which their input does not know.
fn number(digits: &str, of: Oid) -> Cow<'_, str> {
    let integer = matches!(of, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID);
    match integer.then(|| whole(digits)).flatten() {
        Some(whole) => whole.into(),
        None => digits.into(),
    }
}

/// The whole number that a JSON number with a point or an exponent is; None if it is none, or has more digits than any
/// integer.
fn whole(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().ok().filter(|exponent: &i64| exponent.abs() < 1000)?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{before}{behind}");
    let point = before.len() as i64 + exponent;
    let (digits, rest) = match usize::try_from(point) {
        Ok(point) if point <= all.len() => all.split_at(point),
        Ok(_) => (all.as_str(), ""),
        Err(_) => ("", all.as_str()),
    };
    if rest.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let zeros = usize::try_from(point).unwrap_or_default().saturating_sub(all.len());
    let digits = format!("{digits}{}", "0".repeat(zeros));
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") })
}

/// PostgreSQL's arrays have so many dimensions at most.
const DIMENSIONS: usize = 6;

/// PostgreSQL's text form of an array.
fn array(elements: &[Value], of: Oid, dimension: usize) -> Result<String, Refusal> {
    let json = of == pg_sys::JSONOID || of == pg_sys::JSONBOID;
    let mut text = String::from("{");
    for (at, element) in elements.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match element {
            Value::Null => text.push_str("NULL"),
            Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            element if json => quote(&mut text, &element.to_string()),
            Value::String(encoded) if of == pg_sys::BYTEAOID => {
                let hex: String = base64(encoded)?.iter().map(|byte| format!("{byte:02x}")).collect();
                quote(&mut text, &format!("\\x{hex}"));
            }
            Value::Number(digits) => text.push_str(&number(digits, of)),
            Value::String(inner) if has_no_zone(of) => {
                quote(&mut text, &in_utc(inner).unwrap_or_else(|| inner.clone()));
            }
            Value::String(inner) => quote(&mut text, inner),
            Value::Json(string) if string.starts_with('"') => return no_text(),
            element => match element.elements() {
                Some(inner) if dimension < DIMENSIONS => text.push_str(&array(&inner, of, dimension + 1)?),
                Some(_) => {
                    let why = format!("an array of PostgreSQL has {DIMENSIONS} dimensions at most");
                    return refused(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, why);
                }
                None => quote(&mut text, &element.to_string()),
            },
        }
    }
    text.push('}');
    Ok(text)
}

fn quote(text: &mut String, element: &str) {
    text.push('"');
    for character in element.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_found() {
        for (number, expected) in [
            ("3.0", Some("3")),
            ("1e3", Some("1000")),
            ("1E+10", Some("10000000000")),
            ("-1.50e1", Some("-15")),
            ("120e-1", Some("12")),
            ("-0", Some("0")),
            ("0.0e5", Some("0")),
            ("9223372036854775807.000", Some("9223372036854775807")),
            ("1.5", None),
            ("15e-1", None),
            ("1e-5", None),
            ("1e99999", None),
        ] {
            assert_eq!(whole(number).as_deref(), expected, "{number}");
        }
    }
}
