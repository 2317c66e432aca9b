//! Where series come from.

use std::sync::Arc;

use arrow::buffer::ScalarBuffer;

use super::histogram::Histogram;
use crate::error::Result;
use crate::labels::Labels;
use crate::matcher::Matcher;

/// The NaN by which a sample says that its series has ended.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether `value` is the stale marker; any other NaN is a value.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// What a selector asks of a source.
#[derive(Debug, Clone)]
pub struct Select {
    /// The conditions that a series' labels must meet.
    pub matchers: Vec<Matcher>,
    /// The first time asked for, in milliseconds since 1970, inclusive.
    pub start_ms: i64,
    /// The last time asked for, inclusive.
    pub end_ms: i64,
}

/// The samples of one series.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its samples.
    pub samples: Samples,
}

/// Samples by rising time, each time once; the columns share memory with whoever made them.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// The times of the floats, in milliseconds since 1970.
    pub times: ScalarBuffer<i64>,
    /// The floats, stale markers among them.
    pub values: ScalarBuffer<f64>,
    /// When each float's counter began, in milliseconds, 0 where unknown; empty where none is known.
    pub starts: ScalarBuffer<i64>,
    /// The native histograms.
    pub histograms: Vec<HistogramSample>,
    /// Whether each sample counts only what was added since the one before.
    pub is_delta: bool,
}

/// One native histogram of a series.
#[derive(Debug, Clone)]
pub struct HistogramSample {
    /// Its time, in milliseconds since 1970.
    pub time: i64,
    /// When its counter began, 0 where unknown.
    pub start: i64,
    /// The histogram; its sum is the stale marker where the series ends.
    pub histogram: Arc<Histogram>,
}

/// Gives the series that selectors name.
///
/// A source may give samples outside of the time asked for, and must give all inside of it. Labels of the series are unique and their
/// order is rising.
pub trait Source: Sync {
    /// The series that meet the conditions, with their samples.
    ///
    /// # Errors
    /// What the source could not read; a partial answer is an error too.
    fn select(&self, select: &Select) -> Result<Vec<Series>>;
}

impl Samples {
    /// The position of the last histogram at or before `time`.
    pub(crate) fn last_histogram(&self, time: i64) -> Option<usize> {
        self.histograms.partition_point(|sample| sample.time <= time).checked_sub(1)
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.times.len() + self.histograms.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
