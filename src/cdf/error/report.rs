//! The one error type of the CDF side, and its texts. MESSAGE is one line with all that matters, because many clients show
//! nothing else. DETAIL has the longer lists and the trace.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::kind::Kind;
use super::text::{list_names, one_line, shorten, NAMED_ROWS};

/// The most characters of a MESSAGE.
pub const LONGEST_HEADLINE: usize = 400;
/// The most characters of its parts, so that each part has room.
const LONGEST_SUBJECT: usize = 80;
const LONGEST_KEY: usize = 65;
const LONGEST_ACCEPTED: usize = 100;
const LONGEST_REQUEST_ID: usize = 50;
/// The least characters left for the reason.
const SHORTEST_REASON: usize = 40;

/// An error. Boxed, because every row passes through a dozen results, and each is moved as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.headline())]
pub struct Error(Box<Report>);

/// The parts of an error. [`Report::headline`] and [`Report::details`] turn them into text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub kind: Kind,
    /// The subject: a resource, and where in it.
    pub subject: Option<String>,
    /// What went wrong.
    pub message: String,
    /// The rows concerned.
    pub rows: Option<Rows>,
    /// Whether CDF may have applied the request nevertheless.
    pub unsure: bool,
    /// What CDF had accepted: short for the message, and in full.
    pub accepted: Option<(String, String)>,
    /// The answer that the error follows from.
    pub trace: Option<Trace>,
    /// Further details, one line each.
    pub detail: Vec<String>,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Report {
            kind,
            subject: None,
            message: message.into(),
            rows: None,
            unsure: false,
            accepted: None,
            trace: None,
            detail: Vec::new(),
            hint: None,
        }))
    }

    pub fn into_report(self) -> Report {
        *self.0
    }

    /// A defect of this extension; the message says where.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, message)
    }

    /// Sets the subject, if none is set yet.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject.get_or_insert_with(|| subject.into());
        self
    }

    /// Sets the rows concerned, if none are set yet. `names` may be the first ten of them.
    pub fn rows(mut self, fate: Fate, noun: Noun, names: Vec<String>, count: usize) -> Self {
        if count > 0 {
            self.rows.get_or_insert(Rows { fate, noun, names, count, more: false });
        }
        self
    }

    /// Sets the rows that CDF, or this extension, refuses.
    pub fn refusing(self, names: Vec<String>, count: usize) -> Self {
        self.rows(Fate::Refused, ROWS, names, count)
    }

    /// Sets the row that is being written, by its keys.
    pub fn of_row(self, keys: Option<String>) -> Self {
        match keys {
            Some(keys) => self.rows(Fate::Written, ROWS, vec![keys], 1),
            None => self,
        }
    }

    /// Sets the answer that the error follows from, if none is set yet.
    pub fn trace(mut self, trace: Option<Trace>) -> Self {
        self.trace = self.trace.take().or(trace);
        self
    }

    /// Adds one line of detail.
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.detail.push(line.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the hint, if none is set yet.
    pub fn or_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

impl Deref for Error {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

/// What became of the rows of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They caused the error.
    Refused,
    /// They were being sent, and have no answer.
    UnderWay,
    /// The row is refused by its own statement.
    Written,
}

/// The singular and the plural that rows are called by.
pub type Noun = (&'static str, &'static str);

pub const ROWS: Noun = ("row", "rows");
pub const SERIES: Noun = ("series", "series");

/// The rows that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    pub fate: Fate,
    pub noun: Noun,
    /// The first ten, at most.
    pub names: Vec<String>,
    pub count: usize,
    /// Whether there may be more, because not all rows were looked at.
    pub more: bool,
}

impl Rows {
    /// `refused 15 rows, first "a"`.
    fn headline(&self) -> String {
        let verb = match self.fate {
            Fate::Refused => "refused",
            Fate::UnderWay => "under way",
            Fate::Written => return format!("{} {}", self.noun.0, self.first().unwrap_or_default()),
        };
        let first = self.first();
        let at_least = if self.more { "at least " } else { "" };
        match (self.count, first) {
            (1, Some(name)) if !self.more => format!("{verb} {} {name}", self.noun.0),
            (count, first) => {
                let noun = if count == 1 { self.noun.0 } else { self.noun.1 };
                let first = first.map_or_else(String::new, |name| format!(", first {name}"));
                format!("{verb} {at_least}{count} {noun}{first}")
            }
        }
    }

    fn first(&self) -> Option<String> {
        self.names.first().map(|name| shorten(&one_line(name), LONGEST_KEY))
    }

    fn details(&self) -> Option<String> {
        let fate = match self.fate {
            Fate::Refused => "refused",
            Fate::UnderWay => "under way",
            Fate::Written => return self.names.first().map(|name| format!("Row: {name}.")),
        };
        let mut noun = self.noun.1.to_owned();
        noun[..1].make_ascii_uppercase();
        let names = list_names(self.names.iter().take(NAMED_ROWS), self.count.max(self.names.len()));
        (!self.names.is_empty()).then(|| format!("{noun} {fate}: {names}."))
    }

    /// Adds the rows of another error of the same kind.
    pub fn add(&mut self, other: Rows) {
        self.count += other.count;
        self.more |= other.more;
        let room = NAMED_ROWS.saturating_sub(self.names.len());
        self.names.extend(other.names.into_iter().take(room));
    }
}

/// The answer that an error follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Method and path, as in `POST /assets`.
    pub endpoint: String,
    pub status: u16,
    pub request_id: Option<String>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: HTTP status {}, ", self.endpoint, self.status)?;
        match &self.request_id {
            Some(id) => write!(f, "x-request-id {id}"),
            None => f.write_str("no x-request-id"),
        }
    }
}

impl Report {
    /// MESSAGE: what it is about, what went wrong, the first row and how many, what had been accepted, and the request id.
    pub fn headline(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.rows.as_ref().map(Rows::headline));
        match &self.accepted {
            Some((brief, _)) => parts.push(shorten(&one_line(brief), LONGEST_ACCEPTED)),
            None if self.unsure => parts.push("it may have been accepted".to_owned()),
            None => {}
        }
        let id = self.trace.as_ref().and_then(|trace| trace.request_id.as_deref());
        parts.extend(id.map(|id| format!("x-request-id {}", shorten(&one_line(id), LONGEST_REQUEST_ID))));
        let end: String = parts.iter().map(|part| format!("; {part}")).collect();
        let subject = self.subject.as_ref().map(|subject| shorten(&one_line(subject), LONGEST_SUBJECT));
        let subject = subject.map_or_else(String::new, |subject| format!("{subject}: "));
        let room = LONGEST_HEADLINE.saturating_sub(subject.chars().count() + end.chars().count());
        format!("{subject}{}{end}", shorten(&one_line(&self.message), room.max(SHORTEST_REASON)))
    }

    /// DETAIL, line by line.
    pub fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let headline = self.headline();
        // The part that MESSAGE has no room for, or shows on one line only.
        if !headline.contains(&self.message) {
            lines.push(self.message.clone());
        }
        if let Some(subject) = self.subject.as_ref().filter(|subject| !headline.contains(*subject)) {
            lines.push(format!("Resource: {subject}."));
        }
        lines.extend(self.rows.as_ref().and_then(Rows::details));
        lines.extend(self.detail.iter().cloned());
        lines.extend(self.trace.iter().map(Trace::to_string));
        lines.extend(self.accepted.iter().map(|(_, line)| line.clone()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: &str) -> Option<Trace> {
        Some(Trace { endpoint: "POST /events".into(), status: 400, request_id: Some(id.into()) })
    }

    #[test]
    fn a_headline_says_all_that_matters() {
        let names = (0..10).map(|at| format!("\"e{at}\"")).collect();
        let mut error = Error::new(Kind::InvalidValue, "CDF refused POST /events: No.")
            .about("events")
            .refusing(names, 15)
            .trace(trace("r-1"));
        assert_eq!(
            error.to_string(),
            "events: CDF refused POST /events: No.; refused 15 rows, first \"e0\"; x-request-id r-1"
        );
        error.accepted =
            Some(("7 of 22 events accepted".into(), "CDF had accepted, and keeps: 7 of 22 events.".into()));
        assert!(error.to_string().ends_with("; 7 of 22 events accepted; x-request-id r-1"), "{error}");
        let details = error.details();
        assert!(
            details[0].starts_with("Rows refused: \"e0\"") && details[0].ends_with("(15 in all)."),
            "{details:?}"
        );
        assert_eq!(details[1], "POST /events: HTTP status 400, x-request-id r-1");
        let one = Error::new(Kind::InvalidValue, "No.").refusing(vec!["\"a\"".into()], 1);
        assert_eq!(one.to_string(), "No.; refused row \"a\"");
        assert_eq!(Error::new(Kind::InvalidValue, "No.").to_string(), "No.");
    }

    #[test]
    fn a_headline_is_one_short_line_whatever_is_in_it() {
        let long = "ø\n\u{7}\t".repeat(2000);
        let mut error = Error::new(Kind::ConnectionLost, long.clone())
            .about(long.clone())
            .refusing(vec![long.clone(); 10], usize::MAX)
            .trace(trace(&long));
        error.accepted = Some((long.clone(), long.clone()));
        let headline = error.to_string();
        assert!(headline.chars().count() <= LONGEST_HEADLINE, "{}", headline.chars().count());
        assert!(!headline.chars().any(char::is_control), "{headline}");
        assert!(headline.contains("; refused 18446744073709551615 rows, first ø ø"), "{headline}");
        assert!(headline.contains("; x-request-id ø"), "{headline}");
        assert!(error.details().contains(&long), "what is cut stands in full in the details");
    }

    #[test]
    fn an_unknown_outcome_is_told() {
        let mut error = Error::new(Kind::ConnectionLost, "the connection broke");
        error.unsure = true;
        assert_eq!(error.to_string(), "the connection broke; it may have been accepted");
    }
}
