//! RAW rows: CDF replaces rows whole, so that every request may be sent again.

use super::body::create_body;
use super::search::Search;
use super::{Delivery, Work};
use crate::cdf::client::Resend;
use crate::cdf::error::Error;
use crate::cdf::resource::raw::rows_path;

impl Delivery<'_> {
    pub(super) async fn raw(&mut self, work: &Work) -> Result<(), Error> {
        let Some((database, table)) = &self.destination.raw else {
            return Err(Error::internal("RAW rows without a database and table"));
        };
        let path = format!("{}?ensureParent=true", rows_path(database, table));
        let body = &work.body;
        let mut search = Search::new((0..body.items.len()).collect(), false);
        while let Some(part) = search.next() {
            match self.post_json(&path, create_body(body, &part, false)?, Resend::Always).await {
                Ok(_) => self.accepted += part.len(),
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }
}
