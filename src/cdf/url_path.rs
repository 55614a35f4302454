//! Names in URLs.

use percent_encoding::{utf8_percent_encode, AsciiSet, PercentEncode, NON_ALPHANUMERIC};

/// What has to be encoded: all but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name as one segment of a path, or as a value of a query.
pub fn segment(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("my_db-1.0~x").to_string(), "my_db-1.0~x");
        assert_eq!(segment("a/b?c=d&e#f %ü").to_string(), "a%2Fb%3Fc%3Dd%26e%23f%20%25%C3%BC");
    }
}
