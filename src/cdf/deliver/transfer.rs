//! A request that is being delivered: what it needs, and what has become of its rows so far.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::body::{matching, BodyRows};
use super::context::Context;
use super::experience::Census;
use super::fresh::Patience;
use super::receipt::Receipt;
use super::request::WriteRequest;
use crate::cdf::buffer::Destination;
use crate::cdf::error::{ApiError, Error, RequestError, Trace};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::{self, Limits, Request};
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;

/// A request that is being delivered.
pub(super) struct Transfer<'c> {
    pub(super) context: &'c Context,
    pub(super) request: &'c WriteRequest,
    pub(super) destination: &'c Destination,
    /// The flush's limits.
    pub(super) limits: Limits,
    pub(super) unknown: usize,
    pub(super) in_part: usize,
    pub(super) created: usize,
    /// What the first answer has told of rows that may exist.
    pub(super) found: Option<Census>,
    /// Rows are sent as updates to see whether their items exist.
    pub(super) trying: bool,
    /// The last refusal by CDF that was handled. An error that follows from it quotes it.
    pub(super) answer: Option<ApiError>,
    /// CDF's last answer, for errors that follow from it.
    trace: Mutex<Option<Trace>>,
}

/// Makes a POST request from the endpoint, a JSON body, whether it may be sent again, and the answer that acknowledges
/// it.
pub(super) fn json_post(endpoint: Endpoint, body: impl Into<Bytes>, resend: Resend, owed: Owed) -> Request {
    let body = request::RequestBody::Json(body.into());
    Request { endpoint, body, resend, owed }
}

impl<'c> Transfer<'c> {
    pub(super) fn new(context: &'c Context, request: &'c WriteRequest) -> Self {
        Transfer {
            context,
            request,
            destination: &request.destination,
            limits: Limits { errand: request.errand.clone(), ..context.limits.clone() },
            unknown: 0,
            in_part: 0,
            created: 0,
            found: None,
            trying: false,
            answer: None,
            trace: Mutex::default(),
        }
    }

    /// Returns what became of the rows.
    pub(super) fn ended(self, error: Option<Error>) -> Receipt {
        let error = error.map(|error| error.about(self.destination.name()));
        let Transfer { unknown, in_part, created, request, found, .. } = self;
        let attempt = request.attempt.map(|attempt| (attempt, found));
        Receipt { unknown, in_part, created, blind: request.is_blind(), attempt, error }
    }
}

impl Transfer<'_> {
    /// Counts rows that CDF has acknowledged.
    pub(super) fn acknowledge(&self, rows: usize) {
        self.request.errand.acknowledge(rows);
    }

    /// Remembers rows that CDF has acknowledged but may not find yet.
    pub(super) fn remember(&self, body: &BodyRows<'_>, rows: &[usize]) -> Result<(), Error> {
        self.context.fresh.remember(self.destination, body, rows)
    }

    /// Sends a request, and repeats it for a while if CDF does not find yet what this flush has just written.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, RequestError> {
        let Context { client, fresh, .. } = self.context;
        let mut patience = Patience::until(self.limits.deadline);
        loop {
            match client.send(&self.destination.connection, request, &self.limits).await {
                Err(RequestError::Api(api))
                    if fresh.is_missed(self.destination, &api) && !self.seeks(&api) =>
                {
                    match patience.next() {
                        Some(pause) => self.wait_for_fresh(pause).await,
                        None => return Err(RequestError::Api(api)),
                    }
                }
                answer => {
                    let trace = match &answer {
                        Ok(response) => Some(response.trace()),
                        Err(RequestError::Api(api)) => Some(api.trace()),
                        Err(RequestError::Failed(error)) => error.trace.clone(),
                    };
                    *self.trace.lock().unwrap_or_else(PoisonError::into_inner) = trace;
                    return answer;
                }
            }
        }
    }

    /// Whether a refusal tells what a trial is about: which of the rows' items do not exist.
    fn seeks(&self, api: &ApiError) -> bool {
        let body = BodyRows::of(&self.request.body);
        self.trying && matching(&body, &body.all(), &api.missing).is_ok_and(|rows| !rows.is_empty())
    }

    /// Asks CDF for something, in a request that may be sent again.
    pub(super) async fn ask(
        &self,
        endpoint: Endpoint,
        body: impl Into<Bytes>,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        self.send(&json_post(endpoint, body, Resend::Always, owed)).await
    }

    /// Pauses, to give CDF time to find what was just written.
    pub(super) async fn wait_for_fresh(&self, pause: Duration) {
        const WHY: &str = "CDF does not find yet what was just written";
        let pauses = self.limits.errand.pauses(pause, WHY.to_owned());
        tokio::time::sleep(pause).await;
        drop(pauses);
        self.limits.errand.repeats(WHY);
    }

    /// Returns CDF's last answer, for errors that follow from it.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
