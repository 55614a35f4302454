//! What the exchange needs to know of a request, whether CDF or an identity provider gets it.

use std::sync::Arc;

use secrecy::SecretString;

use super::answer::Answer;
use super::link::Link;
use super::owed::Owed;
use super::request::Limits;
use super::retry::Resend;

#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    Cdf {
        project: &'a str,
        link: &'a Arc<Link>,
    },
    IdentityProvider,
    /// CDF, where it gives a session its tokens.
    Sessions {
        project: &'a str,
        id: u64,
    },
}

/// A request and the server that gets it.
#[derive(Debug)]
pub struct ServerCall<'a> {
    pub peer: Peer<'a>,
    /// The server, with its host, as errors name it.
    pub name: String,
    /// The endpoint that is requested.
    pub endpoint: String,
    pub resend: Resend,
    pub owed: Owed,
    /// Whether the request changes something in CDF.
    pub writes: bool,
    /// The length of the body in bytes, as it is sent.
    pub bytes: usize,
    pub limits: &'a Limits,
    /// What its answer might repeat besides the token.
    pub secrets: Vec<&'a SecretString>,
}

/// How an answer is judged.
pub enum Verdict {
    /// The answer that the request is owed.
    Owed,
    /// A refusal, by CDF or by a gateway in front of it.
    Refusal,
    /// Anything else, and why it does not count.
    Foreign(String),
}

impl ServerCall<'_> {
    /// Judges an answer: the one owed, a refusal, or anything else.
    pub fn judge(&self, answer: &Answer) -> Verdict {
        match answer.status {
            200..=299 => match self.owed.check(answer.content_type.as_deref(), &answer.body) {
                Ok(()) => Verdict::Owed,
                Err(why) => Verdict::Foreign(why),
            },
            400.. => Verdict::Refusal,
            300..=399 => Verdict::Foreign(format!(
                "it is a redirect to {}, and redirects are not followed",
                answer.redirects_to()
            )),
            _ => Verdict::Foreign("it is no answer to a request".into()),
        }
    }

    /// Whether an answer comes from a gateway in front of CDF or the identity provider. An empty answer counts as the
    /// server's own.
    pub fn is_foreign(&self, answer: &Answer) -> bool {
        match self.peer {
            Peer::Cdf { .. } | Peer::Sessions { .. } => {
                !answer.is_refusal() && (answer.status == 404 || !answer.body.trim_ascii().is_empty())
            }
            Peer::IdentityProvider => answer.is_markup(),
        }
    }
}
