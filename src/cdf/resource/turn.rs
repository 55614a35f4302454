//! The order in which a flush delivers the resources.

/// The steps of a flush. Resources of one step go in parallel, and steps one after another, so that what a later step refers
/// to exists by then. Deletions take the steps backwards, so that items are deleted before what they refer to.
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
    /// Beside the steps, without waiting for them: its rows refer to nothing, and nothing refers to them.
    Beside,
    /// After everything else, deletions included: it reports on the load.
    Last,
}

impl Turn {
    /// The number of queues. Each queue has its own order.
    pub const QUEUES: usize = 3;

    /// The queue that its requests are in: the steps, what goes beside them, and what waits for both.
    pub const fn queue(self) -> usize {
        match self {
            Turn::At(_) => 0,
            Turn::Beside => 1,
            Turn::Last => 2,
        }
    }

    /// The place of its writes in the queue.
    pub const fn of_writes(self) -> i8 {
        match self {
            Turn::At(stage) => stage as i8,
            Turn::Beside | Turn::Last => 0,
        }
    }

    /// The place of its final deletions, after all writes.
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
