//! Rows of sequences (API description, `POST /sequences/data`).

use super::declare::*;

/// Rows per insert and per list request.
pub const ROWS_PER_REQUEST: usize = 10_000;
/// Values per insert request, nulls included.
pub const VALUES_PER_REQUEST: usize = 100_000;
/// Items per insert request: rows of one sequence with the same columns.
pub const ITEMS_PER_REQUEST: usize = 1000;
/// Columns of one item.
pub const COLUMNS_PER_ITEM: usize = 200;
/// Characters of a text.
pub const STRING_CHARS: usize = 256;
/// Largest magnitude of a number.
pub const LARGEST_VALUE: f64 = 1e100;

/// The property with a row's number.
pub const ROW_NUMBER: &str = "rowNumber";
/// The property with a row's values by column.
pub const COLUMNS: &str = "columns";

pub static SEQUENCE_ROWS: Resource = Resource {
    name: "sequence_rows",
    noun: "sequence row",
    columns: &[
        ID,
        EXTERNAL_ID,
        fixed(
            "row_number",
            ROW_NUMBER,
            ColumnType::Int8,
            Rule::part("the key within the sequence; from 0 on"),
        )
        .role(Role::RowNumber),
        fixed(
            "columns",
            COLUMNS,
            ColumnType::Jsonb,
            Rule::part("an object of values by the external ids of the sequence's columns"),
        )
        .role(Role::Columns),
    ],
    shape: Shape::SequenceRows,
    path: "/sequences/data",
    per_request: ROWS_PER_REQUEST,
    per_delete: ROWS_PER_REQUEST,
    per_page: ROWS_PER_REQUEST,
    keys: &[&[Role::ExternalId, Role::RowNumber], &[Role::Id, Role::RowNumber]],
    owner: Some(&SEQUENCES),
    turn: Turn::At(Stage::Points),
    refers_to: &[paths::SEQUENCES],
    referred_to: false,
    acl: "sequencesAcl",
    ..CLASSIC
};

/// Where the sequences are that rows are of.
pub static SEQUENCES: Owner =
    Owner { path: paths::SEQUENCES, named_by: &[&[Role::ExternalId], &[Role::Id]], capability: None };
