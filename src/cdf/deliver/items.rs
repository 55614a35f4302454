//! Items: create → 409 → update, and the rows that are new, gone, or there already.

use hashbrown::HashSet;

use super::body::{create_request, matching, named, present, Parsed};
use super::search::Search;
use super::sequences::ColumnChanges;
use super::{Delivery, Work};
use crate::cdf::buffer::Body;
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Error, Fate, Kind, RequestError, ROWS};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::{Create, Items};
use crate::cdf::table::{OnConflict, Operation};

/// Rounds of splitting off what exists, or what is missing. Each makes progress unless others write the same keys.
const ROUNDS: usize = 20;

/// Answers to updates of columns that may be lost before the rows are given up.
const UNKNOWN_OUTCOMES: usize = 3;

/// The parts in which items are created.
fn creation(items: &Items, work: &Work, all: Vec<usize>) -> Search {
    match items.create {
        Create::Many => Search::new(all, work.ordered),
        Create::One => Search::one_by_one(all),
    }
}

impl Delivery<'_> {
    pub(super) async fn items(&mut self, items: &Items, work: &Work) -> Result<(), Error> {
        let resolved = match work.deferred {
            true => Some(self.resolve(work).await?),
            false => None,
        };
        let body = resolved.as_ref().unwrap_or(&work.body);
        let all: Vec<usize> = (0..body.items.len()).collect();
        if work.mode.operation == Operation::Update {
            return self.update_existing(work, body, all).await;
        }
        match work.kind {
            KeyKind::None => self.create_blindly(items, work, body, all).await,
            KeyKind::Id | KeyKind::Instance => self.by_id(work, body, all).await,
            KeyKind::Key => self.upsert(items, work, body, all).await,
        }
    }

    /// Rows that address items by internal id: they exist already, so that only `update` may write them.
    pub(super) async fn by_id(&mut self, work: &Work, body: &Body, all: Vec<usize>) -> Result<(), Error> {
        if matches!(work.mode.on_conflict, OnConflict::Update | OnConflict::UpdateListed) {
            let missing = self.update(work, body, all).await?;
            return self.none_missing(body, &missing);
        }
        let found = self.look_up(body, &all).await?;
        let missing: Vec<usize> = all.iter().copied().filter(|at| !found.contains(at)).collect();
        self.none_missing(body, &missing)?;
        if work.mode.on_conflict == OnConflict::Error {
            return Err(self.exists(body, &all));
        }
        self.accepted += all.len();
        Ok(())
    }

    /// Rows that an UPDATE has read: if one is gone, the statement has told a wrong number of rows.
    async fn update_existing(&mut self, work: &Work, body: &Body, all: Vec<usize>) -> Result<(), Error> {
        let missing = self.update(work, body, all).await?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.gone(body, &missing))
    }

    /// The error for rows that an UPDATE has read and that are not there any more.
    pub(super) fn gone(&self, body: &Body, rows: &[usize]) -> Error {
        let noun = self.destination.resource.noun;
        self.error(Kind::MissingReference, format!("a {noun} that was to be updated is gone"))
            .refusing(named(body, rows), rows.len())
            .hint("Something else has deleted it since the statement has read it. Run the load again.")
    }

    pub(super) fn none_missing(&self, body: &Body, missing: &[usize]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let noun = self.destination.resource.noun;
        Err(self
            .error(Kind::MissingReference, format!("no {noun} has this id"))
            .refusing(named(body, missing), missing.len())
            .hint("A row with an id addresses an existing item. Leave id NULL to create one."))
    }

    /// Creates items that have no key. What may have arrived is never sent again.
    pub(super) async fn create_blindly(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<(), Error> {
        let mut search = creation(items, work, all);
        while let Some(part) = search.next() {
            let (endpoint, request, owed) =
                create_request(self.destination.resource, items.create, body, &part, work.deferred)?;
            match self.post_json(&endpoint, request, Resend::OnlyIfNotReceived, owed).await {
                Ok(_) => self.accepted += part.len(),
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }

    pub(super) async fn upsert(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<(), Error> {
        // An item without a value that creating takes can only be an update: CDF would refuse the whole request.
        let (mut pending, mut existing) = (all, Vec::new());
        if !items.required.is_empty() && !work.complete {
            let parsed = Parsed::all(body)?;
            let complete = |at: &usize| parsed.has(*at, self.destination.resource, items.required);
            (pending, existing) = pending.into_iter().partition(complete);
        }
        let incomplete: HashSet<usize> = existing.iter().copied().collect();
        let updates = matches!(work.mode.on_conflict, OnConflict::Update | OnConflict::UpdateListed);
        if !incomplete.is_empty() && (!updates || !self.destination.resource.updatable) {
            self.settle_incomplete(items, work, body, &existing).await?;
            existing.clear();
        }

        for _ in 0..ROUNDS {
            let duplicated = self.create(items, work, body, std::mem::take(&mut pending)).await?;
            match work.mode.on_conflict {
                OnConflict::Update | OnConflict::UpdateListed if !self.destination.resource.updatable => {
                    self.unchanged(body, &duplicated).await?
                }
                OnConflict::Update | OnConflict::UpdateListed => existing.extend(duplicated),
                OnConflict::Ignore => self.accepted += duplicated.len(),
                OnConflict::Error => {}
            }
            if existing.is_empty() {
                return Ok(());
            }
            existing.sort_unstable();
            let missing = self.update(work, body, std::mem::take(&mut existing)).await?;
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
            .error(Kind::Duplicate, "items appear and disappear in CDF while they are written")
            .refusing(named(body, &pending), pending.len())
            .hint("Something else creates and deletes the same external ids. Run the load again when it has ended."))
    }

    /// Rows of items that CDF cannot update: written again they must say what is there.
    pub(super) async fn unchanged(&mut self, body: &Body, rows: &[usize]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let answer = self.retrieve(body, rows).await?;
        let parsed = Parsed::existing(body)?;
        let different = parsed.different(rows, &answer)?;
        if !different.is_empty() {
            let noun = self.destination.resource.noun;
            return Err(self
                .error(Kind::Unsupported, format!("CDF cannot change an existing {noun}"))
                .refusing(named(body, &different), different.len())
                .hint("Write it as it is in CDF, or delete it in CDF first."));
        }
        self.accepted += rows.len();
        Ok(())
    }

    pub(super) fn exists(&self, body: &Body, rows: &[usize]) -> Error {
        let noun = self.destination.resource.noun;
        self.error(Kind::Duplicate, format!("the {noun} exists in CDF already"))
            .refusing(named(body, rows), rows.len())
            .hint("The table's option on_conflict is \"error\".")
    }

    pub(super) fn incomplete(&self, items: &Items, body: &Body, rows: &[usize]) -> Error {
        let required: Vec<_> = items.required.iter().map(|name| self.column_name(name)).collect();
        let noun = self.destination.resource.noun;
        self.error(Kind::MissingValue, format!("a new {noun} needs a value for {}", required.join(", ")))
            .refusing(named(body, rows), rows.len())
            .hint(format!(
                "No item with this {} exists in CDF that the row could update.",
                self.column_name("external_id")
            ))
    }

    /// Rows that cannot create an item and must not change one: all that matters is whether it exists.
    pub(super) async fn settle_incomplete(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        rows: &[usize],
    ) -> Result<(), Error> {
        let found = self.look_up(body, rows).await?;
        let lost: Vec<usize> = rows.iter().copied().filter(|at| !found.contains(at)).collect();
        if !lost.is_empty() {
            return Err(self.incomplete(items, body, &lost));
        }
        match work.mode.on_conflict {
            OnConflict::Error => return Err(self.exists(body, rows)),
            OnConflict::Update | OnConflict::UpdateListed => return self.unchanged(body, rows).await,
            OnConflict::Ignore => self.accepted += rows.len(),
        }
        Ok(())
    }

    /// Creates items; gives back those that exist.
    pub(super) async fn create(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<Vec<usize>, Error> {
        let refuse_existing = work.mode.on_conflict == OnConflict::Error;
        // Sent again after a lost answer, rows would be refused because of themselves.
        let resend = if refuse_existing { Resend::OnlyIfNotReceived } else { Resend::Always };
        let mut existing = Vec::new();
        let mut all = all;
        // Where items are created one by one, a request for all of them tells which ones need no creating.
        if items.create == Create::One && !all.is_empty() {
            let found = self.look_up(body, &all).await?;
            (existing, all) = all.into_iter().partition(|at| found.contains(at));
            if refuse_existing && !existing.is_empty() {
                return Err(self.exists(body, &existing));
            }
        }
        let mut search = creation(items, work, all);
        while let Some(mut part) = search.next() {
            let (endpoint, request, owed) =
                create_request(self.destination.resource, items.create, body, &part, work.deferred)?;
            match self.post_json(&endpoint, request, resend, owed).await {
                Ok(_) => {
                    self.accepted += part.len();
                    self.remember(body, &part)?;
                }
                Err(RequestError::Api(api)) if api.status == 409 || !api.duplicated.is_empty() => {
                    let mut duplicated = matching(body, &part, &api.duplicated)?;
                    if duplicated.is_empty() {
                        duplicated = self.look_up(body, &part).await?.into_iter().collect();
                    }
                    if duplicated.is_empty() {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    self.answer = Some(api);
                    if refuse_existing {
                        return Err(self.exists(body, &duplicated));
                    }
                    part.retain(|at| !duplicated.contains(at));
                    existing.extend(duplicated);
                    search.again(part);
                }
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)?;
        Ok(existing)
    }

    /// Updates items; gives back those that do not exist.
    pub(super) async fn update(
        &mut self,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<Vec<usize>, Error> {
        let parsed = Parsed::existing(body)?;
        let resource = self.destination.resource;
        let endpoint = resource.update();
        let mut columns = self.column_changes(&parsed, body, &all).await?;
        let mut missing = std::mem::take(&mut columns.missing);
        let patch = |at: usize, columns: &ColumnChanges| {
            let columns = columns.changes.get(&at).map(Vec::as_slice);
            parsed.update(at, resource, work.kind, columns)
        };
        let gone: HashSet<usize> = missing.iter().copied().collect();
        let (changing, mut still): (Vec<usize>, Vec<usize>) =
            all.into_iter().filter(|at| !gone.contains(at)).partition(|at| patch(*at, &columns).is_some());
        // Of those whose columns were compared it is known that they exist.
        self.accepted += still.iter().filter(|at| columns.existing.contains(*at)).count();
        still.retain(|at| !columns.existing.contains(at));
        let mut unknown = 0;
        if !still.is_empty() {
            let answer = self.retrieve(body, &still).await?;
            let found = present(body, &still, &answer)?;
            parsed.check_immutable(&still, &answer, resource, self.naming)?;
            self.accepted += found.len();
            missing.extend(still.into_iter().filter(|at| !found.contains(at)));
        }
        let mut search = Search::new(changing, work.ordered);
        while let Some(mut part) = search.next() {
            let updates: Vec<Vec<u8>> = part.iter().filter_map(|at| patch(*at, &columns)).collect();
            let request = Body::from_fragments(updates.iter().map(|update| &**update)).bytes;
            // Sent again after a lost answer, columns would be refused because of themselves.
            let changes_columns = part.iter().any(|at| columns.changes.contains_key(at));
            let resend = if changes_columns { Resend::OnlyIfNotReceived } else { Resend::Always };
            match self.post_json(&endpoint, request, resend, Owed::Items(part.len())).await {
                Ok(response) => {
                    self.accepted += part.len();
                    self.remember(body, &part)?;
                    parsed.check_immutable(&part, &response, resource, self.naming)?;
                }
                // What became of it shows in the columns that CDF has now.
                Err(RequestError::Failed(error))
                    if changes_columns
                        && unknown < UNKNOWN_OUTCOMES
                        && matches!(error.kind, Kind::ConnectionLost | Kind::ServerFailure) =>
                {
                    unknown += 1;
                    let again = match self.column_changes(&parsed, body, &part).await {
                        Ok(again) => again,
                        Err(mut unread) => {
                            unread.unsure |= error.unsure;
                            self.unknown += if error.unsure { part.len() } else { 0 };
                            return Err(unread.rows(Fate::UnderWay, ROWS, named(body, &part), part.len()));
                        }
                    };
                    part.iter().for_each(|at| drop(columns.changes.remove(at)));
                    columns.changes.extend(again.changes);
                    missing.extend(&again.missing);
                    part.retain(|at| !again.missing.contains(at));
                    // A row that changes nothing any more has arrived.
                    let (left, done) = part.into_iter().partition(|at| patch(*at, &columns).is_some());
                    let done: Vec<usize> = done;
                    self.accepted += done.len();
                    search.again(left);
                }
                Err(RequestError::Api(api)) if api.status == 400 && !api.missing.is_empty() => {
                    let lost = matching(body, &part, &api.missing)?;
                    if lost.is_empty() {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    self.answer = Some(api);
                    part.retain(|at| !lost.contains(at));
                    missing.extend(lost);
                    search.again(part);
                }
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)?;
        missing.sort_unstable();
        Ok(missing)
    }

    /// Those of the rows that exist in CDF.
    pub(super) async fn look_up(&self, body: &Body, rows: &[usize]) -> Result<HashSet<usize>, Error> {
        let answer = self.retrieve(body, rows).await?;
        present(body, rows, &answer)
    }

    pub(super) async fn retrieve(&self, body: &Body, rows: &[usize]) -> Result<Response, Error> {
        let parsed = Parsed::all(body)?;
        let keys: Vec<Vec<u8>> = rows.iter().map(|at| parsed.key_object(*at)).collect();
        let mut request = Body::from_fragments(keys.iter().map(|key| &**key)).bytes.to_vec();
        request.pop();
        request.extend_from_slice(b",\"ignoreUnknownIds\":true}");
        self.post_json(&self.destination.resource.by_ids(), request, Resend::Always, Owed::List)
            .await
            .map_err(|error| self.unread(error))
    }

    pub(super) fn conclude(&self, search: Search, body: &Body) -> Result<(), Error> {
        let Some(verdict) = search.verdict() else {
            return Ok(());
        };
        let names = named(body, &verdict.culprits);
        let mut error = self.refused(verdict.api, ROWS, names, verdict.culprits.len());
        if let Some(remark) = verdict.remark {
            error.detail.insert(0, remark);
            error.rows.iter_mut().for_each(|rows| rows.more = true);
        }
        Err(error)
    }
}
