//! JSON documents in properties of instances: written without white space, and checked against CDF's limits.
//!
//! It is one pass over the text without recursion, so a document may be nested as deeply as its size allows.

use super::json::Refusal;
use crate::cdf::error::Kind;
use crate::cdf::resource::view::{JSON_BYTES, JSON_KEYS, JSON_KEY_CHARS, JSON_VALUE_BYTES};

/// An object or array that has not ended yet.
struct Level {
    is_object: bool,
    keys: usize,
    /// Where the key and the value of an object's last member begin in the output.
    key: usize,
    value: usize,
}

/// Appends a document. `text` is known to be JSON.
pub fn document(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    let start = out.len();
    let bytes = text.as_bytes();
    let mut levels: Vec<Level> = Vec::new();
    let mut in_key = false;
    let mut refused = None;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let mut ended = None;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'"' => {
                let end = string_end(bytes, at);
                let size = Size::of(&bytes[at + 1..end - 1]);
                if let (true, Some(level)) = (in_key, levels.last_mut()) {
                    level.keys += 1;
                    level.key = out.len();
                    let keys = level.keys;
                    if size.chars > JSON_KEY_CHARS {
                        refused.get_or_insert_with(|| {
                            let key = shortened(&text[at..end]);
                            format!("the JSON document has a key of {} characters, {key}; CDF takes {JSON_KEY_CHARS}", size.chars)
                        });
                    } else if keys == JSON_KEYS + 1 {
                        refused.get_or_insert_with(|| {
                            format!("the JSON document has an object of more than {JSON_KEYS} keys; CDF takes {JSON_KEYS}")
                        });
                    }
                    in_key = false;
                } else {
                    ended = Some(size.bytes);
                }
                out.extend_from_slice(&bytes[at..end]);
                at = end;
            }
            b'{' | b'[' => {
                in_key = byte == b'{';
                out.push(byte);
                levels.push(Level { is_object: in_key, keys: 0, key: 0, value: 0 });
                at += 1;
            }
            b'}' | b']' => {
                in_key = false;
                out.push(byte);
                levels.pop();
                at += 1;
                let began = levels.last().map_or(start, |level| level.value);
                ended = Some(out.len() - began);
            }
            b',' => {
                in_key = levels.last().is_some_and(|level| level.is_object);
                out.push(byte);
                at += 1;
            }
            b':' => {
                out.push(byte);
                at += 1;
                if let Some(level) = levels.last_mut() {
                    level.value = out.len();
                }
            }
            _ => {
                let rest = &bytes[at..];
                let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
                let len = rest.iter().position(ends).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..len]);
                at += len;
                ended = Some(len);
            }
        }
        // A member of an object has ended.
        let member = levels.last().filter(|level| level.is_object);
        if let (Some(size), Some(member)) = (ended.filter(|size| *size > JSON_VALUE_BYTES), member) {
            refused.get_or_insert_with(|| {
                let key = String::from_utf8_lossy(&out[member.key..member.value - 1]);
                let key = shortened(&key);
                format!(
                    "the value of {key} in the JSON document has {size} bytes; CDF takes {JSON_VALUE_BYTES}"
                )
            });
        }
    }
    check_size(out.len() - start)?;
    match refused {
        None => Ok(()),
        Some(why) => Err((Kind::TooLong, why)),
    }
}

/// Checks the size of a document, or of a list of them.
pub fn check_size(bytes: usize) -> Result<(), Refusal> {
    if bytes > JSON_BYTES {
        Err((Kind::TooLong, format!("the JSON document has {bytes} bytes; CDF takes {JSON_BYTES}")))
    } else {
        Ok(())
    }
}

/// Shortens a key for errors.
fn shortened(key: &str) -> String {
    match key.char_indices().nth(40) {
        Some((end, _)) => format!("{}…\"", &key[..end]),
        None => key.to_owned(),
    }
}

/// Returns the end of the string that begins at `start`, including its quotes.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The size of a JSON string's text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub bytes: usize,
    pub chars: usize,
}

impl Size {
    /// Measures what is between the quotes.
    pub fn of(raw: &[u8]) -> Size {
        let mut size = Size::default();
        let mut at = 0;
        let code = |at: usize| {
            let digits = raw.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
            digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
        };
        while at < raw.len() {
            match (raw[at], raw.get(at + 1)) {
                (b'\\', Some(b'u')) => {
                    let unit = code(at);
                    size.bytes += match unit {
                        // The second half of a pair adds to the first.
                        0xdc00..=0xdfff => 1,
                        0..=0x7f => 1,
                        0x80..=0x7ff => 2,
                        _ => 3,
                    };
                    size.chars += usize::from(!(0xdc00..=0xdfff).contains(&unit));
                    at += 6;
                }
                (b'\\', _) => {
                    size.bytes += 1;
                    size.chars += 1;
                    at += 2;
                }
                (byte, _) => {
                    size.bytes += 1;
                    size.chars += usize::from(byte & 0xc0 != 0x80);
                    at += 1;
                }
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<String, String> {
        let mut out = b"before".to_vec();
        document(&mut out, text).map_err(|(kind, why)| {
            assert_eq!(kind, Kind::TooLong);
            why
        })?;
        Ok(String::from_utf8(out).unwrap()["before".len()..].to_owned())
    }

    #[test]
    fn documents_lose_their_spaces_and_nothing_else() {
        for text in [
            "1",
            " \"a b\" ",
            "null",
            "[]",
            "{ }",
            r#"{"a": [1, -2.50e+3, true, null, {"b\"": "c, \\"}], "d": {"e": {}}, "ü": " "}"#,
            "[ [ ], { \"a\" : [ ] } ]",
        ] {
            let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
            let found = written(text).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&found).unwrap(), parsed);
            assert_eq!(found.replace("\" \"", ""), found.replace("\" \"", "").replace(": ", ":"), "{found}");
        }
        assert_eq!(written("{ \"a\" : 1.50 , \"b\" : [ 1 ] }").unwrap(), r#"{"a":1.50,"b":[1]}"#);
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(written(&deep).unwrap(), deep);
    }

    #[test]
    fn limits_are_met_exactly() {
        let object = |keys: usize| {
            let members: Vec<String> = (0..keys).map(|at| format!("\"k{at}\": 1")).collect();
            format!("{{{}}}", members.join(", "))
        };
        let key = |len: usize| format!("{{\"a\": {{\"{}\": 1}}}}", "ü".repeat(len));
        let value = |len: usize| format!("[{{\"k\": \"{}\"}}]", "x".repeat(len));
        let escaped = |len: usize| format!("{{\"k\": \"{}\"}}", "\\\"".repeat(len));
        let inner = |len: usize| format!("{{\"k\": [\"{}\", 1]}}", "x".repeat(len - 6));
        let whole = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
        for (make, most, text) in [
            (&object as &dyn Fn(usize) -> String, 256, "256 keys"),
            (&key, 128, "129 characters"),
            (&value, 10_240, "value of \"k\" in the JSON document has 10241 bytes"),
            (&escaped, 10_240, "10241 bytes"),
            (&inner, 10_240, "10241 bytes"),
            (&whole, 40_960, "40961 bytes"),
        ] {
            assert!(written(&make(most)).is_ok(), "{text}");
            let why = written(&make(most + 1)).unwrap_err();
            assert!(why.contains(text), "{why}");
        }
    }

    #[test]
    fn strings_count_as_what_they_stand_for() {
        for text in ["", "abc", "ü日😀", "\n\"\\", "é"] {
            let raw = serde_json::to_string(text).unwrap();
            let size = Size::of(&raw.as_bytes()[1..raw.len() - 1]);
            assert_eq!(size, Size { bytes: text.len(), chars: text.chars().count() }, "{text}");
        }
        assert_eq!(Size::of(br"\u00e9\u0041\ud83d\ude00"), Size { bytes: 7, chars: 3 });
    }
}
