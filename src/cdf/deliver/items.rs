//! Items: create, on 409 update, and what to do with rows that are new, gone, or exist already.

use hashbrown::HashSet;

use super::body::{named, present, BodyRows};
use super::transfer::Transfer;
use crate::cdf::buffer::Body;
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Error, Kind};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::response::Response;
use crate::cdf::resource::Items;
use crate::cdf::table::{OnConflict, Operation};

/// The most rounds of splitting off existing or missing items. Each round makes progress unless others write the same
/// keys.
const ROUNDS: usize = 20;

impl Transfer<'_> {
    pub(super) async fn items(&mut self, items: &Items) -> Result<(), Error> {
        let request = self.request;
        let written = BodyRows::of(&request.body);
        let resolved = if request.header.deferred { self.resolve(&written).await? } else { None };
        let resolved = resolved.as_ref().map(BodyRows::of);
        let body = resolved.as_ref().unwrap_or(&written);
        let all = body.all();
        if request.header.mode.operation == Operation::Update {
            return self.update_existing(body, all).await;
        }
        match request.header.kind {
            KeyKind::None => self.create_blindly(items, body, all).await,
            KeyKind::Id | KeyKind::Instance => self.by_id(body, all).await,
            KeyKind::Key => self.upsert(items, body, all).await,
        }
    }

    /// Writes rows that address items by internal id. Such items exist, so only `update` may write them.
    async fn by_id(&mut self, body: &BodyRows<'_>, all: Vec<usize>) -> Result<(), Error> {
        let on_conflict = self.request.header.mode.on_conflict;
        if matches!(on_conflict, OnConflict::Update | OnConflict::UpdateListed) {
            let missing = self.update(body, all).await?;
            return self.none_missing(body, &missing);
        }
        let found = self.look_up(body, &all).await?;
        let missing: Vec<usize> = all.iter().copied().filter(|at| !found.contains(at)).collect();
        self.none_missing(body, &missing)?;
        if on_conflict == OnConflict::Error {
            return Err(self.exists(body, &all));
        }
        self.acknowledge(all.len());
        Ok(())
    }

    /// Writes rows that an UPDATE has read. If an item is gone, the statement has reported a wrong row count.
    async fn update_existing(&mut self, body: &BodyRows<'_>, all: Vec<usize>) -> Result<(), Error> {
        let missing = self.update(body, all).await?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.gone(body, &missing))
    }

    fn none_missing(&self, body: &BodyRows<'_>, missing: &[usize]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let noun = self.destination.resource.noun;
        Err(self
            .error(Kind::MissingReference, format!("no {noun} has this id"))
            .refusing(named(body, missing), missing.len())
            .hint("A row with an id addresses an existing item. Leave id NULL to create one."))
    }

    async fn upsert(&mut self, items: &Items, body: &BodyRows<'_>, all: Vec<usize>) -> Result<(), Error> {
        let header = self.request.header;
        // A row without a value that creation needs can only update an item: CDF would refuse the whole create request.
        let (mut pending, mut existing) = (all, Vec::new());
        if !items.required.is_empty() && !header.complete {
            let resource = self.destination.resource;
            (pending, existing) = body.by_completeness(pending, resource, items.required)?;
        }
        let incomplete: HashSet<usize> = existing.iter().copied().collect();
        let updates = matches!(header.mode.on_conflict, OnConflict::Update | OnConflict::UpdateListed);
        if !incomplete.is_empty() && (!updates || !self.destination.resource.updatable) {
            self.settle_incomplete(items, body, &existing).await?;
            existing.clear();
        }

        for _ in 0..ROUNDS {
            let duplicated = self.create(items, body, std::mem::take(&mut pending)).await?;
            match header.mode.on_conflict {
                OnConflict::Update | OnConflict::UpdateListed if !self.destination.resource.updatable => {
                    self.unchanged(body, &duplicated).await?
                }
                OnConflict::Update | OnConflict::UpdateListed => existing.extend(duplicated),
                OnConflict::Ignore => self.acknowledge(duplicated.len()),
                OnConflict::Error => {}
            }
            if existing.is_empty() {
                return Ok(());
            }
            existing.sort_unstable();
            let missing = self.update(body, std::mem::take(&mut existing)).await?;
            let lost: Vec<usize> = missing.iter().copied().filter(|at| incomplete.contains(at)).collect();
            if !lost.is_empty() {
                return Err(self.incomplete(items, body, &lost));
            }
            if missing.is_empty() {
                return Ok(());
            }
            pending = missing;
        }
        Err(self
            .error(Kind::Duplicate, "items appear and disappear in CDF while they are being written")
            .refusing(named(body, &pending), pending.len())
            .hint("Something else creates and deletes the same external ids. Run the load again when it has ended."))
    }

    /// Writes rows of items that CDF cannot update. A repeated write must equal what exists.
    async fn unchanged(&mut self, body: &BodyRows<'_>, rows: &[usize]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let answer = self.retrieve(body, rows).await?;
        let different = body.different(rows, &answer)?;
        if !different.is_empty() {
            let noun = self.destination.resource.noun;
            return Err(self
                .error(Kind::Unsupported, format!("CDF cannot change an existing {noun}"))
                .refusing(named(body, &different), different.len())
                .hint("Write it as it is in CDF, or delete it in CDF first."));
        }
        self.acknowledge(rows.len());
        Ok(())
    }

    /// Handles rows that cannot create an item and must not change one: it only checks that the item exists.
    async fn settle_incomplete(
        &mut self,
        items: &Items,
        body: &BodyRows<'_>,
        rows: &[usize],
    ) -> Result<(), Error> {
        let found = self.look_up(body, rows).await?;
        let lost: Vec<usize> = rows.iter().copied().filter(|at| !found.contains(at)).collect();
        if !lost.is_empty() {
            return Err(self.incomplete(items, body, &lost));
        }
        match self.request.header.mode.on_conflict {
            OnConflict::Error => return Err(self.exists(body, rows)),
            OnConflict::Update | OnConflict::UpdateListed => return self.unchanged(body, rows).await,
            OnConflict::Ignore => self.acknowledge(rows.len()),
        }
        Ok(())
    }

    /// Returns the rows whose items exist in CDF.
    pub(super) async fn look_up(&self, body: &BodyRows<'_>, rows: &[usize]) -> Result<HashSet<usize>, Error> {
        let answer = self.retrieve(body, rows).await?;
        present(body, rows, &answer)
    }

    /// Asks CDF which of the rows' items exist.
    pub(super) async fn retrieve(&self, body: &BodyRows<'_>, rows: &[usize]) -> Result<Response, Error> {
        let parsed = body.parsed()?;
        let mut request = Body::of(rows.iter().map(|at| parsed[*at].key_object())).bytes.to_vec();
        request.pop();
        request.extend_from_slice(b",\"ignoreUnknownIds\":true}");
        self.ask(self.destination.resource.by_ids(), request, Owed::List)
            .await
            .map_err(|error| self.unread(error))
    }
}
