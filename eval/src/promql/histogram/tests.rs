//! Bounds, sums, resets and text of histograms.

use super::trim::Keep;
use super::*;

fn histogram(schema: i32, first: i32, counts: &[f64]) -> Histogram {
    let count = counts.iter().sum();
    Histogram { schema, count, sum: count, positive: Buckets::run(first, counts.to_vec()), ..Histogram::default() }
}

fn custom(bounds: &[f64], counts: &[f64]) -> Histogram {
    Histogram { custom: CustomBounds::new(bounds), ..histogram(CUSTOM_SCHEMA, 0, counts) }
}

#[test]
fn bounds_of_every_schema() {
    assert_eq!((bound(0, 0), bound(1, 0), bound(-2, 0)), (1.0, 2.0, 0.25));
    assert_eq!((bound(2, 1), bound(-4, 2), bound(1, -2)), (2.0, 0.5, 16.0));
    assert!((bound(1, 1) - 2f64.sqrt()).abs() < 1e-15);
    assert_eq!((bound(1024, 0), bound(1025, 0), bound(1024 << 8, 8)), (f64::MAX, f64::INFINITY, f64::MAX));
    assert_eq!(bound(-1074, 0), f64::from_bits(1));
}

#[test]
fn sums_meet_at_the_lower_resolution() {
    let mut sum = histogram(1, 1, &[1.0, 2.0, 3.0, 4.0]);
    let combined = sum.add(&histogram(0, 1, &[10.0, 20.0])).expect("both exponential");
    assert_eq!((sum.schema, sum.positive, combined), (0, Buckets::run(1, vec![13.0, 27.0]), Combined::default()));
}

#[test]
fn sums_meet_at_the_larger_zero_bucket() {
    let mut sum = Histogram { zero_threshold: 0.001, zero_count: 1.0, ..histogram(0, 1, &[2.0, 3.0]) };
    let other = Histogram { zero_threshold: 1.5, zero_count: 5.0, ..histogram(0, 2, &[7.0]) };
    sum.add(&other).expect("both exponential");
    assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 8.0));
    assert_eq!(sum.positive, Buckets::run(2, vec![10.0]));
}

#[test]
fn custom_bounds_meet_at_those_in_common() {
    let mut sum = custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
    let combined = sum.add(&custom(&[2.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0])).expect("both custom");
    assert!(combined.has_reconciled_bounds);
    assert_eq!(sum.custom.as_slice(), [2.0, 4.0]);
    assert_eq!(sum.positive, Buckets::run(0, vec![13.0, 53.0, 44.0]));
    assert_eq!(sum.add(&histogram(0, 1, &[1.0])), Err(IncompatibleSchema));
}

#[test]
fn compensation_keeps_what_rounding_loses() {
    let mut sum = histogram(0, 1, &[1e100]);
    let mut lost = Histogram::default();
    for count in [1.0, -1e100] {
        sum.add_compensated(&histogram(0, 1, &[count]), &mut lost).expect("both exponential");
    }
    sum.add(&lost).expect("both exponential");
    assert_eq!((sum.count, sum.positive.counts), (1.0, vec![1.0]));
}

#[test]
fn resets_are_seen() {
    let before = histogram(0, 1, &[1.0, 2.0]);
    let is_reset = |now: Histogram| now.is_reset_since(&before);
    assert!(!is_reset(histogram(0, 1, &[1.0, 2.0, 3.0])));
    assert!(is_reset(histogram(0, 1, &[0.5, 4.0])));
    assert!(is_reset(histogram(0, 2, &[9.0])));
    assert!(is_reset(histogram(1, 1, &[9.0, 9.0, 9.0, 9.0])));
    assert!(!is_reset(histogram(-1, 1, &[3.0])));
    assert!(is_reset(Histogram { hint: ResetHint::Reset, ..histogram(0, 1, &[9.0, 9.0]) }));
    assert!(!is_reset(Histogram { hint: ResetHint::NotReset, ..histogram(0, 1, &[0.0]) }));
    assert!(!custom(&[2.0], &[5.0, 1.0]).is_reset_since(&custom(&[1.0, 2.0], &[2.0, 3.0, 1.0])));
    assert!(custom(&[2.0], &[4.0, 9.0]).is_reset_since(&custom(&[1.0, 2.0], &[2.0, 3.0, 1.0])));
}

#[test]
fn text_tells_populated_buckets() {
    let mut histogram = histogram(0, 0, &[3.0, 0.0]);
    histogram.negative = Buckets::run(1, vec![0.5]);
    (histogram.zero_threshold, histogram.zero_count) = (0.001, 1.0);
    assert_eq!(histogram.to_string(), "{count:3, sum:3, [-2,-1):0.5, [-0.001,0.001]:1, (0.5,1]:3}");
}

#[test]
fn trimming_divides_the_bucket_that_is_cut() {
    let mut low = histogram(0, 1, &[4.0, 8.0]);
    low.trim(2f64.sqrt() * 2.0, Keep::Below);
    assert_eq!(low.positive.counts[0], 4.0);
    assert!((low.positive.counts[1] - 4.0).abs() < 1e-9);
    let mut high = custom(&[1.0, 2.0], &[2.0, 4.0, 8.0]);
    high.trim(1.5, Keep::Above);
    assert_eq!(high.positive, [(1, 2.0), (2, 8.0)].into_iter().collect());
}
