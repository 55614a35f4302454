//! Deletions. What is missing already counts as deleted: the statement has told how many rows it found.

use hashbrown::HashMap;
use serde_json::{json, Value};

use super::body::{create_body, listing, matching, mentioning, named, BodyRows};
use super::search::{Blame, Search};
use super::send::{Meaning, RowRequests};
use super::transfer::{json_post, Transfer};
use crate::cdf::buffer::Body;
use crate::cdf::error::{Error, Identity, RequestError, NAMED_ROWS, ROWS};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::Request;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::Shape;

impl Transfer<'_> {
    pub(super) async fn delete(&mut self) -> Result<(), Error> {
        let resource = self.destination.resource;
        match &resource.shape {
            Shape::Items(_) if resource.hierarchy => self.delete_assets().await,
            Shape::Items(_) | Shape::Datapoints { .. } => self.delete_all(resource.delete()).await,
            Shape::Journal(_) => Err(Error::internal("rows of a journal are never deleted")),
            Shape::Instances { edges } => self.delete_instances(*edges).await,
            Shape::SequenceRows => self.delete_sequence_rows().await,
            Shape::Raw => self.delete_all(self.raw_table()?.delete()).await,
        }
    }

    /// Deletes what a request names, except for what CDF says is missing.
    async fn delete_all(&mut self, endpoint: Endpoint) -> Result<(), Error> {
        let body = &BodyRows::of(&self.request.body);
        self.send_rows(Search::new(body.all(), false), body, &mut Deletion { endpoint, body }).await
    }

    /// Deletes assets, children before their parents: CDF refuses to delete an asset that has children.
    async fn delete_assets(&mut self) -> Result<(), Error> {
        let (body, resource) = (&BodyRows::of(&self.request.body), self.destination.resource);
        let mut parents: HashMap<i64, Option<i64>> = HashMap::new();
        let mut names: HashMap<i64, Value> = HashMap::new();
        let all = body.all();
        for part in all.chunks(resource.per_delete) {
            let answer = self.retrieve(body, part).await?;
            for item in listing(&answer)? {
                let Some(id) = item[ID].as_i64() else { continue };
                parents.insert(id, item["parentId"].as_i64());
                names.insert(id, item[EXTERNAL_ID].clone());
            }
        }
        self.acknowledge(all.len() - parents.len());
        let mut ordered: Vec<(usize, i64)> = parents.keys().map(|id| (depth(*id, &parents), *id)).collect();
        ordered.sort_unstable_by(|a, b| b.cmp(a));
        for part in ordered.chunks(resource.per_delete) {
            let keys: Vec<String> = part.iter().map(|(_, id)| json!({ ID: id }).to_string()).collect();
            let ids = Body::of(keys);
            let body = &BodyRows::of(&ids);
            let names = part.iter().map(|(_, id)| &names[id]).collect();
            let search = Search::new((0..part.len()).collect(), true);
            self.send_rows(search, body, &mut AssetDeletion { body, names }).await?;
        }
        Ok(())
    }
}

/// Deletes what the rows name.
struct Deletion<'p, 'b> {
    endpoint: Endpoint,
    body: &'p BodyRows<'b>,
}

impl RowRequests for Deletion<'_, '_> {
    fn request(&self, _: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let content = create_body(self.body, part, false)?;
        Ok(json_post(self.endpoint.clone(), content, Resend::Always, Owed::Object))
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        let api = match error {
            RequestError::Api(api) if !api.missing.is_empty() => api,
            // RAW says only in words that a table does not exist.
            RequestError::Api(api) if api.is_absent() => {
                transfer.acknowledge(part.len());
                return Ok(Meaning::Again(Vec::new()));
            }
            error => return Ok(Meaning::Refused(part, error)),
        };
        let mut gone = matching(self.body, &part, &api.missing)?;
        if gone.is_empty() {
            let names: Vec<&Identity> = api.missing.iter().collect();
            gone = mentioning(self.body, &part, &names, transfer.destination)?;
        }
        Ok(if gone.is_empty() {
            Meaning::Refused(part, RequestError::Api(api))
        } else {
            without_gone(transfer, part, &gone)
        })
    }
}

/// Deletes assets by their ids.
struct AssetDeletion<'p, 'b> {
    body: &'p BodyRows<'b>,
    /// The external ids of the assets, if they have any.
    names: Vec<&'p Value>,
}

impl RowRequests for AssetDeletion<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let content = create_body(self.body, part, false)?;
        Ok(json_post(transfer.destination.resource.delete(), content, Resend::Always, Owed::Object))
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        without_missing(transfer, self.body, part, error)
    }

    fn blamed(&self, transfer: &Transfer<'_>, body: &BodyRows<'_>, blame: Blame) -> Error {
        let name = |at: &usize| match self.names[*at] {
            Value::String(name) => format!("\"{name}\""),
            _ => named(body, &[*at]).concat(),
        };
        let culprits: Vec<String> = blame.culprits.iter().take(NAMED_ROWS).map(name).collect();
        transfer
            .refused(blame.api, ROWS, culprits, blame.culprits.len())
            .hint("An asset that has children can be deleted only together with them.")
    }
}

/// Handles the refusal of a deletion, which may name what is missing: those items are deleted already, and the others
/// are sent again without them.
pub(super) fn without_missing(
    transfer: &Transfer<'_>,
    body: &BodyRows<'_>,
    part: Vec<usize>,
    error: RequestError,
) -> Result<Meaning, Error> {
    let gone = match &error {
        RequestError::Api(api) if !api.missing.is_empty() => matching(body, &part, &api.missing)?,
        _ => Vec::new(),
    };
    Ok(if gone.is_empty() { Meaning::Refused(part, error) } else { without_gone(transfer, part, &gone) })
}

fn without_gone(transfer: &Transfer<'_>, mut part: Vec<usize>, gone: &[usize]) -> Meaning {
    transfer.acknowledge(gone.len());
    part.retain(|at| !gone.contains(at));
    Meaning::Again(part)
}

/// Returns how many of an asset's ancestors are among the deleted assets.
fn depth(id: i64, parents: &HashMap<i64, Option<i64>>) -> usize {
    let mut depth = 0;
    let mut at = id;
    // CDF has no cycles; the bound keeps an answer with a cycle from hanging the flush.
    while let Some(Some(parent)) = parents.get(&at).filter(|_| depth <= parents.len()) {
        depth += 1;
        at = *parent;
    }
    depth
}
