//! Delivery of one request: create → 409 → update, missing series, references, and who is to blame when CDF refuses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use prost::Message;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{json, Value};

use super::buffer::{Body, Destination};
use super::client::{self, Client, Limits, Method, Request, Resend, Response};
use super::encode::json::Properties;
use super::encode::point::wire;
use super::encode::{json as json_writer, KeyKind};
use super::error::{list_names, ApiError, Error, Identity, Kind, RequestError, NAMED_ROWS};
use super::resource::raw::rows_path;
use super::resource::{Items, ReferenceTarget, Rule, Shape};
use super::table::{Mode, OnConflict};

/// Rounds of splitting off what exists, or what is missing. Each makes progress unless others write the same keys.
const ROUNDS: usize = 20;

/// Requests spent on finding the culprits of one refused request.
const SEARCHES: usize = 100;

/// What all requests of a flush share.
pub struct Context {
    pub client: Client,
    pub limits: Limits,
    /// Internal ids by what they are of and external id.
    references: Mutex<HashMap<(&'static str, String), i64>>,
}

impl Context {
    pub fn new(client: Client, limits: Limits) -> Self {
        Context { client, limits, references: Mutex::default() }
    }
}

/// One request to deliver.
pub struct Work {
    pub destination: Arc<Destination>,
    pub mode: Mode,
    pub kind: KeyKind,
    pub deferred: bool,
    /// Items are in an order that matters: later ones may need earlier ones.
    pub ordered: bool,
    pub rows: usize,
    pub body: Body,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Rows that CDF has acknowledged.
    pub accepted: usize,
    pub error: Option<Error>,
}

/// Delivers one request.
pub async fn deliver(context: Arc<Context>, work: Work) -> Outcome {
    let mut delivery = Delivery { context: &context, destination: &work.destination, accepted: 0 };
    let error = match &work.destination.resource.shape {
        Shape::Items(items) => delivery.items(items, &work).await.err(),
        Shape::Raw => delivery.raw(&work).await.err(),
        Shape::Datapoints { string } => delivery.points(*string, &work).await.err(),
    };
    Outcome { accepted: delivery.accepted, error }
}

struct Delivery<'c> {
    context: &'c Context,
    destination: &'c Destination,
    accepted: usize,
}

/// Items of a body, as CDF's objects.
struct Parsed<'b> {
    items: Vec<Properties<'b>>,
}

#[derive(Deserialize)]
struct Listing {
    items: Vec<Value>,
}

impl Delivery<'_> {
    async fn post(&self, path: &str, body: client::Body, resend: Resend) -> Result<Response, RequestError> {
        let request =
            Request { method: Method::Post, path: path.to_owned(), body, resend, accept_protobuf: false };
        self.context.client.send(&self.destination.connection, &request, &self.context.limits).await
    }

    async fn post_json(&self, path: &str, body: Vec<u8>, resend: Resend) -> Result<Response, RequestError> {
        self.post(path, client::Body::Json(Bytes::from(body)), resend).await
    }

    /// The error of a refused request, with the rows it is about.
    fn refused(&self, api: ApiError, rows: &[String], of: usize) -> Error {
        let resource = self.destination.resource;
        let mut error = api.into_error(&resource.write_capability());
        error.message = format!("{}: {}", self.destination.name(), error.message);
        if !rows.is_empty() {
            error.detail.insert(0, format!("Rows refused: {}.", list_names(rows.iter(), of.max(rows.len()))));
        }
        error
    }

    fn failed(&self, error: RequestError, rows: impl Fn() -> (Vec<String>, usize)) -> Error {
        let (names, of) = rows();
        match error {
            RequestError::Api(api) => self.refused(api, &names, of),
            RequestError::Failed(mut error) => {
                error.message = format!("{}: {}", self.destination.name(), error.message);
                if !names.is_empty() {
                    error.detail.insert(0, format!("Rows under way: {}.", list_names(names.iter(), of)));
                }
                error
            }
        }
    }

    // ---- items ----

    async fn items(&mut self, items: &Items, work: &Work) -> Result<(), Error> {
        let resolved = match work.deferred {
            true => Some(self.resolve(work).await?),
            false => None,
        };
        let body = resolved.as_ref().unwrap_or(&work.body);
        let all: Vec<usize> = (0..body.items.len()).collect();
        match work.kind {
            KeyKind::None => self.create_blindly(items, work, body, all).await,
            KeyKind::Id => {
                let missing = self.update(items, work, body, all).await?;
                self.none_missing(body, &missing)
            }
            KeyKind::Key => self.upsert(items, work, body, all).await,
        }
    }

    fn none_missing(&self, body: &Body, missing: &[usize]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let resource = self.destination.resource;
        Err(Error::new(
            Kind::MissingReference,
            format!("{}: no {} has this id", resource.name, resource.noun),
        )
        .detail(format!("Rows refused: {}.", names(body, missing)))
        .hint("A row with an id addresses an existing item. Leave id NULL to create one."))
    }

    /// Creates items that have no key. What may have arrived is never sent again.
    async fn create_blindly(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<(), Error> {
        let mut search = Search::new(all, work.ordered);
        while let Some(part) = search.next() {
            let request = create_body(body, &part, work.deferred)?;
            match self.post_json(items.path, request, Resend::OnlyIfNotReceived).await {
                Ok(_) => self.accepted += part.len(),
                Err(RequestError::Api(api)) => search.refused(part, api, body, self.destination)?,
                Err(error) => return Err(self.failed(error, || (named(body, &part), part.len()))),
            }
        }
        self.conclude(search, body)
    }

    async fn upsert(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<(), Error> {
        // An item without a value that creating takes can only be an update: CDF would refuse the whole request.
        let (mut pending, mut existing) = (all, Vec::new());
        if !items.required.is_empty() {
            let parsed = Parsed::all(body)?;
            let complete = |at: &usize| parsed.has(*at, self.destination.resource, items.required);
            (pending, existing) = pending.into_iter().partition(complete);
        }
        let incomplete: HashSet<usize> = existing.iter().copied().collect();
        if !incomplete.is_empty() && work.mode.on_conflict != OnConflict::Update {
            self.settle_incomplete(items, work, body, &existing).await?;
            existing.clear();
        }

        for _ in 0..ROUNDS {
            let duplicated = self.create(items, work, body, std::mem::take(&mut pending)).await?;
            match work.mode.on_conflict {
                OnConflict::Update => existing.extend(duplicated),
                OnConflict::Ignore => self.accepted += duplicated.len(),
                OnConflict::Error if duplicated.is_empty() => {}
                OnConflict::Error => return Err(self.exists(body, &duplicated)),
            }
            if existing.is_empty() {
                return Ok(());
            }
            existing.sort_unstable();
            let missing = self.update(items, work, body, std::mem::take(&mut existing)).await?;
            let lost: Vec<usize> = missing.iter().copied().filter(|at| incomplete.contains(at)).collect();
            if !lost.is_empty() {
                return Err(self.incomplete(items, body, &lost));
            }
            if missing.is_empty() {
                return Ok(());
            }
            pending = missing;
        }
        Err(Error::new(
            Kind::Duplicate,
            format!("{}: items appear and disappear in CDF while they are written", self.destination.name()),
        )
        .hint(
            "Something else creates and deletes the same external ids. Run the load again when it has ended.",
        ))
    }

    fn exists(&self, body: &Body, rows: &[usize]) -> Error {
        let resource = self.destination.resource;
        Error::new(Kind::Duplicate, format!("{}: the {} exists in CDF already", resource.name, resource.noun))
            .detail(format!("Rows refused: {}.", names(body, rows)))
            .hint("The table's option on_conflict is \"error\".")
    }

    fn incomplete(&self, items: &Items, body: &Body, rows: &[usize]) -> Error {
        let resource = self.destination.resource;
        Error::new(
            Kind::MissingValue,
            format!(
                "{}: a new {} needs a value for {}",
                resource.name,
                resource.noun,
                items.required.join(", ")
            ),
        )
        .detail(format!("Rows refused: {}.", names(body, rows)))
        .hint("No item with this external_id exists in CDF that the row could update.")
    }

    /// Rows that cannot create an item and must not change one: all that matters is whether it exists.
    async fn settle_incomplete(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        rows: &[usize],
    ) -> Result<(), Error> {
        let found = self.look_up(items, body, rows).await?;
        let lost: Vec<usize> = rows.iter().copied().filter(|at| !found.contains(at)).collect();
        if !lost.is_empty() {
            return Err(self.incomplete(items, body, &lost));
        }
        if work.mode.on_conflict == OnConflict::Error {
            return Err(self.exists(body, rows));
        }
        self.accepted += rows.len();
        Ok(())
    }

    /// Creates items; gives back those that exist.
    async fn create(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<Vec<usize>, Error> {
        let mut existing = Vec::new();
        let mut search = Search::new(all, work.ordered);
        while let Some(mut part) = search.next() {
            let request = create_body(body, &part, work.deferred)?;
            match self.post_json(items.path, request, Resend::Always).await {
                Ok(_) => self.accepted += part.len(),
                Err(RequestError::Api(api)) if api.status == 409 => {
                    let mut duplicated = matching(body, &part, &api.duplicated)?;
                    if duplicated.is_empty() {
                        duplicated = self.look_up(items, body, &part).await?.into_iter().collect();
                    }
                    if duplicated.is_empty() {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    part.retain(|at| !duplicated.contains(at));
                    existing.extend(duplicated);
                    search.again(part);
                }
                Err(RequestError::Api(api)) => search.refused(part, api, body, self.destination)?,
                Err(error) => return Err(self.failed(error, || (named(body, &part), part.len()))),
            }
        }
        self.conclude(search, body)?;
        Ok(existing)
    }

    /// Updates items; gives back those that do not exist.
    async fn update(
        &mut self,
        items: &Items,
        work: &Work,
        body: &Body,
        all: Vec<usize>,
    ) -> Result<Vec<usize>, Error> {
        let parsed = Parsed::all(body)?;
        let resource = self.destination.resource;
        let path = format!("{}/update", items.path);
        let (changing, still): (Vec<usize>, Vec<usize>) =
            all.into_iter().partition(|at| parsed.update(*at, resource, work.kind).is_some());
        let mut missing = Vec::new();
        if !still.is_empty() {
            let answer = self.retrieve(items, body, &still).await?;
            let found = present(body, &still, &answer)?;
            parsed.check_immutable(&still, &answer, resource)?;
            self.accepted += found.len();
            missing.extend(still.into_iter().filter(|at| !found.contains(at)));
        }
        let mut search = Search::new(changing, work.ordered);
        while let Some(mut part) = search.next() {
            let updates: Vec<Vec<u8>> =
                part.iter().filter_map(|at| parsed.update(*at, resource, work.kind)).collect();
            let request = Body::from_fragments(updates.iter().map(|update| &**update)).bytes;
            match self.post_json(&path, request, Resend::Always).await {
                Ok(response) => {
                    self.accepted += part.len();
                    parsed.check_immutable(&part, &response.body, resource)?;
                }
                Err(RequestError::Api(api)) if api.status == 400 && !api.missing.is_empty() => {
                    let lost = matching(body, &part, &api.missing)?;
                    if lost.is_empty() {
                        search.refused(part, api, body, self.destination)?;
                        continue;
                    }
                    part.retain(|at| !lost.contains(at));
                    missing.extend(lost);
                    search.again(part);
                }
                Err(RequestError::Api(api)) => search.refused(part, api, body, self.destination)?,
                Err(error) => return Err(self.failed(error, || (named(body, &part), part.len()))),
            }
        }
        self.conclude(search, body)?;
        missing.sort_unstable();
        Ok(missing)
    }

    /// Those of the rows that exist in CDF.
    async fn look_up(&self, items: &Items, body: &Body, rows: &[usize]) -> Result<HashSet<usize>, Error> {
        let answer = self.retrieve(items, body, rows).await?;
        present(body, rows, &answer)
    }

    async fn retrieve(&self, items: &Items, body: &Body, rows: &[usize]) -> Result<Bytes, Error> {
        let parsed = Parsed::all(body)?;
        let keys: Vec<Vec<u8>> = rows.iter().map(|at| parsed.key_object(*at)).collect();
        let mut request = Body::from_fragments(keys.iter().map(|key| &**key)).bytes;
        request.pop();
        request.extend_from_slice(b",\"ignoreUnknownIds\":true}");
        match self.post_json(&format!("{}/byids", items.path), request, Resend::Always).await {
            Ok(response) => Ok(response.body),
            Err(error) => Err(error.into_error(&self.destination.resource.read_capability())),
        }
    }

    fn conclude(&self, search: Search, body: &Body) -> Result<(), Error> {
        let Some((api, culprits, of)) = search.verdict() else {
            return Ok(());
        };
        Err(self.refused(api, &named(body, &culprits), of))
    }

    // ---- references ----

    /// The body with external ids replaced by internal ones where CDF takes only those.
    async fn resolve(&self, work: &Work) -> Result<Body, Error> {
        let resource = self.destination.resource;
        let parsed = Parsed::all(&work.body)?;
        let mut wanted: HashMap<&'static str, (&'static ReferenceTarget, HashSet<String>)> = HashMap::new();
        for (property, value) in parsed.items.iter().flat_map(|properties| &properties.0) {
            if let Some((to, _, names)) = reference(resource, property, value)? {
                wanted.entry(to.byids).or_insert_with(|| (to, HashSet::new())).1.extend(names);
            }
        }
        for (to, names) in wanted.into_values() {
            self.fetch_ids(to, names, &work.body, &parsed).await?;
        }
        let ids = self.context.references.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = Body::begin();
        for properties in &parsed.items {
            let mut replaced = Vec::new();
            let mut out: Vec<(&str, &RawValue)> = Vec::new();
            for (property, value) in &properties.0 {
                if let Some((to, target, names)) = reference(resource, property, value)? {
                    let numbers: Vec<i64> =
                        names.into_iter().filter_map(|name| ids.get(&(to.byids, name)).copied()).collect();
                    let text = match value.get().starts_with('[') {
                        true => serde_json::value::to_raw_value(&numbers),
                        false => serde_json::value::to_raw_value(&numbers.first()),
                    };
                    let text = text.map_err(|error| Error::internal(format!("ids as JSON: {error}")))?;
                    replaced.push((target, text));
                } else {
                    out.push((property, value));
                }
            }
            // A NULL id column beside a reference asks for clearing what the reference sets.
            out.retain(|(property, _)| replaced.iter().all(|(target, _)| target != property));
            out.extend(replaced.iter().map(|(target, value)| (*target, &**value)));
            let mut fragment = Vec::new();
            Properties::write(&mut fragment, out.into_iter());
            made.append(&fragment);
        }
        made.end();
        Ok(made)
    }

    async fn fetch_ids(
        &self,
        to: &'static ReferenceTarget,
        mut names: HashSet<String>,
        body: &Body,
        parsed: &Parsed<'_>,
    ) -> Result<(), Error> {
        {
            let known = self.context.references.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|name| !known.contains_key(&(to.byids, name.clone())));
        }
        let names: Vec<String> = names.into_iter().collect();
        for part in names.chunks(1000) {
            let items: Vec<Value> = part.iter().map(|name| json!({ "externalId": name })).collect();
            let request = json!({ "items": items, "ignoreUnknownIds": true }).to_string().into_bytes();
            let response = self
                .post_json(to.byids, request, Resend::Always)
                .await
                .map_err(|error| error.into_error(to.capability))?;
            let mut known = self.context.references.lock().unwrap_or_else(PoisonError::into_inner);
            for item in listing(&response.body)? {
                if let (Some(name), Some(id)) = (item["externalId"].as_str(), item["id"].as_i64()) {
                    known.insert((to.byids, name.to_owned()), id);
                }
            }
        }
        let known = self.context.references.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<&String> =
            names.iter().filter(|name| !known.contains_key(&(to.byids, (*name).clone()))).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let resource = self.destination.resource;
        let mut rows = Vec::new();
        for (at, properties) in parsed.items.iter().enumerate() {
            for (property, value) in &properties.0 {
                if let Some((target, _, names)) = reference(resource, property, value)? {
                    if target.byids == to.byids && names.iter().any(|name| unknown.contains(&name)) {
                        rows.push(at);
                    }
                }
            }
        }
        rows.dedup();
        Err(Error::new(
            Kind::MissingReference,
            format!("{}: {} does not exist in CDF: {}", resource.name, to.noun, quoted(&unknown)),
        )
        .detail(format!("Rows refused: {}.", self::names(body, &rows))))
    }

    // ---- RAW ----

    async fn raw(&mut self, work: &Work) -> Result<(), Error> {
        let Some((database, table)) = &self.destination.raw else {
            return Err(Error::internal("RAW rows without a database and table"));
        };
        let path = format!("{}?ensureParent=true", rows_path(database, table));
        let body = &work.body;
        let mut search = Search::new((0..body.items.len()).collect(), false);
        while let Some(part) = search.next() {
            match self.post_json(&path, create_body(body, &part, false)?, Resend::Always).await {
                Ok(_) => self.accepted += part.len(),
                Err(RequestError::Api(api)) => search.refused(part, api, body, self.destination)?,
                Err(error) => return Err(self.failed(error, || (named(body, &part), part.len()))),
            }
        }
        self.conclude(search, body)
    }

    // ---- datapoints ----

    async fn points(&mut self, string: bool, work: &Work) -> Result<(), Error> {
        let send = |bytes: Vec<u8>| client::Body::Protobuf(Bytes::from(bytes));
        let mut queue = VecDeque::from([(work.body.bytes.clone(), work.rows)]);
        let mut created: HashSet<Identity> = HashSet::new();
        let mut searches = 0;
        let mut culprits: Vec<String> = Vec::new();
        let mut verdict: Option<ApiError> = None;
        while let Some((bytes, rows)) = queue.pop_front() {
            let api = match self.post("/timeseries/data", send(bytes.clone()), Resend::Always).await {
                Ok(_) => {
                    self.accepted += rows;
                    continue;
                }
                Err(RequestError::Api(api)) => api,
                Err(error) => {
                    let series = series_of(&bytes)?;
                    let names: Vec<String> = series.iter().map(|series| series.to_string()).collect();
                    return Err(self.failed(error, || (names.clone(), names.len())));
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
            let mut request = wire::InsertionRequest::decode(&*bytes)
                .map_err(|error| Error::internal(format!("encoded datapoints are not readable: {error}")))?;
            let searchable = matches!(api.status, 400 | 404 | 409 | 413 | 422);
            if request.items.len() < 2 || !searchable || searches >= SEARCHES || culprits.len() >= NAMED_ROWS
            {
                culprits.extend(request.items.iter().map(|item| identity(item).to_string()));
                let fatal = !searchable;
                verdict.get_or_insert(api);
                if fatal {
                    break;
                }
                continue;
            }
            searches += 1;
            let later = request.items.split_off(request.items.len() / 2);
            let later = wire::InsertionRequest { items: later };
            for half in [later, request] {
                let rows = half.items.iter().map(count).sum();
                queue.push_front((half.encode_to_vec(), rows));
            }
        }
        match verdict {
            None => Ok(()),
            Some(api) => {
                let mut error = self.refused(api, &[], 0);
                error
                    .detail
                    .insert(0, format!("Series refused: {}.", list_names(culprits.iter(), culprits.len())));
                Err(error)
            }
        }
    }

    fn missing_series(&self, api: ApiError, create_missing: bool) -> Error {
        let trace = api.trace();
        let mut error = Error::new(
            Kind::MissingReference,
            format!("{}: the time series does not exist in CDF: {}", self.destination.name(), api.message),
        )
        .detail(format!("Series missing: {}.", list_names(api.missing.iter(), api.missing.len())))
        .detail(trace);
        error.hint = Some(match create_missing {
            false => "Insert the series into the table of time series first (the same transaction will do), or set the \
                      table's option create_missing to \"true\"."
                .into(),
            true => "Series can only be created by external_id; those addressed by id or instance must exist.".into(),
        });
        error
    }

    /// Creates series of the kind that the points need, with their external id as name.
    async fn create_series(&self, missing: &[Identity], string: bool) -> Result<(), Error> {
        let mut pending = Vec::new();
        for series in missing {
            match series {
                Identity::ExternalId(external_id) => pending.push(external_id.clone()),
                other => {
                    return Err(Error::new(
                        Kind::MissingReference,
                        format!("{}: time series {other} does not exist in CDF", self.destination.name()),
                    )
                    .hint("Series can only be created by external_id; those addressed by id or instance must exist."))
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
                match self.post_json("/timeseries", request, Resend::Always).await {
                    Ok(_) => break,
                    Err(RequestError::Api(api)) if api.status == 409 && !api.duplicated.is_empty() => {
                        // Another request of this flush, or somebody else, was faster.
                        let before = part.len();
                        part.retain(|name| !api.duplicated.contains(&Identity::ExternalId((*name).clone())));
                        if part.len() == before {
                            return Err(self.refused(api, &[], 0));
                        }
                    }
                    Err(error) => {
                        return Err(
                            self.failed(error, || (part.iter().map(|n| quote(n)).collect(), part.len()))
                        )
                    }
                }
            }
        }
        Ok(())
    }
}

impl Destination {
    /// The resource, and where in RAW, as errors name it.
    pub fn name(&self) -> String {
        match &self.raw {
            Some((database, table)) => format!("{} ({database}.{table})", self.resource.name),
            None => self.resource.name.to_owned(),
        }
    }
}

/// Parts of a refused request, halved until the culprits are found.
struct Search {
    open: VecDeque<Vec<usize>>,
    culprits: Vec<usize>,
    verdict: Option<ApiError>,
    requests: usize,
    ordered: bool,
}

impl Search {
    fn new(all: Vec<usize>, ordered: bool) -> Self {
        let mut search =
            Search { open: VecDeque::new(), culprits: Vec::new(), verdict: None, requests: 0, ordered };
        search.again(all);
        search
    }

    /// The next part to send.
    fn next(&mut self) -> Option<Vec<usize>> {
        self.open.pop_front()
    }

    /// Sends a part before all others.
    fn again(&mut self, part: Vec<usize>) {
        if !part.is_empty() {
            self.open.push_front(part);
        }
    }

    /// Takes note of a refusal: of the rows that the answer names, or of halves that are sent by themselves.
    fn refused(
        &mut self,
        part: Vec<usize>,
        api: ApiError,
        body: &Body,
        destination: &Destination,
    ) -> Result<(), Error> {
        // Only what is about the content can be narrowed down; anything else holds for every part.
        let about_content = matches!(api.status, 400 | 404 | 409 | 413 | 422);
        let named: Vec<&Identity> = api.missing.iter().chain(&api.duplicated).collect();
        let guilty = match named.is_empty() {
            true => Vec::new(),
            false => mentioning(body, &part, &named, destination)?,
        };
        self.requests += 1;
        if part.len() > 1 && about_content && guilty.is_empty() && self.requests <= SEARCHES && !self.done() {
            let mut first = part;
            let second = first.split_off(first.len() / 2);
            self.again(second);
            self.again(first);
            return Ok(());
        }
        let all_named = !guilty.is_empty();
        self.culprits.extend(if all_named { guilty } else { part });
        self.verdict.get_or_insert(api);
        if !about_content || self.ordered || self.done() || all_named {
            self.open.clear();
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.culprits.len() >= NAMED_ROWS
    }

    /// CDF's answer, the rows it is about, and how many they are.
    fn verdict(self) -> Option<(ApiError, Vec<usize>, usize)> {
        let of = self.culprits.len();
        self.verdict.map(|api| (api, self.culprits, of))
    }
}

impl<'b> Parsed<'b> {
    fn all(body: &'b Body) -> Result<Self, Error> {
        let items =
            (0..body.items.len()).map(|at| Properties::parse(body.fragment(at))).collect::<Result<_, _>>()?;
        Ok(Parsed { items })
    }

    fn has(&self, at: usize, resource: &super::resource::Resource, required: &[&str]) -> bool {
        required.iter().all(|name| {
            let property = resource.column(name).map_or(*name, |column| column.property);
            self.items[at].get(property).is_some_and(|value| value.get() != "null")
        })
    }

    /// `{"externalId":…}` or `{"id":…}`: the key comes first.
    fn key_object(&self, at: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let key = self.items[at].0.first().map(|(property, value)| (&**property, *value));
        Properties::write(&mut out, key.into_iter());
        out
    }

    /// The element of an update request; None if the item changes nothing that can be changed.
    fn update(&self, at: usize, resource: &super::resource::Resource, kind: KeyKind) -> Option<Vec<u8>> {
        let mut out = self.key_object(at);
        out.pop();
        out.extend_from_slice(b",\"update\":{");
        let start = out.len();
        for (property, value) in &self.items[at].0[1..] {
            let Some(column) = resource.column(property) else {
                continue;
            };
            match column.rule {
                Rule::ImmutableBool => continue,
                Rule::ExternalId if kind == KeyKind::Key => continue,
                _ => {}
            }
            if out.len() > start {
                out.push(b',');
            }
            json_writer::write(&mut out, &**property);
            match value.get() {
                "null" => out.extend_from_slice(match column.rule {
                    // CDF has no setNull for these (API description of the update operations).
                    Rule::Metadata(_) => b":{\"set\":{}}".as_slice(),
                    Rule::Labels { .. } | Rule::Ids { .. } => b":{\"set\":[]}",
                    _ => b":{\"setNull\":true}",
                }),
                text => {
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
    fn check_immutable(
        &self,
        rows: &[usize],
        answer: &Bytes,
        resource: &super::resource::Resource,
    ) -> Result<(), Error> {
        let fixed: Vec<_> =
            resource.columns.iter().filter(|column| matches!(column.rule, Rule::ImmutableBool)).collect();
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
                if !found[column.property].is_null() && found[column.property].to_string() != wanted.get() {
                    return Err(Error::new(
                        Kind::InvalidValue,
                        format!(
                            "{}: {} of an existing {} cannot be changed; it is {}",
                            resource.name, column.name, resource.noun, found[column.property]
                        ),
                    )
                    .detail(format!("Rows refused: {}.", value.get())));
                }
            }
        }
        Ok(())
    }
}

/// A create request of some items. Nulls ask for clearing, and what is created has nothing to clear.
fn create_body(body: &Body, part: &[usize], strip_nulls: bool) -> Result<Vec<u8>, Error> {
    if !strip_nulls {
        if part.len() == body.items.len() {
            return Ok(body.bytes.clone());
        }
        return Ok(Body::from_fragments(part.iter().map(|at| body.fragment(*at))).bytes);
    }
    let mut made = Body::begin();
    for at in part {
        let properties = Properties::parse(body.fragment(*at))?;
        let mut fragment = Vec::new();
        let set = properties.0.iter().filter(|(_, value)| value.get() != "null");
        Properties::write(&mut fragment, set.map(|(property, value)| (&**property, *value)));
        made.append(&fragment);
    }
    made.end();
    Ok(made.bytes)
}

/// The reference that a property holds: where to, the property that CDF knows, and the external ids.
#[allow(clippy::type_complexity)]
fn reference(
    resource: &super::resource::Resource,
    property: &str,
    value: &RawValue,
) -> Result<Option<(&'static ReferenceTarget, &'static str, Vec<String>)>, Error> {
    let not_text =
        |error: serde_json::Error| Error::internal(format!("an encoded reference is not text: {error}"));
    Ok(match resource.column(property).map(|column| column.rule) {
        Some(Rule::Reference { to, property }) => {
            Some((to, property, vec![serde_json::from_str(value.get()).map_err(not_text)?]))
        }
        Some(Rule::References { to, property, .. }) => {
            Some((to, property, serde_json::from_str(value.get()).map_err(not_text)?))
        }
        _ => None,
    })
}

fn listing(answer: &[u8]) -> Result<Vec<Value>, Error> {
    serde_json::from_slice::<Listing>(answer)
        .map(|listing| listing.items)
        .map_err(|error| Error::new(Kind::ServerFailure, format!("CDF's answer cannot be read: {error}")))
}

fn key_of(body: &Body, at: usize) -> Result<Option<Identity>, Error> {
    let properties = Properties::parse(body.fragment(at))?;
    Ok(properties.0.first().and_then(|(property, value)| match &**property {
        "id" => value.get().parse().ok().map(Identity::Id),
        "externalId" | "key" => serde_json::from_str(value.get()).ok().map(Identity::ExternalId),
        _ => None,
    }))
}

/// Those of the rows whose key is among the names.
fn matching(body: &Body, part: &[usize], names: &[Identity]) -> Result<Vec<usize>, Error> {
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
fn present(body: &Body, rows: &[usize], answer: &Bytes) -> Result<HashSet<usize>, Error> {
    let mut keys = Vec::new();
    for item in listing(answer)? {
        keys.extend(item["externalId"].as_str().map(|name| Identity::ExternalId(name.to_owned())));
        keys.extend(item["id"].as_i64().map(Identity::Id));
    }
    Ok(matching(body, rows, &keys)?.into_iter().collect())
}

/// Those of the rows that have one of the names as key, parent, asset, data set or label.
fn mentioning(
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

/// What errors call the rows: their keys, or the beginning of what was sent of them.
fn named(body: &Body, rows: &[usize]) -> Vec<String> {
    rows.iter()
        .take(NAMED_ROWS)
        .map(|at| match key_of(body, *at) {
            Ok(Some(key)) => key.to_string(),
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

fn names(body: &Body, rows: &[usize]) -> String {
    list_names(named(body, rows).iter(), rows.len())
}

fn quote(name: &str) -> String {
    format!("\"{name}\"")
}

fn quoted(names: &[&String]) -> String {
    list_names(names.iter().map(|name| quote(name)), names.len())
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
    let request = wire::InsertionRequest::decode(body)
        .map_err(|error| Error::internal(format!("encoded datapoints are not readable: {error}")))?;
    Ok(request.items.iter().map(identity).collect())
}

fn count(item: &wire::InsertionItem) -> usize {
    match &item.points {
        Some(wire::Points::Numeric(points)) => points.datapoints.len(),
        Some(wire::Points::String(points)) => points.datapoints.len(),
        None => 0,
    }
}
