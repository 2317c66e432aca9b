//! The live catalog in memory, kept current by the catalog's change log.
//!
//! Owns: one compact row a live segment, grouped by organization, signal, tier and the hour of its first row, so that planning
//! an hour looks at that hour's segments and not at all of them. Never does I/O: the caller feeds it changes in commit order.
//! It does not keep `etag`: readers verify the footer's hash instead. Start with [`CatalogSnapshot::apply`] and
//! [`CatalogSnapshot::plan_segments`].

mod compact;
mod intern;

use std::collections::{BTreeMap, HashMap};

use tidemill_types::{CatalogSeq, Hour, OrganizationId, SegmentId, SegmentMeta, Signal, Tier, TimeRange};

use crate::prune::{SegmentPlan, SegmentQuery};
use compact::{CompactSegment, Names};

/// A batch of changes of the catalog, in commit order.
#[derive(Debug, Clone, Default)]
pub struct CatalogChanges {
    /// The position after these changes.
    pub seq: CatalogSeq,
    /// Segments that became live. One that is already known is replaced.
    pub added: Vec<SegmentMeta>,
    /// Segments that are no longer live. Unknown ones are ignored.
    pub removed: Vec<SegmentId>,
    /// Hours whose `ingest_seq` changed.
    pub hours: Vec<(OrganizationId, Signal, Hour, i64)>,
}

/// The live segments of every organization, as of one position of the change log.
#[derive(Debug, Default)]
pub struct CatalogSnapshot {
    seq: CatalogSeq,
    names: Names,
    groups: HashMap<GroupKey, Group>,
    places: HashMap<SegmentId, Place>,
    ingest_seqs: HashMap<(OrganizationId, Signal), BTreeMap<Hour, i64>>,
}

type GroupKey = (OrganizationId, Signal, Tier);

/// Where a segment's row lies, so that it is removed without a search.
#[derive(Debug, Clone, Copy)]
struct Place {
    organization: u32,
    signal: Signal,
    tier: Tier,
    hour: Hour,
}

/// The segments of one organization, signal and tier.
#[derive(Debug, Default)]
struct Group {
    /// By the hour of their first row.
    hours: BTreeMap<Hour, Vec<CompactSegment>>,
    /// How many hours the longest segment ever seen reaches past its first: bounds how far back a range must look.
    reach_hours: i32,
    count: usize,
    bytes: u64,
}

impl CatalogSnapshot {
    /// Knows nothing, at position 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The position up to which changes were applied.
    pub fn seq(&self) -> CatalogSeq {
        self.seq
    }

    /// Live segments of all organizations.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is live.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a segment is live.
    pub fn contains(&self, id: SegmentId) -> bool {
        self.places.contains_key(&id)
    }

    /// Applies changes: removals after additions, as one publication's replaced segments were live before it.
    pub fn apply(&mut self, changes: CatalogChanges) {
        for meta in &changes.added {
            self.remove(meta.id);
            self.insert(meta);
        }
        for id in changes.removed {
            self.remove(id);
        }
        for (organization, signal, hour, value) in changes.hours {
            self.ingest_seqs.entry((organization, signal)).or_default().insert(hour, value);
        }
        self.seq = changes.seq;
    }

    /// The `ingest_seq` of an hour, 0 when it never had data.
    pub fn ingest_seq(&self, organization: OrganizationId, signal: Signal, hour: Hour) -> i64 {
        self.ingest_seqs.get(&(organization, signal)).and_then(|hours| hours.get(&hour)).copied().unwrap_or(0)
    }

    /// Which of the organization's segments a query has to read. Rollups that no longer cover their hour are left out.
    pub fn plan_segments(&self, organization: OrganizationId, query: &SegmentQuery) -> SegmentPlan {
        let mut plan = SegmentPlan::default();
        let Some(group) = self.groups.get(&(organization, query.signal, query.tier)) else { return plan };
        plan.considered = group.count;
        plan.considered_bytes = group.bytes;
        let mut services: HashMap<u32, bool> = HashMap::new();
        let mut candidates = Vec::new();
        let mut in_time = 0;
        for (&hour, segments) in group.hours.range(group.hours_that_reach(query.time)) {
            for segment in segments {
                if !segment.time.overlaps(query.time) {
                    continue;
                }
                in_time += 1;
                let may_match = *services
                    .entry(segment.services)
                    .or_insert_with(|| query.may_match_services(self.names.services(segment.services)));
                if !may_match {
                    plan.pruned_by_service += 1;
                } else if query.tier != Tier::RAW
                    && segment.covers_ingest_seq != self.ingest_seq(organization, query.signal, hour)
                {
                    plan.pruned_as_stale += 1;
                } else {
                    candidates.push(segment);
                }
            }
        }
        plan.pruned_by_time = group.count - in_time;
        candidates.sort_unstable_by_key(|segment| (std::cmp::Reverse(segment.time.end), segment.id));
        plan.segments =
            candidates.into_iter().map(|segment| segment.expand(organization, query, &self.names)).collect();
        plan
    }

    fn insert(&mut self, meta: &SegmentMeta) {
        let hour = meta.time.start.hour();
        let segment = CompactSegment::new(meta, &mut self.names);
        let place = Place {
            organization: self.names.organization(meta.organization),
            signal: meta.signal,
            tier: meta.tier,
            hour,
        };
        self.places.insert(meta.id, place);
        let group = self.groups.entry((meta.organization, meta.signal, meta.tier)).or_default();
        group.reach_hours = group.reach_hours.max(meta.time.end.hour().0.saturating_sub(hour.0));
        group.count += 1;
        group.bytes += meta.bytes;
        group.hours.entry(hour).or_default().push(segment);
    }

    fn remove(&mut self, id: SegmentId) {
        let Some(place) = self.places.remove(&id) else { return };
        let organization = self.names.organization_id(place.organization);
        let key = (organization, place.signal, place.tier);
        let group = self.groups.get_mut(&key).expect("a placed segment has a group");
        let segments = group.hours.get_mut(&place.hour).expect("a placed segment has an hour");
        let slot = segments.iter().position(|segment| segment.id == id).expect("a placed segment is in its hour");
        let segment = segments.swap_remove(slot);
        if segments.is_empty() {
            group.hours.remove(&place.hour);
        }
        group.count -= 1;
        group.bytes -= segment.bytes;
        self.names.release(&segment, place.organization);
    }
}

impl Group {
    /// The hours whose segments can overlap `time`.
    fn hours_that_reach(&self, time: TimeRange) -> std::ops::RangeInclusive<Hour> {
        let first = time.start.hour().0.saturating_sub(self.reach_hours);
        let last = time.end.hour().0.max(first);
        Hour(first)..=Hour(last)
    }
}

#[cfg(test)]
mod tests;
