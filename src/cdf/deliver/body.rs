//! The rows of a request's body: keys, names, updates.

use std::sync::OnceLock;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;
use serde_json::Value;

use crate::cdf::buffer::{Body, BodyBuilder, Destination};
use crate::cdf::document;
use crate::cdf::encode::fragment::{Fragment, ParsedRow};
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

    /// Checks that what cannot be changed equals what the existing item has: silently keeping the old value would lose
    /// the row's.
    pub(super) fn check_immutable(
        &self,
        rows: &[usize],
        answer: &Response,
        resource: &Resource,
        naming: Naming,
    ) -> Result<(), Error> {
        let fixed: Vec<_> = resource.columns.iter().filter(|column| column.rule.is_immutable()).collect();
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
        let existing = ByKey::of(listing(answer)?);
        for at in rows {
            let (Some((_, value)), Some(found)) = (parsed[*at].key(), existing.get(&parsed[*at])) else {
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
        let (parsed, existing) = (self.parsed()?, ByKey::of(listing(answer)?));
        let differs =
            |at: &usize| existing.get(&parsed[*at]).is_none_or(|found| !is_same(&parsed[*at], found, None));
        Ok(rows.iter().copied().filter(differs).collect())
    }
}

/// Checks whether an item of CDF has all that it gets of a row, except for one property.
pub(super) fn is_same(row: &ParsedRow<'_>, item: &Value, but: Option<&str>) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
    let properties = &row.properties(true).0;
    properties.iter().all(|(name, raw)| Some(&**name) == but || item[&**name] == value(raw))
}

/// Items that CDF has returned, by their keys.
pub(super) struct ByKey {
    items: Vec<Value>,
    places: HashMap<Identity, usize>,
}

impl ByKey {
    pub(super) fn of(items: Vec<Value>) -> ByKey {
        let mut places = HashMap::new();
        for (place, item) in items.iter().enumerate() {
            places.extend(identities(item).map(|identity| (identity, place)));
        }
        ByKey { items, places }
    }

    /// Returns the item that a row is of.
    pub(super) fn get(&self, row: &ParsedRow<'_>) -> Option<&Value> {
        self.places.get(&row.identity()?).map(|place| &self.items[*place])
    }
}

/// Returns the keys of an item that CDF has returned.
fn identities(item: &Value) -> impl Iterator<Item = Identity> {
    let external_id = item[EXTERNAL_ID].as_str().map(|name| Identity::ExternalId(name.to_owned()));
    external_id.into_iter().chain(item[ID].as_i64().map(Identity::Id))
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
    let keys: Vec<Identity> = listing(answer)?.iter().flat_map(identities).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_sent_as_it_is_is_never_parsed() {
        let body = Body::of(["{\"externalId\":\"a\"}", "no JSON", "{\"externalId\":\"b\"}"]);
        let rows = BodyRows::of(&body);
        assert_eq!(create_body(&rows, &rows.all(), false).unwrap(), body.bytes);
        let part = create_body(&rows, &[0, 2], false).unwrap();
        assert_eq!(part, "{\"items\":[{\"externalId\":\"a\"},{\"externalId\":\"b\"}]}");
        assert!(create_body(&rows, &[0], true).is_err(), "nulls are found by parsing");
        assert_eq!(named(&rows, &[1]), ["no JSON"]);
    }

    #[test]
    fn the_rows_of_a_request_are_parsed_once() {
        let row = "{\"externalId\":\"s\",\"rowNumber\":7,\"columns\":{}}";
        let body = Body::of([row, "{\"name\":\"without a key\"}"]);
        let rows = BodyRows::of(&body);
        let parsed = rows.parsed().unwrap().as_ptr();
        assert_eq!(named(&rows, &rows.all()), ["\"s\" row 7", "{\"name\":\"without a key\"}"]);
        let of_s = matching(&rows, &rows.all(), &[Identity::ExternalId("s".into())]).unwrap();
        assert_eq!((of_s, key_of(&rows, 1).unwrap()), (vec![0], None));
        assert!(std::ptr::eq(rows.parsed().unwrap().as_ptr(), parsed));
    }
}
