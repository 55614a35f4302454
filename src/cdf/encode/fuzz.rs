//! Random documents and texts of users.

use proptest::prelude::*;
use serde_json::Value;

use super::{geo, json};
use crate::cdf::fuzz::{config, is_json, json_text};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_fast_way_of_metadata_writes_what_the_slow_one_does(text in json_text()) {
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        let sizes = (json::metadata(&mut fast, &text, true), json::metadata(&mut slow, &text, false));
        if let (Ok(one), Ok(other)) = sizes {
            prop_assert_eq!(one, other, "{}", text);
            prop_assert_eq!(String::from_utf8(fast), String::from_utf8(slow));
        }
    }

    #[test]
    fn what_is_written_from_a_document_is_json(text in json_text()) {
        let mut out = Vec::new();
        if json::check_depth(&text).is_ok() && geo::feature(&mut out, &text).is_ok() {
            prop_assert!(is_json(&out), "{}", out.escape_ascii());
        }
        if let (true, Ok(raw)) = (json::check_depth(&text).is_ok(), serde_json::from_str(&text)) {
            out.clear();
            if json::without_nulls(&mut out, raw).is_ok() {
                prop_assert!(is_json(&out), "{}", out.escape_ascii());
                let nulls = |value: &Value| value.as_object().is_some_and(|object| object.values().any(Value::is_null));
                let value: Option<Value> = serde_json::from_slice(&out).ok();
                prop_assert!(!value.as_ref().is_some_and(nulls));
            }
        }
    }

    #[test]
    fn any_text_is_written_as_json_writes_it(text in ".{0,40}") {
        let mut out = Vec::new();
        json::text(&mut out, &text);
        prop_assert_eq!(String::from_utf8(out).ok(), serde_json::to_string(&text).ok());
    }
}
