//! Delivery of one request: what CDF is asked, and what its refusals mean.

mod body;
mod delete;
mod fresh;
mod instances;
mod points;
mod raw;
mod references;
mod search;
mod sequence_rows;
mod sequences;
mod upsert;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashbrown::HashMap;

use self::body::named;
use self::fresh::{Fresh, Patience};
use self::search::Search;
use super::buffer::{Body, Destination};
use super::client::{self, Client, Limits, Method, Request, Resend, Response};
use super::encode::KeyKind;
use super::error::{list_names, ApiError, Error, RequestError};
use super::owed::Owed;
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
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Rows that CDF has acknowledged.
    pub accepted: usize,
    /// They have no key: sent again they would be there twice.
    pub blind: bool,
    pub error: Option<Error>,
}

/// Delivers one request.
pub async fn deliver(context: Arc<Context>, work: Work) -> Outcome {
    let naming = work.mode.naming;
    let mut delivery =
        Delivery { context: &context, destination: &work.destination, naming, accepted: 0, answer: None };
    if work.mode.operation == Operation::Delete {
        let error = delivery.delete(&work).await.err();
        return Outcome { accepted: delivery.accepted, blind: false, error };
    }
    let error = match &work.destination.resource.shape {
        Shape::Items(items) => delivery.items(items, &work).await.err(),
        Shape::SequenceRows => delivery.sequence_rows(&work).await.err(),
        Shape::Raw => delivery.raw(&work).await.err(),
        Shape::Instances { edges } => delivery.instances(*edges, &work).await.err(),
        Shape::Datapoints { string } => delivery.points(*string, &work).await.err(),
    };
    Outcome { accepted: delivery.accepted, blind: work.kind == KeyKind::None, error }
}

struct Delivery<'c> {
    context: &'c Context,
    destination: &'c Destination,
    /// How errors name columns.
    naming: Naming,
    accepted: usize,
    /// CDF's last refusal that was dealt with: what an error that follows from it has to tell.
    answer: Option<ApiError>,
}

impl Delivery<'_> {
    /// Asks again, for a while, where CDF does not find yet what this flush has written moments ago.
    async fn post(
        &self,
        path: &str,
        body: client::Body,
        resend: Resend,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        let request = Request { method: Method::Post, path: path.to_owned(), body, resend, owed };
        let Context { client, limits, .. } = self.context;
        let mut patience = Patience::until(limits.deadline);
        loop {
            match client.send(&self.destination.connection, &request, limits).await {
                Err(RequestError::Api(api)) if self.misses_fresh(&api) => match patience.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(RequestError::Api(api)),
                },
                answer => return answer,
            }
        }
    }

    async fn post_json(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        resend: Resend,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        self.post(path, client::Body::Json(body.into()), resend, owed).await
    }

    /// The name of a built-in column, as the table that the rows came from calls it.
    fn column_name(&self, name: &'static str) -> Cow<'static, str> {
        self.destination.resource.column_name(name, self.naming)
    }

    /// The error of a refused request, with the rows it is about.
    fn refused(&self, api: ApiError, rows: &[String], of: usize) -> Error {
        let resource = self.destination.resource;
        let mut error = api.into_error(&resource.write_capability());
        error.message = format!("{}: {}", self.destination.name(), error.message);
        if !rows.is_empty() {
            error.detail.insert(0, format!("Rows refused: {}.", list_names(rows.iter(), of.max(rows.len()))));
        }
        error
    }

    /// Adds what CDF has answered.
    fn with_answer(&self, error: Error) -> Error {
        match &self.answer {
            Some(api) => {
                error.detail(format!("CDF's answer to {}: {}", api.endpoint, api.message)).detail(api.trace())
            }
            None => error,
        }
    }

    fn failed(&self, error: RequestError, rows: impl Fn() -> (Vec<String>, usize)) -> Error {
        let (names, of) = rows();
        match error {
            RequestError::Api(api) => self.refused(api, &names, of),
            RequestError::Failed(mut error) => {
                error.message = format!("{}: {}", self.destination.name(), error.message);
                if !names.is_empty() {
                    error.detail.insert(0, format!("Rows under way: {}.", list_names(names.iter(), of)));
                }
                error
            }
        }
    }

    /// Goes on after a part of a request failed: with halves of it if CDF has refused it, else not at all.
    fn narrow(
        &self,
        search: &mut Search,
        part: Vec<usize>,
        error: RequestError,
        body: &Body,
    ) -> Result<(), Error> {
        match error {
            RequestError::Api(api) => search.refused(part, api, body, self.destination),
            error => Err(self.failed(error, || (named(body, &part), part.len()))),
        }
    }
}

impl Destination {
    /// The resource, and where in RAW, as errors name it.
    pub fn name(&self) -> String {
        if let Some(view) = &self.view {
            return format!("{} {} ({}s)", self.resource.name, view.name, self.resource.noun);
        }
        match &self.raw {
            Some((database, table)) => format!("{} ({database}.{table})", self.resource.name),
            None => self.resource.name.to_owned(),
        }
    }
}
