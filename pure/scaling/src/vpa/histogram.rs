//! A histogram of weighted values in fixed buckets.
//!
//! A percentile is the end of its bucket: with growth 1.05 at most 5 % above the true value, and coarse below the first bucket.

use serde::{Deserialize, Serialize};

/// Buckets of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where buckets begin.
    pub layout: Layout,
    /// The least weight that counts.
    pub epsilon: f64,
}

/// Where buckets begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layout {
    /// Buckets of one size.
    Linear {
        /// The largest value that is told apart.
        max: f64,
        /// The size.
        first: f64,
    },
    /// Each bucket `ratio` times as large as the one before.
    Exponential {
        /// The largest value that is told apart.
        max: f64,
        /// The size of the first.
        first: f64,
        /// Above 1.
        ratio: f64,
    },
}

/// Buckets that a histogram has at most, whatever its layout says.
const MAX_BUCKETS: usize = 100_000;

impl Options {
    /// CPU in cores: up to 1000 from 0.01, growth 1.05.
    pub const CPU: Self = Self { layout: Layout::Exponential { max: 1000.0, first: 0.01, ratio: 1.05 }, epsilon: 1e-4 };
    /// Memory in bytes: up to 1e12 from 1e7, growth 1.05.
    pub const MEMORY: Self = Self { layout: Layout::Exponential { max: 1e12, first: 1e7, ratio: 1.05 }, epsilon: 1e-4 };

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        let last = match self.layout {
            Layout::Linear { max, first } => (max / first).ceil(),
            Layout::Exponential { max, first, ratio } => place(max, first, ratio).ceil(),
        };
        (last.max(0.0) as usize).min(MAX_BUCKETS) + 1
    }

    /// Where bucket `index` begins.
    pub fn start(&self, index: usize) -> f64 {
        match self.layout {
            Layout::Linear { first, .. } => first * index as f64,
            Layout::Exponential { .. } if index == 0 => 0.0,
            Layout::Exponential { first, ratio, .. } => first * (ratio.powf(index as f64) - 1.0) / (ratio - 1.0),
        }
    }

    /// The bucket of `value`.
    pub fn find(&self, value: f64) -> usize {
        let index = match self.layout {
            Layout::Linear { first, .. } => value / first,
            Layout::Exponential { first, .. } if value < first => 0.0,
            Layout::Exponential { first, ratio, .. } => place(value, first, ratio).floor(),
        };
        (index.max(0.0) as usize).min(self.buckets() - 1)
    }
}

fn place(value: f64, first: f64, ratio: f64) -> f64 {
    (value * (ratio - 1.0) / first + 1.0).ln() / ratio.ln()
}

/// Weights by bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    options: Options,
    /// One weight per bucket up to the last that was ever used; the others are 0.
    weights: Vec<f64>,
    total: f64,
    min_bucket: usize,
    max_bucket: usize,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(options: Options) -> Self {
        Self { options, weights: Vec::new(), total: 0.0, min_bucket: options.buckets() - 1, max_bucket: 0 }
    }

    /// The sum of the weights.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// The weight of one bucket.
    pub fn weight(&self, bucket: usize) -> f64 {
        self.weights.get(bucket).copied().unwrap_or(0.0)
    }

    /// Its buckets.
    pub fn options(&self) -> Options {
        self.options
    }

    pub(super) fn span(&self) -> std::ops::RangeInclusive<usize> {
        self.min_bucket..=self.max_bucket
    }

    /// Adds weight to the bucket of `value`.
    pub fn add(&mut self, value: f64, weight: f64) {
        let bucket = self.options.find(value);
        self.add_to_bucket(bucket, weight);
        self.total += weight;
    }

    pub(super) fn add_to_bucket(&mut self, bucket: usize, weight: f64) {
        if self.weights.len() <= bucket {
            self.weights.resize(bucket + 1, 0.0);
        }
        self.weights[bucket] += weight;
        if self.weights[bucket] >= self.options.epsilon {
            self.min_bucket = self.min_bucket.min(bucket);
            self.max_bucket = self.max_bucket.max(bucket);
        }
    }

    pub(super) fn add_total(&mut self, weight: f64) {
        self.total += weight;
    }

    /// Takes weight from the bucket of `value`; what falls below epsilon is 0.
    pub fn subtract(&mut self, value: f64, weight: f64) {
        let bucket = self.options.find(value);
        let epsilon = self.options.epsilon;
        let less = |known: f64| if known - weight < epsilon { 0.0 } else { known - weight };
        if let Some(known) = self.weights.get_mut(bucket) {
            *known = less(*known);
        }
        self.total = less(self.total);
        self.tighten();
    }

    /// Multiplies every weight.
    pub fn scale(&mut self, factor: f64) {
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
        self.total *= factor;
        self.tighten();
    }

    /// Adds the weights of a histogram with the same buckets.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, weight) in other.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            self.add_to_bucket(bucket, *weight);
        }
        self.total += other.total;
    }

    /// Moves the ends inwards past buckets that hold nothing.
    pub(super) fn tighten(&mut self) {
        let last = self.options.buckets() - 1;
        while self.weight(self.min_bucket) < self.options.epsilon && self.min_bucket < last {
            self.min_bucket += 1;
        }
        while self.weight(self.max_bucket) < self.options.epsilon && self.max_bucket > 0 {
            self.max_bucket -= 1;
        }
    }

    /// Whether it holds nothing that counts.
    pub fn is_empty(&self) -> bool {
        self.weight(self.min_bucket) < self.options.epsilon
    }

    /// The end of the bucket in which `fraction` of the weight is reached; 0 when empty.
    pub fn percentile(&self, fraction: f64) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let threshold = fraction * self.total;
        let mut partial = 0.0;
        let mut bucket = self.min_bucket;
        while bucket < self.max_bucket {
            partial += self.weight(bucket);
            if partial >= threshold {
                break;
            }
            bucket += 1;
        }
        let last = self.options.buckets() - 1;
        self.options.start(if bucket < last { bucket + 1 } else { bucket })
    }
}
