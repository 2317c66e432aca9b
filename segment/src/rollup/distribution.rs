//! What a histogram point says, explicit or exponential: adding two, and what happened between two cumulative ones.
//!
//! Exponential buckets are those of the OpenTelemetry metrics data model, "ExponentialHistogram": bucket `i` of scale `s` holds values in
//! `(b^i, b^(i+1)]` with `b = 2^(2^-s)`; one scale lower, bucket `i` is bucket `i >> 1`.

use crate::error::Result;
use crate::index::{Reader, corrupt, put_varint};

/// More buckets than this are brought to a coarser scale.
const BUCKET_LIMIT: i64 = 4096;
const SUBJECT: &str = "histogram state";

/// The buckets of a point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Buckets {
    /// Counts between bounds; both empty when only count and sum are known.
    Explicit {
        bounds: Vec<f64>,
        counts: Vec<u64>,
    },
    Exponential(Exponential),
}

/// Exponential buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Exponential {
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    pub(crate) zero_threshold: f64,
    pub(crate) positive: Side,
    pub(crate) negative: Side,
}

/// Counts of consecutive buckets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Side {
    pub(crate) offset: i32,
    pub(crate) counts: Vec<u64>,
}

/// One point's distribution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) buckets: Buckets,
}

impl Distribution {
    /// Nothing, in the layout of `like`.
    pub(crate) fn empty(like: &Self) -> Self {
        let buckets = match &like.buckets {
            Buckets::Explicit { bounds, counts } => {
                Buckets::Explicit { bounds: bounds.clone(), counts: vec![0; counts.len()] }
            }
            Buckets::Exponential(exponential) => Buckets::Exponential(Exponential {
                scale: exponential.scale,
                zero_threshold: exponential.zero_threshold,
                ..Exponential::default()
            }),
        };
        Self { count: 0, sum: like.sum.map(|_| 0.0), buckets }
    }

    /// Whether the two can be added: explicit buckets only between the same bounds.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (&self.buckets, &other.buckets) {
            (Buckets::Explicit { bounds, counts }, Buckets::Explicit { bounds: others, counts: other_counts }) => {
                counts.len() == other_counts.len()
                    && bounds.iter().map(|bound| bound.to_bits()).eq(others.iter().map(|bound| bound.to_bits()))
            }
            (Buckets::Exponential(_), Buckets::Exponential(_)) => true,
            _ => false,
        }
    }

    /// Adds `other`, which must fit.
    pub(crate) fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.zip(other.sum).map(|(left, right)| left + right);
        match (&mut self.buckets, &other.buckets) {
            (Buckets::Explicit { counts, .. }, Buckets::Explicit { counts: more, .. }) => add_counts(counts, more),
            (Buckets::Exponential(mine), Buckets::Exponential(other)) => mine.add(other),
            _ => {}
        }
    }

    /// What was counted after `before`; `None` when something counts less than then, so that the counter was reset.
    pub(crate) fn since(&self, before: &Self) -> Option<Self> {
        let count = self.count.checked_sub(before.count)?;
        let sum = self.sum.zip(before.sum).map(|(now, then)| now - then);
        let buckets = match (&self.buckets, &before.buckets) {
            (Buckets::Explicit { bounds, counts }, Buckets::Explicit { counts: then, .. }) => {
                let counts =
                    counts.iter().zip(then).map(|(now, then)| now.checked_sub(*then)).collect::<Option<_>>()?;
                Buckets::Explicit { bounds: bounds.clone(), counts }
            }
            (Buckets::Exponential(now), Buckets::Exponential(then)) => Buckets::Exponential(now.since(then)?),
            _ => return None,
        };
        Some(Self { count, sum, buckets })
    }

    /// Its bytes, for the states that a rollup row keeps of its first and last point; see [`Self::decode`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.count);
        out.push(u8::from(self.sum.is_some()));
        out.extend_from_slice(&self.sum.unwrap_or(0.0).to_le_bytes());
        match &self.buckets {
            Buckets::Explicit { bounds, counts } => {
                out.push(0);
                put_varint(&mut out, bounds.len() as u64);
                bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()));
                put_counts(&mut out, counts);
            }
            Buckets::Exponential(exponential) => {
                out.push(1);
                out.extend_from_slice(&exponential.scale.to_le_bytes());
                put_varint(&mut out, exponential.zero_count);
                out.extend_from_slice(&exponential.zero_threshold.to_le_bytes());
                for side in [&exponential.positive, &exponential.negative] {
                    out.extend_from_slice(&side.offset.to_le_bytes());
                    put_counts(&mut out, &side.counts);
                }
            }
        }
        out
    }

    /// Reads count (LEB128), whether there is a sum, the sum, the kind (0 explicit, 1 exponential), then bounds and counts, or scale,
    /// zeros, threshold and two sides of offset and counts; floats and offsets little-endian, counts LEB128 after their number.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(SUBJECT, bytes);
        let count = reader.varint()?;
        let has_sum = reader.byte()? != 0;
        let sum = f64::from_bits(reader.u64()?);
        let buckets = match reader.byte()? {
            0 => {
                let bounds = (0..reader.count()?).map(|_| reader.u64().map(f64::from_bits)).collect::<Result<_>>()?;
                Buckets::Explicit { bounds, counts: read_counts(&mut reader)? }
            }
            1 => {
                let scale = read_i32(&mut reader)?;
                let zero_count = reader.varint()?;
                let zero_threshold = f64::from_bits(reader.u64()?);
                let positive = Side { offset: read_i32(&mut reader)?, counts: read_counts(&mut reader)? };
                let negative = Side { offset: read_i32(&mut reader)?, counts: read_counts(&mut reader)? };
                Buckets::Exponential(Exponential { scale, zero_count, zero_threshold, positive, negative })
            }
            other => return Err(corrupt(SUBJECT, format!("kind {other}"))),
        };
        Ok(Self { count, sum: has_sum.then_some(sum), buckets })
    }
}

impl Exponential {
    fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        self.align(&mut other);
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.positive.add(&other.positive);
        self.negative.add(&other.negative);
    }

    fn since(&self, before: &Self) -> Option<Self> {
        let (mut now, mut then) = (self.clone(), before.clone());
        now.align(&mut then);
        now.zero_count = now.zero_count.checked_sub(then.zero_count)?;
        now.positive.subtract(&then.positive)?;
        now.negative.subtract(&then.negative)?;
        Some(now)
    }

    /// Brings both to one scale, coarse enough for the limit, and to one zero threshold.
    fn align(&mut self, other: &mut Self) {
        let scale = self.scale.min(other.scale);
        self.lower_to(scale);
        other.lower_to(scale);
        while self.positive.span_with(&other.positive) > BUCKET_LIMIT
            || self.negative.span_with(&other.negative) > BUCKET_LIMIT
        {
            for one in [&mut *self, &mut *other] {
                one.positive.lower(1);
                one.negative.lower(1);
                one.scale = one.scale.saturating_sub(1);
            }
        }
        let threshold = self.zero_threshold.max(other.zero_threshold);
        self.raise_threshold(threshold);
        other.raise_threshold(threshold);
    }

    fn lower_to(&mut self, scale: i32) {
        let by = (i64::from(self.scale) - i64::from(scale)).clamp(0, 63) as u32;
        if by > 0 {
            self.positive.lower(by);
            self.negative.lower(by);
            self.scale = scale;
        }
    }

    /// Buckets that lie wholly under the new threshold become zeros.
    fn raise_threshold(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold || threshold.is_nan() {
            return;
        }
        self.zero_threshold = threshold;
        let scale = self.scale;
        let is_zero = |index: i64| ((index + 1) as f64 * (-f64::from(scale)).exp2()).exp2() <= threshold;
        for side in [&mut self.positive, &mut self.negative] {
            for (place, count) in side.counts.iter_mut().enumerate() {
                if !is_zero(i64::from(side.offset) + place as i64) {
                    break;
                }
                self.zero_count = self.zero_count.saturating_add(std::mem::take(count));
            }
        }
    }
}

impl Side {
    fn range(&self) -> Option<(i64, i64)> {
        let start = i64::from(self.offset);
        (!self.counts.is_empty()).then(|| (start, start + self.counts.len() as i64))
    }

    fn span_with(&self, other: &Self) -> i64 {
        match (self.range(), other.range()) {
            (Some((start, end)), Some((other_start, other_end))) => end.max(other_end) - start.min(other_start),
            (Some((start, end)), None) | (None, Some((start, end))) => end - start,
            (None, None) => 0,
        }
    }

    fn lower(&mut self, by: u32) {
        let Some((start, end)) = self.range() else { return };
        let (low, high) = (start >> by, (end - 1) >> by);
        let mut counts = vec![0_u64; (high - low + 1) as usize];
        for (place, count) in self.counts.iter().enumerate() {
            let target = ((start + place as i64) >> by) - low;
            counts[target as usize] = counts[target as usize].saturating_add(*count);
        }
        *self = Self { offset: low as i32, counts };
    }

    /// Makes room for the buckets of `other`; spans were bounded by [`Exponential::align`].
    fn widen(&mut self, other: &Self) {
        let (Some((start, end)), range) = (other.range(), self.range()) else { return };
        let (low, high) = range.map_or((start, end), |(mine, mine_end)| (start.min(mine), end.max(mine_end)));
        let mut counts = vec![0; (high - low) as usize];
        if let Some((mine, _)) = range {
            counts[(mine - low) as usize..][..self.counts.len()].copy_from_slice(&self.counts);
        }
        *self = Self { offset: low as i32, counts };
    }

    fn add(&mut self, other: &Self) {
        self.widen(other);
        let shift = (i64::from(other.offset) - i64::from(self.offset)) as usize;
        if !other.counts.is_empty() {
            add_counts(&mut self.counts[shift..], &other.counts);
        }
    }

    fn subtract(&mut self, other: &Self) -> Option<()> {
        self.widen(other);
        for (place, count) in other.counts.iter().enumerate() {
            let target = (i64::from(other.offset) - i64::from(self.offset)) as usize + place;
            self.counts[target] = self.counts[target].checked_sub(*count)?;
        }
        Some(())
    }
}

fn add_counts(counts: &mut [u64], more: &[u64]) {
    counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(*more));
}

fn put_counts(out: &mut Vec<u8>, counts: &[u64]) {
    put_varint(out, counts.len() as u64);
    counts.iter().for_each(|count| put_varint(out, *count));
}

fn read_counts(reader: &mut Reader<'_>) -> Result<Vec<u64>> {
    (0..reader.count()?).map(|_| reader.varint()).collect()
}

fn read_i32(reader: &mut Reader<'_>) -> Result<i32> {
    Ok(i32::from_le_bytes(reader.take(4)?.try_into().expect("four bytes were taken")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(scale: i32, offset: i32, counts: &[u64]) -> Distribution {
        let positive = Side { offset, counts: counts.to_vec() };
        let buckets = Buckets::Exponential(Exponential { scale, positive, ..Exponential::default() });
        Distribution { count: counts.iter().sum(), sum: Some(1.0), buckets }
    }

    #[test]
    fn scales_are_brought_together() {
        let mut sum = exponential(1, 0, &[1, 2, 3]);
        sum.add(&exponential(0, 1, &[5]));
        // Scale 0: buckets 0 and 1 of scale 1 are bucket 0, bucket 2 is bucket 1.
        assert_eq!(sum.buckets, exponential(0, 0, &[3, 8]).buckets);
        assert_eq!((sum.count, sum.sum), (11, Some(2.0)));
    }

    #[test]
    fn negative_indices_round_down() {
        let mut sum = exponential(3, -3, &[1, 1, 1, 1]);
        sum.add(&exponential(2, -2, &[1]));
        // -3 becomes -2, -2 and -1 become -1, 0 stays.
        assert_eq!(sum.buckets, exponential(2, -2, &[2, 2, 1]).buckets);
    }

    #[test]
    fn far_apart_buckets_stay_bounded() {
        let mut sum = exponential(20, i32::MIN, &[1]);
        sum.add(&exponential(20, i32::MAX - 1, &[1]));
        let Buckets::Exponential(found) = &sum.buckets else { panic!("exponential") };
        assert!(found.positive.counts.len() as i64 <= BUCKET_LIMIT);
        assert_eq!(found.positive.counts.iter().sum::<u64>(), 2);
    }

    /// These bytes are in rollup segments.
    #[test]
    fn states_are_frozen() {
        let explicit = Distribution {
            count: 300,
            sum: None,
            buckets: Buckets::Explicit { bounds: vec![1.0], counts: vec![299, 1] },
        };
        assert_eq!(
            hex::encode(explicit.encode()),
            "ac0200000000000000000000".to_owned() + "01000000000000f03f02ab0201"
        );
        assert_eq!(
            hex::encode(exponential(-1, 2, &[1, 2]).encode()),
            "0301000000000000f03f01ffffffff000000000000000000".to_owned() + "02000000020102" + "0000000000"
        );
        assert_eq!(Distribution::decode(&explicit.encode()).expect("reads"), explicit);
    }

    #[test]
    fn what_happened_since_and_resets() {
        let (before, now) = (exponential(0, 0, &[1, 2]), exponential(0, 0, &[1, 5, 1]));
        let since = now.since(&before).expect("no reset");
        assert_eq!((since.count, &since.buckets), (4, &exponential(0, 0, &[0, 3, 1]).buckets));
        assert_eq!(before.since(&now), None);
        assert_eq!(Distribution::decode(&now.encode()).expect("reads"), now);
    }
}
