//! Quantiles of values, of classic histograms and of native histograms, and fractions of histograms.

use tidemill_lang::Span;

use super::annotation::{Annotations, named};
use super::histogram::{Bucket, Histogram};

/// One bucket of a classic histogram: all observations up to a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UpTo {
    pub bound: f64,
    pub count: f64,
}

/// How bucket counts were raised so that they do not fall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Raised {
    pub first: f64,
    pub last: f64,
    pub difference: f64,
}

/// The quantile `q` of `values`, which get sorted; between two values by their distance.
pub(super) fn of_values(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// The quantile `q` of a classic histogram, linear inside a bucket, and how its counts had to be raised.
pub(super) fn of_buckets(q: f64, buckets: &mut Vec<UpTo>) -> (f64, Option<Raised>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let raised = raise(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last < 1 || observations == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = q * observations;
    let at = buckets[..last].partition_point(|bucket| bucket.count < rank);
    if at == last {
        return (buckets[last - 1].bound, raised);
    }
    if at == 0 && buckets[0].bound <= 0.0 {
        return (buckets[0].bound, raised);
    }
    let (mut start, mut count) = (0.0, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].bound;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (buckets[at].bound - start) * (rank / count), raised)
}

/// Sorts the buckets and unites those of equal bounds; tells whether the last bound is infinite, as it must be.
fn prepare(buckets: &mut Vec<UpTo>) -> bool {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    buckets.dedup_by(|next, kept| {
        let is_same = next.bound == kept.bound;
        if is_same {
            kept.count += next.count;
        }
        is_same
    });
    buckets.last().is_some_and(|last| last.bound == f64::INFINITY)
}

/// Raises counts that fall. A fall below a part in 10^12 is rounding, and not told.
fn raise(buckets: &mut [UpTo]) -> Option<Raised> {
    const TOLERANCE: f64 = 1e-12;
    let mut before = buckets[0].count;
    let mut raised: Option<Raised> = None;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        let is_rounding = (bucket.count - before).abs() / bucket.count.abs().max(before.abs()) < TOLERANCE;
        if is_rounding {
            bucket.count = before;
        } else if bucket.count < before {
            let difference = before - bucket.count;
            let known = raised.unwrap_or(Raised { first: bucket.bound, last: bucket.bound, difference });
            let difference = known.difference.max(difference);
            raised = Some(Raised { first: known.first, last: bucket.bound, difference });
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    raised
}

/// The fraction of observations of a classic histogram between two values.
pub(super) fn fraction_of_buckets(lower: f64, upper: f64, buckets: &mut Vec<UpTo>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |last| last.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let first_bound = if buckets[0].bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let rank_of = |value: f64| {
        let (mut rank, mut bound) = (0.0, first_bound);
        for bucket in buckets.iter() {
            if bound >= value {
                return rank;
            }
            if bucket.bound > value {
                let inside = (bucket.count - rank) * (value - bound) / (bucket.bound - bound);
                return if bound == f64::NEG_INFINITY { bucket.count } else { rank + inside };
            }
            (rank, bound) = (bucket.count, bucket.bound);
        }
        count
    };
    (rank_of(upper).min(count) - rank_of(lower).min(count)) / count
}

/// The quantile `q` of a classic histogram: the upper `bounds` of its buckets, and how many values each holds, one more than there are
/// bounds. As `histogram_quantile` of PromQL has it: linear inside a bucket, the largest bound for what lies above it, NaN without values.
pub fn classic_quantile(q: f64, bounds: &[f64], counts: &[u64]) -> f64 {
    let mut up_to = 0.0;
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let cumulative = bounds.zip(counts).map(|(bound, count)| {
        up_to += *count as f64;
        UpTo { bound, count: up_to }
    });
    of_buckets(q, &mut cumulative.collect()).0
}

/// The quantile `q` of a native histogram, as `histogram_quantile` of PromQL has it.
pub fn native_quantile(q: f64, histogram: &Histogram) -> f64 {
    let about = About { metric: "", span: Span::default(), notes: &mut Annotations::default() };
    of_histogram(q, histogram, about)
}

/// Where annotations about a native histogram point to.
pub(super) struct About<'a> {
    pub metric: &'a str,
    pub span: Span,
    pub notes: &'a mut Annotations,
}

/// The quantile `q` of a native histogram: logarithmic inside exponential buckets, linear in the zero bucket and in custom ones.
pub(super) fn of_histogram(q: f64, histogram: &Histogram, about: About<'_>) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    let has_nan_sum = histogram.sum.is_nan();
    let is_forward = has_nan_sum || q < 0.5;
    let mut buckets = histogram.all_buckets();
    if !is_forward {
        buckets.reverse();
    }
    let mut rank = if is_forward { q * histogram.count } else { (1.0 - q) * histogram.count };
    let (mut bucket, mut count) = (Bucket { lower: 0.0, upper: 0.0, count: 0.0 }, 0.0);
    let mut rest = buckets.into_iter().filter(|bucket| bucket.count != 0.0);
    for next in rest.by_ref() {
        bucket = next;
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    } else {
        bucket = one_sided(bucket, histogram);
    }
    count = count.min(histogram.count);
    if count < rank {
        if has_nan_sum {
            let text = named("input to histogram_quantile has NaN observations, result is NaN", about.metric);
            about.notes.info(text, about.span);
            return f64::NAN;
        }
        return bucket.upper;
    }
    rank = if is_forward { rank - (count - bucket.count) } else { count - rank };
    if has_nan_sum && count + rest.map(|bucket| bucket.count).sum::<f64>() < histogram.count {
        let text = named("input to histogram_quantile has NaN observations, result is skewed higher", about.metric);
        about.notes.info(text, about.span);
    }
    let fraction = rank / bucket.count;
    if histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (log_lower, log_upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (log_lower + (log_upper - log_lower) * fraction).exp2()
    } else {
        -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
    }
}

/// A zero bucket is taken to lie on the side of zero where the histogram has buckets, if that is one side only.
fn one_sided(mut bucket: Bucket, histogram: &Histogram) -> Bucket {
    if bucket.lower < 0.0 && bucket.upper > 0.0 {
        if histogram.negative.is_empty() && !histogram.positive.is_empty() {
            bucket.lower = 0.0;
        } else if histogram.positive.is_empty() && !histogram.negative.is_empty() {
            bucket.upper = 0.0;
        }
    }
    bucket
}

/// The fraction of observations of a native histogram between two values.
pub(super) fn fraction_of_histogram(lower: f64, upper: f64, histogram: &Histogram, about: About<'_>) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let buckets = histogram.all_buckets();
    let mut count = histogram.count;
    if histogram.sum.is_nan() {
        count = buckets.iter().map(|bucket| bucket.count).sum();
        if count < histogram.count {
            let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
            about.notes.info(named(text, about.metric), about.span);
        }
    }
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        for bucket in &buckets {
            let spans_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            let bucket = if !spans_zero {
                *bucket
            } else if histogram.is_custom() {
                let lower = if bucket.lower == f64::NEG_INFINITY { 0.0 } else { bucket.lower };
                Bucket { lower, ..*bucket }
            } else {
                one_sided(*bucket, histogram)
            };
            if bucket.lower >= value {
                return rank;
            }
            if bucket.upper > value {
                return rank + inside(bucket, value, histogram.is_custom() || spans_zero, rank);
            }
            rank += bucket.count;
        }
        count
    };
    (rank_of(upper).min(count) - rank_of(lower).min(count)) / histogram.count
}

/// How many observations of `bucket` lie below `value`, which is inside of it.
fn inside(bucket: Bucket, value: f64, is_linear: bool, rank: f64) -> f64 {
    let Bucket { lower, upper, count } = bucket;
    if is_linear {
        if lower == f64::NEG_INFINITY { count - rank } else { count * (value - lower) / (upper - lower) }
    } else {
        let (log_lower, log_upper, log) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
        let fraction = if value > 0.0 {
            (log - log_lower) / (log_upper - log_lower)
        } else {
            1.0 - (log - log_upper) / (log_lower - log_upper)
        };
        count * fraction
    }
}
