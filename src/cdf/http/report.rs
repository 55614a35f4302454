//! What the user is told about a request. All messages about requests are written here.

use serde_json::Value;

use super::answer::Answer;
use super::call::{Peer, ServerCall};
use super::failure::Failure;
use super::retry::Stop;
use super::text::{setting, shorten, LONGEST_FOREIGN_TEXT, LONGEST_MESSAGE};
use crate::cdf::error::text::brief_endpoint;
use crate::cdf::error::{ApiError, Error, Kind, RequestError, Trace, FAILED, THROTTLED};

const BETWEEN_CDF: &str =
    "Something between this server and CDF may have answered, such as a proxy. Otherwise check the base_url of the foreign \
     server.";
const BETWEEN_IDENTITY_PROVIDER: &str =
    "Is token_url correct? Otherwise something between this server and the identity provider may have answered, such as a \
     proxy.";
const NO_ENDPOINT: &str =
    "Check the project of the user mapping and the base_url of the foreign server, which is only the address of CDF's \
     cluster, as in https://westeurope-1.cognitedata.com.";

/// The error for a 404 from an endpoint that CDF has.
pub fn no_endpoint(name: &str, project: &str, words: &str, trace: Trace, unsure: bool) -> Error {
    let message =
        format!("{name} has no {} for project \"{project}\": {words}", brief_endpoint(&trace.endpoint));
    let mut error = Error::new(Kind::CannotConnect, message).trace(Some(trace)).hint(NO_ENDPOINT);
    error.unsure = unsure;
    error
}

/// The error for a read whose cursor has expired.
pub fn cursor_expired(api: &ApiError) -> Error {
    let endpoint = brief_endpoint(&api.endpoint);
    Error::new(
        Kind::CursorExpired,
        format!("CDF no longer accepts the cursor with which {endpoint} continues: {}", api.message),
    )
    .trace(Some(api.trace()))
    .hint("CDF keeps the place of a read for a while only. Run the query again, fetch its rows without long pauses, or read less at once.")
}

impl ServerCall<'_> {
    /// Records the owed answer if it comes from CDF.
    pub fn count_answer(&self, answer: &Answer) {
        if let Peer::Cdf { .. } = self.peer {
            let id = answer.clean_request_id().map(|id| format!(" (x-request-id {id})")).unwrap_or_default();
            let words = format!("CDF's last answer to {} was {}{id}", self.endpoint, answer.status_line());
            self.limits.errand.ended(words);
        }
    }

    /// Records a failed attempt.
    pub fn count_failure(&self, unsuccessful: &Result<Answer, Failure>) {
        let unknown = match unsuccessful {
            Ok(answer) => answer.outcome().may_have_been_applied(),
            Err(failure) => failure.may_have_been_applied(),
        };
        if self.writes {
            self.limits.errand.is_not_acknowledged(unknown);
        }
        // A timeout brings no answer, so the previous answer is kept.
        if matches!(unsuccessful, Err(Failure::Deadline { .. })) {
            return;
        }
        self.limits.errand.ended(match (unsuccessful, self.peer) {
            (Ok(answer), Peer::Cdf { .. }) => {
                let id =
                    answer.clean_request_id().map(|id| format!("x-request-id {id}, ")).unwrap_or_default();
                let (endpoint, status) = (&self.endpoint, answer.status_line());
                // The id comes first, because the message may be long and cut.
                format!("CDF's last answer to {endpoint} was {status} ({id}{})", answer.message())
            }
            (Ok(answer), Peer::IdentityProvider | Peer::Sessions { .. }) => {
                format!("the last answer to {} was {} ({})", self.endpoint, answer.status_line(), self.name)
            }
            (Err(failure), _) => format!("the last attempt: {}", self.describe(failure)),
        });
    }

    /// Why an attempt is repeated, in a few words.
    pub fn why(&self, unsuccessful: &Result<Answer, Failure>) -> String {
        let why = match unsuccessful {
            Ok(answer) => answer.status_line(),
            Err(Failure::NotConnected(_)) => "no connection".to_owned(),
            Err(Failure::RequestTimeout) => "no answer within cdf_fdw.request_timeout".to_owned(),
            Err(Failure::Foreign(..)) => "no valid answer".to_owned(),
            Err(_) => "connection lost".to_owned(),
        };
        match self.peer {
            Peer::Cdf { .. } | Peer::Sessions { .. } => why,
            Peer::IdentityProvider => format!("{why} of the identity provider"),
        }
    }

    /// The error for an answer that is not a success.
    pub fn refused(&self, answer: &Answer, stop: Stop, attempts: u32, unsure: bool) -> RequestError {
        let ServerCall { name, endpoint, .. } = self;
        let brief = brief_endpoint(endpoint);
        let error = match (self.peer, answer.status) {
            // A request that is too large is split, whoever refused it, and a throttled one is sent again later.
            (_, 400..=499) if !matches!(answer.status, 408 | 413 | 425 | 429) && self.is_foreign(answer) => {
                self.refused_by_another(answer)
            }
            (Peer::Cdf { project, .. }, 401) => Error::new(
                Kind::NotAuthenticated,
                format!("{name} does not accept the token for project \"{project}\": {}", answer.message()),
            )
            .hint(
                "Check the project and the credentials of the user mapping, and the base_url of the server.",
            ),
            (_, 408 | 425) if stop != Stop::Final => {
                let message = format!("{name} did not complete {brief} in time: {}", answer.message());
                Error::new(Kind::ServerFailure, message).hint(FAILED)
            }
            (_, 429) if stop != Stop::Final => {
                let message = format!("{name} throttled {brief}: {}", answer.message());
                Error::new(Kind::Throttled, message).hint(match self.peer {
                    Peer::Cdf { .. } | Peer::Sessions { .. } => THROTTLED,
                    Peer::IdentityProvider => "Try again later, or with fewer sessions that begin at once.",
                })
            }
            (Peer::IdentityProvider, 400..=499) => self.credentials_refused(answer),
            (Peer::Sessions { project, .. }, 404) => {
                return no_endpoint(name, project, &answer.message(), answer.trace(endpoint), unsure).into()
            }
            (Peer::Sessions { id, .. }, 400..=499) => self.session_refused(answer, id),
            (Peer::Cdf { .. }, 500..) if stop == Stop::Final => {
                return RequestError::Api(answer.api_error(endpoint, unsure))
            }
            (_, 500..) => {
                Error::new(Kind::ServerFailure, format!("{name} failed at {brief}: {}", answer.message()))
                    .hint(FAILED)
            }
            _ => return RequestError::Api(answer.api_error(endpoint, unsure)),
        };
        let error = error.trace(Some(answer.trace(endpoint)));
        self.conclude(error, stop, attempts, unsure).into()
    }

    /// The error for an answer of a gateway. It says nothing about credentials, capabilities or rows.
    fn refused_by_another(&self, answer: &Answer) -> Error {
        let ServerCall { name, endpoint, .. } = self;
        let brief = brief_endpoint(endpoint);
        // Where tokens come from, an answer may quote credentials, so its body is shown only if it is a page.
        let description = answer.description(matches!(self.peer, Peer::Cdf { .. }) || answer.is_markup());
        match (self.peer, answer.status) {
            (Peer::Cdf { project, .. } | Peer::Sessions { project, .. }, 404) => Error::new(
                Kind::CannotConnect,
                format!("{name} has no {brief} for project \"{project}\" ({description})"),
            )
            .hint(NO_ENDPOINT),
            (Peer::IdentityProvider, 404 | 405) => {
                Error::new(Kind::CannotConnect, format!("{name} has no answer to {brief} ({description})"))
                    .hint("Check the token_url of the user mapping.")
            }
            (Peer::Cdf { .. } | Peer::Sessions { .. }, _) => Error::new(
                Kind::ConnectionLost,
                format!("something before {name} refused {brief}: it is not CDF's answer ({description})"),
            )
            .hint(BETWEEN_CDF),
            (Peer::IdentityProvider, _) => Error::new(
                Kind::ConnectionLost,
                format!("something before {name} refused {brief} ({description})"),
            )
            .hint(BETWEEN_IDENTITY_PROVIDER),
        }
    }

    /// The error for an attempt without an answer; `before` says how the previous attempt ended.
    pub fn failed(
        &self,
        failure: &Failure,
        stop: Stop,
        attempts: u32,
        before: Option<String>,
        unsure: bool,
    ) -> Error {
        let kind = match failure {
            Failure::NotConnected(_) | Failure::Untrusted(_) => Kind::CannotConnect,
            Failure::Broken(_) | Failure::RequestTimeout | Failure::Foreign(..) => Kind::ConnectionLost,
            Failure::Deadline { .. } => Kind::TimedOut,
            Failure::TooLong(_) => Kind::ServerFailure,
            Failure::Unusable(_) => Kind::InvalidOption,
        };
        let mut error = Error::new(kind, self.describe(failure));
        if kind == Kind::TimedOut {
            error.message += &format!("; {}", self.limits.errand.activity().out_of_time());
            if let Some(before) = before {
                error = error.detail(format!("The attempt before: {before}"));
            }
        }
        if matches!(failure, Failure::Untrusted(_)) {
            error = error.hint(
                "The certificate must be valid for this host, and its authority be among those that the operating system \
                 of the PostgreSQL server trusts, or in the file that the foreign server's option ca_file names.",
            );
        }
        if let Failure::Foreign(answer, _) = failure {
            error = error.trace(Some(answer.trace(&self.endpoint))).hint(match self.peer {
                Peer::Cdf { .. } | Peer::Sessions { .. } => BETWEEN_CDF,
                Peer::IdentityProvider => BETWEEN_IDENTITY_PROVIDER,
            });
        }
        error = match (kind, self.peer) {
            (Kind::CannotConnect | Kind::ConnectionLost, Peer::Cdf { .. } | Peer::Sessions { .. }) => error.or_hint(
                "Check the base_url of the foreign server, and that this server may go out to it. If it is right, try again \
                 later.",
            ),
            (Kind::CannotConnect | Kind::ConnectionLost, Peer::IdentityProvider) => error.or_hint(
                "Check the token_url of the user mapping, and that this server may go out to it. If it is right, try again \
                 later.",
            ),
            (Kind::TimedOut, _) => error.or_hint("Raise cdf_fdw.flush_timeout, or load in smaller transactions."),
            (Kind::ServerFailure, _) => error.or_hint(FAILED),
            _ => error,
        };
        self.conclude(error, stop, attempts, unsure)
    }

    pub fn describe(&self, failure: &Failure) -> String {
        let ServerCall { name, limits, .. } = self;
        let endpoint = brief_endpoint(&self.endpoint);
        match failure {
            Failure::NotConnected(cause) | Failure::Untrusted(cause) => {
                format!("cannot connect to {name}: {cause}")
            }
            Failure::Broken(cause) => format!("the connection to {name} broke during {endpoint}: {cause}"),
            Failure::RequestTimeout => {
                let timeout = setting(limits.request_timeout);
                format!("{name} did not answer {endpoint} within cdf_fdw.request_timeout ({timeout})")
            }
            Failure::Deadline { sent } => {
                let timeout = setting(limits.deadline_setting);
                let what = if *sent { "was answered" } else { "was sent" };
                format!("cdf_fdw.flush_timeout ({timeout}) passed before {endpoint} {what} ({name})")
            }
            Failure::TooLong(longest) => format!("{name} answered {endpoint} with more than {longest} bytes"),
            Failure::Unusable(cause) => format!("{name} cannot be addressed: {cause}"),
            Failure::Foreign(answer, why) => {
                // Nothing of an answer that may hold a token is shown, not even a part.
                let show_text = matches!(self.peer, Peer::Cdf { .. }) || answer.is_markup();
                let description = answer.description(show_text);
                format!("{name} gave no valid answer to {endpoint}: {why} ({description})")
            }
        }
    }

    /// Adds the reason why no further attempt was made.
    fn conclude(&self, mut error: Error, stop: Stop, attempts: u32, unsure: bool) -> Error {
        error.unsure = unsure;
        if error.trace.is_none() && brief_endpoint(&self.endpoint) != self.endpoint {
            error = error.detail(format!("Request: {}.", self.endpoint));
        }
        if stop == Stop::MayHaveBeenApplied {
            error = error.detail("The request is not sent again, since that could create its items twice.");
        }
        match stop {
            Stop::RetriesUsedUp => {
                let plural = if attempts == 1 { "" } else { "s" };
                let max_retries = self.limits.max_retries;
                error.detail(format!(
                    "Gave up after {attempts} attempt{plural} (cdf_fdw.max_retries is {max_retries})."
                ))
            }
            Stop::DeadlineTooNear => error.detail(format!(
                "cdf_fdw.flush_timeout ({}) leaves no time for another attempt.",
                setting(self.limits.deadline_setting)
            )),
            Stop::Final | Stop::MayHaveBeenApplied => error,
        }
    }

    /// The error for credentials that the identity provider refuses (RFC 6749, section 5.2).
    fn credentials_refused(&self, answer: &Answer) -> Error {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(|text| answer.scrub(text));
        let Some(error) = text("error") else {
            return self.not_a_token();
        };
        let description = text("error_description").unwrap_or_default();
        // After the first line come trace ids and times.
        let line = description.lines().next().unwrap_or_default().trim();
        let message = format!("{} refuses the credentials: {error}", self.name);
        let message = if line.is_empty() { message } else { format!("{message}: {line}") };
        let mut refused = Error::new(Kind::NotAuthenticated, shorten(&message, LONGEST_MESSAGE));
        let rest: Vec<&str> =
            description.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
        if !rest.is_empty() {
            refused = refused.detail(shorten(&rest.join(" "), LONGEST_FOREIGN_TEXT));
        }
        refused.hint("Check client_id, client_secret, scope and token_url of the user mapping.")
    }

    /// The error for a session that CDF gives no token.
    fn session_refused(&self, answer: &Answer, id: u64) -> Error {
        let message = format!("{} gives no token to session {id}: {}", self.name, answer.message());
        Error::new(Kind::NotAuthenticated, message).hint(
            "Check session_id, session_key and project of the user mapping. A session that has expired, or was revoked, cannot be \
             used any more: register the role again.",
        )
    }

    /// The error for a refusal that is not in OAuth's form.
    fn not_a_token(&self) -> Error {
        let message = format!("{} did not answer with a token; is token_url correct?", self.name);
        Error::new(Kind::NotAuthenticated, message)
            .hint("Check token_url, client_id, client_secret and scope of the user mapping.")
    }

    /// The error for a deadline that passed before anything was sent.
    pub fn deadline_passed(&self) -> Error {
        self.failed(&Failure::Deadline { sent: false }, Stop::Final, 0, None, false)
    }
}
