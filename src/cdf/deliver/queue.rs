//! Which requests go when: the tasks of one slot run in parallel, the slots one after another.

use std::collections::VecDeque;

use crate::cdf::buffer::{Chunk, Delivery};
use crate::cdf::resource::{Resource, Turn};
use crate::cdf::table::Operation;

/// When a task may start, compared in this order: whether it is a final deletion, its resource's turn, its wave.
type TaskSlot = (bool, i8, usize);

/// A request that waits for its slot: one chunk, or several that are handled together.
pub(super) struct Task {
    slot: TaskSlot,
    /// The most requests of its resource that CDF takes at a time.
    at_once: usize,
    /// The index of its destination.
    pub(super) destination: usize,
    pub(super) chunks: Vec<Chunk>,
}

/// The chunks of a destination, by when they are sent.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) writes: Vec<Chunk>,
    /// Final deletions, after which nothing is written to the same items.
    pub(super) deletions: Vec<Chunk>,
}

/// Splits the final deletions off each delivery. They wait until everything else is written, so that points are deleted
/// before their series, and children leave a parent before it is deleted.
pub(super) fn plan(deliveries: &mut [Delivery]) -> Vec<Planned> {
    let last: Vec<Option<usize>> = deliveries.iter().map(|each| last_write(each, deliveries)).collect();
    let is_final =
        |chunk: &Chunk, last: Option<usize>| deletes(chunk) && last.is_none_or(|last| chunk.wave >= last);
    let parted = deliveries.iter_mut().zip(last).map(|(delivery, last)| {
        let chunks = std::mem::take(&mut delivery.chunks);
        let (deletions, writes) = chunks.into_iter().partition(|chunk| is_final(chunk, last));
        Planned { writes, deletions }
    });
    parted.collect()
}

/// Returns the last wave that writes items which a delivery's deletions may concern. Views may share instances.
fn last_write(delivery: &Delivery, all: &[Delivery]) -> Option<usize> {
    let related = all.iter().filter(|other| other.destination.shares_items_with(&delivery.destination));
    let chunks = related.flat_map(|other| &other.chunks);
    chunks.filter(|chunk| !deletes(chunk)).map(|chunk| chunk.wave).max()
}

fn deletes(chunk: &Chunk) -> bool {
    chunk.header.mode.operation == Operation::Delete
}

/// All tasks of a flush.
#[derive(Default)]
pub(super) struct Schedule {
    queues: [Queue; Turn::QUEUES],
}

impl Schedule {
    /// Adds the chunks of a destination.
    pub(super) fn add(&mut self, destination: usize, resource: &Resource, planned: Planned) {
        let turn = resource.turn;
        let tasks = &mut self.queues[turn.queue()].tasks;
        add_tasks(tasks, destination, (false, turn.of_writes()), resource, planned.writes);
        // Items are deleted before the items that they refer to.
        add_tasks(tasks, destination, (true, turn.of_deletions()), resource, planned.deletions);
    }

    /// Sorts the tasks, once all are added.
    pub(super) fn sort(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.tasks.make_contiguous().sort_by_key(|task| task.slot));
    }

    /// Returns the next task that may start now.
    pub(super) fn next(&mut self) -> Option<Task> {
        let [others, raw, last] = &mut self.queues;
        if let Some(task) = others.next().or_else(|| raw.next()) {
            return Some(task);
        }
        (others.is_done() && raw.is_done()).then(|| last.next())?
    }

    /// Records that a task of a resource with this turn has ended.
    pub(super) fn ended(&mut self, turn: Turn) {
        self.queues[turn.queue()].in_flight -= 1;
    }
}

/// Makes a task of each chunk. Deletions of assets depend on each other, so each wave of them is one task.
fn add_tasks(
    tasks: &mut VecDeque<Task>,
    destination: usize,
    (last, order): (bool, i8),
    resource: &Resource,
    chunks: Vec<Chunk>,
) {
    for chunk in chunks {
        let slot = (last, order, chunk.wave);
        let together = |task: &&mut Task| {
            let like = task.chunks.first().is_some_and(deletes);
            task.destination == destination && task.slot == slot && like
        };
        let by_hierarchy = resource.hierarchy && deletes(&chunk);
        match by_hierarchy.then(|| tasks.iter_mut().find(together)).flatten() {
            Some(task) => task.chunks.push(chunk),
            None => {
                tasks.push_back(Task { slot, at_once: resource.at_once, destination, chunks: vec![chunk] })
            }
        }
    }
}

/// Tasks of one or more resources. Those of one slot run in parallel, the slots one after another.
#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    in_flight: usize,
    /// The slot of the running tasks.
    slot: Option<TaskSlot>,
}

impl Queue {
    /// Returns the next task that may start now.
    fn next(&mut self) -> Option<Task> {
        let Task { slot, at_once, .. } = *self.tasks.front()?;
        if self.in_flight >= at_once {
            return None;
        }
        if self.in_flight > 0 && self.slot != Some(slot) {
            return None;
        }
        self.slot = Some(slot);
        self.in_flight += 1;
        self.tasks.pop_front()
    }

    fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.in_flight == 0
    }
}
