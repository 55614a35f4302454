//! Whether rows are first sent as updates or as items to create, and what answers teach about that.
//!
//! CDF has no upsert of items. A request of 1000 rows takes, if
//!
//! | of its items | it creates first | it updates first |
//! |---|---|---|
//! | all are new | 1: create | 2: update, refused; create |
//! | all exist | 2: create, refused; update | 1: update |
//! | some exist | 3 | 3 |
//!
//! So updating first is a trial that saves a request or costs one. Who loads for the first time must not pay for those who
//! load again: a trial needs evidence, and once some have saved requests no more are under way than could be lost without
//! spending more than was saved. Only a trial that fails before any has saved a request makes a load dearer than creating
//! first, by one request; from then on it takes twice the evidence to try again, so that this can happen no more often than
//! the logarithm of the number of requests.

use hashbrown::HashMap;

/// What a request does first with rows that may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approach {
    /// Create, and update what CDF refuses because it exists.
    Create,
    /// Update, and create what CDF does not find.
    Update,
}

/// A request whose answer is to be learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub approach: Approach,
    /// Its place among those of the same items.
    number: u64,
}

/// How many items of a request existed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    pub existing: usize,
    pub new: usize,
}

/// The most requests that must have found nothing but existing items before the first trial.
const EVIDENCE: u64 = 4;

/// Where fewer than one item of so many is new, the next request may have none.
const MOSTLY: usize = 20;

/// What is known of each kind of items in a project. It outlives the flush, as a hint for the next one.
#[derive(Debug, Default)]
pub struct Experiences(HashMap<u64, Experience>);

impl Experiences {
    /// Begins a flush.
    pub(super) fn begin(&mut self) {
        self.0.values_mut().for_each(Experience::begin);
    }

    /// That of the items of a scope.
    pub(super) fn of(&mut self, scope: u64) -> &mut Experience {
        self.0.entry(scope).or_default()
    }
}

/// What answers have told of some items.
#[derive(Debug, Default)]
pub(super) struct Experience {
    /// Requests of this flush, and how many of them have not begun.
    planned: u64,
    left: u64,
    /// Requests of this flush that were to create, and found only existing items.
    refused: u64,
    /// The last request that tells what to expect, and whether that is existing items.
    latest: Option<(u64, bool)>,
    /// Requests that have found only existing items since one has found only new ones.
    run: u64,
    /// Requests that trials have saved, less those that they have cost.
    saved: i64,
    /// How often trials have cost more than they had saved.
    setbacks: u32,
    /// Requests under way that create first, and that update first.
    creating: u64,
    trying: u64,
    /// Requests so far.
    count: u64,
}

impl Experience {
    fn begin(&mut self) {
        // What was new exists from then on. What was saved before does not make this flush's requests fewer.
        self.latest = self.latest.filter(|(_, exist)| *exist);
        self.saved = self.saved.min(0);
        (self.planned, self.left, self.refused) = (0, 0, 0);
        (self.creating, self.trying) = (0, 0);
    }

    /// Counts requests that the flush is going to send.
    pub(super) fn plan(&mut self, requests: usize) {
        self.planned += requests as u64;
        self.left += requests as u64;
    }

    /// Whether the next request is likely to find its items.
    pub(super) fn expects_existing(&self) -> bool {
        self.latest.is_some_and(|(_, exist)| exist)
    }

    /// How many requests must have found only existing items before a trial: in a load in which a tenth exist and come
    /// first, there are not as many.
    fn evidence(&self) -> u64 {
        (self.planned / 10 + 1).min(EVIDENCE) << self.setbacks.min(16)
    }

    /// How the next request goes; None if it is worth while to wait for an answer first. What exists takes as long either
    /// way: to wait and to be updated, or to be refused first.
    pub(super) fn next(&self) -> Option<Approach> {
        let lacking = self.evidence().saturating_sub(self.run);
        let (approach, waits) = if !self.expects_existing() {
            (Approach::Create, false)
        } else if lacking > 0 {
            (Approach::Create, self.creating >= lacking)
        } else if self.saved > 0 {
            (Approach::Update, self.trying >= self.saved as u64)
        } else if self.left <= self.refused {
            // Half of the load may exist, and come first: nothing would make up for a trial that fails.
            (Approach::Create, false)
        } else {
            (Approach::Update, self.creating + self.trying > 0)
        };
        (!waits || self.creating + self.trying == 0).then_some(approach)
    }

    /// A request that begins.
    pub(super) fn start(&mut self, approach: Approach) -> Attempt {
        self.count += 1;
        self.left = self.left.saturating_sub(1);
        *self.under_way(approach) += 1;
        Attempt { approach, number: self.count }
    }

    /// A request has ended; `found` if its first answer has told that.
    pub(super) fn end(&mut self, attempt: Attempt, found: Option<Census>) {
        let under_way = self.under_way(attempt.approach);
        *under_way = under_way.saturating_sub(1);
        let latest = self.latest.map_or(0, |(number, _)| number);
        let tried = attempt.approach == Approach::Update;
        match found {
            None => {}
            Some(Census { existing: 0, .. }) => {
                self.run = 0;
                self.latest = Some((attempt.number.max(latest), false));
                if tried {
                    self.saved -= 1;
                    self.setbacks += u32::from(self.saved < 0);
                }
            }
            Some(Census { new: 0, .. }) => {
                self.saved += i64::from(tried);
                self.refused += u64::from(!tried);
                // Behind rows that exist, new ones may have begun.
                if self.expects_existing() || attempt.number > latest {
                    self.run += 1;
                    self.latest = Some((attempt.number.max(latest), true));
                }
            }
            // Both ways take the same. Where rows are sorted by whether they are new, only new ones follow.
            Some(Census { existing, new })
                if attempt.number > latest && existing + new < MOSTLY.saturating_mul(new) =>
            {
                self.latest = Some((attempt.number, false));
            }
            Some(_) => {}
        }
    }

    fn under_way(&mut self, approach: Approach) -> &mut u64 {
        match approach {
            Approach::Create => &mut self.creating,
            Approach::Update => &mut self.trying,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const ALL: Census = Census { existing: 9, new: 0 };
    const NONE: Census = Census { existing: 0, new: 9 };
    const SOME: Census = Census { existing: 4, new: 5 };

    /// Requests that creating first takes.
    fn before(load: &[Census]) -> usize {
        load.iter()
            .map(|found| {
                if *found == NONE {
                    1
                } else if *found == ALL {
                    2
                } else {
                    3
                }
            })
            .sum()
    }

    /// Sends a load, some requests at a time. Each takes as long as it has requests, or `chance` says which ends next.
    /// Returns how many requests it took.
    fn load(
        experience: &mut Experience,
        load: &[Census],
        parallel: usize,
        mut chance: Option<&mut dyn FnMut(usize) -> usize>,
    ) -> usize {
        experience.begin();
        experience.plan(load.len());
        let mut waiting: VecDeque<Census> = load.iter().copied().collect();
        let mut under_way: Vec<(usize, Attempt, Census)> = Vec::new();
        let (mut now, mut requests) = (0, 0);
        loop {
            while under_way.len() < parallel && !waiting.is_empty() {
                let Some(approach) = experience.next() else { break };
                let (attempt, found) = (experience.start(approach), waiting.pop_front().unwrap());
                let takes = match (approach, found) {
                    (Approach::Create, NONE) | (Approach::Update, ALL) => 1,
                    (Approach::Create, ALL) | (Approach::Update, NONE) => 2,
                    _ => 3,
                };
                requests += takes;
                under_way.push((now + takes, attempt, found));
            }
            let first = (0..under_way.len()).min_by_key(|at| (under_way[*at].0, *at));
            let Some(first) = first else {
                assert!(waiting.is_empty());
                return requests;
            };
            let next = chance.as_mut().map_or(first, |chance| chance(under_way.len()));
            let (end, attempt, found) = under_way.remove(next);
            now = now.max(end);
            experience.end(attempt, Some(found));
        }
    }

    fn repeat(parts: &[(Census, usize)]) -> Vec<Census> {
        parts.iter().flat_map(|(found, times)| std::iter::repeat_n(*found, *times)).collect()
    }

    #[test]
    fn a_repeated_load_takes_hardly_more_requests_than_it_has() {
        for (parallel, most) in [(1, 104), (2, 104), (8, 108)] {
            let took = load(&mut Experience::default(), &repeat(&[(ALL, 100)]), parallel, None);
            assert!(took <= most, "{took} with {parallel} at a time");
        }
        // The next one starts from there.
        let mut experience = Experience::default();
        load(&mut experience, &repeat(&[(ALL, 8)]), 1, None);
        for _ in 0..3 {
            assert_eq!(load(&mut experience, &repeat(&[(ALL, 20)]), 8, None), 20);
            assert_eq!(load(&mut experience, &[ALL], 8, None), 1);
        }
    }

    #[test]
    fn a_mixed_load_takes_no_more_requests_than_before() {
        let mut one_more = Vec::new();
        for parts in (1..=60).chain([100, 1000]) {
            for (parallel, tenths) in [1, 2, 4, 8].into_iter().flat_map(|n| [0, 1, 5, 9, 10].map(|t| (n, t)))
            {
                let existing = parts * tenths / 10;
                let mixed = usize::from(parts * tenths % 10 > 0);
                let new = parts - existing - mixed;
                let loads = [
                    repeat(&[(ALL, existing), (SOME, mixed), (NONE, new)]),
                    repeat(&[(NONE, new), (SOME, mixed), (ALL, existing)]),
                    repeat(&[(SOME, parts)]),
                ];
                for rows in loads {
                    let took = load(&mut Experience::default(), &rows, parallel, None);
                    let before = before(&rows);
                    assert!(took <= before + 1, "{took}, not {before}: {rows:?}, {parallel} at a time");
                    if took > before {
                        one_more.push((parts, tenths, parallel));
                    }
                }
            }
        }
        // The evidence is just what exists, so that the first trial is the first to meet what is new.
        assert_eq!(one_more, [(40, 1, 1), (40, 1, 2), (40, 1, 4)]);
    }

    #[test]
    fn the_documents_tell_what_loads_take() {
        let took = |existing: usize, parallel: usize| {
            let rows = repeat(&[(ALL, existing), (NONE, 100 - existing)]);
            load(&mut Experience::default(), &rows, parallel, None)
        };
        let now = [0, 10, 50, 90, 100].map(|existing| [took(existing, 1), took(existing, 8)]);
        assert_eq!(now, [[100, 100], [105, 110], [105, 116], [105, 116], [104, 108]]);
    }

    #[test]
    fn no_order_costs_more_than_what_the_evidence_doubles() {
        for seed in 0..2000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut chance = move |of: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % of as u64) as usize
            };
            let mut experience = Experience::default();
            let (mut took, mut allowed, mut all) = (0, 0, 0);
            for _ in 0..1 + chance(5) {
                let bias = chance(5);
                let rows: Vec<Census> = (0..chance(60))
                    .map(|_| {
                        if chance(9) == 0 {
                            SOME
                        } else if chance(5) < bias {
                            ALL
                        } else {
                            NONE
                        }
                    })
                    .collect();
                let parallel = 1 + chance(8);
                took += load(&mut experience, &rows, parallel, Some(&mut chance));
                allowed += before(&rows);
                all += rows.len();
            }
            let doubled = (all + 1).ilog2() as usize;
            assert!(took <= allowed + doubled, "seed {seed}: {took}, not {allowed} + {doubled}");
        }
    }

    #[test]
    fn it_is_unlearnt_at_once() {
        let mut experience = Experience::default();
        load(&mut experience, &repeat(&[(ALL, 40)]), 8, None);
        assert!(experience.expects_existing());
        assert_eq!(load(&mut experience, &repeat(&[(NONE, 40)]), 8, None), 41);
        // By turns: the evidence never comes together again.
        let turns: Vec<Census> = [ALL, NONE].repeat(50);
        let took: usize = turns.iter().map(|found| load(&mut experience, &[*found], 8, None)).sum();
        assert_eq!(took, before(&turns));
    }

    #[test]
    fn nothing_waits_for_nothing() {
        let mut experience = Experience::default();
        load(&mut experience, &repeat(&[(ALL, 9)]), 1, None);
        experience.begin();
        experience.plan(5);
        let first = experience.start(experience.next().unwrap());
        assert_eq!(experience.next(), None);
        // It has failed, and tells nothing.
        experience.end(first, None);
        assert_eq!(experience.next(), Some(Approach::Update));
    }
}
