//! RAW rows: `{"key":…,"columns":{…}}`, from the generic table or from typed columns.

use std::borrow::Cow;

use super::item::as_text;
use super::json::{self, Properties, Refusal};
use super::{refuse, Encoded, KeyKind};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::raw::{COLUMN_CHARS, DATABASE_CHARS, KEY_CHARS, ROW_BYTES, TABLE_CHARS};
use crate::cdf::table::{Binding, NullHandling, Table, RAW_KEY};

/// Encodes the rows of one table.
#[derive(Debug)]
pub struct RawEncoder {
    key: usize,
    columns: Columns,
    set_null: bool,
    last_updated: Option<usize>,
}

#[derive(Debug)]
enum Columns {
    /// `db_name`, `table_name`, `key`, `columns`.
    Generic { database: usize, table: usize, columns: Option<usize> },
    /// One column each, with its `"name":`.
    Typed(Vec<(usize, Vec<u8>)>),
}

impl RawEncoder {
    pub fn new(table: &Table) -> Result<Self, Error> {
        let set_null = table.options.mode.null_handling == NullHandling::SetNull;
        if let (Some(database), Some(name)) = (&table.options.database, &table.options.table) {
            for (name, max) in [(database, DATABASE_CHARS), (name, TABLE_CHARS)] {
                check_name(name, max).map_err(|(_, why)| Error::new(Kind::InvalidOption, why))?;
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
                // The key is a RAW column too, unless it has RAW's own name for it.
                if !(*is_key && name == RAW_KEY) {
                    let mut head = Vec::new();
                    json::write(&mut head, name);
                    head.push(b':');
                    columns.push((at, head));
                }
            }
            let key = key.ok_or_else(|| Error::internal("a typed RAW table without its key column"))?;
            return Ok(RawEncoder { key, columns: Columns::Typed(columns), set_null, last_updated: None });
        }
        let need = |name: &str| {
            table.position(name).ok_or_else(|| {
                Error::new(
                    Kind::InvalidOption,
                    format!("the table needs a column \"{name}\" to be written to"),
                )
                .hint("For one RAW table with typed columns give the options \"database\" and \"table\".")
            })
        };
        Ok(RawEncoder {
            key: need("key")?,
            columns: Columns::Generic {
                database: need("db_name")?,
                table: need("table_name")?,
                columns: table.position("columns"),
            },
            set_null,
            last_updated: table.position("last_updated_time"),
        })
    }

    /// The RAW database and table that the row goes to, checked.
    pub fn destination<'c>(
        &self,
        table: &'c Table,
        row: &'c [Cell<'_>],
    ) -> Result<(Cow<'c, str>, Cow<'c, str>), Error> {
        let Columns::Generic { database, table: name, .. } = &self.columns else {
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

    /// Appends the row's object to `out`; on an error `out` holds a part of it, which the caller cuts off.
    pub fn encode(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<Encoded, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        if let Some(at) = self.last_updated.filter(|at| !row[*at].is_null()) {
            let why = "CDF sets this value; it cannot be written, leave it NULL".to_owned();
            return Err(refused(at, (Kind::InvalidValue, why)));
        }
        let start = out.len();
        out.extend_from_slice(b"{\"key\":");
        let value = out.len();
        key(out, &row[self.key]).map_err(|refusal| refused(self.key, refusal))?;
        let hash = hash_bytes(&out[value..]);
        let prefix = out.len() - start;
        out.extend_from_slice(b",\"columns\":");
        let body = out.len();
        match &self.columns {
            Columns::Generic { columns, .. } => match columns.map(|at| (at, &row[at])) {
                None | Some((_, Cell::Null)) => out.extend_from_slice(b"{}"),
                Some((at, Cell::Json(text) | Cell::Text(text))) => {
                    object(out, text).map_err(|refusal| refused(at, refusal))?
                }
                Some((at, other)) => return Err(refused(at, super::item::mismatch(other, "a JSON object"))),
            },
            Columns::Typed(columns) => {
                out.push(b'{');
                let mut first = true;
                for (at, head) in columns {
                    let cell = &row[*at];
                    if cell.is_null() && !self.set_null {
                        continue;
                    }
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    out.extend_from_slice(head);
                    let value = out.len();
                    json::value(out, cell).map_err(|refusal| refused(*at, refusal))?;
                    if out.len() - value > COLUMN_CHARS {
                        let text = String::from_utf8_lossy(&out[value..]);
                        check_length("value", &text).map_err(|refusal| refused(*at, refusal))?;
                    }
                }
                out.push(b'}');
            }
        }
        if out.len() - body > ROW_BYTES {
            let why =
                format!("the row's columns have {} bytes as JSON; CDF takes {ROW_BYTES}", out.len() - body);
            return Err(refused(self.key, (Kind::TooLong, why)));
        }
        out.push(b'}');
        Ok(Encoded { kind: KeyKind::Key, prefix, hash, deferred: false, parent: None })
    }
}

/// Checks the name of a RAW database or table.
pub fn check_name(name: &str, max: usize) -> Result<(), Refusal> {
    match name.chars().count() {
        // URLs take these two for directions, even percent-encoded.
        _ if name == "." || name == ".." => {
            Err((Kind::InvalidValue, format!("\"{name}\" cannot be addressed in a URL")))
        }
        0 => Err((Kind::InvalidValue, "the name is empty".into())),
        chars if chars > max => {
            Err((Kind::TooLong, format!("the name \"{name}\" has {chars} characters; CDF takes {max}")))
        }
        _ => Ok(()),
    }
}

/// The key as text. A typed table may key its rows by a number or a timestamp as well.
fn key(out: &mut Vec<u8>, cell: &Cell<'_>) -> Result<(), Refusal> {
    let text = match cell {
        Cell::Null => return Err((Kind::MissingValue, "the row's key is NULL".into())),
        Cell::Timestamp(micros) => json::moment(*micros)?.into(),
        Cell::Bool(value) => value.to_string().into(),
        Cell::Float(value) => value.to_string().into(),
        other => as_text(other)?,
    };
    let chars = text.chars().count();
    if chars > KEY_CHARS {
        return Err((Kind::TooLong, format!("the row's key has {chars} characters; CDF takes {KEY_CHARS}")));
    }
    if chars == 0 {
        return Err((Kind::InvalidValue, "the row's key is empty".into()));
    }
    json::write(out, &*text);
    Ok(())
}

/// Checks one column's name or value. Bytes bound characters from above, so most are never counted.
fn check_length(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > COLUMN_CHARS {
        let chars = text.chars().count();
        if chars > COLUMN_CHARS {
            return Err((
                Kind::TooLong,
                format!("a column's {what} has {chars} characters; CDF takes {COLUMN_CHARS}"),
            ));
        }
    }
    Ok(())
}

/// The document must be an object; RAW takes every JSON value in it, nulls as well.
fn object(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
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
