//! RAW rows: `{"key":…,"columns":{…}}`, from the generic table or from typed columns.

use std::borrow::Cow;

use super::fragment::{
    begin_columns, begin_existing, end, end_object, head, only_columns, reopen, KeyMember, Opening,
};
use super::json::{self, Properties, Refusal};
use super::value::{as_text, mismatch};
use super::{length, refuse, EncodedRow};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::raw::{COLUMN_CHARS, DATABASE_CHARS, KEY_CHARS, RAW_KEY, ROW_BYTES, TABLE_CHARS};
use crate::cdf::resource::Role;
use crate::cdf::table::{Binding, NullHandling, Table};

/// The most bytes of a short text. A row full of such texts takes little memory, even if every byte is escaped.
const SHORT_BYTES: usize = 4096;

/// Encodes the rows of one table.
#[derive(Debug)]
pub struct RawEncoder {
    key: usize,
    columns: RawColumns,
    set_null: bool,
    last_updated: Option<usize>,
    /// For each column, whether an existing row gets it; None if it gets all.
    existing: Option<Vec<bool>>,
}

#[derive(Debug)]
enum RawColumns {
    /// `db_name`, `table_name`, `key`, `columns`.
    Generic { database: usize, table: usize, columns: Option<usize> },
    /// Positions of the columns, each with its `,"name":`.
    Typed(Vec<(usize, Vec<u8>)>),
}

impl RawEncoder {
    /// `listed`: the columns that an existing row gets; None for all.
    pub fn new(table: &Table, listed: Option<&[usize]>) -> Result<Self, Error> {
        let set_null = table.options.mode.null_handling == NullHandling::SetNull;
        if let (Some(database), Some(name)) = (&table.options.database, &table.options.table) {
            for (name, max) in [(database, DATABASE_CHARS), (name, TABLE_CHARS)] {
                check_name(name, max).map_err(|(kind, why)| match kind {
                    Kind::InvalidValue => Error::new(kind, why),
                    _ => Error::new(Kind::InvalidOption, why),
                })?;
            }
            let mut key = None;
            let mut columns = Vec::new();
            for (at, binding) in table.bindings.iter().enumerate() {
                let Some(Binding::RawColumn { name, key: is_key }) = binding else {
                    continue;
                };
                if *is_key {
                    key = Some(at);
                }
                // The key column is a RAW column too, unless it is called as RAW calls the key.
                if !(*is_key && name == RAW_KEY) {
                    columns.push((at, head(name)));
                }
            }
            let key = key.ok_or_else(|| Error::internal("a typed RAW table without its key column"))?;
            return Ok(RawEncoder {
                key,
                columns: RawColumns::Typed(columns),
                set_null,
                last_updated: None,
                existing: listed.map(|set| (0..table.bindings.len()).map(|at| set.contains(&at)).collect()),
            });
        }
        let need = |role: Role| {
            let hint = "For one RAW table with typed columns give the options \"database\" and \"table\".";
            table.need(role).map_err(|error| error.hint(hint))
        };
        Ok(RawEncoder {
            key: need(Role::RawKey)?,
            columns: RawColumns::Generic {
                database: need(Role::RawDatabase)?,
                table: need(Role::RawTable)?,
                columns: table.position_of(Role::Columns),
            },
            set_null,
            last_updated: table.position_of(Role::Changed),
            // The table has one column for all RAW columns, and CDF replaces those as a whole.
            existing: None,
        })
    }

    /// Returns the RAW database and table of the row, and checks their names.
    pub fn destination<'c>(
        &self,
        table: &'c Table,
        row: &'c [Cell<'_>],
    ) -> Result<(Cow<'c, str>, Cow<'c, str>), Error> {
        let RawColumns::Generic { database, table: name, .. } = &self.columns else {
            let options = &table.options;
            let fixed = |name: &'c Option<String>| Cow::Borrowed(name.as_deref().unwrap_or_default());
            return Ok((fixed(&options.database), fixed(&options.table)));
        };
        let part = |at: usize, max: usize| {
            let checked = match &row[at] {
                Cell::Null => Err((Kind::MissingValue, "the value is NULL; CDF needs it".to_owned())),
                cell => as_text(cell).and_then(|text| check_name(&text, max).map(|()| text)),
            };
            checked.map_err(|(kind, why)| refuse(kind, table, row, at, why))
        };
        Ok((part(*database, DATABASE_CHARS)?, part(*name, TABLE_CHARS)?))
    }

    /// Appends the row's object to `out`. On an error `out` holds a part of it, which the caller removes.
    pub fn encode(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        if let Some(at) = self.last_updated.filter(|at| !row[*at].is_null()) {
            let why = "CDF sets this value; it cannot be written, leave it NULL".to_owned();
            return Err(refused(at, (Kind::InvalidValue, why)));
        }
        let opening = Opening::new(out, KeyMember::RawKey);
        key(out, &row[self.key]).map_err(|refusal| refused(self.key, refusal))?;
        let encoded = opening.keyed(out);
        begin_columns(out);
        match &self.columns {
            RawColumns::Generic { columns, .. } => match columns.map(|at| (at, &row[at])) {
                None | Some((_, Cell::Null)) => out.extend_from_slice(b"{}"),
                Some((at, Cell::Json(text) | Cell::Text(text))) => {
                    object(out, text).map_err(|refusal| refused(at, refusal))?
                }
                Some((at, other)) => return Err(refused(at, mismatch(other, "a JSON object"))),
            },
            RawColumns::Typed(columns) => {
                let set = columns.iter().filter(|(at, _)| self.set_null || !row[*at].is_null());
                self.encode_columns(table, row, set, out)?
            }
        }
        if let (Some(existing), RawColumns::Typed(columns)) = (&self.existing, &self.columns) {
            begin_existing(out);
            let set =
                columns.iter().filter(|(at, _)| existing[*at] && (self.set_null || !row[*at].is_null()));
            only_columns(out, |out| self.encode_columns(table, row, set, out))?;
        }
        end(out);
        Ok(encoded)
    }

    /// Returns the key column of a table of typed columns.
    pub fn typed_key(table: &Table) -> Option<usize> {
        table
            .bindings
            .iter()
            .position(|binding| matches!(binding, Some(Binding::RawColumn { key: true, .. })))
    }

    /// Checks whether a changed row must be deleted and written again, under its new key or in its new table.
    ///
    /// # Errors
    /// `Unsupported` for a table of typed columns: the RAW row may have columns that the table does not show.
    pub fn moves(&self, table: &Table, keys: &[Cell<'_>], row: &[Cell<'_>]) -> Result<bool, Error> {
        let mut parts = vec![self.key];
        if let RawColumns::Generic { database, table, .. } = &self.columns {
            parts.extend([*database, *table]);
        }
        let moves = parts.iter().any(|at| keys[*at] != row[*at]);
        match (&self.columns, moves) {
            (RawColumns::Typed(_), true) => {
                let why = "the key of a RAW row cannot be changed".to_owned();
                Err(refuse(Kind::Unsupported, table, keys, self.key, why)
                    .hint("Insert a row with the new key, and delete the old one."))
            }
            _ => Ok(moves),
        }
    }

    /// Checks whether an update of some columns must be completed with the rest of the row, which CDF would otherwise lose.
    pub fn is_partial(&self) -> bool {
        matches!(self.columns, RawColumns::Typed(_))
    }

    /// Appends the key and the changed columns. A NULL becomes null, and delivery clears the column.
    pub fn encode_update(
        &self,
        table: &Table,
        row: &[Cell<'_>],
        changed: &[bool],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let mut encoded = self.encode_delete(table, row, out)?;
        reopen(out);
        begin_columns(out);
        match &self.columns {
            RawColumns::Typed(columns) => {
                // The key does not change, and neither does the RAW column of the same name.
                let set = columns.iter().filter(|(at, _)| changed[*at] && *at != self.key);
                self.encode_columns(table, row, set, out)?
            }
            RawColumns::Generic { .. } => out.extend_from_slice(b"{}"),
        }
        end(out);
        encoded.deferred = true;
        Ok(encoded)
    }

    /// Appends an object of some typed columns.
    #[inline]
    fn encode_columns<'s>(
        &self,
        table: &Table,
        row: &[Cell<'_>],
        columns: impl Iterator<Item = &'s (usize, Vec<u8>)>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let body = out.len();
        let too_long = |bytes: usize| {
            let (kind, why) = row_too_long(bytes);
            Err(refuse(kind, table, row, self.key, why))
        };
        for (at, head) in columns {
            out.extend_from_slice(head);
            let grows =
                write_column(out, &row[*at]).map_err(|(kind, why)| refuse(kind, table, row, *at, why))?;
            // Check now, before the next value makes the row even longer.
            if grows && out.len() - body > ROW_BYTES {
                return too_long(out.len() - body);
            }
        }
        end_object(out, body);
        if out.len() - body > ROW_BYTES {
            too_long(out.len() - body)
        } else {
            Ok(())
        }
    }

    /// Appends the object that names a row.
    pub fn encode_delete(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let opening = Opening::new(out, KeyMember::RawKey);
        key(out, &keys[self.key]).map_err(|(kind, why)| refuse(kind, table, keys, self.key, why))?;
        let encoded = opening.keyed(out);
        end(out);
        Ok(encoded)
    }
}

/// Checks how many bytes the columns of a row have so far.
fn check_row(bytes: usize) -> Result<(), Refusal> {
    if bytes > ROW_BYTES {
        Err(row_too_long(bytes))
    } else {
        Ok(())
    }
}

#[cold]
fn row_too_long(bytes: usize) -> Refusal {
    let why = format!("the row's columns have {bytes} bytes or more as JSON; CDF takes {ROW_BYTES}");
    (Kind::TooLong, why)
}

/// Appends one column's value. Returns whether it may have made the row too long.
#[inline]
fn write_column(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<bool, Refusal> {
    match cell {
        // Nearly all values. Characters need not be counted: even escaped, the text is far below a column's limit.
        Cell::Text(text) if text.len() <= SHORT_BYTES => json::text(out, text),
        Cell::Null | Cell::Bool(_) | Cell::Int(_) | Cell::Float(_) | Cell::Timestamp(_) => {
            json::value(out, cell)?
        }
        _ => return write_long(out, cell).map(|()| true),
    }
    Ok(false)
}

/// The slow path of `write_column`, for a value of any length.
#[inline(never)]
fn write_long(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    if let Some(chars) = length::surely_longer(cell, COLUMN_CHARS) {
        return Err(too_many_chars("value", chars));
    }
    let value = out.len();
    json::value(out, cell)?;
    if out.len() - value > COLUMN_CHARS {
        check_length("value", &String::from_utf8_lossy(&out[value..]))
    } else {
        Ok(())
    }
}

/// Checks the name of a RAW database or table.
pub fn check_name(name: &str, max: usize) -> Result<(), Refusal> {
    match name.chars().count() {
        // URLs treat these two as directions, even percent-encoded.
        _ if name == "." || name == ".." => {
            let why = "CDF names databases and tables in URLs, which take \".\" and \"..\" for directions";
            Err((Kind::InvalidValue, format!("nothing called \"{name}\" can be reached: {why}")))
        }
        0 => Err((Kind::InvalidValue, "the name is empty".into())),
        chars if chars > max => {
            let shown = length::shown(name);
            Err((Kind::TooLong, format!("the name \"{shown}\" has {chars} characters; CDF takes {max}")))
        }
        _ => Ok(()),
    }
}

/// Returns the key of a row as text. The key column of a typed table may also hold numbers, timestamps or booleans.
pub fn key_text<'c>(cell: &'c Cell<'_>) -> Result<Cow<'c, str>, Refusal> {
    Ok(match cell {
        Cell::Null => return Err((Kind::MissingValue, "the row's key is NULL".into())),
        Cell::Timestamp(micros) => json::moment(*micros)?.into(),
        Cell::Bool(value) => value.to_string().into(),
        Cell::Float(value) => value.to_string().into(),
        other => as_text(other)?,
    })
}

fn key(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    let text = key_text(cell)?;
    // Bytes bound characters from above.
    if text.len() > KEY_CHARS && text.chars().count() > KEY_CHARS {
        let chars = text.chars().count();
        return Err((Kind::TooLong, format!("the row's key has {chars} characters; CDF takes {KEY_CHARS}")));
    }
    if text.is_empty() {
        return Err((Kind::InvalidValue, "the row's key is empty".into()));
    }
    json::text(out, &text);
    Ok(())
}

/// Checks one column's name or value. Bytes bound characters from above, so most are never counted.
fn check_length(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > COLUMN_CHARS {
        let chars = text.chars().count();
        if chars > COLUMN_CHARS {
            return Err(too_many_chars(what, chars));
        }
    }
    Ok(())
}

fn too_many_chars(what: &str, chars: usize) -> Refusal {
    (Kind::TooLong, format!("a column's {what} has {chars} characters; CDF takes {COLUMN_CHARS}"))
}

/// Appends a document, which must be an object. RAW takes any JSON value in it, including null.
fn object(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    check_row(text.len())?;
    json::check_depth(text)?;
    match serde_json::from_str::<Properties>(text) {
        Ok(properties) => {
            for (name, value) in &properties.0 {
                check_length("name", name)?;
                check_length("value", value.get())?;
            }
            out.extend_from_slice(text.as_bytes());
        }
        Err(error) => return Err((Kind::InvalidValue, format!("the value must be a JSON object ({error})"))),
    }
    Ok(())
}
