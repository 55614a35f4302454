//! Sequences: columns that are new are added to existing ones, and rows are grouped as CDF takes them.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use serde_json::value::RawValue;
use serde_json::{json, Value};

use super::body::{listing, Parsed};
use super::search::Search;
use super::{Delivery, Work};
use crate::cdf::client::Resend;
use crate::cdf::encode::json::{self as json_writer, Properties};
use crate::cdf::error::{Error, Kind, RequestError};
use crate::cdf::resource::sequence_rows::{
    COLUMNS, COLUMNS_PER_ITEM, ITEMS_PER_REQUEST, ROWS_PER_REQUEST, ROW_NUMBER, VALUES_PER_REQUEST,
};
use crate::cdf::resource::{Items, Rule};
use crate::cdf::table::OnConflict;

impl Delivery<'_> {
    /// Adds the columns that the rows define and the existing sequences lack; `answer` has these.
    pub(super) async fn add_columns(
        &self,
        items: &Items,
        parsed: &Parsed<'_>,
        rows: &[usize],
        answer: &Bytes,
    ) -> Result<(), Error> {
        let resource = self.destination.resource;
        let definitions = resource.columns.iter().find(|column| column.rule == Rule::SequenceColumns);
        let Some(property) = definitions.map(|column| column.property) else {
            return Ok(());
        };
        let defining: Vec<usize> =
            rows.iter().copied().filter(|at| parsed.items[*at].get(property).is_some()).collect();
        if defining.is_empty() {
            return Ok(());
        }
        let existing = listing(answer)?;
        let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
        let mut by_key: HashMap<String, &Value> = HashMap::new();
        for item in &existing {
            for key in ["id", "externalId"].into_iter().filter(|key| !item[*key].is_null()) {
                by_key.insert(format!("{key}{}", item[key]), item);
            }
        }
        let mut updates = Vec::new();
        let mut named = Vec::new();
        for at in defining {
            let Some((name, key)) = parsed.items[at].0.first() else { continue };
            let key = value(key);
            let Some(found) = by_key.get(&format!("{name}{key}")) else { continue };
            let mut added = Vec::new();
            let wanted = parsed.items[at].get(property).map(value).unwrap_or_default();
            for column in wanted.as_array().into_iter().flatten() {
                let same = |other: &&Value| other["externalId"] == column["externalId"];
                match found[property].as_array().into_iter().flatten().find(same) {
                    None => added.push(column.clone()),
                    Some(has)
                        if !column["valueType"].is_null() && column["valueType"] != has["valueType"] =>
                    {
                        let why = format!(
                            "{}: column {} of an existing {} cannot change its valueType; it is {}",
                            resource.name, column["externalId"], resource.noun, has["valueType"]
                        );
                        return Err(Error::new(Kind::InvalidValue, why)
                            .detail(format!("Rows refused: {key}."))
                            .hint("Write it with the valueType that it has, or under another externalId."));
                    }
                    Some(_) => {}
                }
            }
            if !added.is_empty() {
                updates.push(json!({ &**name: key, "update": { property: { "add": added } } }));
                named.push(key.to_string());
            }
        }
        if updates.is_empty() {
            return Ok(());
        }
        let request = json!({ "items": updates }).to_string().into_bytes();
        // Sent again after a lost answer, the columns would be refused because of themselves.
        match self.post_json(&format!("{}/update", items.path), request, Resend::OnlyIfNotReceived).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error, || (named.clone(), named.len()))),
        }
    }

    /// Those of the rows that their sequence has already, in their order.
    async fn existing_rows(&self, parsed: &Parsed<'_>) -> Result<Vec<usize>, Error> {
        let mut existing = Vec::new();
        for ((name, key), rows) in by_sequence(parsed)? {
            let numbers = rows.iter().map(|(number, _)| *number);
            let (first, last) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
            let mut request = json!({ "start": first, "limit": ROWS_PER_REQUEST });
            request[name] = serde_json::from_str(key).unwrap_or_default();
            // The end is exclusive; the largest row number needs none.
            if let Some(end) = last.checked_add(1) {
                request["end"] = end.into();
            }
            let mut taken: HashSet<i64> = HashSet::new();
            loop {
                let body = request.to_string().into_bytes();
                let answer = match self.post_json("/sequences/data/list", body, Resend::Always).await {
                    Ok(answer) => answer,
                    // The write itself will say that the sequence is missing.
                    Err(RequestError::Api(api)) if !api.missing.is_empty() || api.is_absent() => break,
                    Err(error) => return Err(error.into_error(&self.destination.resource.read_capability())),
                };
                let answer: Value = answer.json()?;
                let found = answer["rows"].as_array().into_iter().flatten();
                taken.extend(found.filter_map(|row| row[ROW_NUMBER].as_i64()));
                match answer["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()) {
                    Some(cursor) => request["cursor"] = cursor.into(),
                    None => break,
                }
            }
            existing.extend(rows.iter().filter(|(number, _)| taken.contains(number)).map(|(_, at)| *at));
        }
        existing.sort_unstable();
        Ok(existing)
    }

    /// Rows of sequences. CDF writes cells, so that every request may be sent again.
    pub(super) async fn sequence_rows(&mut self, work: &Work) -> Result<(), Error> {
        let body = &work.body;
        let parsed = Parsed::all(body)?;
        let mut rows: Vec<usize> = (0..body.items.len()).collect();
        if matches!(work.mode.on_conflict, OnConflict::Ignore | OnConflict::Error) {
            let existing = self.existing_rows(&parsed).await?;
            if work.mode.on_conflict == OnConflict::Error && !existing.is_empty() {
                return Err(self.exists(body, &existing));
            }
            self.accepted += existing.len();
            rows.retain(|at| existing.binary_search(at).is_err());
        }
        let mut search = Search::new(rows, false);
        while let Some(mut part) = search.next() {
            let Some(request) = request(&parsed, &part)? else {
                let second = part.split_off(part.len() / 2);
                search.again(second);
                search.again(part);
                continue;
            };
            match self.post_json("/sequences/data", request, Resend::Always).await {
                Ok(_) => self.accepted += part.len(),
                Err(error) => self.narrow(&mut search, part, error, body)?,
            }
        }
        self.conclude(search, body)
    }
}

/// The property that refers to a sequence, and its value as JSON.
type SequenceKey<'p> = (&'p str, &'p str);

/// The sequences, with the numbers and places of their rows.
fn by_sequence<'p>(parsed: &'p Parsed<'_>) -> Result<HashMap<SequenceKey<'p>, Vec<(i64, usize)>>, Error> {
    let mut sequences: HashMap<SequenceKey<'p>, Vec<(i64, usize)>> = HashMap::new();
    for (at, item) in parsed.items.iter().enumerate() {
        let number = item.get(ROW_NUMBER).and_then(|number| number.get().parse().ok());
        let (Some((name, key)), Some(number)) = (item.0.first(), number) else {
            return Err(Error::internal("a sequence row without its key"));
        };
        sequences.entry((name, key.get())).or_default().push((number, at));
    }
    Ok(sequences)
}

/// Rows of one sequence with the same columns.
struct Group<'p> {
    reference: (&'p str, &'p str),
    columns: Vec<&'p str>,
    /// Row numbers and their values.
    rows: Vec<(&'p str, Vec<&'p str>)>,
}

/// The request for some rows; None if they are too many for one.
fn request(parsed: &Parsed<'_>, part: &[usize]) -> Result<Option<Vec<u8>>, Error> {
    let objects: Vec<Properties> = part
        .iter()
        .map(|at| parsed.items[*at].get(COLUMNS).map_or("{}", RawValue::get).as_bytes())
        .map(Properties::parse)
        .collect::<Result<_, _>>()?;
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<(&str, Vec<&str>), usize> = HashMap::new();
    let mut values = 0;
    for (at, object) in part.iter().zip(&objects) {
        let item = &parsed.items[*at];
        let (Some((name, key)), Some(number)) = (item.0.first(), item.get(ROW_NUMBER)) else {
            return Err(Error::internal("a sequence row without its key"));
        };
        // The order of a row's columns means nothing.
        let mut cells: Vec<(&str, &str)> =
            object.0.iter().map(|(name, value)| (&**name, value.get())).collect();
        cells.sort_unstable();
        values += cells.len();
        for cells in cells.chunks(COLUMNS_PER_ITEM) {
            let columns: Vec<&str> = cells.iter().map(|(name, _)| *name).collect();
            let place = *places.entry((key.get(), columns.clone())).or_insert_with(|| {
                groups.push(Group { reference: (name, key.get()), columns, rows: Vec::new() });
                groups.len() - 1
            });
            groups[place].rows.push((number.get(), cells.iter().map(|(_, value)| *value).collect()));
        }
    }
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let too_many = rows > ROWS_PER_REQUEST || values > VALUES_PER_REQUEST || groups.len() > ITEMS_PER_REQUEST;
    if too_many && part.len() > 1 {
        return Ok(None);
    }
    let mut out = b"{\"items\":[".to_vec();
    for (at, group) in groups.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        json_writer::write(&mut out, group.reference.0);
        out.push(b':');
        out.extend_from_slice(group.reference.1.as_bytes());
        out.extend_from_slice(b",\"columns\":");
        json_writer::write(&mut out, &group.columns);
        out.extend_from_slice(b",\"rows\":[");
        for (at, (number, values)) in group.rows.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"{\"rowNumber\":" } else { b",{\"rowNumber\":" });
            out.extend_from_slice(number.as_bytes());
            out.extend_from_slice(b",\"values\":[");
            out.extend_from_slice(values.join(",").as_bytes());
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}");
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::buffer::Body;

    #[test]
    fn rows_are_grouped_by_sequence_and_columns() {
        let rows: [&[u8]; 3] = [
            br#"{"externalId":"s","rowNumber":0,"columns":{"b":null,"a":1.5}}"#,
            br#"{"externalId":"s","rowNumber":1,"columns":{"a":2,"b":"x"}}"#,
            br#"{"externalId":"s","rowNumber":2,"columns":{"a":3}}"#,
        ];
        let body = Body::from_fragments(rows);
        let parsed = Parsed::all(&body).unwrap();
        let request = request(&parsed, &[0, 1, 2]).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(request).unwrap(),
            r#"{"items":[{"externalId":"s","columns":["a","b"],"rows":[{"rowNumber":0,"values":[1.5,null]},{"rowNumber":1,"values":[2,"x"]}]},{"externalId":"s","columns":["a"],"rows":[{"rowNumber":2,"values":[3]}]}]}"#
        );
    }
}
