//! What a range function sees: the samples of one series in a range of time.

use tidemill_lang::Span;
use tidemill_lang::promql::Extension;

use super::super::annotation::Annotations;
use super::super::source::HistogramSample;

/// The samples of one series in a range, without stale markers.
pub(in super::super) struct Window<'a> {
    /// How many floats of the series are before it.
    pub first: usize,
    /// The times of the floats.
    pub times: &'a [i64],
    /// The floats.
    pub values: &'a [f64],
    /// When each float's counter began; empty where not known.
    pub starts: &'a [i64],
    /// How many samples each float stands for; empty where each is one.
    pub weights: &'a [u32],
    /// The floats before which a counter began anew, by their positions in the series; only functions of counters are told.
    pub resets: &'a [usize],
    /// The histograms.
    pub histograms: &'a [HistogramSample],
    /// Whether each sample counts only what was added since the one before.
    pub is_delta: bool,
    /// The start of the range, which is outside of it.
    pub start: i64,
    /// The end of the range, which is inside of it.
    pub end: i64,
}

/// What a range function sees beside the samples.
pub(in super::super) struct Env<'a> {
    /// The scalar arguments, in their order.
    pub args: &'a [f64],
    /// The time of the step.
    pub time: i64,
    /// The name of the metric.
    pub metric: &'a str,
    /// Where the first argument stands.
    pub first_span: Span,
    /// Where all arguments stand.
    pub args_span: Span,
    /// `anchored` or `smoothed`.
    pub extension: Option<Extension>,
    /// Where annotations go.
    pub notes: &'a mut Annotations,
}

impl Window<'_> {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.times.len() + self.histograms.len()
    }

    /// How many samples there were, where some stand for several.
    pub fn samples(&self) -> usize {
        let floats = match self.weights {
            [] => self.times.len(),
            weights => weights.iter().map(|weight| *weight as usize).sum(),
        };
        floats + self.histograms.len()
    }

    /// The length of the range in seconds.
    pub fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1000.0
    }

    /// When the counter of float `at` began, or 0.
    pub fn start_of(&self, at: usize) -> i64 {
        self.starts.get(at).copied().unwrap_or(0)
    }
}

/// Whether the times at which a counter began say that it was reset between two samples. A sample that claims to begin exactly at the
/// sample before is one of a delta series, unless that one's beginning is unknown too.
pub(in super::super) fn is_restarted((before_start, before): (i64, i64), (start, time): (i64, i64)) -> bool {
    start != 0 && start <= time && start >= before && (start > before || before_start != 0)
}
