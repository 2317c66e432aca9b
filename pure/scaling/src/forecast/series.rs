//! A bounded series of load, one value per bucket of time.

use serde::{Deserialize, Serialize};

/// Buckets that are kept at most, whatever a policy asks for.
const MAX_BUCKETS: usize = 50_000;

/// Closed buckets, oldest first, and the open one. A bucket holds the highest load seen in it; one without any reading repeats the one
/// before it, because a gap is not an absence of load.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// The bucket of the first value.
    first: i64,
    /// Closed values.
    values: Vec<f64>,
    /// The open bucket and its highest value so far.
    open: Option<(i64, Option<f64>)>,
}

impl Series {
    /// Records a value; true when this closed a bucket. A time before the open bucket is counted into the open one.
    pub(super) fn record(&mut self, bucket: i64, value: Option<f64>, keep: usize) -> bool {
        let value = value.filter(|value| value.is_finite());
        let (open, highest) = match self.open {
            None => {
                self.open = Some((bucket, value));
                self.first = bucket;
                return false;
            }
            Some(known) => known,
        };
        if bucket <= open {
            let highest = match (highest, value) {
                (Some(known), Some(more)) => Some(known.max(more)),
                (known, more) => known.or(more),
            };
            self.open = Some((open, highest));
            return false;
        }
        self.close(open, highest, bucket, keep.clamp(1, MAX_BUCKETS));
        self.open = Some((bucket, value));
        true
    }

    fn close(&mut self, open: i64, highest: Option<f64>, next: i64, keep: usize) {
        let Some(value) = highest.or_else(|| self.values.last().copied()) else {
            self.first = next;
            return;
        };
        let gap = usize::try_from(next.saturating_sub(open)).unwrap_or(usize::MAX).min(keep);
        self.values.extend(std::iter::repeat_n(value, gap));
        let excess = self.values.len().saturating_sub(keep);
        self.values.drain(..excess);
        self.first = next.saturating_sub(i64::try_from(self.values.len()).unwrap_or(i64::MAX));
    }

    /// Closed buckets.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no bucket is closed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The closed values, oldest first.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(super) fn open_bucket(&self) -> i64 {
        self.open.map_or(self.first, |(bucket, _)| bucket)
    }

    /// The value of a closed bucket.
    pub(super) fn at(&self, bucket: i64) -> Option<f64> {
        self.values.get(usize::try_from(bucket.checked_sub(self.first)?).ok()?).copied()
    }
}
