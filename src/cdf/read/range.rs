//! Ranges of time that conditions allow.

use serde_json::{Map, Value};

use super::condition::Comparison;
use crate::cdf::resource::ID_RANGE;

/// The last timestamp that a JSON number holds exactly, in milliseconds since 1970.
const LAST_MILLIS: i64 = ID_RANGE.1;

/// A range of time in milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    pub first: i64,
    pub last: i64,
}

impl Moments {
    /// Every time that CDF itself may set.
    pub const ALL: Moments = Moments { first: 0, last: i64::MAX };

    /// Applies a condition. CDF's times are whole milliseconds, so this loses nothing.
    pub fn narrow(&mut self, comparison: Comparison, micros: i64) {
        let floor = micros.div_euclid(1000);
        let ceiling = floor + i64::from(micros.rem_euclid(1000) != 0);
        let (first, last) = match comparison {
            Comparison::Equal => (ceiling, floor),
            Comparison::GreaterOrEqual => (ceiling, i64::MAX),
            Comparison::Greater => (floor + 1, i64::MAX),
            Comparison::Less => (i64::MIN, ceiling - 1),
            Comparison::LessOrEqual => (i64::MIN, floor),
            _ => return,
        };
        self.first = self.first.max(first);
        self.last = self.last.min(last);
    }

    pub fn is_empty(self) -> bool {
        self.first > self.last
    }

    /// Returns the range in the form of filters; None if it excludes nothing.
    pub fn json(self) -> Option<Value> {
        let mut range = Map::new();
        if self.first > 0 {
            range.insert("min".into(), self.first.min(LAST_MILLIS).into());
        }
        if self.last < LAST_MILLIS {
            range.insert("max".into(), self.last.into());
        }
        (!range.is_empty()).then_some(Value::Object(range))
    }
}
