//! Comparison of numbers and histograms up to rounding.

use super::super::histogram::{Buckets, Histogram};
use super::super::source::is_stale;

/// The relative difference that is still equal.
const EPSILON: f64 = 0.000_001;

/// Whether two numbers are equal up to rounding; NaN equals NaN, the stale marker only itself.
pub(super) fn numbers(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// Whether two histograms are equal up to rounding, empty buckets aside; hints count where `compares_hints`.
pub(super) fn histograms(expected: &Histogram, actual: &Histogram, compares_hints: bool) -> bool {
    let (expected, actual) = (expected.clone().compacted(), actual.clone().compacted());
    expected.schema == actual.schema
        && numbers(expected.count, actual.count)
        && numbers(expected.sum, actual.sum)
        && (!expected.is_custom() || expected.custom == actual.custom)
        && expected.zero_threshold == actual.zero_threshold
        && numbers(expected.zero_count, actual.zero_count)
        && buckets(&expected.negative, &actual.negative)
        && buckets(&expected.positive, &actual.positive)
        && (!compares_hints || expected.hint == actual.hint)
}

fn buckets(expected: &Buckets, actual: &Buckets) -> bool {
    expected.indexes == actual.indexes
        && expected.counts.iter().zip(&actual.counts).all(|(expected, actual)| numbers(*expected, *actual))
}
