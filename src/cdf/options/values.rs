//! The values that options accept.

use std::path::Path;

use super::errors::{invalid, not_allowed};
use super::registry::{Descriptor, Takes};
use super::url::{parse_proxy, parse_url};
use crate::cdf::error::Error;
use crate::cdf::http::credentials::TokenAuth;
use crate::cdf::resource::{Naming, Resource};
use crate::cdf::table::{NullHandling, OnConflict, OnUnfit};
use crate::seal;

/// Checks whether an option accepts a value.
pub fn check_value(option: &Descriptor, value: &str, allow_http: bool) -> Result<(), Error> {
    match option.takes {
        Takes::Text | Takes::Name(_) | Takes::Resource | Takes::Path if value.is_empty() => {
            Err(invalid(option.name, "an empty text"))
        }
        Takes::Name(max) if value.chars().count() > max => {
            Err(invalid(option.name, &shown(option, value))
                .hint(format!("CDF takes at most {max} characters.")))
        }
        Takes::Text if option.secret && seal::is_sealed(value) => seal::check_form(value).map_err(|error| {
            let why = match error {
                seal::SealError::Version => "it was sealed by another version of cdf_fdw",
                _ => "it begins like a sealed secret, but is none",
            };
            invalid(option.name, why).hint("Give the secret itself, or all of the sealed text.")
        }),
        Takes::Text | Takes::Name(_) => Ok(()),
        Takes::Path if !Path::new(value).is_absolute() => Err(invalid(option.name, &shown(option, value))
            .hint("Give the absolute path of a file on the PostgreSQL server.")),
        Takes::Path => Ok(()),
        Takes::Number => parse_number(option.name, value).map(drop),
        Takes::Proxy => parse_proxy(option.name, value, allow_http).map(drop),
        Takes::Bool => parse_bool(option.name, value).map(drop),
        Takes::Url { query } => parse_url(option.name, value, query, allow_http).map(drop),
        Takes::OneOf(allowed) if !allowed.contains(&value) => {
            Err(not_allowed(option.name, &shown(option, value), allowed))
        }
        Takes::OneOf(_) => Ok(()),
        Takes::Resource => Resource::get(value).map(drop),
    }
}

fn shown(option: &Descriptor, value: &str) -> String {
    if option.secret {
        "(not shown)".into()
    } else {
        format!("\"{value}\"")
    }
}

pub fn parse_bool(name: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(not_allowed(name, &format!("\"{value}\""), &["true", "false"])),
    }
}

pub fn parse_number(name: &str, value: &str) -> Result<u64, Error> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|number| digits && *number > 0).ok_or_else(|| {
        invalid(name, &format!("\"{value}\" is not a whole number above 0"))
            .hint("Give the number that CDF has answered with, in digits.")
    })
}

/// Parses the value of an option that takes one of several names.
fn one_of<T>(
    name: &str,
    value: &str,
    parse: impl Fn(&str) -> Option<T>,
    allowed: &[&str],
) -> Result<T, Error> {
    parse(value).ok_or_else(|| not_allowed(name, &format!("\"{value}\""), allowed))
}

/// Parses the option `naming` of IMPORT FOREIGN SCHEMA and of registration.
pub fn naming(value: &str) -> Result<Naming, Error> {
    one_of("naming", value, Naming::parse, Naming::NAMES)
}

/// Parses the option `on_conflict`.
pub fn on_conflict(value: &str) -> Result<OnConflict, Error> {
    one_of("on_conflict", value, OnConflict::parse, OnConflict::NAMES)
}

/// Parses the option `null_handling`.
pub fn null_handling(value: &str) -> Result<NullHandling, Error> {
    one_of("null_handling", value, NullHandling::parse, NullHandling::NAMES)
}

/// Parses the option `on_unfit`.
pub fn on_unfit(value: &str) -> Result<OnUnfit, Error> {
    one_of("on_unfit", value, OnUnfit::parse, OnUnfit::NAMES)
}

/// Parses the option `token_auth`.
pub fn token_auth(value: &str) -> Result<TokenAuth, Error> {
    one_of("token_auth", value, TokenAuth::parse, TokenAuth::NAMES)
}
