//! Buckets as crashes leave them.

use tidemill_segment::segment_id;
use tidemill_types::{ByteRange, Day, Level, OrganizationId, ServiceSet, Signal, Tier, TimeRange};
use uuid::Uuid;

use super::*;

/// A segment of lease `lease`, as its place among `outputs`.
fn found(lease: &str, ordinal: u32, outputs: u32) -> Found {
    let object_key = format!("db/{}/logs/20260101/t0/l0/{lease}-{ordinal}.parquet", Uuid::nil());
    let meta = SegmentMeta {
        id: segment_id(&object_key),
        organization: OrganizationId(Uuid::nil()),
        signal: Signal::Logs,
        tier: Tier::RAW,
        level: Level(0),
        day: Day(0),
        time: TimeRange::ALL,
        ingest_day: Day(0),
        rows: 1,
        bytes: 1,
        bucket: "main".to_owned(),
        instance_num: 1,
        object_key,
        etag: None,
        footer: ByteRange::default(),
        footer_hash: [0; 32],
        index: ByteRange::default(),
        services: ServiceSet::Names(Vec::new()),
        covers_ingest_seq: 0,
    };
    Found {
        meta,
        replaces: Vec::new(),
        outputs,
        ordinal,
        inputs: Vec::new(),
        identities: None,
        written_at: TimestampNs(1_000),
    }
}

fn of_inputs(mut one: Found, inputs: &[&str]) -> Found {
    one.inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
    one
}

fn replacing(mut one: Found, replaced: &[&Found]) -> Found {
    one.replaces = replaced.iter().map(|input| input.meta.id).collect();
    one
}

fn live(found: &[Found], around: &Surroundings) -> Vec<SegmentId> {
    let decision = decide_live(found, around);
    let mut live: Vec<SegmentId> = decision.live.iter().copied().collect();
    live.sort();
    live
}

fn ids(found: &[&Found]) -> Vec<SegmentId> {
    let mut ids: Vec<SegmentId> = found.iter().map(|one| one.meta.id).collect();
    ids.sort();
    ids
}

#[test]
fn replaced_inputs_that_still_exist_are_not_live() {
    let (a, b) = (of_inputs(found("1-aa", 0, 1), &["x"]), of_inputs(found("2-bb", 0, 1), &["y"]));
    let merged = replacing(found("3-cc", 0, 1), &[&a, &b]);
    let all = [a.clone(), b, merged.clone()];
    let decision = decide_live(&all, &Surroundings::default());
    assert_eq!(live(&all, &Surroundings::default()), ids(&[&merged]));
    assert!(decision.replaced.contains(&a.meta.id));
}

#[test]
fn two_uploads_of_the_same_inputs_count_once() {
    let (first, second) = (of_inputs(found("1-aa", 0, 1), &["x", "y"]), of_inputs(found("1-bb", 0, 1), &["x", "y"]));
    assert_eq!(live(&[first.clone(), second.clone()], &Surroundings::default()).len(), 1);
    // The one that was merged on was published.
    let merged = replacing(found("3-cc", 0, 1), &[&second]);
    assert_eq!(live(&[first, second, merged.clone()], &Surroundings::default()), ids(&[&merged]));
}

#[test]
fn a_crashed_bundle_and_its_halves_count_once() {
    let whole = of_inputs(found("1-aa", 0, 1), &["x", "y"]);
    let halves = [of_inputs(found("1-bb", 0, 1), &["x"]), of_inputs(found("2-cc", 0, 1), &["y"])];
    let decision = live(&[whole.clone(), halves[0].clone(), halves[1].clone()], &Surroundings::default());
    assert_eq!(decision, ids(&[&whole]));
    let known = Surroundings { known: [halves[0].meta.id].into(), ..Surroundings::default() };
    assert_eq!(live(&[whole, halves[0].clone(), halves[1].clone()], &known), ids(&[&halves[0], &halves[1]]));
}

#[test]
fn half_an_upload_is_not_live_while_its_raw_object_is_there() {
    let half = of_inputs(found("1-aa", 0, 2), &["x"]);
    let around = Surroundings {
        raw_inputs: ["x".to_owned()].into(),
        swept_before: TimestampNs(5_000),
        ..Surroundings::default()
    };
    assert_eq!(live(std::slice::from_ref(&half), &around), []);
    // Raw objects are deleted only after publication, and replaced segments later still: its sibling was merged on.
    let published = Surroundings { raw_inputs: HashSet::new(), ..around };
    assert_eq!(live(std::slice::from_ref(&half), &published), ids(&[&half]));
}

#[test]
fn half_a_merge_does_not_replace_its_inputs() {
    let (a, b) = (found("1-aa", 0, 1), found("2-bb", 0, 1));
    let half = replacing(found("3-cc", 0, 2), &[&a, &b]);
    assert_eq!(live(&[a.clone(), b.clone(), half.clone()], &Surroundings::default()), ids(&[&a, &b]));
    // With its inputs gone it was published, and its sibling was replaced in turn.
    assert_eq!(live(std::slice::from_ref(&half), &Surroundings::default()), ids(&[&half]));
}

#[test]
fn of_two_merges_of_one_segment_one_counts() {
    let (a, b, c) = (found("1-aa", 0, 1), found("2-bb", 0, 1), found("3-cc", 0, 1));
    let orphan = replacing(found("4-dd", 0, 1), &[&a, &b]);
    let published = replacing(found("4-ee", 0, 1), &[&a, &b, &c]);
    let all = [a, b, c, orphan, published.clone()];
    assert_eq!(live(&all, &Surroundings::default()), ids(&[&published]));
    // The same once all inputs are deleted.
    assert_eq!(live(&all[3..], &Surroundings::default()), ids(&[&published]));
}

#[test]
fn a_merge_of_an_unpublished_upload_falls_with_it() {
    let orphan = of_inputs(found("1-aa", 0, 1), &["x"]);
    let published = of_inputs(found("1-bb", 0, 1), &["x"]);
    let merged = replacing(found("3-cc", 0, 1), &[&published]);
    let stray = replacing(found("4-dd", 0, 2), &[&orphan]);
    assert_eq!(live(&[orphan, published, merged.clone(), stray], &Surroundings::default()), ids(&[&merged]));
}

#[test]
fn the_order_of_the_listing_does_not_matter() {
    let (a, b) = (of_inputs(found("1-aa", 0, 1), &["x"]), of_inputs(found("1-bb", 0, 1), &["x", "y"]));
    let merged = replacing(found("3-cc", 0, 1), &[&a]);
    let mut all = vec![a, b, merged];
    let forward = live(&all, &Surroundings::default());
    all.reverse();
    assert_eq!(live(&all, &Surroundings::default()), forward);
}

#[test]
fn what_a_restored_catalog_will_ingest_again_is_not_adopted() {
    let (pending, done) = (of_inputs(found("1-aa", 0, 1), &["x"]), of_inputs(found("2-bb", 0, 1), &["y"]));
    let merged = replacing(found("3-cc", 0, 1), &[&pending, &done]);
    let around = Surroundings { pending_inputs: ["x".to_owned()].into(), ..Surroundings::default() };
    assert_eq!(live(&[pending.clone(), done.clone(), merged.clone()], &around), ids(&[&done]));
    let known = Surroundings { known: [merged.meta.id].into(), ..around };
    assert_eq!(live(&[pending, done, merged.clone()], &known), ids(&[&merged]));
}
