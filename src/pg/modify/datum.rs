//! Slot to typed cells: the one place that reads a Datum of a row.

use std::borrow::Cow;
use std::ffi::CStr;

use bumpalo::Bump;
use pgrx::pg_sys::{self, Datum, Oid};

use super::jsonb;
use crate::cdf::cell::Cell;
use crate::cdf::encode::length;
use crate::cdf::error::{Error, Kind};
use crate::pg::encoding::{decode, is_foreign, not_unicode, utf8};
use crate::pg::session::transmission::TextForm;
use crate::pg::text::column_name;

const DAY_MICROS: i64 = 86_400_000_000;

/// Whether the table's rows have a value in a column: not in a dropped one, nor in one that PostgreSQL computes when it is
/// read (a virtual generated column, since PostgreSQL 18).
pub fn holds_values(attribute: &pg_sys::FormData_pg_attribute) -> bool {
    !attribute.attisdropped && matches!(attribute.attgenerated as u8, 0 | pg_sys::ATTRIBUTE_GENERATED_STORED)
}

/// How the values of one column are read.
#[derive(Debug, Clone)]
enum ValueReader {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    Timestamp,
    Date,
    Json,
    Jsonb {
        /// Flat objects are read as pairs.
        pairs: bool,
    },
    Numeric {
        output: Oid,
    },
    Bytea,
    Array(Box<Element>),
    /// By the type's output function: uuid, enums, and other types.
    Output {
        output: Oid,
        form: TextForm,
    },
}

#[derive(Debug, Clone)]
struct Element {
    reader: ValueReader,
    oid: Oid,
    len: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

/// Reads the rows of one table.
#[derive(Debug)]
pub struct RowReader {
    columns: Vec<Option<ColumnReader>>,
    /// Memory that PostgreSQL allocates for a row. It is freed with the next row.
    context: pg_sys::MemoryContext,
    /// Memory that this module allocates for a row. It is freed with the next row.
    arena: Bump,
    /// Whether the database's texts must be converted.
    recode: bool,
    /// The settings that output functions depend on.
    form: TextForm,
    /// Bytes of the longest JSON document that CDF takes in any of the columns.
    longest_document: usize,
    /// The emptied cells of the last row, kept to reuse their memory.
    cells: Vec<Cell<'static>>,
}

/// Where values are unpacked, and how.
#[derive(Debug, Clone, Copy)]
struct Memory<'a> {
    context: pg_sys::MemoryContext,
    arena: &'a Bump,
    recode: bool,
    longest_document: usize,
}

impl Memory<'_> {
    /// Calls a function that allocates in the row's memory.
    ///
    /// # Safety
    /// The context exists. What is allocated is not used after the next [`RowReader::reset`].
    unsafe fn within<R>(self, allocate: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise. An error that leaves from here leaves the statement, which sets its own context.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.context);
            let result = allocate();
            pg_sys::MemoryContextSwitchTo(previous);
            result
        }
    }
}

#[derive(Debug)]
struct ColumnReader {
    name: String,
    reader: ValueReader,
}

impl RowReader {
    /// # Safety
    /// `descriptor` is a table's; `context` lives as long as the reader.
    pub unsafe fn new(
        descriptor: pg_sys::TupleDesc,
        context: pg_sys::MemoryContext,
        longest_document: usize,
    ) -> Self {
        // SAFETY: the caller's promise.
        let descriptor = unsafe { pgrx::PgTupleDesc::from_pg_unchecked(descriptor) };
        let mut columns = Vec::with_capacity(descriptor.len());
        for attribute in descriptor.iter() {
            columns.push(holds_values(attribute).then(|| ColumnReader {
                name: column_name(attribute),
                reader: ValueReader::of(attribute.atttypid),
            }));
        }
        // SAFETY: catalog and context functions of a running backend; the name is static.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                context,
                c"cdf_fdw row".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        let form = columns.iter().flatten().map(|column| column.reader.form()).max();
        RowReader {
            columns,
            context,
            arena: Bump::new(),
            recode: is_foreign(),
            form: form.unwrap_or(TextForm::Fixed),
            longest_document,
            cells: Vec::new(),
        }
    }

    /// Frees what the last row has allocated. Most rows allocate nothing, and then the calls would cost more than all else.
    ///
    /// # Safety
    /// Nothing of it is used any more.
    unsafe fn reset(&mut self) {
        self.arena.reset();
        // SAFETY: the caller's promise; the context lives as long as the reader.
        unsafe {
            if !(*self.context).isReset {
                pg_sys::MemoryContextReset(self.context);
            }
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory {
            context: self.context,
            arena: &self.arena,
            recode: self.recode,
            longest_document: self.longest_document,
        }
    }

    /// Makes the reader return flat JSON objects of a column as pairs, for an encoder that needs no document.
    pub fn read_pairs(&mut self, column: usize) {
        if let Some(Some(ColumnReader { reader: ValueReader::Jsonb { pairs }, .. })) =
            self.columns.get_mut(column)
        {
            *pairs = true;
        }
    }

    /// Reads the slot's row and passes its cells to `use_row`. The cells borrow from the slot, and end with the call.
    ///
    /// # Safety
    /// `slot` holds a row of the table that the reader was made for.
    pub unsafe fn read<R>(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        use_row: impl FnOnce(&[Cell<'_>]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut cells: Vec<Cell<'_>> = std::mem::take(&mut self.cells);
        // SAFETY: the caller's promise: the slot has as many attributes as the reader has columns, and its arrays are
        // filled up to tts_nvalid. The row context is the reader's own, and nothing of the last row is used any more.
        let (values, nulls) = unsafe {
            if ((*slot).tts_nvalid as usize) < self.columns.len() {
                pg_sys::slot_getsomeattrs_int(slot, self.columns.len() as i32);
            }
            self.reset();
            (
                std::slice::from_raw_parts((*slot).tts_values, self.columns.len()),
                std::slice::from_raw_parts((*slot).tts_isnull, self.columns.len()),
            )
        };
        let mut result = Ok(());
        let fixed = (self.form != TextForm::Fixed).then(|| self.form.fix());
        let memory = self.memory();
        cells.resize(self.columns.len(), Cell::Null);
        for (((column, datum), null), cell) in self.columns.iter().zip(values).zip(nulls).zip(&mut cells) {
            let Some(column) = column else { continue };
            // SAFETY: the value is not NULL and of the column's type.
            if *null || unsafe { column.reader.read_plain(*datum, memory, cell) } {
                continue;
            }
            // SAFETY: as above.
            match unsafe { column.read(*datum, memory) } {
                Ok(read) => *cell = read,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Some(fixed) = fixed {
            fixed.end();
        }
        let result = result.and_then(|()| use_row(&cells));
        cells.clear();
        // SAFETY: an empty vector borrows nothing, and lifetimes change nothing of its layout.
        self.cells = unsafe { std::mem::transmute::<Vec<Cell<'_>>, Vec<Cell<'static>>>(cells) };
        result
    }
}

/// A row that a statement changes: its key columns as they were (the others are NULL), and for an UPDATE the row as it is
/// to be and as it was.
pub struct RowChange<'r> {
    pub keys: Vec<Cell<'r>>,
    pub new: Vec<Cell<'r>>,
    pub old: Vec<Cell<'r>>,
}

impl RowReader {
    /// Reads a change and passes it to `use_change`. `keys`: which columns are where in the plan's row.
    ///
    /// # Safety
    /// `plan` holds a row of the plan that has the keys. `new` and `old` are null, or hold rows of the reader's table.
    pub unsafe fn read_change<R>(
        &mut self,
        plan: *mut pg_sys::TupleTableSlot,
        keys: &[(usize, i16)],
        new: *mut pg_sys::TupleTableSlot,
        old: *mut pg_sys::TupleTableSlot,
        use_change: impl FnOnce(RowChange<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        // SAFETY: the caller's promise; the row context is the reader's own, and nothing of the last row is used any more.
        unsafe {
            self.reset();
            let row = |slot: *mut pg_sys::TupleTableSlot| {
                if slot.is_null() {
                    Ok(Vec::new())
                } else {
                    self.cells(|at| value(slot, at as i32 + 1))
                }
            };
            let fixed = self.form.fix();
            let place = |at: usize| keys.iter().find(|(column, _)| *column == at);
            let change = self
                .cells(|at| place(at).and_then(|(_, number)| value(plan, i32::from(*number))))
                .and_then(|keys| Ok(RowChange { keys, new: row(new)?, old: row(old)? }));
            fixed.end();
            change.and_then(use_change)
        }
    }

    /// Reads one column of the slot's row and passes its cell to `use_cell`: NULL, if the value cannot be read.
    ///
    /// # Safety
    /// `slot` holds a row of the table that the reader was made for.
    pub unsafe fn read_one<R>(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        column: usize,
        use_cell: impl FnOnce(&Cell<'_>) -> R,
    ) -> R {
        // SAFETY: the caller's promise; nothing of the last row is used any more.
        let cell = unsafe {
            self.reset();
            match (&self.columns[column], value(slot, column as i32 + 1)) {
                (Some(column), Some(datum)) => column.read(datum, self.memory()).unwrap_or(Cell::Null),
                _ => Cell::Null,
            }
        };
        use_cell(&cell)
    }

    /// Makes one cell for each column, from the value that `value` returns for its position.
    ///
    /// # Safety
    /// The values are of the columns' types, and live as long as the cells, as what the reader's memory holds does.
    unsafe fn cells(&self, value: impl Fn(usize) -> Option<Datum>) -> Result<Vec<Cell<'_>>, Error> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            cells.push(match (column, value(at)) {
                // SAFETY: the caller's promise.
                (Some(column), Some(datum)) => unsafe { column.read(datum, self.memory()) }?,
                _ => Cell::Null,
            });
        }
        Ok(cells)
    }
}

impl ColumnReader {
    /// # Safety
    /// As [`ValueReader::read`].
    unsafe fn read<'r>(&self, datum: Datum, memory: Memory<'r>) -> Result<Cell<'r>, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.reader.read(datum, memory) }
            .map_err(|(kind, why)| Error::new(kind, format!("column \"{}\": {why}", self.name)))
    }
}

/// The value of an attribute, counted from 1; None if it is NULL.
///
/// # Safety
/// The slot holds a row that has the attribute.
pub unsafe fn value(slot: *mut pg_sys::TupleTableSlot, number: i32) -> Option<Datum> {
    // SAFETY: the caller's promise; the slot's arrays are filled up to tts_nvalid.
    unsafe {
        if i32::from((*slot).tts_nvalid) < number {
            pg_sys::slot_getsomeattrs_int(slot, number);
        }
        let at = number as usize - 1;
        (!*(*slot).tts_isnull.add(at)).then(|| *(*slot).tts_values.add(at))
    }
}

type Refusal = (Kind, String);

impl ValueReader {
    fn form(&self) -> TextForm {
        match self {
            ValueReader::Output { form, .. } => *form,
            ValueReader::Array(element) => element.reader.form(),
            _ => TextForm::Fixed,
        }
    }

    fn of(oid: Oid) -> ValueReader {
        // SAFETY: catalog look-ups of a type that a column has.
        unsafe {
            let oid = pg_sys::getBaseType(oid);
            match oid {
                pg_sys::BOOLOID => ValueReader::Bool,
                pg_sys::INT2OID => ValueReader::Int2,
                pg_sys::INT4OID => ValueReader::Int4,
                pg_sys::INT8OID => ValueReader::Int8,
                pg_sys::FLOAT4OID => ValueReader::Float4,
                pg_sys::FLOAT8OID => ValueReader::Float8,
                pg_sys::TEXTOID | pg_sys::VARCHAROID => ValueReader::Text,
                pg_sys::TIMESTAMPTZOID | pg_sys::TIMESTAMPOID => ValueReader::Timestamp,
                pg_sys::DATEOID => ValueReader::Date,
                pg_sys::JSONOID => ValueReader::Json,
                pg_sys::JSONBOID => ValueReader::Jsonb { pairs: false },
                pg_sys::BYTEAOID => ValueReader::Bytea,
                _ => {
                    let element = pg_sys::get_element_type(oid);
                    if element != pg_sys::InvalidOid {
                        let (mut len, mut by_value, mut align) = (0, false, 0);
                        pg_sys::get_typlenbyvalalign(element, &mut len, &mut by_value, &mut align);
                        let reader = ValueReader::of(element);
                        return ValueReader::Array(Box::new(Element {
                            reader,
                            oid: element,
                            len,
                            by_value,
                            align,
                        }));
                    }
                    let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
                    pg_sys::getTypeOutputInfo(oid, &mut output, &mut varlena);
                    match oid {
                        pg_sys::NUMERICOID => ValueReader::Numeric { output },
                        _ => ValueReader::Output { output, form: TextForm::of(oid) },
                    }
                }
            }
        }
    }

    /// Reads a simple value into the cell, and returns whether it could: nearly all values are simple. [`Self::read`] reads the
    /// others, and tells what is wrong with them.
    ///
    /// Each value is written where it belongs: a cell that is made elsewhere and moved makes the processor wait for its
    /// parts, which takes longer than all else here.
    ///
    /// # Safety
    /// The datum is a value of the reader's type that lives for `'a`.
    #[inline(always)]
    unsafe fn read_plain<'a>(&self, datum: Datum, memory: Memory<'a>, cell: &mut Cell<'a>) -> bool {
        match self {
            ValueReader::Text if !memory.recode => {
                // SAFETY: the caller's promise; such a header says that the text stands behind it.
                let bytes = unsafe {
                    let varlena: *const pg_sys::varlena = datum.cast_mut_ptr();
                    let first = *varlena.cast::<u8>();
                    if !is_short(first) && !is_plain(first) {
                        return false;
                    }
                    pgrx::varlena::varlena_to_byte_slice(varlena)
                };
                match utf8(bytes) {
                    Some(text) => *cell = Cell::Text(text),
                    None => return false,
                }
            }
            ValueReader::Int8 => *cell = Cell::Int(datum.value() as i64),
            ValueReader::Int4 => *cell = Cell::Int(i64::from(datum.value() as i32)),
            ValueReader::Float8 => *cell = Cell::Float(f64::from_bits(datum.value() as u64)),
            ValueReader::Timestamp => match datum.value() as i64 {
                i64::MIN | i64::MAX => return false,
                micros => *cell = Cell::Timestamp(micros),
            },
            _ => return false,
        }
        true
    }

    /// # Safety
    /// The datum is a value of the reader's type that lives for `'a`, as does what is allocated in the memory.
    unsafe fn read<'a>(&self, datum: Datum, memory: Memory<'a>) -> Result<Cell<'a>, Refusal> {
        // SAFETY: the caller's promise, for each type its own representation.
        unsafe {
            Ok(match self {
                ValueReader::Bool => Cell::Bool(datum.value() & 0xff != 0),
                ValueReader::Int2 => Cell::Int(i64::from(datum.value() as i16)),
                ValueReader::Int4 => Cell::Int(i64::from(datum.value() as i32)),
                ValueReader::Int8 => Cell::Int(datum.value() as i64),
                // The shortest digits that give the float back, as PostgreSQL prints it: 0.1 stays 0.1.
                ValueReader::Float4 => Cell::Float(widen(f32::from_bits(datum.value() as u32))),
                ValueReader::Float8 => Cell::Float(f64::from_bits(datum.value() as u64)),
                ValueReader::Text => Cell::Text(text(bytes(datum, memory), memory)?),
                ValueReader::Json => Cell::Json(text(bytes(datum, memory), memory)?),
                ValueReader::Bytea => Cell::Bytes(bytes(datum, memory)),
                ValueReader::Timestamp => match datum.value() as i64 {
                    i64::MIN | i64::MAX => return Err(infinite()),
                    micros => Cell::Timestamp(micros),
                },
                ValueReader::Date => match datum.value() as i32 {
                    i32::MIN | i32::MAX => return Err(infinite()),
                    days => match i64::from(days).checked_mul(DAY_MICROS) {
                        Some(micros) => Cell::Timestamp(micros),
                        None => {
                            return Err((Kind::OutOfRange, "the date is beyond all that CDF takes".into()))
                        }
                    },
                },
                ValueReader::Jsonb { pairs } => {
                    if *pairs && !memory.recode {
                        if let Some(pairs) = jsonb::flat_pairs(bytes(datum, memory), memory.arena) {
                            return Ok(Cell::Pairs(pairs));
                        }
                    }
                    let jsonb: *mut pg_sys::varlena =
                        memory.within(|| pg_sys::pg_detoast_datum(datum.cast_mut_ptr()));
                    let stored = pgrx::varlena::varlena_to_byte_slice(jsonb);
                    if stored.len() > memory.longest_document {
                        let bytes = jsonb::least_bytes(stored);
                        if bytes > memory.longest_document {
                            return Err(length::too_long(bytes, memory.longest_document));
                        }
                    }
                    let printed = memory.within(|| {
                        let size = varlena_size(jsonb) as i32;
                        let jsonb: *mut pg_sys::Jsonb = jsonb.cast();
                        pg_sys::JsonbToCString(std::ptr::null_mut(), &mut (*jsonb).root, size)
                    });
                    Cell::Json(text(CStr::from_ptr(printed).to_bytes(), memory)?)
                }
                ValueReader::Numeric { output } => {
                    Cell::Number(text(printed(*output, datum, memory), memory)?)
                }
                ValueReader::Output { output, .. } => {
                    Cell::Text(text(printed(*output, datum, memory), memory)?)
                }
                ValueReader::Array(element) => Cell::List(element.read(datum, memory)?),
            })
        }
    }
}

impl Element {
    /// # Safety
    /// As [`ValueReader::read`].
    unsafe fn read<'a>(&self, datum: Datum, memory: Memory<'a>) -> Result<&'a [Cell<'a>], Refusal> {
        // SAFETY: the datum is an array of the element's type; deconstruct_array fills two arrays of `count` elements.
        unsafe {
            let array: *mut pg_sys::ArrayType =
                memory.within(|| pg_sys::pg_detoast_datum(datum.cast_mut_ptr())).cast();
            if (*array).ndim > 1 {
                return Err((Kind::InvalidValue, "CDF takes no arrays of more than one dimension".into()));
            }
            let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            memory.within(|| {
                pg_sys::deconstruct_array(
                    array,
                    self.oid,
                    i32::from(self.len) as _,
                    self.by_value,
                    self.align,
                    &mut values,
                    &mut nulls,
                    &mut count,
                )
            });
            let mut cells = bumpalo::collections::Vec::with_capacity_in(count as usize, memory.arena);
            for at in 0..count as usize {
                cells.push(if *nulls.add(at) {
                    Cell::Null
                } else {
                    self.reader.read(*values.add(at), memory)?
                });
            }
            Ok(cells.into_bump_slice())
        }
    }
}

fn infinite() -> Refusal {
    (Kind::OutOfRange, "the value is infinite; CDF takes finite timestamps only".into())
}

fn widen(value: f32) -> f64 {
    if value.is_finite() {
        value.to_string().parse().unwrap_or(f64::from(value))
    } else {
        f64::from(value)
    }
}

/// A varlena's bytes: in place if they are plain, otherwise an unpacked copy.
///
/// # Safety
/// The datum is a varlena that lives for `'a`, as does what is allocated in the memory.
unsafe fn bytes<'a>(datum: Datum, memory: Memory<'a>) -> &'a [u8] {
    // SAFETY: the caller's promise; pg_detoast_datum_packed leaves a plain or short header.
    unsafe {
        let varlena: *mut pg_sys::varlena = datum.cast_mut_ptr();
        let first = *varlena.cast::<u8>();
        let packed = if is_short(first) || is_plain(first) {
            varlena
        } else {
            memory.within(|| pg_sys::pg_detoast_datum_packed(varlena))
        };
        pgrx::varlena::varlena_to_byte_slice(packed)
    }
}

#[cfg(target_endian = "little")]
fn is_short(first: u8) -> bool {
    first & 1 == 1 && first != 1
}

#[cfg(target_endian = "little")]
fn is_plain(first: u8) -> bool {
    first & 3 == 0
}

#[cfg(target_endian = "big")]
fn is_short(first: u8) -> bool {
    first & 0x80 != 0 && first != 0x80
}

#[cfg(target_endian = "big")]
fn is_plain(first: u8) -> bool {
    first & 0xc0 == 0
}

/// # Safety
/// `varlena` has a plain header.
unsafe fn varlena_size(varlena: *const pg_sys::varlena) -> usize {
    // SAFETY: the caller's promise.
    unsafe { pgrx::varlena::varsize_4b(varlena) }
}

/// The text that a type's output function prints.
///
/// # Safety
/// The function is that of the datum's type; what is allocated in the memory lives for `'a`.
unsafe fn printed<'a>(output: Oid, datum: Datum, memory: Memory<'a>) -> &'a [u8] {
    // SAFETY: the caller's promise; output functions give NUL-terminated texts.
    unsafe { CStr::from_ptr(memory.within(|| pg_sys::OidOutputFunctionCall(output, datum))).to_bytes() }
}

/// # Safety
/// The bytes are text in the database's encoding.
unsafe fn text<'a>(bytes: &'a [u8], memory: Memory<'a>) -> Result<&'a str, Refusal> {
    let converted = if memory.recode { decode(bytes) } else { utf8(bytes).map(Cow::Borrowed) };
    match converted {
        Some(Cow::Borrowed(text)) => Ok(text),
        Some(Cow::Owned(text)) => Ok(memory.arena.alloc_str(&text)),
        None => Err((Kind::InvalidEncoding, not_unicode())),
    }
}
