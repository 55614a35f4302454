//! Delivers a transaction. [`flush`] decides which requests go when, and whether they create or update first
//! (`experience`); [`deliver`] passes one of them to the code for its shape, which sends it part by part (`send`) and knows
//! what CDF's refusals mean.

mod body;
mod context;
mod create;
mod delete;
mod errors;
mod experience;
pub mod flush;
mod fresh;
mod hierarchy;
mod instances;
mod items;
mod patch;
mod points;
mod queue;
mod raw;
mod receipt;
mod references;
mod request;
mod search;
mod send;
mod sequence_rows;
mod sequences;
pub mod tally;
mod transfer;
mod update;

use std::sync::Arc;

pub use self::context::Context;
pub use self::experience::Experiences;
pub use self::receipt::Receipt;
use self::request::WriteRequest;
use self::transfer::Transfer;
use super::error::Error;
use super::resource::Shape;
use super::table::Operation;

/// Delivers one request.
async fn deliver(context: Arc<Context>, request: WriteRequest) -> Receipt {
    let mut transfer = Transfer::new(&context, &request);
    let error = transfer.dispatch().await.err();
    transfer.ended(error)
}

impl Transfer<'_> {
    /// Delivers the request as its shape does.
    async fn dispatch(&mut self) -> Result<(), Error> {
        if self.request.header.mode.operation == Operation::Delete {
            return self.delete().await;
        }
        match &self.destination.resource.shape {
            Shape::Items(items) | Shape::Journal(items) => self.items(items).await,
            Shape::SequenceRows => self.sequence_rows().await,
            Shape::Raw => self.raw().await,
            Shape::Instances { edges } => self.instances(*edges).await,
            Shape::Datapoints { string } => self.points(*string).await,
        }
    }
}
