//! Behaviour of the snapshot against a plain list of catalog rows.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidemill_types::{
    ByteRange, Day, LeaseToken, Level, NANOS_PER_HOUR, ServiceSet, TimestampNs, WorkId, keys::SegmentKey,
};

use super::*;

fn organization(number: u8) -> OrganizationId {
    format!("{number:08}-0000-4000-8000-000000000000").parse().expect("a UUID")
}

fn segment(number: u32, owner: u8, start_ns: i64, len_ns: i64, services: &[&str]) -> SegmentMeta {
    let time = TimeRange { start: TimestampNs(start_ns), end: TimestampNs(start_ns + len_ns) };
    let key = SegmentKey {
        organization: organization(owner),
        signal: Signal::Logs,
        day: time.start.day(),
        tier: Tier::RAW,
        level: Level(0),
        work: WorkId(i64::from(number)),
        token: LeaseToken(organization(9).0),
        ordinal: number,
    };
    SegmentMeta {
        id: format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID"),
        organization: key.organization,
        signal: key.signal,
        tier: key.tier,
        level: key.level,
        day: key.day,
        time,
        ingest_day: Day(20_000),
        rows: 10,
        bytes: 1_000,
        bucket: "lake".to_owned(),
        instance_num: 1,
        object_key: if number.is_multiple_of(3) { format!("odd/{number}.parquet") } else { key.object_key() },
        etag: None,
        footer: ByteRange { offset: 900, len: 92 },
        footer_hash: [7; 32],
        index: ByteRange::default(),
        services: ServiceSet::Names(services.iter().map(|&name| name.to_owned()).collect()),
        covers_ingest_seq: 0,
    }
}

fn changes(added: Vec<SegmentMeta>, removed: Vec<SegmentId>) -> CatalogChanges {
    CatalogChanges { seq: CatalogSeq(1), added, removed, hours: Vec::new() }
}

#[test]
fn another_organizations_segments_are_never_planned() {
    let mut snapshot = CatalogSnapshot::new();
    snapshot.apply(changes(vec![segment(1, 1, 0, 10, &["a"]), segment(2, 2, 0, 10, &["a"])], Vec::new()));
    let plan = snapshot.plan_segments(organization(1), &SegmentQuery::everything(Signal::Logs));
    assert_eq!(plan.segments, [segment(1, 1, 0, 10, &["a"])]);
    assert_eq!(plan.considered, 1);
    assert_eq!(snapshot.plan_segments(organization(3), &SegmentQuery::everything(Signal::Logs)).considered, 0);
}

#[test]
fn a_rollup_serves_only_while_its_hour_is_unchanged() {
    let mut rollup = segment(1, 1, 0, 10, &[]);
    (rollup.tier, rollup.signal, rollup.covers_ingest_seq) = (Tier(60), Signal::Metrics, 4);
    let mut snapshot = CatalogSnapshot::new();
    let mut first = changes(vec![rollup], Vec::new());
    first.hours = vec![(organization(1), Signal::Metrics, Hour(0), 4)];
    snapshot.apply(first);
    let query = SegmentQuery { tier: Tier(60), ..SegmentQuery::everything(Signal::Metrics) };
    assert_eq!(snapshot.plan_segments(organization(1), &query).segments.len(), 1);
    let mut late = changes(Vec::new(), Vec::new());
    late.hours = vec![(organization(1), Signal::Metrics, Hour(0), 5)];
    snapshot.apply(late);
    let plan = snapshot.plan_segments(organization(1), &query);
    assert_eq!((plan.segments.len(), plan.pruned_as_stale), (0, 1));
}

#[test]
fn a_compact_row_is_small() {
    assert!(size_of::<CompactSegment>() <= 216, "{}", size_of::<CompactSegment>());
}

proptest! {
    #[test]
    fn plans_equal_a_scan_of_all_rows(
        rows in prop::collection::vec((0u8..2, 0i64..72, 1i64..30, 0usize..3, any::<bool>()), 0..40),
        start in -5i64..80, len in 0i64..20, wanted in prop::option::of(0usize..3),
    ) {
        const SERVICES: [&str; 3] = ["api", "cart", "web"];
        let all: Vec<(SegmentMeta, bool)> = rows
            .iter()
            .enumerate()
            .map(|(number, &(owner, hour, hours, service, removed))| {
                let at = hour * NANOS_PER_HOUR;
                (segment(number as u32, owner, at, hours * NANOS_PER_HOUR, &[SERVICES[service]]), removed)
            })
            .collect();
        let mut snapshot = CatalogSnapshot::new();
        snapshot.apply(changes(all.iter().map(|(meta, _)| meta.clone()).collect(), Vec::new()));
        snapshot.apply(changes(Vec::new(), all.iter().filter(|(_, removed)| *removed).map(|(meta, _)| meta.id).collect()));
        let query = SegmentQuery {
            time: TimeRange {
                start: TimestampNs(start * NANOS_PER_HOUR),
                end: TimestampNs((start + len) * NANOS_PER_HOUR),
            },
            services: wanted.map(|place| BTreeSet::from([SERVICES[place].to_owned()])),
            ..SegmentQuery::everything(Signal::Logs)
        };
        let mut expected: Vec<SegmentMeta> = all
            .iter()
            .filter(|(meta, removed)| {
                !removed
                    && meta.organization == organization(1)
                    && meta.time.overlaps(query.time)
                    && query.may_match_services(&meta.services)
            })
            .map(|(meta, _)| meta.clone())
            .collect();
        expected.sort_by_key(|meta| (std::cmp::Reverse(meta.time.end), meta.id));
        let plan = snapshot.plan_segments(organization(1), &query);
        prop_assert_eq!(plan.segments.len() + plan.pruned_by_time + plan.pruned_by_service, plan.considered);
        prop_assert_eq!(plan.segments, expected);
    }
}
