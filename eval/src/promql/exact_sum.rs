//! Sums of floats that do not depend on their order.
//!
//! A sum is kept as a list of non-overlapping floats whose exact total it is (Shewchuk, "Adaptive Precision Floating-Point Arithmetic",
//! 1997), and rounded once at the end. So partials of any division of the series give the same answer to the bit. Numbers near the
//! largest float are kept apart, scaled down, so that a passing overflow does not spoil a sum or an average that fits.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// By how much large numbers are scaled, a power of two.
const SCALE: f64 = 1.0 / 18_446_744_073_709_551_616.0;
/// From here on numbers are large: 2^960.
const LARGE: f64 = f64::from_bits((1023 + 960) << 52);

/// An expansion: most sums need two floats.
type Parts = SmallVec<[f64; 2]>;

/// A running sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ExactSum {
    #[serde(with = "crate::bits::list")]
    parts: Parts,
    /// What is no plain number, which is rare.
    others: Option<Box<Others>>,
}

/// Numbers that are counted apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Others {
    #[serde(with = "crate::bits::list")]
    large_parts: Parts,
    positive_infinities: u64,
    negative_infinities: u64,
    nans: u64,
}

impl ExactSum {
    /// Adds a number.
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        if value.abs() < LARGE {
            grow(&mut self.parts, value);
        } else {
            self.others.get_or_insert_default().add(value);
        }
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| grow(&mut self.parts, *part));
        if let Some(theirs) = &other.others {
            self.others.get_or_insert_default().merge(theirs);
        }
    }

    /// The sum, divided by `divisor`.
    pub(super) fn quotient(&self, divisor: f64) -> f64 {
        match &self.others {
            None => rounded(&self.parts) / divisor,
            Some(others) => others.quotient(&self.parts, divisor),
        }
    }
}

impl Others {
    fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.nans += 1;
        } else if value.is_finite() {
            grow(&mut self.large_parts, value * SCALE);
        } else if value > 0.0 {
            self.positive_infinities += 1;
        } else {
            self.negative_infinities += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        other.large_parts.iter().for_each(|part| grow(&mut self.large_parts, *part));
        self.positive_infinities += other.positive_infinities;
        self.negative_infinities += other.negative_infinities;
        self.nans += other.nans;
    }

    /// The sum of these and of plain `parts`, divided by `divisor`.
    fn quotient(&self, parts: &[f64], divisor: f64) -> f64 {
        if self.nans > 0 || (self.positive_infinities > 0 && self.negative_infinities > 0) {
            return f64::NAN;
        }
        if self.positive_infinities > 0 {
            return f64::INFINITY;
        }
        if self.negative_infinities > 0 {
            return f64::NEG_INFINITY;
        }
        if self.large_parts.is_empty() {
            return rounded(parts) / divisor;
        }
        let mut all = self.large_parts.clone();
        parts.iter().for_each(|part| grow(&mut all, *part * SCALE));
        rounded(&all) / divisor / SCALE
    }
}

/// Adds `value` to the expansion `parts`, exactly.
#[inline]
fn grow(parts: &mut Parts, mut value: f64) {
    let mut kept = 0;
    for at in 0..parts.len() {
        let part = parts[at];
        let total = value + part;
        // Without comparing which is larger (Knuth, "The Art of Computer Programming" 2, 4.2.2), as that could not be foretold.
        let share = total - value;
        let lost = (value - (total - share)) + (part - share);
        if lost != 0.0 {
            parts[kept] = lost;
            kept += 1;
        }
        value = total;
    }
    parts.truncate(kept);
    parts.push(value);
}

/// The float nearest to the total of an expansion, ties to even.
fn rounded(parts: &[f64]) -> f64 {
    let mut parts = parts.iter().rev().copied();
    let Some(mut total) = parts.next() else { return 0.0 };
    let mut lost = 0.0;
    for part in parts.by_ref() {
        let sum = total + part;
        lost = part - (sum - total);
        total = sum;
        if lost != 0.0 {
            break;
        }
    }
    // A tie is decided by what follows.
    if let Some(next) = parts.next()
        && ((lost < 0.0 && next < 0.0) || (lost > 0.0 && next > 0.0))
    {
        let doubled = lost * 2.0;
        let candidate = total + doubled;
        if candidate - total == doubled {
            total = candidate;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.quotient(1.0)
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        let mut average = ExactSum::default();
        [f64::MAX, f64::MAX].iter().for_each(|value| average.add(*value));
        assert_eq!(average.quotient(2.0), f64::MAX);
    }

    proptest! {
        #[test]
        fn order_and_division_do_not_matter(values in prop::collection::vec(prop::num::f64::NORMAL, 0..40), at in 0usize..40) {
            let at = at.min(values.len());
            let (mut left, mut right) = (ExactSum::default(), ExactSum::default());
            values[..at].iter().rev().for_each(|value| left.add(*value));
            values[at..].iter().for_each(|value| right.add(*value));
            right.merge(&left);
            prop_assert_eq!(right.quotient(1.0).to_bits(), sum(&values).to_bits());
        }
    }
}
