//! Tells the members of a fragment apart without parsing their values.

use memchr::{memchr, memchr2};

use super::row::{Fragment, EXISTING};

/// A piece of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A member: its name, and its value as JSON.
    Member(&'a [u8], &'a [u8]),
    /// What an existing item gets instead of all members but the key.
    Existing(Fragment<'a>),
}

impl<'a> Fragment<'a> {
    /// Its pieces, one after another. Nothing is checked, as an encoder has written them, and no name of a property is
    /// escaped.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        let bytes = self.bytes();
        // Behind the brace, or the comma.
        let mut at = 1;
        std::iter::from_fn(move || {
            let name = at + 1;
            let end = name + memchr(b'"', bytes.get(name..)?)?;
            let value = end + 2;
            at = value_end(bytes, value) + 1;
            let (name, value) = (&bytes[name..end], bytes.get(value..at - 1)?);
            Some(if name == EXISTING.as_bytes() {
                Piece::Existing(Fragment::of(value))
            } else {
                Piece::Member(name, value)
            })
        })
    }
}

/// Where the value ends that begins at `at`.
fn value_end(json: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = text_end(json, at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Where the quote is that ends the text which begins at `at`.
fn text_end(json: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(next) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += next;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::encode::json::Properties;

    #[test]
    fn members_are_told_apart_without_being_parsed() {
        let row = r#"{"externalId":"a\"}, \\","n":-1.5e3,"o":{"x": [1, {"y":"]}"}], "z":"\"","":{}},"l":["a,b"],"t":true}"#;
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let found: Vec<(&str, &str)> = Fragment::of(row.as_bytes())
            .pieces()
            .map(|piece| match piece {
                Piece::Member(name, value) => (text(name), text(value)),
                Piece::Existing(_) => panic!("{piece:?}"),
            })
            .collect();
        let parsed = Properties::parse(row.as_bytes()).unwrap();
        let wanted: Vec<(&str, &str)> = parsed.0.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(found, wanted);
        assert_eq!(Fragment::of(b"{}").pieces().count(), 0);
        let listed: Vec<Piece<'_>> = Fragment::of(br#"{"id":1,"":{"a":2}}"#).pieces().collect();
        assert_eq!(listed, [Piece::Member(b"id", b"1"), Piece::Existing(Fragment::of(br#"{"a":2}"#))]);
    }
}
