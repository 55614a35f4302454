//! The one error type of the CDF side. It carries everything that the PostgreSQL side reports, and never a secret.

pub mod api;
mod identity;
mod kind;
mod report;
pub mod text;

pub use api::{Absence, ApiError, RequestError, FAILED, THROTTLED};
pub use identity::Identity;
pub use kind::Kind;
pub use report::{Error, Fate, Noun, Report, Rows, Trace, LONGEST_HEADLINE, ROWS, SERIES};
pub use text::{list_names, NAMED_ROWS};
