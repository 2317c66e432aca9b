//! Which rollups of an hour are recomputed: all that do not cover the hour's present `ingest_seq`, finest first.
//!
//! Ingest raises an hour's `ingest_seq` with every publication into it; a rollup records the value that it covers and serves
//! only while they are equal. A tier is computed from the next finer one, so a stale tier makes all coarser ones stale.

use tidemill_types::{Hour, NANOS_PER_SECOND, SegmentId, SegmentMeta, Tier, TimestampNs};

/// A closed hour is rolled up this long after its end, so that what is under way is in.
pub const HOUR_GRACE_NS: i64 = 120 * NANOS_PER_SECOND;

/// One tier of one hour to be recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupStep {
    /// What is computed.
    pub tier: Tier,
    /// What it is computed from.
    pub from: Tier,
    /// Live segments of this tier and hour that the result replaces.
    pub replaces: Vec<SegmentId>,
}

/// Plans the ladder of one hour.
///
/// `live` holds the hour's live rollup segments (any tier; raw ones are passed over), `ingest_seq` its present value. Steps
/// are in the order in which they must be carried out. An hour that never had data (0) has no steps.
pub fn plan_rollups(live: &[SegmentMeta], ingest_seq: i64) -> Vec<RollupStep> {
    if ingest_seq == 0 {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for tier in Tier::ROLLUPS {
        let of_tier = || live.iter().filter(move |meta| meta.tier == tier);
        let is_fresh = of_tier().count() == 1 && of_tier().all(|meta| meta.covers_ingest_seq == ingest_seq);
        if is_fresh && steps.is_empty() {
            continue;
        }
        let Some(from) = tier.finer() else { continue };
        steps.push(RollupStep { tier, from, replaces: of_tier().map(|meta| meta.id).collect() });
    }
    steps
}

/// The hour of a rollup segment. Its windows are (start, end], so half-open its time begins within the hour and ends one
/// nanosecond into the next.
pub fn hour_of_rollup(meta: &SegmentMeta) -> Hour {
    meta.time.start.hour()
}

/// When an hour may be rolled up: now, or once it is closed.
pub fn rollup_due_at(hour: Hour, now: TimestampNs) -> TimestampNs {
    hour.range().end.plus_ns(HOUR_GRACE_NS).max(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_types::{ByteRange, Level, OrganizationId, ServiceSet, Signal, TimeRange};
    use uuid::Uuid;

    use super::*;

    fn rollup(tier: Tier, covers: i64) -> SegmentMeta {
        let range = Hour(10).range();
        SegmentMeta {
            id: SegmentId(Uuid::from_u128(u128::from(tier.0) << 64 | covers as u128)),
            organization: OrganizationId(Uuid::nil()),
            signal: Signal::Metrics,
            tier,
            level: Level(1),
            day: Hour(10).day(),
            time: TimeRange { start: range.start, end: range.end },
            ingest_day: Hour(10).day(),
            rows: 1,
            bytes: 1,
            bucket: "main".to_owned(),
            instance_num: 1,
            object_key: "key".to_owned(),
            etag: None,
            footer: ByteRange::default(),
            footer_hash: [0; 32],
            index: ByteRange::default(),
            services: ServiceSet::Names(Vec::new()),
            covers_ingest_seq: covers,
        }
    }

    #[test]
    fn an_hour_without_rollups_gets_the_whole_ladder() {
        let steps = plan_rollups(&[], 3);
        let tiers: Vec<(Tier, Tier)> = steps.iter().map(|step| (step.from, step.tier)).collect();
        assert_eq!(
            tiers,
            [
                (Tier(0), Tier(10)),
                (Tier(10), Tier(60)),
                (Tier(60), Tier(300)),
                (Tier(300), Tier(1200)),
                (Tier(1200), Tier(3600))
            ]
        );
        assert_eq!(plan_rollups(&[], 0), []);
    }

    #[test]
    fn a_stale_tier_makes_all_coarser_ones_stale() {
        let live: Vec<SegmentMeta> =
            Tier::ROLLUPS.iter().map(|tier| rollup(*tier, if *tier == Tier(300) { 2 } else { 3 })).collect();
        let steps = plan_rollups(&live, 3);
        assert_eq!(steps.iter().map(|step| step.tier).collect::<Vec<_>>(), [Tier(300), Tier(1200), Tier(3600)]);
        assert_eq!(steps[0].replaces, [live[2].id]);
    }

    proptest! {
        #[test]
        fn a_carried_out_plan_leaves_nothing_to_do(covers in proptest::collection::vec((0usize..5, 1i64..5), 0..12), seq in 1i64..5) {
            let live: Vec<SegmentMeta> = covers.iter().map(|(tier, covers)| rollup(Tier::ROLLUPS[*tier], *covers)).collect();
            let mut after = live.clone();
            for step in plan_rollups(&live, seq) {
                after.retain(|meta| !step.replaces.contains(&meta.id));
                after.push(rollup(step.tier, seq));
            }
            prop_assert_eq!(plan_rollups(&after, seq), vec![]);
        }
    }
}
