//! Native histograms: exponential buckets, or buckets with bounds of their own.
//!
//! Bucket `i` of schema `n` holds values in (b^(i-1), b^i] with b = 2^(2^-n), as the native histogram specification of Prometheus
//! defines them (<https://prometheus.io/docs/specs/native_histograms/>). Buckets are sparse: an index list and a count list. Start
//! with [`Histogram`]; arithmetic is in `arithmetic`, counter resets in `reset`, bounds in `bounds`.

mod arithmetic;
mod bounds;
mod reset;
mod text;
mod trim;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use arithmetic::compensated;
pub use arithmetic::{Combined, IncompatibleSchema};
pub use bounds::{Bucket, bound};
pub use trim::Keep;

/// The schema of histograms whose buckets have bounds of their own.
pub const CUSTOM_SCHEMA: i32 = -53;

/// A histogram with float counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// What is known of a counter reset before this sample.
    pub hint: ResetHint,
    /// The resolution, from -4 to 8, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// Half the width of the zero bucket.
    #[serde(with = "crate::bits")]
    pub zero_threshold: f64,
    /// The observations in the zero bucket.
    #[serde(with = "crate::bits")]
    pub zero_count: f64,
    /// All observations.
    #[serde(with = "crate::bits")]
    pub count: f64,
    /// The sum of all observations; a stale marker where it is the stale NaN.
    #[serde(with = "crate::bits")]
    pub sum: f64,
    /// The buckets above zero; all buckets of a custom schema.
    pub positive: Buckets,
    /// The buckets below zero.
    pub negative: Buckets,
    /// The upper bounds of a custom schema, without the last, infinite one.
    pub custom: CustomBounds,
}

/// The upper bounds of a custom schema.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CustomBounds(#[serde(with = "shared")] Arc<[f64]>);

/// Sparse buckets, by rising index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Buckets {
    /// Which buckets.
    pub indexes: Vec<i32>,
    /// How many observations each holds.
    #[serde(with = "crate::bits::list")]
    pub counts: Vec<f64>,
}

/// What is known of a counter reset between a histogram and the sample before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ResetHint {
    /// Nothing: compare.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// It is a gauge, which has no resets.
    Gauge,
}

impl Histogram {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + 12 * (self.positive.indexes.len() + self.negative.indexes.len())
    }

    /// Whether its buckets have bounds of their own.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// The same without empty buckets.
    #[must_use]
    pub fn compacted(mut self) -> Self {
        self.compact();
        self
    }

    /// Whether both hold the same to the bit, hints aside.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && (!self.is_custom() || self.custom == other.custom)
            && self.negative.equals(&other.negative)
            && self.positive.equals(&other.positive)
    }

    /// Whether any of its numbers is infinite.
    pub fn has_overflow(&self) -> bool {
        let numbers = [self.zero_count, self.count, self.sum];
        numbers.iter().chain(&self.positive.counts).chain(&self.negative.counts).any(|number| number.is_infinite())
    }

    /// Only count and sum, with the hint that the sample before gives; enough for functions that look at nothing else.
    #[must_use]
    pub fn totals(&self, hint: ResetHint) -> Self {
        Self { hint, count: self.count, sum: self.sum, ..Self::default() }
    }
}

impl CustomBounds {
    /// The bounds `bounds`, rising.
    pub fn new(bounds: impl Into<Arc<[f64]>>) -> Self {
        Self(bounds.into())
    }

    /// The bounds.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

impl Buckets {
    /// Neighbouring buckets from index `first` on.
    pub fn run(first: i32, counts: Vec<f64>) -> Self {
        Self { indexes: (first..).take(counts.len()).collect(), counts }
    }

    /// Whether there is no bucket, not even an empty one.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Index and count of each bucket.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.indexes.iter().copied().zip(self.counts.iter().copied())
    }

    pub(super) fn push(&mut self, index: i32, count: f64) {
        self.indexes.push(index);
        self.counts.push(count);
    }

    fn compact(&mut self) {
        if self.counts.contains(&0.0) {
            *self = self.iter().filter(|(_, count)| *count != 0.0).collect();
        }
    }

    fn equals(&self, other: &Self) -> bool {
        let bits = |counts: &[f64]| counts.iter().map(|count| count.to_bits()).collect::<Vec<_>>();
        self.indexes == other.indexes && bits(&self.counts) == bits(&other.counts)
    }
}

impl FromIterator<(i32, f64)> for Buckets {
    fn from_iter<T: IntoIterator<Item = (i32, f64)>>(buckets: T) -> Self {
        let (indexes, counts) = buckets.into_iter().unzip();
        Self { indexes, counts }
    }
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &Arc<[f64]>, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bits::list::serialize(values, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[f64]>, D::Error> {
        crate::bits::list::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests;
