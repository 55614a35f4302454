//! The options of a foreign table, and their values.

use super::view::ViewReference;
use crate::cdf::resource::{Naming, Resource};

/// What an INSERT does with an item that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnConflict {
    #[default]
    Update,
    Error,
    Ignore,
    /// As `Update`, but an existing item gets only the properties that the row lists: `ON CONFLICT … DO UPDATE SET` of
    /// a part of the columns. No value of the table's option.
    UpdateListed,
}

impl OnConflict {
    pub const NAMES: &'static [&'static str] = &["update", "error", "ignore"];

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "update" => Some(OnConflict::Update),
            "error" => Some(OnConflict::Error),
            "ignore" => Some(OnConflict::Ignore),
            _ => None,
        }
    }
}

/// What a row asks CDF to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Operation {
    /// Write it, whether it exists or not: INSERT and COPY.
    #[default]
    Upsert,
    /// Change the given columns of an existing row: UPDATE.
    Update,
    /// Delete the row: DELETE and TRUNCATE.
    Delete,
}

/// What an insert does with NULL columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NullHandling {
    /// They are not sent.
    #[default]
    Ignore,
    /// They clear the property of an existing item.
    SetNull,
}

impl NullHandling {
    pub const NAMES: &'static [&'static str] = &["ignore", "set_null"];

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ignore" => Some(NullHandling::Ignore),
            "set_null" => Some(NullHandling::SetNull),
            _ => None,
        }
    }
}

/// What happens to a value read from CDF that the column's type cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnfit {
    #[default]
    Error,
    /// It is NULL, and counted in a warning.
    Null,
}

impl OnUnfit {
    pub const NAMES: &'static [&'static str] = &["error", "null"];

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "error" => Some(OnUnfit::Error),
            "null" => Some(OnUnfit::Null),
            _ => None,
        }
    }
}

/// How rows of one table are delivered; rows of different modes never share a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode {
    pub operation: Operation,
    pub on_conflict: OnConflict,
    pub null_handling: NullHandling,
    pub create_missing: bool,
    /// How errors name columns.
    pub naming: Naming,
}

/// The options of a foreign table, with the server's defaults applied.
#[derive(Debug, Clone)]
pub struct TableOptions {
    pub resource: &'static Resource,
    pub database: Option<String>,
    pub table: Option<String>,
    pub primary_key: Option<String>,
    /// The view behind a table of `view`.
    pub view: Option<ViewReference>,
    pub mode: Mode,
    pub truncatable: bool,
    pub updatable: bool,
    /// The default for columns without this option.
    pub on_unfit: OnUnfit,
}

impl TableOptions {
    /// The options of a table that sets none.
    pub fn of(resource: &'static Resource) -> TableOptions {
        TableOptions {
            resource,
            database: None,
            table: None,
            primary_key: None,
            view: None,
            mode: Mode::default(),
            truncatable: false,
            updatable: true,
            on_unfit: OnUnfit::default(),
        }
    }
}
