//! Rows of assets, events, time series and the like: a row becomes the JSON object of a create request. Values are checked
//! as they are written.

use std::cmp::Ordering;

use super::fragment::{begin_existing, end, end_object, head, KeyMember, Opening};
use super::json::{self, Refusal};
use super::row_name::describe_keys;
use super::value::{as_text, document, internal_id, limited, list, metadata, millis, mismatch, text};
use super::{length, refuse, EncodedRow, KeyKind};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::hash::hash_bytes;
use crate::cdf::resource::{Column, Items, Ordered, Role, Rule, EXTERNAL_ID_CHARS};
use crate::cdf::table::{Binding, NullHandling, Table};

/// Encodes the rows of one table.
#[derive(Debug)]
pub struct ItemEncoder {
    fields: Vec<ItemField>,
    id: Option<usize>,
    external_id: Option<usize>,
    required: Vec<Required>,
    exclusive: Vec<(usize, usize)>,
    ordered: Vec<OrderedPair>,
    set_null: bool,
    shortest_key: usize,
    /// What an existing item gets, if that is not everything: indexes of `fields`, and what a NULL clears.
    existing: Option<Vec<(usize, Option<Vec<u8>>)>>,
}

/// The positions of two timestamp columns, and the order that they must have.
type OrderedPair = (usize, usize, &'static Ordered);

/// A column that needs a value in every row that creates an item.
#[derive(Debug)]
struct Required {
    name: &'static str,
    at: Option<usize>,
    /// The column for the same reference, by id instead of external id or the other way round.
    twin: Option<usize>,
}

/// A column of the table, with its JSON.
#[derive(Debug)]
struct ItemField {
    at: usize,
    column: &'static Column,
    /// `,"name":`, ready to append.
    head: Vec<u8>,
    /// `,"name":null`, if a NULL can clear the property. A reference clears the property that CDF knows, unless the table
    /// has a column for that one.
    clear: Option<Vec<u8>>,
}

impl ItemEncoder {
    /// `listed`: the columns that an existing item gets; None for all.
    pub fn new(table: &Table, items: &Items, listed: Option<&[usize]>) -> Self {
        let mut fields = Vec::new();
        for (at, binding) in table.bindings.iter().enumerate() {
            let Some(Binding::Column(column)) = binding else {
                continue;
            };
            let clears = match column.rule {
                _ if !column.nullable => None,
                Rule::Reference { property, .. } | Rule::References { property, .. } => {
                    let id = table.options.resource.column(property);
                    id.is_none_or(|id| table.position(id.name).is_none()).then_some(property)
                }
                _ => Some(column.property),
            };
            fields.push(ItemField { at, column, head: head(column.property), clear: clears.map(cleared) });
        }
        let twin = |name: &str| table.position(name);
        let set_null = table.options.mode.null_handling == NullHandling::SetNull;
        let existing = listed.map(|listed| {
            let set = fields.iter().enumerate().filter(|(_, field)| listed.contains(&field.at));
            let set = set.map(|(place, field)| {
                let clears = (set_null && field.column.nullable).then(|| cleared_property(field.column));
                // If the statement also sets the id column, that column decides whether there is a reference.
                let id = |property: &&str| {
                    let id = table.options.resource.column(property).and_then(|id| table.position(id.name));
                    id.is_none_or(|id| id == field.at || !listed.contains(&id))
                };
                (place, clears.filter(id).map(cleared))
            });
            set.collect()
        });
        let exclusive = fields
            .iter()
            .filter_map(|field| {
                let by_external_id = matches!(
                    field.column.rule,
                    Rule::Parent | Rule::Reference { .. } | Rule::References { .. }
                );
                let resource = table.options.resource;
                let id = resource.twin(field.column.property).filter(|_| by_external_id)?;
                let id = resource.column(id)?;
                Some((twin(id.name)?, field.at))
            })
            .collect();
        let resource = table.options.resource;
        let required = |name: &&'static str| {
            let other =
                resource.column(name).and_then(|column| resource.column(resource.twin(column.property)?));
            let other = other.and_then(|other| table.position(other.name));
            Required { name, at: table.position(name), twin: other }
        };
        let by_rule = |rule: Rule| {
            fields.iter().find(|field: &&ItemField| field.column.rule == rule).map(|field| field.at)
        };
        ItemEncoder {
            id: by_rule(Rule::Id),
            external_id: by_rule(Rule::ExternalId),
            required: items.required.iter().map(required).collect(),
            exclusive,
            ordered: items
                .ordered
                .iter()
                .filter_map(|pair| Some((table.position(pair.first)?, table.position(pair.second)?, pair)))
                .collect(),
            set_null,
            existing,
            fields,
            shortest_key: items.shortest_key,
        }
    }

    /// Appends the row's object to `out`. On an error `out` holds a part of it, which the caller removes.
    pub fn encode(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let start = out.len();
        let cell = |at: Option<usize>| at.map(|at| &row[at]).filter(|cell| !cell.is_null());
        let (kind, key_at) = match (cell(self.id), cell(self.external_id)) {
            (Some(_), _) => (KeyKind::Id, self.id),
            (None, Some(_)) => (KeyKind::Key, self.external_id),
            (None, None) => (KeyKind::None, None),
        };
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);

        // The key comes first: the buffer recognises a row by the first bytes of its object.
        let mut encoded = EncodedRow::unkeyed();
        if let Some(at) = key_at {
            let member = if kind == KeyKind::Id { KeyMember::Id } else { KeyMember::ExternalId };
            let opening = Opening::new(out, member);
            let written = match kind {
                KeyKind::Id => write_value(out, &Rule::Id, &row[at]),
                _ => text(out, &row[at], self.shortest_key, EXTERNAL_ID_CHARS),
            };
            written.map_err(|refusal| refused(at, refusal))?;
            encoded = opening.keyed(out);
        } else {
            for Required { name, at, twin } in &self.required {
                if cell(*at).is_none() && cell(*twin).is_none() {
                    let noun = table.options.resource.noun;
                    let column = table.column_name(name);
                    if !table.options.resource.has_key() {
                        let what = format!("column \"{column}\" of {}", table.options.resource.name);
                        let why = format!("{what}: the value is NULL; CDF needs it");
                        return Err(Error::new(Kind::MissingValue, why));
                    }
                    return Err(Error::new(
                        Kind::MissingValue,
                        format!(
                            "{noun} without {} and id needs a value in column \"{column}\"",
                            table.name_of(Role::ExternalId)
                        ),
                    )
                    .hint("Without a key the row can only create a new item, and CDF requires this value for it."));
                }
            }
        }
        for (id, external_id) in &self.exclusive {
            if !row[*id].is_null() && !row[*external_id].is_null() {
                let why = format!("give this or \"{}\", not both", table.names[*id]);
                return Err(refused(*external_id, (Kind::InvalidValue, why)));
            }
        }

        for ordered in &self.ordered {
            check_order(table, row, ordered)?;
        }

        for field in &self.fields {
            let cell = &row[field.at];
            let rule = &field.column.rule;
            if Some(field.at) == key_at {
                continue;
            }
            if cell.is_null() {
                // A new item has nothing to clear.
                let clears = self.set_null && kind != KeyKind::None && self.existing.is_none();
                if let (true, Some(clear)) = (clears, &field.clear) {
                    out.extend_from_slice(clear);
                    encoded.deferred = true;
                }
                continue;
            }
            out.extend_from_slice(&field.head);
            let value = out.len();
            write_value(out, rule, cell).map_err(|refusal| refused(field.at, refusal))?;
            match rule {
                Rule::Parent => encoded.parent = Some(hash_bytes(&out[value..])),
                Rule::Reference { .. } | Rule::References { .. } => encoded.deferred = true,
                _ => {}
            }
        }
        if let (Some(existing), true) = (&self.existing, kind != KeyKind::None) {
            begin_existing(out);
            let start = out.len();
            for (place, clear) in existing {
                let field = &self.fields[*place];
                match (row[field.at].is_null(), clear) {
                    _ if Some(field.at) == key_at => {}
                    (true, Some(clear)) => out.extend_from_slice(clear),
                    (true, None) => {}
                    (false, _) => {
                        out.extend_from_slice(&field.head);
                        write_value(out, &field.column.rule, &row[field.at])
                            .map_err(|refusal| refused(field.at, refusal))?;
                    }
                }
            }
            end_object(out, start);
            encoded.deferred = true;
        }
        end_object(out, start);
        encoded.complete = self.required.iter().all(|of| cell(of.at).is_some() || cell(of.twin).is_some());
        Ok(encoded)
    }

    /// Appends the object of an update: the old key and the changed columns. A NULL clears.
    pub fn encode_update(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        row: &[Cell<'_>],
        changed: &[bool],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, keys, at, why);
        if let Some(at) = self.id.filter(|at| changed[*at] && row[*at] != keys[*at]) {
            return Err(refused(at, (Kind::InvalidValue, "CDF's internal id cannot be changed".into())));
        }
        let renamed = self.external_id.filter(|at| changed[*at] && row[*at] != keys[*at]);
        let mut encoded = self.encode_key(table, keys, renamed.is_some(), out)?;
        for ordered @ (first, second, _) in &self.ordered {
            if changed[*first] || changed[*second] {
                check_order(table, row, ordered)?;
            }
        }
        for field in self.fields.iter().filter(|field| changed[field.at]) {
            if Some(field.at) == self.id || Some(field.at) == self.external_id && renamed.is_none() {
                continue;
            }
            let rule = &field.column.rule;
            if row[field.at].is_null() {
                if !field.column.nullable {
                    let why = "CDF cannot clear this; it needs a value".to_owned();
                    return Err(refused(field.at, (Kind::MissingValue, why)));
                }
                let property = cleared_property(field.column);
                let twin = table.options.resource.column(property).and_then(|id| table.position(id.name));
                // The same statement sets the id, and that counts.
                if twin.is_some_and(|id| id != field.at && changed[id]) {
                    continue;
                }
                out.extend_from_slice(&cleared(property));
                continue;
            }
            if let Some(id) = self.exclusive.iter().find(|(id, by)| *by == field.at && changed[*id]) {
                if !row[id.0].is_null() {
                    let why = format!("give this or \"{}\", not both", table.names[id.0]);
                    return Err(refused(field.at, (Kind::InvalidValue, why)));
                }
            }
            out.extend_from_slice(&field.head);
            let value = out.len();
            write_value(out, rule, &row[field.at]).map_err(|refusal| refused(field.at, refusal))?;
            match rule {
                Rule::Parent => encoded.parent = Some(hash_bytes(&out[value..])),
                Rule::Reference { .. } | Rule::References { .. } => encoded.deferred = true,
                _ => {}
            }
        }
        end(out);
        Ok(encoded)
    }

    /// Appends the object that names an existing item.
    pub fn encode_delete(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let encoded = self.encode_key(table, keys, false, out)?;
        end(out);
        Ok(encoded)
    }

    /// Begins the object that names an existing item, and appends its key: the external id, or the internal id if the item
    /// has no external id or is about to get another one.
    fn encode_key(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        renamed: bool,
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let cell = |at: Option<usize>| at.filter(|at| !keys[*at].is_null());
        let (kind, at) = match (cell(self.external_id).filter(|_| !renamed), cell(self.id)) {
            (Some(at), _) => (KeyKind::Key, at),
            (None, Some(at)) => (KeyKind::Id, at),
            (None, None) => {
                let noun = table.options.resource.noun;
                let external_id = table.name_of(Role::ExternalId);
                let error = if renamed {
                    Error::new(
                        Kind::Unsupported,
                        format!("the {noun} has no id yet, so its {external_id} cannot be changed"),
                    )
                    .hint("The table needs a column id, and the row must be in CDF already.")
                } else {
                    Error::new(
                        Kind::MissingValue,
                        format!("the {noun} has neither {external_id} nor id to address it by"),
                    )
                    .hint(format!(
                        "Declare the columns {external_id} and id in the foreign table. A row that this transaction \
                         has inserted without {external_id} has no id before COMMIT."
                    ))
                };
                return Err(error.of_row(describe_keys(table, keys)));
            }
        };
        let (member, rule) = match kind {
            KeyKind::Id => (KeyMember::Id, Rule::Id),
            _ => (KeyMember::ExternalId, Rule::ExternalId),
        };
        let opening = Opening::new(out, member);
        write_value(out, &rule, &keys[at]).map_err(|(kind, why)| refuse(kind, table, keys, at, why))?;
        Ok(opening.keyed(out))
    }
}

/// Returns `,"name":null`.
fn cleared(property: &str) -> Vec<u8> {
    [&*head(property), b"null"].concat()
}

/// Returns the property that a NULL in the column clears. For a reference it is the one that CDF knows.
fn cleared_property(column: &Column) -> &'static str {
    match column.rule {
        Rule::Reference { property, .. } | Rule::References { property, .. } => property,
        _ => column.property,
    }
}

fn check_order(table: &Table, row: &[Cell<'_>], (first, second, pair): &OrderedPair) -> Result<(), Error> {
    let (Cell::Timestamp(a), Cell::Timestamp(b)) = (&row[*first], &row[*second]) else {
        return Ok(());
    };
    // CDF keeps milliseconds: moments less than a millisecond apart may be the same there.
    let (a, b) = (a.div_euclid(1000), b.div_euclid(1000));
    let name = &table.names[*first];
    let why = match b.cmp(&a) {
        Ordering::Less => format!("the timestamp is before that in \"{name}\""),
        Ordering::Equal if !pair.may_be_equal => {
            format!("the timestamp must be after that in \"{name}\", by a millisecond at least")
        }
        _ => return Ok(()),
    };
    Err(refuse(Kind::InvalidValue, table, row, *second, why))
}

fn write_value(out: &mut Vec<u8>, rule: &Rule, cell: &Cell<'_>) -> Result<(), Refusal> {
    match *rule {
        Rule::ReadOnly => {
            return Err((
                Kind::InvalidValue,
                "CDF sets this value; it cannot be written, leave it NULL".into(),
            ))
        }
        Rule::Id | Rule::IdOf => json::write(out, &internal_id(cell)?),
        Rule::ExternalId | Rule::Parent | Rule::Reference { .. } => text(out, cell, 0, EXTERNAL_ID_CHARS)?,
        Rule::Text { min, max } | Rule::ImmutableText { min, max } => text(out, cell, min, max)?,
        Rule::OneOf(names) => {
            let name = as_text(cell)?;
            if !names.contains(&&*name) {
                let why =
                    format!("the value is \"{}\"; CDF takes {}", length::shown(&name), names.join(", "));
                return Err((Kind::InvalidValue, why));
            }
            json::write(out, &*name);
        }
        Rule::Number { min, max } => {
            let number = match cell {
                Cell::Float(value) => *value,
                Cell::Int(value) => *value as f64,
                Cell::Number(digits) => digits.parse().unwrap_or(f64::NAN),
                other => return Err(mismatch(other, "a number")),
            };
            if !(min..=max).contains(&number) {
                return Err((Kind::OutOfRange, format!("the value is {number}; CDF takes {min} to {max}")));
            }
            json::write(out, &number);
        }
        Rule::SequenceColumns => super::sequence_rows::definitions(out, document(cell)?)?,
        Rule::Object(members) => super::object::object(out, document(cell)?, members)?,
        Rule::Objects(members) => super::object::objects(out, document(cell)?, members)?,
        Rule::Subject => text(out, cell, 1, EXTERNAL_ID_CHARS)?,
        Rule::Bool | Rule::ImmutableBool => match cell {
            Cell::Bool(value) => json::write(out, value),
            other => return Err(mismatch(other, "a boolean")),
        },
        Rule::Timestamp => {
            let millis = millis(cell)?;
            if millis < 0 {
                return Err((
                    Kind::OutOfRange,
                    "the timestamp is before 1970-01-01, the earliest that CDF takes".into(),
                ));
            }
            json::write(out, &millis);
        }
        Rule::Metadata(limits) => match cell {
            Cell::Pairs(pairs) => {
                limited(json::metadata_size(pairs), limits)?;
                json::metadata_pairs(out, pairs);
            }
            cell => metadata(out, document(cell)?, matches!(cell, Cell::Json(_)), limits)?,
        },
        Rule::GeoLocation => super::geo::feature(out, document(cell)?)?,
        Rule::Labels { max } => list(out, cell, max, |out, cell| {
            out.extend_from_slice(b"{\"externalId\":");
            text(out, cell, 0, EXTERNAL_ID_CHARS)?;
            out.push(b'}');
            Ok(())
        })?,
        Rule::Ids { max } => list(out, cell, max, |out, cell| {
            json::write(out, &internal_id(cell)?);
            Ok(())
        })?,
        Rule::References { max, .. } => {
            list(out, cell, max, |out, cell| text(out, cell, 0, EXTERNAL_ID_CHARS))?
        }
        Rule::Part(_) => return Err((Kind::Internal, "the column has no encoder".into())),
    }
    Ok(())
}
