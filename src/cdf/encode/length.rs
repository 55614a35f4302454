//! Checks the length of values before they are written: escaping can turn one byte into six, and a value that CDF refuses
//! must not take that memory first.

use std::borrow::Cow;

use super::json::Refusal;
use crate::cdf::cell::Cell;
use crate::cdf::error::Kind;

/// Bytes of the longest JSON document that CDF takes in any column but those of views: all columns of a RAW row.
pub const DOCUMENT_BYTES: usize = crate::cdf::resource::raw::ROW_BYTES;

/// Characters of a value that an error shows.
const SHOWN_CHARS: usize = 300;
/// Characters of a reason, which may contain values.
const REASON_CHARS: usize = 2000;

/// Returns a lower bound for the characters of a value's JSON if it exceeds `most`. Short values are not counted.
pub fn surely_longer(cell: &Cell<'_>, most: usize) -> Option<usize> {
    let chars = match cell {
        // Bytes bound characters from above, so most texts are never counted.
        Cell::Text(text) | Cell::Json(text) if text.len() > most => text.chars().count(),
        Cell::Bytes(bytes) => bytes.len().div_ceil(3) * 4,
        Cell::Number(digits) => digits.len(),
        Cell::List(cells) => cells.iter().map(|cell| surely_longer(cell, 0).unwrap_or_default() + 1).sum(),
        Cell::Pairs(pairs) => {
            pairs.iter().map(|(key, value)| key.chars().count() + value.chars().count()).sum()
        }
        _ => 0,
    };
    (chars > most).then_some(chars)
}

/// Checks that a JSON document has at most `most` bytes, not counting white space between its parts.
pub fn check_document(document: &str, most: usize) -> Result<(), Refusal> {
    if document.len() <= most {
        return Ok(());
    }
    let (mut bytes, mut quoted, mut escaped) = (0usize, false, false);
    for byte in document.bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if !quoted => continue,
            b'"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && byte == b'\\' && !escaped;
        bytes += 1;
    }
    if bytes > most {
        Err(too_long(bytes, most))
    } else {
        Ok(())
    }
}

/// Refuses a JSON document of at least `bytes` bytes.
pub fn too_long(bytes: usize, most: usize) -> Refusal {
    (Kind::TooLong, format!("the JSON document has {bytes} bytes or more; CDF takes {most} at most"))
}

/// Shortens a value for an error.
pub fn shown(value: &str) -> Cow<'_, str> {
    cut(value, SHOWN_CHARS)
}

/// Shortens a reason for an error.
pub fn reason(why: &str) -> Cow<'_, str> {
    cut(why, REASON_CHARS)
}

fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_surely_longer_is_told_without_writing_it() {
        let accents = "é".repeat(10);
        assert_eq!(surely_longer(&Cell::Text(&accents), 10), None);
        assert_eq!(surely_longer(&Cell::Text(&accents), 9), Some(10));
        assert_eq!(surely_longer(&Cell::Bytes(&[0; 30]), 39), Some(40));
        let list = [Cell::Text("abc"), Cell::Null, Cell::Number("12")];
        assert_eq!(surely_longer(&Cell::List(&list), 7), Some(8));
        assert_eq!(surely_longer(&Cell::List(&list), 8), None);
        assert_eq!(surely_longer(&Cell::Pairs(&[("k", "vé")]), 2), Some(3));
        assert_eq!(surely_longer(&Cell::Int(1234), 0), None);
    }

    #[test]
    fn blanks_of_a_document_do_not_count() {
        let document = format!("{{ \"a\" :\n{}[1, \"b \\\" c\"] }}", " ".repeat(100));
        // {"a":[1,"b \" c"]}
        assert!(check_document(&document, 18).is_ok());
        assert_eq!(check_document(&document, 17).unwrap_err().0, Kind::TooLong);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(shown("short"), "short");
        let long = "é".repeat(SHOWN_CHARS + 1);
        assert_eq!(shown(&long), format!("{}…", "é".repeat(SHOWN_CHARS)));
    }
}
