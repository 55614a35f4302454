//! Updates existing items.

use hashbrown::HashSet;

use super::body::{matching, named, present, BodyRows};
use super::patch::Patches;
use super::search::Search;
use super::send::{Meaning, RowRequests};
use super::sequences::ColumnChanges;
use super::transfer::{json_post, Transfer};
use crate::cdf::error::{Error, Fate, Kind, RequestError, ROWS};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::Request;
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;

/// How many answers to updates of columns may be lost before the rows are given up.
const UNKNOWN_OUTCOMES: usize = 3;

impl Transfer<'_> {
    /// Updates items. Returns the rows whose items do not exist.
    pub(super) async fn update(&mut self, body: &BodyRows<'_>, all: Vec<usize>) -> Result<Vec<usize>, Error> {
        Ok(self.send_updates(body, all, None).await?.missing)
    }

    /// As `update`, but rows that are refused together with missing ones are not sent again: they may have to wait until
    /// the missing items are created, because theirs are to be below them.
    pub(super) async fn update_before(
        &mut self,
        body: &BodyRows<'_>,
        all: Vec<usize>,
    ) -> Result<Updated, Error> {
        self.send_updates(body, all, Some(Vec::new())).await
    }

    async fn send_updates(
        &mut self,
        body: &BodyRows<'_>,
        all: Vec<usize>,
        later: Option<Vec<usize>>,
    ) -> Result<Updated, Error> {
        let mut columns = self.column_changes(body, &all).await?;
        let missing = std::mem::take(&mut columns.missing);
        let gone: HashSet<usize> = missing.iter().copied().collect();
        let there: Vec<usize> = all.into_iter().filter(|at| !gone.contains(at)).collect();
        let patches = self.patches(body, &there, &columns);
        let mut update = Update { body, patches, columns, missing, later, lost_answers: 0 };
        let changes = |at: &usize| update.patches.changes(*at) && !update.columns.same.contains(at);
        let (changing, still): (Vec<usize>, Vec<usize>) = there.into_iter().partition(changes);
        update.leave(self, still).await?;
        let search = Search::new(changing, self.request.header.has_parents);
        self.send_rows(search, body, &mut update).await?;
        let Update { mut missing, later, .. } = update;
        missing.sort_unstable();
        Ok(Updated { missing, later: later.unwrap_or_default() })
    }

    fn patches(&self, body: &BodyRows<'_>, rows: &[usize], columns: &ColumnChanges) -> Patches {
        Patches::of(body, rows, self.destination.resource, self.request.header.kind, &columns.changes)
    }
}

/// What is left of rows that were sent as updates.
pub(super) struct Updated {
    /// Those whose items do not exist.
    pub(super) missing: Vec<usize>,
    /// Those that were refused together with them.
    pub(super) later: Vec<usize>,
}

/// Updates items.
struct Update<'p, 'b> {
    body: &'p BodyRows<'b>,
    patches: Patches,
    columns: ColumnChanges,
    /// Rows whose items do not exist.
    missing: Vec<usize>,
    /// Rows that were refused together with missing ones, if they are not sent again.
    later: Option<Vec<usize>>,
    /// The number of lost answers to updates of columns.
    lost_answers: usize,
}

impl Update<'_, '_> {
    fn check_immutable(
        &self,
        transfer: &Transfer<'_>,
        rows: &[usize],
        answer: &Response,
    ) -> Result<(), Error> {
        let naming = transfer.request.header.mode.naming;
        self.body.check_immutable(rows, answer, transfer.destination.resource, naming)
    }

    /// Handles rows that change nothing: it only matters whether their items exist.
    async fn leave(&mut self, transfer: &Transfer<'_>, mut rows: Vec<usize>) -> Result<(), Error> {
        // Items whose columns were compared are known to exist.
        let all = rows.len();
        rows.retain(|at| !self.columns.existing.contains(at));
        transfer.acknowledge(all - rows.len());
        if rows.is_empty() {
            return Ok(());
        }
        let answer = transfer.retrieve(self.body, &rows).await?;
        let found = present(self.body, &rows, &answer)?;
        self.check_immutable(transfer, &rows, &answer)?;
        transfer.acknowledge(found.len());
        self.missing.extend(rows.into_iter().filter(|at| !found.contains(at)));
        Ok(())
    }

    /// Whether a repeated update of the rows would be refused because of its own first attempt.
    fn changes_columns(&self, part: &[usize]) -> bool {
        part.iter().any(|at| self.columns.changes.contains_key(at))
    }

    /// Finds out after a lost answer what became of the rows, from the columns that CDF has now. Returns the rows that
    /// have to be sent again.
    async fn compare_again(
        &mut self,
        transfer: &mut Transfer<'_>,
        mut part: Vec<usize>,
        lost: Error,
    ) -> Result<Vec<usize>, Error> {
        let again = match transfer.column_changes(self.body, &part).await {
            Ok(again) => again,
            Err(mut unread) => {
                unread.unsure |= lost.unsure;
                transfer.unknown += if lost.unsure { part.len() } else { 0 };
                return Err(unread.rows(Fate::UnderWay, ROWS, named(self.body, &part), part.len()));
            }
        };
        part.iter().for_each(|at| drop(self.columns.changes.remove(at)));
        self.columns.changes.extend(again.changes);
        part.retain(|at| !again.missing.contains(at));
        self.missing.extend(again.missing);
        // A row that no longer changes anything has arrived.
        self.patches = transfer.patches(self.body, &part, &self.columns);
        let (left, done): (Vec<usize>, Vec<usize>) =
            part.into_iter().partition(|at| self.patches.changes(*at));
        transfer.acknowledge(done.len());
        Ok(left)
    }
}

impl RowRequests for Update<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let content = self.patches.request(part);
        let resend = if self.changes_columns(part) { Resend::OnlyIfNotReceived } else { Resend::Always };
        Ok(json_post(transfer.destination.resource.update(), content, resend, Owed::Items(part.len())))
    }

    fn taken(&mut self, transfer: &Transfer<'_>, part: &[usize], answer: &Response) -> Result<(), Error> {
        transfer.remember(self.body, part)?;
        self.check_immutable(transfer, part, answer)
    }

    /// Sets the missing rows aside, and sends the others without them, now or later.
    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        mut part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        match error {
            RequestError::Failed(error)
                if self.changes_columns(&part)
                    && self.lost_answers < UNKNOWN_OUTCOMES
                    && matches!(error.kind, Kind::ConnectionLost | Kind::ServerFailure) =>
            {
                self.lost_answers += 1;
                self.compare_again(transfer, part, error).await.map(Meaning::Again)
            }
            RequestError::Api(api) if api.status == 400 && !api.missing.is_empty() => {
                let lost = matching(self.body, &part, &api.missing)?;
                if lost.is_empty() {
                    return Ok(Meaning::Refused(part, RequestError::Api(api)));
                }
                transfer.answer = Some(api);
                part.retain(|at| !lost.contains(at));
                self.missing.extend(lost);
                if let Some(later) = &mut self.later {
                    later.append(&mut part);
                }
                Ok(Meaning::Again(part))
            }
            error => Ok(Meaning::Refused(part, error)),
        }
    }
}
