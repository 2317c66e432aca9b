//! Histograms as small whole numbers, the form that upstream stores.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::decay::DecayingHistogram;
use super::histogram::{Histogram, Options};
use crate::decision::TimeMs;

/// The weight that the heaviest bucket is stored with.
const MAX_WEIGHT: f64 = 10_000.0;

/// A stored histogram: weights scaled so that the largest is 10000, zeros left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Weights by bucket.
    pub buckets: BTreeMap<i64, u32>,
    /// The true sum of the weights.
    pub total: Option<f64>,
    /// The reference of the decay.
    #[serde(default)]
    pub reference: TimeMs,
}

/// Why a checkpoint cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CheckpointError {
    /// There is no such bucket.
    Bucket(i64),
    /// The total is missing, negative or no number.
    Total(Option<f64>),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(bucket) => write!(f, "the checkpoint has a bucket {bucket}, which the histogram has not"),
            Self::Total(None) => f.write_str("the checkpoint has no total weight"),
            Self::Total(Some(total)) => write!(f, "the checkpoint's total weight is {total}"),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl Histogram {
    /// The histogram as a checkpoint.
    pub fn save(&self) -> Checkpoint {
        let heaviest = self.span().map(|bucket| self.weight(bucket)).fold(0.0, f64::max);
        let mut buckets = BTreeMap::new();
        for bucket in self.span() {
            let stored = (self.weight(bucket) * (MAX_WEIGHT / heaviest) + 0.5).floor() as u32;
            if stored > 0 {
                buckets.insert(i64::try_from(bucket).unwrap_or(i64::MAX), stored);
            }
        }
        Checkpoint { buckets, total: Some(self.total()), reference: TimeMs(0) }
    }

    /// The histogram of a checkpoint.
    ///
    /// # Errors
    /// A bucket that does not exist, or a total that cannot be.
    pub fn load(options: Options, checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let total = checkpoint.total.filter(|total| *total >= 0.0 && total.is_finite());
        let total = total.ok_or(CheckpointError::Total(checkpoint.total))?;
        let mut histogram = Self::new(options);
        let stored: f64 = checkpoint.buckets.values().map(|weight| f64::from(*weight)).sum();
        let count = options.buckets();
        let index = |bucket: i64| {
            usize::try_from(bucket).ok().filter(|index| *index < count).ok_or(CheckpointError::Bucket(bucket))
        };
        for bucket in checkpoint.buckets.keys() {
            index(*bucket)?;
        }
        if stored == 0.0 {
            return Ok(histogram);
        }
        for (bucket, weight) in &checkpoint.buckets {
            histogram.add_to_bucket(index(*bucket)?, f64::from(*weight) * total / stored);
        }
        histogram.add_total(total);
        // Small weights can fall below epsilon on the way (kubernetes/autoscaler#7726).
        histogram.tighten();
        Ok(histogram)
    }
}

impl DecayingHistogram {
    /// The histogram as a checkpoint.
    pub fn save(&self) -> Checkpoint {
        Checkpoint { reference: self.reference, ..self.histogram.save() }
    }

    /// The histogram of a checkpoint.
    ///
    /// # Errors
    /// As [`Histogram::load`].
    pub fn load(options: Options, half_life_ms: i64, checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let histogram = Histogram::load(options, checkpoint)?;
        Ok(Self { histogram, half_life_ms: half_life_ms.max(1), reference: checkpoint.reference })
    }
}
