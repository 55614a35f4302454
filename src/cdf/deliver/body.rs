//! Looking into request bodies: keys, names, updates. Done only where a request cannot be sent as it is, or was refused.

use bytes::Bytes;
use hashbrown::HashSet;
use serde_json::value::RawValue;
use serde_json::Value;

use crate::cdf::buffer::{Body, BodyBuilder, Destination};
use crate::cdf::document;
use crate::cdf::encode::json::Properties;
use crate::cdf::encode::{fragment, json as json_writer, KeyKind};
use crate::cdf::error::{list_names, Error, Identity, Kind, NAMED_ROWS};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::response::Response;
use crate::cdf::resource::sequence_rows::ROW_NUMBER;
use crate::cdf::resource::{Create, Naming, Resource, Rule};

/// Items of a body, as CDF's objects.
pub(super) struct Parsed<'b> {
    pub(super) items: Vec<Properties<'b>>,
}

impl<'b> Parsed<'b> {
    pub(super) fn all(body: &'b Body) -> Result<Self, Error> {
        let items =
            (0..body.items.len()).map(|at| Properties::parse(body.fragment(at))).collect::<Result<_, _>>()?;
        Ok(Parsed { items })
    }

    /// As `all`, each with what an existing item gets of it.
    pub(super) fn existing(body: &'b Body) -> Result<Self, Error> {
        let existing = |item: Properties<'b>| item.into_existing();
        Ok(Parsed { items: Parsed::all(body)?.items.into_iter().map(existing).collect::<Result<_, _>>()? })
    }

    pub(super) fn has(&self, at: usize, resource: &Resource, required: &[&str]) -> bool {
        required.iter().all(|name| {
            let property = resource.column(name).map_or(*name, |column| column.property);
            self.items[at].get(property).is_some_and(|value| value.get() != "null")
        })
    }

    /// `{"externalId":…}` or `{"id":…}`: the key comes first.
    pub(super) fn key_object(&self, at: usize) -> Vec<u8> {
        self.items[at].key_object()
    }

    /// The element of an update request, with what becomes of the columns of a sequence; None if the item changes nothing
    /// that can be changed.
    pub(super) fn update(
        &self,
        at: usize,
        resource: &Resource,
        kind: KeyKind,
        columns: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let mut out = self.key_object(at);
        fragment::reopen(&mut out);
        out.extend_from_slice(b",\"update\":{");
        let start = out.len();
        for (property, value) in &self.items[at].0[1..] {
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
        changes.then_some(out)
    }

    /// What cannot be changed must be what the existing item has: silently keeping the old value would lose the row's.
    pub(super) fn check_immutable(
        &self,
        rows: &[usize],
        answer: &Response,
        resource: &Resource,
        naming: Naming,
    ) -> Result<(), Error> {
        let immutable = |rule: &Rule| matches!(rule, Rule::ImmutableBool | Rule::ImmutableText { .. });
        let fixed: Vec<_> = resource.columns.iter().filter(|column| immutable(&column.rule)).collect();
        let written = |at: &usize| fixed.iter().any(|column| self.items[*at].get(column.property).is_some());
        if fixed.is_empty() || !rows.iter().any(written) {
            return Ok(());
        }
        let existing = listing(answer)?;
        for at in rows {
            let Some((key, value)) = self.items[*at].0.first() else {
                continue;
            };
            let key_value: Value = serde_json::from_str(value.get()).unwrap_or_default();
            let Some(found) = existing.iter().find(|item| item[&**key] == key_value) else {
                continue;
            };
            for column in &fixed {
                let Some(wanted) = self.items[*at].get(column.property) else {
                    continue;
                };
                let wanted: Value = serde_json::from_str(wanted.get()).unwrap_or_default();
                // A flag that CDF does not tell is not known.
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

    /// Those of the rows that say something else than what CDF has returned.
    pub(super) fn different(&self, rows: &[usize], answer: &Response) -> Result<Vec<usize>, Error> {
        let existing = listing(answer)?;
        let differs = |at: &usize| {
            let properties = &self.items[*at].0;
            let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
            let key = properties.first().map(|(name, raw)| (&**name, value(raw)));
            let found = key.and_then(|(name, key)| existing.iter().find(|item| item[name] == key));
            found.is_none_or(|found| properties.iter().any(|(name, raw)| found[&**name] != value(raw)))
        };
        Ok(rows.iter().copied().filter(differs).collect())
    }
}

/// A create request of some items. Nulls ask for clearing, and what is created has nothing to clear.
pub(super) fn create_body(body: &Body, part: &[usize], strip_nulls: bool) -> Result<Bytes, Error> {
    if !strip_nulls {
        if part.len() == body.items.len() {
            return Ok(body.bytes.clone());
        }
        return Ok(Body::from_fragments(part.iter().map(|at| body.fragment(*at))).bytes);
    }
    let mut made = BodyBuilder::default();
    for at in part {
        let mut fragment = Vec::new();
        Properties::parse(body.fragment(*at))?.write_new(&mut fragment, |value| value == "null");
        made.append(&fragment);
    }
    Ok(made.build().bytes)
}

/// A create request as the resource takes it, with its endpoint and the answer that it is owed.
pub(super) fn create_request(
    resource: &Resource,
    create: Create,
    body: &Body,
    part: &[usize],
    strip_nulls: bool,
) -> Result<(Endpoint, Bytes, Owed), Error> {
    match create {
        Create::Many => {
            Ok((resource.write(), create_body(body, part, strip_nulls)?, Owed::Items(part.len())))
        }
        Create::One => {
            // CDF takes no empty list here, and a new item has none to be emptied.
            let mut item = Vec::new();
            let properties = part.first().map(|at| Properties::parse(body.fragment(*at))).transpose()?;
            properties.unwrap_or_default().write_new(&mut item, |value| matches!(value, "null" | "[]"));
            Ok((resource.write(), item.into(), Owed::Item))
        }
    }
}

pub(super) fn listing(response: &Response) -> Result<Vec<Value>, Error> {
    let answer = response.document()?;
    let items = answer["items"].as_array().ok_or_else(|| response.unreadable("it has no items"))?;
    Ok(items.iter().map(document::Value::plain).collect())
}

pub(super) fn key_of(body: &Body, at: usize) -> Result<Option<Identity>, Error> {
    Ok(Properties::parse(body.fragment(at))?.identity())
}

/// Those of the rows whose key is among the names.
pub(super) fn matching(body: &Body, part: &[usize], names: &[Identity]) -> Result<Vec<usize>, Error> {
    let names: HashSet<&Identity> = names.iter().collect();
    let mut found = Vec::new();
    for at in part {
        if key_of(body, *at)?.is_some_and(|key| names.contains(&key)) {
            found.push(*at);
        }
    }
    Ok(found)
}

/// Those of the rows that CDF returned.
pub(super) fn present(body: &Body, rows: &[usize], answer: &Response) -> Result<HashSet<usize>, Error> {
    let mut keys = Vec::new();
    for item in listing(answer)? {
        keys.extend(item["externalId"].as_str().map(|name| Identity::ExternalId(name.to_owned())));
        keys.extend(item["id"].as_i64().map(Identity::Id));
    }
    Ok(matching(body, rows, &keys)?.into_iter().collect())
}

/// Those of the rows that have one of the names as key, parent, asset, data set or label.
pub(super) fn mentioning(
    body: &Body,
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
            values.iter().any(|value| texts.contains(value) || texts.contains(&value["externalId"]))
        }
        value => texts.contains(value),
    };
    let mut found = Vec::new();
    for at in part {
        let properties = Properties::parse(body.fragment(*at))?;
        let mentions = properties.0.iter().any(|(property, value)| {
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

/// The number of a sequence's row.
fn row_number(body: &Body, at: usize) -> Option<String> {
    let properties = Properties::parse(body.fragment(at)).ok()?;
    Some(properties.get(ROW_NUMBER)?.get().to_owned())
}

/// What errors call the rows: their keys, or the beginning of what was sent of them.
pub(super) fn named(body: &Body, rows: &[usize]) -> Vec<String> {
    rows.iter()
        .take(NAMED_ROWS)
        .map(|at| match key_of(body, *at) {
            Ok(Some(key)) => match row_number(body, *at) {
                Some(number) => format!("{key} row {number}"),
                None => key.to_string(),
            },
            _ => {
                let text = String::from_utf8_lossy(body.fragment(*at)).into_owned();
                match text.char_indices().nth(120) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                }
            }
        })
        .collect()
}

pub(super) fn names(body: &Body, rows: &[usize]) -> String {
    list_names(named(body, rows).iter(), rows.len())
}
