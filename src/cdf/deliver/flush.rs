//! Delivery of a transaction: which requests go when, how many at a time, and what is told if one fails.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::hierarchy;
use super::tally::{self, Count};
use super::{deliver, Context, Outcome, Work};
use crate::cdf::activity::{Counters, Errand};
use crate::cdf::buffer::{Body, Chunk, Delivery, Destination, Header, Spill, TransactionBuffer};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::Error;
use crate::cdf::resource::{Resource, Turn};
use crate::cdf::table::Operation;

/// A request under way; its result comes with the place of its destination.
pub type Job = Pin<Box<dyn Future<Output = (usize, Outcome)> + Send>>;

/// Where jobs run.
pub trait Network {
    fn start(&mut self, job: Job);
    fn in_flight(&self) -> usize;
    /// Waits for one job to end. May not return, if the wait is interrupted.
    fn next(&mut self) -> Result<(usize, Outcome), Error>;
}

/// What became of the rows of a destination.
#[derive(Debug)]
struct Progress {
    destination: Arc<Destination>,
    count: Count,
    /// What is seen of it while it lasts.
    counters: Arc<Counters>,
}

impl Progress {
    fn add(&mut self, outcome: &Outcome) {
        let count = &mut self.count;
        count.accepted += outcome.accepted;
        count.unknown += outcome.unknown;
        count.in_part += outcome.in_part;
        count.created += outcome.created;
        if outcome.blind {
            count.blind += outcome.accepted;
            count.blind_unknown += outcome.unknown;
        }
    }
}

/// When a task's turn is: whether it is a deletion that nothing comes after, then its stage, then its wave.
type Step = (bool, i8, usize);

/// Requests waiting for their turn: one, or some that are looked at together.
struct Task {
    step: Step,
    /// Requests of its kind that CDF takes at a time.
    at_once: usize,
    destination: usize,
    chunks: Vec<Chunk>,
}

/// Tasks of which those of one step go in parallel, steps one after another.
#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    in_flight: usize,
    step: Option<Step>,
}

impl Queue {
    fn new(mut tasks: Vec<Task>) -> Self {
        tasks.sort_by_key(|task| task.step);
        Queue { tasks: tasks.into(), in_flight: 0, step: None }
    }

    /// The next task that may start now.
    fn next(&mut self) -> Option<Task> {
        let Task { step, at_once, .. } = *self.tasks.front()?;
        if self.in_flight >= at_once {
            return None;
        }
        if self.in_flight > 0 && self.step != Some(step) {
            return None;
        }
        self.step = Some(step);
        self.in_flight += 1;
        self.tasks.pop_front()
    }

    fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.in_flight == 0
    }
}

/// The next task that may start now.
fn next_task([others, raw, last]: &mut [Queue; Turn::QUEUES]) -> Option<Task> {
    if let Some(task) = others.next().or_else(|| raw.next()) {
        return Some(task);
    }
    (others.is_done() && raw.is_done()).then(|| last.next())?
}

/// Delivers everything in the buffer, in the order that its resources need, or tells what CDF refused and what it had
/// acknowledged by then.
pub fn flush(
    buffer: TransactionBuffer,
    in_parallel: usize,
    mut context: Context,
    network: &mut dyn Network,
    spill: &mut dyn Spill,
) -> Result<(), Error> {
    let mut progress = Vec::new();
    let mut tasks: [Vec<Task>; Turn::QUEUES] = Default::default();
    let deliveries = buffer.finish()?;
    let last: Vec<Option<usize>> =
        deliveries.iter().map(|delivery| last_write(delivery, &deliveries)).collect();
    let (mut writes, mut deletions) = (Vec::new(), Vec::new());
    for (delivery, last) in deliveries.into_iter().zip(last) {
        let rows = delivery.chunks.iter().map(|chunk| chunk.rows).sum();
        let (deleted, written) = final_deletions(delivery.chunks, last);
        let count = Count::of(&delivery.destination, rows);
        let counters = context.limits.errand.activity().resource(delivery.destination.name(), rows);
        progress.push(Progress { destination: delivery.destination, count, counters });
        writes.push(written);
        deletions.push(deleted);
    }
    arrange_assets(&progress, &mut writes, spill)?;
    let has_parents = writes.iter().flatten().any(|chunk| chunk.header.has_parents);
    for (at, (chunks, deletions)) in writes.into_iter().zip(deletions).enumerate() {
        let resource = progress[at].destination.resource;
        let turn = resource.turn;
        let tasks = &mut tasks[turn.queue()];
        add_tasks(tasks, at, (false, turn.of_writes()), resource, chunks);
        // What refers to something is deleted before it.
        add_tasks(tasks, at, (true, turn.of_deletions()), resource, deletions);
    }
    if progress.len() == 1 && !has_parents {
        context.without_references();
    }
    let context = Arc::new(context);
    let mut queues = tasks.map(Queue::new);
    let mut failures: Vec<Error> = Vec::new();

    loop {
        while failures.is_empty() && network.in_flight() < in_parallel {
            let Some(task) = next_task(&mut queues) else {
                break;
            };
            match start(task, &progress, &context, spill) {
                Ok(job) => network.start(job),
                Err(error) => failures.push(error),
            }
        }
        if network.in_flight() == 0 {
            break;
        }
        // After a failure the requests under way are awaited: what they write must be known, and told.
        let (destination, outcome) = network.next()?;
        queues[progress[destination].destination.resource.turn.queue()].in_flight -= 1;
        progress[destination].add(&outcome);
        failures.extend(outcome.error);
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(tell(failures, &progress)),
    }
}

/// Puts parents before children, also where several connections write the assets of a project.
fn arrange_assets(
    progress: &[Progress],
    writes: &mut [Vec<Chunk>],
    spill: &mut dyn Spill,
) -> Result<(), Error> {
    let destination = |at: usize| &progress[at].destination;
    for first in 0..writes.len() {
        let resource = destination(first).resource;
        if !resource.hierarchy {
            continue;
        }
        let same = |at: &usize| destination(*at).shares_items_with(destination(first));
        if (0..first).any(|at| same(&at)) {
            continue;
        }
        let together: Vec<usize> = (first..writes.len()).filter(same).collect();
        let chunks = together.iter().map(|at| std::mem::take(&mut writes[*at])).collect();
        let arranged = hierarchy::arrange(chunks, resource.per_request, spill)?;
        together.into_iter().zip(arranged).for_each(|(at, chunks)| writes[at] = chunks);
    }
    Ok(())
}

fn deletes(chunk: &Chunk) -> bool {
    chunk.header.mode.operation == Operation::Delete
}

/// The last wave in which something is written that a delivery's deletions may be about. Views may share instances.
fn last_write(delivery: &Delivery, all: &[Delivery]) -> Option<usize> {
    let related = all.iter().filter(|other| other.destination.shares_items_with(&delivery.destination));
    let chunks = related.flat_map(|other| &other.chunks);
    chunks.filter(|chunk| !deletes(chunk)).map(|chunk| chunk.wave).max()
}

/// Parts with the deletions that nothing of the same table is written after, `last` being the last wave of writes: they
/// wait until everything else is
/// written, so that points go before their series, and children leave a parent before it is deleted.
fn final_deletions(chunks: Vec<Chunk>, last: Option<usize>) -> (Vec<Chunk>, Vec<Chunk>) {
    chunks.into_iter().partition(|chunk| deletes(chunk) && last.is_none_or(|last| chunk.wave >= last))
}

/// A task for each chunk; deletions of assets are ordered among each other, and are one task for each wave.
fn add_tasks(
    tasks: &mut Vec<Task>,
    destination: usize,
    (last, order): (bool, i8),
    resource: &Resource,
    chunks: Vec<Chunk>,
) {
    for chunk in chunks {
        let step = (last, order, chunk.wave);
        let together = |task: &&mut Task| {
            let like = task.chunks.first().is_some_and(deletes);
            task.destination == destination && task.step == step && like
        };
        let by_hierarchy = resource.hierarchy && deletes(&chunk);
        match tasks.iter_mut().find(|task| by_hierarchy && together(task)) {
            Some(task) => task.chunks.push(chunk),
            None => tasks.push(Task { step, at_once: resource.at_once, destination, chunks: vec![chunk] }),
        }
    }
}

fn start(
    task: Task,
    progress: &[Progress],
    context: &Arc<Context>,
    spill: &mut dyn Spill,
) -> Result<Job, Error> {
    let Task { destination: at, chunks, .. } = task;
    let rows = chunks.iter().map(|chunk| chunk.rows).sum();
    let first = chunks.first().ok_or_else(|| Error::internal("a task without requests"))?;
    let Header { mode, kind, deferred, complete, has_parents: ordered } = first.header;
    let bodies: Vec<Body> =
        chunks.into_iter().map(|chunk| chunk.into_body(spill)).collect::<Result<_, _>>()?;
    let body = match <[Body; 1]>::try_from(bodies) {
        Ok([body]) => body,
        Err(bodies) => Body::from_fragments(bodies.iter().flat_map(Body::fragments)),
    };
    let destination = progress[at].destination.clone();
    let blind = kind == KeyKind::None && mode.operation != Operation::Delete;
    let errand = Errand::for_rows(context.limits.errand.activity(), &progress[at].counters, rows, blind);
    let work = Work { destination, mode, kind, deferred, complete, ordered, rows, body, errand };
    let context = context.clone();
    Ok(Box::pin(async move { (at, deliver(context, work).await) }))
}

/// One error for all failures: the first one, with what had been accepted by the end of all of them.
fn tell(failures: Vec<Error>, progress: &[Progress]) -> Error {
    let mut failures = failures.into_iter();
    let Some(mut error) = failures.next() else { return Error::internal("a failure without an error") };
    let others: Vec<Error> = failures.collect();
    for other in &others {
        error.unsure |= other.unsure;
        // The same refusal of other rows.
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
    let counts: Vec<&Count> = progress.iter().map(|progress| &progress.count).collect();
    error.accepted = Some((tally::brief(&counts), tally::line(&counts)));
    if let Some(advice) = tally::advice(&counts) {
        error.hint = Some(match error.hint.take() {
            Some(hint) => format!("{hint} {advice}"),
            None => advice,
        });
    }
    error
}
