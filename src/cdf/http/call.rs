//! A request as the exchange with a server needs to know it, whichever server that is.

use std::sync::Arc;

use secrecy::SecretString;

use super::answer::Answer;
use super::link::Link;
use super::owed::Owed;
use super::request::Limits;
use super::retry::Resend;

#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    Cdf { project: &'a str, link: &'a Arc<Link> },
    IdentityProvider,
}

/// A request, and whom it goes to.
#[derive(Debug)]
pub struct Call<'a> {
    pub peer: Peer<'a>,
    /// Whom the request goes to, with its host.
    pub name: String,
    /// What is requested.
    pub endpoint: String,
    pub resend: Resend,
    pub owed: Owed,
    /// It changes something in CDF.
    pub writes: bool,
    /// The length of its body, as it is sent.
    pub bytes: usize,
    pub limits: &'a Limits,
    pub client_secret: &'a SecretString,
}

/// What an answer is.
pub enum Verdict {
    /// The one that the request is owed.
    Owed,
    /// A refusal, CDF's or that of a gateway before it.
    Refusal,
    /// Something else, and why.
    Foreign(String),
}

impl Call<'_> {
    /// Tells the answer that is owed from refusals and from everything else.
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

    /// Whether an answer comes from something that stands before CDF or the identity provider. An empty one may be theirs.
    pub fn is_foreign(&self, answer: &Answer) -> bool {
        match self.peer {
            Peer::Cdf { .. } => {
                !answer.is_refusal() && (answer.status == 404 || !answer.body.trim_ascii().is_empty())
            }
            Peer::IdentityProvider => answer.is_markup(),
        }
    }
}
