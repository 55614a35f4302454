//! The filters of list requests.

use std::collections::HashSet;

use serde_json::{json, Map, Value};

use super::fields::{self, Field, FieldType};
use crate::errors::ApiError;
use crate::store::{Classic, Entity, Identity};

/// The comparison that a filter makes.
#[derive(Debug, Clone, Copy)]
pub enum Filter {
    /// The field of the same name, for equality.
    Equal,
    /// The beginning of the external id.
    ExternalIdPrefix,
    /// `{"min", "max"}`, both inclusive, over the field of the same name; `{"isNull"}` if the flag allows it.
    Range {
        /// Whether `isNull` is allowed.
        nullable: bool,
    },
    /// The object must have every given pair.
    Metadata,
    /// `[{"id"}|{"externalId"}]` of data sets, at most this many.
    DataSets(usize),
    /// Asset ids, at most this many, compared with a field that holds one or several.
    AssetIds(&'static str, usize),
    /// Asset external ids, at most this many, compared with such a field.
    AssetExternalIds(&'static str, usize),
    /// `[{"id"}|{"externalId"}]` (or plain ids) of assets, at most this many, whose subtrees the field must be in.
    AssetSubtrees(&'static str, usize),
    /// `{"containsAny"}` or `{"containsAll"}`.
    Labels,
    /// Whether an asset has no parent.
    Root,
    /// Whether an object's time overlaps `{"min", "max"}`. Without an end it lasts for ever; without a start it has
    /// always been if the flag says so, and otherwise never is.
    ActiveAt {
        /// Whether a start may be absent.
        open: bool,
    },
    /// The beginning of a string field.
    Prefix(&'static str),
    /// A list that the field's value must be in.
    AnyOf(&'static str),
    /// `{"min", "max"}` of a number.
    NumberRange,
    /// `[{"type", "externalId"}]`: a relationship's source or target.
    SourceOrTarget,
    /// Valid in CDF; refused rather than ignored, so that nobody mistakes an unfiltered list for a filtered one.
    NotEmulated,
}

type Predicate = Box<dyn Fn(&Entity) -> bool>;

/// Turns a filter object into predicates that must all hold.
pub fn compile(
    classic: &Classic,
    filters: &'static [(&'static str, Filter)],
    declared: &[Field],
    criteria: &Value,
) -> Result<Vec<Predicate>, ApiError> {
    let Some(criteria) = criteria.as_object() else {
        return Err(ApiError::bad_request("filter: expected an object"));
    };
    criteria
        .iter()
        .map(|(name, value)| match filters.iter().find(|(known, _)| known == name) {
            Some((name, filter)) => {
                let (of, values) = match filter {
                    Filter::Equal => (*name, std::slice::from_ref(value)),
                    Filter::AnyOf(field) => (*field, value.as_array().map_or(&[] as &[Value], Vec::as_slice)),
                    _ => (*name, &[] as &[Value]),
                };
                for field in declared.iter().filter(|field| field.name == of) {
                    values.iter().try_for_each(|value| field.check(value))?;
                }
                predicate(classic, name, *filter, value)
            }
            None => Err(ApiError::bad_request(format!("Unknown field '{name}' in filter"))),
        })
        .collect()
}

fn predicate(
    classic: &Classic,
    name: &'static str,
    filter: Filter,
    value: &Value,
) -> Result<Predicate, ApiError> {
    let value = value.clone();
    let wrong = |what: &str| ApiError::bad_request(format!("filter.{name}: {what}"));
    Ok(match filter {
        Filter::Equal => Box::new(move |entity| entity.fields.get(name) == Some(&value)),
        Filter::ExternalIdPrefix => {
            Field::external_id().check(&value)?;
            let prefix = value.as_str().unwrap_or_default().to_owned();
            Box::new(move |entity| entity.text("externalId").is_some_and(|id| id.starts_with(&prefix)))
        }
        Filter::Range { nullable } => match value.get("isNull").and_then(Value::as_bool).filter(|_| nullable)
        {
            Some(null) => Box::new(move |entity| entity.fields.contains_key(name) != null),
            None => {
                let (min, max) = range(name, &value)?;
                Box::new(move |entity| entity.integer(name).is_some_and(|n| min <= n && n <= max))
            }
        },
        Filter::Metadata => {
            let wanted = value.as_object().ok_or_else(|| wrong("expected an object"))?.clone();
            Box::new(move |entity| {
                let pairs = entity.fields.get("metadata");
                wanted.iter().all(|(key, value)| pairs.and_then(|pairs| pairs.get(key)) == Some(value))
            })
        }
        Filter::DataSets(max) => {
            let ids = resolve(classic, "datasets", bounded(name, &value, max)?)?;
            Box::new(move |entity| entity.integer("dataSetId").is_some_and(|id| ids.contains(&id)))
        }
        Filter::AssetIds(field, max) => {
            let list = bounded(name, &value, max)?;
            list.iter().try_for_each(|id| fields::check_integer(name, id, 1, fields::MAX_ID))?;
            within(field, list.iter().filter_map(Value::as_i64).collect())
        }
        Filter::AssetExternalIds(field, max) => {
            let list = bounded(name, &value, max)?;
            list.iter().try_for_each(|id| Field::external_id().check(id))?;
            let assets = classic.table("assets");
            let ids =
                list.iter().filter_map(Value::as_str).filter_map(|id| Some(assets.by_external_id(id)?.id));
            within(field, ids.collect())
        }
        Filter::AssetSubtrees(field, max) => {
            let assets = classic.table("assets");
            let given = bounded(name, &value, max)?;
            let mut open: Vec<i64> = resolve(classic, "assets", given)?.into_iter().collect();
            let mut ids = HashSet::new();
            while let Some(id) = open.pop() {
                if ids.insert(id) {
                    open.extend(assets.children(id));
                }
            }
            within(field, ids)
        }
        Filter::Labels => {
            let (all, list) = match value.as_object().and_then(|value| value.iter().next()) {
                Some((kind, list)) if kind == "containsAll" => (true, list),
                Some((kind, list)) if kind == "containsAny" => (false, list),
                _ => return Err(wrong("expected containsAny or containsAll")),
            };
            let wanted = bounded(name, list, 10)?.clone();
            Box::new(move |entity| {
                let none = Vec::new();
                let labels = entity.fields.get("labels").and_then(Value::as_array).unwrap_or(&none);
                if all {
                    wanted.iter().all(|label| labels.contains(label))
                } else {
                    wanted.iter().any(|label| labels.contains(label))
                }
            })
        }
        Filter::Root => {
            let root = value.as_bool().ok_or_else(|| wrong("expected true or false"))?;
            Box::new(move |entity| entity.fields.contains_key("parentId") != root)
        }
        Filter::ActiveAt { open } => {
            let (min, max) = range(name, &value)?;
            Box::new(move |entity| {
                let end = entity.integer("endTime").unwrap_or(i64::MAX);
                let start = entity.integer("startTime").or(open.then_some(i64::MIN));
                start.is_some_and(|start| start <= max && min <= end)
            })
        }
        Filter::Prefix(field) => {
            let prefix = value.as_str().ok_or_else(|| wrong("expected a string"))?.to_owned();
            Box::new(move |entity| entity.text(field).is_some_and(|text| text.starts_with(&prefix)))
        }
        Filter::AnyOf(field) => {
            let wanted = bounded(name, &value, 1000)?.clone();
            Box::new(move |entity| entity.fields.get(field).is_some_and(|value| wanted.contains(value)))
        }
        Filter::NumberRange => {
            let bounds = value.as_object().ok_or_else(|| wrong("expected an object"))?;
            fields::refuse_unknown(name, bounds, &["min", "max"])?;
            let bound = |key: &str, default| bounds.get(key).map_or(Some(default), Value::as_f64);
            let wrong = || wrong("expected numbers");
            let min = bound("min", f64::MIN).ok_or_else(wrong)?;
            let max = bound("max", f64::MAX).ok_or_else(wrong)?;
            Box::new(move |entity| {
                let number = entity.fields.get(name).and_then(Value::as_f64);
                number.is_some_and(|number| (min..=max).contains(&number))
            })
        }
        Filter::SourceOrTarget => {
            let wanted = bounded(name, &value, 1)?[0].clone();
            Box::new(move |entity| {
                let is = |ty: &str, external_id: &str| {
                    let same = |given: &Value, field: &str| {
                        given.is_null() || entity.fields.get(field).is_some_and(|value| value == given)
                    };
                    same(&wanted["type"], ty) && same(&wanted["externalId"], external_id)
                };
                is("sourceType", "sourceExternalId") || is("targetType", "targetExternalId")
            })
        }
        Filter::NotEmulated => return Err(ApiError::new(501, format!("filter.{name} is not emulated"))),
    })
}

/// Makes a predicate: the field, one id or several (`id` is the object's own), must have an id in the set.
fn within(field: &'static str, ids: HashSet<i64>) -> Predicate {
    Box::new(move |entity| match entity.fields.get(field) {
        _ if field == "id" => ids.contains(&entity.id),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).any(|id| ids.contains(&id)),
        Some(value) => value.as_i64().is_some_and(|id| ids.contains(&id)),
        None => false,
    })
}

fn range(name: &str, value: &Value) -> Result<(i64, i64), ApiError> {
    let wrong = || ApiError::bad_request(format!("filter.{name}: expected an object with min or max"));
    let bounds = value.as_object().ok_or_else(wrong)?;
    fields::refuse_unknown(name, bounds, &["min", "max"])?;
    let bound = |key: &str, default| match bounds.get(key) {
        None => Ok(default),
        Some(value) => value.as_i64().ok_or_else(wrong),
    };
    Ok((bound("min", i64::MIN)?, bound("max", i64::MAX)?))
}

/// Returns a list that is neither empty nor too long.
fn bounded<'a>(name: &str, value: &'a Value, max: usize) -> Result<&'a Vec<Value>, ApiError> {
    let wrong = |what: String| ApiError::bad_request(format!("filter.{name}: {what}"));
    let list = value.as_array().ok_or_else(|| wrong("expected an array".into()))?;
    if (1..=max).contains(&list.len()) {
        Ok(list)
    } else {
        Err(wrong(format!("size must be between 1 and {max}, got {}", list.len())))
    }
}

/// Returns the ids of `[{"id"}|{"externalId"}|id]`; names of missing objects match nothing.
fn resolve(classic: &Classic, path: &str, list: &[Value]) -> Result<HashSet<i64>, ApiError> {
    let wrong = || ApiError::bad_request(format!("filter: expected ids of {path}"));
    let mut ids = HashSet::new();
    for element in list {
        let identity = match (element.as_i64(), element.get("id"), element.get("externalId")) {
            (Some(id), ..) => Identity::Id(id),
            (None, Some(id), None) => Identity::Id(id.as_i64().ok_or_else(wrong)?),
            (None, None, Some(id)) => Identity::External(id.as_str().ok_or_else(wrong)?.to_owned()),
            _ => return Err(wrong()),
        };
        ids.extend(classic.table(path).find(&identity).map(|entity| entity.id));
    }
    Ok(ids)
}

/// Adds a query parameter of `GET /x` to a filter object.
pub fn from_query(
    filters: &[(&'static str, Filter)],
    declared: &[Field],
    parameter: &str,
    text: &str,
    criteria: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let json_text = || -> Result<Value, ApiError> {
        serde_json::from_str(text)
            .map_err(|_| ApiError::bad_request(format!("{parameter}: malformed value '{text}'")))
    };
    for bound in ["min", "max"] {
        let Some(rest) = parameter.strip_prefix(bound) else {
            continue;
        };
        let range = filters.iter().find(|(name, filter)| {
            matches!(filter, Filter::Range { .. } | Filter::ActiveAt { .. })
                && name.eq_ignore_ascii_case(rest)
        });
        if let Some((name, _)) = range {
            let entry = criteria.entry(*name).or_insert_with(|| json!({}));
            entry[bound] = json_text()?;
            return Ok(());
        }
    }
    let known =
        filters.iter().find(|(name, filter)| *name == parameter && !matches!(filter, Filter::Range { .. }));
    let Some((name, filter)) = known else {
        return Err(ApiError::bad_request(format!("Unknown query parameter '{parameter}'")));
    };
    let is_text = matches!(filter, Filter::ExternalIdPrefix)
        || declared.iter().any(|field| field.name == *name && matches!(field.ty, FieldType::Text { .. }));
    criteria.insert((*name).to_owned(), if is_text { json!(text) } else { json_text()? });
    Ok(())
}
