//! Creates items, many per request or one by one, as the resource takes them.

use hashbrown::HashSet;

use super::body::{create_request, matching, BodyRows};
use super::search::Search;
use super::send::{Meaning, RowRequests};
use super::transfer::{json_post, Transfer};
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::request::Request;
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::{Create, Items};
use crate::cdf::table::OnConflict;

impl Transfer<'_> {
    /// Creates items that have no key. A request that may have arrived is never sent again.
    pub(super) async fn create_blindly(
        &mut self,
        items: &Items,
        body: &BodyRows<'_>,
        all: Vec<usize>,
    ) -> Result<(), Error> {
        let search = self.creation(items, all);
        self.send_rows(search, body, &mut BlindCreation { items, body }).await
    }

    /// Creates items; `sought`: CDF has just not found them. Returns those that exist already.
    pub(super) async fn create(
        &mut self,
        items: &Items,
        body: &BodyRows<'_>,
        mut all: Vec<usize>,
        sought: bool,
    ) -> Result<Vec<usize>, Error> {
        let refuse_existing = self.request.header.mode.on_conflict == OnConflict::Error;
        let mut existing = Vec::new();
        // If items are created one by one, a look-up first tells which of them exist.
        if items.create == Create::One && !sought && !all.is_empty() {
            let found = self.look_up(body, &all).await?;
            (existing, all) = all.into_iter().partition(|at| found.contains(at));
            if refuse_existing && !existing.is_empty() {
                return Err(self.exists(body, &existing));
            }
        }
        let search = self.creation(items, all);
        let mut creation = Creation { items, body, refuse_existing, existing };
        self.send_rows(search, body, &mut creation).await?;
        Ok(creation.existing)
    }

    /// Splits the rows into the parts that create them.
    fn creation(&self, items: &Items, all: Vec<usize>) -> Search {
        match items.create {
            Create::Many => Search::new(all, self.request.header.has_parents),
            Create::One => Search::one_by_one(all),
        }
    }

    fn create_request(
        &self,
        items: &Items,
        body: &BodyRows<'_>,
        part: &[usize],
        resend: Resend,
    ) -> Result<Request, Error> {
        let (resource, deferred) = (self.destination.resource, self.request.header.deferred);
        let (endpoint, content, owed) = create_request(resource, items.create, body, part, deferred)?;
        Ok(json_post(endpoint, content, resend, owed))
    }
}

/// Creates items that have no key.
struct BlindCreation<'p, 'b> {
    items: &'p Items,
    body: &'p BodyRows<'b>,
}

impl RowRequests for BlindCreation<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        transfer.create_request(self.items, self.body, part, Resend::OnlyIfNotReceived)
    }
}

/// Creates items that have a key.
struct Creation<'p, 'b> {
    items: &'p Items,
    body: &'p BodyRows<'b>,
    refuse_existing: bool,
    /// Rows whose items exist.
    existing: Vec<usize>,
}

impl RowRequests for Creation<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        // Sent again after a lost answer, the request would be refused because of its own rows.
        let resend = if self.refuse_existing { Resend::OnlyIfNotReceived } else { Resend::Always };
        transfer.create_request(self.items, self.body, part, resend)
    }

    fn taken(&mut self, transfer: &Transfer<'_>, part: &[usize], _: &Response) -> Result<(), Error> {
        transfer.remember(self.body, part)
    }

    /// Sets the existing rows aside, and sends the others again without them.
    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        let api = match error {
            RequestError::Api(api) if api.status == 409 || !api.duplicated.is_empty() => api,
            error => return Ok(Meaning::Refused(part, error)),
        };
        let mut duplicated: HashSet<usize> =
            matching(self.body, &part, &api.duplicated)?.into_iter().collect();
        if duplicated.is_empty() {
            duplicated = transfer.look_up(self.body, &part).await?;
        }
        if duplicated.is_empty() {
            return Ok(Meaning::Refused(part, RequestError::Api(api)));
        }
        transfer.answer = Some(api);
        let (existing, new): (Vec<usize>, Vec<usize>) =
            part.into_iter().partition(|at| duplicated.contains(at));
        if self.refuse_existing {
            return Err(transfer.exists(self.body, &existing));
        }
        self.existing.extend(existing);
        Ok(Meaning::Again(new))
    }
}
