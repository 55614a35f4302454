//! Who is to blame when CDF refuses a whole request: the rows that its answer names, or those found by halving.

use std::collections::VecDeque;

use super::body::mentioning;
use crate::cdf::buffer::{Body, Destination};
use crate::cdf::error::{ApiError, Error, Identity, NAMED_ROWS};

/// Requests spent on finding the culprits of one refused request.
pub(super) const SEARCHES: usize = 100;

/// Parts of a refused request, halved until the culprits are found.
pub(super) struct Search {
    open: VecDeque<Vec<usize>>,
    culprits: Vec<usize>,
    verdict: Option<ApiError>,
    requests: usize,
    ordered: bool,
}

impl Search {
    pub(super) fn new(all: Vec<usize>, ordered: bool) -> Self {
        let mut search =
            Search { open: VecDeque::new(), culprits: Vec::new(), verdict: None, requests: 0, ordered };
        search.again(all);
        search
    }

    /// The next part to send.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        self.open.pop_front()
    }

    /// Sends a part before all others.
    pub(super) fn again(&mut self, part: Vec<usize>) {
        if !part.is_empty() {
            self.open.push_front(part);
        }
    }

    /// Takes note of a refusal: of the rows that the answer names, or of halves that are sent by themselves.
    pub(super) fn refused(
        &mut self,
        part: Vec<usize>,
        api: ApiError,
        body: &Body,
        destination: &Destination,
    ) -> Result<(), Error> {
        // Only what is about the content can be narrowed down; anything else holds for every part.
        let about_content = matches!(api.status, 400 | 404 | 409 | 413 | 422);
        let named: Vec<&Identity> = api.missing.iter().chain(&api.duplicated).collect();
        let guilty = match named.is_empty() {
            true => Vec::new(),
            false => mentioning(body, &part, &named, destination)?,
        };
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
        self.verdict.get_or_insert(api);
        if !about_content || self.ordered || self.done() || all_named {
            self.open.clear();
        }
        Ok(())
    }

    pub(super) fn done(&self) -> bool {
        self.culprits.len() >= NAMED_ROWS
    }

    /// CDF's answer, the rows it is about, and how many they are.
    pub(super) fn verdict(self) -> Option<(ApiError, Vec<usize>, usize)> {
        let of = self.culprits.len();
        self.verdict.map(|api| (api, self.culprits, of))
    }
}
