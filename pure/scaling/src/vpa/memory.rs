//! One memory peak per container and window, and what an out-of-memory kill adds to it.
//!
//! Differs from upstream in two places that are defects there: a window whose first sample is 0 still records later peaks, and a kill that is
//! told late does not move the time of the last sample back.

use serde::{Deserialize, Serialize};

use super::amount::scale_amount;
use super::container::Rejection;
use crate::decision::TimeMs;

/// What a kill adds: `max(used + minimum, used × ratio)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OomBump {
    /// Bytes.
    pub minimum_bytes: i64,
    /// A factor.
    pub ratio: f64,
}

impl Default for OomBump {
    fn default() -> Self {
        Self { minimum_bytes: 100 << 20, ratio: 1.2 }
    }
}

/// What happens to the histogram of peaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistogramCall {
    /// A peak of so many bytes, at its window's end.
    Add(i64, TimeMs),
    /// A lower peak of the same window goes.
    Subtract(i64, TimeMs),
}

/// The open window of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryWindow {
    end: Option<TimeMs>,
    last_sample_at: Option<TimeMs>,
    sample_peak: Option<i64>,
    oom_peak: Option<i64>,
}

impl MemoryWindow {
    /// Takes a sample of `bytes`.
    ///
    /// # Errors
    /// A negative value, or one from before the last sample.
    pub fn sample(&mut self, at: TimeMs, bytes: i64, window_ms: i64) -> Result<Vec<HistogramCall>, Rejection> {
        if bytes < 0 || self.last_sample_at.is_some_and(|last| at < last) {
            return Err(Rejection::Rejected);
        }
        Ok(self.take(at, bytes, window_ms, false))
    }

    /// Takes a kill of a container that requested `requested_bytes`.
    ///
    /// # Errors
    /// A kill from more than a window before the last sample.
    pub fn out_of_memory(
        &mut self,
        at: TimeMs,
        requested_bytes: i64,
        window_ms: i64,
        bump: OomBump,
    ) -> Result<Vec<HistogramCall>, Rejection> {
        if self.last_sample_at.is_some_and(|last| at < last.plus_ms(-window_ms)) {
            return Err(Rejection::TooOld);
        }
        // Not the peak of an earlier kill: that would feed on itself.
        let used = requested_bytes.max(self.sample_peak.unwrap_or(0));
        let needed = used.saturating_add(bump.minimum_bytes).max(scale_amount(used, bump.ratio));
        Ok(self.take(at, needed, window_ms, true))
    }

    fn take(&mut self, at: TimeMs, bytes: i64, window_ms: i64, is_oom: bool) -> Vec<HistogramCall> {
        self.last_sample_at = self.last_sample_at.max(Some(at));
        let end = *self.end.get_or_insert(at);
        let mut calls = Vec::new();
        if at < end {
            let Some(old) = self.sample_peak.max(self.oom_peak).filter(|old| bytes > *old) else { return calls };
            calls.push(HistogramCall::Subtract(old, end));
        } else {
            let window_ms = window_ms.max(1);
            let shift = at.since_ms(end) / window_ms * window_ms;
            self.end = Some(end.plus_ms(shift).plus_ms(window_ms));
            self.sample_peak = None;
            self.oom_peak = None;
        }
        calls.push(HistogramCall::Add(bytes, self.end.unwrap_or(end)));
        *(if is_oom { &mut self.oom_peak } else { &mut self.sample_peak }) = Some(bytes);
        calls
    }
}
