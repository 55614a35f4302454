//! What declarations of resources are written with.

pub use super::column::{
    column, fixed, Column, ColumnType, CREATED_TIME, DATA_SET_EXTERNAL_ID, DATA_SET_ID, EXTERNAL_ID, ID,
    LAST_UPDATED_TIME,
};
pub use super::definition::{Owner, Resource, CLASSIC, ITEMS};
pub use super::filter::Filter;
pub use super::member::Member;
pub use super::paths;
pub use super::properties;
pub use super::reference::ASSET;
pub use super::role::{InstanceEnd, Role};
pub use super::rule::{Limit, MetadataLimits, Rule, DOCUMENT_BYTES};
pub use super::shape::{Create, Items, Ordered, Shape};
pub use super::turn::{Stage, Turn};
