//! What list requests can filter on.

/// What the resource's list requests can filter on in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    None,
    /// Equality, with the property of the same name.
    Equal,
    /// `{"min", "max"}`, both inclusive, of the property of the same name; where `nullable`, also `{"isNull"}`.
    Range {
        nullable: bool,
    },
    /// `externalIdPrefix`.
    Prefix,
    /// Pairs of texts, of which all must be there.
    Metadata,
    /// `{"containsAny"}` or `{"containsAll"}`.
    Labels,
    /// A list in `property`, of so many at most, of which one must be there. With `root` CDF can be asked for those
    /// that have none.
    List {
        property: &'static str,
        max: usize,
        root: bool,
    },
    /// `dataSetIds`, each `{by: …}`, of so many at most.
    DataSets {
        by: &'static str,
        max: usize,
    },
}
