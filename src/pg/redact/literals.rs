//! Which literals of a statement hold a client secret: the value of an option, or an argument of a function, by the
//! grammar of the statement. A comment, a text or a column that mentions one of the names does not count.
//!
//! PostgreSQL's own parser cannot be asked: the server log wants the answer also for a statement that does not parse,
//! and while an error is being reported, when the parser must not raise another one.

use std::ops::Range;
use std::sync::OnceLock;

use super::tokens::{tokens, unquoted, Rules, Token, TokenKind};
use crate::pg::ddl::options;

/// A function of the extension that takes secrets.
struct Function {
    name: &'static str,
    /// Its secret parameters: position, from 0, and name.
    secrets: &'static [(usize, &'static str)],
}

static FUNCTIONS: &[Function] = &[
    Function { name: "cdf_register_credentials", secrets: &[(2, "client_secret")] },
    Function { name: "cdf_update_credentials", secrets: &[(1, "client_secret")] },
    Function { name: "cdf_register_session", secrets: &[(1, "session_key")] },
    Function { name: "cdf_update_session", secrets: &[(2, "session_key")] },
];

/// The deepest nesting of texts within texts, and of prepared statements, that is followed.
const DEPTH: usize = 6;

/// What kind of text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Statements of SQL, as a client sends them.
    Statements,
    /// The body of a function or of DO, and SQL that it puts together.
    Body,
    /// A message of the server log, which may have SQL in it.
    Message,
    /// The part of such a message about the code that was running.
    Context,
}

impl Text {
    fn is_message(self) -> bool {
        matches!(self, Text::Message | Text::Context)
    }
}

/// What the session knows of the names in a text.
pub trait Names {
    /// Whether a function of this name, in this schema or else in the search_path, may be the extension's.
    fn is_ours(&self, schema: Option<&[u8]>, function: &[u8]) -> bool;
    /// The text of a prepared statement.
    fn prepared(&self, name: &[u8]) -> Option<Vec<u8>>;
    /// Whether a backslash is special in plain texts.
    fn backslashes(&self) -> bool;
}

/// The secrets of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The places of literals with secrets, without their quotes.
    pub ranges: Vec<Range<usize>>,
    /// The parameters (`$1` is 1) that bring secrets.
    pub parameters: Vec<u16>,
    /// Secrets with a place in the text that are filled in by whoever uses it.
    gaps: Vec<Gap>,
}

/// Where a text that code puts together gets a secret from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// From an argument of format(), counted from 1.
    Argument(usize),
    /// From what comes next: `'… client_secret ' || …`.
    Next,
}

impl Secrets {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.parameters.is_empty()
    }

    /// The text with each byte of a secret replaced, so that every position in it stays what it is.
    pub fn masked(&self, text: &[u8]) -> Vec<u8> {
        let mut masked = text.to_vec();
        for range in &self.ranges {
            masked[range.clone()].fill(b'*');
        }
        masked
    }
}

/// The words that a text with a secret must have. Each has an underscore.
fn words() -> &'static [&'static str] {
    static WORDS: OnceLock<Vec<&'static str>> = OnceLock::new();
    WORDS.get_or_init(|| FUNCTIONS.iter().map(|function| function.name).chain(options::secrets()).collect())
}

/// Whether the text has one of the words in it, in whatever case: SQL folds names. It is asked for each statement, and
/// statements may be megabytes long.
pub fn may_hold(text: &[u8]) -> bool {
    first_word(text).is_some()
}

/// Where the first of the words ends.
fn first_word(text: &[u8]) -> Option<usize> {
    let ends_at = |underscore: usize| {
        words().iter().find_map(|word| {
            let start = underscore.checked_sub(word.find('_')?)?;
            let found = text.get(start..start + word.len())?;
            found.eq_ignore_ascii_case(word.as_bytes()).then_some(start + word.len())
        })
    };
    memchr::memchr_iter(b'_', text).find_map(ends_at)
}

/// Finds the secrets of a text.
pub fn find(text: &[u8], kind: Text, names: &dyn Names) -> Secrets {
    find_at_depth(text, kind, names, 0)
}

fn find_at_depth(text: &[u8], kind: Text, names: &dyn Names, depth: usize) -> Secrets {
    if depth > DEPTH {
        return Secrets::default();
    }
    let rules = Rules { backslashes: names.backslashes(), names: !kind.is_message() };
    let finder = Finder { text, kind, names, depth, tokens: &tokens(text, rules), found: Secrets::default() };
    finder.run()
}

struct Finder<'t> {
    text: &'t [u8],
    kind: Text,
    names: &'t dyn Names,
    depth: usize,
    tokens: &'t [Token],
    found: Secrets,
}

impl Finder<'_> {
    fn run(mut self) -> Secrets {
        let mut start = 0;
        let mut nesting = 0usize;
        for at in 0..self.tokens.len() {
            match self.tokens[at].kind {
                TokenKind::Symbol(b'(' | b'[') => nesting += 1,
                TokenKind::Symbol(b')' | b']') => nesting = nesting.saturating_sub(1),
                TokenKind::Symbol(b';') if nesting == 0 => start = at + 1,
                TokenKind::Word | TokenKind::Quoted => self.name(at, start),
                TokenKind::Literal { .. } if self.is_code(start, nesting) => self.code(at),
                _ => {}
            }
        }
        self.unclosed();
        self.found
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.text, word))
    }

    fn is_symbol(&self, at: usize, symbol: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_symbol(symbol))
    }

    fn name_at(&self, at: usize) -> Option<Vec<u8>> {
        self.tokens.get(at)?.name(self.text)
    }

    /// What a word or name at this place begins, in the statement that begins at `start`.
    fn name(&mut self, at: usize, start: usize) {
        if self.is_word(at, "options") && self.is_symbol(at + 1, b'(') && self.takes_options(start) {
            self.options(at + 1);
        } else if self.is_word(at, "execute") && self.is_symbol(at + 2, b'(') {
            self.execute(at + 1);
        } else if self.is_symbol(at + 1, b'(') {
            self.call(at);
        }
    }

    fn takes_options(&self, start: usize) -> bool {
        self.kind != Text::Statements
            || ["create", "alter", "import"].iter().any(|word| self.is_word(start, word))
    }

    /// Whether a literal of the statement is code in another language.
    fn is_code(&self, start: usize, nesting: usize) -> bool {
        match self.kind {
            Text::Message => false,
            Text::Body | Text::Context => true,
            Text::Statements => {
                let creates = self.is_word(start, "create")
                    && (start + 1..start + 4)
                        .any(|at| self.is_word(at, "function") || self.is_word(at, "procedure"));
                nesting == 0 && (creates || self.is_word(start, "do"))
            }
        }
    }

    /// The parts of a list in parentheses, of which the first is at `open`.
    fn entries(&self, open: usize) -> Vec<Range<usize>> {
        let mut entries = Vec::new();
        let mut start = open + 1;
        let mut nesting = 0;
        for at in open + 1..self.tokens.len() {
            match self.tokens[at].kind {
                TokenKind::Symbol(b'(' | b'[') => nesting += 1,
                TokenKind::Symbol(b')' | b']') if nesting > 0 => nesting -= 1,
                TokenKind::Symbol(b',') if nesting == 0 => {
                    entries.push(start..at);
                    start = at + 1;
                }
                TokenKind::Symbol(b')' | b']') | TokenKind::Symbol(b';') if nesting == 0 => {
                    entries.push(start..at);
                    return entries;
                }
                _ => {}
            }
        }
        entries.push(start..self.tokens.len());
        entries
    }

    /// `OPTIONS (name 'value', SET name 'value')`
    fn options(&mut self, open: usize) {
        for entry in self.entries(open) {
            let action = ["set", "add", "drop"].iter().any(|word| self.is_word(entry.start, word));
            let label =
                if action && self.name_at(entry.start + 1).is_some() { entry.start + 1 } else { entry.start };
            let is_secret = self.name_at(label).is_some_and(|name| {
                options::secrets().any(|secret| secret.as_bytes().eq_ignore_ascii_case(&name))
            });
            if label < entry.end && is_secret {
                // Anything but a literal is an error here, a secret without quotes for one.
                self.mask(label + 1..entry.end, self.kind == Text::Statements);
            }
        }
    }

    /// `function (value, name => value)`
    fn call(&mut self, at: usize) {
        let Some(name) = self.name_at(at) else { return };
        let Some(function) = FUNCTIONS.iter().find(|function| function.name.as_bytes() == name) else {
            return;
        };
        let schema = if at >= 2 && self.is_symbol(at - 1, b'.') { self.name_at(at - 2) } else { None };
        if !self.names.is_ours(schema.as_deref(), &name) {
            return;
        }
        for (position, argument) in self.entries(at + 1).into_iter().enumerate() {
            let named =
                self.tokens.get(argument.start + 1).is_some_and(|token| token.kind == TokenKind::Arrow);
            let is_secret = match self.name_at(argument.start).filter(|_| named) {
                Some(name) => function.secrets.iter().any(|(_, secret)| secret.as_bytes() == name),
                None => function.secrets.iter().any(|(secret, _)| *secret == position),
            };
            if is_secret {
                let value = argument.start + if named { 2 } else { 0 };
                self.mask(value.min(argument.end)..argument.end, false);
            }
        }
    }

    /// `EXECUTE statement (value, value)`
    fn execute(&mut self, at: usize) {
        let Some(prepared) = self.name_at(at).and_then(|name| self.names.prepared(&name)) else { return };
        let wanted = find_at_depth(&prepared, Text::Statements, self.names, self.depth + 1).parameters;
        for (position, argument) in self.entries(at + 1).into_iter().enumerate() {
            if wanted.iter().any(|number| usize::from(*number) == position + 1) {
                self.mask(argument, false);
            }
        }
    }

    /// Masks the literals among these tokens, which are a secret's expression.
    fn mask(&mut self, expression: Range<usize>, words: bool) {
        let place = self.tokens.get(expression.start).map_or(self.text.len(), |token| token.body.start);
        let ends_text = expression.end == self.tokens.len();
        let mut any = false;
        for token in &self.tokens[expression] {
            let body = &self.text[token.body.clone()];
            match token.kind {
                TokenKind::Parameter(number) => self.found.parameters.push(number),
                // `'%s'`, and `'` at the end.
                TokenKind::Literal { .. } if self.is_part() && (body.contains(&b'%') || !token.closed) => {
                    continue
                }
                TokenKind::Literal { .. } | TokenKind::Number | TokenKind::Quoted => {
                    self.found.ranges.push(token.body.clone())
                }
                TokenKind::Word if words => self.found.ranges.push(token.body.clone()),
                _ => continue,
            }
            any = true;
        }
        if !any && self.is_part() {
            let gap = match format_argument(self.text, place) {
                Some(number) => Some(Gap::Argument(number)),
                None => ends_text.then_some(Gap::Next),
            };
            self.found.gaps.extend(gap);
        }
    }

    /// Whether the text is a literal of code, which may be but a part of what the code runs.
    fn is_part(&self) -> bool {
        self.kind == Text::Body && self.depth > 0
    }

    /// A literal that is code, or may be SQL that the code runs.
    fn code(&mut self, at: usize) {
        let token = &self.tokens[at];
        if self.found.ranges.contains(&token.body) {
            return;
        }
        let (content, places) = unquoted(self.text, token);
        let inner = find_at_depth(&content, Text::Body, self.names, self.depth + 1);
        self.found
            .ranges
            .extend(inner.ranges.into_iter().map(|range| places[range.start]..places[range.end]));
        if self.kind == Text::Statements {
            return;
        }
        for gap in inner.gaps {
            match gap {
                // format('…', value, value)
                Gap::Argument(number) if at > 0 && self.is_symbol(at - 1, b'(') => {
                    if let Some(argument) = self.entries(at - 1).into_iter().nth(number) {
                        self.mask(argument, false);
                    }
                }
                Gap::Next if self.is_symbol(at + 1, b'|') && self.is_symbol(at + 2, b'|') => {
                    let operand = self.operand(at + 3);
                    self.mask(operand, false);
                }
                _ => {}
            }
        }
        if !inner.parameters.is_empty() {
            let using = (at..self.tokens.len())
                .take_while(|at| !self.is_symbol(*at, b';'))
                .find(|at| self.is_word(*at, "using"));
            let values = using.map(|using| self.entries(using)).unwrap_or_default();
            for number in inner.parameters {
                if let Some(value) = values.get(usize::from(number).wrapping_sub(1)) {
                    self.mask(value.clone(), false);
                }
            }
        }
    }

    /// The operand of `||` that begins here.
    fn operand(&self, start: usize) -> Range<usize> {
        let mut nesting = 0;
        for at in start..self.tokens.len() {
            match self.tokens[at].kind {
                TokenKind::Symbol(b'(' | b'[') => nesting += 1,
                TokenKind::Symbol(b'|' | b',' | b';' | b')' | b']') if nesting == 0 => return start..at,
                TokenKind::Symbol(b')' | b']') => nesting -= 1,
                _ => {}
            }
        }
        start.min(self.tokens.len())..self.tokens.len()
    }

    /// A quote is not closed, so the intended literals are unknown.
    fn unclosed(&mut self) {
        // A literal of a function's body may begin in the middle of anything.
        if self.depth > 1 {
            return;
        }
        let Some(last) = self.tokens.last().filter(|token| !token.closed) else { return };
        let Some(word) = first_word(self.text) else { return };
        if !self.kind.is_message() {
            self.found.ranges.push(word..self.text.len());
        } else if last.body.start > word {
            self.found.ranges.push(last.body.clone());
        }
    }
}

/// The argument of format() that a template puts at this place, if there is a specifier.
fn format_argument(template: &[u8], place: usize) -> Option<usize> {
    let mut number = 0;
    let mut at = 0;
    while at + 1 < template.len() {
        match (template[at], template[at + 1]) {
            (b'%', b'%') => at += 1,
            (b'%', _) => {
                let digits = template[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let position = std::str::from_utf8(&template[at + 1..at + 1 + digits]).ok()?;
                number = match template.get(at + 1 + digits) {
                    Some(b'$') => position.parse().ok()?,
                    _ => number + 1,
                };
                if at >= place {
                    // Only quotes may stand between.
                    return template[place..at].iter().all(|byte| b"' ".contains(byte)).then_some(number);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Session {
        ours: bool,
    }

    impl Names for Session {
        fn is_ours(&self, schema: Option<&[u8]>, _: &[u8]) -> bool {
            self.ours && schema.is_none_or(|schema| schema == b"public")
        }

        fn prepared(&self, name: &[u8]) -> Option<Vec<u8>> {
            let text: &[u8] = match name {
                b"p" => b"SELECT * FROM cdf_register_credentials($2, 'id', client_secret => $1)",
                b"loop" => b"SELECT execute loop (cdf_register_credentials(1, 2, $1))",
                _ => return None,
            };
            Some(text.to_vec())
        }

        fn backslashes(&self) -> bool {
            false
        }
    }

    fn hidden_in(text: &str, kind: Text) -> String {
        let found = find(text.as_bytes(), kind, &Session { ours: true });
        String::from_utf8(found.masked(text.as_bytes())).unwrap()
    }

    /// The secret is always `hush`.
    fn hides(text: &str) {
        assert_eq!(hidden_in(text, Text::Statements), text.replace("hush", "****"));
    }

    fn keeps(text: &str) {
        assert_eq!(hidden_in(text, Text::Statements), text);
    }

    #[test]
    fn options_are_hidden_by_their_place_in_the_grammar() {
        hides("CREATE USER MAPPING FOR a SERVER s OPTIONS (project 'p', client_secret 'hush', scope 'x')");
        hides(
            "alter user mapping for a server s options (SET Client_Secret 'hush', add scope 'x');SELECT 'y'",
        );
        hides("ALTER USER MAPPING FOR a SERVER s OPTIONS (SET \"client_secret\" E'hush', DROP scope)");
        hides("SELECT 'a'; /* x */ CREATE USER MAPPING FOR a SERVER s OPTIONS(client_secret $x$hush$x$)");
        // Where they do not belong, or without the quotes.
        hides("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (base_url 'x', client_secret 'hush')");
        hides(
            "CREATE FOREIGN TABLE t (a text OPTIONS (client_secret 'hush')) SERVER s OPTIONS (resource 'x')",
        );
        hides("CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret hush, scope 'x')");
        hides("CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret = \"hush\")");
    }

    #[test]
    fn what_only_mentions_a_secret_is_kept() {
        keeps("SELECT 1 /* client_secret 'x' */ + 2 -- OPTIONS (client_secret 'y')\n, 'z'");
        keeps("SELECT 'CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret ''x'')'");
        keeps("INSERT INTO t (client_secret) VALUES ('x')");
        keeps("SELECT client_secret, 'x' FROM options (client_secret 'x')");
        keeps("CREATE TABLE t (client_secret text DEFAULT 'x')");
        keeps("SELECT 'cdf_register_credentials', 'x', cdf_register_credentials");
        keeps("GRANT EXECUTE ON FUNCTION cdf_register_credentials(text, text, text) TO a");
        keeps("SELECT mallory.cdf_register_credentials('a', 'b', 'x')");
        keeps("CREATE USER MAPPING FOR a SERVER s OPTIONS (project 'client_secret', scope 'x')");
        let text = "SELECT cdf_register_credentials('a', 'b', 'x')";
        assert!(find(text.as_bytes(), Text::Statements, &Session { ours: false }).is_empty());
    }

    #[test]
    fn arguments_are_hidden_by_position_and_by_name() {
        hides("SELECT * FROM cdf_register_credentials('a', 'b', 'hush', 'd', 'e')");
        hides(
            "SELECT * FROM public.CDF_Register_Credentials (f('a', 'b'), 'b', ('hush' || 'hush')::text, 'd')",
        );
        hides("SELECT (cdf_register_credentials(scope => 'x', client_secret := 'hush', project => 'p')).username");
        hides("SELECT cdf_update_session('etl', '7', 'hush')");
        hides("SELECT * FROM cdf_register_session('7', session_key => 'hush')");
        hides("SELECT cdf_update_credentials('etl', 'hush', 'c')");
        hides("SELECT cdf_update_credentials(username => 'etl', client_secret => 'hush')");
        hides("EXPLAIN VERBOSE SELECT * FROM \"cdf_register_credentials\"('a', 'b', $$hush$$)");
        hides("EXECUTE p('hush', 'url')");
        hides("CREATE TABLE t AS EXECUTE p ('hush', 'url')");
        hides("EXECUTE loop('hush')");
        let found = find(
            b"SELECT cdf_register_credentials($1, $2, $3, $4)",
            Text::Statements,
            &Session { ours: true },
        );
        assert_eq!((found.ranges.len(), found.parameters), (0, vec![3]));
    }

    #[test]
    fn code_is_looked_into() {
        hides("DO $$BEGIN PERFORM cdf_register_credentials('a', 'b', 'hush'); PERFORM 'x'; END$$");
        hides("DO LANGUAGE plpgsql 'BEGIN CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret ''hush''); END'");
        hides("DO $$BEGIN EXECUTE 'ALTER USER MAPPING FOR a SERVER s OPTIONS (SET client_secret ''hush'')'; END$$");
        hides(
            "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE plpgsql SET a = 'b' AS \
             'BEGIN EXECUTE $x$SELECT cdf_register_credentials(''a'', ''b'', ''hush'')$x$; END'",
        );
        // The secret is put in by the code.
        hides(
            "DO $$BEGIN PERFORM 'x'; EXECUTE format('ALTER USER MAPPING FOR %I SERVER s \
             OPTIONS (SET client_secret %L, SET project %L)', 'a', 'hush', 'p'); END$$",
        );
        hides(
            "DO $$BEGIN EXECUTE format('CREATE USER MAPPING FOR a SERVER s \
             OPTIONS (project ''%s'', client_secret ''%2$s'')', 'p', 'hush', 'x'); END$$",
        );
        hides(
            "DO $$BEGIN EXECUTE 'CREATE USER MAPPING FOR a SERVER s OPTIONS (project ''p'', client_secret ' \
             || quote_literal('hush') || ', scope ' || quote_literal('x') || ')'; END$$",
        );
        hides(
            "DO $$BEGIN EXECUTE 'CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret ''' \
             || 'hush' || ''', scope ''x'')'; END$$",
        );
        hides("DO $$BEGIN EXECUTE 'SELECT cdf_register_credentials($2, $2, $1)' USING 'hush', 'x'; PERFORM 'y'; END$$");
        hides("DO $$BEGIN PERFORM cdf_register_credentials('a', 'b', secret); PERFORM 'y'; END$$");
        hides("DO $$BEGIN EXECUTE concat('DROP TABLE x', 'OPTIONS (client_secret '); END$$");
    }

    #[test]
    fn a_text_whose_quotes_do_not_match_is_hidden_from_the_first_word_on() {
        let text = "SELECT 1; ALTER USER MAPPING FOR a SERVER s OPTIONS (SET client_secret 'hush, scope 'x')";
        let word = text.find(" 'hush").unwrap();
        let shown = hidden_in(text, Text::Statements);
        assert_eq!(&shown[..word], &text[..word]);
        assert!(shown[word..].bytes().all(|byte| byte == b'*'));
        keeps("SELECT 'open");
    }

    #[test]
    fn messages_are_searched_for_sql() {
        let hides = |text: &str| assert_eq!(hidden_in(text, Text::Message), text.replace("hush", "****"));
        hides("SQL statement \"ALTER USER MAPPING FOR a SERVER s OPTIONS (SET client_secret 'hush')\"");
        hides("AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT \"\"cdf_register_credentials\"\"('a','b','hush')\",<none>");
        hides("duration: 1 ms  plan:\nFunction Call: cdf_register_credentials('a'::text, 'b'::text, 'hush'::text)");
        hides("prepare: EXECUTE p('hush', 'url')");
        hides("permission denied for function cdf_register_credentials");
        let text =
            "SQL expression \"'ALTER USER MAPPING FOR a SERVER s OPTIONS (SET client_secret ''hush'')'\"";
        assert_eq!(hidden_in(text, Text::Context), text.replace("hush", "****"));
        assert_eq!(hidden_in(text, Text::Message), text);
        let text = "SQL expression \"format('ALTER USER MAPPING FOR a SERVER s OPTIONS (SET client_secret %L)', 'hush')\"";
        assert_eq!(hidden_in(text, Text::Context), text.replace("hush", "****"));
    }

    #[test]
    fn words_are_found_wherever_they_stand() {
        for padding in 0..200 {
            let mut text = "x".repeat(padding);
            assert!(!may_hold(text.as_bytes()));
            text.push_str(" a_b Client_Secret");
            assert_eq!(first_word(text.as_bytes()), Some(text.len()));
            text.push_str("_ ");
            assert!(may_hold(text.as_bytes()));
            text.truncate(padding + " a_b Client_Secre".len());
            assert!(!may_hold(text.as_bytes()));
        }
    }
}
