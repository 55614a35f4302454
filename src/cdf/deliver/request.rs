//! One request to deliver, assembled from its chunks.

use std::sync::Arc;

use super::experience::{Approach, Attempt};
use crate::cdf::activity::{Activity, Counters, Errand};
use crate::cdf::buffer::{Body, Chunk, Destination, Header, Spill};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::table::Operation;

/// One request to deliver.
pub struct WriteRequest {
    pub destination: Arc<Destination>,
    pub header: Header,
    pub rows: usize,
    pub body: Body,
    /// How it is sent, if its rows may exist.
    pub attempt: Option<Attempt>,
    /// The errand that counts its results.
    pub errand: Arc<Errand>,
}

impl WriteRequest {
    /// Makes the request of one chunk, or of several alike chunks. Spilled chunks are read back.
    pub fn of(
        chunks: Vec<Chunk>,
        destination: Arc<Destination>,
        attempt: Option<Attempt>,
        activity: &Arc<Activity>,
        counters: &Arc<Counters>,
        spill: &mut dyn Spill,
    ) -> Result<WriteRequest, Error> {
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let header = chunks.first().ok_or_else(|| Error::internal("a request without chunks"))?.header;
        let bodies: Vec<Body> =
            chunks.into_iter().map(|chunk| chunk.into_body(spill)).collect::<Result<_, _>>()?;
        let body = match <[Body; 1]>::try_from(bodies) {
            Ok([body]) => body,
            Err(bodies) => Body::of(bodies.iter().flat_map(Body::fragments)),
        };
        let errand = Errand::for_rows(activity, counters, rows, is_blind(header));
        Ok(WriteRequest { destination, header, rows, body, attempt, errand })
    }

    /// Whether existing items are updated before new ones are created.
    pub fn updates_first(&self) -> bool {
        self.attempt.is_some_and(|attempt| attempt.approach == Approach::Update)
    }

    /// Whether the rows have no key: sent again, they would be created twice.
    pub fn is_blind(&self) -> bool {
        is_blind(self.header)
    }
}

fn is_blind(header: Header) -> bool {
    header.kind == KeyKind::None && header.mode.operation != Operation::Delete
}
