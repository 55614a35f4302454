//! Pages of rows, with what the transaction has written laid over them.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::cdf::activity::Activity;
use crate::cdf::buffer::{Moment, Pending};
use crate::cdf::error::Error;
use crate::cdf::http::connection::Connection;
use crate::cdf::read::own::{Ask, Own};
use crate::cdf::read::{Query, Reader, Row, Statistics};
use crate::cdf::table::Table;
use crate::pg::session::transaction::{self, OwnWrites};
use crate::pg::session::wait;

/// The pages of a query.
pub struct Pages {
    /// None while a page is read, and after a wait that was interrupted.
    reader: Option<Box<Reader>>,
    activity: Arc<Activity>,
    /// What the transaction has written, and where the reader asks for it.
    own: Option<(OwnWrites, UnboundedReceiver<Ask>)>,
}

type Page = Result<Option<Vec<Row>>, Error>;
type Reading = Pin<Box<dyn Future<Output = (Box<Reader>, Page)> + Send>>;

/// A result of the reader.
enum Step {
    Page(Box<Reader>, Page, UnboundedReceiver<Ask>),
    Ask(Ask, Reading, UnboundedReceiver<Ask>),
}

impl Pages {
    /// Makes no request yet; those that it makes count for the activity. Rows of this transaction are seen that were written `before` a moment, or before this call.
    pub fn new(
        mut query: Query,
        before: Option<Moment>,
        activity: Arc<Activity>,
        statistics: Arc<Statistics>,
    ) -> Result<Pages, Error> {
        let (own, asks) = match transaction::own_writes(&mut query, before)? {
            None => (Own::default(), None),
            Some(written) => {
                let (own, asks) = Own::channel(written.places(), written.by_id());
                (own, Some((written, asks)))
            }
        };
        let reader = Reader::counting(wait::client()?, query, own, statistics)?;
        Ok(Pages { reader: Some(Box::new(reader)), activity, own: asks })
    }

    /// The next rows; None when there are no more. A page may be empty.
    pub fn next(&mut self) -> Page {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let limits = transaction::limits(&self.activity);
        let reading = async move {
            let page = reader.page(limits).await;
            (reader, page)
        };
        let (reader, page) = match self.own.take() {
            None => wait::run(&self.activity, reading)?,
            Some((mut written, mut asks)) => {
                let mut reading: Reading = Box::pin(reading);
                loop {
                    // The transaction's buffer is the main thread's: it answers, and the reader goes on.
                    match wait::run(&self.activity, step(reading, asks))? {
                        Step::Page(reader, page, asks) => {
                            self.own = Some((written, asks));
                            break (reader, page);
                        }
                        Step::Ask(ask, going_on, receiver) => {
                            transaction::answer(&mut written, ask);
                            (reading, asks) = (going_on, receiver);
                        }
                    }
                }
            }
        };
        let page = page?;
        if page.is_some() {
            self.reader = Some(reader);
        }
        Ok(page)
    }
}

/// Reads until there is a page or a question.
async fn step(mut reading: Reading, mut asks: UnboundedReceiver<Ask>) -> Step {
    let ask = tokio::select! {
        (reader, page) = &mut reading => return Step::Page(reader, page, asks),
        Some(ask) = asks.recv() => ask,
    };
    Step::Ask(ask, reading, asks)
}

/// Reads these columns of all rows of a table, also of those that the transaction has written, until `use_row` has
/// enough. Gives whether there were no more.
pub fn each_row(
    connection: &Arc<Connection>,
    table: Arc<Table>,
    columns: &[usize],
    mut use_row: impl FnMut(Row) -> Result<ControlFlow<()>, Error>,
) -> Result<bool, Error> {
    let mut needed = vec![false; table.bindings.len()];
    columns.iter().for_each(|at| needed[*at] = true);
    let pending = Pending::default();
    let query = Query {
        table,
        connection: connection.clone(),
        conditions: Vec::new(),
        composite: None,
        needed,
        limit: None,
        to_change: false,
        pending,
    };
    let activity = Activity::reading(query.name());
    let mut pages = Pages::new(query, None, activity, Arc::default())?;
    while let Some(page) = pages.next()? {
        for row in page {
            if use_row(row)?.is_break() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
