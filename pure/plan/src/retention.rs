//! Which segments are past their time.
//!
//! Retention counts from the later of a segment's event day and the latest day on which one of its rows arrived, so that a
//! backfill of old data is kept as long as it would have been as new data.

use tidemill_types::{Day, NANOS_PER_DAY, OrganizationId, SegmentId, SegmentMeta, Signal, TimestampNs};

/// How long one organization keeps each signal, in days; `None` keeps for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Whose.
    pub organization: OrganizationId,
    /// In the order of [`Signal::ALL`].
    pub days: [Option<u32>; 3],
}

/// The segments of `live` that are past their time at `now`: those whose day lies more than the policy's days before today.
pub fn plan_retention(policy: &RetentionPolicy, live: &[SegmentMeta], now: TimestampNs) -> Vec<SegmentId> {
    let is_past = |meta: &&SegmentMeta| {
        meta.organization == policy.organization
            && first_kept(policy, meta.signal, now).is_some_and(|first| meta.day.max(meta.ingest_day) < first)
    };
    live.iter().filter(is_past).map(|meta| meta.id).collect()
}

/// The first day that is kept: with a retention of one day, yesterday (today is not over). `None` keeps all.
pub fn first_kept(policy: &RetentionPolicy, signal: Signal, now: TimestampNs) -> Option<Day> {
    let place = Signal::ALL.iter().position(|one| *one == signal)?;
    let days = i32::try_from(policy.days[place]?).unwrap_or(i32::MAX);
    Some(Day(now.day().0.saturating_sub(days)))
}

/// When the next day begins, and with it retention has something to do again.
pub fn next_day(now: TimestampNs) -> TimestampNs {
    now.day().range().start.plus_ns(NANOS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_types::{ByteRange, Level, ServiceSet, Tier, TimeRange};
    use uuid::Uuid;

    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(7));

    fn segment(day: i32, ingest_day: i32) -> SegmentMeta {
        SegmentMeta {
            id: SegmentId(Uuid::from_u128(day as u128 * 1000 + ingest_day as u128)),
            organization: ORGANIZATION,
            signal: Signal::Logs,
            tier: Tier::RAW,
            level: Level(1),
            day: Day(day),
            time: TimeRange { start: Day(day).range().start, end: Day(day).range().end },
            ingest_day: Day(ingest_day),
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
            covers_ingest_seq: 0,
        }
    }

    fn policy(days: Option<u32>) -> RetentionPolicy {
        RetentionPolicy { organization: ORGANIZATION, days: [days, None, None] }
    }

    #[test]
    fn backfilled_data_is_kept_from_its_arrival() {
        let live = [segment(10, 10), segment(10, 20)];
        let past = plan_retention(&policy(Some(3)), &live, Day(15).range().start);
        assert_eq!(past, [live[0].id]);
    }

    #[test]
    fn other_signals_other_organizations_and_no_policy_keep_all() {
        let mut other = segment(1, 1);
        other.organization = OrganizationId(Uuid::from_u128(8));
        let mut traces = segment(1, 1);
        traces.signal = Signal::Traces;
        let now = Day(1000).range().start;
        assert_eq!(plan_retention(&policy(Some(1)), &[other, traces], now), []);
        assert_eq!(plan_retention(&policy(None), &[segment(1, 1)], now), []);
    }

    proptest! {
        #[test]
        fn nothing_is_retired_before_its_days_are_over(day in 0i32..50, late in 0i32..50, days in 0u32..50, today in 0i32..150) {
            let live = [segment(day, day + late)];
            let past = plan_retention(&policy(Some(days)), &live, Day(today).range().start);
            prop_assert_eq!(past.len() == 1, today - (day + late) > days as i32);
        }
    }
}
