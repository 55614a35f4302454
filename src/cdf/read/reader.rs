//! Reads rows page by page, in the way of their shape.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::call::Call;
use super::field::Row;
use super::own::Own;
use super::query::{Query, Statistics};
use super::{instances, items, journal, points, raw, sequence_rows};
use crate::cdf::error::Error;
use crate::cdf::http::client::Client;
use crate::cdf::http::request::Limits;
use crate::cdf::resource::Shape;

/// Reads a query's rows, one page after another.
pub struct Reader {
    client: Client,
    query: Query,
    own: Own,
    source: Source,
    statistics: Arc<Statistics>,
}

enum Source {
    Items(items::ItemPages),
    Journal(journal::JournalPages),
    Points(points::PointPages),
    Raw(raw::RawPages),
    SequenceRows(sequence_rows::SequenceRowPages),
    Instances(instances::InstancePages),
}

impl Reader {
    /// Makes a reader, without any request yet.
    ///
    /// # Errors
    /// `Internal` if the transaction's own writes cannot be read.
    pub fn new(client: Client, query: Query) -> Result<Self, Error> {
        Reader::counting(client, query, Own::default(), Arc::default())
    }

    /// As `new`, but adds to a scan's statistics. `own`: where to ask for the transaction's own writes.
    pub fn counting(
        client: Client,
        query: Query,
        own: Own,
        statistics: Arc<Statistics>,
    ) -> Result<Self, Error> {
        let source = match &query.table.options.resource.shape {
            Shape::Items(_) => Source::Items(items::ItemPages::new(&query)?),
            Shape::Journal(_) => Source::Journal(journal::JournalPages::new(&query)?),
            Shape::Datapoints { string } => Source::Points(points::PointPages::new(*string, &query)),
            Shape::SequenceRows => Source::SequenceRows(sequence_rows::SequenceRowPages::new(&query)?),
            Shape::Raw => Source::Raw(raw::RawPages::new(&query, &own)?),
            Shape::Instances { edges } => Source::Instances(instances::InstancePages::new(*edges, &query)?),
        };
        Ok(Reader { client, query, own, source, statistics })
    }

    /// Returns the next rows; None when there are no more. A page may be empty.
    pub async fn page(&mut self, limits: Limits) -> Result<Option<Vec<Row>>, Error> {
        let before = self.statistics.requests.load(Ordering::Relaxed);
        let (query, own, requests) = (&self.query, &self.own, &self.statistics.requests);
        let call = Call { client: &self.client, query, own, limits, requests };
        let page = match &mut self.source {
            Source::Items(pages) => pages.next(&call).await,
            Source::Journal(pages) => pages.next(&call).await,
            Source::Points(pages) => pages.next(&call).await,
            Source::SequenceRows(pages) => pages.next(&call).await,
            Source::Raw(pages) => pages.next(&call).await,
            Source::Instances(pages) => pages.next(&call).await,
        };
        let page = page.map_err(|error| error.about(call.subject()));
        if let Ok(Some(rows)) = &page {
            call.limits.errand.read(rows.len());
            // Rows that only the transaction has come without a request.
            let received = self.statistics.requests.load(Ordering::Relaxed) > before;
            self.statistics.pages.fetch_add(u64::from(received), Ordering::Relaxed);
            self.statistics.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        }
        page
    }
}
