//! Rows of sequences, in the requests that CDF takes: a request names each sequence once, with one list of columns.
//!
//! A null clears its cell, so rows with different columns cannot share a list; they go in separate requests.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use serde_json::{json, Value};

use super::body::BodyRows;
use super::delete::without_missing;
use super::search::Search;
use super::send::{Meaning, PartSource, RowRequests};
use super::transfer::{json_post, Transfer};
use crate::cdf::encode::fragment::ParsedRow;
use crate::cdf::encode::json::{self as json_writer, Properties};
use crate::cdf::error::{Error, RequestError};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::Request;
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::sequence_rows::{
    COLUMNS_PER_ITEM, ITEMS_PER_REQUEST, ROWS_PER_REQUEST, ROW_NUMBER, SEQUENCE_ROWS, VALUES_PER_REQUEST,
};
use crate::cdf::table::OnConflict;

impl Transfer<'_> {
    /// Writes rows. CDF writes single cells, so every request may be sent again.
    pub(super) async fn sequence_rows(&mut self) -> Result<(), Error> {
        let (body, on_conflict) = (&BodyRows::of(&self.request.body), self.request.header.mode.on_conflict);
        let parsed = body.parsed()?;
        let columns = columns(parsed)?;
        let mut rows = body.all();
        if matches!(on_conflict, OnConflict::Ignore | OnConflict::Error) {
            let existing = self.existing_rows(parsed).await?;
            if on_conflict == OnConflict::Error && !existing.is_empty() {
                return Err(self.exists(body, &existing));
            }
            self.acknowledge(existing.len());
            rows.retain(|at| existing.binary_search(at).is_err());
        }
        let search = Search::new(rows, false);
        self.send_parts(&mut CellWrites::new(body, parsed, &columns, search)).await
    }

    /// Deletes rows. Rows that do not exist count as deleted.
    pub(super) async fn delete_sequence_rows(&mut self) -> Result<(), Error> {
        let body = &BodyRows::of(&self.request.body);
        self.send_rows(Search::new(body.all(), false), body, &mut RowDeletion { body }).await
    }

    /// Returns those of the rows that exist in their sequence, in order.
    async fn existing_rows(&self, parsed: &[ParsedRow<'_>]) -> Result<Vec<usize>, Error> {
        let mut existing = Vec::new();
        for ((name, key), rows) in by_sequence(parsed, 0..parsed.len())? {
            let rows: Vec<(i64, usize)> =
                rows.into_iter().filter_map(|(number, at)| Some((number.parse().ok()?, at))).collect();
            let numbers = rows.iter().map(|(number, _)| *number);
            let (first, last) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
            let mut request = json!({ "start": first, "limit": ROWS_PER_REQUEST });
            request[name] = serde_json::from_str(key).unwrap_or_default();
            // The end is exclusive; after the largest row number none is needed.
            if let Some(end) = last.checked_add(1) {
                request["end"] = end.into();
            }
            let mut taken: HashSet<i64> = HashSet::new();
            loop {
                let body = request.to_string().into_bytes();
                let asked = self.ask(SEQUENCE_ROWS.list(), body, Owed::SequenceRows).await;
                let answer = match asked {
                    Ok(answer) => answer,
                    // The write itself will report that the sequence is missing.
                    Err(RequestError::Api(api)) if !api.missing.is_empty() || api.is_absent() => break,
                    Err(error) => return Err(self.unread(error)),
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
}

/// Writes cells. A part of the rows may take several requests, each with some of the cells of its rows.
struct CellWrites<'p, 'b> {
    body: &'p BodyRows<'b>,
    parsed: &'p [ParsedRow<'b>],
    columns: &'p [Properties<'p>],
    search: Search,
    /// Rows of which some cells are acknowledged.
    begun: HashSet<usize>,
    /// The current part, and its requests that are still to be sent.
    part: Vec<usize>,
    requests: VecDeque<CellRequest<'p>>,
    /// By row: how many of the part's requests are left after the last one that has cells of the row.
    after: HashMap<usize, usize>,
    /// Rows of the part whose last cells are not acknowledged yet.
    open: HashSet<usize>,
}

impl<'p, 'b> CellWrites<'p, 'b> {
    fn new(
        body: &'p BodyRows<'b>,
        parsed: &'p [ParsedRow<'b>],
        columns: &'p [Properties<'p>],
        search: Search,
    ) -> Self {
        CellWrites {
            body,
            parsed,
            columns,
            search,
            begun: HashSet::new(),
            part: Vec::new(),
            requests: VecDeque::new(),
            after: HashMap::new(),
            open: HashSet::new(),
        }
    }

    /// Starts the next part; false if there is none.
    fn begin(&mut self) -> Result<bool, Error> {
        let Some(part) = self.search.next() else { return Ok(false) };
        self.requests = insertions(self.parsed, self.columns, &part)?.into();
        self.after = HashMap::with_capacity(part.len());
        for (position, request) in self.requests.iter().enumerate() {
            let after = self.requests.len() - 1 - position;
            self.after.extend(request.rows().map(|at| (at, after)));
        }
        self.open = part.iter().copied().collect();
        self.part = part;
        Ok(true)
    }
}

impl PartSource for CellWrites<'_, '_> {
    /// The rows that have cells in a request.
    type Part = Vec<usize>;

    fn next(&mut self, _: &Transfer<'_>) -> Result<Option<(Vec<usize>, Request)>, Error> {
        while self.requests.is_empty() {
            if !self.begin()? {
                return Ok(None);
            }
        }
        let Some(cells) = self.requests.pop_front() else { return Ok(None) };
        let request = json_post(SEQUENCE_ROWS.write(), cells.body(), Resend::Always, Owed::Object);
        Ok(Some((cells.rows().collect(), request)))
    }

    fn taken(&mut self, transfer: &mut Transfer<'_>, part: Vec<usize>, _: &Response) -> Result<(), Error> {
        for at in part {
            if self.after[&at] == self.requests.len() && self.open.remove(&at) {
                transfer.acknowledge(1);
                self.begun.remove(&at);
            } else {
                self.begun.insert(at);
            }
        }
        transfer.in_part = self.begun.len();
        Ok(())
    }

    /// Continues with the part's other rows whose last cells were not sent.
    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        mut part: Vec<usize>,
        error: RequestError,
    ) -> Result<(), Error> {
        part.sort_unstable();
        self.requests.clear();
        self.open.retain(|at| part.binary_search(at).is_err());
        let mut others = std::mem::take(&mut self.part);
        others.retain(|at| self.open.contains(at));
        self.search.again(others);
        transfer.narrow(&mut self.search, part, error, self.body)
    }

    fn ended(&mut self, transfer: &Transfer<'_>) -> Result<(), Error> {
        match self.search.blame() {
            None => Ok(()),
            Some(blame) => Err(transfer.blamed(self.body, blame)),
        }
    }
}

/// Deletes rows.
struct RowDeletion<'p, 'b> {
    body: &'p BodyRows<'b>,
}

impl RowRequests for RowDeletion<'_, '_> {
    /// Splits a part at the most sequences that a request may name.
    fn fitting(&self, part: Vec<usize>) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let mut sequences = by_sequence(self.body.parsed()?, part)?;
        let later = sequences.split_off(sequences.len().min(ITEMS_PER_REQUEST));
        let places = |sequences: Sequences<'_>| {
            sequences.into_iter().flat_map(|(_, rows)| rows.into_iter().map(|(_, at)| at)).collect()
        };
        Ok((places(sequences), places(later)))
    }

    fn request(&self, _: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let content = deletion(self.body.parsed()?, part)?;
        Ok(json_post(SEQUENCE_ROWS.delete(), content, Resend::Always, Owed::Object))
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<usize>,
        error: RequestError,
    ) -> Result<Meaning, Error> {
        without_missing(transfer, self.body, part, error)
    }
}

/// The property that names a sequence, and its value as JSON.
type SequenceKey<'p> = (&'p str, &'p str);

/// The sequences in the order of their first row, with the numbers and positions of their rows.
type Sequences<'p> = Vec<(SequenceKey<'p>, Vec<(&'p str, usize)>)>;

fn by_sequence<'p>(
    parsed: &'p [ParsedRow<'_>],
    part: impl IntoIterator<Item = usize>,
) -> Result<Sequences<'p>, Error> {
    let mut sequences: Sequences<'p> = Vec::new();
    let mut places: HashMap<SequenceKey<'p>, usize> = HashMap::new();
    for at in part {
        let (Some((name, key)), Some(number)) = (parsed[at].key(), parsed[at].number()) else {
            return Err(Error::internal("a sequence row without its key"));
        };
        let key: SequenceKey<'p> = (name, key.get());
        let place = *places.entry(key).or_insert_with(|| {
            sequences.push((key, Vec::new()));
            sequences.len() - 1
        });
        sequences[place].1.push((number, at));
    }
    Ok(sequences)
}

/// A row's number, its position, and its values sorted by column.
struct Cells<'p> {
    number: &'p str,
    at: usize,
    values: Vec<(&'p str, &'p str)>,
}

/// The rows of one sequence in a request: all of them have values in the same columns.
#[derive(Debug)]
struct SequenceItem<'p> {
    sequence: SequenceKey<'p>,
    columns: Vec<&'p str>,
    rows: Vec<SequenceItemRow<'p>>,
}

#[derive(Debug)]
struct SequenceItemRow<'p> {
    number: &'p str,
    at: usize,
    values: Vec<&'p str>,
}

/// One `POST /sequences/data`.
#[derive(Debug, Default)]
struct CellRequest<'p> {
    items: Vec<SequenceItem<'p>>,
    rows: usize,
    values: usize,
}

impl<'p> CellRequest<'p> {
    fn has_room(&self, item: &SequenceItem<'p>) -> bool {
        self.items.len() < ITEMS_PER_REQUEST
            && self.rows + item.rows.len() <= ROWS_PER_REQUEST
            && self.values + item.rows.len() * item.columns.len() <= VALUES_PER_REQUEST
    }

    fn push(&mut self, item: SequenceItem<'p>) {
        self.rows += item.rows.len();
        self.values += item.rows.len() * item.columns.len();
        self.items.push(item);
    }

    /// Returns the positions of the rows that have cells in the request.
    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.items.iter().flat_map(|item| item.rows.iter().map(|row| row.at))
    }

    fn body(&self) -> Vec<u8> {
        let mut out = b"{\"items\":[".to_vec();
        for (at, item) in self.items.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
            json_writer::write(&mut out, item.sequence.0);
            out.push(b':');
            out.extend_from_slice(item.sequence.1.as_bytes());
            out.extend_from_slice(b",\"columns\":");
            json_writer::write(&mut out, &item.columns);
            out.extend_from_slice(b",\"rows\":[");
            for (at, row) in item.rows.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b"{\"rowNumber\":" } else { b",{\"rowNumber\":" });
                out.extend_from_slice(row.number.as_bytes());
                out.extend_from_slice(b",\"values\":[");
                out.extend_from_slice(row.values.join(",").as_bytes());
                out.extend_from_slice(b"]}");
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// Returns the columns of every row, with their values.
fn columns<'b>(parsed: &[ParsedRow<'b>]) -> Result<Vec<Properties<'b>>, Error> {
    parsed.iter().map(|row| row.columns(false)).collect()
}

/// Makes the requests for some rows.
fn insertions<'p>(
    parsed: &'p [ParsedRow<'_>],
    columns: &'p [Properties<'_>],
    part: &[usize],
) -> Result<Vec<CellRequest<'p>>, Error> {
    let mut requests: Vec<CellRequest<'p>> = Vec::new();
    for (sequence, rows) in by_sequence(parsed, part.iter().copied())? {
        let mut cells = Vec::with_capacity(rows.len());
        for (number, at) in rows {
            cells.push(Cells { number, at, values: values(&columns[at]) });
        }
        // A request has at most one item per sequence: the next one goes into a later request.
        let mut first = 0;
        for item in items(sequence, &cells) {
            let room =
                requests[first.min(requests.len())..].iter().position(|request| request.has_room(&item));
            let place = room.map_or(requests.len(), |after| first + after);
            if place == requests.len() {
                requests.push(CellRequest::default());
            }
            requests[place].push(item);
            first = place + 1;
        }
    }
    Ok(requests)
}

/// Returns the values of a row, sorted by column, since the order of columns has no meaning. Of two values under one
/// name the last counts.
fn values<'p>(columns: &'p Properties<'_>) -> Vec<(&'p str, &'p str)> {
    let mut values: Vec<(&str, &str)> =
        columns.0.iter().map(|(name, value)| (&**name, value.get())).collect();
    values.reverse();
    values.sort_by_key(|(name, _)| *name);
    values.dedup_by_key(|(name, _)| *name);
    values
}

/// The most column lists of one sequence that are sent one after another. With more lists, rows are split into cells.
const LISTS_OF_COLUMNS: usize = 32;

/// Arranges the rows of a sequence as items: rows with the same columns share one, so that a row is written as a whole
/// or not at all. If that makes too many items, columns with the same rows share one instead. A null clears its cell,
/// so no item may have a column that one of its rows does not write.
fn items<'p>(sequence: SequenceKey<'p>, rows: &[Cells<'p>]) -> Vec<SequenceItem<'p>> {
    let mut by_columns: HashMap<Vec<&str>, Vec<usize>> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        let columns = row.values.iter().map(|(name, _)| *name).collect();
        by_columns.entry(columns).or_default().push(at);
    }
    let mut groups: Vec<(Vec<&str>, Vec<usize>)> = by_columns.into_iter().collect();
    if groups.len() > LISTS_OF_COLUMNS {
        let mut rows_of: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            row.values.iter().for_each(|(name, _)| rows_of.entry(name).or_default().push(at));
        }
        let mut by_rows: HashMap<Vec<usize>, Vec<&str>> = HashMap::new();
        for (name, rows) in rows_of {
            by_rows.entry(rows).or_default().push(name);
        }
        if by_rows.len() < groups.len() {
            groups = by_rows.into_iter().map(|(rows, columns)| (columns, rows)).collect();
        }
    }
    // Hash tables have no order of their own; sorting makes the same requests from the same rows.
    for (columns, _) in &mut groups {
        columns.sort_unstable();
    }
    groups.sort_unstable_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    let mut items = Vec::new();
    for (columns, members) in groups {
        for columns in columns.chunks(COLUMNS_PER_ITEM) {
            let most = ROWS_PER_REQUEST.min(VALUES_PER_REQUEST / columns.len());
            for members in members.chunks(most) {
                let row = |at: &usize| {
                    let row = &rows[*at];
                    let value = |name: &&str| {
                        let found = row.values.binary_search_by_key(name, |(name, _)| *name);
                        found.map_or("null", |place| row.values[place].1)
                    };
                    SequenceItemRow {
                        number: row.number,
                        at: row.at,
                        values: columns.iter().map(value).collect(),
                    }
                };
                let rows = members.iter().map(row).collect();
                items.push(SequenceItem { sequence, columns: columns.to_vec(), rows });
            }
        }
    }
    items
}

/// Returns the body of the request that deletes some rows.
fn deletion(parsed: &[ParsedRow<'_>], rows: &[usize]) -> Result<Vec<u8>, Error> {
    let mut body = b"{\"items\":[".to_vec();
    for (at, ((name, key), rows)) in by_sequence(parsed, rows.iter().copied())?.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        json_writer::write(&mut body, name);
        body.push(b':');
        body.extend_from_slice(key.as_bytes());
        let numbers: Vec<&str> = rows.iter().map(|(number, _)| *number).collect();
        body.extend_from_slice(b",\"rows\":[");
        body.extend_from_slice(numbers.join(",").as_bytes());
        body.extend_from_slice(b"]}");
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::buffer::Body;
    use proptest::prelude::*;

    fn requests(rows: &[String]) -> Vec<Value> {
        let body = Body::of(rows);
        let body = BodyRows::of(&body);
        let parsed = body.parsed().unwrap();
        let columns = columns(parsed).unwrap();
        let requests = insertions(parsed, &columns, &body.all()).unwrap();
        requests.iter().map(|request| serde_json::from_slice(&request.body()).unwrap()).collect()
    }

    /// Returns every cell of the requests, and checks CDF's limits on them.
    fn cells(requests: &[Value]) -> Vec<(Value, i64, String, Value)> {
        let mut cells = Vec::new();
        for request in requests {
            let items = request["items"].as_array().unwrap();
            let mut named: Vec<&Value> = items.iter().map(|item| &item["externalId"]).collect();
            named.dedup();
            assert_eq!(named.len(), items.len(), "each sequence once");
            assert!((1..=ITEMS_PER_REQUEST).contains(&items.len()));
            let (mut rows, mut values) = (0, 0);
            for item in items {
                let columns = item["columns"].as_array().unwrap();
                assert!((1..=COLUMNS_PER_ITEM).contains(&columns.len()));
                for row in item["rows"].as_array().unwrap() {
                    let given = row["values"].as_array().unwrap();
                    assert_eq!(given.len(), columns.len());
                    rows += 1;
                    values += given.len();
                    for (column, value) in columns.iter().zip(given) {
                        let column = column.as_str().unwrap().to_owned();
                        let number = row["rowNumber"].as_i64().unwrap();
                        cells.push((item["externalId"].clone(), number, column, value.clone()));
                    }
                }
            }
            assert!(rows <= ROWS_PER_REQUEST && values <= VALUES_PER_REQUEST);
        }
        cells.sort_by(|a, b| (a.0.as_str(), a.1, &a.2).cmp(&(b.0.as_str(), b.1, &b.2)));
        cells
    }

    fn row(sequence: &str, number: usize, columns: &[(String, Value)]) -> String {
        let columns: serde_json::Map<String, Value> = columns.iter().cloned().collect();
        json!({ "externalId": sequence, "rowNumber": number, "columns": columns }).to_string()
    }

    #[test]
    fn rows_with_other_columns_go_in_another_request() {
        let rows = [
            r#"{"externalId":"s","rowNumber":0,"columns":{"b":null,"a":1.5}}"#,
            r#"{"externalId":"s","rowNumber":1,"columns":{"a":2,"b":"x"}}"#,
            r#"{"externalId":"s","rowNumber":2,"columns":{"a":3}}"#,
            r#"{"externalId":"t","rowNumber":2,"columns":{"a":4,"a":5}}"#,
        ];
        let found = requests(&rows.map(str::to_owned));
        assert_eq!(
            found,
            [
                json!({"items": [
                    {"externalId": "s", "columns": ["a", "b"], "rows": [
                        {"rowNumber": 0, "values": [1.5, null]}, {"rowNumber": 1, "values": [2, "x"]},
                    ]},
                    {"externalId": "t", "columns": ["a"], "rows": [{"rowNumber": 2, "values": [5]}]},
                ]}),
                json!({"items": [{"externalId": "s", "columns": ["a"], "rows": [{"rowNumber": 2, "values": [3]}]}]}),
            ]
        );
    }

    #[test]
    fn few_columns_in_many_combinations_go_column_by_column() {
        let rows: Vec<String> = (1..256)
            .map(|bits| {
                let columns: Vec<(String, Value)> = (0..8)
                    .filter(|at| bits >> at & 1 == 1)
                    .map(|at| (format!("c{at}"), json!(bits)))
                    .collect();
                row("s", bits, &columns)
            })
            .collect();
        let found = requests(&rows);
        assert_eq!(found.len(), 8);
        assert_eq!(cells(&found).len(), 8 * 128);
    }

    /// A row's sequence and values; `None` where the row does not list the column.
    type AnyRow = (usize, Vec<Option<bool>>);

    /// Makes rows of up to 1300 sequences with up to 400 columns; a row lists all columns, or a random number of them.
    fn any_rows() -> impl Strategy<Value = Vec<AnyRow>> {
        (1..1300usize, 1..400usize, 0.01..1.0f64, 1..900usize).prop_flat_map(
            |(sequences, width, listed, count)| {
                let value = prop::option::weighted(listed, prop::bool::weighted(0.8));
                prop::collection::vec((0..sequences, prop::collection::vec(value, 1..=width)), 1..=count)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn limits_hold_whatever_the_rows_are(any in any_rows()) {
            let (mut rows, mut expected) = (Vec::new(), Vec::new());
            for (number, (sequence, values)) in any.iter().enumerate() {
                let sequence = format!("s{sequence}");
                let mut columns: Vec<(String, Value)> = Vec::new();
                for (at, value) in values.iter().enumerate() {
                    // Every row has a column.
                    if value.is_some() || columns.is_empty() && at + 1 == values.len() {
                        let value = if *value == Some(true) { json!(number) } else { Value::Null };
                        columns.push((format!("c{at:03}"), value));
                    }
                }
                rows.push(row(&sequence, number, &columns));
                for (column, value) in columns {
                    expected.push((json!(sequence), number as i64, column, value));
                }
            }
            expected.sort_by(|a, b| (a.0.as_str(), a.1, &a.2).cmp(&(b.0.as_str(), b.1, &b.2)));
            prop_assert_eq!(cells(&requests(&rows)), expected);
        }
    }

    #[test]
    fn deletions_name_a_thousand_sequences_at_most() {
        let rows: Vec<String> =
            (0..2500).map(|at| format!(r#"{{"externalId":"s{}","rowNumber":{at}}}"#, at % 1200)).collect();
        let body = Body::of(&rows);
        let body = BodyRows::of(&body);
        let parsed = body.parsed().unwrap();
        let (mut part, mut seen) = ((0..rows.len()).collect::<Vec<usize>>(), Vec::new());
        while !part.is_empty() {
            let (mut places, later) = RowDeletion { body: &body }.fitting(part).unwrap();
            let items: Value = serde_json::from_slice(&deletion(parsed, &places).unwrap()).unwrap();
            let items = items["items"].as_array().unwrap();
            assert!(items.len() <= ITEMS_PER_REQUEST);
            let mut numbers: Vec<usize> = items
                .iter()
                .flat_map(|item| item["rows"].as_array().unwrap())
                .map(|number| number.as_u64().unwrap() as usize)
                .collect();
            numbers.sort_unstable();
            places.sort_unstable();
            assert_eq!(numbers, places);
            seen.extend(numbers);
            part = later;
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..2500).collect::<Vec<usize>>());
    }
}
