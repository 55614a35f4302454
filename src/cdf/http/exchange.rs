//! One request and its final answer: attempts, pauses and deadlines.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use reqwest::RequestBuilder;
use secrecy::SecretString;

use super::answer::Answer;
use super::call::{Peer, ServerCall, Verdict};
use super::failure::{cause, Failure};
use super::link::TimedConnections;
use super::proxy;
use super::request::Limits;
use super::retry::{Decision, Outcome, Policy, Stop};
use super::route::Route;
use crate::cdf::error::{Error, Kind, RequestError};

pub const USER_AGENT: &str = concat!("cdf_fdw/", env!("CARGO_PKG_VERSION"));

/// The time to connect, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the idle timeout of common gateways, so that few pooled connections are already closed when used again.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Finds dead HTTP/2 connections. Otherwise one of them would fail all requests of the pool and their retries.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer, in bytes after decompression, that is read into memory.
const LONGEST_ANSWER: usize = 256 << 20;
/// Bytes reserved for an answer in advance: about what CDF returns for the items of one request.
const LIKELY_ANSWER: usize = 1 << 20;

/// HTTP with a connection pool. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Transport {
    http: reqwest::Client,
    pub longest_answer: usize,
}

impl Transport {
    /// Makes a pool. Do not use it in a process that is forked later. `idle`: the number of idle connections to a server
    /// that it keeps.
    ///
    /// # Errors
    /// `CannotConnect` if TLS cannot be set up, for example because the system has no root certificates; `InvalidOption` if what
    /// the route names cannot be used.
    pub fn new(idle: usize, route: &Route) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(idle);
        if let Some(ca_file) = &route.ca_file {
            builder = builder.tls_certs_merge(ca_file.certificates()?);
        }
        let proxy = match &route.proxy {
            Some(url) => Some(proxy::named(url)?),
            None => proxy::from(|name| std::env::var(name).ok()),
        };
        Self::build(match proxy {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        })
    }

    pub fn build(builder: reqwest::ClientBuilder) -> Result<Self, Error> {
        let http = builder
            .user_agent(USER_AGENT)
            // A redirect would turn a POST into a GET, and would send the token to another server.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .connector_layer(TimedConnections)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .build()
            .map_err(|error| {
                Error::new(Kind::CannotConnect, format!("cannot set up HTTP: {}", cause(error)))
                    .hint("Check the root certificates of the system that PostgreSQL runs on.")
            })?;
        Ok(Transport { http, longest_answer: LONGEST_ANSWER })
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends the request that `prepare` makes until the owed answer comes or another attempt makes no sense. `prepare`
    /// returns the request and its token; its argument is the token that was refused.
    pub async fn exchange<P, F>(&self, call: &ServerCall<'_>, prepare: P) -> Result<Answer, RequestError>
    where
        P: Fn(Option<SecretString>) -> F,
        F: Future<Output = Result<(RequestBuilder, Option<SecretString>), RequestError>>,
    {
        let limits = call.limits;
        let bearer = matches!(call.peer, Peer::Cdf { .. });
        let mut policy = Policy::new(call.resend, limits.max_retries, limits.deadline, bearer);
        let mut refused = None;
        let mut before = None;
        // An attempt without an answer may have been applied, whatever later attempts say.
        let mut unsure = false;
        loop {
            let (request, token) = match prepare(refused.take()).await {
                Ok(prepared) => prepared,
                Err(RequestError::Failed(mut error)) => {
                    error.unsure |= unsure;
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            };
            let attempt = self.attempt(request, limits);
            let answer = match call.peer {
                Peer::Cdf { link, .. } => {
                    if call.writes {
                        limits.errand.is_sent();
                    }
                    let _under_way = limits.errand.attempt(call.bytes);
                    link.measured(attempt).await
                }
                Peer::IdentityProvider | Peer::Sessions { .. } => attempt.await,
            };
            let unsuccessful = match answer {
                Ok(mut answer) => {
                    answer.secrets = token.iter().chain(call.secrets.iter().copied()).cloned().collect();
                    match call.judge(&answer) {
                        Verdict::Owed => {
                            call.count_answer(&answer);
                            return Ok(answer);
                        }
                        Verdict::Refusal => Ok(answer),
                        Verdict::Foreign(why) => Err(Failure::Foreign(Box::new(answer), why)),
                    }
                }
                Err(failure) => Err(failure),
            };
            call.count_failure(&unsuccessful);
            let outcome = match &unsuccessful {
                Ok(answer) => Some(answer.outcome()),
                Err(failure) => failure.outcome(),
            };
            unsure |= call.writes
                && match (&outcome, &unsuccessful) {
                    (Some(outcome), _) => outcome.may_have_been_applied(),
                    (None, Err(failure)) => failure.may_have_been_applied(),
                    (None, Ok(_)) => false,
                };
            let decision = match outcome {
                Some(outcome) => policy.decide(outcome, Instant::now()),
                None => Decision::Stop(Stop::Final),
            };
            match decision {
                Decision::Retry(pause) => {
                    let why = call.why(&unsuccessful);
                    before = Some(match unsuccessful {
                        Ok(answer) => format!("{}: {}", answer.status_and_id(), answer.message()),
                        Err(failure) => call.describe(&failure),
                    });
                    let asked = matches!(outcome, Some(Outcome::Answered { retry_after: Some(_), .. }));
                    let asked = if asked { ", Retry-After" } else { "" };
                    let pauses = limits.errand.pauses(pause, format!("{why}{asked}"));
                    tokio::time::sleep(pause).await;
                    drop(pauses);
                    limits.errand.repeats(&why);
                }
                Decision::RetryWithNewToken => {
                    limits.errand.repeats(&call.why(&unsuccessful));
                    refused = token;
                }
                Decision::Stop(stop) => {
                    let attempts = policy.attempts();
                    return Err(match unsuccessful {
                        Ok(answer) => call.refused(&answer, stop, attempts, unsure),
                        Err(failure) => call.failed(&failure, stop, attempts, before, unsure).into(),
                    });
                }
            }
        }
    }

    /// Sends a request once, within the timeout of one request and the deadline of all attempts.
    async fn attempt(&self, request: RequestBuilder, limits: &Limits) -> Result<Answer, Failure> {
        let now = Instant::now();
        if now >= limits.deadline {
            return Err(Failure::Deadline { sent: false });
        }
        let timeout = now.checked_add(limits.request_timeout).filter(|timeout| *timeout < limits.deadline);
        let end = timeout.unwrap_or(limits.deadline);
        match tokio::time::timeout_at(end.into(), self.receive(request)).await {
            Ok(result) => result,
            Err(_) if timeout.is_some() => Err(Failure::RequestTimeout),
            Err(_) => Err(Failure::Deadline { sent: true }),
        }
    }

    async fn receive(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(Failure::from)?;
        let status = response.status();
        let mut answer = Answer::new(status.as_u16(), response.headers());
        let expected = usize::try_from(response.content_length().unwrap_or_default()).unwrap_or(usize::MAX);
        // The announced length is not trusted: the body may never come.
        let mut body = BytesMut::with_capacity(expected.min(LIKELY_ANSWER));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.longest_answer => {
                    body.extend_from_slice(&chunk)
                }
                Ok(Some(_)) if status.is_success() => return Err(Failure::TooLong(self.longest_answer)),
                Err(error) if status.is_success() => return Err(error.into()),
                // The status of a refusal counts even if its text is cut off.
                Ok(_) | Err(_) => break,
            }
        }
        answer.body = body.freeze();
        Ok(answer)
    }
}
