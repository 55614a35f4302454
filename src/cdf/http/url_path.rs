//! Names in URLs.

use percent_encoding::{utf8_percent_encode, AsciiSet, PercentEncode, NON_ALPHANUMERIC};

/// What has to be encoded: all but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The longest path, with its query: with the base URL before it, it stays below 4 kB. Gateways refuse longer URLs, some
/// beyond 8 kB.
pub const LONGEST: usize = 3 << 10;
/// Of that, what is kept free for the cursor of a page.
pub const CURSOR: usize = 1 << 10;

/// Whether a name can be a segment. URLs take `.` and `..` for directions, even percent-encoded, and drop the first.
pub fn is_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
}

/// A name as one segment of a path, or as a value of a query.
pub fn segment(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_no_segments() {
        assert!(["a", "...", ". ", "%2e", "/"].into_iter().all(is_segment));
        assert!(!["", ".", ".."].into_iter().any(is_segment));
    }

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("my_db-1.0~x").to_string(), "my_db-1.0~x");
        assert_eq!(segment("a/b?c=d&e#f %ü").to_string(), "a%2Fb%3Fc%3Dd%26e%23f%20%25%C3%BC");
    }
}
