//! A row's way into the buffer: typed row → encoder → batch.

use std::sync::Arc;

use super::buffer::{Spill, Subtransaction, TransactionBuffer};
use super::cell::Cell;
use super::encode::fragment::Fragment;
use super::encode::instances::InstanceEncoder;
use super::encode::items::ItemEncoder;
use super::encode::points::{PointEncoder, SeriesRef};
use super::encode::raw::RawEncoder;
use super::encode::sequence_rows::SequenceRowEncoder;
use super::encode::{EncodedRow, KeyKind};
use super::error::{Error, Kind};
use super::http::connection::Connection;
use super::read::existing::RowKey;
use super::resource::{Resource, Shape};
use super::table::{Mode, NullHandling, OnConflict, Operation, Table};

/// Writes the rows of one statement to one table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    connection: Arc<Connection>,
    on_conflict: OnConflict,
    encoder: Encoder,
    /// How rows are inserted.
    upsert: Mode,
    /// The lane of the last row.
    lane: Option<usize>,
    fragment: Vec<u8>,
}

#[derive(Debug)]
enum Encoder {
    Items(ItemEncoder),
    Raw(RawEncoder),
    Points(PointEncoder),
    SequenceRows(SequenceRowEncoder),
    Instances(InstanceEncoder),
}

/// Where a statement's rows go: the transaction's buffer, the subtransaction that writes, and the storage for what memory
/// cannot hold.
pub struct Target<'t> {
    pub buffer: &'t mut TransactionBuffer,
    pub subtransaction: Subtransaction,
    pub spill: &'t mut dyn Spill,
}

impl Writer {
    /// Makes the writer of a table. `listed`: the columns that an existing row gets under [`OnConflict::UpdateListed`].
    ///
    /// # Errors
    /// `Unsupported` if the resource cannot be written in this mode, `InvalidOption` if the table lacks columns that writing
    /// needs.
    pub fn new(
        table: Arc<Table>,
        connection: Arc<Connection>,
        on_conflict: OnConflict,
        listed: Option<&[usize]>,
    ) -> Result<Self, Error> {
        let resource = table.options.resource;
        if on_conflict == OnConflict::UpdateListed && !resource.takes_listed_columns() {
            return Err(Error::new(
                Kind::Unsupported,
                format!("ON CONFLICT DO UPDATE of {} must set every column of the table", resource.name),
            )
            .hint("CDF replaces what exists under the same key, whole."));
        }
        let encoder = match &resource.shape {
            Shape::Items(items) | Shape::Journal(items) => {
                Encoder::Items(ItemEncoder::new(&table, items, listed))
            }
            Shape::SequenceRows => Encoder::SequenceRows(SequenceRowEncoder::new(&table)?),
            Shape::Instances { .. } => Encoder::Instances(InstanceEncoder::new(&table, listed)?),
            Shape::Raw => Encoder::Raw(RawEncoder::new(&table, listed)?),
            Shape::Datapoints { string } => Encoder::Points(PointEncoder::new(&table, *string)?),
        };
        let upsert = mode(&table, on_conflict, Operation::Upsert);
        Ok(Writer { table, connection, on_conflict, encoder, upsert, lane: None, fragment: Vec::new() })
    }

    /// Returns the table that the rows are written to.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Returns the connection that the rows are sent over.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn mode(&self, operation: Operation) -> Mode {
        mode(&self.table, self.on_conflict, operation)
    }

    /// Encodes one row into the buffer. The cells are in the order of the table's columns. A refused row leaves the buffer
    /// unchanged.
    pub fn insert(&mut self, target: Target<'_>, row: &[Cell<'_>]) -> Result<(), Error> {
        let mode = self.upsert;
        let table = &*self.table;
        self.fragment.clear();
        match &self.encoder {
            Encoder::Items(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::SequenceRows(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::Raw(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                self.push_raw(target, mode, &encoded, row)
            }
            Encoder::Instances(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::Points(encoder) => {
                let Target { buffer, subtransaction, spill } = target;
                let lane = *self
                    .lane
                    .get_or_insert_with(|| buffer.lane(&self.connection, table.options.resource, None));
                if let Some(point) = encoder.plain(row) {
                    if buffer.push_known_point(lane, subtransaction, mode, &point, spill)? {
                        return Ok(());
                    }
                }
                self.insert_any_point(Target { buffer, subtransaction, spill }, lane, row)
            }
        }
    }

    /// As [`Writer::insert`], of any point. Apart from the fast path, which would be slower with this beside it.
    #[inline(never)]
    fn insert_any_point(&mut self, target: Target<'_>, lane: usize, row: &[Cell<'_>]) -> Result<(), Error> {
        let Encoder::Points(encoder) = &self.encoder else {
            return Err(Error::internal("a point without its encoder"));
        };
        let Target { buffer, subtransaction, spill } = target;
        let point = encoder.encode(&self.table, row, &mut self.fragment)?;
        buffer.push_point(lane, subtransaction, self.upsert, &point, spill)
    }

    /// Returns the key that identifies the row among existing ones; None if it has no key. Refuses a row that CDF would not
    /// take.
    pub fn key(&mut self, row: &[Cell<'_>]) -> Result<Option<RowKey>, Error> {
        let table = &*self.table;
        self.fragment.clear();
        let encoded = match &self.encoder {
            Encoder::Points(encoder) => {
                let point = encoder.encode(table, row, &mut self.fragment)?;
                return Ok(Some(RowKey::At(point.series.identity(), point.timestamp)));
            }
            Encoder::Items(encoder) => encoder.encode(table, row, &mut self.fragment)?,
            Encoder::SequenceRows(encoder) => encoder.encode(table, row, &mut self.fragment)?,
            Encoder::Instances(encoder) => encoder.encode(table, row, &mut self.fragment)?,
            Encoder::Raw(encoder) => encoder.encode(table, row, &mut self.fragment)?,
        };
        if encoded.kind == KeyKind::None {
            return Ok(None);
        }
        let place = match &self.encoder {
            Encoder::Raw(encoder) => Some(encoder.destination(table, row)?),
            _ => None,
        };
        let place = place.as_ref().map(|(database, table)| (&**database, &**table));
        match RowKey::of_key(Fragment::of(&self.fragment).key_of(&encoded), place) {
            Some(key) => Ok(Some(key)),
            None => Err(Error::internal("an encoded row without its key")),
        }
    }

    /// Updates an existing row. `keys` holds the old values of its key columns, `row` the new values of all columns. The
    /// `changed` columns are written.
    pub fn update(
        &mut self,
        mut target: Target<'_>,
        keys: &[Cell<'_>],
        row: &[Cell<'_>],
        changed: &[bool],
    ) -> Result<(), Error> {
        let mode = self.mode(Operation::Update);
        let table = &*self.table;
        self.fragment.clear();
        match &self.encoder {
            Encoder::Items(encoder) => {
                let encoded = encoder.encode_update(table, keys, row, changed, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::Raw(encoder) => {
                let moves = encoder.moves(table, keys, row)?;
                if moves || !encoder.is_partial() {
                    let row = table.without_read_only(row, changed);
                    if moves {
                        self.delete(target.again(), keys)?;
                    }
                    return self.insert(target, &row);
                }
                let encoded = encoder.encode_update(table, row, changed, &mut self.fragment)?;
                self.push_raw(target, mode, &encoded, row)
            }
            Encoder::Instances(encoder) => {
                let encoded = encoder.encode_update(table, keys, row, changed, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            // CDF writes cell by cell, so cells that the new object lacks must be deleted first.
            Encoder::SequenceRows(encoder) => {
                let row = encoder.with_one_sequence(keys, row);
                self.delete(target.again(), keys)?;
                self.insert(target, &row)
            }
            Encoder::Points(encoder) => {
                let was = (encoder.one_series(table, keys)?, encoder.timestamp(table, keys)?);
                let row = encoder.with_one_status(encoder.with_one_series(keys, row), changed);
                if was != (encoder.series(table, &row)?, encoder.timestamp(table, &row)?) {
                    self.delete(target.again(), keys)?;
                }
                self.insert(target, &row)
            }
        }
    }

    /// Deletes an existing row, which its key columns identify.
    pub fn delete(&mut self, target: Target<'_>, keys: &[Cell<'_>]) -> Result<(), Error> {
        let mode = self.mode(Operation::Delete);
        let table = &*self.table;
        self.fragment.clear();
        match &self.encoder {
            Encoder::Items(encoder) => {
                let encoded = encoder.encode_delete(table, keys, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::Raw(encoder) => {
                let encoded = encoder.encode_delete(table, keys, &mut self.fragment)?;
                self.push_raw(target, mode, &encoded, keys)
            }
            Encoder::Instances(encoder) => {
                let encoded = encoder.encode_delete(table, keys, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::SequenceRows(encoder) => {
                let keys = encoder.with_one_sequence(keys, keys);
                let encoded = encoder.encode_delete(table, &keys, &mut self.fragment)?;
                self.push(target, mode, &encoded)
            }
            Encoder::Points(encoder) => {
                let series = encoder.one_series(table, keys)?;
                let timestamp = encoder.timestamp(table, keys)?;
                self.delete_range(target, &series, (timestamp, timestamp + 1))
            }
        }
    }

    /// Deletes the points of a series in a time range. Milliseconds; the end is exclusive.
    pub fn delete_range(
        &self,
        target: Target<'_>,
        series: &SeriesRef<'_>,
        range: (i64, i64),
    ) -> Result<(), Error> {
        let lane = target.buffer.lane(&self.connection, self.table.options.resource, None);
        let mode = self.mode(Operation::Delete);
        target.buffer.push_range(lane, target.subtransaction, mode, series, range, target.spill)
    }

    fn push(&mut self, target: Target<'_>, mode: Mode, encoded: &EncodedRow) -> Result<(), Error> {
        let resource: &'static Resource = self.table.options.resource;
        let view = self.table.view.as_ref();
        let lane = *self.lane.get_or_insert_with(|| match view {
            Some(view) => target.buffer.lane_of_view(&self.connection, resource, view),
            None => target.buffer.lane(&self.connection, resource, None),
        });
        let fragment = Fragment::of(&self.fragment);
        target.buffer.push_item(lane, target.subtransaction, mode, fragment, encoded, target.spill)
    }

    fn push_raw(
        &mut self,
        target: Target<'_>,
        mode: Mode,
        encoded: &EncodedRow,
        row: &[Cell<'_>],
    ) -> Result<(), Error> {
        let Encoder::Raw(encoder) = &self.encoder else {
            return Err(Error::internal("a RAW row without its encoder"));
        };
        let (database, name) = encoder.destination(&self.table, row)?;
        let destination = (&*database, &*name);
        let lane = match self.lane {
            Some(lane) if target.buffer.is_lane(lane, &self.connection, Some(destination)) => lane,
            _ => target.buffer.lane(&self.connection, self.table.options.resource, Some(destination)),
        };
        self.lane = Some(lane);
        let fragment = Fragment::of(&self.fragment);
        target.buffer.push_item(lane, target.subtransaction, mode, fragment, encoded, target.spill)
    }
}

/// Returns the mode as far as delivery distinguishes it. The rest is already in the encoded row.
fn mode(table: &Table, on_conflict: OnConflict, operation: Operation) -> Mode {
    let options = &table.options;
    let reads_back = options.resource.is_in_raw_tables()
        && (operation == Operation::Update || on_conflict == OnConflict::UpdateListed);
    Mode {
        operation,
        on_conflict: match operation {
            Operation::Upsert => on_conflict,
            _ => OnConflict::Update,
        },
        null_handling: if reads_back { options.mode.null_handling } else { NullHandling::Ignore },
        create_missing: options.mode.create_missing && operation == Operation::Upsert,
        naming: table.naming(),
    }
}

impl Target<'_> {
    /// Returns the same target again, for a row that is written in two steps.
    fn again(&mut self) -> Target<'_> {
        Target { buffer: self.buffer, subtransaction: self.subtransaction, spill: self.spill }
    }
}
