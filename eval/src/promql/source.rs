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
    /// What is asked of the samples, where a function of a range is all that sees them.
    pub windows: Option<Windows>,
}

/// Windows `(end - range_ms, end]` of samples, and the function that sees each.
///
/// Instead of the samples of a stretch of time that each window has all or nothing of, a source may give fewer that stand for them, with
/// their number as weight: of [`WindowFunction::Edges`] and [`WindowFunction::Growth`] the first and the last one, of the others one with the
/// function's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Windows {
    /// The function.
    pub function: WindowFunction,
    /// The end of the first window, in milliseconds since 1970.
    pub first_end_ms: i64,
    /// From one window's end to the next, above zero.
    pub step_ms: i64,
    /// The length of each.
    pub range_ms: i64,
}

/// What a function needs to know of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowFunction {
    /// The smallest value.
    Minimum,
    /// The largest value.
    Maximum,
    /// The first and the last sample, and how many there are.
    Edges,
    /// The same of a counter, and where it began anew.
    Growth,
}

impl WindowFunction {
    /// What the range function `name` needs; `None` where it needs every sample.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "min_over_time" => Self::Minimum,
            "max_over_time" => Self::Maximum,
            "count_over_time"
            | "present_over_time"
            | "first_over_time"
            | "last_over_time"
            | "delta"
            | "ts_of_first_over_time"
            | "ts_of_last_over_time" => Self::Edges,
            "rate" | "increase" => Self::Growth,
            _ => return None,
        })
    }
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
    /// How many samples each float stands for, see [`Windows`]; empty where each is one.
    pub weights: ScalarBuffer<u32>,
    /// The native histograms.
    pub histograms: Vec<HistogramSample>,
    /// Whether each sample counts only what was added since the one before.
    pub is_delta: bool,
    /// Whether it is known that no float is a stale marker.
    pub is_unbroken: bool,
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
