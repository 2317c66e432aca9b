//! Whether a counter was reset between two histograms.

use super::super::source::is_stale;
use super::{Buckets, Histogram, ResetHint};

impl Histogram {
    /// Whether the counter was reset since `previous`: the hint says so, or a count fell, or the layout changed as it only can by a
    /// reset. Gauges are compared as counters are.
    pub fn is_reset_since(&self, previous: &Self) -> bool {
        match self.hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if !previous.is_custom() {
                return true;
            }
            if self.custom != previous.custom {
                return self.fell_between_common_bounds(previous);
            }
            return fell(&self.positive, &previous.positive);
        }
        if self.schema > previous.schema || previous.is_custom() || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (previous_zero, threshold) = previous.zero_count_at(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < previous_zero {
            return true;
        }
        let seen = |buckets: &Buckets, schema: i32| {
            buckets.reduced(schema, self.schema).beyond(self.zero_threshold, self.schema)
        };
        fell(&seen(&self.positive, self.schema), &seen(&previous.positive, previous.schema))
            || fell(&seen(&self.negative, self.schema), &seen(&previous.negative, previous.schema))
    }

    /// The hint that a Prometheus gives this histogram when it reads it back, stored behind `before`: it compares what it writes.
    pub fn stored_hint(&self, before: Option<&Self>) -> ResetHint {
        let before = match (self.hint, before) {
            (ResetHint::Gauge | ResetHint::Reset, _) => return self.hint,
            (_, None) => return ResetHint::Unknown,
            (_, Some(before)) if is_stale(before.sum) || before.hint == ResetHint::Gauge => return ResetHint::Unknown,
            (_, Some(before)) => before,
        };
        let has_other_layout = self.schema != before.schema
            || self.zero_threshold != before.zero_threshold
            || self.custom != before.custom;
        if self.count >= before.count && has_other_layout {
            return ResetHint::Unknown;
        }
        let plain = Self { hint: ResetHint::Unknown, ..self.clone() };
        if plain.is_reset_since(before) { ResetHint::Reset } else { ResetHint::NotReset }
    }

    /// Whether the observations between two bounds that both have became fewer.
    fn fell_between_common_bounds(&self, previous: &Self) -> bool {
        let others = previous.custom.as_slice();
        let own = self.custom.as_slice().iter().copied();
        let common = own.filter(|bound| others.contains(bound)).chain([f64::INFINITY]);
        let between = |histogram: &Self, lower: f64, upper: f64| -> f64 {
            histogram.positive_buckets().filter(|b| b.upper > lower && b.upper <= upper).map(|b| b.count).sum()
        };
        let mut lower = f64::NEG_INFINITY;
        for upper in common {
            if between(self, lower, upper) < between(previous, lower, upper) {
                return true;
            }
            lower = upper;
        }
        false
    }
}

/// Whether a bucket of `previous` is fuller than the same bucket now.
fn fell(now: &Buckets, previous: &Buckets) -> bool {
    let mut now = now.iter().peekable();
    previous.iter().any(|(index, before)| {
        while now.next_if(|(at, _)| *at < index).is_some() {}
        now.peek().filter(|(at, _)| *at == index).map_or(before != 0.0, |(_, count)| *count < before)
    })
}
