//! A row's way into the buffer: typed row → encoder → batch.

use std::sync::Arc;

use super::buffer::{Spill, Subtransaction, TransactionBuffer};
use super::cell::Cell;
use super::client::Connection;
use super::encode::instance::InstanceEncoder;
use super::encode::item::ItemEncoder;
use super::encode::point::PointEncoder;
use super::encode::raw::RawEncoder;
use super::error::{Error, Kind};
use super::resource::Shape;
use super::table::{Mode, NullHandling, OnConflict, Table};

/// Writes the rows of one statement to one table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    connection: Arc<Connection>,
    mode: Mode,
    encoder: Encoder,
    /// The lane of the last row.
    lane: Option<usize>,
    fragment: Vec<u8>,
}

#[derive(Debug)]
enum Encoder {
    Items(ItemEncoder),
    Raw(RawEncoder),
    Points(PointEncoder),
    Instances(InstanceEncoder),
}

impl Writer {
    /// # Errors
    /// `Unsupported` for a mode that the resource cannot be written in, `InvalidOption` for a table without the columns
    /// that writing needs.
    pub fn new(
        table: Arc<Table>,
        connection: Arc<Connection>,
        on_conflict: OnConflict,
    ) -> Result<Self, Error> {
        let shape = &table.options.resource.shape;
        if on_conflict != OnConflict::Update && !matches!(shape, Shape::Items(_) | Shape::Instances { .. }) {
            let name = table.options.resource.name;
            return Err(Error::new(
                Kind::Unsupported,
                format!("{name} can only be written with on_conflict \"update\""),
            )
            .hint("CDF replaces what exists under the same key, and does not tell whether something did."));
        }
        // Only what delivery distinguishes: the rest is in the encoded row already.
        let mode = Mode {
            on_conflict,
            null_handling: NullHandling::Ignore,
            create_missing: table.options.mode.create_missing,
        };
        let encoder = match shape {
            Shape::Items(items) => Encoder::Items(ItemEncoder::new(&table, items)),
            Shape::Raw => Encoder::Raw(RawEncoder::new(&table)?),
            Shape::Instances { .. } => Encoder::Instances(InstanceEncoder::new(&table)?),
            Shape::Datapoints { string } => Encoder::Points(PointEncoder::new(&table, *string)?),
        };
        Ok(Writer { table, connection, mode, encoder, lane: None, fragment: Vec::new() })
    }

    /// Encodes one row into the buffer; cells are in the order of the table's columns. A refused row leaves the buffer
    /// as it was.
    pub fn push(
        &mut self,
        buffer: &mut TransactionBuffer,
        subtransaction: Subtransaction,
        row: &[Cell<'_>],
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        let table = &*self.table;
        self.fragment.clear();
        match &self.encoder {
            Encoder::Items(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                let lane = *self
                    .lane
                    .get_or_insert_with(|| buffer.lane(&self.connection, table.options.resource, None));
                buffer.push_item(lane, subtransaction, self.mode, &self.fragment, &encoded, spill)
            }
            Encoder::Raw(encoder) => {
                let (database, name) = encoder.destination(table, row)?;
                let destination = (&*database, &*name);
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                let lane = match self.lane {
                    Some(lane) if buffer.is_lane(lane, &self.connection, Some(destination)) => lane,
                    _ => buffer.lane(&self.connection, table.options.resource, Some(destination)),
                };
                self.lane = Some(lane);
                buffer.push_item(lane, subtransaction, self.mode, &self.fragment, &encoded, spill)
            }
            Encoder::Instances(encoder) => {
                let encoded = encoder.encode(table, row, &mut self.fragment)?;
                let view = table.view.as_ref();
                let view = view.ok_or_else(|| Error::internal("a view's table without its view"))?;
                let lane = *self.lane.get_or_insert_with(|| {
                    buffer.lane_of_view(&self.connection, table.options.resource, view)
                });
                buffer.push_item(lane, subtransaction, self.mode, &self.fragment, &encoded, spill)
            }
            Encoder::Points(encoder) => {
                let series = encoder.series(table, row)?;
                let timestamp = encoder.timestamp(table, row)?;
                let lane = *self
                    .lane
                    .get_or_insert_with(|| buffer.lane(&self.connection, table.options.resource, None));
                buffer.push_point(lane, subtransaction, self.mode, &series, timestamp, spill, |out| {
                    encoder.encode(table, row, timestamp, out)
                })
            }
        }
    }
}
