//! A histogram whose weights halve with time.
//!
//! Instead of shrinking what is old, what is new weighs more: `2^((t − reference) / half life)`. When that grows too large the reference moves.

use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Options};
use crate::decision::TimeMs;

/// How many half lives a sample may be after the reference.
const MAX_EXPONENT: i64 = 100;

/// A histogram with decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecayingHistogram {
    pub(super) histogram: Histogram,
    pub(super) half_life_ms: i64,
    pub(super) reference: TimeMs,
}

impl DecayingHistogram {
    /// An empty one; the half life is at least a millisecond.
    pub fn new(options: Options, half_life_ms: i64) -> Self {
        Self { histogram: Histogram::new(options), half_life_ms: half_life_ms.max(1), reference: TimeMs(0) }
    }

    /// The weights as they are kept.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// Adds a sample of time `at`.
    pub fn add(&mut self, value: f64, weight: f64, at: TimeMs) {
        let factor = self.factor(at);
        self.histogram.add(value, weight * factor);
    }

    /// Takes a sample of time `at` away again.
    pub fn subtract(&mut self, value: f64, weight: f64, at: TimeMs) {
        let factor = self.factor(at);
        self.histogram.subtract(value, weight * factor);
    }

    /// Adds another one with the same buckets; the older reference moves to the newer.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        if self.reference < other.reference {
            self.move_reference(other.reference);
        } else if other.reference < self.reference {
            other.move_reference(self.reference);
        }
        self.histogram.merge(&other.histogram);
    }

    /// See [`Histogram::percentile`].
    pub fn percentile(&self, fraction: f64) -> f64 {
        self.histogram.percentile(fraction)
    }

    /// See [`Histogram::is_empty`].
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    fn factor(&mut self, at: TimeMs) -> f64 {
        let latest = self.reference.plus_ms(self.half_life_ms.saturating_mul(MAX_EXPONENT));
        if at > latest {
            let half = self.half_life_ms / 2;
            self.move_reference(TimeMs(at.0.saturating_add(half).div_euclid(self.half_life_ms) * self.half_life_ms));
        }
        (at.since_ms(self.reference) as f64 / self.half_life_ms as f64).exp2()
    }

    fn move_reference(&mut self, to: TimeMs) {
        let exponent = (self.reference.since_ms(to) as f64 / self.half_life_ms as f64).round();
        self.histogram.scale(exponent.exp2());
        self.reference = to;
    }
}
