//! A reader's access to the transaction's own writes.
//!
//! A reader runs on another thread, and only the transaction's thread may look into the buffer. So the reader asks and waits
//! for the answer. This way nobody has to hold all writes at once.

use tokio::sync::{mpsc, oneshot};

use crate::cdf::buffer::{PendingItem, SeriesWrites, WantedPoints, WantedRows};
use crate::cdf::document::Value;
use crate::cdf::encode::fragment::Key;
use crate::cdf::error::Error;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID, SPACE};
use crate::cdf::resource::sequence_rows::ROW_NUMBER;

/// A question, and the channel for its answer.
#[derive(Debug)]
pub enum Ask {
    Rows { wanted: WantedRows, reply: Reply<PendingItem> },
    Points { wanted: WantedPoints, reply: Reply<SeriesWrites> },
}

type Reply<T> = oneshot::Sender<Result<Vec<T>, Error>>;

/// A reader's access to own writes. By default the transaction has written nothing.
#[derive(Debug, Default)]
pub struct Own {
    asks: Option<mpsc::UnboundedSender<Ask>>,
    /// The RAW tables that were written to.
    pub places: Vec<(String, String)>,
    /// Whether some writes address items by `id`.
    by_id: bool,
}

impl Own {
    /// Makes the reader's end and the answering end.
    pub fn channel(places: Vec<(String, String)>, by_id: bool) -> (Own, mpsc::UnboundedReceiver<Ask>) {
        let (asks, receiver) = mpsc::unbounded_channel();
        (Own { asks: Some(asks), places, by_id }, receiver)
    }

    /// Checks whether there are no writes to ask for.
    pub fn is_empty(&self) -> bool {
        self.asks.is_none()
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Ask) -> Result<Vec<T>, Error> {
        let gone = || Error::internal("nobody answers what the transaction has written");
        let Some(asks) = &self.asks else { return Ok(Vec::new()) };
        let (reply, answer) = oneshot::channel();
        asks.send(question(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn rows(&self, wanted: WantedRows) -> Result<Vec<PendingItem>, Error> {
        self.ask(|reply| Ask::Rows { wanted, reply }).await
    }

    /// Returns the writes to some keys, for each key in their order.
    pub async fn of_keys(
        &self,
        place: Option<&(String, String)>,
        keys: impl Iterator<Item = Key>,
    ) -> Result<Vec<PendingItem>, Error> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.rows(WantedRows::OfKeys { place: place.cloned(), keys, anew: false }).await
    }

    /// Returns the writes to CDF's items, or rows of sequences, by both of their names.
    pub async fn of_items(&self, items: &[Value], key: KeyOf) -> Result<Vec<PendingItem>, Error> {
        self.of_keys(None, items.iter().flat_map(|item| self.keys(item, key))).await
    }

    /// Returns the writes to the names of which nothing was returned yet. Those to the other name of each item were.
    pub async fn of_items_anew(&self, items: &[Value], key: KeyOf) -> Result<Vec<PendingItem>, Error> {
        let keys: Vec<_> = items.iter().flat_map(|item| self.keys(item, key)).collect();
        if self.by_id && !keys.is_empty() {
            self.rows(WantedRows::OfKeys { place: None, keys, anew: true }).await
        } else {
            Ok(Vec::new())
        }
    }

    fn keys(&self, item: &Value, key: KeyOf) -> impl Iterator<Item = Key> {
        let by_id = self.by_id.then(|| key(item, OwnName::Id)).flatten();
        key(item, OwnName::ExternalId).into_iter().chain(by_id)
    }

    /// Returns the next writes that nobody has asked for by key, all writes of a key together; nothing at the end.
    pub async fn rest(&self, place: Option<&(String, String)>) -> Result<Vec<PendingItem>, Error> {
        self.rows(WantedRows::Rest { place: place.cloned() }).await
    }

    /// Returns the writes to series.
    pub async fn points(&self, wanted: WantedPoints) -> Result<Vec<SeriesWrites>, Error> {
        self.ask(|reply| Ask::Points { wanted, reply }).await
    }
}

/// The ways in which CDF names an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnName {
    ExternalId,
    Id,
}

/// Returns the key of the writes that name an item of CDF in one way, if the item has such a name.
pub type KeyOf = fn(&Value, OwnName) -> Option<Key>;

/// A [`KeyOf`] items.
pub fn item_key(item: &Value, by: OwnName) -> Option<Key> {
    match by {
        OwnName::ExternalId => item[EXTERNAL_ID].as_str().map(Key::of_external_id),
        OwnName::Id => item[ID].as_i64().map(Key::of_id),
    }
}

/// A [`KeyOf`] rows of sequences.
pub fn sequence_row_key(row: &Value, by: OwnName) -> Option<Key> {
    let number = row[ROW_NUMBER].as_i64()?;
    Some(item_key(row, by)?.with_row_number(number))
}

/// Returns the key of the writes to an instance.
pub fn instance_key(item: &Value) -> Option<Key> {
    Some(Key::of_instance(item[SPACE].as_str()?, item[EXTERNAL_ID].as_str()?))
}
