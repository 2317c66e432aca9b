//! Which segments are merged: L0 into L1 soon after arrival (bulk of a closed day into L2 at once), closed hours into L2, leftovers of
//! closed days into L2.
//!
//! A merge never crosses a day, a retention class (the later of event and ingest day), a bucket or a storage profile instance.
//! Each row is merged at most once from L0, once when its hour closes, and once as a leftover of its day; a leftover that was
//! merged before is only merged again with at least as many new bytes. So the bytes written by merges stay below three times
//! the bytes ingested, whatever arrives late. Pure: a plan depends on the segments and `now` alone, not on their order.
//! Start with [`solve`].

mod pack;

use std::collections::BTreeMap;

use tidemill_types::{
    Day, Hour, Level, NANOS_PER_HOUR, NANOS_PER_SECOND, SegmentId, SegmentMeta, Tier, TimeRange, TimestampNs,
};

use pack::{FanIn, pack};

/// When and how far segments are merged. The defaults are the design's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// L0 segments of one class are merged at this many…
    pub l0_files: usize,
    /// … or this many bytes …
    pub l0_bytes: u64,
    /// … or when the oldest was seen for this long.
    pub l0_age_ns: i64,
    /// An hour or day is closed this long after its end.
    pub close_after_ns: i64,
    /// A closed hour's outputs have at least this many bytes, where the hour has them.
    pub target_min_bytes: u64,
    /// … and at most this many.
    pub target_max_bytes: u64,
    /// L1 and L2 of a closed day below this are leftovers.
    pub leftover_bytes: u64,
    /// Segments open at the same time in one merge, where they are large.
    pub fan_in: usize,
    /// Segments in one merge while all of them together are below `l0_bytes`: they fit in memory whole.
    pub small_fan_in: usize,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            l0_files: 32,
            l0_bytes: 64 << 20,
            l0_age_ns: 60 * NANOS_PER_SECOND,
            close_after_ns: NANOS_PER_HOUR / 6,
            target_min_bytes: 64 << 20,
            target_max_bytes: 256 << 20,
            leftover_bytes: 16 << 20,
            fan_in: 16,
            small_fan_in: 512,
        }
    }
}

/// What compaction knows of a live segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Identity.
    pub id: SegmentId,
    /// Its level.
    pub level: Level,
    /// Its day.
    pub day: Day,
    /// The later of its day and the latest day on which a row arrived.
    pub keep_from: Day,
    /// Its rows' times.
    pub time: TimeRange,
    /// Its size.
    pub bytes: u64,
    /// Where it lies.
    pub bucket: String,
    /// Whose profile instance wrote it.
    pub instance_num: i32,
    /// When the object was written, as far as known: L0 waits from then on. `None` counts as old.
    pub written_at: Option<TimestampNs>,
}

impl Candidate {
    /// What compaction knows from a catalog row.
    pub fn of(meta: &SegmentMeta, written_at: Option<TimestampNs>) -> Self {
        Self {
            id: meta.id,
            level: meta.level,
            day: meta.day,
            keep_from: meta.day.max(meta.ingest_day),
            time: meta.time,
            bytes: meta.bytes,
            bucket: meta.bucket.clone(),
            instance_num: meta.instance_num,
            written_at,
        }
    }

    /// The hour in which its last row lies.
    fn last_hour(&self) -> Hour {
        TimestampNs(self.time.end.0.saturating_sub(1)).hour()
    }

    fn spans_hours(&self) -> bool {
        self.time.start.hour() != self.last_hour()
    }

    fn class(&self) -> Class {
        Class { day: self.day, keep_from: self.keep_from, bucket: self.bucket.clone(), instance_num: self.instance_num }
    }
}

/// What a merge never crosses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// The day of the rows.
    pub day: Day,
    /// The later of event and ingest day, from which retention counts.
    pub keep_from: Day,
    /// The bucket.
    pub bucket: String,
    /// The storage profile instance.
    pub instance_num: i32,
}

/// Why segments are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MergeReason {
    /// L0 became many, large or old.
    Arrived,
    /// Their hour is closed.
    HourClosed,
    /// Small ones of a closed day.
    Leftovers,
}

/// One merge: these inputs become segments of `level`, in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Why.
    pub reason: MergeReason,
    /// What it stays within.
    pub class: Class,
    /// The outputs' level.
    pub level: Level,
    /// What is merged, by time.
    pub inputs: Vec<SegmentId>,
    /// The inputs' bytes together.
    pub bytes: u64,
}

/// What to merge now, and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Merges over disjoint inputs, most wanted first.
    pub merges: Vec<Merge>,
    /// When something that waits now becomes due, if nothing else arrives.
    pub next_at: Option<TimestampNs>,
}

/// Plans the merges of one organization's raw segments of one signal.
pub fn solve(policy: &CompactionPolicy, segments: &[Candidate], now: TimestampNs) -> CompactionPlan {
    let mut classes: BTreeMap<Class, Vec<&Candidate>> = BTreeMap::new();
    for segment in segments {
        classes.entry(segment.class()).or_default().push(segment);
    }
    let mut plan = CompactionPlan::default();
    for (class, mut members) in classes {
        members.sort_by_key(|segment| (segment.time.start, segment.time.end, segment.id));
        solve_class(policy, &class, &members, now, &mut plan);
    }
    plan.merges.sort_by_key(|merge| merge.reason);
    plan
}

fn solve_class(
    policy: &CompactionPolicy,
    class: &Class,
    members: &[&Candidate],
    now: TimestampNs,
    plan: &mut CompactionPlan,
) {
    let day_closes_at = class.day.range().end.plus_ns(policy.close_after_ns);
    let level = |wanted: u8| members.iter().copied().filter(move |segment| segment.level == Level(wanted));
    let arrived: Vec<&Candidate> = level(0).collect();
    if let Some(due_at) = arrived_due_at(policy, &arrived, now) {
        if due_at > now {
            plan.wait_until(due_at);
        } else {
            let fan_in = FanIn { large: policy.fan_in, small: policy.small_fan_in, small_bytes: policy.l0_bytes };
            for group in pack(&arrived, 0, policy.target_max_bytes, fan_in) {
                let mut merge = merge(MergeReason::Arrived, class, Level(1), &group);
                // What arrives in bulk for a closed day, as a backfill does, has nothing to wait for.
                if day_closes_at <= now && merge.bytes >= policy.leftover_bytes {
                    merge.level = Level(2);
                }
                plan.merges.push(merge);
            }
        }
    }
    if day_closes_at > now {
        merge_closed_hours(policy, class, level(1).collect(), now, plan);
        let leftovers = leftovers(policy, members);
        if leftovers.len() > 1 || !arrived.is_empty() || level(1).count() > 1 {
            plan.wait_until(day_closes_at);
        }
        return;
    }
    // What is on its way from L0 comes first, so that leftovers are merged once.
    if arrived.is_empty() {
        merge_closed_hours(
            policy,
            class,
            level(1).filter(|segment| segment.bytes >= policy.leftover_bytes).collect(),
            now,
            plan,
        );
        merge_leftovers(policy, class, &leftovers(policy, members), plan);
    }
}

/// When L0 of one class is merged: now, when the oldest is old enough, or never when there is none.
fn arrived_due_at(policy: &CompactionPolicy, arrived: &[&Candidate], now: TimestampNs) -> Option<TimestampNs> {
    if arrived.is_empty() {
        return None;
    }
    let bytes: u64 = arrived.iter().map(|segment| segment.bytes).sum();
    if arrived.len() >= policy.l0_files || bytes >= policy.l0_bytes {
        return Some(now);
    }
    let oldest = arrived.iter().map(|segment| segment.written_at).min().flatten();
    Some(oldest.map_or(now, |written| written.plus_ns(policy.l0_age_ns)))
}

fn merge_closed_hours(
    policy: &CompactionPolicy,
    class: &Class,
    indexed: Vec<&Candidate>,
    now: TimestampNs,
    plan: &mut CompactionPlan,
) {
    let mut hours: BTreeMap<Hour, Vec<&Candidate>> = BTreeMap::new();
    for segment in indexed {
        hours.entry(segment.last_hour()).or_default().push(segment);
    }
    for (hour, members) in hours {
        let closes_at = hour.range().end.plus_ns(policy.close_after_ns);
        if members.len() < 2 {
            continue;
        }
        if closes_at > now {
            plan.wait_until(closes_at);
            continue;
        }
        let fan_in = FanIn { large: policy.fan_in, small: policy.small_fan_in, small_bytes: policy.l0_bytes };
        for group in pack(&members, policy.target_min_bytes, policy.target_max_bytes, fan_in) {
            if group.len() > 1 {
                plan.merges.push(merge(MergeReason::HourClosed, class, Level(2), &group));
            }
        }
    }
}

fn leftovers<'a>(policy: &CompactionPolicy, members: &[&'a Candidate]) -> Vec<&'a Candidate> {
    let is_small = |segment: &&Candidate| segment.level > Level(0) && segment.bytes < policy.leftover_bytes;
    members.iter().copied().filter(is_small).collect()
}

fn merge_leftovers(policy: &CompactionPolicy, class: &Class, leftovers: &[&Candidate], plan: &mut CompactionPlan) {
    let is_merged = |segment: &Candidate| segment.level >= Level(2) && segment.spans_hours();
    let (merged, fresh): (Vec<&Candidate>, Vec<&Candidate>) =
        leftovers.iter().copied().partition(|segment| is_merged(segment));
    let bytes = |segments: &[&Candidate]| segments.iter().map(|segment| segment.bytes).sum::<u64>();
    // Rewriting what was merged before is paid for by at least as many new bytes.
    let mut chosen = fresh;
    if bytes(&merged) <= bytes(&chosen) {
        chosen.extend(merged);
        chosen.sort_by_key(|segment| (segment.time.start, segment.time.end, segment.id));
    }
    let fan_in = FanIn { large: policy.fan_in, small: policy.small_fan_in, small_bytes: policy.l0_bytes };
    for group in pack(&chosen, policy.target_min_bytes, policy.target_max_bytes, fan_in) {
        if group.len() > 1 {
            plan.merges.push(merge(MergeReason::Leftovers, class, Level(2), &group));
        }
    }
}

fn merge(reason: MergeReason, class: &Class, level: Level, group: &[&Candidate]) -> Merge {
    Merge {
        reason,
        class: class.clone(),
        level,
        inputs: group.iter().map(|segment| segment.id).collect(),
        bytes: group.iter().map(|segment| segment.bytes).sum(),
    }
}

impl CompactionPlan {
    fn wait_until(&mut self, at: TimestampNs) {
        self.next_at = Some(self.next_at.map_or(at, |next| next.min(at)));
    }
}

/// Whether compaction plans this segment at all: rollups are replaced by recomputation instead.
pub fn is_compacted(meta: &SegmentMeta) -> bool {
    meta.tier == Tier::RAW
}

#[cfg(test)]
mod tests;
