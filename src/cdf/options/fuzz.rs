//! Random options, as users give them.

use proptest::prelude::*;
use url::Url;

use super::check::{check, BadOption};
use super::registry::{Holder, OPTIONS};
use super::url::{parse_proxy, parse_url};
use super::values::{parse_bool, parse_number};
use crate::cdf::fuzz::config;

/// What stands in values.
fn value() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "https://",
            "http://",
            "HTTP:\\\\",
            "//",
            "/",
            "..",
            "@",
            ":",
            "?",
            "#",
            "%2e",
            "%00",
            "\\",
            "[::1]",
            "127.1",
            "0x7f000001",
            "localhost",
            "example.com",
            "geheim",
            "true",
            "ON",
            "0",
            "18446744073709551616",
            "assets",
            "view",
            "raw_rows",
            "datapoints",
            "update",
            "error",
            "sealed:v1:",
            "/etc/x",
            "\u{202e}",
            "\u{1f6e2}",
            "\u{0}",
            "\r\n",
            "'; --",
            "$$",
            "\"",
            "basic",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
        "[0-9a-z.-]{0,70}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        9 => prop::sample::select(OPTIONS.iter().map(|option| option.name.to_owned()).collect::<Vec<_>>()),
        1 => value(),
    ];
    prop::collection::vec((name, value()), 0..8)
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn options_are_taken_or_refused_without_a_secret(given in pairs(), place in 0usize..5) {
        let places = [None, Some(Holder::Server), Some(Holder::UserMapping), Some(Holder::Table), Some(Holder::Column)];
        let pairs: Vec<(&str, &str)> = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let secret = |name: &str| OPTIONS.iter().any(|option| option.name == name && option.secret);
        match check(places[place], &pairs, false) {
            Ok(()) => prop_assert!(place > 0 || pairs.is_empty()),
            Err(BadOption::Name(error) | BadOption::Value(error)) => {
                let told = format!("{error:?}");
                for (_, value) in pairs.iter().filter(|(name, value)| secret(name) && value.len() > 20) {
                    prop_assert!(!told.contains(value), "{told}");
                }
            }
        }
    }

    #[test]
    fn what_is_taken_as_a_url_is_encrypted_or_stays_here(text in value()) {
        let of_server = parse_url("base_url", &text, false, false);
        let of_mapping = parse_url("token_url", &text, true, false);
        for url in [of_server, of_mapping, parse_proxy("proxy", &text, false)].into_iter().flatten() {
            prop_assert!(url.scheme() == "https" || url.scheme() == "http" && is_here(&url), "{url}");
            prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
            prop_assert!(url.has_host());
        }
    }

    #[test]
    fn flags_and_numbers_are_what_they_say(text in value()) {
        if let Ok(number) = parse_number("session_id", &text) {
            prop_assert_eq!(text.trim_start_matches('0'), number.to_string());
        }
        if let Ok(flag) = parse_bool("updatable", &text) {
            let yes = ["true", "on", "yes", "1"].contains(&text.to_ascii_lowercase().as_str());
            prop_assert_eq!(flag, yes);
        }
    }
}
