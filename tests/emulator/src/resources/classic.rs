//! What the classic resources have in common: create, read, list, update and delete of objects with declared fields.

use std::collections::{BTreeSet, HashMap, HashSet};

use axum::http::Method;
use serde_json::{json, Map, Value};

use super::fields::{self, Dangling, Field, FieldType, Target, Update, MAX_ID};
use super::filter::{self, Filter};
use super::Route;
use crate::codec::{self, now_ms};
use crate::errors::ApiError;
use crate::reply::{Reply, Request};
use crate::store::{Classic, Entity, Identity, Project};

/// The operations that only some resources have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `GET /x` and `GET /x/{id}`.
    Get,
    /// `POST /x/update`.
    Update,
    /// `POST /x/delete`.
    Delete,
    /// `instanceId` names objects in byids and update.
    ByInstance,
    /// `ignoreUnknownIds` on delete.
    IgnoreUnknownOnDelete,
    /// `recursive` on delete.
    Recursive,
    /// `aggregatedProperties` on list and byids.
    Aggregates,
    /// `partition` on list.
    Partitions,
    /// A create takes one bare object, and answers with one; `overwrite` makes it an upsert.
    CreateOne,
    /// A delete answers 202 rather than 200.
    DeleteLater,
    /// `fetchResources` on list and byids.
    FetchResources,
}

/// Rules of a resource that its fields do not express.
pub struct Hooks {
    /// Rules between the fields of one finished object.
    pub check: fn(&Map<String, Value>) -> Result<(), ApiError>,
    /// Checks the objects as they were sent, before references are looked up.
    pub admit: fn(&Map<String, Value>, create: bool) -> Result<(), ApiError>,
    /// Checks the objects of a request against each other and against stored ones.
    pub link: fn(&Classic, &mut [Draft]) -> Result<(), ApiError>,
    /// Deletes what goes with deleted objects; may refuse.
    pub remove: fn(&mut Classic, &mut BTreeSet<i64>, recursive: bool) -> Result<(), ApiError>,
    /// Adds fields that are computed on reading.
    pub render: fn(&Classic, &mut Map<String, Value>, aggregates: &[String]),
    /// Adds or removes what only answers to some requests have.
    pub dress: fn(&mut Map<String, Value>, Occasion),
}

/// The request that an object is the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Its create.
    Create,
    /// A list, or a read by its key.
    Read,
    /// Its update.
    Update,
}

impl Hooks {
    /// No further rules.
    pub const NONE: Self = Self {
        check: |_| Ok(()),
        admit: |_, _| Ok(()),
        link: |_, _| Ok(()),
        remove: |_, _, _| Ok(()),
        render: |_, _, _| {},
        dress: |_, _| {},
    };
}

/// The words with which a resource refuses names.
pub struct Words {
    /// Ids that do not exist.
    pub unknown_id: &'static str,
    /// External ids that do not exist.
    pub unknown_external_id: &'static str,
    /// Ids that occur twice.
    pub repeated_id: &'static str,
    /// External ids that occur twice.
    pub repeated_external_id: &'static str,
    /// One object named in two ways.
    pub same: &'static str,
    /// Whether the names follow a colon.
    pub names_follow: bool,
}

impl Words {
    /// Makes words that are the same for ids and external ids.
    pub const fn alike(unknown: &'static str, repeated: &'static str) -> Self {
        Self {
            unknown_id: unknown,
            unknown_external_id: unknown,
            repeated_id: repeated,
            repeated_external_id: repeated,
            same: repeated,
            names_follow: false,
        }
    }

    /// Returns a message about some names.
    fn say(&self, of_id: &str, of_external_id: &str, identities: &[Identity]) -> String {
        let words = match identities.first() {
            Some(Identity::Id(_)) => of_id,
            _ => of_external_id,
        };
        let name = |identity: &Identity| match identity {
            Identity::Id(id) => id.to_string(),
            Identity::External(name) | Identity::Instance { external_id: name, .. } => name.clone(),
        };
        if self.names_follow {
            format!("{words}: {}", identities.iter().map(name).collect::<Vec<_>>().join(", "))
        } else {
            words.to_owned()
        }
    }
}

/// A resource, declared.
pub struct Kind {
    /// The path after the project, and the table's name.
    pub path: &'static str,
    /// What messages call one object.
    pub noun: &'static str,
    /// Its ACL.
    pub acl: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
    /// Fields that a create adds when they are absent.
    pub defaults: fn() -> Map<String, Value>,
    /// The most objects per create and update.
    pub max_items: usize,
    /// The status of a successful create.
    pub created: u16,
    /// The status if a request has the same object twice.
    pub twice: u16,
    /// The words of its refusals.
    pub words: Words,
    /// Whether a create accepts null in any optional field, as if the field were absent.
    pub nulls: bool,
    /// Whether an update that changes nothing leaves `lastUpdatedTime` unchanged.
    pub keeps_unchanged: bool,
    /// Whether objects have an id. Those that can be updated have a lastUpdatedTime.
    pub has_id: bool,
    /// What it can do.
    pub operations: &'static [Operation],
    /// Filters of list.
    pub filters: &'static [(&'static str, Filter)],
    /// Further rules.
    pub hooks: Hooks,
}

/// An object about to be written.
#[derive(Debug)]
pub struct Draft {
    /// Its id, even if it is about to be created.
    pub id: i64,
    /// Its fields as they will be stored.
    pub fields: Map<String, Value>,
    /// The fields that the current request sets.
    pub changed: HashSet<&'static str>,
    /// The object before an update.
    pub before: Option<Entity>,
}

impl Draft {
    /// A string field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }
}

type Object = Map<String, Value>;

/// The purpose for which a request names objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Read,
    Update,
    Delete,
}

impl Kind {
    /// Returns the route of a request below this resource's path.
    pub fn route(&'static self, method: &Method, rest: &[&str]) -> Option<Route> {
        let can = |operation| self.operations.contains(&operation);
        let post = method == Method::POST;
        let get = method == Method::GET;
        let read = |run: fn(&'static Kind, &Project, &mut Request) -> Result<Reply, ApiError>| {
            Some(Route::new(self.acl, "READ", move |project, request| run(self, project, request)))
        };
        let write = |run: fn(&'static Kind, &Project, &mut Request) -> Result<Reply, ApiError>| {
            Some(Route::new(self.acl, "WRITE", move |project, request| run(self, project, request)))
        };
        match rest {
            [] if post => write(Self::create),
            [] if get && can(Operation::Get) => read(Self::list_by_query),
            ["list"] if post => read(Self::list),
            ["byids"] if post => read(Self::by_ids),
            ["update"] if post && can(Operation::Update) => write(Self::update),
            ["delete"] if post && can(Operation::Delete) => write(Self::delete),
            [_id] if get && can(Operation::Get) => read(Self::get),
            _ => None,
        }
    }

    fn can(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    fn render(&self, classic: &Classic, entity: &Entity, aggregates: &[String], occasion: Occasion) -> Value {
        let mut fields = entity.fields.clone();
        if self.has_id {
            fields.insert("id".into(), json!(entity.id));
        }
        (self.hooks.render)(classic, &mut fields, aggregates);
        (self.hooks.dress)(&mut fields, occasion);
        Value::Object(fields)
    }

    fn render_all(
        &self,
        classic: &Classic,
        ids: &[i64],
        aggregates: &[String],
        occasion: Occasion,
    ) -> Vec<Value> {
        let table = classic.table(self.path);
        let objects = ids.iter().filter_map(|id| table.by_id(*id));
        objects.map(|object| self.render(classic, object, aggregates, occasion)).collect()
    }

    /// Returns the stored objects as answers show them, for the admin interface.
    pub fn dump(&self, classic: &Classic, external_id: Option<&str>) -> Vec<Value> {
        classic
            .table(self.path)
            .after(0)
            .filter(|(_, entity)| external_id.is_none_or(|wanted| entity.text("externalId") == Some(wanted)))
            .map(|(_, entity)| self.render(classic, entity, &[], Occasion::Read))
            .collect()
    }

    /// Creates all items or none: nothing is stored unless every item passes.
    ///
    /// An external id that exists already is a 409 with the complete `duplicated` list, per the API description of POST
    /// /timeseries: "Time series with the specified externalIds already exists. Retry request, with the existing
    /// externalIds removed." (ExternalIdsAlreadyExistResponse: `duplicated` is required and holds `{"externalId"}`
    /// objects.) The other classic resources answer in the same shape.
    ///
    /// An external id that occurs twice within the request is a 422 for time series, per the API description of POST
    /// /timeseries: "Duplicated externalIds found. Retry request, keeping only one instance of each duplicated
    /// externalId." (DuplicatedIdsInRequestResponse.) Other resources declare no 422; they answer [`Kind::twice`].
    fn create(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let mut body = request.json()?;
        let one = self.can(Operation::CreateOne);
        let items = if one {
            request.counts.items = 1;
            body.get("externalId").and_then(Value::as_str).into_iter().for_each(|id| request.counts.note(id));
            vec![Value::Object(body)]
        } else {
            take_items(&mut body, self.max_items, &[])?
        };
        let overwrite = one && request.query_flag("overwrite")?;
        let mut drafts = Vec::with_capacity(items.len());
        for item in items {
            drafts.push(self.draft(item)?);
        }

        let mut classic = project.classic();
        let external_ids = || drafts.iter().filter_map(|draft| draft.text("externalId"));
        let twice = repeated(external_ids().map(|external_id| Identity::External(external_id.to_owned())));
        let table = classic.table(self.path);
        let replaced = drafts
            .first()
            .and_then(|draft| table.by_external_id(draft.text("externalId")?))
            .filter(|_| overwrite)
            .cloned();
        let mut seen = HashSet::new();
        let existing: Vec<Identity> = external_ids()
            .filter(|external_id| table.by_external_id(external_id).is_some() && seen.insert(*external_id))
            .map(|external_id| Identity::External(external_id.to_owned()))
            .collect();
        if !twice.is_empty() && self.twice != 409 {
            return Err(self.duplicated(self.twice, &twice));
        }
        let conflicting: Vec<Identity> =
            existing.iter().chain(twice.iter().filter(|id| !existing.contains(id))).cloned().collect();
        if !conflicting.is_empty() && replaced.is_none() {
            return Err(self.duplicated(409, &conflicting));
        }
        for draft in &mut drafts {
            draft.id = replaced.as_ref().map_or_else(|| classic.new_id(), |before| before.id);
        }
        self.check_references(&classic, &drafts)?;
        (self.hooks.link)(&classic, &mut drafts)?;
        for draft in &drafts {
            (self.hooks.check)(&draft.fields)?;
        }

        let now = now_ms();
        let mut ids = Vec::with_capacity(drafts.len());
        for mut draft in drafts {
            draft.fields.insert("createdTime".into(), json!(now));
            if self.can(Operation::Update) {
                draft.fields.insert("lastUpdatedTime".into(), json!(now));
            }
            ids.push(draft.id);
            let table = classic.table_mut(self.path);
            match &replaced {
                None => table.insert(Entity { id: draft.id, fields: draft.fields }),
                Some(before) => {
                    draft.fields.shift_remove("createdTime");
                    let mut fields = before.fields.clone();
                    fields.extend(draft.fields);
                    table.replace(Entity { id: draft.id, fields });
                }
            }
        }
        let mut items = self.render_all(&classic, &ids, &[], Occasion::Create);
        if one {
            let mut item = items.pop().unwrap_or_default();
            item["uploadUrl"] = json!("http://127.0.0.1/uploads-are-not-emulated");
            return Ok(Reply::json(self.created, &item));
        }
        Ok(Reply::items(self.created, items, None))
    }

    /// Checks a new object field by field.
    fn draft(&self, mut item: Value) -> Result<Draft, ApiError> {
        if let (true, Some(item)) = (self.nulls, item.as_object_mut()) {
            let optional = |name: &str| self.field(name).is_some_and(|field| !field.required);
            item.retain(|name, value| !(value.is_null() && optional(name)));
        }
        fields::refuse_nulls(&item)?;
        let Value::Object(item) = item else {
            return Err(ApiError::bad_request("items: expected objects"));
        };
        (self.hooks.admit)(&item, true)?;
        let mut stored = (self.defaults)();
        let mut changed = HashSet::new();
        for (name, value) in item {
            let Some(field) = self.field(&name) else {
                return Err(ApiError::bad_request(format!("Unknown field '{name}' in {}", self.noun)));
            };
            field.check(&value)?;
            if !field.ignored {
                changed.insert(field.name);
                stored.insert(name, value);
            }
        }
        for field in self.fields.iter().filter(|field| field.required) {
            if !stored.contains_key(field.name) {
                return Err(ApiError::bad_request(format!("Missing required field: {}", field.name)));
            }
        }
        Ok(Draft { id: 0, fields: stored, changed, before: None })
    }

    /// Looks up what the written fields refer to; reports every dangling reference of the first field that has one.
    fn check_references(&self, classic: &Classic, drafts: &[Draft]) -> Result<(), ApiError> {
        for field in self.fields {
            let written = drafts
                .iter()
                .filter(|draft| draft.changed.contains(field.name))
                .filter_map(|draft| draft.fields.get(field.name));
            match &field.ty {
                FieldType::Reference(target) => check_ids(classic, target, written)?,
                FieldType::References { target, .. } => {
                    check_ids(classic, target, written.filter_map(Value::as_array).flatten())?;
                }
                FieldType::Labels { .. } => {
                    let table = classic.table(super::labels::KIND.path);
                    let mut seen = HashSet::new();
                    let missing: Vec<Value> = written
                        .filter_map(Value::as_array)
                        .flatten()
                        .filter_map(|label| label["externalId"].as_str())
                        .filter(|label| {
                            table.visible(&Identity::External((*label).to_owned())).is_none()
                                && seen.insert(*label)
                        })
                        .map(|label| json!({ "externalId": label }))
                        .collect();
                    if !missing.is_empty() {
                        return Err(ApiError::missing("Label ids not found", missing));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn duplicated(&self, status: u16, identities: &[Identity]) -> ApiError {
        let list = identities.iter().map(Identity::json).collect();
        let words = &self.words;
        ApiError::duplicated(
            status,
            words.say(words.repeated_id, words.repeated_external_id, identities),
            list,
        )
    }

    fn not_found(&self, identities: &[Identity]) -> ApiError {
        let list = identities.iter().map(Identity::json).collect();
        let words = &self.words;
        ApiError::missing(words.say(words.unknown_id, words.unknown_external_id, identities), list)
    }

    /// Returns the names that are refused for occurring twice before their objects are looked up. For assets, as
    /// recorded, a name that does not exist is missing however often it occurs, except for ids to be deleted.
    fn repeated_first(&self, request: Naming, identities: &[Identity]) -> Vec<Identity> {
        let of_id = |identity: &&Identity| matches!(identity, Identity::Id(_));
        match (self.path, request) {
            ("assets", Naming::Read) => Vec::new(),
            ("assets", Naming::Delete) => repeated(identities.iter().filter(of_id).cloned()),
            _ => repeated(identities.iter().cloned()),
        }
    }

    /// Returns each name once. As recorded, they are in the order of the request only if time series are named or files
    /// are read; otherwise, where nothing is recorded, they are in no order.
    fn arrange(&self, request: Naming, names: Vec<Identity>) -> Vec<Identity> {
        let mut seen = HashSet::new();
        let mut names: Vec<Identity> = names.into_iter().filter(|name| seen.insert(name.clone())).collect();
        if !matches!((self.path, request), ("timeseries", _) | ("files", Naming::Read)) {
            names.sort_by_key(|name| codec::scatter_text(&name.json().to_string()));
        }
        names
    }

    /// Returns the refusal of objects that are named in two ways. For time series, as recorded, one entry has both
    /// names.
    fn conflicting(&self, request: Naming, identities: &[Identity], found: &[Option<i64>]) -> ApiError {
        let same = repeated(found.iter().flatten().map(|id| Identity::Id(*id)));
        if request != Naming::Delete {
            return self.duplicated(self.twice, &same);
        }
        let entry = |object: &Identity| {
            let mut entry = Map::new();
            let names =
                identities.iter().zip(found).filter(|(_, id)| id.map(Identity::Id).as_ref() == Some(object));
            names.for_each(|(name, _)| entry.extend(name.json().as_object().cloned().unwrap_or_default()));
            Value::Object(entry)
        };
        let list = match self.path {
            "timeseries" => same.iter().map(entry).collect(),
            _ => same.iter().map(Identity::json).collect(),
        };
        ApiError::duplicated(409, self.words.same, list)
    }

    fn identity(&self, item: &Object, by_instance: bool) -> Result<Identity, ApiError> {
        let mut named: Vec<&str> = vec!["externalId"];
        if self.has_id {
            named.push("id");
        }
        if by_instance {
            named.push("instanceId");
        }
        // A resource without ids needs an external id that is not empty.
        if let (Some(name), Some(field)) =
            (item.get("externalId"), self.fields.iter().find(|field| field.name == "externalId"))
        {
            field.check(name)?;
        }
        identity(item, &named)
    }

    /// Resolves identities. Unknown ones are an error unless they are to be ignored. An object that is going to be
    /// written must not be named twice, under whatever names.
    fn resolve(
        &self,
        classic: &Classic,
        identities: &[Identity],
        ignore_unknown: bool,
        request: Naming,
    ) -> Result<Vec<Option<i64>>, ApiError> {
        let first = self.repeated_first(request, identities);
        if !first.is_empty() {
            return Err(self.duplicated(self.twice, &first));
        }
        let table = classic.table(self.path);
        let found: Vec<Option<i64>> =
            identities.iter().map(|id| table.visible(id).map(|entity| entity.id)).collect();
        if !ignore_unknown {
            let missing: Vec<Identity> = identities
                .iter()
                .zip(&found)
                .filter(|(_, id)| id.is_none())
                .map(|(id, _)| id.clone())
                .collect();
            if !missing.is_empty() {
                return Err(self.not_found(&self.arrange(request, missing)));
            }
        }
        let known: Vec<Identity> = identities
            .iter()
            .zip(&found)
            .filter(|(_, id)| id.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        let twice = repeated(known.into_iter());
        if !twice.is_empty() {
            return Err(self.duplicated(self.twice, &twice));
        }
        let same = repeated(found.iter().flatten().map(|id| Identity::Id(*id)));
        if request != Naming::Read && !same.is_empty() {
            return Err(self.conflicting(request, identities, &found));
        }
        Ok(found)
    }

    fn identities(&self, items: Vec<Value>, by_instance: bool) -> Result<Vec<Identity>, ApiError> {
        items
            .into_iter()
            .map(|item| {
                fields::refuse_nulls(&item)?;
                let item =
                    item.as_object().ok_or_else(|| ApiError::bad_request("items: expected objects"))?;
                fields::refuse_unknown("items", item, &["id", "externalId", "instanceId"])?;
                self.identity(item, by_instance)
            })
            .collect()
    }

    fn by_ids(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let mut body = request.json()?;
        let mut known = vec!["ignoreUnknownIds"];
        if self.can(Operation::Aggregates) {
            known.push("aggregatedProperties");
        }
        if self.can(Operation::FetchResources) {
            known.push("fetchResources");
        }
        let items = take_items(&mut body, 1000, &known)?;
        let ignore_unknown = flag(&body, "ignoreUnknownIds")?;
        let aggregates = requested_properties(&body)?;
        let identities = self.identities(items, self.can(Operation::ByInstance))?;
        let classic = project.classic();
        let found = self.resolve(&classic, &identities, ignore_unknown, Naming::Read)?;
        let ids: Vec<i64> = found.into_iter().flatten().collect();
        Ok(Reply::items(200, self.render_all(&classic, &ids, &aggregates, Occasion::Read), None))
    }

    fn get(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let text = request.segments.last().map(String::as_str).unwrap_or_default();
        let id = text.parse::<i64>().ok().filter(|id| (1..=MAX_ID).contains(id));
        let id = id.ok_or_else(|| ApiError::bad_request(format!("Invalid id '{text}'")))?;
        let classic = project.classic();
        match classic.table(self.path).by_id(id) {
            Some(entity) => Ok(Reply::json(200, &self.render(&classic, entity, &[], Occasion::Read))),
            None => Err(self.not_found(&[Identity::Id(id)])),
        }
    }

    fn update(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let mut body = request.json()?;
        let items = take_items(&mut body, self.max_items, &[])?;
        let mut identities = Vec::with_capacity(items.len());
        let mut patches = Vec::with_capacity(items.len());
        for item in items {
            fields::refuse_nulls(&item)?;
            let Value::Object(mut item) = item else {
                return Err(ApiError::bad_request("items: expected objects"));
            };
            let Some(Value::Object(patch)) = item.remove("update") else {
                return Err(ApiError::bad_request("Missing required field: update"));
            };
            fields::refuse_unknown("items", &item, &["id", "externalId", "instanceId"])?;
            let identity = self.identity(&item, self.can(Operation::ByInstance))?;
            self.check_patch(&identity, &patch)?;
            identities.push(identity);
            patches.push(patch);
        }

        let mut classic = project.classic();
        let ids = self.resolve(&classic, &identities, false, Naming::Update)?;
        let mut drafts = Vec::with_capacity(ids.len());
        for (id, patch) in ids.into_iter().flatten().zip(&patches) {
            let Some(before) = classic.table(self.path).by_id(id).cloned() else {
                continue;
            };
            let mut draft =
                Draft { id, fields: before.fields.clone(), changed: HashSet::new(), before: Some(before) };
            for (name, change) in patch {
                let Some(field) = self.field(name) else { continue };
                draft.changed.insert(field.name);
                match field.patch(draft.fields.get(name), change)? {
                    Some(value) => drop(draft.fields.insert(name.clone(), value)),
                    None => drop(draft.fields.shift_remove(name)),
                }
            }
            drafts.push(draft);
        }
        self.check_new_external_ids(&classic, &drafts)?;
        self.check_references(&classic, &drafts)?;
        (self.hooks.link)(&classic, &mut drafts)?;
        for draft in &drafts {
            (self.hooks.check)(&draft.fields)?;
        }

        let now = now_ms();
        let ids: Vec<i64> = drafts.iter().map(|draft| draft.id).collect();
        for mut draft in drafts {
            let unchanged = draft.before.as_ref().is_some_and(|before| before.fields == draft.fields);
            if unchanged && self.keeps_unchanged {
                continue;
            }
            if self.can(Operation::Update) {
                draft.fields.insert("lastUpdatedTime".into(), json!(now));
            }
            classic.table_mut(self.path).replace(Entity { id: draft.id, fields: draft.fields });
        }
        Ok(Reply::items(200, self.render_all(&classic, &ids, &[], Occasion::Update), None))
    }

    fn check_patch(&self, identity: &Identity, patch: &Object) -> Result<(), ApiError> {
        (self.hooks.admit)(patch, false)?;
        for name in patch.keys() {
            match self.field(name) {
                None => {
                    return Err(ApiError::bad_request(format!(
                        "Unknown field '{name}' in update of {}",
                        self.noun
                    )))
                }
                Some(field) if field.update == Update::Never => {
                    return Err(ApiError::bad_request(format!("{name} cannot be updated")))
                }
                // If an instance of a data model is behind a series, the instance has the series' other fields.
                Some(_)
                    if matches!(identity, Identity::Instance { .. })
                        && !matches!(name.as_str(), "externalId" | "metadata" | "assetId" | "dataSetId") =>
                {
                    return Err(ApiError::bad_request(format!("{name} cannot be updated by instanceId")))
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// External ids must be unique after the whole update, so that two objects may swap theirs.
    fn check_new_external_ids(&self, classic: &Classic, drafts: &[Draft]) -> Result<(), ApiError> {
        let table = classic.table(self.path);
        let by_id: HashMap<i64, &Draft> = drafts.iter().map(|draft| (draft.id, draft)).collect();
        let renamed = || {
            drafts
                .iter()
                .filter(|draft| draft.changed.contains("externalId"))
                .filter_map(|draft| draft.text("externalId").map(|external_id| (draft.id, external_id)))
        };
        let twice = repeated(renamed().map(|(_, external_id)| Identity::External(external_id.to_owned())));
        if !twice.is_empty() {
            return Err(self.duplicated(self.twice, &twice));
        }
        let taken: Vec<Identity> = renamed()
            .filter(|(id, external_id)| {
                table.by_external_id(external_id).is_some_and(|holder| {
                    let keeps =
                        by_id.get(&holder.id).is_none_or(|d| d.text("externalId") == Some(external_id));
                    holder.id != *id && keeps
                })
            })
            .map(|(_, external_id)| Identity::External(external_id.to_owned()))
            .collect();
        if taken.is_empty() {
            Ok(())
        } else {
            Err(self.duplicated(409, &taken))
        }
    }

    fn delete(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let mut body = request.json()?;
        let mut known = Vec::new();
        if self.can(Operation::IgnoreUnknownOnDelete) {
            known.push("ignoreUnknownIds");
        }
        if self.can(Operation::Recursive) {
            known.push("recursive");
        }
        let items = take_items(&mut body, 1000, &known)?;
        let ignore_unknown = flag(&body, "ignoreUnknownIds")?;
        let recursive = flag(&body, "recursive")?;
        let identities = self.identities(items, false)?;
        let mut classic = project.classic();
        let found = self.resolve(&classic, &identities, ignore_unknown, Naming::Delete)?;
        let mut ids: BTreeSet<i64> = found.into_iter().flatten().collect();
        (self.hooks.remove)(&mut classic, &mut ids, recursive)?;
        for id in ids {
            classic.table_mut(self.path).remove(id);
        }
        let status = if self.can(Operation::DeleteLater) { 202 } else { 200 };
        Ok(Reply::json(status, &json!({})))
    }

    fn list(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let mut body = request.json()?;
        // The official SDK sends a null cursor for the first page: beside the filter, null means absent.
        body.retain(|_, value| !value.is_null());
        let mut known =
            vec!["filter", "limit", "cursor", "partition", "aggregatedProperties", "sort", "advancedFilter"];
        if self.can(Operation::FetchResources) {
            known.push("fetchResources");
        }
        fields::refuse_unknown("the request", &body, &known)?;
        // Valid in CDF; refused rather than ignored, so that nobody mistakes an unfiltered list for a filtered one.
        if let Some(name) = ["sort", "advancedFilter"].into_iter().find(|name| body.contains_key(*name)) {
            return Err(ApiError::new(501, format!("{name} is not emulated")));
        }
        fields::refuse_nulls(&Value::Object(body.clone()))?;
        let limit = match body.get("limit") {
            None => 100,
            Some(limit) => {
                fields::check_integer("limit", limit, 1, 1000)?;
                limit.as_u64().unwrap_or(100) as usize
            }
        };
        self.page(project, body, limit)
    }

    /// `GET /x`: the same list, with the filter in query parameters and a limit that is silently capped.
    fn list_by_query(&self, project: &Project, request: &mut Request) -> Result<Reply, ApiError> {
        let limit = request.query_integer("limit", 1, i64::MAX)?.unwrap_or(100).min(1000) as usize;
        let mut body = Map::new();
        let mut criteria = Map::new();
        for (name, value) in &request.query {
            match name.as_str() {
                "limit" | "includeMetadata" => {}
                "cursor" | "partition" => drop(body.insert(name.clone(), json!(value))),
                _ => filter::from_query(self.filters, self.fields, name, value, &mut criteria)?,
            }
        }
        body.insert("filter".into(), Value::Object(criteria));
        self.page(project, body, limit)
    }

    fn page(&self, project: &Project, mut body: Object, limit: usize) -> Result<Reply, ApiError> {
        // The limit may change between pages; the fingerprint of the cursor covers everything else.
        body.remove("limit");
        let cursor = body.shift_remove("cursor");
        let parameters = json!([self.path, body]);
        let after = match &cursor {
            None => 0,
            Some(cursor) => {
                let cursor =
                    cursor.as_str().ok_or_else(|| ApiError::bad_request("cursor: expected a string"))?;
                let state = codec::decode_cursor(&parameters, cursor)?;
                state.as_u64().ok_or_else(|| ApiError::bad_request("Invalid cursor"))?
            }
        };
        let partition = match body.get("partition") {
            None => None,
            Some(partition) if self.can(Operation::Partitions) => Some(parse_partition(partition)?),
            Some(_) => return Err(ApiError::bad_request("Unknown field 'partition' in the request")),
        };
        let aggregates = requested_properties(&body)?;
        if body.contains_key("aggregatedProperties") && !self.can(Operation::Aggregates) {
            return Err(ApiError::bad_request("Unknown field 'aggregatedProperties' in the request"));
        }
        let none = json!({});
        let mut classic = project.classic();
        let sight = classic.lists.next();
        let criteria =
            filter::compile(&classic, self.filters, self.fields, body.get("filter").unwrap_or(&none))?;
        let mut items = Vec::new();
        let mut last = after;
        let mut next = None;
        for (position, entity) in classic.table(self.path).listed(after, sight) {
            let in_partition = partition.is_none_or(|(part, parts)| position % parts == part);
            if !in_partition || !criteria.iter().all(|matches| matches(entity)) {
                continue;
            }
            if items.len() == limit {
                next = Some(codec::encode_cursor(&parameters, &json!(last)));
                break;
            }
            items.push(self.render(&classic, entity, &aggregates, Occasion::Read));
            last = position;
        }
        Ok(Reply::items(200, items, next))
    }
}

/// Takes `items` out of a body that may otherwise only have the known fields.
pub fn take_items(body: &mut Object, max: usize, known: &[&str]) -> Result<Vec<Value>, ApiError> {
    let items = body.shift_remove("items");
    fields::refuse_unknown("the request", body, known)?;
    match items {
        Some(Value::Array(items)) if (1..=max).contains(&items.len()) => Ok(items),
        Some(Value::Array(items)) => {
            let got = items.len();
            Err(ApiError::bad_request(format!("items: size must be between 1 and {max}, got {got}")))
        }
        Some(Value::Null) => Err(ApiError::null_value()),
        Some(_) => Err(ApiError::bad_request("items: expected an array")),
        None => Err(ApiError::bad_request("Missing required field: items")),
    }
}

/// Returns a boolean of a body, false when absent.
pub fn flag(body: &Object, name: &str) -> Result<bool, ApiError> {
    match body.get(name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::Null) => Err(ApiError::null_value()),
        Some(_) => Err(ApiError::bad_request(format!("{name}: expected true or false"))),
    }
}

/// Returns the properties to show besides the object's own.
fn requested_properties(body: &Object) -> Result<Vec<String>, ApiError> {
    let mut properties = aggregated_properties(body)?;
    if flag(body, "fetchResources")? {
        properties.push("fetchResources".into());
    }
    Ok(properties)
}

fn aggregated_properties(body: &Object) -> Result<Vec<String>, ApiError> {
    const KNOWN: [&str; 3] = ["childCount", "path", "depth"];
    let Some(value) = body.get("aggregatedProperties") else {
        return Ok(Vec::new());
    };
    let known = |value: &Value| value.as_str().filter(|name| KNOWN.contains(name)).map(str::to_owned);
    let list = value.as_array().and_then(|list| list.iter().map(known).collect());
    list.ok_or_else(|| {
        ApiError::bad_request(format!("aggregatedProperties: expected some of {}", KNOWN.join(", ")))
    })
}

/// Returns the identity of an item, which must have exactly one of the names.
pub fn identity(item: &Object, named: &[&str]) -> Result<Identity, ApiError> {
    let given: Vec<&str> =
        ["id", "externalId", "instanceId"].into_iter().filter(|n| item.contains_key(*n)).collect();
    let [name] = given.as_slice() else {
        return Err(ApiError::bad_request(format!("Exactly one of {} must be given", named.join(", "))));
    };
    if !named.contains(name) {
        return Err(ApiError::bad_request(format!("{name} is not allowed here")));
    }
    let value = &item[*name];
    match *name {
        "id" => {
            fields::check_integer("id", value, 1, MAX_ID)?;
            Ok(Identity::Id(value.as_i64().unwrap_or_default()))
        }
        "externalId" => {
            Field::external_id().check(value)?;
            Ok(Identity::External(value.as_str().unwrap_or_default().to_owned()))
        }
        _ => {
            let part = |name: &str, max: usize| {
                let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
                if (1..=max).contains(&text.chars().count()) {
                    Ok(text.to_owned())
                } else {
                    Err(ApiError::bad_request(format!("instanceId.{name}: expected 1 to {max} characters")))
                }
            };
            Ok(Identity::Instance { space: part("space", 43)?, external_id: part("externalId", 255)? })
        }
    }
}

/// Returns those that occur more than once, each once, in the order of their second occurrence.
pub fn repeated(identities: impl Iterator<Item = Identity>) -> Vec<Identity> {
    let mut seen: HashMap<Identity, usize> = HashMap::new();
    let mut twice = Vec::new();
    for identity in identities {
        let count = seen.entry(identity.clone()).or_default();
        *count += 1;
        if *count == 2 {
            twice.push(identity);
        }
    }
    twice
}

fn check_ids<'a>(
    classic: &Classic,
    target: &Target,
    ids: impl Iterator<Item = &'a Value>,
) -> Result<(), ApiError> {
    let table = classic.table(target.path);
    let missing: BTreeSet<i64> =
        ids.filter_map(Value::as_i64).filter(|id| table.visible(&Identity::Id(*id)).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(match target.dangling {
        Dangling::Listed(message) => {
            ApiError::missing(message, missing.iter().map(|id| json!({ "id": id })).collect())
        }
        Dangling::Inline(message) => {
            let ids: Vec<String> = missing.iter().map(i64::to_string).collect();
            ApiError::bad_request(format!("{message}: {}", ids.join(", ")))
        }
    })
}

/// Parses `"m/n"`: the m-th of n partitions, at most ten.
fn parse_partition(partition: &Value) -> Result<(u64, u64), ApiError> {
    let parts = partition.as_str().and_then(|text| text.split_once('/'));
    match parts.and_then(|(part, parts)| Some((part.parse::<u64>().ok()?, parts.parse::<u64>().ok()?))) {
        Some((part, parts)) if (1..=10).contains(&parts) && (1..=parts).contains(&part) => {
            Ok((part - 1, parts))
        }
        _ => Err(ApiError::bad_request("partition: expected 'm/n' with 1 <= m <= n <= 10")),
    }
}
