//! Requests for pages.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::own::Own;
use super::query::Query;
use crate::cdf::document::Value;
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::client::Client;
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::{Limits, Request, RequestBody};
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::Resource;

/// The context of a request for a page.
pub struct Call<'c> {
    pub client: &'c Client,
    pub query: &'c Query,
    pub own: &'c Own,
    pub limits: Limits,
    pub requests: &'c AtomicU64,
}

impl Call<'_> {
    pub fn resource(&self) -> &'static Resource {
        self.query.table.options.resource
    }

    /// Returns the subject of the read, as errors name it.
    pub fn subject(&self) -> String {
        let options = &self.query.table.options;
        let raw = options.database.as_deref().zip(options.table.as_deref());
        let view = self.query.table.view.as_deref().map(|view| &view.name as _);
        options.resource.named(view, raw)
    }

    pub async fn send(
        &self,
        endpoint: Endpoint,
        body: RequestBody,
        owed: Owed,
    ) -> Result<Response, RequestError> {
        let request = Request { endpoint, body, resend: Resend::Always, owed };
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.client.send(&self.query.connection, &request, &self.limits).await
    }

    /// Posts a request for a list, or for items by key, and returns the answer.
    pub async fn post(&self, endpoint: Endpoint, body: &serde_json::Value) -> Result<Value, Error> {
        let response = self.ask(endpoint, body).await;
        response.map_err(|error| self.failed(error))?.document()
    }

    /// As `post`, for callers that handle a refusal themselves.
    pub async fn ask(&self, endpoint: Endpoint, body: &serde_json::Value) -> Result<Response, RequestError> {
        let body = RequestBody::Json(Bytes::from(body.to_string()));
        self.send(endpoint, body, Owed::List).await
    }

    /// As `post`, for GET. None if CDF says that the thing does not exist.
    pub async fn get(&self, endpoint: Endpoint, owed: Owed) -> Result<Option<Value>, Error> {
        match self.send(endpoint, RequestBody::None, owed).await {
            Ok(response) => response.document().map(Some),
            Err(RequestError::Api(api)) if api.is_absent() => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub fn failed(&self, error: RequestError) -> Error {
        self.failed_for(error, &self.resource().read_capability())
    }

    /// As `failed`, for a request that needs another capability than the table's resource.
    pub fn failed_for(&self, error: RequestError, capability: &str) -> Error {
        error.into_error(capability).about(self.subject())
    }
}

/// Takes the items of an answer, and the cursor of the next page.
pub fn take_page(mut answer: Value) -> (Vec<Value>, Option<String>) {
    let cursor = answer["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned);
    match answer["items"].take() {
        Value::Array(items) => (items, cursor),
        _ => (Vec::new(), cursor),
    }
}
