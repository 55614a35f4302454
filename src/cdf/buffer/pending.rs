//! What a transaction has written and not sent yet, for its own SELECT, UPDATE and DELETE.

use std::sync::Arc;

use hashbrown::HashSet;
use prost::Message;

use super::chunk::{Body, Spill};
use super::{Batch, Lane, Trace, TransactionBuffer};
use crate::cdf::client::Connection;
use crate::cdf::encode::json::Properties;
use crate::cdf::encode::point::wire;
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Error, Identity};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::{Resource, Shape};
use crate::cdf::table::{Mode, OnConflict, Operation};
use crate::cdf::view::View;

/// A write of one item or RAW row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingItem {
    pub mode: Mode,
    pub kind: KeyKind,
    /// The row as it was encoded.
    pub fragment: Vec<u8>,
    /// RAW's database and table.
    pub raw: Option<(String, String)>,
    /// The view through which an instance is written.
    pub view: Option<Arc<View>>,
}

/// A write to one series.
#[derive(Debug, Clone, PartialEq)]
pub enum PendingPoints {
    Write(wire::InsertionItem),
    /// Milliseconds; the end is excluded.
    Delete {
        series: Identity,
        first: i64,
        end: i64,
    },
}

/// Everything written to a table, earlier writes of a key first.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pending {
    pub items: Vec<PendingItem>,
    pub points: Vec<PendingPoints>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.points.is_empty()
    }
}

/// The keys that are asked for, as they stand at the beginning of a fragment: `{"externalId":"…"`.
struct Keys(HashSet<Vec<u8>>);

impl Keys {
    /// Whether the fragment has one of the keys, or a key of another kind, of which only CDF knows what it means.
    fn want(&self, kind: KeyKind, fragment: &[u8]) -> bool {
        if kind != KeyKind::Key {
            return kind != KeyKind::None;
        }
        // A key ends where the next member begins, or the object: a text can hold neither unescaped in front of it.
        let end = Properties::first_end(fragment);
        self.0.contains(&fragment[..end])
    }
}

impl TransactionBuffer {
    /// What was written to a resource over a connection. With `keys`, the first bytes of keyed fragments, rows of other
    /// keys are left out.
    pub fn pending(
        &self,
        connection: &Arc<Connection>,
        resource: &'static Resource,
        keys: Option<Vec<Vec<u8>>>,
        spill: &mut dyn Spill,
    ) -> Result<Pending, Error> {
        let keys = keys.map(|keys| Keys(keys.into_iter().collect()));
        let mut pending = Pending::default();
        for lane in &self.lanes {
            let destination = &lane.destination;
            if Arc::ptr_eq(&destination.connection, connection)
                && std::ptr::eq(destination.resource, resource)
            {
                lane.pending(keys.as_ref(), &mut pending, spill)?;
            }
        }
        Ok(pending)
    }
}

/// Where a part of what is pending is.
enum Place<'l> {
    Open(&'l Batch),
    Closed(&'l super::Chunk),
}

impl Lane {
    fn pending(
        &self,
        keys: Option<&Keys>,
        pending: &mut Pending,
        spill: &mut dyn Spill,
    ) -> Result<(), Error> {
        // A chunk in a temporary file is read only if the trace of its wave says that it may hold a key.
        let hashes: Option<Vec<u64>> = keys.map(|keys| keys.0.iter().map(|key| key_hash(key)).collect());
        let may_hold = |wave: usize, kind: KeyKind| match (&hashes, self.traces.get(wave)) {
            (Some(hashes), Some(Trace::Keys(trace))) if kind == KeyKind::Key => {
                hashes.iter().any(|hash| trace.contains(*hash))
            }
            _ => true,
        };
        let mut places: Vec<(usize, Mode, KeyKind, Place<'_>)> = Vec::new();
        for segment in &self.segments {
            let closed = segment.closed.iter().filter(|chunk| may_hold(chunk.wave, chunk.kind));
            places.extend(closed.map(|chunk| (chunk.wave, chunk.mode, chunk.kind, Place::Closed(chunk))));
            places.extend(
                segment.open.iter().map(|open| (open.wave, open.mode, open.kind, Place::Open(&open.batch))),
            );
        }
        places.sort_by_key(|(wave, ..)| *wave);
        for (_, mode, kind, place) in places {
            let mut add = |fragment: &[u8]| {
                if keys.is_none_or(|keys| keys.want(kind, fragment)) {
                    pending.items.push(PendingItem {
                        mode,
                        kind,
                        fragment: fragment.to_vec(),
                        raw: self.destination.raw.clone(),
                        view: self.destination.view.clone(),
                    });
                }
            };
            let datapoints = matches!(self.destination.resource.shape, Shape::Datapoints { .. });
            match place {
                Place::Open(Batch::Items(batch)) => batch.fragments().for_each(add),
                Place::Open(Batch::Ranges(batch)) => {
                    pending.points.extend(deleted(batch.body())?);
                }
                Place::Open(Batch::Points(batch)) => {
                    pending.points.extend(
                        batch
                            .messages(self.string(), mode.on_conflict == OnConflict::Ignore)?
                            .into_iter()
                            .map(PendingPoints::Write),
                    );
                }
                Place::Closed(chunk) => {
                    let body = chunk.read(spill)?;
                    match (datapoints, mode.operation) {
                        (true, Operation::Delete) => pending.points.extend(deleted(&body)?),
                        (true, _) => {
                            let request = wire::InsertionRequest::decode(&*body.bytes).map_err(|error| {
                                Error::internal(format!("encoded datapoints are not readable: {error}"))
                            })?;
                            pending.points.extend(request.items.into_iter().map(PendingPoints::Write));
                        }
                        (false, _) => (0..body.items.len()).for_each(|at| add(body.fragment(at))),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The hash of a key, from the fragment's beginning up to its end.
fn key_hash(prefix: &[u8]) -> u64 {
    let colon = prefix.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
    hash_bytes(&prefix[colon..])
}

/// The stretches that a request deletes.
fn deleted(body: &Body) -> Result<Vec<PendingPoints>, Error> {
    (0..body.items.len())
        .map(|at| {
            let value: serde_json::Value = serde_json::from_slice(body.fragment(at))
                .map_err(|error| Error::internal(format!("an encoded deletion is not JSON: {error}")))?;
            let moment = |name: &str| value[name].as_i64().unwrap_or_default();
            let series = Identity::from_json(&value)
                .ok_or_else(|| Error::internal("a deletion of datapoints without a series"))?;
            Ok(PendingPoints::Delete { series, first: moment("inclusiveBegin"), end: moment("exclusiveEnd") })
        })
        .collect()
}
