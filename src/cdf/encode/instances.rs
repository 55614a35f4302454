//! Nodes and edges of a data-model view. A row becomes a flat object of its key and its properties; delivery makes CDF's
//! objects from it.

use super::fragment::{begin_existing, end, end_object, head, head_of_end, KeyMember, Opening};
use super::json::{self, Refusal};
use super::property::{external_id, property, relation, space};
use super::{refuse, EncodedRow};
use crate::cdf::cell::Cell;
use crate::cdf::error::{Error, Kind};
use crate::cdf::resource::{InstanceEnd, Role, Rule, Shape};
use crate::cdf::table::view::Property;
use crate::cdf::table::{Binding, NullHandling, Part, Table};

/// Encodes the rows of one table.
#[derive(Debug)]
pub struct InstanceEncoder {
    /// The column of the space; None if all instances are in the view's own space.
    space: Option<usize>,
    own_space: String,
    external_id: usize,
    read_only: Vec<usize>,
    ends: Vec<End>,
    fields: Vec<PropertyField>,
    set_null: bool,
    /// For each column, whether an existing instance gets it; None if it gets all.
    existing: Option<Vec<bool>>,
}

#[derive(Debug)]
struct End {
    space: usize,
    external_id: usize,
    /// `,"(startNode)":`.
    head: Vec<u8>,
    required: bool,
}

#[derive(Debug)]
struct PropertyField {
    property: Property,
    at: usize,
    /// The column of the external id, for a direct relation in two columns.
    external_id: Option<usize>,
    /// `,"name":`.
    head: Vec<u8>,
}

impl InstanceEncoder {
    /// `listed`: the columns that an existing instance gets; None for all.
    pub fn new(table: &Table, listed: Option<&[usize]>) -> Result<Self, Error> {
        let view = table.view.as_ref().ok_or_else(|| Error::internal("a view's table without its view"))?;
        let edges = matches!(table.options.resource.shape, Shape::Instances { edges: true });
        let need = |role: Role| {
            let noun = table.options.resource.noun;
            let hint = || format!("Without it CDF would not know which {noun} a row is.");
            table.need(role).map_err(|error| error.hint(hint()))
        };
        let mut ends = Vec::new();
        for end in InstanceEnd::ALL {
            let (space, external_id) = (Role::EndSpace(end), Role::EndExternalId(end));
            if edges || table.position_of(space).is_some() {
                let (space, external_id) = (need(space)?, need(external_id)?);
                ends.push(End { space, external_id, head: head_of_end(end), required: edges });
            }
        }
        let mut read_only = Vec::new();
        let mut fields = Vec::new();
        for (at, binding) in table.bindings.iter().enumerate() {
            match binding {
                Some(Binding::Column(column)) if column.rule == Rule::ReadOnly => read_only.push(at),
                Some(Binding::Property { property, part }) => {
                    let external_id = match part {
                        Part::Whole => None,
                        Part::Space => table.property(&property.name, Part::ExternalId),
                        Part::ExternalId => continue,
                    };
                    fields.push(PropertyField {
                        property: property.clone(),
                        at,
                        external_id,
                        head: head(&property.name),
                    });
                }
                _ => {}
            }
        }
        Ok(InstanceEncoder {
            space: table.position_of(Role::Space),
            own_space: view.name.space.clone(),
            external_id: need(Role::ExternalId)?,
            read_only,
            ends,
            fields,
            set_null: table.options.mode.null_handling == NullHandling::SetNull,
            existing: listed.map(|set| (0..table.bindings.len()).map(|at| set.contains(&at)).collect()),
        })
    }

    /// Appends the row's object to `out`. On an error `out` holds a part of it, which the caller removes.
    pub fn encode(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let encoded = self.encode_some(table, row, None, out)?;
        if let Some(existing) = &self.existing {
            begin_existing(out);
            let start = out.len();
            for end in &self.ends {
                let set = existing[end.space] || existing[end.external_id];
                if set && self.both(table, row, end.space, end.external_id)? {
                    self.encode_end(table, row, end, out)?;
                }
            }
            self.encode_properties(table, row, Some(existing), self.set_null, out)?;
            end_object(out, start);
        }
        end(out);
        Ok(encoded)
    }

    /// Appends the object of an update: the key and the changed properties. A NULL clears.
    pub fn encode_update(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        row: &[Cell<'_>],
        changed: &[bool],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        for at in self.space.into_iter().chain([self.external_id]) {
            if row[at] != keys[at] {
                let noun = table.options.resource.noun;
                let why = format!("the key of the {noun} cannot be changed");
                return Err(refuse(Kind::Unsupported, table, keys, at, why)
                    .hint("Insert a row with the new key, and delete the old one."));
            }
        }
        let row = table.without_read_only(row, changed);
        let encoded = self.encode_some(table, &row, Some(changed), out)?;
        end(out);
        Ok(encoded)
    }

    /// Appends the object that names a node or an edge.
    pub fn encode_delete(
        &self,
        table: &Table,
        keys: &[Cell<'_>],
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let encoded = self.encode_key(table, keys, out)?;
        end(out);
        Ok(encoded)
    }

    fn encode_key(&self, table: &Table, row: &[Cell<'_>], out: &mut Vec<u8>) -> Result<EncodedRow, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        let opening = Opening::new(out, KeyMember::Instance);
        out.push(b'[');
        match self.space {
            Some(at) => space(out, &row[at]).map_err(|refusal| refused(at, refusal))?,
            None => json::write(out, &self.own_space),
        }
        out.push(b',');
        external_id(out, &row[self.external_id]).map_err(|refusal| refused(self.external_id, refusal))?;
        out.push(b']');
        Ok(opening.keyed(out))
    }

    /// Appends the row's object without its end. For an update, only the columns that have `changed`.
    fn encode_some(
        &self,
        table: &Table,
        row: &[Cell<'_>],
        changed: Option<&[bool]>,
        out: &mut Vec<u8>,
    ) -> Result<EncodedRow, Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        if let Some(at) = self.read_only.iter().find(|at| !row[**at].is_null()) {
            let why = "CDF sets this value; it cannot be written, leave it NULL".to_owned();
            return Err(refused(*at, (Kind::InvalidValue, why)));
        }
        let encoded = self.encode_key(table, row, out)?;
        for end in &self.ends {
            if self.both(table, row, end.space, end.external_id)? {
                self.encode_end(table, row, end, out)?;
            } else if end.required {
                let why = format!("the value is NULL; an {} needs it", table.options.resource.noun);
                return Err(refused(end.external_id, (Kind::MissingValue, why)));
            }
        }
        // A new instance has nothing to clear.
        let clears = changed.is_some() || self.set_null && self.existing.is_none();
        self.encode_properties(table, row, changed, clears, out)?;
        Ok(encoded)
    }

    /// Appends one of the instance's ends.
    fn encode_end(&self, table: &Table, row: &[Cell<'_>], end: &End, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&end.head);
        relation(out, row, end.space, end.external_id)
            .map_err(|(at, (kind, why))| refuse(kind, table, row, at, why))
    }

    /// Appends the row's properties, or only those with a column in `only`. If it `clears`, a NULL becomes null; otherwise it
    /// is left out.
    fn encode_properties(
        &self,
        table: &Table,
        row: &[Cell<'_>],
        only: Option<&[bool]>,
        clears: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let refused = |at: usize, (kind, why): Refusal| refuse(kind, table, row, at, why);
        for field in &self.fields {
            let is = |columns: &[bool]| columns[field.at] || field.external_id.is_some_and(|at| columns[at]);
            if only.is_some_and(|only| !is(only)) {
                continue;
            }
            let written = match field.external_id {
                Some(external_id) => self.both(table, row, field.at, external_id)?,
                None => !row[field.at].is_null(),
            };
            if !written {
                if clears {
                    if !field.property.nullable {
                        let why = "the value is NULL; the property needs one".to_owned();
                        return Err(refused(field.at, (Kind::MissingValue, why)));
                    }
                    out.extend_from_slice(&field.head);
                    out.extend_from_slice(b"null");
                }
                continue;
            }
            out.extend_from_slice(&field.head);
            match field.external_id {
                Some(external_id) => {
                    relation(out, row, field.at, external_id).map_err(|(at, refusal)| refused(at, refusal))?
                }
                None => property(out, &field.property, &row[field.at])
                    .map_err(|refusal| refused(field.at, refusal))?,
            }
        }
        Ok(())
    }

    /// Checks whether a space and an external id are given. One alone is an error.
    fn both(&self, table: &Table, row: &[Cell<'_>], space: usize, external_id: usize) -> Result<bool, Error> {
        match (row[space].is_null(), row[external_id].is_null()) {
            (false, false) => Ok(true),
            (true, true) => Ok(false),
            (space_is_null, _) => {
                let (null, given) = if space_is_null { (space, external_id) } else { (external_id, space) };
                let why = format!(
                    "the value is NULL, but \"{}\" has one; give both or neither",
                    table.names[given]
                );
                Err(refuse(Kind::MissingValue, table, row, null, why))
            }
        }
    }
}
