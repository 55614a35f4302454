//! Datapoints: missing series are created or named, and refused requests are split by series.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashSet;
use prost::Message;
use serde_json::{json, Value};

use super::body::listing;
use super::search::SEARCHES;
use super::send::PartSource;
use super::transfer::{json_post, Transfer};
use crate::cdf::encode::points::wire;
use crate::cdf::error::{ApiError, Error, Fate, Identity, Kind, RequestError, NAMED_ROWS, SERIES};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request::{self, Request};
use crate::cdf::http::response::Response;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::datapoints::POINTS_PER_REQUEST;
use crate::cdf::resource::properties::EXTERNAL_ID;
use crate::cdf::resource::timeseries::TIMESERIES;
use crate::cdf::resource::Role;
use crate::cdf::table::OnConflict;

/// The most series that one request creates.
const SERIES_PER_REQUEST: usize = 1000;

impl Transfer<'_> {
    pub(super) async fn points(&mut self, string: bool) -> Result<(), Error> {
        let request = self.request;
        let (bytes, rows) = match request.header.mode.on_conflict {
            OnConflict::Ignore => self.without_existing(&request.body.bytes).await?,
            OnConflict::Error => {
                self.refuse_existing(&request.body.bytes).await?;
                (request.body.bytes.clone(), request.rows)
            }
            _ => (request.body.bytes.clone(), request.rows),
        };
        self.acknowledge(request.rows - rows);
        if rows == 0 {
            return Ok(());
        }
        self.send_parts(&mut Insertion::new(string, PointPart { bytes, rows })).await
    }

    /// Creates series of the type that the points need, with their external ids as names.
    async fn create_series(&mut self, missing: &[Identity], string: bool) -> Result<(), Error> {
        let mut names = Vec::new();
        for series in missing {
            match series {
                Identity::ExternalId(external_id) => names.push(external_id.clone()),
                other => {
                    return Err(self
                        .error(Kind::MissingReference, "the time series does not exist in CDF")
                        .rows(Fate::Refused, SERIES, vec![other.to_string()], 1)
                        .hint(self.only_by_external_id()))
                }
            }
        }
        let open = names.chunks(SERIES_PER_REQUEST).map(<[String]>::to_vec).collect();
        self.send_parts(&mut SeriesCreation { string, open }).await
    }

    /// Fails if a series already has a point at the timestamp of one of these points.
    async fn refuse_existing(&self, bytes: &[u8]) -> Result<(), Error> {
        let (mut named, mut count) = (Vec::new(), 0);
        for item in &decoded(bytes)?.items {
            let existing = self.existing_moments(item).await?;
            let mut taken: Vec<i64> = moments(item).into_iter().filter(|at| existing.contains(at)).collect();
            taken.sort_unstable();
            count += taken.len();
            let series = identity(item);
            let room = NAMED_ROWS.saturating_sub(named.len());
            named.extend(taken.iter().take(room).map(|at| format!("{series} at {at} ms")));
        }
        if count == 0 {
            return Ok(());
        }
        Err(self
            .error(Kind::Duplicate, "the datapoint exists in CDF already")
            .refusing(named, count)
            .hint("The table's option on_conflict is \"error\"."))
    }

    /// Returns the timestamps at which the series already has points, between the first and the last of these points.
    async fn existing_moments(&self, item: &wire::InsertionItem) -> Result<HashSet<i64>, Error> {
        let moments = moments(item);
        match (moments.iter().min(), moments.iter().max()) {
            (Some(first), Some(last)) => self.moments(&identity(item), *first, *last + 1).await,
            _ => Ok(HashSet::new()),
        }
    }

    /// Returns the points at timestamps where their series has none yet, and their number.
    async fn without_existing(&self, bytes: &[u8]) -> Result<(Bytes, usize), Error> {
        let mut request = decoded(bytes)?;
        for item in &mut request.items {
            let existing = self.existing_moments(item).await?;
            match &mut item.points {
                Some(wire::Points::Numeric(points)) => {
                    points.datapoints.retain(|point| !existing.contains(&point.timestamp));
                }
                Some(wire::Points::String(points)) => {
                    points.datapoints.retain(|point| !existing.contains(&point.timestamp));
                }
                None => {}
            }
        }
        request.items.retain(|item| count(item) > 0);
        Ok((request.encode_to_vec().into(), request.items.iter().map(count).sum()))
    }

    /// Returns the timestamps of a series' points in a stretch of time. Milliseconds; the end is excluded.
    async fn moments(&self, series: &Identity, start: i64, end: i64) -> Result<HashSet<i64>, Error> {
        let mut moments = HashSet::new();
        let mut item = series.to_json();
        // By default CDF returns only Good points.
        item["ignoreBadDataPoints"] = false.into();
        item["treatUncertainAsBad"] = false.into();
        loop {
            let request = json!({
                "items": [item], "start": start, "end": end, "limit": POINTS_PER_REQUEST, "ignoreUnknownIds": true,
            });
            let request = request.to_string().into_bytes();
            let answer = self
                .ask(self.destination.resource.list(), request, Owed::List)
                .await
                .map_err(|error| self.unread(error))?;
            let Some(found) = listing(&answer)?.into_iter().next() else { return Ok(moments) };
            let points = found["datapoints"].as_array().into_iter().flatten();
            moments.extend(points.filter_map(|point| point["timestamp"].as_i64()));
            match found["nextCursor"].as_str().filter(|cursor| !cursor.is_empty()) {
                Some(cursor) => item["cursor"] = cursor.into(),
                None => return Ok(moments),
            }
        }
    }

    /// Makes the error for series that do not exist, and that cannot or must not be created.
    fn missing_series(&self, api: ApiError, create_missing: bool) -> Error {
        let names = api.missing.iter().take(NAMED_ROWS).map(|series| series.to_string()).collect();
        let why = format!("the time series does not exist in CDF: {}", api.message);
        let mut error = Error::new(Kind::MissingReference, why)
            .about(self.destination.name())
            .rows(Fate::Refused, SERIES, names, api.missing.len())
            .trace(Some(api.trace()));
        error.hint = Some(if create_missing {
            self.only_by_external_id()
        } else {
            "Insert the series into the table of time series first (the same transaction will do), or set the \
                      table's option create_missing to \"true\"."
                .into()
        });
        error
    }

    fn only_by_external_id(&self) -> String {
        format!(
            "Series can only be created by {}; those addressed by id or instance must exist.",
            self.name_of(Role::ExternalId)
        )
    }
}

/// Encoded points of some series, and their number.
struct PointPart {
    bytes: Bytes,
    rows: usize,
}

/// Writes points. Missing series are created if that is allowed. A request that is refused for another reason is halved
/// until one series is left, which is to blame.
struct Insertion {
    string: bool,
    open: VecDeque<PointPart>,
    /// Series that were created for their points.
    created: HashSet<Identity>,
    /// Requests that were halved.
    searches: usize,
    /// The series that are to blame.
    culprits: Vec<String>,
    /// The first refusal that series are to blame for.
    refusal: Option<ApiError>,
    /// Whether a refusal holds for every part, so that no further part is sent.
    stopped: bool,
}

impl Insertion {
    fn new(string: bool, all: PointPart) -> Self {
        Insertion {
            string,
            open: VecDeque::from([all]),
            created: HashSet::new(),
            searches: 0,
            culprits: Vec::new(),
            refusal: None,
            stopped: false,
        }
    }

    /// Creates the series that CDF misses, if that is allowed and was not done already.
    async fn create(&mut self, transfer: &mut Transfer<'_>, api: ApiError) -> Result<(), Error> {
        let create_missing = transfer.request.header.mode.create_missing;
        let new: Vec<Identity> =
            api.missing.iter().filter(|series| !self.created.contains(*series)).cloned().collect();
        if !create_missing || new.is_empty() {
            return Err(transfer.missing_series(api, create_missing));
        }
        transfer.create_series(&new, self.string).await?;
        self.created.extend(new);
        Ok(())
    }

    /// Halves a part that CDF has refused, or blames its series.
    fn search(&mut self, part: &PointPart, api: ApiError) -> Result<(), Error> {
        let request = decoded(&part.bytes)?;
        let searchable = matches!(api.status, 400 | 404 | 409 | 413 | 422);
        let more = searchable && self.searches < SEARCHES && self.culprits.len() < NAMED_ROWS;
        // A refusal is about a series, unless the request was too large.
        match if more { halves(&request, api.status == 413) } else { None } {
            Some(halves) => {
                self.searches += 1;
                for half in halves.into_iter().rev() {
                    let rows = half.items.iter().map(count).sum();
                    self.open.push_front(PointPart { bytes: half.encode_to_vec().into(), rows });
                }
            }
            None => {
                self.culprits.extend(request.items.iter().map(|item| identity(item).to_string()));
                self.refusal.get_or_insert(api);
                self.stopped = !searchable;
            }
        }
        Ok(())
    }
}

impl PartSource for Insertion {
    type Part = PointPart;

    fn next(&mut self, transfer: &Transfer<'_>) -> Result<Option<(PointPart, Request)>, Error> {
        let Some(part) = (!self.stopped).then(|| self.open.pop_front()).flatten() else { return Ok(None) };
        let request = Request {
            endpoint: transfer.destination.resource.write(),
            body: request::RequestBody::Protobuf(part.bytes.clone()),
            resend: Resend::Always,
            owed: Owed::Object,
        };
        Ok(Some((part, request)))
    }

    fn taken(&mut self, transfer: &mut Transfer<'_>, part: PointPart, _: &Response) -> Result<(), Error> {
        transfer.acknowledge(part.rows);
        Ok(())
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: PointPart,
        error: RequestError,
    ) -> Result<(), Error> {
        match error {
            RequestError::Api(api) if !api.missing.is_empty() => {
                self.create(transfer, api).await?;
                self.open.push_front(part);
                Ok(())
            }
            RequestError::Api(api) => {
                transfer.unknown += if api.unsure { part.rows } else { 0 };
                self.search(&part, api)
            }
            error => {
                let series = decoded(&part.bytes)?.items;
                let names: Vec<String> = series.iter().map(|item| identity(item).to_string()).collect();
                let count = names.len();
                Err(transfer.failed(error, SERIES, names, count, part.rows))
            }
        }
    }

    fn ended(&mut self, transfer: &Transfer<'_>) -> Result<(), Error> {
        let Some(api) = self.refusal.take() else { return Ok(()) };
        let culprits = std::mem::take(&mut self.culprits);
        let count = culprits.len();
        let mut error = transfer.refused(api, SERIES, culprits, count);
        if !self.open.is_empty() || count >= NAMED_ROWS {
            error.rows.iter_mut().for_each(|rows| rows.more = !self.open.is_empty());
        }
        Err(error)
    }
}

/// Creates time series. It is no error if a series exists: another request of this flush, or somebody else, was faster.
struct SeriesCreation {
    string: bool,
    /// The external ids that are still to be created, by request.
    open: VecDeque<Vec<String>>,
}

impl PartSource for SeriesCreation {
    type Part = Vec<String>;

    fn next(&mut self, _: &Transfer<'_>) -> Result<Option<(Vec<String>, Request)>, Error> {
        let Some(part) = self.open.pop_front() else { return Ok(None) };
        let item = |name: &String| json!({ EXTERNAL_ID: name, "name": name, "isString": self.string });
        let items: Vec<Value> = part.iter().map(item).collect();
        let content = json!({ "items": items }).to_string().into_bytes();
        let request = json_post(TIMESERIES.write(), content, Resend::Always, Owed::Items(part.len()));
        Ok(Some((part, request)))
    }

    fn taken(&mut self, transfer: &mut Transfer<'_>, part: Vec<String>, _: &Response) -> Result<(), Error> {
        transfer.created += part.len();
        transfer.context.fresh.remember_series(transfer.destination, &part);
        Ok(())
    }

    async fn refused(
        &mut self,
        transfer: &mut Transfer<'_>,
        part: Vec<String>,
        error: RequestError,
    ) -> Result<(), Error> {
        let api = match error {
            RequestError::Api(api) if api.status == 409 && !api.duplicated.is_empty() => api,
            error => {
                let names = part.iter().take(NAMED_ROWS).map(|name| format!("\"{name}\"")).collect();
                return Err(transfer.failed(error, SERIES, names, part.len(), 0));
            }
        };
        let exists = |name: &String| api.duplicated.contains(&Identity::ExternalId(name.clone()));
        let (existing, new): (Vec<String>, Vec<String>) = part.into_iter().partition(exists);
        if existing.is_empty() {
            let names = api.duplicated.iter().take(NAMED_ROWS).map(|name| name.to_string());
            let (names, count) = (names.collect(), api.duplicated.len());
            return Err(transfer.refused(api, SERIES, names, count));
        }
        transfer.context.fresh.remember_series(transfer.destination, &existing);
        if !new.is_empty() {
            self.open.push_front(new);
        }
        Ok(())
    }

    fn ended(&mut self, _: &Transfer<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Splits a request in two: half of its series each, or half of the points of its only series if `points` allows that.
fn halves(request: &wire::InsertionRequest, points: bool) -> Option<[wire::InsertionRequest; 2]> {
    let half = |items: &[wire::InsertionItem]| wire::InsertionRequest { items: items.to_vec() };
    let [item] = &*request.items else {
        let (first, second) = request.items.split_at(request.items.len() / 2);
        return (!first.is_empty()).then(|| [half(first), half(second)]);
    };
    let middle = count(item) / 2;
    if !points || middle == 0 {
        return None;
    }
    let part = |from: usize, to: usize| {
        let points = match item.points.as_ref()? {
            wire::Points::Numeric(points) => wire::Points::Numeric(wire::NumericPoints {
                datapoints: points.datapoints[from..to].to_vec(),
            }),
            wire::Points::String(points) => {
                wire::Points::String(wire::StringPoints { datapoints: points.datapoints[from..to].to_vec() })
            }
        };
        Some(half(&[wire::InsertionItem { reference: item.reference.clone(), points: Some(points) }]))
    };
    Some([part(0, middle)?, part(middle, count(item))?])
}

fn decoded(bytes: &[u8]) -> Result<wire::InsertionRequest, Error> {
    wire::InsertionRequest::decode(bytes)
        .map_err(|error| Error::internal(format!("encoded datapoints are not readable: {error}")))
}

fn identity(item: &wire::InsertionItem) -> Identity {
    match &item.reference {
        Some(wire::Reference::Id(id)) => Identity::Id(*id),
        Some(wire::Reference::ExternalId(external_id)) => Identity::ExternalId(external_id.clone()),
        Some(wire::Reference::Instance(instance)) => {
            Identity::Instance { space: instance.space.clone(), external_id: instance.external_id.clone() }
        }
        None => Identity::ExternalId(String::new()),
    }
}

/// Returns the timestamps of a series' points, in milliseconds.
fn moments(item: &wire::InsertionItem) -> Vec<i64> {
    match &item.points {
        Some(wire::Points::Numeric(points)) => points.datapoints.iter().map(|p| p.timestamp).collect(),
        Some(wire::Points::String(points)) => points.datapoints.iter().map(|p| p.timestamp).collect(),
        None => Vec::new(),
    }
}

fn count(item: &wire::InsertionItem) -> usize {
    match &item.points {
        Some(wire::Points::Numeric(points)) => points.datapoints.len(),
        Some(wire::Points::String(points)) => points.datapoints.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(series: &str, points: usize) -> wire::InsertionItem {
        let datapoints =
            (0..points).map(|at| wire::NumericPoint { timestamp: at as i64, ..Default::default() });
        wire::InsertionItem {
            reference: Some(wire::Reference::ExternalId(series.into())),
            points: Some(wire::Points::Numeric(wire::NumericPoints { datapoints: datapoints.collect() })),
        }
    }

    #[test]
    fn requests_are_halved_by_series_and_then_by_points() {
        let request = wire::InsertionRequest { items: vec![item("a", 3), item("b", 1), item("c", 1)] };
        let [first, second] = halves(&request, false).unwrap();
        assert_eq!((first.items.len(), second.items.len()), (1, 2));
        assert!(halves(&first, false).is_none());
        let [one, two] = halves(&first, true).unwrap();
        assert_eq!((count(&one.items[0]), count(&two.items[0])), (1, 2));
        assert!(halves(&one, true).is_none());
        assert!(halves(&wire::InsertionRequest { items: vec![] }, true).is_none());
    }
}
