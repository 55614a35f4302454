//! An open request of time ranges whose datapoints are to be deleted.

use hashbrown::HashMap;

use super::body::{Body, BodyBuilder};
use crate::cdf::encode::fragment::{self, Fragment};
use crate::cdf::encode::points::SeriesRef;
use crate::cdf::error::{Error, Identity};
use crate::cdf::resource::datapoints::RANGES_PER_REQUEST;

const BEGIN: &str = "inclusiveBegin";
const END: &str = "exclusiveEnd";

/// `{"items":[{…,"inclusiveBegin":…,"exclusiveEnd":…},…]}`
#[derive(Debug)]
pub struct RangeBatch {
    body: BodyBuilder,
    /// First and last moment of each series' ranges.
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

    /// Checks whether there is room for everything in `other`.
    pub fn has_room_for(&self, other: &RangeBatch) -> bool {
        self.len() + other.len() <= RANGES_PER_REQUEST
    }

    /// Returns the first and last moment of each series' ranges, by the series' hash.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, (i64, i64))> + '_ {
        self.spans.iter().map(|(series, span)| (*series, *span))
    }

    pub fn overlaps(&self, series: u64, (first, last): (i64, i64)) -> bool {
        self.spans.get(&series).is_some_and(|span| first <= span.1 && last >= span.0)
    }

    /// Adds a time range; its end is exclusive.
    pub fn push(&mut self, series: &SeriesRef<'_>, hash: u64, first: i64, end: i64) {
        let mut range = vec![b'{'];
        series.write_json(&mut range);
        fragment::member(&mut range, BEGIN, &first.to_string());
        fragment::member(&mut range, END, &end.to_string());
        fragment::end(&mut range);
        self.body.append(&range);
        self.widen(hash, (first, end - 1));
    }

    fn widen(&mut self, series: u64, (first, last): (i64, i64)) {
        let span = self.spans.entry(series).or_insert((first, last));
        *span = (span.0.min(first), span.1.max(last));
    }

    /// Moves the ranges of a later batch into this one. The caller has checked that there is room.
    pub fn absorb(&mut self, later: RangeBatch) {
        later.body.fragments().for_each(|range| self.body.append(range.bytes()));
        later.ranges().for_each(|(series, span)| self.widen(series, span));
    }

    /// Returns the ranges' objects.
    pub fn fragments(&self) -> impl Iterator<Item = Fragment<'_>> + '_ {
        self.body.fragments()
    }

    pub fn close(self) -> Body {
        self.body.build()
    }
}

/// Returns the series of a range, its first moment and its exclusive end.
pub fn range_of(range: Fragment<'_>) -> Result<(Identity, (i64, i64)), Error> {
    let range: serde_json::Value = serde_json::from_slice(range.bytes())
        .map_err(|error| Error::internal(format!("an encoded deletion is not JSON: {error}")))?;
    let moment = |name: &str| range[name].as_i64().unwrap_or_default();
    let series = Identity::from_json(&range)
        .ok_or_else(|| Error::internal("a deletion of datapoints without a series"))?;
    Ok((series, (moment(BEGIN), moment(END))))
}
