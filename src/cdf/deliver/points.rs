//! Datapoints: series that are missing are created or named, and refused requests are split by series.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashSet;
use prost::Message;
use serde_json::{json, Value};

use super::body::listing;
use super::search::SEARCHES;
use super::{Delivery, Work};
use crate::cdf::encode::points::wire;
use crate::cdf::error::{ApiError, Error, Fate, Identity, Kind, RequestError, NAMED_ROWS, SERIES};
use crate::cdf::http::owed::Owed;
use crate::cdf::http::request;
use crate::cdf::http::retry::Resend;
use crate::cdf::resource::datapoints::POINTS_PER_REQUEST;
use crate::cdf::resource::timeseries::TIMESERIES;
use crate::cdf::table::OnConflict;

impl Delivery<'_> {
    pub(super) async fn points(&mut self, string: bool, work: &Work) -> Result<(), Error> {
        let (body, rows) = match work.mode.on_conflict {
            OnConflict::Ignore => self.without_existing(&work.body.bytes).await?,
            OnConflict::Error => {
                self.refuse_existing(&work.body.bytes).await?;
                (work.body.bytes.clone(), work.rows)
            }
            _ => (work.body.bytes.clone(), work.rows),
        };
        self.accepted += work.rows - rows;
        let mut queue = VecDeque::from([(body, rows)]);
        if rows == 0 {
            return Ok(());
        }
        let mut created: HashSet<Identity> = HashSet::new();
        let mut searches = 0;
        let mut culprits: Vec<String> = Vec::new();
        let mut verdict: Option<ApiError> = None;
        while let Some((bytes, rows)) = queue.pop_front() {
            let content = request::Body::Protobuf(bytes.clone());
            let api = match self
                .post(&self.destination.resource.write(), content, Resend::Always, Owed::Object)
                .await
            {
                Ok(_) => {
                    self.accepted += rows;
                    continue;
                }
                Err(RequestError::Api(api)) => api,
                Err(error) => {
                    let series = series_of(&bytes)?;
                    let names: Vec<String> = series.iter().map(|series| series.to_string()).collect();
                    let count = names.len();
                    return Err(self.failed(error, SERIES, names, count, rows));
                }
            };
            if !api.missing.is_empty() {
                let new: Vec<Identity> =
                    api.missing.iter().filter(|series| !created.contains(*series)).cloned().collect();
                if !work.mode.create_missing || new.is_empty() {
                    return Err(self.missing_series(api, work.mode.create_missing));
                }
                self.create_series(&new, string).await?;
                created.extend(new);
                queue.push_front((bytes, rows));
                continue;
            }
            let request = decoded(&bytes)?;
            let searchable = matches!(api.status, 400 | 404 | 409 | 413 | 422);
            let more = searchable && searches < SEARCHES && culprits.len() < NAMED_ROWS;
            self.unknown += if api.unsure { rows } else { 0 };
            // A refusal is about a series, unless the request was too large.
            match if more { halves(&request, api.status == 413) } else { None } {
                Some(halves) => {
                    searches += 1;
                    for half in halves.into_iter().rev() {
                        let rows = half.items.iter().map(count).sum();
                        queue.push_front((half.encode_to_vec().into(), rows));
                    }
                }
                None => {
                    culprits.extend(request.items.iter().map(|item| identity(item).to_string()));
                    verdict.get_or_insert(api);
                    if !searchable {
                        break;
                    }
                }
            }
        }
        match verdict {
            None => Ok(()),
            Some(api) => {
                let count = culprits.len();
                let mut error = self.refused(api, SERIES, culprits, count);
                if !queue.is_empty() || count >= NAMED_ROWS {
                    error.rows.iter_mut().for_each(|rows| rows.more = !queue.is_empty());
                }
                Err(error)
            }
        }
    }

    /// Fails if a series has a point already at a moment of one of these.
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

    /// When the item's series has points already, between the first and the last of these.
    async fn existing_moments(&self, item: &wire::InsertionItem) -> Result<HashSet<i64>, Error> {
        let moments = moments(item);
        match (moments.iter().min(), moments.iter().max()) {
            (Some(first), Some(last)) => self.moments(&identity(item), *first, *last + 1).await,
            _ => Ok(HashSet::new()),
        }
    }

    /// The points of moments at which their series has none yet, and how many they are.
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

    /// When a series has points within a stretch of time. Milliseconds; the end is excluded.
    async fn moments(&self, series: &Identity, start: i64, end: i64) -> Result<HashSet<i64>, Error> {
        let mut moments = HashSet::new();
        let mut item = match series {
            Identity::Id(id) => json!({ "id": id }),
            Identity::ExternalId(name) => json!({ "externalId": name }),
            Identity::Instance { space, external_id } => {
                json!({ "instanceId": { "space": space, "externalId": external_id } })
            }
        };
        // By default CDF gives Good points only.
        item["ignoreBadDataPoints"] = false.into();
        item["treatUncertainAsBad"] = false.into();
        loop {
            let request = json!({
                "items": [item], "start": start, "end": end, "limit": POINTS_PER_REQUEST, "ignoreUnknownIds": true,
            });
            let request = request.to_string().into_bytes();
            let answer = self
                .post_json(&self.destination.resource.list(), request, Resend::Always, Owed::List)
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

    pub(super) fn missing_series(&self, api: ApiError, create_missing: bool) -> Error {
        let names = api.missing.iter().take(NAMED_ROWS).map(|series| series.to_string()).collect();
        let why = format!("the time series does not exist in CDF: {}", api.message);
        let mut error = Error::new(Kind::MissingReference, why)
            .about(self.destination.name())
            .rows(Fate::Refused, SERIES, names, api.missing.len())
            .trace(Some(api.trace()));
        error.hint = Some(match create_missing {
            false => "Insert the series into the table of time series first (the same transaction will do), or set the \
                      table's option create_missing to \"true\"."
                .into(),
            true => self.only_by_external_id(),
        });
        error
    }

    fn only_by_external_id(&self) -> String {
        format!(
            "Series can only be created by {}; those addressed by id or instance must exist.",
            self.column_name("external_id")
        )
    }

    /// Creates series of the kind that the points need, with their external id as name.
    pub(super) async fn create_series(&mut self, missing: &[Identity], string: bool) -> Result<(), Error> {
        let mut pending = Vec::new();
        for series in missing {
            match series {
                Identity::ExternalId(external_id) => pending.push(external_id.clone()),
                other => {
                    return Err(self
                        .error(Kind::MissingReference, "the time series does not exist in CDF")
                        .rows(Fate::Refused, SERIES, vec![other.to_string()], 1)
                        .hint(self.only_by_external_id()))
                }
            }
        }
        for part in pending.chunks(1000) {
            let mut part: Vec<&String> = part.iter().collect();
            while !part.is_empty() {
                let items: Vec<Value> = part
                    .iter()
                    .map(|name| json!({ "externalId": name, "name": name, "isString": string }))
                    .collect();
                let request = json!({ "items": items }).to_string().into_bytes();
                match self
                    .post_json(&TIMESERIES.write(), request, Resend::Always, Owed::Items(part.len()))
                    .await
                {
                    Ok(_) => {
                        self.created += part.len();
                        self.remember_series(part);
                        break;
                    }
                    Err(RequestError::Api(api)) if api.status == 409 && !api.duplicated.is_empty() => {
                        // Another request of this flush, or somebody else, was faster.
                        let before = part.len();
                        self.remember_series(
                            part.iter().copied().filter(|name| {
                                api.duplicated.contains(&Identity::ExternalId((*name).clone()))
                            }),
                        );
                        part.retain(|name| !api.duplicated.contains(&Identity::ExternalId((*name).clone())));
                        if part.len() == before {
                            let names = api.duplicated.iter().take(NAMED_ROWS).map(|name| name.to_string());
                            let (names, count) = (names.collect(), api.duplicated.len());
                            return Err(self.refused(api, SERIES, names, count));
                        }
                    }
                    Err(error) => {
                        let names = part.iter().take(NAMED_ROWS).map(|name| format!("\"{name}\"")).collect();
                        return Err(self.failed(error, SERIES, names, part.len(), 0));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The request in two: half of its series each, or half of the points of its only one if points may be parted.
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

fn series_of(body: &[u8]) -> Result<Vec<Identity>, Error> {
    Ok(decoded(body)?.items.iter().map(identity).collect())
}

/// Milliseconds.
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
