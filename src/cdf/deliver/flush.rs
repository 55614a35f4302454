//! Delivers a transaction: decides which requests go when and how many at a time, and reports failures.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::experience::{Approach, Experience, Experiences};
use super::fresh::scope;
use super::hierarchy;
use super::queue::{self, upserts, Planned, Schedule, Task};
use super::request::WriteRequest;
use super::tally::{self, Count};
use super::{deliver, Context, Receipt};
use crate::cdf::activity::Counters;
use crate::cdf::buffer::{Destination, Spill, TransactionBuffer};
use crate::cdf::error::Error;

/// A request that is being sent; it returns the index of its destination, and what became of it.
pub type Job = Pin<Box<dyn Future<Output = (usize, Receipt)> + Send>>;

/// Where jobs run.
pub trait JobRunner {
    fn start(&mut self, job: Job);
    fn in_flight(&self) -> usize;
    /// Waits until one job ends. It may unwind instead if the wait is interrupted.
    fn next(&mut self) -> Result<(usize, Receipt), Error>;
}

/// Delivers everything in the buffer, in the order that the resources need. An error tells what CDF refused and what it
/// had acknowledged by then.
pub fn flush(
    buffer: TransactionBuffer,
    in_parallel: usize,
    mut context: Context,
    experiences: &mut Experiences,
    runner: &mut dyn JobRunner,
    spill: &mut dyn Spill,
) -> Result<(), Error> {
    let mut deliveries = buffer.finish()?;
    let activity = context.limits.errand.activity();
    let mut progress: Vec<Progress> = Vec::new();
    for delivery in &deliveries {
        let rows = delivery.chunks.iter().map(|chunk| chunk.rows).sum();
        let counters = activity.resource(delivery.destination.name(), rows);
        let destination = delivery.destination.clone();
        let items = scope(&destination, destination.resource.path);
        progress.push(Progress { destination, items, rows, unacknowledged: Count::default(), counters });
    }
    let mut planned = queue::plan(&mut deliveries);
    arrange_assets(&progress, &mut planned, spill)?;
    let mut writes = planned.iter().flat_map(|planned| &planned.writes);
    if progress.len() == 1 && !writes.any(|chunk| chunk.header.has_parents) {
        context.without_references();
    }
    experiences.begin();
    let mut schedule = Schedule::default();
    for (at, planned) in planned.into_iter().enumerate() {
        let Progress { destination, items, .. } = &progress[at];
        let resource = destination.resource;
        let requests = planned.writes.iter().filter(|chunk| upserts(resource, chunk)).count();
        experiences.of(*items).plan(requests);
        schedule.add(at, resource, planned);
    }
    schedule.sort();
    let failures = run(schedule, &mut progress, in_parallel, &Arc::new(context), experiences, runner, spill)?;
    if failures.is_empty() {
        Ok(())
    } else {
        Err(tell(failures, &progress))
    }
}

/// Orders assets so that parents come before children, even if several connections write the assets of one project.
fn arrange_assets(
    progress: &[Progress],
    planned: &mut [Planned],
    spill: &mut dyn Spill,
) -> Result<(), Error> {
    let destination = |at: usize| &progress[at].destination;
    for first in 0..planned.len() {
        let resource = destination(first).resource;
        if !resource.hierarchy {
            continue;
        }
        let same = |at: &usize| destination(*at).shares_items_with(destination(first));
        if (0..first).any(|at| same(&at)) {
            continue;
        }
        let together: Vec<usize> = (first..planned.len()).filter(same).collect();
        let chunks = together.iter().map(|at| std::mem::take(&mut planned[*at].writes)).collect();
        let arranged = hierarchy::arrange(chunks, resource.per_request, spill)?;
        together.into_iter().zip(arranged).for_each(|(at, chunks)| planned[at].writes = chunks);
    }
    Ok(())
}

/// Runs the tasks, a limited number at a time, until all are done or some have failed. Returns the failures.
fn run(
    mut schedule: Schedule,
    progress: &mut [Progress],
    in_parallel: usize,
    context: &Arc<Context>,
    experiences: &mut Experiences,
    runner: &mut dyn JobRunner,
    spill: &mut dyn Spill,
) -> Result<Vec<Error>, Error> {
    let mut failures: Vec<Error> = Vec::new();
    loop {
        while failures.is_empty() && runner.in_flight() < in_parallel {
            let choose = |task: &Task| choose(task, &progress[task.destination], experiences);
            let Some((task, approach)) = schedule.next(choose) else {
                break;
            };
            let experience = experiences.of(progress[task.destination].items);
            match start(task, approach, experience, progress, context, spill) {
                Ok(job) => runner.start(job),
                Err(error) => failures.push(error),
            }
        }
        if runner.in_flight() == 0 {
            if failures.is_empty() && !schedule.is_done() {
                return Err(Error::internal("nothing is under way that the next request could wait for"));
            }
            return Ok(failures);
        }
        // After a failure, wait for the running requests: the error must tell what they wrote.
        let (destination, receipt) = runner.next()?;
        let progress = &mut progress[destination];
        schedule.ended(progress.destination.resource.turn);
        progress.add(&receipt);
        if let Some((attempt, found)) = receipt.attempt {
            experiences.of(progress.items).end(attempt, found);
        }
        failures.extend(receipt.error);
    }
}

/// How a task goes; None if it had better wait for an answer.
fn choose(task: &Task, progress: &Progress, experiences: &mut Experiences) -> Option<Approach> {
    if !task.upserts {
        return Some(Approach::Create);
    }
    let experience = experiences.of(progress.items);
    if progress.destination.resource.creates_one_by_one() {
        // A request tells first which of them exist. An update tells it as well.
        let update = experience.expects_existing();
        return Some(if update { Approach::Update } else { Approach::Create });
    }
    experience.next()
}

fn start(
    task: Task,
    approach: Approach,
    experience: &mut Experience,
    progress: &[Progress],
    context: &Arc<Context>,
    spill: &mut dyn Spill,
) -> Result<Job, Error> {
    let Task { destination: at, chunks, upserts, .. } = task;
    let attempt = upserts.then(|| experience.start(approach));
    let Progress { destination, counters, .. } = &progress[at];
    let activity = context.limits.errand.activity();
    let request = WriteRequest::of(chunks, destination.clone(), attempt, activity, counters, spill)?;
    let context = context.clone();
    Ok(Box::pin(async move { (at, deliver(context, request).await) }))
}

/// What became of the rows of a destination.
#[derive(Debug)]
struct Progress {
    destination: Arc<Destination>,
    /// The scope of its items.
    items: u64,
    rows: usize,
    /// The rows that were not acknowledged.
    unacknowledged: Count,
    /// The rows that were acknowledged, and the live counters.
    counters: Arc<Counters>,
}

impl Progress {
    fn add(&mut self, receipt: &Receipt) {
        let count = &mut self.unacknowledged;
        count.unknown += receipt.unknown;
        count.in_part += receipt.in_part;
        count.created += receipt.created;
        if receipt.blind {
            count.blind_unknown += receipt.unknown;
        }
    }

    fn count(&self) -> Count {
        let Count { noun, name, rows, .. } = Count::of(&self.destination, self.rows);
        let accepted = self.counters.acknowledged.load(Ordering::Relaxed) as usize;
        let blind = self.counters.blind.load(Ordering::Relaxed) as usize;
        Count { noun, name, rows, accepted, blind, ..self.unacknowledged.clone() }
    }
}

/// Makes one error of all failures: the first one, with what had been accepted when all requests had ended.
fn tell(failures: Vec<Error>, progress: &[Progress]) -> Error {
    let mut failures = failures.into_iter();
    let Some(mut error) = failures.next() else { return Error::internal("a failure without an error") };
    let others: Vec<Error> = failures.collect();
    for other in &others {
        error.unsure |= other.unsure;
        // The same refusal, but for other rows.
        let alike =
            other.kind == error.kind && other.subject == error.subject && other.message == error.message;
        if let (true, Some(mine), Some(more)) = (alike, &mut error.rows, &other.rows) {
            if mine.fate == more.fate && mine.noun == more.noun {
                mine.add(more.clone());
            }
        }
    }
    match others.len() {
        0 => {}
        1 => error = error.detail(format!("One more request failed: {}", others[0])),
        count => {
            error = error.detail(format!("{count} more requests failed, the first of them: {}", others[0]));
        }
    }
    let counts: Vec<Count> = progress.iter().map(Progress::count).collect();
    let counts: Vec<&Count> = counts.iter().collect();
    error.accepted = Some((tally::brief(&counts), tally::line(&counts)));
    if let Some(advice) = tally::advice(&counts) {
        error.hint = Some(match error.hint.take() {
            Some(hint) => format!("{hint} {advice}"),
            None => advice,
        });
    }
    error
}
