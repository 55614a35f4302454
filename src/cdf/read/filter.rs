//! Conditions as filters of `/list` requests.
//!
//! PostgreSQL checks the conditions again, so a filter may return more rows than they allow, but never fewer. A
//! condition whose value CDF might refuse is therefore left out.

use hashbrown::HashSet;
use serde_json::{json, Map, Value};

use super::condition::{distinct, literal_prefix, Comparison, Condition, Operand};
use super::query::Query;
use super::range::Moments;
use crate::cdf::encode::json::Properties;
use crate::cdf::resource::properties::EXTERNAL_ID;
use crate::cdf::resource::{
    Column, ColumnType, Filter, MetadataLimits, ReferenceTarget, Rule, ASSET, DATA_SET, EXTERNAL_ID_CHARS,
    ID_RANGE,
};
use crate::cdf::table::Binding;

/// The most requests for a list of values, if each value takes one.
const REQUESTS: usize = 10;
/// The most labels in a filter (API description, `LabelContainsAnyFilter`).
const LABELS: usize = 10;

/// Whether list requests of the column's resource have a filter for such a condition.
pub fn filters_on(column: &Column, comparison: Comparison) -> bool {
    use Comparison::*;
    let array = matches!(column.column_type, ColumnType::TextArray | ColumnType::Int8Array);
    match column.filter {
        Filter::None => false,
        Filter::Equal => matches!(comparison, Equal | AnyOf),
        Filter::Range { nullable } => match comparison {
            Equal | Less | LessOrEqual | Greater | GreaterOrEqual => true,
            IsNull | IsNotNull => nullable,
            _ => false,
        },
        Filter::Prefix => matches!(comparison, Like | StartsWith),
        Filter::Metadata => matches!(comparison, Member | Contains),
        Filter::Labels => matches!(comparison, Contains | Overlaps | HasElement),
        Filter::List { .. } if array => matches!(comparison, Contains | Overlaps | HasElement),
        Filter::List { root, .. } => match comparison {
            Equal | AnyOf => true,
            IsNull | IsNotNull => root,
            _ => false,
        },
        Filter::DataSets { .. } => matches!(comparison, Equal | AnyOf),
    }
}

/// Returns the filters that together find all rows that fulfil the conditions, and no row twice. An empty list: no row
/// fulfils them.
pub fn filters(query: &Query) -> Vec<Map<String, Value>> {
    let mut filters = Filters::default();
    for condition in &query.conditions {
        if let Some(Binding::Column(column)) = &query.table.bindings[condition.column] {
            if filters.add(column, condition).is_none() {
                return Vec::new();
            }
        }
    }
    filters.finish()
}

#[derive(Default)]
struct Filters {
    filter: Map<String, Value>,
    ranges: Vec<(&'static str, Moments)>,
    metadata: Map<String, Value>,
    /// UTF-8 bytes of the keys and values of the metadata.
    metadata_bytes: usize,
    /// A property, and those of its values that take one request each.
    alternatives: Option<(&'static str, Vec<Value>)>,
}

impl Filters {
    /// Adds a condition. None if no row can fulfil it.
    fn add(&mut self, column: &Column, condition: &Condition) -> Option<()> {
        let property = column.property;
        let comparison = condition.comparison;
        match (column.filter, &condition.operand) {
            (Filter::Equal, operand) => {
                let values: Option<Vec<Value>> =
                    distinct(operand).into_iter().map(|operand| acceptable(column, operand)).collect();
                // Without values, CDF might refuse one of them.
                if let Some(values) = values {
                    self.one_of(property, values)?;
                }
            }
            (Filter::Range { .. }, operand) => match (comparison, operand) {
                (Comparison::IsNull, _) => self.put(property, json!({ "isNull": true })),
                (Comparison::IsNotNull, _) => self.put(property, json!({ "isNull": false })),
                (_, Operand::Micros(micros)) => {
                    let at = match self.ranges.iter().position(|(name, _)| *name == property) {
                        Some(at) => at,
                        None => {
                            self.ranges.push((property, Moments::ALL));
                            self.ranges.len() - 1
                        }
                    };
                    let moments = &mut self.ranges[at].1;
                    moments.narrow(comparison, *micros);
                    if moments.is_empty() {
                        return None;
                    }
                }
                _ => {}
            },
            (Filter::Prefix, Operand::Text(text)) => {
                let prefix = match comparison {
                    Comparison::Like => literal_prefix(text),
                    Comparison::StartsWith => text.clone(),
                    _ => return Some(()),
                };
                let known = self.filter.get("externalIdPrefix").and_then(Value::as_str).map_or(0, str::len);
                if prefix.chars().count() <= EXTERNAL_ID_CHARS && prefix.len() > known {
                    self.filter.insert("externalIdPrefix".into(), prefix.into());
                }
            }
            (Filter::Metadata, operand) => {
                if let Rule::Metadata(limits) = column.rule {
                    self.add_metadata(operand, limits);
                }
            }
            (Filter::Labels, operand) => {
                let labels: Vec<Value> = distinct(operand)
                    .into_iter()
                    .filter_map(reference)
                    .map(|label| json!({ EXTERNAL_ID: label }))
                    .collect();
                match comparison {
                    Comparison::Overlaps if labels.is_empty() => return None,
                    Comparison::Overlaps if labels.len() <= LABELS => {
                        self.put("labels", json!({ "containsAny": labels }));
                    }
                    Comparison::Contains | Comparison::HasElement if !labels.is_empty() => {
                        let labels: Vec<Value> = labels.into_iter().take(LABELS).collect();
                        self.put("labels", json!({ "containsAll": labels }));
                    }
                    _ => {}
                }
            }
            (Filter::List { property, max, root }, operand) => match comparison {
                Comparison::IsNull | Comparison::IsNotNull => {
                    if root {
                        self.put("root", (comparison == Comparison::IsNull).into());
                    }
                }
                // CDF's filter only asks whether the row has any of them.
                Comparison::Contains => {
                    let operands = distinct(operand);
                    let first = operands.first().map(|operand| reference(operand));
                    match first {
                        Some(Some(value)) => self.put(property, json!([value])),
                        Some(None) => return None,
                        None => {}
                    }
                }
                _ => {
                    let possible = |value: &Value| match column.rule {
                        Rule::Text { min: 1.., .. } => value != "",
                        Rule::OneOf(names) => value.as_str().is_some_and(|name| names.contains(&name)),
                        _ => true,
                    };
                    let values: Vec<Value> =
                        distinct(operand).into_iter().filter_map(reference).filter(possible).collect();
                    let single = matches!(comparison, Comparison::Equal | Comparison::AnyOf);
                    self.any_of(property, values, max, single)?;
                }
            },
            (Filter::DataSets { by, max }, operand) => {
                let values: Vec<Value> = distinct(operand)
                    .into_iter()
                    .filter_map(reference)
                    .map(|value| json!({ by: value }))
                    .collect();
                self.any_of("dataSetIds", values, max, true)?;
            }
            _ => {}
        }
        Some(())
    }

    /// Adds a property that must equal one of these values.
    fn one_of(&mut self, property: &'static str, mut values: Vec<Value>) -> Option<()> {
        match values.len() {
            0 => return None,
            1 => self.put(property, values.remove(0)),
            many if many <= REQUESTS && self.alternatives.is_none() => {
                self.alternatives = Some((property, values));
            }
            _ => {}
        }
        Some(())
    }

    /// Adds a property that CDF compares with a list. Parts of a list return no row twice only if a row has a `single`
    /// value.
    fn any_of(&mut self, property: &'static str, values: Vec<Value>, max: usize, single: bool) -> Option<()> {
        match values.len() {
            0 => return None,
            many if many <= max => self.put(property, Value::Array(values)),
            many if single && many <= max * REQUESTS && self.alternatives.is_none() => {
                let parts = values.chunks(max).map(|part| Value::Array(part.to_vec())).collect();
                self.alternatives = Some((property, parts));
            }
            _ => {}
        }
        Some(())
    }

    /// Adds pairs of metadata. Only texts are used, since CDF's metadata has nothing else. A filter has the same limits
    /// as metadata; PostgreSQL checks the pairs beyond them.
    fn add_metadata(&mut self, operand: &Operand, limits: MetadataLimits) {
        let pairs: Vec<(String, Value)> = match operand {
            Operand::List(pair) => match pair.as_slice() {
                [Operand::Text(key), Operand::Text(value)] => vec![(key.clone(), value.as_str().into())],
                _ => Vec::new(),
            },
            Operand::Json(text) => {
                let pairs: Properties = serde_json::from_str(text).unwrap_or_default();
                let texts = pairs.0.iter().filter_map(|(key, value)| {
                    let text: String = serde_json::from_str(value.get()).ok()?;
                    Some((key.to_string(), text.into()))
                });
                texts.collect()
            }
            _ => Vec::new(),
        };
        for (key, value) in pairs {
            let bytes = value.as_str().map_or(0, str::len);
            let total = self.metadata_bytes + key.len() + bytes;
            let fits = (1..=limits.key).contains(&key.len())
                && bytes <= limits.value
                && total <= limits.total
                && self.metadata.len() < limits.pairs;
            if fits && !self.metadata.contains_key(&key) {
                self.metadata_bytes = total;
                self.metadata.insert(key, value);
            }
        }
    }

    /// Adds a property. Of several conditions on one property the first counts.
    fn put(&mut self, property: &str, value: Value) {
        self.filter.entry(property).or_insert(value);
    }

    fn finish(mut self) -> Vec<Map<String, Value>> {
        for (property, moments) in std::mem::take(&mut self.ranges) {
            if let Some(range) = moments.json() {
                // A value that is compared is not null.
                self.filter.insert(property.into(), range);
            }
        }
        if !self.metadata.is_empty() {
            let metadata = Value::Object(std::mem::take(&mut self.metadata));
            self.filter.insert("metadata".into(), metadata);
        }
        match self.alternatives {
            Some((property, values)) if !self.filter.contains_key(property) => values
                .into_iter()
                .map(|value| {
                    let mut filter = self.filter.clone();
                    filter.insert(property.into(), value);
                    filter
                })
                .collect(),
            _ => vec![self.filter],
        }
    }
}

/// Returns the value of a condition as CDF takes it in such a property, if it does.
fn acceptable(column: &Column, operand: &Operand) -> Option<Value> {
    match (operand, column.rule) {
        (Operand::Text(text), Rule::Text { min, max } | Rule::ImmutableText { min, max }) => {
            (min..=max).contains(&text.chars().count()).then(|| text.as_str().into())
        }
        (Operand::Text(text), Rule::Subject) => {
            (1..=EXTERNAL_ID_CHARS).contains(&text.chars().count()).then(|| text.as_str().into())
        }
        (Operand::Text(text), _) => Some(text.as_str().into()),
        (Operand::Bool(value), _) => Some((*value).into()),
        _ => None,
    }
}

/// Returns an internal or external id. None for a value that cannot be one: nothing refers to it.
fn reference(operand: &Operand) -> Option<Value> {
    match operand {
        Operand::Int(id) => (ID_RANGE.0..=ID_RANGE.1).contains(id).then(|| (*id).into()),
        Operand::Text(text) => (text.chars().count() <= EXTERNAL_ID_CHARS).then(|| text.as_str().into()),
        _ => None,
    }
}

/// Returns the external ids in a filter, each list with the items that they name: CDF may refuse a filter with an
/// unknown one.
pub fn names(filter: &Map<String, Value>) -> Vec<(&'static ReferenceTarget, Vec<String>)> {
    let mut found = Vec::new();
    for (property, target) in NAMED {
        let list = filter.get(property).and_then(Value::as_array);
        let names: Vec<String> =
            list.into_iter().flatten().filter_map(|element| name(element).map(str::to_owned)).collect();
        if !names.is_empty() {
            found.push((target, names));
        }
    }
    found
}

/// The properties of filters that may hold external ids of other items.
static NAMED: [(&str, &ReferenceTarget); 3] =
    [("dataSetIds", &DATA_SET), ("parentExternalIds", &ASSET), ("assetExternalIds", &ASSET)];

fn name(element: &Value) -> Option<&str> {
    element.as_str().or_else(|| element[EXTERNAL_ID].as_str())
}

/// Removes the target's external ids that are not `known` from a filter. Returns false if a property that needs one has
/// none left.
pub fn keep_known(
    filter: &mut Map<String, Value>,
    target: &ReferenceTarget,
    known: &HashSet<String>,
) -> bool {
    for (property, of) in NAMED {
        if of != target {
            continue;
        }
        if let Some(Value::Array(list)) = filter.get_mut(property) {
            list.retain(|element| name(element).is_none_or(|name| known.contains(name)));
            if list.is_empty() {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::resource::Resource;

    fn filters_of(resource: &str, conditions: &[(&str, Comparison, Operand)]) -> Vec<Value> {
        let resource = Resource::get(resource).unwrap();
        let mut filters = Filters::default();
        for (name, comparison, operand) in conditions {
            let column = resource.column(name).unwrap();
            assert!(filters_on(column, *comparison), "{name} {comparison:?}");
            let condition = Condition { column: 0, comparison: *comparison, operand: operand.clone() };
            if filters.add(column, &condition).is_none() {
                return Vec::new();
            }
        }
        filters.finish().into_iter().map(Value::Object).collect()
    }

    fn text(text: &str) -> Operand {
        Operand::Text(text.into())
    }

    fn texts(list: &[&str]) -> Operand {
        Operand::List(list.iter().map(|element| text(element)).collect())
    }

    #[test]
    fn prefixes_end_at_the_first_wildcard() {
        for (pattern, prefix) in [
            ("abc%", "abc"),
            ("a_c", "a"),
            ("%", ""),
            (r"a\%b%", "a%b"),
            (r"a\\%", r"a\"),
            ("ab", "ab"),
            (r"a\", "a"),
        ] {
            assert_eq!(literal_prefix(pattern), prefix);
        }
    }

    #[test]
    fn times_are_whole_milliseconds() {
        use Comparison::*;
        for (comparison, micros, range) in [
            (Less, 5_000, json!({ "max": 4 })),
            (Less, 5_001, json!({ "max": 5 })),
            (LessOrEqual, 5_001, json!({ "max": 5 })),
            (Greater, 5_000, json!({ "min": 6 })),
            (Greater, 5_001, json!({ "min": 6 })),
            (GreaterOrEqual, 5_001, json!({ "min": 6 })),
            (Equal, 5_000, json!({ "min": 5, "max": 5 })),
        ] {
            let made = filters_of("events", &[("end_time", comparison, Operand::Micros(micros))]);
            assert_eq!(made, [json!({ "endTime": range })], "{comparison:?} {micros}");
        }
        assert!(filters_of("events", &[("end_time", Equal, Operand::Micros(5_001))]).is_empty());
        assert!(filters_of("events", &[("end_time", Less, Operand::Micros(i64::MIN))]).is_empty());
        assert_eq!(filters_of("events", &[("end_time", Greater, Operand::Micros(-7))]), [json!({})]);
    }

    #[test]
    fn lists_take_one_request_where_cdf_takes_lists() {
        use Comparison::*;
        assert_eq!(
            filters_of("assets", &[("data_set_external_id", AnyOf, texts(&["a", "b", "a"]))]),
            [json!({ "dataSetIds": [{ "externalId": "a" }, { "externalId": "b" }] })]
        );
        assert_eq!(
            filters_of("assets", &[("name", AnyOf, texts(&["a", "b"])), ("source", Equal, text("s"))]),
            [json!({ "source": "s", "name": "a" }), json!({ "source": "s", "name": "b" })]
        );
        assert!(filters_of("assets", &[("name", AnyOf, texts(&[]))]).is_empty());
        assert_eq!(filters_of("assets", &[("name", Equal, text(""))]), [json!({})], "CDF refuses it");
        assert_eq!(filters_of("files", &[("name", Equal, text(""))]), [json!({})], "CDF refuses it");
        assert!(filters_of("relationships", &[("source_external_id", Equal, text(""))]).is_empty());
        let many = Operand::List((1..=250).map(Operand::Int).collect());
        assert_eq!(filters_of("assets", &[("parent_id", AnyOf, many.clone())]).len(), 3);
        assert_eq!(filters_of("assets", &[("parent_id", Equal, Operand::Int(-1))]).len(), 0);
        assert_eq!(filters_of("events", &[("asset_ids", Overlaps, many)])[0]["assetIds"][249], 250);
        let ids = Operand::List(vec![Operand::Int(5), Operand::Int(6)]);
        assert_eq!(filters_of("events", &[("asset_ids", Contains, ids)]), [json!({ "assetIds": [5] })]);
    }

    #[test]
    fn the_rest() {
        use Comparison::*;
        let pair = texts(&["k", "v"]);
        let object = Operand::Json(r#"{"a": "1", "b": 2, "k": "w"}"#.into());
        assert_eq!(
            filters_of("assets", &[("metadata", Member, pair), ("metadata", Contains, object)]),
            [json!({ "metadata": { "k": "v", "a": "1" } })]
        );
        let long = Operand::Json(format!(r#"{{"a": "{0}", "b": "{0}", "c": "1"}}"#, "x".repeat(6000)));
        let [filter] = &filters_of("assets", &[("metadata", Contains, long)])[..] else { panic!() };
        let mut asked: Vec<&String> = filter["metadata"].as_object().unwrap().keys().collect();
        asked.sort();
        assert_eq!(asked, ["a", "c"], "10,240 bytes in all");
        let longer = texts(&["k", &"x".repeat(10_241)]);
        assert_eq!(filters_of("assets", &[("metadata", Member, longer)]), [json!({})]);
        assert_eq!(
            filters_of(
                "assets",
                &[("labels", Contains, texts(&["a", "b"])), ("parent_id", IsNull, Operand::Bool(true))]
            ),
            [
                json!({ "labels": { "containsAll": [{ "externalId": "a" }, { "externalId": "b" }] }, "root": true })
            ]
        );
        assert_eq!(
            filters_of(
                "assets",
                &[("external_id", Like, text("ab%")), ("external_id", StartsWith, text("abc"))]
            ),
            [json!({ "externalIdPrefix": "abc" })]
        );
    }

    #[test]
    fn unknown_names_are_taken_out() {
        let Value::Object(mut filter) =
            json!({ "dataSetIds": [{ "externalId": "a" }, { "externalId": "b" }] })
        else {
            unreachable!()
        };
        assert_eq!(names(&filter)[0].1, ["a", "b"]);
        let known = HashSet::from_iter(["b".to_owned()]);
        assert!(keep_known(&mut filter, &DATA_SET, &known));
        assert_eq!(filter["dataSetIds"], json!([{ "externalId": "b" }]));
        assert!(!keep_known(&mut filter, &DATA_SET, &HashSet::new()));
    }
}
