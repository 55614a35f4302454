//! Nodes and edges: CDF applies a request whole or not at all, and again to the same end.

use std::time::Duration;

use hashbrown::HashMap;
use serde_json::{json, Value};

use super::body::{key_of, listing};
use super::search::Search;
use super::{Delivery, Work};
use crate::cdf::buffer::Body;
use crate::cdf::encode::instances::{end_member, KEY};
use crate::cdf::encode::json::{self, Properties};
use crate::cdf::error::{Error, Identity, RequestError};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::InstanceEnd;
use crate::cdf::table::{OnConflict, Operation};

/// How often a request is sent again that CDF refuses because others write the same instances just then.
const CONFLICTS: u32 = 8;

impl Delivery<'_> {
    pub(super) async fn instances(&mut self, edges: bool, work: &Work) -> Result<(), Error> {
        let body = &work.body;
        let insert_only = work.mode.on_conflict == OnConflict::Error;
        // Sent again after a lost answer, rows would be refused because of themselves.
        let resend = if insert_only { Resend::OnlyIfNotReceived } else { Resend::Always };
        let all: Vec<usize> = (0..body.items.len()).collect();
        // What an existing instance gets is less than what a new one does.
        let existing = match (work.mode.operation, work.mode.on_conflict) {
            (Operation::Upsert, OnConflict::UpdateListed) => self.existing(edges, body, &all).await?,
            _ => HashMap::new(),
        };
        if work.mode.operation == Operation::Update {
            let existing = self.existing(edges, body, &all).await?;
            let gone: Vec<usize> = all.iter().copied().filter(|at| !existing.contains_key(at)).collect();
            if !gone.is_empty() {
                return Err(self.gone(body, &gone));
            }
        }
        // CDF leaves out what it skips.
        let skips = work.mode.on_conflict == OnConflict::Ignore;
        let mut search = Search::new(all, false);
        let mut conflicts = 0;
        while let Some(part) = search.next() {
            let request = self.apply_body(edges, work, &part, &existing)?;
            let owed = if skips { Owed::List } else { Owed::Items(part.len()) };
            match self.post_json(&self.destination.resource.write(), request, resend, owed).await {
                Ok(_) => {
                    self.accepted += part.len();
                    self.remember(body, &part)?;
                }
                Err(RequestError::Api(api)) if api.status == 409 => {
                    if insert_only {
                        let existing = self.existing(edges, body, &part).await?;
                        if !existing.is_empty() {
                            self.answer = Some(api);
                            let mut existing: Vec<usize> = existing.into_keys().collect();
                            existing.sort_unstable();
                            return Err(self.exists(body, &existing));
                        }
                    }
                    if conflicts == CONFLICTS {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    tokio::time::sleep(Duration::from_millis(50 << conflicts)).await;
                    conflicts += 1;
                    search.again(part);
                }
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }

    /// The request that applies some of the rows. `existing`: what CDF has of those that get less than new ones do.
    fn apply_body(
        &self,
        edges: bool,
        work: &Work,
        part: &[usize],
        existing: &HashMap<usize, Value>,
    ) -> Result<Vec<u8>, Error> {
        let view = self.destination.view.as_ref();
        let view = view.ok_or_else(|| Error::internal("instances without a view"))?;
        let source = view.name.source().to_string();
        let ends = InstanceEnd::ALL.map(InstanceEnd::property).map(|end| (end_member(end), end));
        let mut out = b"{\"items\":[".to_vec();
        for (position, at) in part.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let (space, external_id) = name(&work.body, *at)?;
            out.extend_from_slice(b"{\"instanceType\":");
            json::write(&mut out, instance_type(edges));
            out.extend_from_slice(b",\"space\":");
            json::write(&mut out, &space);
            out.extend_from_slice(b",\"externalId\":");
            json::write(&mut out, &external_id);
            if matches!(work.mode.on_conflict, OnConflict::Error | OnConflict::Ignore) {
                out.extend_from_slice(b",\"existingVersion\":0");
            }
            let mut properties = Vec::new();
            let row = Properties::parse(work.body.fragment(*at))?;
            let found = existing.get(at);
            let row = match found {
                Some(_) => row.into_existing()?,
                None => row.into_new(),
            };
            // CDF wants an edge's ends with every write of it.
            for (_, end) in ends.iter().filter(|(member, _)| row.get(member).is_none()) {
                if let Some(kept) = found.map(|found| &found[*end]).filter(|kept| !kept.is_null()) {
                    out.push(b',');
                    json::write(&mut out, *end);
                    out.push(b':');
                    json::write(&mut out, kept);
                }
            }
            for (member, value) in row.0 {
                match ends.iter().find(|(end, _)| *end == member) {
                    Some((_, end)) => {
                        out.push(b',');
                        json::write(&mut out, *end);
                        out.push(b':');
                        out.extend_from_slice(value.get().as_bytes());
                    }
                    None if member == KEY => {}
                    None => properties.push((member, value)),
                }
            }
            // A row that has nothing but its keys: CDF takes no source without a property.
            if properties.is_empty() {
                out.push(b'}');
                continue;
            }
            out.extend_from_slice(b",\"sources\":[{\"source\":");
            out.extend_from_slice(source.as_bytes());
            out.extend_from_slice(b",\"properties\":");
            Properties::write(&mut out, properties.iter().map(|(property, value)| (&**property, *value)));
            out.extend_from_slice(b"}]}");
        }
        out.extend_from_slice(b"],\"replace\":false,\"autoCreateDirectRelations\":true");
        if work.mode.on_conflict == OnConflict::Ignore {
            out.extend_from_slice(b",\"skipOnVersionConflict\":true");
        }
        out.push(b'}');
        Ok(out)
    }

    /// Deletes instances. CDF does not mind those that are gone.
    pub(super) async fn delete_instances(&mut self, edges: bool, body: &Body) -> Result<(), Error> {
        let mut search = Search::new((0..body.items.len()).collect(), false);
        while let Some(part) = search.next() {
            let mut items = Vec::with_capacity(part.len());
            for at in &part {
                let (space, external_id) = name(body, *at)?;
                items.push(json!({
                    "instanceType": instance_type(edges), "space": space, "externalId": external_id,
                }));
            }
            let request = json!({ "items": items }).to_string().into_bytes();
            match self
                .post_json(&self.destination.resource.delete(), request, Resend::Always, Owed::List)
                .await
            {
                Ok(_) => self.accepted += part.len(),
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }

    /// Those of the rows that exist in CDF, as it has them.
    async fn existing(
        &self,
        edges: bool,
        body: &Body,
        rows: &[usize],
    ) -> Result<HashMap<usize, Value>, Error> {
        let mut keys = Vec::with_capacity(rows.len());
        for at in rows {
            let (space, external_id) = name(body, *at)?;
            keys.push(json!({
                "instanceType": instance_type(edges), "space": space, "externalId": external_id,
            }));
        }
        let request = json!({ "items": keys }).to_string().into_bytes();
        let answer = self
            .post_json(&self.destination.resource.by_ids(), request, Resend::Always, Owed::List)
            .await
            .map_err(|error| self.unread(error))?;
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let mut found: HashMap<(String, String), Value> = listing(&answer)?
            .into_iter()
            .map(|item| ((text(&item, "space"), text(&item, "externalId")), item))
            .collect();
        let mut existing = HashMap::new();
        for at in rows {
            existing.extend(found.remove(&name(body, *at)?).map(|item| (*at, item)));
        }
        Ok(existing)
    }
}

fn instance_type(edges: bool) -> &'static str {
    if edges {
        "edge"
    } else {
        "node"
    }
}

/// The space and external id of an encoded row.
fn name(body: &Body, at: usize) -> Result<(String, String), Error> {
    match key_of(body, at)? {
        Some(Identity::Instance { space, external_id }) => Ok((space, external_id)),
        _ => Err(Error::internal("an instance without its key")),
    }
}
