//! Items: create, on 409 update; or update, on 400 create, as the request's approach says; and what to do with rows that are
//! new, gone, or exist already.

use hashbrown::HashSet;

use super::body::{named, present, BodyRows};
use super::experience::Census;
use super::transfer::Transfer;
use super::update::Updated;
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

        let tries = self.request.updates_first();
        if tries {
            existing.append(&mut pending);
        }
        for round in 0..ROUNDS {
            let created = pending.len();
            let sought = tries || round > 0;
            let duplicated = self.create(items, body, std::mem::take(&mut pending), sought).await?;
            if round == 0 && !tries && created > 0 {
                let new = created - duplicated.len();
                self.found = Some(Census { existing: duplicated.len(), new });
            }
            if updates {
                existing.extend(duplicated);
            } else if header.mode.on_conflict == OnConflict::Ignore {
                self.acknowledge(duplicated.len());
            }
            if existing.is_empty() {
                return Ok(());
            }
            existing.sort_unstable();
            let sent = existing.len();
            self.trying = tries && round == 0;
            let left = self.write_existing(body, std::mem::take(&mut existing)).await?;
            if std::mem::take(&mut self.trying) {
                let new = left.missing.len();
                self.found = Some(Census { existing: sent - new, new });
            }
            let lost: Vec<usize> =
                left.missing.iter().copied().filter(|at| incomplete.contains(at)).collect();
            if !lost.is_empty() {
                return Err(self.incomplete(items, body, &lost));
            }
            if left.missing.is_empty() {
                return Ok(());
            }
            (pending, existing) = (left.missing, left.later);
        }
        Err(self
            .error(Kind::Duplicate, "items appear and disappear in CDF while they are being written")
            .refusing(named(body, &pending), pending.len())
            .hint("Something else creates and deletes the same external ids. Run the load again when it has ended."))
    }

    /// Writes rows of items that exist, as far as is known.
    async fn write_existing(&mut self, body: &BodyRows<'_>, rows: Vec<usize>) -> Result<Updated, Error> {
        if self.destination.resource.updatable {
            return self.update_before(body, rows).await;
        }
        let missing = self.unchanged(body, rows).await?;
        Ok(Updated { missing, later: Vec::new() })
    }

    /// Writes rows of items that CDF cannot update. A repeated write must equal what exists. Returns rows that were only
    /// tried, and whose items do not exist.
    async fn unchanged(&mut self, body: &BodyRows<'_>, mut rows: Vec<usize>) -> Result<Vec<usize>, Error> {
        let answer = self.retrieve(body, &rows).await?;
        let mut missing = Vec::new();
        if self.trying {
            let found = present(body, &rows, &answer)?;
            (rows, missing) = rows.into_iter().partition(|at| found.contains(at));
        }
        let different = body.different(&rows, &answer)?;
        if !different.is_empty() {
            let noun = self.destination.resource.noun;
            return Err(self
                .error(Kind::Unsupported, format!("CDF cannot change an existing {noun}"))
                .refusing(named(body, &different), different.len())
                .hint("Write it as it is in CDF, or delete it in CDF first."));
        }
        self.acknowledge(rows.len());
        Ok(missing)
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
            OnConflict::Update | OnConflict::UpdateListed => drop(self.unchanged(body, rows.to_vec()).await?),
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
