//! The texts that errors are made of.

use std::fmt;

/// How many rows an error names before it only counts them.
pub const NAMED_ROWS: usize = 10;

/// Lists the first ten names and the count of all, as every error lists rows.
pub fn list_names<T: fmt::Display>(names: impl Iterator<Item = T>, total: usize) -> String {
    let shown: Vec<String> = names.take(NAMED_ROWS).map(|name| name.to_string()).collect();
    if total > shown.len() {
        format!("{} … ({total} in all)", shown.join(", "))
    } else {
        shown.join(", ")
    }
}

/// Returns the text on one line, without control characters that a terminal or a log would interpret.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    // A line break and the indentation after it become one space.
    let mut broken = false;
    for character in text.trim().chars() {
        let breaks = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        if breaks && !line.ends_with(' ') {
            line.push(' ');
        }
        broken = breaks || broken && character == ' ';
        if !broken {
            line.push(character);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// At most so many characters of a text.
pub fn shorten(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(longest.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

/// Method and path without the names in it: `POST /raw/…/rows`. The subject of the error has the names.
pub fn brief_endpoint(endpoint: &str) -> String {
    match endpoint.split_once(" /raw/dbs/") {
        Some((method, path)) => {
            // /raw/dbs/{database}/tables/{table}/rows/{key}
            let what = path.split('/').nth(3);
            let row = if path.split('/').nth(4).is_some_and(|last| last != "delete") { "/…" } else { "" };
            let delete = if path.ends_with("/rows/delete") { "/delete" } else { "" };
            format!("{method} /raw/…/{}{row}{delete}", what.unwrap_or("tables"))
        }
        None => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined() {
        assert_eq!(one_line(" a\r\n\t b  c\u{2028}d\0\n"), "a b  c d");
    }

    #[test]
    fn endpoints_of_raw_are_told_without_their_names() {
        assert_eq!(brief_endpoint("POST /raw/dbs/a%20b/tables/c/rows"), "POST /raw/…/rows");
        assert_eq!(brief_endpoint("POST /raw/dbs/a/tables/c/rows/delete"), "POST /raw/…/rows/delete");
        assert_eq!(brief_endpoint("GET /raw/dbs/a/tables/c/rows/k"), "GET /raw/…/rows/…");
        assert_eq!(brief_endpoint("GET /raw/dbs/a/tables"), "GET /raw/…/tables");
        assert_eq!(brief_endpoint("GET /raw/dbs"), "GET /raw/dbs");
        assert_eq!(brief_endpoint("POST /assets"), "POST /assets");
    }

    #[test]
    fn lists_name_ten_and_count_all() {
        let names: Vec<u32> = (0..25).collect();
        assert_eq!(list_names(names.iter(), 25), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … (25 in all)");
        assert_eq!(list_names(names.iter().take(2), 2), "0, 1");
    }
}
