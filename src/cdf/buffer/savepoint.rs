//! What happens to a lane's rows when their savepoint ends.

use super::batch::{Batch, Open};
use super::body::BODY_BYTES;
use super::chunk::Foreground;
use super::lane::Lane;
use super::moment::Subtransaction;
use crate::cdf::error::Error;
use crate::cdf::table::OnConflict;

impl Lane {
    /// Moves the rows of an ended subtransaction to its parent.
    pub(super) fn release(
        &mut self,
        ended: Subtransaction,
        parent: Subtransaction,
        budget: usize,
    ) -> Result<(), Error> {
        if self.segments.last().is_none_or(|segment| segment.subtransaction < ended) {
            return Ok(());
        }
        let into =
            self.segments.len().checked_sub(2).filter(|at| self.segments[*at].subtransaction >= parent);
        let Some(into) = into else {
            if let Some(segment) = self.segments.last_mut() {
                segment.subtransaction = parent;
            }
            return Ok(());
        };
        let Some(child) = self.segments.pop() else {
            return Ok(());
        };
        self.segments[into].closed.extend(child.closed);
        let mut opened = child.open;
        // Keep the write order of each key.
        opened.sort_by_key(|open| open.wave);
        for open in opened {
            self.adopt(into, open, budget)?;
        }
        Ok(())
    }

    /// Adds a batch that was written after everything in the segment: merged into an open batch if allowed, else
    /// separately.
    fn adopt(&mut self, into: usize, open: Open, budget: usize) -> Result<(), Error> {
        let mut candidates: Vec<usize> = (0..self.segments[into].open.len()).collect();
        // Choose the earliest possible wave: otherwise each savepoint would add another wave.
        candidates.sort_by_key(|at| self.segments[into].open[*at].wave);
        if let Some(at) = candidates.into_iter().find(|at| self.may_join(into, *at, &open)) {
            let merge = self.merge(open.mode);
            return match (&mut self.segments[into].open[at].batch, open.batch) {
                (Batch::Items(batch), Batch::Items(later)) => batch.absorb(&later, merge),
                (Batch::Points(batch), Batch::Points(later)) => {
                    batch.absorb(later);
                    Ok(())
                }
                (Batch::Ranges(batch), Batch::Ranges(later)) => {
                    batch.absorb(later);
                    Ok(())
                }
                _ => Err(Error::internal("batches of items and of datapoints in one lane")),
            };
        }
        let same = |candidate: &Open| candidate.is(open.wave, open.mode, open.kind);
        if let Some(at) = self.segments[into].open.iter().position(same) {
            let earlier = self.segments[into].open.swap_remove(at);
            self.close(into, earlier, budget, &Foreground)?;
        }
        self.segments[into].open.push(open);
        Ok(())
    }

    /// Checks whether a later batch fits in an open one, and no later wave holds any of its keys or moments.
    fn may_join(&self, into: usize, at: usize, later: &Open) -> bool {
        let open = &self.segments[into].open[at];
        let wave = if self.tied { open.wave == later.wave } else { open.wave <= later.wave };
        if open.mode != later.mode || open.kind != later.kind || !wave {
            return false;
        }
        let room = match (&open.batch, &later.batch) {
            (Batch::Items(batch), Batch::Items(later)) => {
                batch.items() + later.items() <= self.per_request()
                    && batch.bytes() + later.bytes() < BODY_BYTES
            }
            (Batch::Points(batch), Batch::Points(later)) => batch.has_room_for(later),
            (Batch::Ranges(batch), Batch::Ranges(later)) => batch.has_room_for(later),
            _ => false,
        };
        // Two writes of a key are an error in this mode, which CDF reports only for separate requests.
        let refused = open.mode.on_conflict == OnConflict::Error && open.batch.conflicts_with(&later.batch);
        let between = || {
            let others = self.highest_of_others(later.kind);
            open.wave == later.wave
                || others.is_none_or(|wave| wave < open.wave)
                    && !self.traces.iter().skip(open.wave).any(|trace| trace.conflicts_with(&later.batch))
        };
        let outer = self.segments[..into].iter().flat_map(|segment| &segment.open);
        let before = |other: &Open| other.wave >= open.wave && other.batch.conflicts_with(&later.batch);
        let after = |other: &Open| {
            let beside = other.wave == open.wave && other.mode != open.mode;
            (other.wave > open.wave || beside) && other.batch.conflicts_with(&later.batch)
        };
        room && !refused
            && between()
            && !self.segments[into].open.iter().any(after)
            && !outer.into_iter().any(before)
    }
}
