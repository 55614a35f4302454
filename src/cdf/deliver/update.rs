//! Updates existing items.

use hashbrown::HashSet;

use super::body::{matching, named, present, BodyRows};
use super::search::Search;
use super::send::{Meaning, RowRequests};
use super::sequences::ColumnChanges;
use super::transfer::{json_post, Transfer};
use crate::cdf::buffer::Body;
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
        let mut columns = self.column_changes(body, &all).await?;
        let missing = std::mem::take(&mut columns.missing);
        let mut update = Update { body, columns, missing, lost_answers: 0 };
        let gone: HashSet<usize> = update.missing.iter().copied().collect();
        let there = all.into_iter().filter(|at| !gone.contains(at));
        let (changing, still) = update.by_change(self, there)?;
        update.leave(self, still).await?;
        let search = Search::new(changing, self.request.header.has_parents);
        self.send_rows(search, body, &mut update).await?;
        update.missing.sort_unstable();
        Ok(update.missing)
    }
}

/// Updates items.
struct Update<'p, 'b> {
    body: &'p BodyRows<'b>,
    columns: ColumnChanges,
    /// Rows whose items do not exist.
    missing: Vec<usize>,
    /// The number of lost answers to updates of columns.
    lost_answers: usize,
}

impl Update<'_, '_> {
    /// Returns what the row changes; None if that is nothing.
    fn patch(&self, transfer: &Transfer<'_>, at: usize) -> Result<Option<Vec<u8>>, Error> {
        let columns = self.columns.changes.get(&at).map(Vec::as_slice);
        self.body.update(at, transfer.destination.resource, transfer.request.header.kind, columns)
    }

    /// The rows that change something, and those that do not.
    fn by_change(
        &self,
        transfer: &Transfer<'_>,
        rows: impl Iterator<Item = usize>,
    ) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let (mut changing, mut still) = (Vec::new(), Vec::new());
        for at in rows {
            match self.patch(transfer, at)? {
                Some(_) => changing.push(at),
                None => still.push(at),
            }
        }
        Ok((changing, still))
    }

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
        let (left, done) = self.by_change(transfer, part.into_iter())?;
        transfer.acknowledge(done.len());
        Ok(left)
    }
}

impl RowRequests for Update<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let updates = part.iter().filter_map(|at| self.patch(transfer, *at).transpose());
        let content = Body::of(updates.collect::<Result<Vec<_>, _>>()?).bytes;
        let resend = if self.changes_columns(part) { Resend::OnlyIfNotReceived } else { Resend::Always };
        Ok(json_post(transfer.destination.resource.update(), content, resend, Owed::Items(part.len())))
    }

    fn taken(&mut self, transfer: &Transfer<'_>, part: &[usize], answer: &Response) -> Result<(), Error> {
        transfer.remember(self.body, part)?;
        self.check_immutable(transfer, part, answer)
    }

    /// Sets the missing rows aside, and sends the others again without them.
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
                Ok(Meaning::Again(part))
            }
            error => Ok(Meaning::Refused(part, error)),
        }
    }
}
