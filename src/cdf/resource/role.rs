//! The roles of columns.

/// The role of a column in its row. Code asks for roles, never for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A property of the item without a special role.
    Property,
    /// The internal id of the item, or of the time series or the sequence that the row is in.
    Id,
    /// The external id of the same; of an instance it is the one within its space.
    ExternalId,
    /// The external id of the item's parent.
    Parent,
    /// The space of an instance.
    Space,
    /// The space of the node that is the time series.
    NodeSpace,
    /// The external id of that node.
    NodeExternalId,
    /// The time of a point.
    Timestamp,
    /// The value of a point.
    Value,
    StatusCode,
    StatusSymbol,
    /// The number of a row in its sequence.
    RowNumber,
    /// The values of a sequence row, or of a RAW row, by the names of their columns.
    Columns,
    RawDatabase,
    RawTable,
    /// The key of a row in its RAW table.
    RawKey,
    /// The time of the last write of the row.
    Changed,
    /// The number of times that an instance was written.
    Version,
    /// The space of an instance's end, or of its type.
    EndSpace(InstanceEnd),
    /// The external id of the same.
    EndExternalId(InstanceEnd),
}

/// Other instances that an instance names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceEnd {
    Type,
    StartNode,
    EndNode,
}

impl InstanceEnd {
    pub const ALL: [InstanceEnd; 3] = [InstanceEnd::Type, InstanceEnd::StartNode, InstanceEnd::EndNode];

    /// CDF's name of it.
    pub fn property(self) -> &'static str {
        match self {
            InstanceEnd::Type => "type",
            InstanceEnd::StartNode => "startNode",
            InstanceEnd::EndNode => "endNode",
        }
    }
}

impl Role {
    /// Whether errors name a row by it.
    pub fn tells_rows_apart(self) -> bool {
        use Role::*;
        matches!(
            self,
            Id | ExternalId
                | Space
                | NodeSpace
                | NodeExternalId
                | Timestamp
                | RowNumber
                | RawDatabase
                | RawTable
                | RawKey
        )
    }
}
