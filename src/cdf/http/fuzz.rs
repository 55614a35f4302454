//! Random answers of CDF, of gateways and of identity providers.

use bytes::Bytes;
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue, CONTENT_TYPE, LOCATION};
use secrecy::ExposeSecret;

use super::answer::Answer;
use super::owed::Owed;
use super::{retry, token};
use crate::cdf::document;
use crate::cdf::error::text::one_line;
use crate::cdf::error::LONGEST_HEADLINE;
use crate::cdf::fuzz::{config, is_json, sent};

/// The number of items of an answer, if it is an object and each of them is an object with a key somewhere in it.
fn items(bytes: &[u8]) -> Option<usize> {
    let answer = document::parse(bytes).ok()?;
    let answer = answer.as_object()?;
    if answer.get("error").is_some_and(|error| !error.is_null()) {
        return None;
    }
    let items = answer.get("items")?.elements()?;
    let named = |item: &document::Value| {
        let text = item.to_string();
        text.starts_with('{') && (text.contains("\"id\"") || text.contains("\"externalId\""))
    };
    items.iter().all(named).then_some(items.len())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_answer_acknowledges_only_what_it_says(bytes in sent()) {
        for sent in [0, 1, 2, 3] {
            let accepted = Owed::Items(sent).check(Some("application/json"), &bytes).is_ok();
            prop_assert!(!accepted || items(&bytes) == Some(sent), "{sent} items of {}", bytes.escape_ascii());
        }
        for owed in [Owed::Object, Owed::Item, Owed::List, Owed::RawRow, Owed::SequenceRows, Owed::Inspection, Owed::Token] {
            let accepted = owed.check(Some("application/json"), &bytes).is_ok();
            prop_assert!(!accepted || is_json(&bytes), "{owed:?} {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_token_that_is_kept_can_be_sent(bytes in sent()) {
        if let Ok((token, life)) = token::read(&bytes) {
            let header = ["Bearer", token.expose_secret()].join(" ");
            prop_assert!(HeaderValue::from_str(&header).is_ok());
            prop_assert!(life.as_secs() <= 24 * 3600);
        }
    }

    #[test]
    fn a_refusal_is_told_in_one_line(bytes in sent(), status in 300u16..600, markup in any::<bool>(), place in "[ -~]{0,40}") {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(if markup { "text/html" } else { "application/json" }));
        headers.insert(LOCATION, HeaderValue::from_str(&place).expect("printable characters"));
        let mut answer = Answer::new(status, &headers);
        answer.body = Bytes::from(bytes);
        let told = [answer.message(), answer.description(true), answer.redirects_to(), answer.status_and_id()];
        for text in told.iter().map(|text| one_line(text)) {
            prop_assert!(!text.contains(char::is_control), "{text:?}");
        }
        let error = answer.api_error("POST /assets", false).into_error("assetsAcl:WRITE").into_report().headline();
        prop_assert!(!error.contains(char::is_control), "{:?}", error);
        prop_assert!(error.chars().count() <= LONGEST_HEADLINE, "{:?}", error);
        let _ = (answer.outcome(), answer.is_markup());
    }

    #[test]
    fn any_pause_that_a_server_asks_for_is_read_or_ignored(value in "([0-9]{0,25}|[ -~]{0,40})") {
        let _ = retry::parse_retry_after(&value, std::time::SystemTime::now());
    }
}
