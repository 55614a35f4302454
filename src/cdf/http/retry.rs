//! When a request is sent again: a pure policy that knows neither network nor clock. [`super::exchange`] drives it.

use std::time::{Duration, Instant, SystemTime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use time::format_description::well_known::Rfc2822;
use time::OffsetDateTime;

/// The first pause is between a half of this and all of it, and each further one up to twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer, unless the server asks for it.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether a request may be sent again when nobody knows if it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// Sending it twice ends in the same state as sending it once.
    Always,
    /// Sending it twice would create its items twice: it is sent again only when it certainly was not applied.
    OnlyIfNotReceived,
}

/// How an attempt without success ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered, and not with success.
    Answered {
        status: u16,
        /// The answer said `cdf-is-auto-retryable: true`.
        auto_retryable: bool,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// No connection came about, so that nothing was sent.
    NotConnected,
    /// The connection broke, or no answer came in time: the request may have been applied.
    NotAnswered,
}

impl Outcome {
    /// The request was certainly not applied, so that no harm comes from sending it again.
    fn certainly_not_applied(self) -> bool {
        match self {
            Outcome::Answered { status, auto_retryable, .. } => auto_retryable || matches!(status, 401 | 429),
            Outcome::NotConnected => true,
            Outcome::NotAnswered => false,
        }
    }

    /// Another attempt may end better, and may be made as far as the server is concerned.
    fn is_transient(self) -> bool {
        match self {
            Outcome::Answered { status, auto_retryable, .. } => {
                auto_retryable || matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
            Outcome::NotConnected | Outcome::NotAnswered => true,
        }
    }

    /// True if the request may have been applied although it has no successful answer.
    pub fn may_have_been_applied(self) -> bool {
        match self {
            // 408 and 425 leave it open, as server errors do. Every other status is a clear refusal.
            Outcome::Answered { status, .. } => {
                matches!(status, 408 | 425 | 500..) && !self.certainly_not_applied()
            }
            Outcome::NotConnected => false,
            Outcome::NotAnswered => true,
        }
    }
}

/// What follows from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it again after this pause.
    Retry(Duration),
    /// Get a new token, and send it again at once.
    RetryWithNewToken,
    /// Do not send it again.
    Stop(Stop),
}

/// Why a request is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The same request would get the same answer.
    Final,
    /// It may have been applied, and must not be applied twice.
    MayHaveBeenApplied,
    /// As many retries as allowed have been made.
    RetriesUsedUp,
    /// The deadline comes before the next attempt could be made.
    DeadlineTooNear,
}

/// The policy for one request; it counts its attempts.
#[derive(Debug)]
pub struct Policy {
    resend: Resend,
    deadline: Instant,
    /// With a bearer token the first of two consecutive 401 only means that the token is stale.
    bearer: bool,
    token_refused: bool,
    pauses: ExponentialBackoff,
    attempts: u32,
}

impl Policy {
    /// `max_retries` counts what follows the first attempt; an attempt with a new token after a 401 comes on top.
    pub fn new(resend: Resend, max_retries: u32, deadline: Instant, bearer: bool) -> Self {
        // backon adds between nothing and all of a pause to it, hence the halves.
        let pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE / 2)
            .with_max_delay(LONGEST_PAUSE / 2)
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(max_retries as usize)
            .build();
        Policy { resend, deadline, bearer, token_refused: false, pauses, attempts: 0 }
    }

    /// How many attempts have been decided on.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Decides what follows from the attempt that just ended.
    pub fn decide(&mut self, outcome: Outcome, now: Instant) -> Decision {
        self.attempts += 1;
        if self.bearer && matches!(outcome, Outcome::Answered { status: 401, .. }) {
            if std::mem::replace(&mut self.token_refused, true) {
                return Decision::Stop(Stop::Final);
            }
            return if now < self.deadline {
                Decision::RetryWithNewToken
            } else {
                Decision::Stop(Stop::DeadlineTooNear)
            };
        }
        self.token_refused = false;
        if self.resend == Resend::OnlyIfNotReceived && outcome.may_have_been_applied() {
            return Decision::Stop(Stop::MayHaveBeenApplied);
        }
        if !outcome.is_transient() {
            return Decision::Stop(Stop::Final);
        }
        let Some(pause) = self.pauses.next() else {
            return Decision::Stop(Stop::RetriesUsedUp);
        };
        let pause = match outcome {
            Outcome::Answered { retry_after: Some(wished), .. } => pause.max(wished),
            _ => pause,
        };
        match now.checked_add(pause) {
            Some(next) if next < self.deadline => Decision::Retry(pause),
            _ => Decision::Stop(Stop::DeadlineTooNear),
        }
    }
}

/// Reads a `Retry-After` header: seconds, or an HTTP date, of which what is left from `now` on counts.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(value, &Rfc2822).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn policy(resend: Resend, max_retries: u32) -> (Policy, Instant) {
        let now = Instant::now();
        (Policy::new(resend, max_retries, now + HOUR, true), now)
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, auto_retryable: false, retry_after: None }
    }

    fn is_retry(decision: Decision) -> bool {
        matches!(decision, Decision::Retry(_))
    }

    #[test]
    fn transient_outcomes_are_retried_and_refusals_are_not() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let (mut policy, now) = policy(Resend::Always, 1);
            assert!(is_retry(policy.decide(answered(status), now)), "{status}");
        }
        for status in [301, 400, 403, 404, 409, 422, 501, 505] {
            let (mut policy, now) = policy(Resend::Always, 1);
            assert_eq!(policy.decide(answered(status), now), Decision::Stop(Stop::Final), "{status}");
        }
        for outcome in [Outcome::NotConnected, Outcome::NotAnswered] {
            let (mut policy, now) = policy(Resend::Always, 1);
            assert!(is_retry(policy.decide(outcome, now)), "{outcome:?}");
        }
    }

    #[test]
    fn auto_retryable_overrides_the_status() {
        for resend in [Resend::Always, Resend::OnlyIfNotReceived] {
            for status in [400, 409, 500, 501] {
                let (mut policy, now) = policy(resend, 1);
                let outcome = Outcome::Answered { status, auto_retryable: true, retry_after: None };
                assert!(is_retry(policy.decide(outcome, now)), "{status}");
                assert_eq!(policy.decide(outcome, now), Decision::Stop(Stop::RetriesUsedUp));
            }
        }
    }

    #[test]
    fn what_must_not_be_applied_twice_is_sent_again_only_when_it_was_not_applied() {
        let unsure = Decision::Stop(Stop::MayHaveBeenApplied);
        for status in [408, 425, 500, 501, 502, 503, 504, 599] {
            let (mut policy, now) = policy(Resend::OnlyIfNotReceived, 5);
            assert_eq!(policy.decide(answered(status), now), unsure, "{status}");
        }
        let (mut policy, now) = policy(Resend::OnlyIfNotReceived, 5);
        assert!(is_retry(policy.decide(Outcome::NotConnected, now)));
        assert!(is_retry(policy.decide(answered(429), now)));
        assert_eq!(policy.decide(answered(401), now), Decision::RetryWithNewToken);
        assert_eq!(policy.decide(Outcome::NotAnswered, now), unsure);
        assert_eq!(policy.attempts(), 4);
    }

    #[test]
    fn a_refused_token_is_renewed_once_even_without_retries() {
        let (mut policy, now) = policy(Resend::Always, 0);
        assert_eq!(policy.decide(answered(401), now), Decision::RetryWithNewToken);
        assert_eq!(policy.decide(answered(401), now), Decision::Stop(Stop::Final));
        let mut without_bearer = Policy::new(Resend::Always, 5, now + HOUR, false);
        assert_eq!(without_bearer.decide(answered(401), now), Decision::Stop(Stop::Final));
    }

    #[test]
    fn retries_are_counted() {
        let (mut policy, now) = policy(Resend::Always, 2);
        assert!(is_retry(policy.decide(answered(503), now)));
        assert!(is_retry(policy.decide(Outcome::NotAnswered, now)));
        assert_eq!(policy.decide(answered(503), now), Decision::Stop(Stop::RetriesUsedUp));
        assert_eq!(policy.attempts(), 3);
    }

    #[test]
    fn pauses_double_with_jitter_up_to_a_cap() {
        let (mut policy, now) = policy(Resend::Always, 20);
        let mut longest = FIRST_PAUSE;
        for _ in 0..20 {
            let Decision::Retry(pause) = policy.decide(answered(503), now) else { panic!("no retry") };
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} with at most {longest:?}");
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    #[test]
    fn the_servers_wish_counts_when_it_is_longer_and_the_deadline_allows_it() {
        let wish = |seconds| Outcome::Answered {
            status: 429,
            auto_retryable: false,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let (mut policy, now) = policy(Resend::Always, 5);
        assert_eq!(policy.decide(wish(77), now), Decision::Retry(Duration::from_secs(77)));
        let Decision::Retry(pause) = policy.decide(wish(0), now) else { panic!("no retry") };
        assert!(pause > Duration::ZERO);
        assert_eq!(policy.decide(wish(3600), now), Decision::Stop(Stop::DeadlineTooNear));
        assert_eq!(policy.decide(wish(u64::MAX), now), Decision::Stop(Stop::DeadlineTooNear));
    }

    #[test]
    fn nothing_is_sent_after_the_deadline() {
        let (mut policy, now) = policy(Resend::Always, 5);
        assert_eq!(policy.decide(answered(401), now + HOUR), Decision::Stop(Stop::DeadlineTooNear));
        assert_eq!(policy.decide(Outcome::NotConnected, now + HOUR), Decision::Stop(Stop::DeadlineTooNear));
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(parse_retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        let date = parse_retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now);
        assert_eq!(date, Some(Duration::from_secs(10)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:17 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
        assert_eq!(parse_retry_after("-1", now), None);
    }
}
