//! URLs under the options' rules, as the settings of the session have them.

use url::Url;

use crate::cdf::error::Error;
use crate::cdf::options::url::{parse_named, parse_proxy};
use crate::pg::settings;

/// Parses a URL under the rules of the option of this name.
pub fn url(name: &'static str, value: &str) -> Result<Url, Error> {
    parse_named(name, value, settings::allow_http())
}

/// Parses the value of the option `proxy`.
pub fn proxy(value: &str) -> Result<Url, Error> {
    parse_proxy("proxy", value, settings::allow_http())
}
