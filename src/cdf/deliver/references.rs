//! References by external id to items that CDF takes only by internal id: looked up in batches, once per transaction.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;
use serde_json::{json, Value};

use super::body::{listing, named, BodyRows};
use super::context::ReferenceName;
use super::fresh::Patience;
use super::transfer::Transfer;
use crate::cdf::buffer::{Body, BodyBuilder};
use crate::cdf::encode::fragment::member;
use crate::cdf::encode::json::Properties;
use crate::cdf::error::{list_names, Error, Identity, Kind};
use crate::cdf::http::owed::Owed;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::{ReferenceTarget, Resource, Rule};

impl Transfer<'_> {
    /// Identifies the connection over which an external id is looked up.
    fn whose(&self) -> usize {
        Arc::as_ptr(&self.destination.connection) as usize
    }

    /// Returns the body with external ids replaced by internal ids where CDF takes only those.
    pub(super) async fn resolve(&self, body: &BodyRows<'_>) -> Result<Option<Body>, Error> {
        let (parsed, resource) = (body.parsed()?, self.destination.resource);
        let mut wanted: HashMap<&'static str, (&'static ReferenceTarget, HashSet<String>)> = HashMap::new();
        let properties = parsed.iter().flat_map(|row| [row.properties(false), row.properties(true)]);
        for (property, value) in properties.flat_map(|properties| &properties.0) {
            if let Some((to, _, names)) = reference(resource, property, value)? {
                wanted.entry(to.path).or_insert_with(|| (to, HashSet::new())).1.extend(names);
            }
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        for (to, names) in wanted.into_values() {
            self.fetch_ids(to, names, body).await?;
        }
        let (ids, whose) = (self.context.ids(), self.whose());
        let mut made = BodyBuilder::default();
        for row in parsed {
            let mut fragment = Vec::new();
            row.rewrite(&mut fragment, |properties, out| {
                write_resolved(resource, properties, whose, &ids, out)
            })?;
            made.append(&fragment);
        }
        Ok(Some(made.build()))
    }

    /// Whether the id of the referenced item was looked up already.
    fn is_known(&self, to: &ReferenceTarget, name: &str) -> bool {
        self.context.ids().contains_key(&(self.whose(), to.path, name.to_owned()))
    }

    /// Whether this flush has written the referenced item.
    fn is_written(&self, to: &ReferenceTarget, name: &str) -> bool {
        let identity = Identity::ExternalId(name.to_owned());
        self.context.fresh.has(self.destination, to.path, &identity)
    }

    async fn fetch_ids(
        &self,
        to: &'static ReferenceTarget,
        mut names: HashSet<String>,
        body: &BodyRows<'_>,
    ) -> Result<(), Error> {
        names.retain(|name| !self.is_known(to, name));
        let mut names: Vec<String> = names.into_iter().collect();
        let mut patience = Patience::until(self.limits.deadline);
        let unknown: Vec<String> = loop {
            self.ask_for_ids(to, &names).await?;
            names.retain(|name| !self.is_known(to, name));
            if names.is_empty() {
                return Ok(());
            }
            let written = |name: &String| self.is_written(to, name);
            match patience.next().filter(|_| names.iter().any(written)) {
                Some(pause) => self.wait_for_fresh(pause).await,
                None => break names,
            }
        };
        let resource = self.destination.resource;
        let mut rows = Vec::new();
        for (at, row) in body.parsed()?.iter().enumerate() {
            for (property, value) in &row.properties(false).0 {
                if let Some((target, _, names)) = reference(resource, property, value)? {
                    if target.path == to.path && names.iter().any(|name| unknown.contains(name)) {
                        rows.push(at);
                    }
                }
            }
        }
        rows.dedup();
        let count = match unknown.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let first = unknown.iter().take(1).map(|name| format!("\"{name}\"")).collect::<String>();
        let error = self
            .error(Kind::MissingReference, format!("{} does not exist in CDF: {first}{count}", to.noun))
            .refusing(named(body, &rows), rows.len())
            .hint(format!(
                "Load it first, or in the same transaction, or correct the reference to the {}.",
                to.noun
            ));
        Err(match unknown.len() {
            0 | 1 => error,
            _ => error.detail(format!("CDF has none of: {}.", quoted(&unknown))),
        })
    }

    /// Asks CDF for the ids of these external ids.
    async fn ask_for_ids(&self, to: &'static ReferenceTarget, names: &[String]) -> Result<(), Error> {
        for part in names.chunks(1000) {
            let items: Vec<Value> = part.iter().map(|name| json!({ EXTERNAL_ID: name })).collect();
            let request = json!({ "items": items, "ignoreUnknownIds": true }).to_string().into_bytes();
            let response = self
                .ask(to.by_ids(), request, Owed::List)
                .await
                .map_err(|error| error.into_error(to.capability).about(self.destination.name()))?;
            for item in listing(&response)? {
                if let (Some(name), Some(id)) = (item[EXTERNAL_ID].as_str(), item[ID].as_i64()) {
                    self.context.fresh.remember_id(self.destination, to.path, name, id);
                    self.context.ids().insert((self.whose(), to.path, name.to_owned()), id);
                }
            }
        }
        Ok(())
    }
}

/// Appends an object with external ids replaced by internal ids where CDF takes only those, also in the values for an
/// existing item.
fn write_resolved(
    resource: &Resource,
    properties: &Properties<'_>,
    whose: usize,
    ids: &HashMap<ReferenceName, i64>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut kept: Vec<(&str, &RawValue)> = Vec::new();
    let mut replaced: Vec<(&str, String)> = Vec::new();
    for (property, value) in &properties.0 {
        let Some((to, target, names)) = reference(resource, property, value)? else {
            kept.push((property, value));
            continue;
        };
        let numbers: Vec<i64> =
            names.into_iter().filter_map(|name| ids.get(&(whose, to.path, name)).copied()).collect();
        let id = if value.get().starts_with('[') { json!(numbers) } else { json!(numbers.first()) };
        replaced.push((target, id.to_string()));
    }
    // NULL in an id column asks to clear what the reference beside it sets.
    kept.retain(|(property, _)| replaced.iter().all(|(target, _)| target != property));
    kept.iter().for_each(|(property, value)| member(out, property, value.get()));
    replaced.iter().for_each(|(property, id)| member(out, property, id));
    Ok(())
}

/// Returns the reference that a property holds: to what, under which property CDF knows it, and the external ids.
#[allow(clippy::type_complexity)]
fn reference(
    resource: &Resource,
    property: &str,
    value: &RawValue,
) -> Result<Option<(&'static ReferenceTarget, &'static str, Vec<String>)>, Error> {
    let not_text =
        |error: serde_json::Error| Error::internal(format!("an encoded reference is not text: {error}"));
    Ok(match resource.column(property).map(|column| column.rule) {
        Some(Rule::Reference { to, property }) => {
            Some((to, property, vec![serde_json::from_str(value.get()).map_err(not_text)?]))
        }
        Some(Rule::References { to, property, .. }) => {
            Some((to, property, serde_json::from_str(value.get()).map_err(not_text)?))
        }
        _ => None,
    })
}

fn quoted(names: &[String]) -> String {
    list_names(names.iter().map(|name| format!("\"{name}\"")), names.len())
}
