//! Sends a request part by part. The first part is the whole request. Once CDF has refused some of it, the parts are
//! what remains to be sent, or to be tried separately.

use super::body::{named, names, BodyRows};
use super::search::{Blame, Search};
use super::transfer::Transfer;
use crate::cdf::error::{Error, RequestError, ROWS};
use crate::cdf::http::request::Request;
use crate::cdf::http::response::Response;

/// What is sent part by part, and how CDF's answers are handled.
pub(super) trait PartSource {
    type Part;

    /// Returns the next part and its request, which says what answer CDF owes.
    fn next(&mut self, transfer: &Transfer<'_>) -> Result<Option<(Self::Part, Request)>, Error>;

    /// Handles a part that CDF has acknowledged.
    fn taken(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Self::Part,
        answer: &Response,
    ) -> Result<(), Error>;

    /// Handles a part that CDF has refused or not answered. An error ends the sending.
    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Self::Part,
        error: RequestError,
    ) -> Result<(), Error>;

    /// Returns the result when no part is left.
    fn ended(&mut self, transfer: &Transfer<'_>) -> Result<(), Error>;
}

impl Transfer<'_> {
    /// Sends parts until none is left.
    pub(super) async fn send_parts(&mut self, parts: &mut impl PartSource) -> Result<(), Error> {
        while let Some((part, request)) = parts.next(self)? {
            match self.send(&request).await {
                Ok(answer) => parts.taken(self, part, &answer)?,
                Err(error) => parts.refused(self, part, error).await?,
            }
        }
        parts.ended(self)
    }

    /// Sends rows, each of which is acknowledged or refused as a whole.
    pub(super) async fn send_rows(
        &mut self,
        search: Search,
        body: &BodyRows<'_>,
        rows: &mut impl RowRequests,
    ) -> Result<(), Error> {
        self.send_parts(&mut RowParts { search, body, rows }).await
    }
}

/// How a shape sends rows, and how it handles CDF's answers.
pub(super) trait RowRequests {
    /// Splits a part into the rows that fit into one request and those that follow.
    fn fitting(&self, part: Vec<usize>) -> Result<(Vec<usize>, Vec<usize>), Error> {
        Ok((part, Vec::new()))
    }

    /// Returns the request for some rows, which says what answer CDF owes.
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error>;

    /// Handles rows that CDF has acknowledged.
    fn taken(&mut self, _transfer: &Transfer<'_>, _part: &[usize], _answer: &Response) -> Result<(), Error> {
        Ok(())
    }

    /// Says what it means that CDF has refused the rows or not answered.
    async fn refused(
        &mut self,
        _transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        Ok(Meaning::Refused(part, error))
    }

    /// Makes the error for the rows that are to blame.
    fn blamed(&self, transfer: &Transfer<'_>, body: &BodyRows<'_>, blame: Blame) -> Error {
        transfer.blamed(body, blame)
    }
}

/// What a failed request means for its rows.
pub(super) enum Meaning {
    /// The failure is handled, except for these rows, which are sent again.
    Again(Vec<usize>),
    /// Some of these rows are refused.
    Refused(Vec<usize>, RequestError),
}

/// Rows of a body, sent in the way of a shape.
struct RowParts<'p, 'b, R> {
    search: Search,
    body: &'p BodyRows<'b>,
    rows: &'p mut R,
}

impl<R: RowRequests> PartSource for RowParts<'_, '_, R> {
    type Part = Vec<usize>;

    fn next(&mut self, transfer: &Transfer<'_>) -> Result<Option<(Vec<usize>, Request)>, Error> {
        let Some(part) = self.search.next() else { return Ok(None) };
        let (part, later) = self.rows.fitting(part)?;
        self.search.again(later);
        let request = self.rows.request(transfer, &part)?;
        Ok(Some((part, request)))
    }

    fn taken(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        answer: &Response,
    ) -> Result<(), Error> {
        transfer.acknowledge(part.len());
        self.rows.taken(transfer, &part, answer)
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<(), Error> {
        match self.rows.refused(transfer, part, error).await? {
            Meaning::Again(part) => self.search.again(part),
            Meaning::Refused(part, error) => transfer.narrow(&mut self.search, part, error, self.body)?,
        }
        Ok(())
    }

    fn ended(&mut self, transfer: &Transfer<'_>) -> Result<(), Error> {
        match self.search.blame() {
            None => Ok(()),
            Some(blame) => Err(self.rows.blamed(transfer, self.body, blame)),
        }
    }
}

impl Transfer<'_> {
    /// Handles a part that failed: queues its halves if CDF has refused it, and gives up otherwise.
    pub(super) fn narrow(
        &mut self,
        search: &mut Search,
        part: Vec<usize>,
        error: RequestError,
        body: &BodyRows<'_>,
    ) -> Result<(), Error> {
        match error {
            RequestError::Api(api) => {
                self.unknown += if api.unsure { part.len() } else { 0 };
                search.refused(part, api, body, self.destination)
            }
            error => {
                let mut failed = self.failed(error, ROWS, named(body, &part), part.len(), part.len());
                if let Some((api, culprits)) = search.refused_so_far() {
                    failed = failed.detail(format!(
                        "Before that CDF had refused {}: {}",
                        names(body, culprits),
                        api.message
                    ));
                }
                Err(failed)
            }
        }
    }

    /// Makes the error for the rows that are to blame.
    pub(super) fn blamed(&self, body: &BodyRows<'_>, blame: Blame) -> Error {
        let names = named(body, &blame.culprits);
        let mut error = self.refused(blame.api, ROWS, names, blame.culprits.len());
        if let Some(remark) = blame.remark {
            error.detail.insert(0, remark);
            error.rows.iter_mut().for_each(|rows| rows.more = true);
        }
        error
    }
}
