//! The points of one series.

use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::status::Status;
use crate::codec::fnv1a;

/// A value. Only Bad points may be without one.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// Of a numeric series.
    Number(f64),
    /// Of a string series.
    Text(Box<str>),
    /// None.
    Null,
}

impl Datum {
    /// Returns 64 bits that stand for the value in the checksum: IEEE 754 bits, FNV-1a of UTF-8, or all ones.
    fn bits(&self) -> u64 {
        match self {
            Self::Number(number) => number.to_bits(),
            Self::Text(text) => fnv1a(text.as_bytes()),
            Self::Null => u64::MAX,
        }
    }

    /// Returns the value as CDF writes it in JSON; None: left out.
    pub fn json(&self) -> Option<Value> {
        match self {
            Self::Number(number) if number.is_nan() => Some(json!("NaN")),
            Self::Number(number) if number.is_infinite() => {
                Some(json!(if *number > 0.0 { "Infinity" } else { "-Infinity" }))
            }
            Self::Number(number) => Some(json!(number)),
            Self::Text(text) => Some(json!(text)),
            Self::Null => None,
        }
    }
}

/// A point without its timestamp.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its value.
    pub value: Datum,
    /// Its status.
    pub status: Status,
}

/// Which points a reader sees, and in which range of time.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// First timestamp.
    pub start: i64,
    /// The timestamp after the last.
    pub end: i64,
    /// Whether Bad points are left out.
    pub ignore_bad: bool,
    /// Whether Uncertain points count as Bad.
    pub uncertain_is_bad: bool,
}

impl View {
    fn shows(&self, point: &Point) -> bool {
        let bad = point.status.is_bad() || (self.uncertain_is_bad && point.status.is_uncertain());
        !(bad && self.ignore_bad)
    }
}

/// The points of one series by timestamp.
#[derive(Debug, Default)]
pub struct Points {
    points: BTreeMap<i64, Point>,
    received: u64,
}

/// What the admin interface tells about points.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Timestamps that are stored.
    pub count: u64,
    /// Points in accepted inserts, counted each time.
    pub received: u64,
    /// Sum of [`hash`] over the stored points, modulo 2^64.
    pub checksum: u64,
}

impl Summary {
    /// Adds two summaries.
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            received: self.received + other.received,
            checksum: self.checksum.wrapping_add(other.checksum),
        }
    }
}

/// Hashes a point: x = (timestamp · 0x9E3779B97F4A7C15 + bits) · 0xBF58476D1CE4E5B9 modulo 2^64, then x XOR (x >> 32).
pub fn hash(timestamp: i64, bits: u64) -> u64 {
    let x = (timestamp as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(bits);
    let x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 32)
}

impl Points {
    /// Writes points; one with a timestamp that exists already, here or earlier in the same list, replaces it.
    pub fn insert(&mut self, points: Vec<(i64, Point)>) {
        self.received += points.len() as u64;
        self.points.extend(points);
    }

    /// Removes the points from `begin` to before `end`.
    pub fn delete(&mut self, begin: i64, end: i64) {
        let mut from = self.points.split_off(&begin);
        self.points.append(&mut from.split_off(&end));
    }

    /// Returns the points of a view, oldest first.
    pub fn view(&self, view: View) -> impl DoubleEndedIterator<Item = (i64, &Point)> {
        // An empty range, since BTreeMap::range panics on a reversed one.
        let end = view.end.max(view.start);
        self.points
            .range(view.start..end)
            .map(|(at, point)| (*at, point))
            .filter(move |(_, point)| view.shows(point))
    }

    /// All points.
    pub fn all(&self) -> impl Iterator<Item = (i64, &Point)> {
        self.points.iter().map(|(at, point)| (*at, point))
    }

    /// Returns the first and the last timestamp.
    pub fn extent(&self) -> (Option<i64>, Option<i64>) {
        let first = self.points.first_key_value().map(|(at, _)| *at);
        (first, self.points.last_key_value().map(|(at, _)| *at))
    }

    /// Count and checksum.
    pub fn summary(&self) -> Summary {
        let checksum =
            self.all().fold(0u64, |sum, (at, point)| sum.wrapping_add(hash(at, point.value.bits())));
        Summary { count: self.points.len() as u64, received: self.received, checksum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f64, status: u32) -> Point {
        Point { value: Datum::Number(value), status: Status(status) }
    }

    #[test]
    fn the_last_of_a_timestamp_wins_and_order_does_not_matter() {
        let (mut one, mut other) = (Points::default(), Points::default());
        one.insert(vec![(1, point(1.0, 0)), (2, point(2.0, 0)), (1, point(3.0, 0))]);
        other.insert(vec![(1, point(3.0, 0))]);
        other.insert(vec![(2, point(2.0, 0))]);
        assert_eq!(one.summary().count, 2);
        assert_eq!(one.summary().received, 3);
        assert_eq!(one.summary().checksum, other.summary().checksum);
        other.insert(vec![(2, point(2.5, 0))]);
        assert_ne!(one.summary().checksum, other.summary().checksum);
    }

    #[test]
    fn views_and_deletes() {
        let mut points = Points::default();
        points.insert(vec![(-5, point(1.0, 0)), (0, point(2.0, 0x8000_0000)), (5, point(3.0, 0x4000_0000))]);
        let seen = |points: &Points, ignore_bad, uncertain_is_bad| -> Vec<i64> {
            let view = View { start: -9, end: 9, ignore_bad, uncertain_is_bad };
            points.view(view).map(|(at, _)| at).collect()
        };
        assert_eq!(seen(&points, true, true), [-5]);
        assert_eq!(seen(&points, true, false), [-5, 5]);
        assert_eq!(seen(&points, false, true), [-5, 0, 5]);
        points.delete(0, 5);
        assert_eq!(points.extent(), (Some(-5), Some(5)));
        assert_eq!(points.summary().count, 2);
        let reversed = View { start: 9, end: -9, ignore_bad: false, uncertain_is_bad: false };
        assert_eq!(points.view(reversed).count(), 0);
    }
}
