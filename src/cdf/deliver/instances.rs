//! Nodes and edges: CDF applies a request as a whole or not at all, and applying it twice does no harm.

use std::time::Duration;

use hashbrown::HashMap;
use serde_json::{json, Value};

use super::body::{key_of, listing, BodyRows};
use super::search::Search;
use super::send::{Meaning, RowRequests};
use super::transfer::{json_post, Transfer};
use crate::cdf::encode::fragment::{end_of, member};
use crate::cdf::encode::json::{self, Properties};
use crate::cdf::error::{Error, Identity, RequestError};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::Request;
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::properties::{EXTERNAL_ID, SPACE};
use crate::cdf::resource::InstanceEnd;
use crate::cdf::table::{OnConflict, Operation};

/// How often a request is sent again if CDF refuses it because others are writing the same instances.
const CONFLICTS: u32 = 8;

impl Transfer<'_> {
    pub(super) async fn instances(&mut self, edges: bool) -> Result<(), Error> {
        let (body, mode) = (&BodyRows::of(&self.request.body), self.request.header.mode);
        let all = body.all();
        // An existing instance may get less than a new one.
        let existing = match (mode.operation, mode.on_conflict) {
            (Operation::Upsert, OnConflict::UpdateListed) => self.existing(edges, body, &all).await?,
            _ => HashMap::new(),
        };
        if mode.operation == Operation::Update {
            let existing = self.existing(edges, body, &all).await?;
            let gone: Vec<usize> = all.iter().copied().filter(|at| !existing.contains_key(at)).collect();
            if !gone.is_empty() {
                return Err(self.gone(body, &gone));
            }
        }
        let on_conflict = mode.on_conflict;
        let mut application = Application { edges, body, on_conflict, existing, conflicts: 0 };
        self.send_rows(Search::new(all, false), body, &mut application).await
    }

    /// Deletes instances. CDF ignores those that do not exist.
    pub(super) async fn delete_instances(&mut self, edges: bool) -> Result<(), Error> {
        let body = &BodyRows::of(&self.request.body);
        self.send_rows(Search::new(body.all(), false), body, &mut InstanceDeletion { edges, body }).await
    }

    /// Returns those of the rows that exist in CDF, with CDF's values.
    async fn existing(
        &self,
        edges: bool,
        body: &BodyRows<'_>,
        rows: &[usize],
    ) -> Result<HashMap<usize, Value>, Error> {
        let request = naming(edges, body, rows)?;
        let answer = self
            .ask(self.destination.resource.by_ids(), request, Owed::List)
            .await
            .map_err(|error| self.unread(error))?;
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let mut found: HashMap<(String, String), Value> = listing(&answer)?
            .into_iter()
            .map(|item| ((text(&item, SPACE), text(&item, EXTERNAL_ID)), item))
            .collect();
        let mut existing = HashMap::new();
        for at in rows {
            existing.extend(found.remove(&name(body, *at)?).map(|item| (*at, item)));
        }
        Ok(existing)
    }
}

/// Applies rows: a missing instance is created, and an existing one gets the properties of its row.
struct Application<'p, 'b> {
    edges: bool,
    body: &'p BodyRows<'b>,
    on_conflict: OnConflict,
    /// CDF's values of the rows that give an instance less if it exists.
    existing: HashMap<usize, Value>,
    /// Requests that were sent again because others wrote the same instances.
    conflicts: u32,
}

impl RowRequests for Application<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        // Sent again after a lost answer, rows would be refused because of their own first attempt.
        let resend = match self.on_conflict {
            OnConflict::Error => Resend::OnlyIfNotReceived,
            _ => Resend::Always,
        };
        let owed = match self.on_conflict {
            // CDF leaves out what it skips.
            OnConflict::Ignore => Owed::List,
            _ => Owed::Items(part.len()),
        };
        Ok(json_post(transfer.destination.resource.write(), self.body(transfer, part)?, resend, owed))
    }

    fn taken(&mut self, transfer: &Transfer<'_>, part: &[usize], _: &Response) -> Result<(), Error> {
        transfer.remember(self.body, part)
    }

    /// Handles a conflict: the instances exist already, or others are writing them at the same time.
    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        let api = match error {
            RequestError::Api(api) if api.status == 409 => api,
            error => return Ok(Meaning::Refused(part, error)),
        };
        if self.on_conflict == OnConflict::Error {
            let existing = transfer.existing(self.edges, self.body, &part).await?;
            if !existing.is_empty() {
                transfer.answer = Some(api);
                let mut existing: Vec<usize> = existing.into_keys().collect();
                existing.sort_unstable();
                return Err(transfer.exists(self.body, &existing));
            }
        }
        if self.conflicts == CONFLICTS {
            return Ok(Meaning::Refused(part, RequestError::Api(api)));
        }
        tokio::time::sleep(Duration::from_millis(50 << self.conflicts)).await;
        self.conflicts += 1;
        Ok(Meaning::Again(part))
    }
}

impl Application<'_, '_> {
    /// Returns the body of the request for some of the rows.
    fn body(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Vec<u8>, Error> {
        let view = transfer.destination.view.as_ref();
        let view = view.ok_or_else(|| Error::internal("instances without a view"))?;
        let source = view.name.source().to_string();
        let mut out = b"{\"items\":[".to_vec();
        for (position, at) in part.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let (space, external_id) = name(self.body, *at)?;
            out.extend_from_slice(b"{\"instanceType\":");
            json::write(&mut out, instance_type(self.edges));
            out.extend_from_slice(b",\"space\":");
            json::write(&mut out, &space);
            out.extend_from_slice(b",\"externalId\":");
            json::write(&mut out, &external_id);
            if matches!(self.on_conflict, OnConflict::Error | OnConflict::Ignore) {
                out.extend_from_slice(b",\"existingVersion\":0");
            }
            let found = self.existing.get(at);
            let members = &self.body.row(*at)?.properties(found.is_some()).0;
            let (mut ends, mut properties) = (Vec::new(), Vec::new());
            for (name, value) in members {
                match end_of(name) {
                    Some(end) => ends.push((end, *value)),
                    None => properties.push((&**name, *value)),
                }
            }
            // CDF wants an edge's ends with every write of the edge.
            for end in InstanceEnd::ALL.into_iter().filter(|end| ends.iter().all(|(known, _)| known != end)) {
                let kept = found.map(|found| &found[end.property()]).filter(|kept| !kept.is_null());
                if let Some(kept) = kept {
                    member(&mut out, end.property(), &kept.to_string());
                }
            }
            ends.iter().for_each(|(end, value)| member(&mut out, end.property(), value.get()));
            // The row has nothing but its keys, and CDF takes no source without a property.
            if properties.is_empty() {
                out.push(b'}');
                continue;
            }
            out.extend_from_slice(b",\"sources\":[{\"source\":");
            out.extend_from_slice(source.as_bytes());
            out.extend_from_slice(b",\"properties\":");
            Properties::write_members(&mut out, properties.into_iter());
            out.extend_from_slice(b"}]}");
        }
        out.extend_from_slice(b"],\"replace\":false,\"autoCreateDirectRelations\":true");
        if self.on_conflict == OnConflict::Ignore {
            out.extend_from_slice(b",\"skipOnVersionConflict\":true");
        }
        out.push(b'}');
        Ok(out)
    }
}

/// Deletes instances.
struct InstanceDeletion<'p, 'b> {
    edges: bool,
    body: &'p BodyRows<'b>,
}

impl RowRequests for InstanceDeletion<'_, '_> {
    fn request(&self, transfer: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let request = naming(self.edges, self.body, part)?;
        Ok(json_post(transfer.destination.resource.delete(), request, Resend::Always, Owed::List))
    }
}

/// Returns the body of a request that names the instances of some rows.
fn naming(edges: bool, body: &BodyRows<'_>, rows: &[usize]) -> Result<Vec<u8>, Error> {
    let mut items = Vec::with_capacity(rows.len());
    for at in rows {
        let (space, external_id) = name(body, *at)?;
        items.push(json!({
            "instanceType": instance_type(edges), SPACE: space, EXTERNAL_ID: external_id,
        }));
    }
    Ok(json!({ "items": items }).to_string().into_bytes())
}

fn instance_type(edges: bool) -> &'static str {
    if edges {
        "edge"
    } else {
        "node"
    }
}

/// Returns the space and external id of an encoded row.
fn name(body: &BodyRows<'_>, at: usize) -> Result<(String, String), Error> {
    match key_of(body, at)? {
        Some(Identity::Instance { space, external_id }) => Ok((space, external_id)),
        _ => Err(Error::internal("an instance without its key")),
    }
}
