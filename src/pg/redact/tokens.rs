//! Splits an SQL text into tokens, by the rules of PostgreSQL's own lexer. It accepts any text, even one that is not SQL.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A key word or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A text in single quotes, or between dollars. `escapes`: whether a backslash is special in it; `quotes`: whether
    /// a quote is written twice in it.
    Literal {
        escapes: bool,
        quotes: bool,
    },
    Number,
    /// `$1`
    Parameter(u16),
    /// `=>` or `:=`
    Arrow,
    /// Any other character.
    Symbol(u8),
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    /// Where it stands, without its quotes.
    pub body: Range<usize>,
    /// Whether its closing quote is there.
    pub closed: bool,
}

impl Token {
    pub fn is_symbol(&self, symbol: u8) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }

    /// Whether it is this key word, given in lower case.
    pub fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && text[self.body.clone()].eq_ignore_ascii_case(word.as_bytes())
    }

    /// The name that it is: in lower case, unless it stands in quotes.
    pub fn name(&self, text: &[u8]) -> Option<Vec<u8>> {
        let body = &text[self.body.clone()];
        match self.kind {
            TokenKind::Word => Some(body.to_ascii_lowercase()),
            TokenKind::Quoted => {
                let mut name = body.to_vec();
                let mut previous = false;
                name.retain(|byte| {
                    previous = *byte == b'"' && !previous;
                    *byte != b'"' || previous
                });
                Some(name)
            }
            _ => None,
        }
    }
}

/// How a text is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether a backslash is special in a plain text: standard_conforming_strings is off.
    pub backslashes: bool,
    /// Whether double quotes stand around names. In a message of the server log they stand around anything, and count as
    /// blanks.
    pub names: bool,
}

/// The tokens of a text.
pub fn tokens(text: &[u8], rules: Rules) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, rules };
    std::iter::from_fn(|| lexer.next()).collect()
}

struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    rules: Rules,
}

fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl Lexer<'_> {
    fn byte(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, which: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && which(self.byte(0)) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        if self.at >= self.text.len() {
            return None;
        }
        let start = self.at;
        let token = |kind, body, closed| Some(Token { kind, body, closed });
        let plain = self.rules.backslashes;
        match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'\'', ..) => self.literal(1, plain),
            (b'e' | b'E', b'\'', _) => self.literal(2, true),
            (b'n' | b'N', b'\'', _) => self.literal(2, plain),
            (b'b' | b'B' | b'x' | b'X', b'\'', _) => self.literal(2, false),
            (b'u' | b'U', b'&', b'\'') => self.literal(3, false),
            (b'u' | b'U', b'&', b'"') if self.rules.names => self.quoted(3),
            (b'"', ..) if self.rules.names => self.quoted(1),
            (b'$', digit, _) if digit.is_ascii_digit() => {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
                let number = std::str::from_utf8(&self.text[start + 1..self.at]).ok()?;
                token(TokenKind::Parameter(number.parse().unwrap_or(u16::MAX)), start..self.at, true)
            }
            (b'$', ..) => Some(self.dollars().unwrap_or_else(|| self.symbol())),
            (b'=', b'>', _) | (b':', b'=', _) => {
                self.at += 2;
                token(TokenKind::Arrow, start..self.at, true)
            }
            (byte, ..) if starts_name(byte) => {
                self.skip_while(continues_name);
                token(TokenKind::Word, start..self.at, true)
            }
            (byte, next, _) if byte.is_ascii_digit() || (byte == b'.' && next.is_ascii_digit()) => {
                self.skip_while(|byte| continues_name(byte) || byte == b'.');
                token(TokenKind::Number, start..self.at, true)
            }
            _ => Some(self.symbol()),
        }
    }

    fn symbol(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        Token { kind: TokenKind::Symbol(self.text[start]), body: start..self.at, closed: true }
    }

    /// Skips blanks and comments. Returns whether there was a line break.
    fn skip_blanks(&mut self) -> bool {
        let mut line_break = false;
        loop {
            match (self.byte(0), self.byte(1)) {
                (b'-', b'-') => self.skip_while(|byte| byte != b'\n'),
                (b'/', b'*') => self.skip_comment(),
                (byte, _) if self.at < self.text.len() && (byte.is_ascii_whitespace() || byte == 0x0b) => {
                    line_break |= byte == b'\n' || byte == b'\r';
                    self.at += 1;
                }
                (b'"', _) if !self.rules.names => self.at += 1,
                _ => return line_break,
            }
        }
    }

    /// They may stand in each other.
    fn skip_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
    }

    /// A text in single quotes. Texts with a line break between them are one.
    fn literal(&mut self, prefix: usize, escapes: bool) -> Option<Token> {
        self.at += prefix;
        let start = self.at;
        let kind = TokenKind::Literal { escapes, quotes: true };
        loop {
            match self.byte(0) {
                _ if self.at >= self.text.len() => {
                    self.at = self.text.len();
                    return Some(Token { kind, body: start..self.at, closed: false });
                }
                b'\\' if escapes => self.at += 2,
                b'\'' if self.byte(1) == b'\'' => self.at += 2,
                b'\'' => {
                    let end = self.at;
                    self.at += 1;
                    let after = self.at;
                    if self.skip_blanks() && self.byte(0) == b'\'' {
                        self.at += 1;
                        continue;
                    }
                    self.at = after;
                    return Some(Token { kind, body: start..end, closed: true });
                }
                _ => self.at += 1,
            }
        }
    }

    fn quoted(&mut self, prefix: usize) -> Option<Token> {
        self.at += prefix;
        let start = self.at;
        loop {
            self.skip_while(|byte| byte != b'"');
            let end = self.at;
            let closed = end < self.text.len();
            self.at = (end + 1).min(self.text.len());
            if closed && self.byte(0) == b'"' {
                self.at += 1;
                continue;
            }
            return Some(Token { kind: TokenKind::Quoted, body: start..end, closed });
        }
    }

    /// A text between `$tag$` and `$tag$`.
    fn dollars(&mut self) -> Option<Token> {
        let rest = &self.text[self.at + 1..];
        let tag = rest.iter().position(|byte| *byte == b'$')?;
        let name = &rest[..tag];
        let is_tag = name.first().is_none_or(|byte| starts_name(*byte))
            && name.iter().all(|byte| continues_name(*byte));
        if !is_tag {
            return None;
        }
        let quote = &self.text[self.at..self.at + tag + 2];
        let start = self.at + quote.len();
        let length = self.text[start..].windows(quote.len()).position(|window| window == quote);
        let end = length.map_or(self.text.len(), |length| start + length);
        self.at = (end + quote.len()).min(self.text.len());
        let kind = TokenKind::Literal { escapes: false, quotes: false };
        Some(Token { kind, body: start..end, closed: length.is_some() })
    }
}

/// The text that a literal stands for, and where in `text` each of its bytes is, with the end as one more.
pub fn unquoted(text: &[u8], literal: &Token) -> (Vec<u8>, Vec<usize>) {
    let TokenKind::Literal { escapes, quotes } = literal.kind else {
        return (Vec::new(), vec![literal.body.start]);
    };
    let mut content = Vec::with_capacity(literal.body.len());
    let mut places = Vec::with_capacity(literal.body.len() + 1);
    let mut at = literal.body.start;
    while at < literal.body.end {
        let next = text.get(at + 1).copied().filter(|_| at + 1 < literal.body.end);
        let (byte, len) = match (text[at], next) {
            (b'\'', Some(b'\'')) if quotes => (b'\'', 2),
            (b'\\', Some(escaped)) if escapes => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                };
                (byte, 2)
            }
            (byte, _) => (byte, 1),
        };
        content.push(byte);
        places.push(at);
        at += len;
    }
    places.push(literal.body.end);
    (content, places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SQL: Rules = Rules { backslashes: false, names: true };

    fn read(text: &str) -> Vec<(TokenKind, String)> {
        let found = tokens(text.as_bytes(), SQL);
        found.into_iter().map(|token| (token.kind, text[token.body].to_owned())).collect()
    }

    fn literals(text: &str) -> Vec<String> {
        let found = tokens(text.as_bytes(), SQL);
        let literals = found.into_iter().filter(|token| matches!(token.kind, TokenKind::Literal { .. }));
        literals.map(|token| text[token.body].to_owned()).collect()
    }

    #[test]
    fn texts_end_where_they_end_for_postgresql() {
        assert_eq!(literals("'a''b' 'c'"), ["a''b", "c"]);
        assert_eq!(literals(r"'a\' , E'b\'c' , n'd'"), [r"a\", r"b\'c", "d"]);
        assert_eq!(literals("$$a'b$$ $x$c$$d$x$ a$b$ 'e' $1"), ["a'b", "c$$d", "e"]);
        assert_eq!(literals("'a' -- 'b'\n 'c' /* 'd' /* 'e' */ 'f' */ , 'g'"), ["a' -- 'b'\n 'c", "g"]);
        assert_eq!(literals("\"it's\" 'x' U&'y' U&\"z'\" "), ["x", "y"]);
        assert_eq!(literals("'open"), ["open"]);
        assert!(!tokens(b"'open", SQL)[0].closed);
        assert!(tokens(b"$x$ open $y$", SQL).last().is_some_and(|token| !token.closed));
        let backslashes = Rules { backslashes: true, names: true };
        assert_eq!(tokens(br"'a\'b'", backslashes)[0].body, 1..5);
    }

    #[test]
    fn names_numbers_and_symbols() {
        assert_eq!(
            read("f(a => 1.5, \"B\" := $12)"),
            [
                (TokenKind::Word, "f".into()),
                (TokenKind::Symbol(b'('), "(".into()),
                (TokenKind::Word, "a".into()),
                (TokenKind::Arrow, "=>".into()),
                (TokenKind::Number, "1.5".into()),
                (TokenKind::Symbol(b','), ",".into()),
                (TokenKind::Quoted, "B".into()),
                (TokenKind::Arrow, ":=".into()),
                (TokenKind::Parameter(12), "$12".into()),
                (TokenKind::Symbol(b')'), ")".into()),
            ]
        );
        let text = b"\"a\"\"B\" Ab";
        let found = tokens(text, SQL);
        assert_eq!(found[0].name(text), Some(b"a\"B".to_vec()));
        assert_eq!(found[1].name(text), Some(b"ab".to_vec()));
    }

    /// Text of the pieces that begin or end a token, where a reader may lose its place.
    fn statement() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&[u8]] =
            &[b"'", b"\"", b"$", b"$a$", b"--", b"/*", b"*/", b"\\", b"E'", b"\n", b"\xff", b"U&'", b"a"];
        prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_to_their_end(text in statement()) {
            let mut end = 0;
            for token in tokens(&text, SQL) {
                prop_assert!(token.body.start >= end && token.body.end <= text.len());
                end = token.body.end;
                let (content, places) = unquoted(&text, &token);
                prop_assert_eq!(places.len(), content.len() + 1);
            }
        }
    }

    #[test]
    fn contents_know_where_they_stand() {
        let text = br"x 'a''b' E'\n\'c'";
        let found = tokens(text, SQL);
        assert_eq!(unquoted(text, &found[1]), (b"a'b".to_vec(), vec![3, 4, 6, 7]));
        assert_eq!(unquoted(text, &found[2]), (b"\n'c".to_vec(), vec![11, 13, 15, 16]));
    }
}
