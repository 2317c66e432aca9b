//! DDSketch: a mergeable summary of values from which any quantile is read within 1 % of its value.
//!
//! Masson, Rim, Lee: DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees, VLDB 12(12), 2019. A value x > 0 counts
//! in bin `ceil(ln x / ln g)` with `g = (1 + a) / (1 - a)`, `a` = 0.01; bin `i` stands for `2 g^i / (g + 1)` (section 2.1). Negative values have bins of
//! their own by absolute value (2.2). Beyond [`BIN_LIMIT`] bins a side the smallest values collapse into one bin (2.3, algorithm 3), so that
//! high quantiles keep their promise. Infinite values and NaN are not in it.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::index::{Reader, corrupt, put_varint};

/// Relative error of a quantile.
pub const SKETCH_ERROR: f64 = 0.01;
/// Bins of one sign: two thousand bins span a factor of 10^17 at 1 %.
pub const BIN_LIMIT: usize = 2048;
/// The version that this code writes, and the only one it reads.
pub const SKETCH_VERSION: u8 = 1;
/// Closer to zero than this a value counts as zero, so that bin numbers stay small.
const SMALLEST: f64 = 1e-300;
const SUBJECT: &str = "sketch";

/// A summary of finite values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    zeros: u64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
}

fn ln_gamma() -> f64 {
    ((1.0 + SKETCH_ERROR) / (1.0 - SKETCH_ERROR)).ln()
}

impl Sketch {
    /// Adds `count` values of `value`.
    pub fn add(&mut self, value: f64, count: u64) {
        if !value.is_finite() || count == 0 {
            return;
        }
        if value.abs() < SMALLEST {
            self.zeros += count;
            return;
        }
        let bin = (value.abs().ln() / ln_gamma()).ceil() as i32;
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        *side.entry(bin).or_default() += count;
        collapse(side);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        for (side, more) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (bin, count) in more {
                *side.entry(*bin).or_default() += count;
            }
            collapse(side);
        }
    }

    /// Values in it.
    pub fn count(&self) -> u64 {
        self.zeros + self.positive.values().sum::<u64>() + self.negative.values().sum::<u64>()
    }

    /// The value of rank `floor(quantile * (count - 1))`, within 1 %; `None` when it is empty.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let rank = (quantile.clamp(0.0, 1.0) * count.checked_sub(1)? as f64).floor() as u64;
        let mut before = 0;
        let value_of = |bin: i32| 2.0 * (f64::from(bin) * ln_gamma()).exp() / (ln_gamma().exp() + 1.0);
        for (bin, count) in self.negative.iter().rev() {
            before += count;
            if rank < before {
                return Some(-value_of(*bin));
            }
        }
        before += self.zeros;
        if rank < before {
            return Some(0.0);
        }
        for (bin, count) in &self.positive {
            before += count;
            if rank < before {
                return Some(value_of(*bin));
            }
        }
        None
    }

    /// Its bytes: version, zeros, then for the positive and the negative side the number of bins and each bin as the gap to the one
    /// before (the first zigzag) and its count, all LEB128.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SKETCH_VERSION];
        put_varint(&mut out, self.zeros);
        for side in [&self.positive, &self.negative] {
            put_varint(&mut out, side.len() as u64);
            let mut last = None;
            for (bin, count) in side {
                match last.replace(*bin) {
                    None => put_varint(&mut out, zigzag(*bin)),
                    Some(before) => put_varint(&mut out, (i64::from(*bin) - i64::from(before)) as u64),
                }
                put_varint(&mut out, *count);
            }
        }
        out
    }

    /// Reads [`Self::encode`]'s bytes.
    ///
    /// # Errors
    /// When they are not such bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(SUBJECT, bytes);
        let version = reader.byte()?;
        if version != SKETCH_VERSION {
            return Err(corrupt(SUBJECT, format!("version {version}; this build reads {SKETCH_VERSION}")));
        }
        let zeros = reader.varint()?;
        let positive = decode_side(&mut reader)?;
        Ok(Self { zeros, positive, negative: decode_side(&mut reader)? })
    }
}

fn collapse(side: &mut BTreeMap<i32, u64>) {
    while side.len() > BIN_LIMIT {
        let Some((_, count)) = side.pop_first() else { return };
        if let Some(mut smallest) = side.first_entry() {
            *smallest.get_mut() += count;
        }
    }
}

fn zigzag(number: i32) -> u64 {
    u64::from(((number << 1) ^ (number >> 31)) as u32)
}

fn decode_side(reader: &mut Reader<'_>) -> Result<BTreeMap<i32, u64>> {
    let mut side = BTreeMap::new();
    let bins = reader.count()?;
    if bins > BIN_LIMIT {
        return Err(corrupt(SUBJECT, format!("{bins} bins")));
    }
    let mut bin = 0_i64;
    for place in 0..bins {
        let step = reader.bounded("bin", u64::from(u32::MAX))?;
        bin = if place == 0 { (step >> 1) as i64 ^ -((step & 1) as i64) } else { bin + step as i64 };
        let number = i32::try_from(bin).map_err(|_| corrupt(SUBJECT, format!("bin {bin}")))?;
        side.insert(number, reader.varint()?);
    }
    Ok(side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(mut values in proptest::collection::vec(-1e6_f64..1e6, 1..200), quantile in 0.0_f64..=1.0) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.add(*value, 1));
            values.sort_by(f64::total_cmp);
            let exact = values[(quantile * (values.len() - 1) as f64).floor() as usize];
            let found = sketch.quantile(quantile).expect("not empty");
            prop_assert!((found - exact).abs() <= 0.010_001 * exact.abs(), "{found} for {exact}");
        }

        #[test]
        fn merging_is_adding(left in proptest::collection::vec(any::<f64>(), 0..50), right in proptest::collection::vec(any::<f64>(), 0..50)) {
            let of = |values: &[f64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|value| sketch.add(*value, 1));
                sketch
            };
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&[left, right].concat()));
            prop_assert_eq!(Sketch::decode(&merged.encode()).expect("reads"), merged);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Sketch::decode(&bytes);
        }
    }

    #[test]
    fn bins_are_bounded() {
        let mut sketch = Sketch::default();
        for exponent in -200..200 {
            for step in 0..20 {
                sketch.add(10_f64.powi(exponent) * (1.0 + f64::from(step) / 2.0), 1);
            }
        }
        assert!(sketch.positive.len() <= BIN_LIMIT);
        assert_eq!(sketch.count(), 8_000);
        assert!(sketch.quantile(1.0).expect("not empty") > 1e199);
    }

    /// These bytes are in rollup segments.
    #[test]
    fn version_1_is_still_read_and_written() {
        let mut sketch = Sketch::default();
        [0.0, 1.0, 1.0, 10.0, 0.001, -5.0].into_iter().for_each(|value| sketch.add(value, 1));
        let frozen = hex::decode(include_str!("../../tests/samples/sketch-v1.hex").trim()).expect("hex");
        assert_eq!(sketch.encode(), frozen);
        assert_eq!(Sketch::decode(&frozen).expect("reads"), sketch);
    }
}
