//! When rows of a resource are delivered, relative to those of others.

/// Steps of a flush. Resources of one step go in parallel, steps one after another: what a later step refers to exists by
/// then. What refers to something is deleted before it, so deletions take the steps backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    DataSets,
    Labels,
    Assets,
    Series,
    Items,
    Nodes,
    /// Edges refer to nodes.
    Edges,
    Points,
}

/// The turn of a resource in a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// With the others of its step.
    At(Stage),
    /// Its rows refer to nothing and nothing refers to them: they go beside the steps, and are not held up by them.
    Beside,
    /// What reports on a load goes when all of it is delivered, deletions included.
    Last,
}

impl Turn {
    /// Queues of requests, each of which has an order of its own.
    pub const QUEUES: usize = 3;

    /// The queue that its requests are in: the steps, what goes beside them, and what waits for both.
    pub const fn queue(self) -> usize {
        match self {
            Turn::At(_) => 0,
            Turn::Beside => 1,
            Turn::Last => 2,
        }
    }

    /// The place of what it writes among the others of the queue.
    pub const fn of_writes(self) -> i8 {
        match self {
            Turn::At(stage) => stage as i8,
            Turn::Beside | Turn::Last => 0,
        }
    }

    /// The place of what it deletes when everything is written.
    pub const fn of_deletions(self) -> i8 {
        -self.of_writes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refers_goes_later_and_is_deleted_earlier() {
        let (nodes, edges) = (Turn::At(Stage::Nodes), Turn::At(Stage::Edges));
        assert!(nodes.of_writes() < edges.of_writes() && nodes.of_deletions() > edges.of_deletions());
        let queues = [nodes, Turn::Beside, Turn::Last].map(Turn::queue);
        assert_eq!(queues, [0, 1, 2]);
        assert!(queues.iter().all(|queue| *queue < Turn::QUEUES));
    }
}
