//! From what a source gives to rows and windows.

use std::sync::Arc;

use tidemill_lang::promql::{Extension, MatchOp, Selector};

use super::grid::Grid;
use super::histogram::ResetHint;
use super::prepare::Shift;
use super::row::{Cell, Row};
use super::source::{HistogramSample, Samples, Series, is_stale};
use super::walk::Walk;
use crate::error::Result;
use crate::labels::METRIC_NAME;
use crate::matcher::Matcher;

/// The conditions of a selector.
///
/// # Errors
/// A pattern is no regular expression.
pub(super) fn matchers(selector: &Selector) -> Result<Vec<Matcher>> {
    let name = selector.name.iter().map(|name| Ok(Matcher::equal(METRIC_NAME, name)));
    let others = selector.matchers.iter().map(|matcher| match matcher.op {
        MatchOp::Equal => Ok(Matcher::equal(&matcher.name, &matcher.value)),
        MatchOp::NotEqual => Ok(Matcher::not_equal(&matcher.name, &matcher.value)),
        MatchOp::Matches => Matcher::pattern(&matcher.name, &matcher.value, false),
        MatchOp::MatchesNot => Matcher::pattern(&matcher.name, &matcher.value, true),
    });
    name.chain(others).collect()
}

/// The sample of a series that is current at a time.
pub(super) enum Current {
    Float(i64, f64),
    Histogram(i64, usize),
}

/// The last sample after `time - lookback`, up to `time`; none where it is a stale marker.
pub(super) fn current(samples: &Samples, walk: &mut Walk, time: i64, lookback: i64) -> Option<Current> {
    let is_recent = |at: i64| at > time.saturating_sub(lookback);
    let float = walk.floats.until(&samples.times, time).checked_sub(1);
    let float = float.filter(|at| is_recent(samples.times[*at]));
    let histogram = samples.last_histogram(time).filter(|at| is_recent(samples.histograms[*at].time));
    match (float, histogram) {
        (Some(float), histogram) if histogram.is_none_or(|at| samples.histograms[at].time < samples.times[float]) => {
            let value = samples.values[float];
            (!is_stale(value)).then_some(Current::Float(samples.times[float], value))
        }
        (_, Some(at)) => {
            let sample = &samples.histograms[at];
            (!is_stale(sample.histogram.sum)).then_some(Current::Histogram(sample.time, at))
        }
        _ => None,
    }
}

/// The current value of a series at each step.
pub(super) fn vector_row(series: &Series, grid: Grid, shift: Shift, lookback: i64) -> Row {
    let mut row = Row::new(series.labels.clone(), grid.len());
    let mut walk = Walk::default();
    for (step, time) in grid.times().enumerate() {
        match current(&series.samples, &mut walk, shift.seen(time), lookback) {
            Some(Current::Float(_, value)) => row.set_float(step, value),
            Some(Current::Histogram(_, at)) => {
                row.set(step, Cell::Histogram(Arc::clone(&series.samples.histograms[at].histogram)));
            }
            None => {}
        }
    }
    row
}

/// The time of the current sample of a series at each step, in seconds.
pub(super) fn timestamp_row(series: &Series, grid: Grid, shift: Shift, lookback: i64) -> Row {
    let mut row = Row::new(series.labels.clone(), grid.len());
    row.drops_name = true;
    let mut walk = Walk::default();
    for (step, time) in grid.times().enumerate() {
        match current(&series.samples, &mut walk, shift.seen(time), lookback) {
            Some(Current::Float(at, _) | Current::Histogram(at, _)) => row.set_float(step, at as f64 / 1000.0),
            None => {}
        }
    }
    row
}

/// The value of a series at each step, interpolated between the samples around it; after the last sample that one's value.
pub(super) fn smoothed_row(series: &Series, grid: Grid, shift: Shift, lookback: i64) -> Row {
    let samples = without_stale(series.samples.clone());
    let mut row = Row::new(series.labels.clone(), grid.len());
    for (step, time) in grid.times().enumerate() {
        let seen = shift.seen(time);
        let next = samples.times.partition_point(|at| *at < seen);
        let after = samples.times.get(next).filter(|at| **at <= seen.saturating_add(lookback));
        let before = next.checked_sub(1).filter(|at| samples.times[*at] > seen.saturating_sub(lookback));
        match (before, after) {
            (_, Some(at)) if *at == seen => row.set_float(step, samples.values[next]),
            (Some(before), Some(after)) => {
                let (from, to) = (samples.values[before], samples.values[next]);
                let part = (seen - samples.times[before]) as f64 / (after - samples.times[before]) as f64;
                row.set_float(step, from + (to - from) * part);
            }
            (Some(before), None) => row.set_float(step, samples.values[before]),
            (None, _) => {}
        }
    }
    row
}

/// How far before and after its range a range function sees.
pub(super) fn reach(extension: Option<Extension>, lookback: i64) -> (i64, i64) {
    match extension {
        Some(Extension::Anchored) => (lookback, 0),
        Some(Extension::Smoothed) => (lookback, lookback),
        None => (0, 0),
    }
}

/// The samples that are no stale markers.
pub(super) fn without_stale(mut samples: Samples) -> Samples {
    samples.histograms.retain(|sample| !is_stale(sample.histogram.sum));
    if samples.is_unbroken || !samples.values.iter().any(|value| is_stale(*value)) {
        return samples;
    }
    let kept: Vec<usize> = (0..samples.values.len()).filter(|at| !is_stale(samples.values[*at])).collect();
    let starts: Vec<i64> = kept.iter().filter_map(|at| samples.starts.get(*at).copied()).collect();
    let weights: Vec<u32> = kept.iter().filter_map(|at| samples.weights.get(*at).copied()).collect();
    Samples {
        times: kept.iter().map(|at| samples.times[*at]).collect(),
        values: kept.iter().map(|at| samples.values[*at]).collect(),
        starts: starts.into(),
        weights: weights.into(),
        histograms: samples.histograms,
        is_delta: samples.is_delta,
        is_unbroken: true,
    }
}

/// The samples with histograms cut down to count and sum; resets are detected first, since buckets tell of them.
pub(super) fn totals_only(mut samples: Samples) -> Samples {
    let mut before: Option<HistogramSample> = None;
    for sample in &mut samples.histograms {
        let full = sample.clone();
        let hint = match (&before, full.histogram.hint) {
            (Some(before), ResetHint::Unknown) if !is_stale(before.histogram.sum) => {
                let is_reset = full.histogram.is_reset_since(&before.histogram);
                if is_reset { ResetHint::Reset } else { ResetHint::NotReset }
            }
            (_, hint) => hint,
        };
        sample.histogram = Arc::new(full.histogram.totals(hint));
        before = Some(full);
    }
    samples
}

/// The rows of a subquery as series. Hints of resets hold between neighbouring samples only, so they are forgotten.
pub(super) fn series_of_rows(rows: Vec<Row>, grid: Grid) -> Vec<(Series, bool)> {
    let times: Vec<i64> = if rows.is_empty() { Vec::new() } else { grid.times().collect() };
    let series = rows.into_iter().map(|row| {
        let present: Vec<usize> = (0..row.steps()).filter(|step| row.float(*step).is_some()).collect();
        let histograms = (0..row.steps()).filter_map(|step| {
            let histogram = row.histogram(step)?;
            let histogram = match histogram.hint {
                ResetHint::Reset | ResetHint::NotReset => {
                    let mut forgetful = histogram.as_ref().clone();
                    forgetful.hint = ResetHint::Unknown;
                    Arc::new(forgetful)
                }
                ResetHint::Unknown | ResetHint::Gauge => Arc::clone(histogram),
            };
            Some(HistogramSample { time: times[step], start: 0, histogram })
        });
        let samples = Samples {
            times: present.iter().map(|step| times[*step]).collect(),
            values: present.iter().filter_map(|step| row.float(*step)).collect(),
            starts: Vec::new().into(),
            weights: Vec::new().into(),
            histograms: histograms.collect(),
            is_delta: false,
            is_unbroken: true,
        };
        (Series { labels: row.labels.clone(), samples }, row.drops_name)
    });
    series.collect()
}
