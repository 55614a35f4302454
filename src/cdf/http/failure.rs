//! Why an attempt got no usable answer.

use super::answer::Answer;
use super::retry::Outcome;

/// Why an attempt got no usable answer. The texts contain no URL and no header.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was sent.
    NotConnected(String),
    /// Nothing was sent, because the server's certificate is not trusted. Another attempt would fail in the same way.
    Untrusted(String),
    /// The connection broke, or what came back was not HTTP.
    Broken(String),
    RequestTimeout,
    Deadline {
        sent: bool,
    },
    /// The answer is longer than this many bytes.
    TooLong(usize),
    /// The answer is neither the one owed nor a refusal, and why. Whether CDF got the request is unknown.
    Foreign(Box<Answer>, String),
    /// No request could be made.
    Unusable(String),
}

impl Failure {
    /// The outcome as the retry policy sees it; None if a retry is out of the question.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Failure::NotConnected(_) => Some(Outcome::NotConnected),
            Failure::Broken(_) | Failure::RequestTimeout | Failure::Foreign(..) => Some(Outcome::NotAnswered),
            Failure::Untrusted(_) | Failure::Deadline { .. } | Failure::TooLong(_) | Failure::Unusable(_) => {
                None
            }
        }
    }

    pub fn may_have_been_applied(&self) -> bool {
        !matches!(
            self,
            Failure::NotConnected(_)
                | Failure::Untrusted(_)
                | Failure::Unusable(_)
                | Failure::Deadline { sent: false }
        )
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if error.is_builder() {
            Failure::Unusable(cause(error))
        } else if is_about_a_certificate(&error) {
            Failure::Untrusted(cause(error))
        } else if error.is_connect() {
            // Nothing was written. A pooled connection that was closed before anything was written to it causes no error:
            // hyper takes another one. Every other cancellation counts as broken, because reqwest does not tell how
            // much was written.
            Failure::NotConnected(cause(error))
        } else {
            Failure::Broken(cause(error))
        }
    }
}

/// Whether the server's certificate was refused.
fn is_about_a_certificate(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = source.downcast_ref() {
            return true;
        }
        // An I/O error that wraps another error gives that error's source, not the error itself.
        let wrapped = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &dyn std::error::Error).or_else(|| source.source());
    }
    false
}

/// The chain of causes, from general to specific, without the URL.
pub fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(&error);
    while let Some(source) = next {
        next = source.source();
        let text = source.to_string();
        // An inner reqwest error may name the URL, and hyper's wrapper only repeats the message.
        let says_nothing = source.is::<reqwest::Error>() || text.starts_with("client error (");
        if !says_nothing && !causes.iter().any(|cause| cause.ends_with(&text)) {
            causes.push(text);
        }
    }
    if causes.is_empty() {
        return error.to_string();
    }
    causes.join(": ")
}
