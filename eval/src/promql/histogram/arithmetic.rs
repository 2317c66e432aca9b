//! Sums, differences and multiples of histograms.
//!
//! Two exponential histograms meet at the lower resolution and the larger zero bucket; two with custom bounds at the bounds that both
//! have. Sums can carry a compensation, a histogram of what rounding lost (Neumaier 1974).

use super::{Buckets, CustomBounds, Histogram, ResetHint, bound};

/// One histogram is exponential, the other has custom bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompatibleSchema;

/// What a sum or difference met on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Combined {
    /// One side says "reset", the other "no reset".
    pub has_hint_collision: bool,
    /// The custom bounds differed.
    pub has_reconciled_bounds: bool,
}

impl Histogram {
    /// Multiplies all counts and the sum.
    pub fn multiply(&mut self, factor: f64) {
        self.scale(|number| number * factor);
        if factor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum; division by zero leaves no buckets.
    pub fn divide(&mut self, divisor: f64) {
        self.scale(|number| number / divisor);
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        } else if divisor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
    }

    fn scale(&mut self, by: impl Fn(f64) -> f64) {
        let counts = self.positive.counts.iter_mut().chain(&mut self.negative.counts);
        for number in counts.chain([&mut self.zero_count, &mut self.count, &mut self.sum]) {
            *number = by(*number);
        }
    }

    /// Adds `other`.
    ///
    /// # Errors
    /// The schemas do not go together.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleSchema> {
        self.combine(other, 1.0, None)
    }

    /// Subtracts `other`.
    ///
    /// # Errors
    /// The schemas do not go together.
    pub fn subtract(&mut self, other: &Self) -> Result<Combined, IncompatibleSchema> {
        self.combine(other, -1.0, None)
    }

    /// Adds `other`, keeping in `lost` what rounding loses.
    ///
    /// # Errors
    /// The schemas do not go together.
    pub fn add_compensated(&mut self, other: &Self, lost: &mut Self) -> Result<Combined, IncompatibleSchema> {
        self.combine(other, 1.0, Some(lost))
    }

    /// The same observations at a lower or equal resolution.
    #[must_use]
    pub fn at_schema(&self, schema: i32) -> Self {
        let mut copy = self.clone();
        copy.reduce(schema);
        copy
    }

    fn reduce(&mut self, schema: i32) {
        if schema < self.schema && !self.is_custom() {
            self.positive = self.positive.reduced(self.schema, schema);
            self.negative = self.negative.reduced(self.schema, schema);
            self.schema = schema;
        }
    }

    fn combine(
        &mut self,
        other: &Self,
        sign: f64,
        mut lost: Option<&mut Self>,
    ) -> Result<Combined, IncompatibleSchema> {
        if self.is_custom() != other.is_custom() {
            return Err(IncompatibleSchema);
        }
        let has_hint_collision = self.adopt_hint(other.hint);
        let mut other_zero_count = other.zero_count;
        let mut has_reconciled_bounds = false;
        let (mut positive, mut negative) = (other.positive.clone(), other.negative.clone());
        if self.is_custom() {
            if self.custom != other.custom {
                has_reconciled_bounds = true;
                let common = common_bounds(self.custom.as_slice(), other.custom.as_slice());
                positive = positive.mapped(other.custom.as_slice(), &common);
                if let Some(lost) = lost.as_deref_mut() {
                    lost.positive = lost.positive.mapped(self.custom.as_slice(), &common);
                }
                self.positive = self.positive.mapped(self.custom.as_slice(), &common);
                self.custom = CustomBounds::new(common);
            }
        } else {
            other_zero_count = self.reconcile_zero(other, lost.as_deref_mut());
            let schema = self.schema.min(other.schema);
            self.reduce(schema);
            if let Some(lost) = lost.as_deref_mut() {
                lost.reduce(schema);
            }
            positive = positive.reduced(other.schema, schema).beyond(self.zero_threshold, schema);
            negative = negative.reduced(other.schema, schema).beyond(self.zero_threshold, schema);
        }
        let mut unused = Self::default();
        let is_compensated = lost.is_some();
        let lost = lost.unwrap_or(&mut unused);
        let sum = |a: &mut f64, b: f64, lost: &mut f64| {
            if is_compensated {
                (*a, *lost) = compensated(*a, sign * b, *lost);
            } else {
                *a += sign * b;
            }
        };
        sum(&mut self.zero_count, other_zero_count, &mut lost.zero_count);
        sum(&mut self.count, other.count, &mut lost.count);
        sum(&mut self.sum, other.sum, &mut lost.sum);
        self.positive.merge(&positive, &mut lost.positive, sum);
        self.negative.merge(&negative, &mut lost.negative, sum);
        (lost.schema, lost.zero_threshold) = (self.schema, self.zero_threshold);
        lost.custom = self.custom.clone();
        lost.hint = self.hint;
        Ok(Combined { has_hint_collision, has_reconciled_bounds })
    }

    /// Takes over what both hints say together; tells whether they contradict each other.
    fn adopt_hint(&mut self, other: ResetHint) -> bool {
        let (hint, is_collision) = match (self.hint, other) {
            (own, other) if own == other => (own, false),
            (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
            (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
            _ => (ResetHint::Unknown, true),
        };
        self.hint = hint;
        is_collision
    }

    /// Widens the zero bucket until its edge lies in no populated bucket of either; gives the zero count of `other` then.
    fn reconcile_zero(&mut self, other: &Self, mut lost: Option<&mut Self>) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_count_at(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                (self.zero_count, self.zero_threshold) = self.zero_count_at(threshold);
                self.positive = self.positive.outside(self.zero_threshold, self.schema);
                self.negative = self.negative.outside(self.zero_threshold, self.schema);
                self.compact();
                if let Some(lost) = lost.as_deref_mut() {
                    lost.zero_count = lost.zero_count_at(self.zero_threshold).0;
                    lost.zero_threshold = self.zero_threshold;
                    lost.positive = lost.positive.outside(self.zero_threshold, self.schema);
                    lost.negative = lost.negative.outside(self.zero_threshold, self.schema);
                }
            }
        }
        count
    }

    /// What the zero count would be with a zero bucket at least as wide as `threshold`, and how wide it would have to be so that no
    /// populated bucket is cut.
    pub(super) fn zero_count_at(&self, mut threshold: f64) -> (f64, f64) {
        if threshold <= self.zero_threshold {
            return (self.zero_count, threshold);
        }
        'again: loop {
            let mut count = self.zero_count;
            for bucket in self.positive_buckets() {
                if bucket.lower >= threshold {
                    break;
                }
                count += bucket.count;
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for bucket in self.negative_buckets() {
                if bucket.upper <= -threshold {
                    break;
                }
                count += bucket.count;
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        threshold = -bucket.lower;
                        continue 'again;
                    }
                    break;
                }
            }
            return (count, threshold);
        }
    }
}

impl Buckets {
    /// Without the buckets that begin below `threshold`.
    fn outside(&self, threshold: f64, schema: i32) -> Self {
        self.iter().filter(|(index, _)| bound(index - 1, schema) >= threshold).collect()
    }

    /// Without the buckets that end at or below `threshold`.
    pub(super) fn beyond(&self, threshold: f64, schema: i32) -> Self {
        if threshold == 0.0 {
            return self.clone();
        }
        self.iter().filter(|(index, _)| bound(*index, schema) > threshold).collect()
    }

    /// The observations in buckets of custom bounds, in those of fewer bounds.
    fn mapped(&self, from: &[f64], to: &[f64]) -> Self {
        let mut counts = vec![0.0; to.len() + 1];
        for (index, count) in self.iter() {
            let upper = usize::try_from(index).ok().and_then(|index| from.get(index));
            let target = upper.map_or(to.len(), |upper| to.partition_point(|bound| bound < upper));
            counts[target] += count;
        }
        let mut buckets = Self::run(0, counts);
        buckets.compact();
        buckets
    }

    fn merge(&mut self, other: &Self, lost: &mut Self, sum: impl Fn(&mut f64, f64, &mut f64)) {
        let mut merged = Self::default();
        let mut merged_lost = Self::default();
        let (mut own, mut theirs, mut lost_at) =
            (self.iter().peekable(), other.iter().peekable(), lost.iter().peekable());
        loop {
            let next = [own.peek(), theirs.peek()].into_iter().flatten().map(|(index, _)| *index).min();
            let Some(index) = next else { break };
            let mut count = own.next_if(|(at, _)| *at == index).map_or(0.0, |(_, count)| count);
            while lost_at.next_if(|(at, _)| *at < index).is_some() {}
            let mut rest = lost_at.next_if(|(at, _)| *at == index).map_or(0.0, |(_, rest)| rest);
            if let Some((_, addend)) = theirs.next_if(|(at, _)| *at == index) {
                sum(&mut count, addend, &mut rest);
            }
            merged.push(index, count);
            if rest != 0.0 {
                merged_lost.push(index, rest);
            }
        }
        drop((own, lost_at));
        *self = merged;
        *lost = merged_lost;
    }
}

/// One step of Neumaier's compensated summation.
pub(crate) fn compensated(sum: f64, addend: f64, lost: f64) -> (f64, f64) {
    let total = sum + addend;
    if total.is_infinite() {
        (total, 0.0)
    } else if sum.abs() >= addend.abs() {
        (total, lost + ((sum - total) + addend))
    } else {
        (total, lost + ((addend - total) + sum))
    }
}

fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().copied().filter(|bound| b.binary_search_by(|other| other.total_cmp(bound)).is_ok()).collect()
}
