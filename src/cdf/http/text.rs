//! Pieces of the texts about requests.

use std::time::Duration;

use url::Url;

/// The longest text of a server, in bytes, that is passed on in an error: CDF's own, and any other.
pub const LONGEST_MESSAGE: usize = 16 << 10;
pub const LONGEST_FOREIGN_TEXT: usize = 300;

/// A body that is no JSON as one line of text: without HTML tags, heads and control characters.
pub fn plain_text(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(LONGEST_MESSAGE)]);
    let mut text = String::with_capacity(body.len());
    let is_html = body.trim_start().starts_with('<');
    let mut in_tag = false;
    for character in body.chars() {
        match character {
            '<' if is_html => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            _ if character.is_control() => text.push(' '),
            _ => text.push(character),
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// At most so many bytes of a text, cut between characters.
pub fn shorten(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// A duration as PostgreSQL shows its settings.
pub fn setting(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0".into(),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Host and port, as errors name a server: the rest of a URL may hold secrets.
pub fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("(no host)");
    match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_postgresql_shows_them() {
        let shown = |ms| setting(Duration::from_millis(ms));
        assert_eq!([shown(0), shown(1500), shown(90_000), shown(600_000)], ["0", "1500ms", "90s", "10min"]);
    }
}
