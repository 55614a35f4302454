//! RAW rows: CDF replaces whole rows, so every request may be sent again, and a write that keeps columns of an existing
//! row has to read the row first.

use std::borrow::Cow;

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{create_body, BodyRows};
use super::search::Search;
use super::send::RowRequests;
use super::transfer::{json_post, Transfer};
use crate::cdf::buffer::{Body, BodyBuilder};
use crate::cdf::encode::fragment::{raw_row, ParsedRow};
use crate::cdf::encode::json::Properties;
use crate::cdf::error::{Error, Identity, Kind, RequestError};
use crate::cdf::http::endpoint::Endpoint;
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::{Request, RequestBody};
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::raw::{RawPlace, ROWS_PER_PAGE};
use crate::cdf::table::{NullHandling, OnConflict, Operation};

/// Up to this many rows are read one by one, if URLs can name them. For more, the table is read.
const SINGLE_READS: usize = 50;

impl Transfer<'_> {
    pub(super) async fn raw(&mut self) -> Result<(), Error> {
        let mode = self.request.header.mode;
        let place = self.raw_table()?;
        let partial = mode.operation == Operation::Update || mode.on_conflict == OnConflict::UpdateListed;
        let written = BodyRows::of(&self.request.body);
        let merged = if partial { Some(self.with_existing_columns(place, &written).await?) } else { None };
        let merged = merged.as_ref().map(BodyRows::of);
        let body = merged.as_ref().unwrap_or(&written);
        let all = match mode.on_conflict {
            OnConflict::Error | OnConflict::Ignore => self.not_existing(place, &written).await?,
            _ => body.all(),
        };
        let mut replacement = Replacement { endpoint: place.write().with("ensureParent", true), body };
        self.send_rows(Search::new(all, false), body, &mut replacement).await
    }

    /// Returns the table that the rows are in.
    pub(super) fn raw_table(&self) -> Result<RawPlace<'_>, Error> {
        match &self.destination.raw {
            Some((database, table)) => Ok(RawPlace::of(database, table)),
            None => Err(Error::internal("RAW rows without a database and table")),
        }
    }

    /// Returns those of the rows that CDF does not have yet. The others stay as they are, or are an error.
    async fn not_existing(&self, place: RawPlace<'_>, body: &BodyRows<'_>) -> Result<Vec<usize>, Error> {
        let on_conflict = self.request.header.mode.on_conflict;
        let keys = keys_of(body)?;
        let existing = self.read_rows(place, &keys, false).await?;
        let is_new = |at: &usize| !existing.contains_key(&keys[*at]);
        let (new, old): (Vec<usize>, Vec<usize>) = (0..keys.len()).partition(is_new);
        if on_conflict == OnConflict::Error && !old.is_empty() {
            return Err(self.exists(body, &old));
        }
        self.acknowledge(old.len());
        Ok(new)
    }

    /// Completes the rows with CDF's values in the columns that they do not write.
    async fn with_existing_columns(&self, place: RawPlace<'_>, body: &BodyRows<'_>) -> Result<Body, Error> {
        let mode = self.request.header.mode;
        let keys = keys_of(body)?;
        // A statement has read these rows, so they exist, whether a list shows them or not.
        let known = mode.operation == Operation::Update;
        let mut existing = self.read_rows(place, &keys, known).await?;
        let lost: Vec<String> =
            keys.iter().filter(|key| !existing.contains_key(*key)).map(|key| format!("\"{key}\"")).collect();
        if mode.operation == Operation::Update && !lost.is_empty() {
            let count = lost.len();
            return Err(self
                .error(Kind::MissingReference, "rows to be updated are gone")
                .refusing(lost, count)
                .hint("Something else has deleted them since the statement read them. Run the load again."));
        }
        let mut made = BodyBuilder::default();
        for (at, key) in keys.iter().enumerate() {
            let found = existing.remove(key);
            let written = body.row(at)?.columns(found.is_some())?;
            let was = found.as_ref().map_or("{}", |columns| columns.get());
            let mut columns = Properties::parse(was.as_bytes())?;
            for (name, value) in written.0 {
                let clears = value.get() == "null" && mode.null_handling == NullHandling::Ignore;
                match columns.0.iter().position(|(known, _)| *known == name) {
                    Some(at) if clears => drop(columns.0.remove(at)),
                    Some(at) => columns.0[at].1 = value,
                    None if clears => {}
                    None => columns.0.push((name, value)),
                }
            }
            made.append(&raw_row(key, &columns));
        }
        Ok(made.build())
    }

    /// Returns the columns of those rows that exist, as CDF has written them: what is not changed is sent back byte for
    /// byte. `known`: the rows existed moments ago, so one that the list of the table does not show is asked for by its
    /// key.
    async fn read_rows(
        &self,
        place: RawPlace<'_>,
        keys: &[String],
        known: bool,
    ) -> Result<HashMap<String, Box<RawValue>>, Error> {
        let mut rows = HashMap::new();
        let mut wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
        if keys.len() <= SINGLE_READS {
            self.read_by_keys(place, &mut wanted, &mut rows).await?;
        }
        let mut cursor: Option<String> = None;
        while !wanted.is_empty() {
            let page = place.rows().with("limit", ROWS_PER_PAGE).with_cursor(cursor.as_deref());
            let answer = self.get(page, Owed::List).await?;
            let Some(answer) = answer else { return Ok(rows) };
            let page: RawPage = serde_json::from_slice(&answer.body).map_err(|e| answer.unreadable(e))?;
            let ours = page.items.into_iter().filter(|row| wanted.remove(&*row.key));
            rows.extend(ours.map(|row| (row.key.into_owned(), row.columns.to_owned())));
            match page.next_cursor.filter(|cursor| !cursor.is_empty()) {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if known {
            self.read_by_keys(place, &mut wanted, &mut rows).await?;
        }
        Ok(rows)
    }

    /// Reads rows one by one, if URLs can name them, and removes them from those that are wanted.
    async fn read_by_keys(
        &self,
        place: RawPlace<'_>,
        wanted: &mut HashSet<&str>,
        rows: &mut HashMap<String, Box<RawValue>>,
    ) -> Result<(), Error> {
        let named: Vec<(&str, Endpoint)> =
            wanted.iter().filter_map(|key| Some((*key, place.row(key)?))).collect();
        for (key, endpoint) in named {
            wanted.remove(key);
            if let Some(answer) = self.get(endpoint, Owed::RawRow).await? {
                let row: RawRow = serde_json::from_slice(&answer.body).map_err(|e| answer.unreadable(e))?;
                rows.insert(row.key.into_owned(), row.columns.to_owned());
            }
        }
        Ok(())
    }

    /// Reads an endpoint; None if CDF says that it does not exist.
    async fn get(&self, endpoint: Endpoint, owed: Owed) -> Result<Option<Response>, Error> {
        let request = Request { endpoint, body: RequestBody::None, resend: Resend::Always, owed };
        match self.context.client.send(&self.destination.connection, &request, &self.limits).await {
            Ok(response) => Ok(Some(response)),
            Err(RequestError::Api(api)) if api.is_absent() => Ok(None),
            Err(error) => Err(self.unread(error)),
        }
    }
}

/// Writes whole rows, whatever exists under their keys.
struct Replacement<'p, 'b> {
    endpoint: Endpoint,
    body: &'p BodyRows<'b>,
}

impl RowRequests for Replacement<'_, '_> {
    fn request(&self, _: &Transfer<'_>, part: &[usize]) -> Result<Request, Error> {
        let content = create_body(self.body, part, false)?;
        Ok(json_post(self.endpoint.clone(), content, Resend::Always, Owed::Object))
    }
}

/// A page of rows in CDF's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPage<'a> {
    #[serde(borrow)]
    items: Vec<RawRow<'a>>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    columns: &'a RawValue,
}

/// Returns the rows' keys.
fn keys_of(body: &BodyRows<'_>) -> Result<Vec<String>, Error> {
    let key = |row: &ParsedRow<'_>| match row.identity() {
        Some(Identity::ExternalId(key)) => Ok(key),
        _ => Err(Error::internal("a RAW row without its key")),
    };
    body.parsed()?.iter().map(key).collect()
}
