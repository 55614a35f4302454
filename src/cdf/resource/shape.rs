//! How rows of a resource are encoded, delivered and read.

/// How rows of a resource are encoded, delivered and read.
#[derive(Debug)]
pub enum Shape {
    /// `POST path`, `path/update`, `path/byids`, `path/list` with `{"items": […]}`.
    Items(Items),
    /// `POST path`, and `path/list` with the subject of the rows. Rows are only added, in the order written. They have no
    /// key: each is new, and a row that may have arrived is not sent again.
    Journal(Items),
    /// `POST /timeseries/data`.
    Datapoints { string: bool },
    /// `POST /raw/dbs/{db}/tables/{table}/rows`.
    Raw,
    /// `POST /sequences/data`: rows grouped by sequence and columns.
    SequenceRows,
    /// `POST /models/instances`: nodes or edges of a data-model view.
    Instances { edges: bool },
}

/// How many items a create request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// `{"items": […]}`.
    Many,
    /// The item itself.
    One,
}

/// Two timestamp columns. The second must not be before the first.
#[derive(Debug)]
pub struct Ordered {
    pub first: &'static str,
    pub second: &'static str,
    /// Whether both may be the same moment.
    pub may_be_equal: bool,
}

/// What distinguishes one resource of items from others.
#[derive(Debug)]
pub struct Items {
    pub create: Create,
    /// Columns that an item must have when it is created.
    pub required: &'static [&'static str],
    /// Pairs of timestamp columns of which the second is never before the first.
    pub ordered: &'static [Ordered],
    /// The least characters of an external id.
    pub shortest_key: usize,
}
