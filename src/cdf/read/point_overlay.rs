//! Applies the transaction's own writes in a stretch of a series to the points that CDF has there.

use std::collections::{BTreeMap, BTreeSet};

use crate::cdf::buffer::{PointWrite, Stretch};
use crate::cdf::encode::points::wire::{NumericPoint, NumericPoints, Points, StringPoint, StringPoints};

/// The result of all writes in the stretch.
#[derive(Debug, Default)]
pub struct PointOverlay {
    numeric: BTreeMap<i64, NumericPoint>,
    string: BTreeMap<i64, StringPoint>,
    /// Timestamps at which CDF's point stays, if there is one.
    keeping: BTreeSet<i64>,
    /// Deleted stretches, which do not touch each other: from the first timestamp to the exclusive end.
    deleted: BTreeMap<i64, i64>,
}

impl PointOverlay {
    /// Combines writes, which are in their order.
    pub fn of(writes: Vec<PointWrite>) -> PointOverlay {
        let mut overlay = PointOverlay::default();
        for write in writes {
            match write {
                PointWrite::Delete(stretch) => overlay.delete(stretch),
                PointWrite::Put { points: Points::Numeric(points), keeps } => {
                    for point in points.datapoints {
                        if overlay.takes(point.timestamp, keeps) {
                            overlay.numeric.insert(point.timestamp, point);
                        }
                    }
                }
                PointWrite::Put { points: Points::String(points), keeps } => {
                    for point in points.datapoints {
                        if overlay.takes(point.timestamp, keeps) {
                            overlay.string.insert(point.timestamp, point);
                        }
                    }
                }
            }
        }
        overlay
    }

    fn delete(&mut self, (mut first, mut end): Stretch) {
        if first >= end {
            return;
        }
        fn remove<V>(map: &mut BTreeMap<i64, V>, (first, end): Stretch) {
            let inside: Vec<i64> = map.range(first..end).map(|(moment, _)| *moment).collect();
            inside.iter().for_each(|moment| drop(map.remove(moment)));
        }
        remove(&mut self.numeric, (first, end));
        remove(&mut self.string, (first, end));
        let kept: Vec<i64> = self.keeping.range(first..end).copied().collect();
        for moment in kept {
            self.keeping.remove(&moment);
        }
        // Join it with all stretches that it touches.
        while let Some((&start, &stop)) =
            self.deleted.range(..=end).next_back().filter(|(_, stop)| **stop >= first)
        {
            self.deleted.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        self.deleted.insert(first, end);
    }

    /// Checks whether a point is written, as far as is known without CDF's points.
    fn takes(&mut self, timestamp: i64, keeps: bool) -> bool {
        if !keeps {
            self.keeping.remove(&timestamp);
            return true;
        }
        let has = self.numeric.contains_key(&timestamp) || self.string.contains_key(&timestamp);
        if !has && !self.deletes(timestamp) {
            self.keeping.insert(timestamp);
        }
        !has
    }

    fn deletes(&self, timestamp: i64) -> bool {
        self.deleted.range(..=timestamp).next_back().is_some_and(|(_, end)| timestamp < *end)
    }

    /// Checks whether a point of CDF's is replaced or deleted.
    fn hides(&mut self, timestamp: i64) -> bool {
        if self.keeping.remove(&timestamp) {
            self.numeric.remove(&timestamp);
            self.string.remove(&timestamp);
            return false;
        }
        self.numeric.contains_key(&timestamp)
            || self.string.contains_key(&timestamp)
            || self.deletes(timestamp)
    }

    /// Removes from CDF's points those that the transaction replaces or deletes.
    pub fn apply(&mut self, points: &mut Points) {
        match points {
            Points::Numeric(points) => points.datapoints.retain(|point| !self.hides(point.timestamp)),
            Points::String(points) => points.datapoints.retain(|point| !self.hides(point.timestamp)),
        }
    }

    /// Returns the written points, once all of CDF's points were [seen](Self::apply).
    pub fn into_points(self) -> Option<Points> {
        let numeric: Vec<_> = self.numeric.into_values().collect();
        let string: Vec<_> = self.string.into_values().collect();
        match (numeric.is_empty(), string.is_empty()) {
            (false, _) => Some(Points::Numeric(NumericPoints { datapoints: numeric })),
            (_, false) => Some(Points::String(StringPoints { datapoints: string })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keeps: bool, points: &[(i64, f64)]) -> PointWrite {
        let point = |(timestamp, value): &(i64, f64)| NumericPoint {
            timestamp: *timestamp,
            value: *value,
            ..Default::default()
        };
        PointWrite::Put {
            points: Points::Numeric(NumericPoints { datapoints: points.iter().map(point).collect() }),
            keeps,
        }
    }

    /// What CDF's points become, and the points that are written.
    fn laid_over(writes: Vec<PointWrite>, moments: &[i64]) -> (Vec<i64>, Vec<(i64, f64)>) {
        let mut overlay = PointOverlay::of(writes);
        let PointWrite::Put { mut points, .. } =
            put(false, &moments.iter().map(|at| (*at, 0.0)).collect::<Vec<_>>())
        else {
            unreachable!()
        };
        overlay.apply(&mut points);
        let list = |points: Option<Points>| match points {
            Some(Points::Numeric(points)) => points.datapoints,
            _ => Vec::new(),
        };
        let left = list(Some(points)).iter().map(|point| point.timestamp).collect();
        let written =
            list(overlay.into_points()).iter().map(|point| (point.timestamp, point.value)).collect();
        (left, written)
    }

    #[test]
    fn later_writes_count_and_those_that_keep_give_way() {
        let writes = vec![
            put(false, &[(1, 1.0), (2, 2.0), (3, 3.0)]),
            PointWrite::Delete((2, 4)),
            put(true, &[(1, 9.0), (3, 9.0), (5, 9.0), (6, 9.0)]),
            put(false, &[(6, 6.0)]),
        ];
        let expected = (vec![0, 4, 5], vec![(1, 1.0), (3, 9.0), (6, 6.0)]);
        assert_eq!(laid_over(writes, &[0, 1, 2, 3, 4, 5, 6]), expected);
    }

    #[test]
    fn deleted_stretches_become_one() {
        let deleted = |stretches: &[Stretch]| {
            let overlay = PointOverlay::of(stretches.iter().copied().map(PointWrite::Delete).collect());
            overlay.deleted.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(deleted(&[(0, 2), (4, 6), (2, 4)]), [(0, 6)]);
        assert_eq!(deleted(&[(5, 9), (0, 20), (3, 4)]), [(0, 20)]);
        assert_eq!(deleted(&[(0, 1), (2, 3), (5, 5), (7, 6)]), [(0, 1), (2, 3)]);
        assert_eq!(deleted(&[(0, 3), (10, 13), (20, 23), (2, 21)]), [(0, 23)]);
    }
}
