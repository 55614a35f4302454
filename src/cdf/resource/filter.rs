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
    /// Pairs of texts. The item must have all of them.
    Metadata,
    /// `{"containsAny"}` or `{"containsAll"}`.
    Labels,
    /// A list in `property`, with at most `max` elements, of which the item must have one. With `root` CDF can be asked
    /// for items that have none.
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
