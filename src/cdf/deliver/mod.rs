//! Delivery of one request: what CDF is asked, and what its refusals mean.

mod body;
mod delete;
pub mod flush;
mod fresh;
mod hierarchy;
mod instances;
mod items;
mod points;
mod raw;
mod references;
mod search;
mod sequence_rows;
mod sequences;
pub mod tally;

use std::borrow::Cow;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use self::body::{named, names};
use self::fresh::{Fresh, Patience};
use self::search::Search;
use super::activity::Errand;
use super::buffer::{Body, Destination};
use super::encode::KeyKind;
use super::error::{ApiError, Error, Fate, Kind, Noun, RequestError, Trace, ROWS};
use super::http::client::Client;
use super::http::endpoint::Endpoint;
use super::http::owed::Owed;
use super::http::request::{self, Limits, Request};
use super::http::response::Response;
use super::http::retry::Resend;
use super::resource::{Naming, Shape};
use super::table::{Mode, Operation};

/// What all requests of a flush share.
pub struct Context {
    pub client: Client,
    pub limits: Limits,
    /// Internal ids by whose they are (projects have their own, and a role sees its own part of one), what they are of,
    /// and external id.
    references: Mutex<HashMap<references::Name, i64>>,
    fresh: Mutex<Fresh>,
}

impl Context {
    pub fn new(client: Client, limits: Limits) -> Self {
        Context { client, limits, references: Mutex::default(), fresh: Mutex::default() }
    }

    /// Takes note that nothing that is to be delivered refers to anything else of it.
    pub fn without_references(&mut self) {
        self.fresh.get_mut().unwrap_or_else(PoisonError::into_inner).idle = true;
    }
}

/// One request to deliver.
pub struct Work {
    pub destination: Arc<Destination>,
    pub mode: Mode,
    pub kind: KeyKind,
    pub deferred: bool,
    /// Every item has all that creating it takes.
    pub complete: bool,
    /// Items are in an order that matters: later ones may need earlier ones.
    pub ordered: bool,
    pub rows: usize,
    pub body: Body,
    /// Where what becomes of it is counted.
    pub errand: Arc<Errand>,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Rows that CDF has acknowledged.
    pub accepted: usize,
    /// Rows that CDF may have taken without saying so.
    pub unknown: usize,
    /// Rows of which it has acknowledged some cells.
    pub in_part: usize,
    /// Time series that were created for their points.
    pub created: usize,
    /// They have no key: sent again they would be there twice.
    pub blind: bool,
    pub error: Option<Error>,
}

/// Delivers one request.
pub async fn deliver(context: Arc<Context>, work: Work) -> Outcome {
    let mut delivery = Delivery {
        context: &context,
        limits: Limits { errand: work.errand.clone(), ..context.limits.clone() },
        destination: &work.destination,
        naming: work.mode.naming,
        accepted: Accepted(work.errand.clone()),
        unknown: 0,
        in_part: 0,
        created: 0,
        answer: None,
        trace: Mutex::default(),
    };
    if work.mode.operation == Operation::Delete {
        let error = delivery.delete(&work).await.err();
        return delivery.ended(false, error);
    }
    let error = match &work.destination.resource.shape {
        Shape::Items(items) | Shape::Journal(items) => delivery.items(items, &work).await.err(),
        Shape::SequenceRows => delivery.sequence_rows(&work).await.err(),
        Shape::Raw => delivery.raw(&work).await.err(),
        Shape::Instances { edges } => delivery.instances(*edges, &work).await.err(),
        Shape::Datapoints { string } => delivery.points(*string, &work).await.err(),
    };
    delivery.ended(work.kind == KeyKind::None, error)
}

/// Rows that CDF has acknowledged, counted where everybody sees them.
struct Accepted(Arc<Errand>);

impl Accepted {
    fn count(&self) -> usize {
        self.0.acknowledged()
    }
}

impl AddAssign<usize> for Accepted {
    fn add_assign(&mut self, rows: usize) {
        self.0.acknowledge(rows);
    }
}

struct Delivery<'c> {
    context: &'c Context,
    /// The flush's limits.
    limits: Limits,
    destination: &'c Destination,
    /// How errors name columns.
    naming: Naming,
    accepted: Accepted,
    unknown: usize,
    in_part: usize,
    created: usize,
    /// CDF's last refusal that was dealt with: what an error that follows from it has to tell.
    answer: Option<ApiError>,
    /// CDF's last answer, for errors that follow from it.
    trace: Mutex<Option<Trace>>,
}

impl Delivery<'_> {
    /// What became of the rows.
    fn ended(&self, blind: bool, error: Option<Error>) -> Outcome {
        let error = error.map(|error| error.about(self.destination.name()));
        let Delivery { unknown, in_part, created, .. } = *self;
        Outcome { accepted: self.accepted.count(), unknown, in_part, created, blind, error }
    }

    /// Asks again, for a while, where CDF does not find yet what this flush has written moments ago.
    async fn post(
        &self,
        endpoint: &Endpoint,
        body: request::Body,
        resend: Resend,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        let request = Request { endpoint: endpoint.clone(), body, resend, owed };
        let (client, limits) = (&self.context.client, &self.limits);
        let mut patience = Patience::until(limits.deadline);
        loop {
            match client.send(&self.destination.connection, &request, limits).await {
                Err(RequestError::Api(api)) if self.misses_fresh(&api) => match patience.next() {
                    Some(pause) => self.wait_for_fresh(pause).await,
                    None => return Err(RequestError::Api(api)),
                },
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

    /// A pause in which CDF may come to find what was written moments ago.
    async fn wait_for_fresh(&self, pause: Duration) {
        const WHY: &str = "CDF does not find yet what was just written";
        let pauses = self.limits.errand.pauses(pause, WHY.to_owned());
        tokio::time::sleep(pause).await;
        drop(pauses);
        self.limits.errand.repeats(WHY);
    }

    async fn post_json(
        &self,
        endpoint: &Endpoint,
        body: impl Into<Bytes>,
        resend: Resend,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        self.post(endpoint, request::Body::Json(body.into()), resend, owed).await
    }

    /// The name of a built-in column, as the table that the rows came from calls it.
    fn column_name(&self, name: &'static str) -> Cow<'static, str> {
        self.destination.resource.column_name(name, self.naming)
    }

    /// An error that follows from CDF's last answers.
    fn error(&self, kind: Kind, message: impl Into<String>) -> Error {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.with_answer(Error::new(kind, message).about(self.destination.name())).trace(trace)
    }

    /// The error of a refused request, with the rows it is about.
    fn refused(&self, api: ApiError, noun: Noun, rows: Vec<String>, of: usize) -> Error {
        let about_content = api.is_about_content();
        let error = api.into_error(&self.destination.resource.write_capability());
        let error = error.about(self.destination.name()).rows(Fate::Refused, noun, rows, of);
        match about_content {
            true => error.or_hint("Correct what CDF refuses, and run the load again."),
            false => error,
        }
    }

    /// Adds what CDF has answered.
    fn with_answer(&self, error: Error) -> Error {
        match &self.answer {
            Some(api) => error
                .detail(format!("CDF's answer to {}: {}", api.endpoint, api.message))
                .trace(Some(api.trace())),
            None => error,
        }
    }

    /// The error of a look-up that has no answer.
    fn unread(&self, error: RequestError) -> Error {
        error.into_error(&self.destination.resource.read_capability()).about(self.destination.name())
    }

    /// The error for a request without success; `rows`: how many its `names` stand for.
    fn failed(
        &mut self,
        error: RequestError,
        noun: Noun,
        names: Vec<String>,
        of: usize,
        rows: usize,
    ) -> Error {
        match error {
            RequestError::Api(api) => {
                self.unknown += if api.unsure { rows } else { 0 };
                self.refused(api, noun, names, of)
            }
            RequestError::Failed(error) => {
                self.unknown += if error.unsure { rows } else { 0 };
                error.about(self.destination.name()).rows(Fate::UnderWay, noun, names, of)
            }
        }
    }

    /// Goes on after a part of a request failed: with halves of it if CDF has refused it, else not at all.
    fn narrow(
        &mut self,
        search: &mut Search,
        part: Vec<usize>,
        error: RequestError,
        body: &Body,
    ) -> Result<(), Error> {
        match error {
            RequestError::Api(api) => {
                self.unknown += if api.unsure { part.len() } else { 0 };
                search.refused(part, api, body, self.destination)
            }
            error => {
                let mut failed = self.failed(error, ROWS, named(body, &part), part.len(), part.len());
                if let Some((api, culprits)) = search.refused_so_far() {
                    failed = failed.detail(format!(
                        "Before that CDF had refused {}: {}",
                        names(body, culprits),
                        api.message
                    ));
                }
                Err(failed)
            }
        }
    }
}

impl Destination {
    /// The resource, and where in RAW, as errors name it.
    pub fn name(&self) -> String {
        let raw = self.raw.as_ref().map(|(database, table)| (database.as_str(), table.as_str()));
        self.resource.named(self.view.as_deref().map(|view| &view.name as _), raw)
    }
}
