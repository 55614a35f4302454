//! Which requests go when: the tasks of one slot run in parallel, the slots one after another.

use std::collections::VecDeque;

use super::experience::Approach;
use crate::cdf::buffer::{Chunk, Delivery, BODY_BYTES};
use crate::cdf::encode::KeyKind;
use crate::cdf::resource::{Change, Resource, Turn};
use crate::cdf::table::{OnConflict, Operation};

/// When a task may start, compared in this order: whether it is a final deletion, its resource's turn, its wave.
type TaskSlot = (bool, i8, usize);

/// A request that waits for its slot: one chunk, or several that are handled together.
pub(super) struct Task {
    slot: TaskSlot,
    /// The most requests of its resource that CDF takes at a time.
    at_once: usize,
    /// The most items in a request that updates.
    per_update: usize,
    /// The index of its destination.
    pub(super) destination: usize,
    pub(super) chunks: Vec<Chunk>,
    /// Whether CDF may hold its items, which it then updates.
    pub(super) upserts: bool,
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

/// Whether a chunk creates items, and updates those that exist.
pub(super) fn upserts(resource: &Resource, chunk: &Chunk) -> bool {
    let mode = chunk.header.mode;
    resource.change() == Change::Update
        && chunk.header.kind == KeyKind::Key
        && mode.operation == Operation::Upsert
        && matches!(mode.on_conflict, OnConflict::Update | OnConflict::UpdateListed)
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

    /// Returns the next task that may start now, and its approach. `choose` gives the approach, or None if the task has
    /// to wait.
    pub(super) fn next(
        &mut self,
        mut choose: impl FnMut(&Task) -> Option<Approach>,
    ) -> Option<(Task, Approach)> {
        let [others, raw, last] = &mut self.queues;
        if let Some(next) = others.next(&mut choose).or_else(|| raw.next(&mut choose)) {
            return Some(next);
        }
        (others.is_done() && raw.is_done()).then(|| last.next(&mut choose))?
    }

    pub(super) fn is_done(&self) -> bool {
        self.queues.iter().all(Queue::is_done)
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
                let upserts = upserts(resource, &chunk);
                let (at_once, per_update) = (resource.at_once, resource.per_update);
                tasks.push_back(Task { slot, at_once, per_update, destination, chunks: vec![chunk], upserts })
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
    fn next(&mut self, choose: &mut impl FnMut(&Task) -> Option<Approach>) -> Option<(Task, Approach)> {
        let front = self.tasks.front()?;
        let Task { slot, at_once, .. } = *front;
        if self.in_flight >= at_once {
            return None;
        }
        if self.in_flight > 0 && self.slot != Some(slot) {
            return None;
        }
        let approach = choose(front)?;
        self.slot = Some(slot);
        self.in_flight += 1;
        let mut task = self.tasks.pop_front()?;
        if approach == Approach::Update {
            self.fill(&mut task);
        }
        Some((task, approach))
    }

    /// Adds those of the following tasks that fit into the same update.
    fn fill(&mut self, task: &mut Task) {
        let header = task.chunks.first().map(|chunk| chunk.header);
        let mut rows: usize = task.chunks.iter().map(|chunk| chunk.rows).sum();
        let mut bytes: usize = task.chunks.iter().map(Chunk::bytes).sum();
        while let Some(next) = self.tasks.front() {
            rows += next.chunks.iter().map(|chunk| chunk.rows).sum::<usize>();
            bytes += next.chunks.iter().map(Chunk::bytes).sum::<usize>();
            let alike = next.slot == task.slot && next.destination == task.destination;
            let alike = alike && next.chunks.first().map(|chunk| chunk.header) == header;
            if !alike || rows > task.per_update || bytes > BODY_BYTES {
                return;
            }
            task.chunks.extend(self.tasks.pop_front().into_iter().flat_map(|next| next.chunks));
        }
    }

    fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.in_flight == 0
    }
}
