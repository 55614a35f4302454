//! Conditions on the properties of nodes and edges, as filters of `/models/instances/list`.
//!
//! As in [`super::filter`], a filter may return more than the conditions allow, but never less, and a condition whose
//! value CDF might refuse is left out.

use serde_json::{json, Map, Value};
use time::{Date, OffsetDateTime};

use super::condition::{distinct, is_order, literal_prefix, Comparison, Condition, Operand, OperandKind};
use super::query::Query;
use super::range::Moments;
use crate::cdf::encode::property::{check_external_id, check_space};
use crate::cdf::resource::view::TEXT_BYTES;
use crate::cdf::resource::Role;
use crate::cdf::table::view::{Property, PropertyType, View};
use crate::cdf::table::{Binding, Part, Table};

/// The most values in one filter (API description, `RawPropertyValueV3`, an array of texts, booleans or numbers).
pub const VALUES: usize = 1000;
/// The most direct relations in one filter (the same place, an array of direct relations).
const RELATIONS: usize = 100;
/// The Julian day of 2000-01-01, from which PostgreSQL counts days.
const JULIAN_2000: i32 = 2_451_545;

/// The part of an instance that a column shows, except for its key.
enum Subject<'t> {
    Value(&'t Property),
    /// A part of a direct relation, or of `type`, `startNode` or `endNode`, with the name of the property or member.
    Relation(&'t str, Part),
}

fn subject(table: &Table, column: usize) -> Option<Subject<'_>> {
    match table.bindings[column].as_ref()? {
        Binding::Property { property, part: Part::Whole } => Some(Subject::Value(property)),
        Binding::Property { property, part } => Some(Subject::Relation(&property.name, *part)),
        Binding::Column(column) => {
            let (end, part) = column.property.split_once('.')?;
            let part = if part == "space" { Part::Space } else { Part::ExternalId };
            Some(Subject::Relation(end, part))
        }
        Binding::RawColumn { .. } => None,
    }
}

/// Whether CDF can filter by such a condition on a column that is not a key.
pub fn filters_on(table: &Table, column: usize, comparison: Comparison) -> bool {
    use Comparison::*;
    let property = match subject(table, column) {
        None => return false,
        Some(Subject::Relation(..)) => return matches!(comparison, Equal | AnyOf | IsNull | IsNotNull),
        Some(Subject::Value(property)) => property,
    };
    let of = property.property_type;
    if matches!(comparison, IsNull | IsNotNull) {
        // A JSON document may itself be null, which is NULL in PostgreSQL.
        return of != PropertyType::Json;
    }
    match (of, property.list) {
        (PropertyType::Text | PropertyType::Int32 | PropertyType::Int64 | PropertyType::Float64, Some(_)) => {
            matches!(comparison, Contains | Overlaps | HasElement)
        }
        (_, Some(_)) => false,
        (PropertyType::Text, None) => matches!(comparison, Equal | AnyOf | Like | StartsWith),
        (PropertyType::Boolean, None) => comparison == Equal,
        (PropertyType::Int32 | PropertyType::Int64 | PropertyType::Float64, None) => {
            is_order(comparison) || comparison == AnyOf
        }
        (PropertyType::Float32 | PropertyType::Timestamp | PropertyType::Date, None) => is_order(comparison),
        // CDF might refuse a value that is not in the enumeration, or that is no external id.
        (PropertyType::Reference | PropertyType::Direct | PropertyType::Json, None) => false,
    }
}

/// Returns the type that a condition's value needs for a comparison in CDF.
pub fn operand_kind(table: &Table, column: usize) -> Option<OperandKind> {
    Some(match subject(table, column)? {
        Subject::Relation(..) => OperandKind::Text,
        Subject::Value(property) => match property.property_type {
            PropertyType::Text | PropertyType::Reference => OperandKind::Text,
            PropertyType::Boolean => OperandKind::Bool,
            PropertyType::Int32 | PropertyType::Int64 => OperandKind::Int,
            PropertyType::Float32 => OperandKind::Real,
            PropertyType::Float64 => OperandKind::Double,
            PropertyType::Timestamp => OperandKind::Time,
            PropertyType::Date => OperandKind::Day,
            PropertyType::Json | PropertyType::Direct => return None,
        },
    })
}

/// Whether a filter returns exactly the rows that fulfil a comparison of this property.
pub fn is_exact(property: &Property, comparison: Comparison) -> bool {
    // Filters on reals include the neighbouring values.
    property.property_type != PropertyType::Float32
        || matches!(comparison, Comparison::IsNull | Comparison::IsNotNull)
}

/// Keeps only the conditions that a scan's requests carry: keys are asked for separately, and one part of a relation
/// alone filters nothing.
pub fn keep_effective<T>(table: &Table, conditions: &mut Vec<T>, of: impl Fn(&T) -> (usize, Comparison)) {
    let is_equal = |condition: &T| matches!(of(condition).1, Comparison::Equal | Comparison::AnyOf);
    let fixed = |role: Role| {
        let position = table.position_of(role);
        conditions.iter().any(|condition| Some(of(condition).0) == position && is_equal(condition))
    };
    let is_key = |at: usize| {
        Some(at) == table.position_of(Role::Space) || Some(at) == table.position_of(Role::ExternalId)
    };
    if fixed(Role::ExternalId) && (fixed(Role::Space) || table.fixes(Role::Space)) {
        conditions.retain(|condition| is_key(of(condition).0));
        return;
    }
    let parts: Vec<(&str, Part)> = conditions
        .iter()
        .filter(|condition| is_equal(condition))
        .filter_map(|condition| match subject(table, of(condition).0)? {
            Subject::Relation(name, part) => Some((name, part)),
            Subject::Value(_) => None,
        })
        .collect();
    conditions.retain(|condition| match subject(table, of(condition).0) {
        Some(Subject::Relation(name, part)) if is_equal(condition) => {
            parts.iter().any(|(other, second)| *other == name && *second != part)
        }
        _ => true,
    });
}

/// Returns the parts of a filter, all of which must hold; None if no instance can fulfil the conditions.
pub fn parts(query: &Query, view: &View, instance_type: &str) -> Option<Vec<Value>> {
    let mut parts = PropertyParts::default();
    for condition in &query.conditions {
        let is_end = matches!(query.table.bindings[condition.column], Some(Binding::Column(_)));
        match subject(&query.table, condition.column) {
            None => {}
            Some(Subject::Value(property)) => {
                parts.add(&reference(view, &property.name), property, condition)?;
            }
            Some(Subject::Relation(name, part)) => {
                let reference = if is_end { json!([instance_type, name]) } else { reference(view, name) };
                parts.add_relation(reference, part, condition);
            }
        }
    }
    parts.finish()
}

/// Returns a property as filters name it.
fn reference(view: &View, property: &str) -> Value {
    json!([view.name.space, format!("{}/{}", view.name.external_id, view.name.version), property])
}

#[derive(Default)]
struct PropertyParts {
    parts: Vec<Value>,
    /// Bounds, by the property that they limit.
    ranges: Vec<(Value, Map<String, Value>)>,
    relations: Vec<RelationPart>,
}

struct RelationPart {
    reference: Value,
    spaces: Option<Vec<String>>,
    external_ids: Option<Vec<String>>,
}

impl PropertyParts {
    /// Adds a condition. None if no value can fulfil it.
    fn add(&mut self, reference: &Value, property: &Property, condition: &Condition) -> Option<()> {
        use Comparison::*;
        let Condition { comparison, operand, .. } = condition;
        match comparison {
            IsNull | IsNotNull => self.exists(reference, *comparison == IsNotNull),
            Like | StartsWith => {
                if let Operand::Text(text) = operand {
                    let prefix = if *comparison == Like { literal_prefix(text) } else { text.clone() };
                    if !prefix.is_empty() && prefix.len() <= TEXT_BYTES {
                        self.parts.push(json!({ "prefix": { "property": reference, "value": prefix } }));
                    }
                }
            }
            Contains | HasElement => {
                if let Some(values) = values(property, operand).filter(|values| !values.is_empty()) {
                    let some = &values[..values.len().min(VALUES)];
                    self.parts.push(json!({ "containsAll": { "property": reference, "values": some } }));
                }
            }
            Overlaps => match values(property, operand) {
                Some(values) if values.is_empty() => return None,
                Some(values) if values.len() <= VALUES => {
                    self.parts.push(json!({ "containsAny": { "property": reference, "values": values } }));
                }
                _ => {}
            },
            Equal | AnyOf if !is_range(property) => {
                if let Some(values) = values(property, operand) {
                    self.any_of(reference, values, VALUES)?;
                }
            }
            _ => {
                for (bound, value) in bounds(property, *comparison, operand)? {
                    self.bound(reference, bound, value);
                }
            }
        }
        Some(())
    }

    fn add_relation(&mut self, reference: Value, part: Part, condition: &Condition) {
        if matches!(condition.comparison, Comparison::IsNull | Comparison::IsNotNull) {
            self.exists(&reference, condition.comparison == Comparison::IsNotNull);
            return;
        }
        let texts = distinct(&condition.operand).into_iter().filter_map(|operand| match operand {
            Operand::Text(text) => Some(text.clone()),
            _ => None,
        });
        let at = match self.relations.iter().position(|relation| relation.reference == reference) {
            Some(at) => at,
            None => {
                self.relations.push(RelationPart { reference, spaces: None, external_ids: None });
                self.relations.len() - 1
            }
        };
        let relation = &mut self.relations[at];
        match part {
            Part::Space => {
                relation
                    .spaces
                    .get_or_insert_with(|| texts.filter(|name| check_space(name).is_ok()).collect());
            }
            _ => {
                relation
                    .external_ids
                    .get_or_insert_with(|| texts.filter(|name| check_external_id(name).is_ok()).collect());
            }
        }
    }

    fn exists(&mut self, reference: &Value, exists: bool) {
        let filter = json!({ "exists": { "property": reference } });
        self.parts.push(if exists { filter } else { json!({ "not": filter }) });
    }

    /// Adds that the value is one of these.
    fn any_of(&mut self, reference: &Value, mut values: Vec<Value>, most: usize) -> Option<()> {
        match values.len() {
            0 => return None,
            1 => self.parts.push(json!({ "equals": { "property": reference, "value": values.remove(0) } })),
            many if many <= most => {
                self.parts.push(json!({ "in": { "property": reference, "values": values } }));
            }
            _ => {}
        }
        Some(())
    }

    /// Adds a bound. Bounds from both sides go into one range; PostgreSQL checks a second one from the same side.
    fn bound(&mut self, reference: &Value, bound: &str, value: Value) {
        let Some(at) = self.ranges.iter().position(|(other, _)| other == reference) else {
            self.ranges.push((reference.clone(), Map::from_iter([(bound.to_owned(), value)])));
            return;
        };
        let bounds = &mut self.ranges[at].1;
        if !bounds.keys().any(|other| other[..1] == bound[..1]) {
            bounds.insert(bound.to_owned(), value);
        }
    }

    fn finish(mut self) -> Option<Vec<Value>> {
        for (reference, mut bounds) in std::mem::take(&mut self.ranges) {
            bounds.insert("property".into(), reference);
            self.parts.push(json!({ "range": bounds }));
        }
        for relation in std::mem::take(&mut self.relations) {
            let (Some(spaces), Some(external_ids)) = (relation.spaces, relation.external_ids) else {
                continue;
            };
            if spaces.len().saturating_mul(external_ids.len()) > RELATIONS {
                continue;
            }
            let relations = spaces.iter().flat_map(|space| {
                external_ids.iter().map(move |id| json!({ "space": space, "externalId": id }))
            });
            self.any_of(&relation.reference, relations.collect(), RELATIONS)?;
        }
        Some(self.parts)
    }
}

/// Whether equality with a value is asked for as a range.
fn is_range(property: &Property) -> bool {
    matches!(property.property_type, PropertyType::Float32 | PropertyType::Timestamp | PropertyType::Date)
}

/// Returns the values of a condition, each once, as CDF takes them; None if CDF might refuse one of them.
fn values(property: &Property, operand: &Operand) -> Option<Vec<Value>> {
    distinct(operand).into_iter().map(|operand| value(property, operand)).collect()
}

fn value(property: &Property, operand: &Operand) -> Option<Value> {
    match (operand, property.property_type) {
        (Operand::Text(text), PropertyType::Text) => (text.len() <= TEXT_BYTES).then(|| text.as_str().into()),
        (Operand::Bool(value), PropertyType::Boolean) => Some((*value).into()),
        (Operand::Int(value), PropertyType::Int32) => i32::try_from(*value).ok().map(Value::from),
        (Operand::Int(value), PropertyType::Int64) => Some((*value).into()),
        (Operand::Float(bits), PropertyType::Float64) => {
            serde_json::Number::from_f64(f64::from_bits(*bits)).map(Value::Number)
        }
        _ => None,
    }
}

/// Returns the bounds that a comparison sets: none where CDF might refuse them. None if no value is within them.
fn bounds(
    property: &Property,
    comparison: Comparison,
    operand: &Operand,
) -> Option<Vec<(&'static str, Value)>> {
    use Comparison::*;
    let both = |first: Option<Value>, last: Option<Value>| {
        let sides = [("gte", first), ("lte", last)];
        Some(sides.into_iter().filter_map(|(bound, value)| Some((bound, value?))).collect())
    };
    match (property.property_type, operand) {
        (PropertyType::Timestamp, Operand::Micros(micros)) => {
            let mut moments = Moments { first: i64::MIN, last: i64::MAX };
            moments.narrow(comparison, *micros);
            if moments.is_empty() {
                return None;
            }
            both(moment(moments.first), moment(moments.last))
        }
        (PropertyType::Date, Operand::Int(days)) => {
            let date = |days: i64| {
                let julian = i32::try_from(days).ok()?.checked_add(JULIAN_2000)?;
                let date =
                    Date::from_julian_day(julian).ok().filter(|date| (1..=9999).contains(&date.year()))?;
                let (year, month, day) = date.to_calendar_date();
                Some(json!(format!("{year:04}-{:02}-{day:02}", u8::from(month))))
            };
            match comparison {
                Equal => both(date(*days), date(*days)),
                Less => both(None, date(days - 1)),
                LessOrEqual => both(None, date(*days)),
                Greater => both(date(days + 1), None),
                _ => both(date(*days), None),
            }
        }
        // CDF may compare with the nearest real, or with the double as it is written.
        (PropertyType::Float32, Operand::Float(bits)) => {
            let real = f64::from_bits(*bits) as f32;
            let number = |real: f32| serde_json::Number::from_f64(f64::from(real)).map(Value::Number);
            let (first, last) =
                if real.is_nan() { (None, None) } else { (number(real.next_down()), number(real.next_up())) };
            match comparison {
                Equal => both(first, last),
                Less | LessOrEqual => both(None, last),
                _ => both(first, None),
            }
        }
        _ => {
            let bound = match comparison {
                Less => "lt",
                LessOrEqual => "lte",
                Greater => "gt",
                _ => "gte",
            };
            Some(value(property, operand).map(|value| (bound, value)).into_iter().collect())
        }
    }
}

/// Writes a timestamp as CDF does; None outside the years 1 to 9999.
fn moment(millis: i64) -> Option<Value> {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?;
    (1..=9999).contains(&moment.year()).then(|| crate::cdf::encode::property::moment(moment).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(of: PropertyType, list: bool, conditions: &[(Comparison, Operand)]) -> Option<Vec<Value>> {
        let property = Property::new("p", of, list);
        let mut parts = PropertyParts::default();
        for (comparison, operand) in conditions {
            let condition = Condition { column: 0, comparison: *comparison, operand: operand.clone() };
            parts.add(&json!("p"), &property, &condition)?;
        }
        parts.finish()
    }

    fn text(text: &str) -> Operand {
        Operand::Text(text.into())
    }

    fn range(of: PropertyType, conditions: &[(Comparison, Operand)]) -> Value {
        match parts_of(of, false, conditions) {
            None => Value::Null,
            Some(parts) if parts.is_empty() => json!({}),
            Some(mut parts) => {
                assert_eq!(parts.len(), 1);
                let mut range = parts[0]["range"].take();
                assert_eq!(range["property"].take(), "p");
                range.as_object_mut().unwrap().remove("property");
                range
            }
        }
    }

    #[test]
    fn times_and_dates_are_rounded_inwards() {
        use Comparison::*;
        for (comparison, micros, expected) in [
            (Less, 5_000, json!({ "lte": "1970-01-01T00:00:00.004+00:00" })),
            (Less, 5_001, json!({ "lte": "1970-01-01T00:00:00.005+00:00" })),
            (Greater, -1, json!({ "gte": "1970-01-01T00:00:00.000+00:00" })),
            (GreaterOrEqual, i64::MIN, json!({})),
            (Less, i64::MAX, json!({})),
            (Equal, 5_001, Value::Null),
        ] {
            assert_eq!(
                range(PropertyType::Timestamp, &[(comparison, Operand::Micros(micros))]),
                expected,
                "{comparison:?} {micros}"
            );
        }
        let days = [(Greater, Operand::Int(59)), (LessOrEqual, Operand::Int(60))];
        assert_eq!(range(PropertyType::Date, &days), json!({ "gte": "2000-03-01", "lte": "2000-03-01" }));
        assert_eq!(range(PropertyType::Date, &[(Less, Operand::Int(i32::MAX.into()))]), json!({}));
    }

    #[test]
    fn reals_come_with_their_neighbours() {
        use Comparison::*;
        let real = |value: f64| Operand::Float(value.to_bits());
        let equal = range(PropertyType::Float32, &[(Equal, real(0.1))]);
        for same in [0.1, f64::from(0.1_f32)] {
            assert!(equal["gte"].as_f64().unwrap() < same && same < equal["lte"].as_f64().unwrap());
        }
        assert_eq!(range(PropertyType::Float32, &[(Less, real(f64::NAN))]), json!({}));
        assert_eq!(range(PropertyType::Float32, &[(LessOrEqual, real(f64::INFINITY))]), json!({}));
        assert_eq!(range(PropertyType::Float64, &[(Less, real(f64::NEG_INFINITY))]), json!({}));
    }

    #[test]
    fn values_that_cdf_might_refuse_are_not_asked_for() {
        use Comparison::*;
        assert_eq!(range(PropertyType::Int32, &[(Less, Operand::Int(1 << 40))]), json!({}));
        let long = text(&"x".repeat(TEXT_BYTES + 1));
        assert_eq!(parts_of(PropertyType::Text, false, &[(Equal, long)]), Some(vec![]));
        assert_eq!(parts_of(PropertyType::Text, false, &[(AnyOf, Operand::List(vec![]))]), None);
        assert_eq!(parts_of(PropertyType::Text, true, &[(Overlaps, Operand::List(vec![]))]), None);
        assert_eq!(parts_of(PropertyType::Text, true, &[(Contains, Operand::List(vec![]))]), Some(vec![]));
        assert_eq!(parts_of(PropertyType::Int32, true, &[(HasElement, Operand::Int(1 << 40))]), Some(vec![]));
        let many = Operand::List((0..1001).map(Operand::Int).collect());
        assert_eq!(parts_of(PropertyType::Int64, false, &[(AnyOf, many)]), Some(vec![]));
        assert_eq!(parts_of(PropertyType::Text, false, &[(Like, text("%x"))]), Some(vec![]));
    }

    #[test]
    fn bounds_of_both_sides_are_one_range() {
        use Comparison::*;
        let conditions =
            [(Greater, Operand::Int(1)), (LessOrEqual, Operand::Int(5)), (Less, Operand::Int(4))];
        assert_eq!(range(PropertyType::Int64, &conditions), json!({ "gt": 1, "lte": 5 }));
    }
}
