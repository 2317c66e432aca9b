//! Examples of each rule, and properties over generated lakes.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const MIB: u64 = 1 << 20;

fn candidate(id: u128, level: u8, hour: i32, bytes: u64) -> Candidate {
    let range = Hour(hour).range();
    Candidate {
        id: SegmentId(Uuid::from_u128(id)),
        level: Level(level),
        day: Hour(hour).day(),
        keep_from: Hour(hour).day(),
        time: TimeRange { start: range.start.plus_ns(id as i64 % 1000), end: range.end.plus_ns(-1) },
        bytes,
        bucket: "main".to_owned(),
        instance_num: 1,
        written_at: Some(range.start),
    }
}

fn at(hour: i32, minutes: i64) -> TimestampNs {
    Hour(hour).range().start.plus_ns(minutes * 60 * NANOS_PER_SECOND)
}

fn plan(segments: &[Candidate], now: TimestampNs) -> CompactionPlan {
    solve(&CompactionPolicy::default(), segments, now)
}

#[test]
fn arrived_segments_wait_for_their_age() {
    let few: Vec<Candidate> = (0..3).map(|id| candidate(id, 0, 10, MIB)).collect();
    let early = plan(&few, Hour(10).range().start.plus_ns(59 * NANOS_PER_SECOND));
    assert_eq!(early.merges, []);
    assert_eq!(early.next_at, Some(at(10, 1)));
    let due = plan(&few, at(10, 1));
    assert_eq!(due.merges.len(), 1);
    assert_eq!(
        (due.merges[0].reason, due.merges[0].level, due.merges[0].inputs.len()),
        (MergeReason::Arrived, Level(1), 3)
    );
}

#[test]
fn many_or_large_arrived_segments_do_not_wait() {
    let many: Vec<Candidate> = (0..32).map(|id| candidate(id, 0, 10, 1000)).collect();
    assert_eq!(plan(&many, at(10, 0)).merges.len(), 1);
    assert_eq!(plan(&many[..31], at(10, 0)).merges, []);
    let large: Vec<Candidate> = (0..2).map(|id| candidate(id, 0, 10, 32 * MIB)).collect();
    assert_eq!(plan(&large, at(10, 0)).merges.len(), 1);
}

#[test]
fn large_merges_have_at_most_sixteen_inputs() {
    let large: Vec<Candidate> = (0..40).map(|id| candidate(id, 0, 10, 6 * MIB)).collect();
    let plan = plan(&large, at(10, 0));
    assert!(plan.merges.iter().all(|merge| merge.inputs.len() <= 16), "{plan:?}");
    assert_eq!(plan.merges.iter().map(|merge| merge.inputs.len()).sum::<usize>(), 40);
}

#[test]
fn nothing_crosses_a_day_a_class_a_bucket_or_an_instance() {
    let mut late = candidate(2, 0, 10, MIB);
    late.keep_from = Day(late.day.0 + 3);
    let mut elsewhere = candidate(3, 0, 10, MIB);
    elsewhere.bucket = "other".to_owned();
    let mut instance = candidate(4, 0, 10, MIB);
    instance.instance_num = 2;
    let segments = [candidate(1, 0, 10, MIB), late, elsewhere, instance, candidate(5, 0, 40, MIB)];
    let plan = plan(&segments, at(41, 0));
    assert_eq!(plan.merges.len(), 5);
}

#[test]
fn a_closed_hour_is_merged_once_to_its_target() {
    let hour: Vec<Candidate> = (0..10).map(|id| candidate(id, 1, 10, 40 * MIB)).collect();
    let open = plan(&hour, at(11, 9));
    assert_eq!(open.merges, []);
    assert_eq!(open.next_at, Some(at(11, 10)));
    let closed = plan(&hour, at(11, 10));
    assert_eq!(closed.merges.len(), 3, "{closed:?}");
    for merge in &closed.merges {
        assert_eq!((merge.reason, merge.level), (MergeReason::HourClosed, Level(2)));
        assert!((64 * MIB..=256 * MIB).contains(&merge.bytes), "{merge:?}");
    }
}

#[test]
fn leftovers_of_a_closed_day_are_merged_across_hours() {
    let mut day: Vec<Candidate> = (0..24).map(|hour| candidate(hour, 2, hour as i32, MIB)).collect();
    day.push(candidate(99, 2, 5, 100 * MIB));
    assert_eq!(plan(&day, at(24, 9)).merges, []);
    let closed = plan(&day, at(24, 10));
    assert_eq!(closed.merges.len(), 1);
    assert_eq!((closed.merges[0].reason, closed.merges[0].inputs.len()), (MergeReason::Leftovers, 24));
}

#[test]
fn bulk_of_a_closed_day_is_merged_only_once() {
    let bulk: Vec<Candidate> = (0..40).map(|id| candidate(id, 0, 3, MIB)).collect();
    let merges = |segments: &[Candidate], hour: i32| {
        let plan = plan(segments, at(hour, 0));
        plan.merges.iter().map(|merge| (merge.reason, merge.level)).collect::<Vec<_>>()
    };
    assert_eq!(merges(&bulk, 20), [(MergeReason::Arrived, Level(1))], "the day is open");
    assert_eq!(merges(&bulk, 30), [(MergeReason::Arrived, Level(2))]);
    assert_eq!(merges(&bulk[..15], 30), [(MergeReason::Arrived, Level(1))], "a leftover waits for others");
}

#[test]
fn a_trickle_of_late_rows_does_not_rewrite_a_merged_leftover() {
    let mut merged = candidate(1, 2, 3, 10 * MIB);
    merged.time.start = Hour(0).range().start;
    let late = |id| candidate(id, 1, 7, MIB);
    let trickle = plan(&[merged.clone(), late(2), late(3)], at(30, 0));
    assert_eq!(trickle.merges.len(), 1);
    assert_eq!(trickle.merges[0].inputs.len(), 2);
    let enough: Vec<Candidate> = std::iter::once(merged).chain((2..12).map(late)).collect();
    assert_eq!(plan(&enough, at(30, 0)).merges[0].inputs.len(), 11);
}

/// The lake after a plan was carried out: each merge leaves one segment that is as large as its inputs.
fn apply(segments: &[Candidate], plan: &CompactionPlan, next_id: &mut u128) -> Vec<Candidate> {
    let mut left: Vec<Candidate> = segments.to_vec();
    for merge in &plan.merges {
        let (inputs, rest): (Vec<Candidate>, Vec<Candidate>) =
            left.into_iter().partition(|one| merge.inputs.contains(&one.id));
        assert_eq!(inputs.len(), merge.inputs.len(), "every input is live, and in one merge only");
        left = rest;
        *next_id += 1;
        let mut output = inputs[0].clone();
        output.id = SegmentId(Uuid::from_u128(*next_id));
        output.level = merge.level;
        output.bytes = merge.bytes;
        output.time.start = inputs.iter().map(|input| input.time.start).min().expect("has inputs");
        output.time.end = inputs.iter().map(|input| input.time.end).max().expect("has inputs");
        left.push(output);
    }
    left
}

fn any_candidate(id: u128) -> impl Strategy<Value = Candidate> {
    (0u8..3, 0i32..48, 1u64..200 * MIB, 0i32..2, 0usize..4).prop_map(move |(level, hour, bytes, late, small)| {
        let mut one = candidate(id, level, hour, if small > 0 { bytes % (20 * MIB) + 1 } else { bytes });
        one.keep_from = Day(one.day.0 + late);
        one
    })
}

fn any_lake() -> impl Strategy<Value = Vec<Candidate>> {
    (1usize..80).prop_flat_map(|count| (0..count as u128).map(any_candidate).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn a_plan_does_not_depend_on_the_order_of_segments(lake in any_lake(), hour in 0i32..60) {
        let mut reversed = lake.clone();
        reversed.reverse();
        prop_assert_eq!(plan(&lake, at(hour, 30)), plan(&reversed, at(hour, 30)));
    }

    #[test]
    fn carrying_plans_out_ends_with_nothing_left_to_do(lake in any_lake(), hour in 0i32..60) {
        let (mut lake, mut id) = (lake, 1_000_000);
        let total: u64 = lake.iter().map(|one| one.bytes).sum();
        // Three kinds of merges, each of which can make work only for the later ones.
        for _ in 0..6 {
            let plan = plan(&lake, at(hour, 30));
            lake = apply(&lake, &plan, &mut id);
        }
        prop_assert_eq!(total, lake.iter().map(|one| one.bytes).sum::<u64>());
        prop_assert_eq!(plan(&lake, at(hour, 30)).merges, vec![]);
    }

    #[test]
    fn merges_write_at_most_three_times_what_arrived(arrivals in proptest::collection::vec((0i32..30, 1u64..8 * MIB), 1..200)) {
        let (mut lake, mut id, mut arrived, mut written) = (Vec::new(), 1_000_000, 0u64, 0u64);
        // Rows of one day arrive over 30 hours: in time, late, and after the day was closed.
        for (step, (hour, bytes)) in arrivals.iter().enumerate() {
            let now = at((step as i32 * 40) / arrivals.len() as i32, 0);
            let mut one = candidate(step as u128, 0, hour % 24, *bytes);
            one.written_at = Some(now);
            arrived += bytes;
            lake.push(one);
            let plan = plan(&lake, now.plus_ns(120 * NANOS_PER_SECOND));
            written += plan.merges.iter().map(|merge| merge.bytes).sum::<u64>();
            lake = apply(&lake, &plan, &mut id);
        }
        prop_assert!(written <= 3 * arrived, "{} bytes written for {}", written, arrived);
    }

    #[test]
    fn a_plan_knows_when_to_look_again(lake in any_lake(), hour in 0i32..60) {
        let now = at(hour, 30);
        if let Some(next) = plan(&lake, now).next_at {
            prop_assert!(next > now);
        }
    }
}
