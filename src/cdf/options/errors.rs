//! The errors of options.

use crate::cdf::error::{Error, Kind};

/// The error for a missing option.
pub fn missing(name: &str, place: &str) -> Error {
    Error::new(Kind::InvalidOption, format!("option \"{name}\" is required for {place}"))
}

/// The error for a value that an option cannot have.
pub fn invalid(name: &str, value: &str) -> Error {
    Error::new(Kind::InvalidOption, format!("invalid value for option \"{name}\": {value}"))
}

/// The error for a value that the option does not accept.
pub fn not_allowed(name: &str, shown: &str, allowed: &[&str]) -> Error {
    invalid(name, shown).hint(format!("Allowed values are: {}.", allowed.join(", ")))
}
