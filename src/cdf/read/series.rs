//! The series and the time range that a SELECT of points is about.

use serde_json::Value;

use super::condition::{Comparison, Operand};
use super::query::Query;
use crate::cdf::encode::property::check_space;
use crate::cdf::error::Identity;
use crate::cdf::resource::datapoints::{FIRST_TIMESTAMP, LAST_TIMESTAMP};
use crate::cdf::resource::{Role, EXTERNAL_ID_CHARS};

impl Query {
    /// Returns the series that the conditions name, as requests name them; None if they name none.
    pub(super) fn series(&self) -> Option<Vec<Value>> {
        let instance = (self.equal_text(Role::NodeSpace), self.equal_text(Role::NodeExternalId));
        match (self.keys(), instance) {
            (Some(keys), _) => Some(keys),
            // CDF refuses impossible names; no such series exists.
            (None, (Some(space), Some(external_id)))
                if check_space(space).is_err()
                    || !(1..=EXTERNAL_ID_CHARS).contains(&external_id.chars().count()) =>
            {
                Some(Vec::new())
            }
            (None, (Some(space), Some(external_id))) => {
                let (space, external_id) = (space.to_owned(), external_id.to_owned());
                Some(vec![Identity::Instance { space, external_id }.to_json()])
            }
            _ => None,
        }
    }

    /// Returns the range of time that the conditions allow. Points are at whole milliseconds; the end is excluded.
    pub(super) fn points_between(&self) -> (i64, i64) {
        let (mut first, mut last) = (FIRST_TIMESTAMP, LAST_TIMESTAMP + 1);
        let column = self.table.position_of(Role::Timestamp);
        for condition in self.conditions.iter().filter(|condition| Some(condition.column) == column) {
            let Operand::Micros(micros) = condition.operand else {
                continue;
            };
            let floor = micros.div_euclid(1000);
            let ceiling = floor + i64::from(micros.rem_euclid(1000) != 0);
            let (start, end) = match condition.comparison {
                Comparison::Equal => (ceiling, floor + 1),
                Comparison::GreaterOrEqual => (ceiling, last),
                Comparison::Greater => (floor + 1, last),
                Comparison::Less => (first, ceiling),
                Comparison::LessOrEqual => (first, floor + 1),
                _ => continue,
            };
            first = first.max(start);
            last = last.min(end);
        }
        (first, last)
    }

    /// Returns the series that the conditions name, and the range of time in milliseconds that they allow, its end
    /// excluded; None unless the conditions name series in exactly one way.
    pub fn series_and_time(&self) -> Option<(Vec<Identity>, (i64, i64))> {
        let of = |roles: &[Role]| {
            let positions: Vec<_> = roles.iter().filter_map(|role| self.table.position_of(*role)).collect();
            self.conditions.iter().filter(|condition| positions.contains(&condition.column)).count()
        };
        let instance = of(&[Role::NodeSpace, Role::NodeExternalId]);
        if of(&[Role::Id, Role::ExternalId]) + instance / 2 != 1 || instance % 2 != 0 {
            return None;
        }
        let series = self.series()?.iter().map(Identity::from_json).collect::<Option<_>>()?;
        Some((series, self.points_between()))
    }
}
