//! Where buckets begin and end, and walks over all of them.

use super::{Buckets, Histogram};

/// One bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The observations in it.
    pub count: f64,
}

/// The upper bound of bucket `index` of an exponential schema. The bucket below the one for infinite observations ends at the
/// largest finite number.
pub fn bound(index: i32, schema: i32) -> f64 {
    let value = if schema < 0 {
        power_of_two(index.saturating_mul(1 << -schema), 0.0)
    } else {
        let steps = 1 << schema;
        power_of_two(index.div_euclid(steps), f64::from(index.rem_euclid(steps)) / f64::from(steps))
    };
    let is_last_finite = index == last_finite(schema);
    if is_last_finite { f64::MAX } else { value }
}

/// The index whose bound is 2^1024 by the formula.
fn last_finite(schema: i32) -> i32 {
    if schema < 0 { 1024 >> -schema } else { 1024 << schema }
}

/// 2^(whole + part), without overflow on the way.
fn power_of_two(whole: i32, part: f64) -> f64 {
    let half = whole.clamp(-2200, 2200) / 2;
    part.exp2() * f64::from(half).exp2() * f64::from(whole.clamp(-2200, 2200) - half).exp2()
}

impl Histogram {
    /// The bounds of positive bucket `index`.
    pub(super) fn positive_bounds(&self, index: i32) -> (f64, f64) {
        if !self.is_custom() {
            return (bound(index - 1, self.schema), bound(index, self.schema));
        }
        let bounds = self.custom.as_slice();
        let at = |index: i32| usize::try_from(index).ok().and_then(|index| bounds.get(index)).copied();
        let lower = if index == 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
        (lower, at(index).unwrap_or(f64::INFINITY))
    }

    /// Buckets above zero, rising.
    pub fn positive_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.positive.iter().map(|(index, count)| {
            let (lower, upper) = self.positive_bounds(index);
            Bucket { lower, upper, count }
        })
    }

    /// Buckets below zero, from zero downwards.
    pub fn negative_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.negative.iter().map(|(index, count)| {
            let (lower, upper) = (-bound(index, self.schema), -bound(index - 1, self.schema));
            Bucket { lower, upper, count }
        })
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket { lower: -self.zero_threshold, upper: self.zero_threshold, count: self.zero_count }
    }

    /// All buckets, rising; those that overlap the zero bucket are cut to what is outside of it.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let threshold = self.zero_threshold;
        let cut = |mut bucket: Bucket| {
            if bucket.upper < 0.0 && bucket.upper > -threshold {
                bucket.upper = -threshold;
            } else if bucket.lower > 0.0 && bucket.lower < threshold {
                bucket.lower = threshold;
            }
            bucket
        };
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        self.negative_buckets().rev().map(cut).chain(zero).chain(self.positive_buckets().map(cut)).collect()
    }
}

impl Buckets {
    /// The same observations at a lower resolution.
    pub(super) fn reduced(&self, from: i32, to: i32) -> Self {
        let mut reduced = Self::default();
        for (index, count) in self.iter() {
            let target = ((index - 1) >> (from - to)) + 1;
            match reduced.indexes.last() {
                Some(last) if *last == target => *reduced.counts.last_mut().expect("as long as the indexes") += count,
                _ => reduced.push(target, count),
            }
        }
        reduced
    }
}
