//! What one query may read and hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::PromqlLimits;
use crate::{Error, Result};

/// About what a number with its times takes.
const NUMBER_BYTES: usize = 24;

/// Samples that a query reads and memory that it holds, so far.
#[derive(Debug)]
pub(super) struct Budget {
    samples: AtomicUsize,
    most_samples: usize,
    bytes: AtomicUsize,
    most_bytes: usize,
}

impl Budget {
    pub(super) fn new(limits: &PromqlLimits) -> Self {
        Self {
            samples: AtomicUsize::new(0),
            most_samples: limits.samples,
            bytes: AtomicUsize::new(0),
            most_bytes: limits.memory,
        }
    }

    /// Counts numbers.
    ///
    /// # Errors
    /// They are more than the query may read or hold.
    pub(super) fn take_numbers(&self, numbers: usize) -> Result<()> {
        self.take(numbers, numbers.saturating_mul(NUMBER_BYTES))
    }

    /// Counts samples that take so many bytes.
    ///
    /// # Errors
    /// They are more than the query may read or hold.
    pub(super) fn take(&self, samples: usize, bytes: usize) -> Result<()> {
        let read = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let narrow = "narrow its time range or name more labels";
        let problem = if read > self.most_samples {
            format!("the query reads more than {} samples; {narrow}, or raise promql.max_samples", self.most_samples)
        } else if held > self.most_bytes {
            format!("the query holds more than {} bytes; {narrow}, or raise promql.memory", self.most_bytes)
        } else {
            return Ok(());
        };
        Err(Error::QueryLimit { problem })
    }

    /// How much of the memory is left.
    pub(super) fn bytes_left(&self) -> usize {
        self.most_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }
}
