//! Aggregations over the samples of one series in a range.

use std::sync::Arc;

use super::super::histogram::{Histogram, ResetHint, compensated};
use super::super::quantile;
use super::super::row::Cell;
use super::super::source::HistogramSample;
use super::window::{Env, Window};

/// The floats of a range; histograms beside them are ignored, and that is told.
fn floats<'a>(window: &Window<'a>, env: &mut Env<'_>) -> Option<&'a [f64]> {
    if window.values.is_empty() {
        return None;
    }
    if !window.histograms.is_empty() {
        env.notes.ignored_in_range(env.metric, env.first_span);
    }
    Some(window.values)
}

/// Whether a range has both floats and histograms, which is told.
fn is_mixed(window: &Window<'_>, env: &mut Env<'_>) -> bool {
    let is_mixed = !window.values.is_empty() && !window.histograms.is_empty();
    if is_mixed {
        env.notes.mixed_samples(env.metric, env.first_span);
    }
    is_mixed
}

pub(super) fn sum(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    if is_mixed(window, env) {
        return None;
    }
    if window.values.is_empty() {
        return histogram_sum(window.histograms, env).map(|sum| Cell::Histogram(Arc::new(sum)));
    }
    let (mut sum, mut lost) = (0.0, 0.0);
    for value in window.values {
        (sum, lost) = compensated(sum, *value, lost);
    }
    Some(Cell::Float(if sum.is_infinite() { sum } else { sum + lost }))
}

/// The mean: the sum divided, unless it overflows, then incrementally.
pub(super) fn average(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    if is_mixed(window, env) {
        return None;
    }
    if window.values.is_empty() {
        return histogram_average(window.histograms, env);
    }
    mean(window.values).map(Cell::Float)
}

/// The mean of floats; none of no floats.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    let (mut total, mut lost, mut mean) = (*first, 0.0, None);
    let mut count = 1.0;
    for value in rest {
        count += 1.0;
        let Some(known) = mean else {
            let (next, next_lost) = compensated(total, *value, lost);
            if next.is_infinite() {
                let before = total / (count - 1.0);
                lost /= count - 1.0;
                let share = (count - 1.0) / count;
                let (next, next_lost) = compensated(share * before, value / count, share * lost);
                (mean, lost) = (Some(next), next_lost);
            } else {
                (total, lost) = (next, next_lost);
            }
            continue;
        };
        let share = (count - 1.0) / count;
        let (next, next_lost) = compensated(share * known, value / count, share * lost);
        (mean, lost) = (Some(next), next_lost);
    }
    Some(mean.map_or(total / count + lost / count, |mean| mean + lost))
}

/// The compensated sum of histograms.
fn histogram_sum(samples: &[HistogramSample], env: &mut Env<'_>) -> Option<Histogram> {
    let (first, rest) = samples.split_first()?;
    let mut sum = first.histogram.as_ref().clone();
    let mut lost = Histogram::default();
    let mut has_reconciled_bounds = false;
    for sample in rest {
        match sum.add_compensated(&sample.histogram, &mut lost) {
            Ok(combined) => has_reconciled_bounds |= combined.has_reconciled_bounds,
            Err(_) => {
                env.notes.mixed_schemas(env.metric, env.first_span);
                return None;
            }
        }
    }
    let has = |hint: ResetHint| samples.iter().any(|sample| sample.histogram.hint == hint);
    if has(ResetHint::Reset) && has(ResetHint::NotReset) {
        env.notes.hint_collision("aggregation", env.first_span);
    }
    if has_reconciled_bounds {
        env.notes.reconciled_bounds("aggregation", env.first_span);
    }
    if !rest.is_empty() {
        sum.add(&lost).ok()?;
    }
    Some(sum)
}

/// The mean of histograms: the sum divided, or the sum of shares where the sum overflows.
fn histogram_average(samples: &[HistogramSample], env: &mut Env<'_>) -> Option<Cell> {
    let mut sum = histogram_sum(samples, env)?;
    let count = samples.len() as f64;
    if sum.has_overflow() && !samples.iter().any(|sample| sample.histogram.has_overflow()) {
        sum = mean_of(samples, count)?;
    } else {
        sum.divide(count);
    }
    Some(Cell::Histogram(Arc::new(sum)))
}

/// The mean as a sum of shares.
fn mean_of(samples: &[HistogramSample], count: f64) -> Option<Histogram> {
    let mut mean: Option<Histogram> = None;
    for sample in samples {
        let mut share = sample.histogram.as_ref().clone();
        share.divide(count);
        match &mut mean {
            Some(mean) => drop(mean.add(&share).ok()?),
            None => mean = Some(share),
        }
    }
    mean
}

pub(super) fn first(window: &Window<'_>) -> Option<Cell> {
    match (window.times.first(), window.histograms.first()) {
        (Some(time), histogram) if histogram.is_none_or(|histogram| *time < histogram.time) => {
            Some(Cell::Float(window.values[0]))
        }
        (_, histogram) => histogram.map(|sample| Cell::Histogram(Arc::clone(&sample.histogram))),
    }
}

pub(super) fn last(window: &Window<'_>) -> Option<Cell> {
    match (window.times.last(), window.histograms.last()) {
        (Some(time), histogram) if histogram.is_none_or(|histogram| *time > histogram.time) => {
            window.values.last().map(|value| Cell::Float(*value))
        }
        (_, histogram) => histogram.map(|sample| Cell::Histogram(Arc::clone(&sample.histogram))),
    }
}

pub(super) fn time_of_first(window: &Window<'_>) -> Option<Cell> {
    let times = window.times.first().copied().into_iter().chain(window.histograms.first().map(|sample| sample.time));
    times.min().map(|time| Cell::Float(time as f64 / 1000.0))
}

pub(super) fn time_of_last(window: &Window<'_>) -> Option<Cell> {
    let times = window.times.last().copied().into_iter().chain(window.histograms.last().map(|sample| sample.time));
    times.max().map(|time| Cell::Float(time as f64 / 1000.0))
}

/// The position of the value that wins against all others; NaN loses against numbers.
fn extreme(window: &Window<'_>, env: &mut Env<'_>, wins: impl Fn(f64, f64) -> bool) -> Option<usize> {
    let values = floats(window, env)?;
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if wins(*value, values[best]) || values[best].is_nan() {
            best = at;
        }
    }
    Some(best)
}

pub(super) fn minimum(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    extreme(window, env, |value, best| value < best).map(|at| Cell::Float(window.values[at]))
}

pub(super) fn maximum(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    extreme(window, env, |value, best| value > best).map(|at| Cell::Float(window.values[at]))
}

pub(super) fn time_of_minimum(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    extreme(window, env, |value, best| value <= best).map(|at| Cell::Float(window.times[at] as f64 / 1000.0))
}

pub(super) fn time_of_maximum(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    extreme(window, env, |value, best| value >= best).map(|at| Cell::Float(window.times[at] as f64 / 1000.0))
}

pub(super) fn quantile(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    let q = env.args[0];
    if window.values.is_empty() {
        return None;
    }
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        env.notes.bad_quantile(q, env.first_span);
    }
    let mut values = floats(window, env)?.to_vec();
    Some(Cell::Float(quantile::of_values(q, &mut values)))
}

/// The median of the distances from the median.
pub(super) fn median_deviation(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    let mut values = floats(window, env)?.to_vec();
    let median = quantile::of_values(0.5, &mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    Some(Cell::Float(quantile::of_values(0.5, &mut values)))
}

/// The population variance (Welford's method, compensated).
pub(super) fn variance(window: &Window<'_>, env: &mut Env<'_>) -> Option<f64> {
    let values = floats(window, env)?;
    let (mut count, mut mean, mut mean_lost, mut squares, mut squares_lost) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let distance = value - (mean + mean_lost);
        (mean, mean_lost) = compensated(mean, distance / count, mean_lost);
        (squares, squares_lost) = compensated(squares, distance * (value - (mean + mean_lost)), squares_lost);
    }
    Some((squares + squares_lost) / count)
}
