//! The part of a histogram below or above a value (`</` and `>/`).
//!
//! A bucket that the value cuts is divided by interpolation, logarithmic in exponential buckets. What leaves the sum is estimated by
//! the middle of the part removed.

use super::{Bucket, Histogram};

/// Which part stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The observations below the value.
    Below,
    /// The observations above the value.
    Above,
}

impl Histogram {
    /// Only the observations on one side of `value`.
    pub fn trim(&mut self, value: f64, keep: Keep) {
        let is_custom = self.is_custom();
        let (mut kept, mut removed_sum) = (0.0, 0.0);
        let (mut has_positive, mut has_negative) = (false, false);
        let positive: Vec<Bucket> = self.positive_buckets().collect();
        let negative: Vec<Bucket> = self.negative_buckets().collect();
        let sides = [(positive, &mut self.positive.counts, true), (negative, &mut self.negative.counts, false)];
        for (buckets, counts, is_positive) in sides {
            for (bucket, count) in buckets.into_iter().zip(counts).filter(|(bucket, _)| bucket.count != 0.0) {
                has_negative |= if is_custom { bucket.upper <= 0.0 || bucket.lower < 0.0 } else { !is_positive };
                has_positive |= if is_custom { bucket.upper > 0.0 } else { is_positive };
                let (stays, middle) = part(bucket, value, keep, is_positive, is_custom);
                *count = stays;
                kept += stays;
                removed_sum += (bucket.count - stays) * middle;
            }
        }
        if self.zero_count > 0.0 {
            let below = below(self.zero_bucket(), value, true, true);
            self.zero_count = if keep == Keep::Below { below } else { self.zero_count - below };
            kept += self.zero_count;
        }
        let mut sum = if kept == 0.0 { 0.0 } else { self.sum - removed_sum };
        if (!has_negative && sum < 0.0) || (!has_positive && sum > 0.0) {
            sum = 0.0;
        }
        self.count = kept;
        self.sum = sum;
        self.compact();
    }
}

/// How many observations of a bucket stay, and where those that go are taken to lie.
fn part(bucket: Bucket, value: f64, keep: Keep, is_positive: bool, is_custom: bool) -> (f64, f64) {
    let Bucket { lower, upper, count } = bucket;
    let stays_whole = if keep == Keep::Below { upper <= value } else { lower >= value };
    if stays_whole {
        return (count, 0.0);
    }
    let is_cut = if keep == Keep::Below { lower < value } else { upper > value };
    if lower.is_infinite() || upper.is_infinite() {
        let (stays, middle) = infinite_part(bucket, value, keep);
        return (if is_cut { stays } else { 0.0 }, middle);
    }
    let middle_of = |a: f64, b: f64| match (is_custom, is_positive) {
        (true, _) => f64::midpoint(lower, upper),
        (false, true) => (a.abs() * b.abs()).sqrt(),
        (false, false) => -(a.abs() * b.abs()).sqrt(),
    };
    if !is_cut {
        let middle = if is_custom { f64::midpoint(lower, upper) } else { (lower * upper).sqrt() };
        return (0.0, middle);
    }
    let below = below(bucket, value, is_positive, is_custom);
    match keep {
        Keep::Below => (below, middle_of(lower, value)),
        Keep::Above => (count - below, middle_of(value, upper)),
    }
}

/// As [`part`], for a bucket without a lower or upper bound. Of one that ends above zero the lower bound counts as zero; of the rest
/// nothing is known, so that it goes where the value cuts it.
fn infinite_part(Bucket { lower, upper, count }: Bucket, value: f64, keep: Keep) -> (f64, f64) {
    if upper.is_infinite() {
        return if keep == Keep::Above && value <= lower { (count, 0.0) } else { (0.0, lower) };
    }
    let is_divisible = value >= 0.0 && upper > value;
    match keep {
        Keep::Below if value >= upper => (count, 0.0),
        Keep::Below if is_divisible => (count * value / upper, f64::midpoint(value, upper)),
        Keep::Above if is_divisible => (count * (1.0 - value / upper), value / 2.0),
        Keep::Above if value <= lower => (count, 0.0),
        _ => (0.0, upper),
    }
}

/// How many observations of a bucket lie below `value`.
fn below(Bucket { lower, upper, count }: Bucket, value: f64, is_positive: bool, is_linear: bool) -> f64 {
    if value <= lower {
        return 0.0;
    }
    if value >= upper {
        return count;
    }
    let fraction = if is_linear {
        (value - lower) / (upper - lower)
    } else {
        let (log_lower, log_upper, log) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
        if is_positive {
            (log - log_lower) / (log_upper - log_lower)
        } else {
            1.0 - (log - log_upper) / (log_lower - log_upper)
        }
    };
    count * fraction
}
