//! The elements of update requests, written from what rows hold: `{"externalId":…,"update":{"name":{"set":…},…}}`.
//!
//! All rows of a request are written at once, without parsing their values: where most items exist, this is done for every
//! row of a load.

use hashbrown::HashMap;

use super::body::BodyRows;
use crate::cdf::buffer::{Body, HEAD, TAIL};
use crate::cdf::encode::fragment::{Fragment, Piece};
use crate::cdf::encode::{json, KeyKind};
use crate::cdf::resource::{Column, Resource, Rule};

/// What some rows change of existing items.
pub(super) struct Patches {
    /// The request for all rows that change anything.
    body: Body,
    /// The place of each row in it; None for rows that change nothing that can be changed.
    places: HashMap<usize, Option<usize>>,
}

impl Patches {
    /// Those of rows of a body. `columns`: what becomes of the columns of a sequence, by row.
    pub(super) fn of(
        body: &BodyRows<'_>,
        rows: &[usize],
        resource: &'static Resource,
        kind: KeyKind,
        columns: &HashMap<usize, Vec<u8>>,
    ) -> Patches {
        let mut writer = PatchWriter::new(resource, kind);
        // As much again, for what goes around the values.
        let room: usize = rows.iter().map(|at| body.fragment(*at).bytes().len() * 2).sum();
        let mut bytes = Vec::with_capacity(HEAD.len() + room + TAIL.len());
        bytes.extend_from_slice(HEAD);
        let (mut items, mut places) = (Vec::with_capacity(rows.len()), HashMap::with_capacity(rows.len()));
        for at in rows.iter().copied() {
            let start = bytes.len();
            if !items.is_empty() {
                bytes.push(b',');
            }
            let begin = bytes.len();
            if writer.write(&mut bytes, body.fragment(at), columns.get(&at).map(Vec::as_slice)) {
                places.insert(at, Some(items.len()));
                items.push((begin as u32, bytes.len() as u32));
            } else {
                bytes.truncate(start);
                places.insert(at, None);
            }
        }
        bytes.extend_from_slice(TAIL);
        Patches { body: Body { bytes: bytes.into(), items, family: Vec::new() }, places }
    }

    /// Whether the row changes anything.
    pub(super) fn changes(&self, at: usize) -> bool {
        self.places.get(&at).is_some_and(Option::is_some)
    }

    /// The request for some rows.
    pub(super) fn request(&self, part: &[usize]) -> bytes::Bytes {
        if part.len() == self.body.items.len() {
            return self.body.bytes.clone();
        }
        let places = part.iter().filter_map(|at| self.places.get(at).copied().flatten());
        Body::of(places.map(|place| self.body.fragment(place))).bytes
    }
}

/// How a property is written.
struct PropertyPatch {
    name: &'static str,
    change: PropertyChange,
}

enum PropertyChange {
    /// Not at all: CDF cannot change it, or it is the key.
    None,
    /// As CDF has it for the columns of a sequence.
    Columns,
    /// What goes before a value, and what is written where there is none.
    Set { before: Vec<u8>, cleared: Vec<u8> },
}

impl PropertyPatch {
    fn of(column: &'static Column, kind: KeyKind) -> PropertyPatch {
        let change = match column.rule {
            rule if rule.is_immutable() => PropertyChange::None,
            Rule::ExternalId if kind == KeyKind::Key => PropertyChange::None,
            Rule::SequenceColumns => PropertyChange::Columns,
            _ => {
                let mut before = Vec::new();
                json::write(&mut before, column.property);
                before.push(b':');
                let cleared = [before.as_slice(), column.cleared().as_bytes()].concat();
                before.extend_from_slice(b"{\"set\":");
                PropertyChange::Set { before, cleared }
            }
        };
        PropertyPatch { name: column.property, change }
    }
}

/// Writes elements of update requests.
struct PatchWriter {
    /// Every property.
    members: Vec<PropertyPatch>,
    /// Where the properties of the last row are in it: those of the next row are mostly the same.
    last: Vec<usize>,
}

impl PatchWriter {
    fn new(resource: &'static Resource, kind: KeyKind) -> Self {
        let members = resource.columns.iter().map(|column| PropertyPatch::of(column, kind)).collect();
        PatchWriter { members, last: Vec::new() }
    }

    /// Appends the element for a row. Returns whether it changes anything.
    fn write(&mut self, out: &mut Vec<u8>, row: Fragment<'_>, columns: Option<&[u8]>) -> bool {
        let mut pieces = row.pieces();
        let Some(Piece::Member(name, value)) = pieces.next() else { return false };
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
        out.extend_from_slice(b",\"update\":{");
        let start = out.len();
        self.properties(out, start, pieces, columns);
        let changes = out.len() > start;
        out.extend_from_slice(b"}}");
        changes
    }

    fn properties<'a>(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        pieces: impl Iterator<Item = Piece<'a>>,
        columns: Option<&[u8]>,
    ) {
        for (place, piece) in pieces.enumerate() {
            match piece {
                Piece::Member(name, value) => self.change(out, start, place, name, value, columns),
                Piece::Existing(row) => {
                    out.truncate(start);
                    for (place, piece) in row.pieces().enumerate() {
                        if let Piece::Member(name, value) = piece {
                            self.change(out, start, place, name, value, columns);
                        }
                    }
                }
            }
        }
    }

    /// Appends a property, if it can be changed.
    fn change(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        place: usize,
        name: &[u8],
        value: &[u8],
        columns: Option<&[u8]>,
    ) {
        let Some(member) = self.member(place, name) else { return };
        let (before, value) = match (&member.change, columns) {
            (PropertyChange::None, _) | (PropertyChange::Columns, None) => return,
            (PropertyChange::Columns, Some(columns)) => {
                separate(out, start);
                json::write(out, member.name);
                out.push(b':');
                out.extend_from_slice(columns);
                return;
            }
            (PropertyChange::Set { cleared, .. }, _) if value == b"null" => (cleared, None),
            (PropertyChange::Set { before, .. }, _) => (before, Some(value)),
        };
        separate(out, start);
        out.extend_from_slice(before);
        if let Some(value) = value {
            out.extend_from_slice(value);
            out.push(b'}');
        }
    }

    /// The property of this name.
    fn member(&mut self, place: usize, name: &[u8]) -> Option<&PropertyPatch> {
        let is = |member: &PropertyPatch| member.name.as_bytes() == name;
        let guess = self.last.get(place).copied().filter(|at| is(&self.members[*at]));
        let at = guess.or_else(|| self.members.iter().position(is))?;
        if self.last.len() <= place {
            self.last.resize(place + 1, 0);
        }
        self.last[place] = at;
        self.members.get(at)
    }
}

fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::resource::Resource;

    fn patched(resource: &str, kind: KeyKind, rows: &[&str]) -> (Patches, Vec<bool>) {
        let body = Body::of(rows);
        let columns = HashMap::from([(1, br#"{"add":[]}"#.to_vec())]);
        let resource = Resource::get(resource).unwrap();
        let body = BodyRows::of(&body);
        let patches = Patches::of(&body, &body.all(), resource, kind, &columns);
        let changes = (0..rows.len()).map(|at| patches.changes(at)).collect();
        (patches, changes)
    }

    #[test]
    fn rows_become_updates() {
        let rows = [
            r#"{"externalId":"a\",}","name":"A: {\"x\"}, ]","metadata":{"k}":"[\"","l":"\\"},"labels":[{"externalId":"x"}],"parentId":17}"#,
            r#"{"externalId":"b","metadata":null,"description":null,"labels":null}"#,
            r#"{"externalId":"c"}"#,
            r#"{"externalId":"d","name":"new","":{"source":"s","description":null}}"#,
            r#"{"externalId":"e","name":"new","":{}}"#,
            r#"{"externalId":"f","geoLocation":{"type": "Feature", "a": [1.5, true, {"b": "]"}]},"source":""}"#,
        ];
        let (patches, changes) = patched("assets", KeyKind::Key, &rows);
        assert_eq!(changes, [true, true, false, true, false, true]);
        let wanted = [
            r#"{"externalId":"a\",}","update":{"name":{"set":"A: {\"x\"}, ]"},"metadata":{"set":{"k}":"[\"","l":"\\"}},"labels":{"set":[{"externalId":"x"}]},"parentId":{"set":17}}}"#,
            r#"{"externalId":"b","update":{"metadata":{"set":{}},"description":{"setNull":true},"labels":{"set":[]}}}"#,
            r#"{"externalId":"d","update":{"source":{"set":"s"},"description":{"setNull":true}}}"#,
            r#"{"externalId":"f","update":{"geoLocation":{"set":{"type": "Feature", "a": [1.5, true, {"b": "]"}]}},"source":{"set":""}}}"#,
        ];
        let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(patches.request(&[0, 1, 3, 5])), format!("{{\"items\":[{}]}}", wanted.join(",")));
        assert_eq!(text(patches.request(&[3, 0])), format!("{{\"items\":[{},{}]}}", wanted[2], wanted[0]));
    }

    #[test]
    fn what_cannot_be_changed_is_left_out() {
        let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let row = r#"{"externalId":"a","isString":false,"isStep":true}"#;
        let (patches, changes) = patched("timeseries", KeyKind::Key, &[row]);
        assert_eq!(changes, [true]);
        assert_eq!(
            text(patches.request(&[0])),
            r#"{"items":[{"externalId":"a","update":{"isStep":{"set":true}}}]}"#
        );
        let (_, changes) = patched("files", KeyKind::Key, &[r#"{"externalId":"a","name":"n"}"#]);
        assert_eq!(changes, [false]);
        // By id, the external id is a property like others.
        let (patches, _) = patched("events", KeyKind::Id, &[r#"{"id":5,"externalId":"b"}"#]);
        assert_eq!(
            text(patches.request(&[0])),
            r#"{"items":[{"id":5,"update":{"externalId":{"set":"b"}}}]}"#
        );
        let row = r#"{"externalId":"a","columns":[{"externalId":"c"}]}"#;
        let (patches, changes) = patched("sequences", KeyKind::Key, &[row, row]);
        assert_eq!(changes, [false, true]);
        assert_eq!(
            text(patches.request(&[1])),
            r#"{"items":[{"externalId":"a","update":{"columns":{"add":[]}}}]}"#
        );
        let (patches, _) =
            patched("extraction_pipelines", KeyKind::Key, &[r#"{"externalId":"a","source":null}"#]);
        assert_eq!(
            text(patches.request(&[0])),
            r#"{"items":[{"externalId":"a","update":{"source":{"set":""}}}]}"#
        );
    }
}
