//! Read fields to Datums: the counterpart of [`super::datum`].

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::IntoDatum;
use serde_json::Value;

use super::datum::holds_values;
use super::text::{column_name, is_foreign, to_server};
use super::transmission::TextForm;
use crate::cdf::cell::EPOCH_MILLIS;
use crate::cdf::encode::json::{decode_base64, iso8601};
use crate::cdf::error::{Error, Kind};
use crate::cdf::read::zone::in_utc;
use crate::cdf::read::Field;

/// Makes the rows of one table from what CDF answered.
#[derive(Debug)]
pub struct RowWriter {
    columns: Vec<Option<Column>>,
    row_context: pg_sys::MemoryContext,
    /// The database's encoding is not UTF-8.
    recode: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// The type, or a domain's base type.
    base: Oid,
    is_domain: bool,
    /// The type of an array's elements; InvalidOid if the column is no array.
    element: Oid,
    /// What the type's texts hang on.
    form: TextForm,
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
                let mut column = Column {
                    name: column_name(attribute),
                    base,
                    is_domain: base != attribute.atttypid,
                    element: pg_sys::get_element_type(base),
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

    /// Stores a row in the slot. It is valid until the next row.
    ///
    /// # Safety
    /// `slot` is an empty virtual slot of the table that the writer was made for.
    pub unsafe fn store(&mut self, row: Vec<Field>, slot: *mut pg_sys::TupleTableSlot) -> Result<(), Error> {
        // SAFETY: the caller's promise: the slot's arrays have as many elements as the writer has columns.
        unsafe {
            pg_sys::MemoryContextReset(self.row_context);
            let previous = pg_sys::MemoryContextSwitchTo(self.row_context);
            let recode = self.recode;
            let mut result = Ok(());
            for (at, (column, field)) in self.columns.iter_mut().zip(row).enumerate() {
                let datum = match (column, field) {
                    (None, _) | (_, Field::Null) => None,
                    (Some(column), field) => match column.datum(field, recode) {
                        Ok(datum) => Some(datum),
                        Err(error) => {
                            result = Err(error);
                            break;
                        }
                    },
                };
                *(*slot).tts_isnull.add(at) = datum.is_none();
                *(*slot).tts_values.add(at) = datum.unwrap_or(Datum::null());
            }
            pg_sys::MemoryContextSwitchTo(previous);
            if result.is_ok() {
                pg_sys::ExecStoreVirtualTuple(slot);
            }
            result
        }
    }
}

impl Column {
    /// # Safety
    /// The current memory context lives as long as the row.
    unsafe fn datum(&mut self, field: Field, recode: bool) -> Result<Datum, Error> {
        let text = match field {
            Field::Int(value) if self.is(pg_sys::INT8OID) => return Ok(Datum::from(value)),
            Field::Float(value) if self.is(pg_sys::FLOAT8OID) => return Ok(Datum::from(value.to_bits())),
            Field::Millis(millis) if self.is(pg_sys::TIMESTAMPTZOID) || self.is(pg_sys::TIMESTAMPOID) => {
                return match millis
                    .checked_mul(1000)
                    .and_then(|micros| micros.checked_sub(EPOCH_MILLIS * 1000))
                    .filter(|micros| (FIRST_MICROS..END_MICROS).contains(micros))
                {
                    Some(micros) => Ok(Datum::from(micros)),
                    None => Err(self.unfit(&millis.to_string())),
                }
            }
            Field::Text(text) if self.base == pg_sys::BYTEAOID => {
                let bytes = decode_base64(&text).ok_or_else(|| self.unfit(&text))?;
                return bytes.into_datum().ok_or_else(|| Error::internal("bytes without a datum"));
            }
            Field::Text(text) if self.is(pg_sys::TEXTOID) && !recode => {
                // A NUL, which JSON can hold, would end the text silently.
                if text.contains('\0') {
                    return Err(self.unfit(&text.replace('\0', "\\0")));
                }
                return text.into_datum().ok_or_else(|| Error::internal("a text without a datum"));
            }
            Field::Null => return Err(Error::internal("a NULL has no datum")),
            Field::Int(value) => value.to_string(),
            Field::Float(value) => float(value),
            Field::Millis(millis) => {
                iso8601(i128::from(millis) * 1000).map_err(|_| self.unfit(&millis.to_string()))?
            }
            Field::Text(text) if self.is_json() => Value::String(text).to_string(),
            Field::Text(text) if has_no_zone(self.base) => in_utc(&text).unwrap_or(text),
            Field::Text(text) => text,
            Field::Json(value) if self.is_json() => value.to_string(),
            Field::Json(Value::Array(elements)) if self.element != pg_sys::InvalidOid => {
                array(&elements, self.element)
            }
            Field::Json(Value::Number(number)) => digits(&number),
            Field::Json(value) => value.to_string(),
        };
        if text.contains('\0') {
            return Err(self.unfit(&text.replace('\0', "\\0")));
        }
        let text = to_server(&text).map_err(|mut error| {
            error.message = format!("column \"{}\": {}", self.name, error.message);
            error.hint("A database whose encoding is UTF8 holds every text.")
        })?;
        let fixed = (self.form != TextForm::Fixed).then(|| self.form.fix());
        // SAFETY: the input function was looked up for this type; it raises PostgreSQL's own ERROR for a text that the
        // type does not take.
        let datum = unsafe {
            pg_sys::InputFunctionCall(&mut self.input, text.as_ptr().cast_mut(), self.parameter, self.typmod)
        };
        if let Some(fixed) = fixed {
            fixed.end();
        }
        Ok(datum)
    }

    /// Whether values can be made without the type's input function, which checks domains and lengths.
    fn is(&self, oid: Oid) -> bool {
        self.base == oid && !self.is_domain && self.typmod < 0
    }

    fn is_json(&self) -> bool {
        self.base == pg_sys::JSONOID || self.base == pg_sys::JSONBOID
    }

    fn unfit(&self, value: &str) -> Error {
        let shown: String = value.chars().take(100).collect();
        Error::new(
            Kind::InvalidValue,
            format!("column \"{}\": its type cannot hold CDF's value {shown}", self.name),
        )
        .hint("Declare the column as text or jsonb.")
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

/// A number's digits; 3.0, as some JSON writers have it, is a whole number to integer columns.
fn digits(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 9e15 => {
            (value as i64).to_string()
        }
        _ => number.to_string(),
    }
}

/// PostgreSQL's text form of an array.
fn array(elements: &[Value], of: Oid) -> String {
    let mut text = String::from("{");
    for (at, element) in elements.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match element {
            Value::Array(_) | Value::String(_) if of == pg_sys::JSONOID || of == pg_sys::JSONBOID => {
                quote(&mut text, &element.to_string())
            }
            Value::String(base64) if of == pg_sys::BYTEAOID => match decode_base64(base64) {
                Some(bytes) => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    quote(&mut text, &format!("\\x{hex}"));
                }
                None => quote(&mut text, base64),
            },
            Value::Null => text.push_str("NULL"),
            Value::Bool(value) => text.push(if *value { 't' } else { 'f' }),
            Value::Number(number) => text.push_str(&digits(number)),
            Value::Array(inner) => text.push_str(&array(inner, of)),
            Value::String(inner) if has_no_zone(of) => {
                quote(&mut text, &in_utc(inner).unwrap_or_else(|| inner.clone()));
            }
            Value::String(inner) => quote(&mut text, inner),
            Value::Object(_) => quote(&mut text, &element.to_string()),
        }
    }
    text.push('}');
    text
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
