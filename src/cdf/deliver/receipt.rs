//! What became of a request.

use super::experience::{Attempt, Census};
use crate::cdf::error::Error;

/// What became of a request, except for the rows that CDF has acknowledged: its errand counts those.
#[derive(Debug)]
pub struct Receipt {
    /// Rows that CDF may have accepted without saying so.
    pub unknown: usize,
    /// Rows of which CDF has acknowledged some cells.
    pub in_part: usize,
    /// Time series that were created for their points.
    pub created: usize,
    /// Whether the rows have no key: sent again, they would be created twice.
    pub blind: bool,
    /// How rows that may exist were sent, and what was found of them.
    pub attempt: Option<(Attempt, Option<Census>)>,
    pub error: Option<Error>,
}
