//! The rows of a request's body: keys, names, updates.

use std::sync::OnceLock;

use bytes::Bytes;
use hashbrown::HashSet;
use serde_json::value::RawValue;
use serde_json::Value;

use crate::cdf::buffer::{Body, BodyBuilder, Destination};
use crate::cdf::document;
use crate::cdf::encode::fragment::{self, Fragment, ParsedRow};
use crate::cdf::encode::{json as json_writer, KeyKind};
use crate::cdf::error::{list_names, Error, Identity, Kind, NAMED_ROWS};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::response::Response;
use crate::cdf::resource::properties::{EXTERNAL_ID, ID};
use crate::cdf::resource::{Create, Naming, Resource, Rule};

/// The rows of a body. They are parsed when the first question about them arises, all of them at once: a request that can be
/// sent as it is, and that CDF does not refuse, is never parsed.
pub(super) struct BodyRows<'b> {
    body: &'b Body,
    parsed: OnceLock<Vec<ParsedRow<'b>>>,
}

impl<'b> BodyRows<'b> {
    pub(super) fn of(body: &'b Body) -> Self {
        BodyRows { body, parsed: OnceLock::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.body.items.len()
    }

    /// Returns the places of all rows.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    pub(super) fn fragment(&self, at: usize) -> Fragment<'b> {
        self.body.fragment(at)
    }

    pub(super) fn parsed(&self) -> Result<&[ParsedRow<'b>], Error> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed);
        }
        let parsed = self.body.fragments().map(Fragment::parse).collect::<Result<_, _>>()?;
        Ok(self.parsed.get_or_init(|| parsed))
    }

    pub(super) fn row(&self, at: usize) -> Result<&ParsedRow<'b>, Error> {
        Ok(&self.parsed()?[at])
    }

    /// Splits the rows into those with values in all columns that a new item needs, and the others.
    pub(super) fn by_completeness(
        &self,
        rows: Vec<usize>,
        resource: &Resource,
        required: &[&str],
    ) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let parsed = self.parsed()?;
        let has = |at: usize, name: &str| {
            let property = resource.column(name).map_or(name, |column| column.property);
            let mut members = parsed[at].members();
            members.find(|(name, _)| *name == property).is_some_and(|(_, value)| value.get() != "null")
        };
        Ok(rows.into_iter().partition(|at| required.iter().all(|name| has(*at, name))))
    }

    /// Returns the element of an update request, with the changes to the columns of a sequence; None if the item
    /// changes nothing that can be changed.
    pub(super) fn update(
        &self,
        at: usize,
        resource: &Resource,
        kind: KeyKind,
        columns: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let row = self.row(at)?;
        let mut out = row.key_object();
        fragment::reopen(&mut out);
        out.extend_from_slice(b",\"update\":{");
        let start = out.len();
        for (property, value) in &row.properties(true).0 {
            let Some(column) = resource.column(property) else {
                continue;
            };
            match column.rule {
                Rule::ImmutableBool | Rule::ImmutableText { .. } => continue,
                Rule::SequenceColumns if columns.is_none() => continue,
                Rule::ExternalId if kind == KeyKind::Key => continue,
                _ => {}
            }
            if out.len() > start {
                out.push(b',');
            }
            json_writer::write(&mut out, &**property);
            if let (Rule::SequenceColumns, Some(columns)) = (column.rule, columns) {
                out.push(b':');
                out.extend_from_slice(columns);
                continue;
            }
            match (value.get(), column.empty) {
                ("null", Some(empty)) => out.extend_from_slice(format!(":{{\"set\":{empty}}}").as_bytes()),
                ("null", None) => out.extend_from_slice(match column.rule {
                    // CDF has no setNull for these (API description of the update operations).
                    Rule::Metadata(_) => b":{\"set\":{}}".as_slice(),
                    Rule::Labels { .. } | Rule::Ids { .. } => b":{\"set\":[]}",
                    _ => b":{\"setNull\":true}",
                }),
                (text, _) => {
                    out.extend_from_slice(b":{\"set\":");
                    out.extend_from_slice(text.as_bytes());
                    out.push(b'}');
                }
            }
        }
        let changes = out.len() > start;
        out.extend_from_slice(b"}}");
        Ok(changes.then_some(out))
    }

    /// Checks that what cannot be changed equals what the existing item has: silently keeping the old value would lose
    /// the row's.
    pub(super) fn check_immutable(
        &self,
        rows: &[usize],
        answer: &Response,
        resource: &Resource,
        naming: Naming,
    ) -> Result<(), Error> {
        let immutable = |rule: &Rule| matches!(rule, Rule::ImmutableBool | Rule::ImmutableText { .. });
        let fixed: Vec<_> = resource.columns.iter().filter(|column| immutable(&column.rule)).collect();
        if fixed.is_empty() {
            return Ok(());
        }
        let parsed = self.parsed()?;
        let written = |at: &usize| {
            let properties = parsed[*at].properties(true);
            fixed.iter().any(|column| properties.get(column.property).is_some())
        };
        if !rows.iter().any(written) {
            return Ok(());
        }
        let existing = listing(answer)?;
        for at in rows {
            let Some((key, value)) = parsed[*at].key() else {
                continue;
            };
            let key_value: Value = serde_json::from_str(value.get()).unwrap_or_default();
            let Some(found) = existing.iter().find(|item| item[key] == key_value) else {
                continue;
            };
            for column in &fixed {
                let Some(wanted) = parsed[*at].properties(true).get(column.property) else {
                    continue;
                };
                let wanted: Value = serde_json::from_str(wanted.get()).unwrap_or_default();
                // A flag that CDF's answer leaves out is unknown.
                let known = !found[column.property].is_null() || column.rule != Rule::ImmutableBool;
                if known && found[column.property] != wanted {
                    let why = format!(
                        "{} of an existing {} cannot be changed; it is {}",
                        naming.of(column),
                        resource.noun,
                        found[column.property]
                    );
                    return Err(Error::new(Kind::InvalidValue, why)
                        .about(resource.name)
                        .refusing(vec![value.get().to_owned()], 1)
                        .trace(Some(answer.trace()))
                        .hint("Write the value that it has, or leave the column out."));
                }
            }
        }
        Ok(())
    }

    /// Returns those of the rows that differ from what CDF has returned.
    pub(super) fn different(&self, rows: &[usize], answer: &Response) -> Result<Vec<usize>, Error> {
        let (parsed, existing) = (self.parsed()?, listing(answer)?);
        let differs = |at: &usize| {
            let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
            let key = parsed[*at].key().map(|(name, raw)| (name, value(raw)));
            let found = key.and_then(|(name, key)| existing.iter().find(|item| item[name] == key));
            let properties = parsed[*at].properties(true);
            found.is_none_or(|found| properties.0.iter().any(|(name, raw)| found[&**name] != value(raw)))
        };
        Ok(rows.iter().copied().filter(differs).collect())
    }
}

/// Makes a create request for some items. Nulls ask for clearing, and a new item has nothing to clear.
pub(super) fn create_body(body: &BodyRows<'_>, part: &[usize], strip_nulls: bool) -> Result<Bytes, Error> {
    if !strip_nulls {
        if part.len() == body.len() {
            return Ok(body.body.bytes.clone());
        }
        return Ok(Body::of(part.iter().map(|at| body.fragment(*at))).bytes);
    }
    let mut made = BodyBuilder::default();
    for at in part {
        let mut item = Vec::new();
        body.row(*at)?.write_new(&mut item, |value| value == "null");
        made.append(&item);
    }
    Ok(made.build().bytes)
}

/// Makes a create request in the resource's form, with its endpoint and the answer that CDF owes.
pub(super) fn create_request(
    resource: &Resource,
    create: Create,
    body: &BodyRows<'_>,
    part: &[usize],
    strip_nulls: bool,
) -> Result<(Endpoint, Bytes, Owed), Error> {
    match create {
        Create::Many => {
            Ok((resource.write(), create_body(body, part, strip_nulls)?, Owed::Items(part.len())))
        }
        Create::One => {
            // CDF takes no empty list here, and a new item has no list to empty.
            let mut item = Vec::new();
            let [at] = part else { return Err(Error::internal("items that are created one by one")) };
            body.row(*at)?.write_new(&mut item, |value| matches!(value, "null" | "[]"));
            Ok((resource.write(), item.into(), Owed::Item))
        }
    }
}

pub(super) fn listing(response: &Response) -> Result<Vec<Value>, Error> {
    let answer = response.document()?;
    let items = answer["items"].as_array().ok_or_else(|| response.unreadable("it has no items"))?;
    Ok(items.iter().map(document::Value::plain).collect())
}

pub(super) fn key_of(body: &BodyRows<'_>, at: usize) -> Result<Option<Identity>, Error> {
    Ok(body.row(at)?.identity())
}

/// Returns those of the rows whose key is among the names.
pub(super) fn matching(body: &BodyRows<'_>, part: &[usize], names: &[Identity]) -> Result<Vec<usize>, Error> {
    let names: HashSet<&Identity> = names.iter().collect();
    let mut found = Vec::new();
    for at in part {
        if key_of(body, *at)?.is_some_and(|key| names.contains(&key)) {
            found.push(*at);
        }
    }
    Ok(found)
}

/// Returns those of the rows that CDF returned.
pub(super) fn present(
    body: &BodyRows<'_>,
    rows: &[usize],
    answer: &Response,
) -> Result<HashSet<usize>, Error> {
    let mut keys = Vec::new();
    for item in listing(answer)? {
        keys.extend(item[EXTERNAL_ID].as_str().map(|name| Identity::ExternalId(name.to_owned())));
        keys.extend(item[ID].as_i64().map(Identity::Id));
    }
    Ok(matching(body, rows, &keys)?.into_iter().collect())
}

/// Returns those of the rows that have one of the names as key, parent, asset, data set or label.
pub(super) fn mentioning(
    body: &BodyRows<'_>,
    part: &[usize],
    names: &[&Identity],
    destination: &Destination,
) -> Result<Vec<usize>, Error> {
    let mut texts = HashSet::new();
    for name in names {
        texts.insert(match name {
            Identity::Id(id) => Value::from(*id),
            Identity::ExternalId(external_id) | Identity::Instance { external_id, .. } => {
                Value::from(&**external_id)
            }
        });
    }
    let names = |value: &Value| match value {
        Value::Array(values) => {
            values.iter().any(|value| texts.contains(value) || texts.contains(&value[EXTERNAL_ID]))
        }
        value => texts.contains(value),
    };
    let mut found = Vec::new();
    for at in part {
        let mentions = body.row(*at)?.members().any(|(property, value)| {
            let rule = destination.resource.column(property).map(|column| column.rule);
            let names_items = matches!(
                rule,
                Some(
                    Rule::Id
                        | Rule::ExternalId
                        | Rule::IdOf
                        | Rule::Ids { .. }
                        | Rule::Parent
                        | Rule::Subject
                        | Rule::Labels { .. }
                )
            );
            names_items && serde_json::from_str::<Value>(value.get()).is_ok_and(|value| names(&value))
        });
        if mentions {
            found.push(*at);
        }
    }
    Ok(found)
}

/// Returns what errors call the rows: their keys, or the beginning of what was sent.
pub(super) fn named(body: &BodyRows<'_>, rows: &[usize]) -> Vec<String> {
    let name = |at: &usize| {
        let row = body.row(*at).ok();
        match row.and_then(|row| Some((row.identity()?, row.number()))) {
            Some((key, Some(number))) => format!("{key} row {number}"),
            Some((key, None)) => key.to_string(),
            None => {
                let text = String::from_utf8_lossy(body.fragment(*at).bytes()).into_owned();
                match text.char_indices().nth(120) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                }
            }
        }
    };
    rows.iter().take(NAMED_ROWS).map(name).collect()
}

pub(super) fn names(body: &BodyRows<'_>, rows: &[usize]) -> String {
    list_names(named(body, rows).iter(), rows.len())
}
