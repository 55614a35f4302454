//! Finds out which rows are to blame when CDF refuses a whole request: those that its answer names, or those found by
//! halving.

use std::collections::VecDeque;

use super::body::{mentioning, BodyRows};
use crate::cdf::buffer::Destination;
use crate::cdf::error::{ApiError, Error, Identity, NAMED_ROWS};

/// The most requests that are spent on finding the culprits of one refused request.
pub(super) const SEARCHES: usize = 100;

/// Parts of a refused request, halved until the culprits are found.
pub(super) struct Search {
    open: VecDeque<Vec<usize>>,
    culprits: Vec<usize>,
    /// The first refusal that rows are to blame for.
    refusal: Option<ApiError>,
    requests: usize,
    /// The number of rows in the request.
    rows: usize,
    /// The number of rows that were not checked when the search ended.
    left: usize,
    /// Whether the items' order matters: after the first culprit, others may fail because of it.
    ordered: bool,
}

/// CDF's refusal and the rows that it concerns.
pub(super) struct Blame {
    pub(super) api: ApiError,
    pub(super) culprits: Vec<usize>,
    /// How far the search got, if it did not check all rows.
    pub(super) remark: Option<String>,
}

impl Search {
    pub(super) fn new(all: Vec<usize>, ordered: bool) -> Self {
        let mut search = Search {
            open: VecDeque::new(),
            culprits: Vec::new(),
            refusal: None,
            requests: 0,
            rows: all.len(),
            left: 0,
            ordered,
        };
        search.again(all);
        search
    }

    /// As [`Search::new`], with every row in a part of its own from the start.
    pub(super) fn one_by_one(all: Vec<usize>) -> Self {
        let mut search = Search::new(Vec::new(), false);
        search.rows = all.len();
        search.open = all.into_iter().map(|at| vec![at]).collect();
        search
    }

    /// Returns the next part to send.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        self.open.pop_front()
    }

    /// Sends a part before all others.
    pub(super) fn again(&mut self, part: Vec<usize>) {
        if !part.is_empty() {
            self.open.push_front(part);
        }
    }

    /// Handles a refusal: blames the rows that the answer names, or queues the two halves to be sent separately.
    pub(super) fn refused(
        &mut self,
        part: Vec<usize>,
        api: ApiError,
        body: &BodyRows<'_>,
        destination: &Destination,
    ) -> Result<(), Error> {
        // Only a refusal of the content can be narrowed down; any other refusal holds for every part.
        let about_content = api.is_about_content();
        let named: Vec<&Identity> = api.missing.iter().chain(&api.duplicated).collect();
        let guilty =
            if named.is_empty() { Vec::new() } else { mentioning(body, &part, &named, destination)? };
        self.requests += 1;
        if part.len() > 1 && about_content && guilty.is_empty() && self.requests <= SEARCHES && !self.done() {
            let mut first = part;
            let second = first.split_off(first.len() / 2);
            self.again(second);
            self.again(first);
            return Ok(());
        }
        let all_named = !guilty.is_empty();
        self.culprits.extend(if all_named { guilty } else { part });
        self.refusal.get_or_insert(api);
        if !about_content || self.ordered || self.done() || all_named {
            if !all_named {
                self.left += self.open.iter().map(Vec::len).sum::<usize>();
            }
            self.open.clear();
        }
        Ok(())
    }

    /// Returns CDF's refusal so far, and the rows that it concerns.
    pub(super) fn refused_so_far(&self) -> Option<(&ApiError, &[usize])> {
        self.refusal.as_ref().map(|api| (api, self.culprits.as_slice()))
    }

    pub(super) fn done(&self) -> bool {
        self.culprits.len() >= NAMED_ROWS
    }

    /// Returns the rows to blame, after the search has ended.
    pub(super) fn blame(&mut self) -> Option<Blame> {
        let api = self.refusal.take()?;
        let culprits = std::mem::take(&mut self.culprits);
        let remark = (self.left > 0).then(|| {
            format!(
                "The search for them ended at {} of {} rows: {} were not sent.",
                culprits.len(),
                self.rows,
                self.left
            )
        });
        Some(Blame { api, culprits, remark })
    }
}
