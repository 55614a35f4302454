//! An open request of stretches of time whose datapoints are to be deleted.

use hashbrown::HashMap;

use super::body::{Body, BodyBuilder};
use crate::cdf::encode::json;
use crate::cdf::encode::points::SeriesRef;
use crate::cdf::resource::datapoints::RANGES_PER_REQUEST;

/// `{"items":[{…,"inclusiveBegin":…,"exclusiveEnd":…},…]}`
#[derive(Debug)]
pub struct RangeBatch {
    body: BodyBuilder,
    /// First and last moment of each series' stretches.
    spans: HashMap<u64, (i64, i64)>,
}

impl Default for RangeBatch {
    fn default() -> Self {
        RangeBatch { body: BodyBuilder::default(), spans: HashMap::new() }
    }
}

impl RangeBatch {
    pub fn len(&self) -> usize {
        self.body.items()
    }

    pub fn bytes(&self) -> usize {
        self.body.heap() + self.spans.capacity() * 32
    }

    pub fn is_full(&self) -> bool {
        self.len() >= RANGES_PER_REQUEST
    }

    /// Whether everything of `other` has room here too.
    pub fn has_room_for(&self, other: &RangeBatch) -> bool {
        self.len() + other.len() <= RANGES_PER_REQUEST
    }

    /// First and last moment of each series' stretches, by the series' hash.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, (i64, i64))> + '_ {
        self.spans.iter().map(|(series, span)| (*series, *span))
    }

    pub fn overlaps(&self, series: u64, (first, last): (i64, i64)) -> bool {
        self.spans.get(&series).is_some_and(|span| first <= span.1 && last >= span.0)
    }

    /// Adds a stretch; its end is excluded.
    pub fn push(&mut self, series: &SeriesRef<'_>, hash: u64, first: i64, end: i64) {
        let mut fragment = vec![b'{'];
        series.write_json(&mut fragment);
        fragment.extend_from_slice(b",\"inclusiveBegin\":");
        json::write(&mut fragment, &first);
        fragment.extend_from_slice(b",\"exclusiveEnd\":");
        json::write(&mut fragment, &end);
        fragment.push(b'}');
        self.body.append(&fragment);
        self.widen(hash, (first, end - 1));
    }

    fn widen(&mut self, series: u64, (first, last): (i64, i64)) {
        let span = self.spans.entry(series).or_insert((first, last));
        *span = (span.0.min(first), span.1.max(last));
    }

    /// Takes over the stretches of a later batch. The caller has checked that there is room.
    pub fn absorb(&mut self, later: RangeBatch) {
        later.body.fragments().for_each(|fragment| self.body.append(fragment));
        later.ranges().for_each(|(series, span)| self.widen(series, span));
    }

    /// The stretches' objects.
    pub fn fragments(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.body.fragments()
    }

    pub fn close(self) -> Body {
        self.body.build()
    }
}
