//! Deletions. What is gone already counts as deleted: the statement has told how many rows it found.

use hashbrown::HashMap;
use serde_json::{json, Value};

use super::body::{listing, matching, mentioning, named};
use super::search::Search;
use super::{Delivery, Work};
use crate::cdf::buffer::Body;
use crate::cdf::error::{Error, Identity, RequestError, ROWS};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::raw::Place;
use crate::cdf::resource::Shape;

impl Delivery<'_> {
    pub(super) async fn delete(&mut self, work: &Work) -> Result<(), Error> {
        let resource = self.destination.resource;
        match &resource.shape {
            Shape::Items(_) if resource.hierarchy => self.delete_assets(work).await,
            Shape::Items(_) | Shape::Datapoints { .. } => {
                self.delete_all(&resource.delete(), &work.body).await
            }
            Shape::Journal(_) => Err(Error::internal("rows of a journal are never deleted")),
            Shape::Instances { edges } => self.delete_instances(*edges, &work.body).await,
            Shape::SequenceRows => self.delete_sequence_rows(&work.body).await,
            Shape::Raw => {
                let Some((database, table)) = &self.destination.raw else {
                    return Err(Error::internal("RAW rows without a database and table"));
                };
                self.delete_all(&Place::of(database, table).delete(), &work.body).await
            }
        }
    }

    /// Deletes what a request names, all but what CDF says is missing.
    async fn delete_all(&mut self, endpoint: &Endpoint, body: &Body) -> Result<(), Error> {
        let mut search = Search::new((0..body.items.len()).collect(), false);
        while let Some(mut part) = search.next() {
            let request = Body::from_fragments(part.iter().map(|at| body.fragment(*at))).bytes;
            match self.post_json(endpoint, request, Resend::Always, Owed::Object).await {
                Ok(_) => self.accepted += part.len(),
                Err(RequestError::Api(api)) if !api.missing.is_empty() => {
                    let names: Vec<&Identity> = api.missing.iter().collect();
                    let mut gone = matching(body, &part, &api.missing)?;
                    if gone.is_empty() {
                        gone = mentioning(body, &part, &names, self.destination)?;
                    }
                    if gone.is_empty() {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    self.accepted += gone.len();
                    part.retain(|at| !gone.contains(at));
                    search.again(part);
                }
                // RAW says so in words where there is no such table.
                Err(RequestError::Api(api)) if api.is_absent() => self.accepted += part.len(),
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }

    /// Deletes assets, children before their parents: CDF refuses to delete an asset that has children.
    async fn delete_assets(&mut self, work: &Work) -> Result<(), Error> {
        let body = &work.body;
        let mut parents: HashMap<i64, Option<i64>> = HashMap::new();
        let mut names: HashMap<i64, Value> = HashMap::new();
        let all: Vec<usize> = (0..body.items.len()).collect();
        for part in all.chunks(self.destination.resource.per_delete) {
            let answer = self.retrieve(body, part).await?;
            for item in listing(&answer)? {
                let Some(id) = item["id"].as_i64() else { continue };
                parents.insert(id, item["parentId"].as_i64());
                names.insert(id, item["externalId"].clone());
            }
        }
        self.accepted += all.len() - parents.len();
        let mut ordered: Vec<(usize, i64)> = parents.keys().map(|id| (depth(*id, &parents), *id)).collect();
        ordered.sort_unstable_by(|a, b| b.cmp(a));
        for part in ordered.chunks(self.destination.resource.per_delete) {
            let keys = part.iter().map(|(_, id)| json!({ "id": id }).to_string());
            let keys: Vec<String> = keys.collect();
            let body = Body::from_fragments(keys.iter().map(|key| key.as_bytes()));
            let endpoint = self.destination.resource.delete();
            let mut ended = Search::new((0..part.len()).collect(), true);
            while let Some(rows) = ended.next() {
                let request = Body::from_fragments(rows.iter().map(|at| body.fragment(*at))).bytes;
                match self.post_json(&endpoint, request, Resend::Always, Owed::Object).await {
                    Ok(_) => self.accepted += rows.len(),
                    Err(RequestError::Api(api)) if !api.missing.is_empty() => {
                        let gone = matching(&body, &rows, &api.missing)?;
                        if gone.is_empty() {
                            ended.refused(rows, api, &body, self.destination)?;
                            continue;
                        }
                        self.accepted += gone.len();
                        ended.again(rows.into_iter().filter(|at| !gone.contains(at)).collect());
                    }
                    Err(error) => self.narrow(&mut ended, rows, error, &body)?,
                }
            }
            if let Some(verdict) = ended.verdict() {
                let culprits: Vec<String> = verdict
                    .culprits
                    .iter()
                    .take(crate::cdf::error::NAMED_ROWS)
                    .map(|at| match &names[&part[*at].1] {
                        Value::String(name) => format!("\"{name}\""),
                        _ => named(&body, &[*at]).concat(),
                    })
                    .collect();
                let error = self.refused(verdict.api, ROWS, culprits, verdict.culprits.len());
                return Err(error.hint("An asset that has children can be deleted only together with them."));
            }
        }
        Ok(())
    }
}

/// How many of an asset's ancestors are among those that are deleted.
fn depth(id: i64, parents: &HashMap<i64, Option<i64>>) -> usize {
    let mut depth = 0;
    let mut at = id;
    // CDF has no cycles; a bound keeps an answer that has one from hanging the flush.
    while let Some(Some(parent)) = parents.get(&at).filter(|_| depth <= parents.len()) {
        depth += 1;
        at = *parent;
    }
    depth
}
