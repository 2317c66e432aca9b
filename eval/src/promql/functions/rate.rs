//! `rate`, `increase`, `delta`, `irate`, `idelta`.

use std::sync::Arc;

use tidemill_lang::promql::Extension;

use super::super::histogram::{Histogram, ResetHint};
use super::super::row::Cell;
use super::super::source::HistogramSample;
use super::window::{Env, Window, is_restarted};

/// What a change over a range is taken for.
#[derive(Clone, Copy)]
pub(super) struct Meaning {
    pub(super) is_counter: bool,
    pub(super) is_per_second: bool,
}

pub(super) const RATE: Meaning = Meaning { is_counter: true, is_per_second: true };
pub(super) const INCREASE: Meaning = Meaning { is_counter: true, is_per_second: false };
pub(super) const DELTA: Meaning = Meaning { is_counter: false, is_per_second: false };

/// The change over the range, extrapolated to its edges.
pub(super) fn rate(window: &Window<'_>, env: &mut Env<'_>, meaning: Meaning) -> Option<Cell> {
    if window.is_delta && meaning.is_counter {
        return added(window, env, meaning);
    }
    if let Some(extension) = env.extension {
        return extended(window, extension, meaning).map(Cell::Float);
    }
    if !window.times.is_empty() && !window.histograms.is_empty() {
        env.notes.mixed_samples(env.metric, env.first_span);
        return None;
    }
    if let [first, .., last] = window.histograms {
        let mut change = histogram_change(window.histograms, env, meaning.is_counter)?;
        let samples = (window.histograms.len(), first.time, last.time);
        let factor = factor(window, samples, meaning, (first.histogram.count, change.count));
        change.multiply(factor);
        return Some(Cell::Histogram(Arc::new(change)));
    }
    let samples = window.samples();
    if samples < 2 {
        return None;
    }
    let (first_time, last_time) = (*window.times.first()?, *window.times.last()?);
    let (first, last) = (*window.values.first()?, *window.values.last()?);
    let mut change = last - first;
    if meaning.is_counter {
        for at in window.resets {
            change += window.values[at - window.first - 1];
        }
    }
    let samples = (samples, first_time, last_time);
    Some(Cell::Float(change * factor(window, samples, meaning, (first, change))))
}

/// What the samples of a delta series in the range add up to: each says what was added since the one before it.
fn added(window: &Window<'_>, env: &mut Env<'_>, meaning: Meaning) -> Option<Cell> {
    let is_inside = |time: i64| time > window.start && time <= window.end;
    if !window.times.is_empty() && !window.histograms.is_empty() {
        env.notes.mixed_samples(env.metric, env.first_span);
        return None;
    }
    let per = if meaning.is_per_second { window.seconds() } else { 1.0 };
    let mut histograms = window.histograms.iter().filter(|sample| is_inside(sample.time));
    if let Some(first) = histograms.next() {
        let mut sum = first.histogram.as_ref().clone();
        for sample in histograms {
            match sum.add(&sample.histogram) {
                Ok(combined) if combined.has_reconciled_bounds => {
                    env.notes.reconciled_bounds("addition", env.first_span);
                }
                Ok(_) => {}
                Err(_) => {
                    env.notes.mixed_schemas(env.metric, env.first_span);
                    return None;
                }
            }
        }
        sum.hint = ResetHint::Gauge;
        sum.divide(per);
        return Some(Cell::Histogram(Arc::new(sum.compacted())));
    }
    let inside = window.times.iter().zip(window.values).filter(|(time, _)| is_inside(**time));
    let mut values = inside.map(|(_, value)| *value).peekable();
    values.peek()?;
    Some(Cell::Float(values.sum::<f64>() / per))
}

/// By what the change between the first and the last sample is multiplied, so that it is the change over the range.
fn factor(window: &Window<'_>, samples: (usize, i64, i64), meaning: Meaning, (first, change): (f64, f64)) -> f64 {
    Edges::new((window.start, window.end), samples).factor(meaning, (first, change), window.seconds())
}

/// How far the samples of a window reach to its edges. An edge is reached if the samples come near it, by up to a tenth more than their
/// average distance; else half of that distance is added.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edges {
    /// From the first to the last sample, in seconds.
    sampled: f64,
    /// What is added before the first.
    to_start: f64,
    /// What is added after the last.
    to_end: f64,
}

impl Edges {
    /// Of so many samples, at least two, between the times of the first and the last, in a window from its start to its end; times are in
    /// milliseconds.
    #[inline]
    pub(super) fn new((start, end): (i64, i64), (count, first, last): (usize, i64, i64)) -> Self {
        let seconds = |from: i64, to: i64| (to - from) as f64 / 1000.0;
        let (to_start, to_end) = (seconds(start, first), seconds(last, end));
        let sampled = seconds(first, last);
        let distance = sampled / (count - 1) as f64;
        let threshold = distance * 1.1;
        let reached = |gap: f64| if gap >= threshold { distance / 2.0 } else { gap };
        Self { sampled, to_start: reached(to_start), to_end: reached(to_end) }
    }

    /// By what the change between the two samples is multiplied, where the window has so many seconds. A counter is not extrapolated
    /// below zero.
    #[inline]
    pub(super) fn factor(&self, meaning: Meaning, (first, change): (f64, f64), seconds: f64) -> f64 {
        let is_limited = meaning.is_counter && change > 0.0 && first >= 0.0;
        let to_zero = self.to_start.min(self.sampled * (first / change));
        let to_start = if is_limited { to_zero } else { self.to_start };
        let factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if meaning.is_per_second { factor / seconds } else { factor }
    }
}

fn restarted(before: &HistogramSample, sample: &HistogramSample) -> bool {
    is_restarted((before.start, before.time), (sample.start, sample.time))
}

/// The change between the first and the last histogram, with the resets between.
fn histogram_change(samples: &[HistogramSample], env: &mut Env<'_>, is_counter: bool) -> Option<Histogram> {
    let [first, rest @ ..] = samples else { return None };
    let last = &rest.last()?.histogram;
    let (metric, span) = (env.metric, env.first_span);
    let mut before = Arc::clone(&first.histogram);
    let is_gauge = |histogram: &Histogram| histogram.hint == ResetHint::Gauge;
    if is_counter && (is_gauge(&before) || is_gauge(last)) {
        env.notes.not_counter(metric, span);
    }
    let second = &rest.first()?;
    if is_counter && (restarted(first, second) || second.histogram.is_reset_since(&before)) {
        // The first sample does not count, so neither does how its buckets differ.
        let (schema, custom) = (second.histogram.schema, second.histogram.custom.clone());
        before = Arc::new(Histogram { schema, custom, ..Histogram::default() });
    }
    let is_custom = before.is_custom();
    let mut schema = last.schema.min(before.schema);
    let mut has_mixed_schemas = last.is_custom() != is_custom;
    for sample in &rest[..rest.len() - 1] {
        if is_counter && !has_mixed_schemas {
            if is_gauge(&sample.histogram) {
                env.notes.not_counter(metric, span);
            }
            schema = schema.min(sample.histogram.schema);
            has_mixed_schemas |= sample.histogram.is_custom() != is_custom;
        }
    }
    if has_mixed_schemas {
        env.notes.mixed_schemas(metric, span);
        return None;
    }
    let mut change = last.at_schema(schema);
    let combined = change.subtract(&before).ok();
    if combined.is_some_and(|combined| combined.has_reconciled_bounds) {
        env.notes.reconciled_bounds("subtraction", span);
    }
    if is_counter {
        let mut before_sample = first;
        for sample in rest {
            if restarted(before_sample, sample) || sample.histogram.is_reset_since(&before) {
                match change.add(&before) {
                    Ok(combined) if combined.has_reconciled_bounds => env.notes.reconciled_bounds("addition", span),
                    Ok(_) => {}
                    Err(_) => {
                        env.notes.mixed_schemas(metric, span);
                        return None;
                    }
                }
            }
            before = Arc::clone(&sample.histogram);
            before_sample = sample;
        }
    } else if !is_gauge(&first.histogram) || !is_gauge(last) {
        env.notes.not_gauge(metric, span);
    }
    change.hint = ResetHint::Gauge;
    Some(change.compacted())
}

/// The change between the last two samples.
pub(super) fn instant(window: &Window<'_>, env: &mut Env<'_>, is_rate: bool) -> Option<Cell> {
    if window.len() < 2 {
        return None;
    }
    let mut last: Vec<(i64, i64, Cell)> = Vec::with_capacity(4);
    for at in window.times.len().saturating_sub(2)..window.times.len() {
        last.push((window.times[at], window.start_of(at), Cell::Float(window.values[at])));
    }
    for sample in &window.histograms[window.histograms.len().saturating_sub(2)..] {
        last.push((sample.time, sample.start, Cell::Histogram(Arc::clone(&sample.histogram))));
    }
    last.sort_by_key(|(time, ..)| *time);
    let [.., (before_time, before_start, before), (time, start, now)] = last.as_slice() else { return None };
    if time == before_time {
        return None;
    }
    let seconds = (time - before_time) as f64 / 1000.0;
    let is_restart = window.is_delta || is_restarted((*before_start, *before_time), (*start, *time));
    match (before, now) {
        (Cell::Float(before), Cell::Float(now)) => {
            let change = if is_rate && (now < before || is_restart) { *now } else { now - before };
            Some(Cell::Float(if is_rate { change / seconds } else { change }))
        }
        (Cell::Histogram(before), Cell::Histogram(now)) => {
            let are_gauges = [before, now].map(|histogram| histogram.hint == ResetHint::Gauge);
            if is_rate && are_gauges.contains(&true) {
                env.notes.not_counter(env.metric, env.args_span);
            }
            if !is_rate && are_gauges.contains(&false) {
                env.notes.not_gauge(env.metric, env.args_span);
            }
            let mut change = now.as_ref().clone();
            if !is_rate || (!is_restart && !now.is_reset_since(before)) {
                match change.subtract(before) {
                    Err(_) => {
                        env.notes.mixed_schemas(env.metric, env.args_span);
                        return None;
                    }
                    Ok(combined) if combined.has_reconciled_bounds => {
                        env.notes.reconciled_bounds("subtraction", env.args_span);
                    }
                    Ok(_) => {}
                }
            }
            change.hint = ResetHint::Gauge;
            change.compact();
            if is_rate {
                change.divide(seconds);
            }
            Some(Cell::Histogram(Arc::new(change)))
        }
        _ => {
            env.notes.mixed_samples(env.metric, env.args_span);
            None
        }
    }
}

/// The positions of the first and the last sample that matter for a range whose edges get values of their own.
fn edges(times: &[i64], start: i64, end: i64, extension: Extension) -> Option<(usize, usize)> {
    let last_of_all = times.len().checked_sub(1)?;
    let first = times[..last_of_all].partition_point(|time| *time <= start).saturating_sub(1);
    let last = match extension {
        Extension::Smoothed => times[..last_of_all].partition_point(|time| *time < end),
        Extension::Anchored => last_of_all,
    };
    (times[last] > start).then_some((first, last))
}

fn left_edge(window: &Window<'_>, first: usize, extension: Extension, is_counter: bool) -> f64 {
    if extension == Extension::Smoothed && window.times[first] < window.start {
        return interpolate(window, first, window.start, is_counter);
    }
    window.values[first]
}

fn right_edge(window: &Window<'_>, last: usize, extension: Extension, is_counter: bool) -> f64 {
    if extension == Extension::Smoothed && last > 0 && window.times[last] > window.end {
        return interpolate(window, last - 1, window.end, is_counter);
    }
    window.values[last]
}

/// The value at `time`, between sample `at` and the next; a counter that fell began anew at zero.
fn interpolate(window: &Window<'_>, at: usize, time: i64, is_counter: bool) -> f64 {
    let (mut from, to) = (window.values[at], window.values[at + 1]);
    if is_counter && to < from {
        from = 0.0;
    }
    from + (to - from) * (time - window.times[at]) as f64 / (window.times[at + 1] - window.times[at]) as f64
}

/// The change over a range whose edges have values.
fn extended(window: &Window<'_>, extension: Extension, meaning: Meaning) -> Option<f64> {
    let (mut first, mut last) = edges(window.times, window.start, window.end, extension)?;
    let left = left_edge(window, first, extension, meaning.is_counter);
    let right = right_edge(window, last, extension, meaning.is_counter);
    let mut change = right - left;
    if meaning.is_counter {
        if window.times[first] <= window.start {
            first += 1;
        }
        let end = if window.times[last] >= window.end { last } else { last + 1 };
        last = end.max(first);
        let mut before = left;
        for value in window.values[first..last].iter().copied().chain([right]) {
            if value < before {
                change += before;
            }
            before = value;
        }
    }
    Some(if meaning.is_per_second { change / window.seconds() } else { change })
}

/// The samples of a range with values at its edges.
pub(in super::super) fn extend(window: &Window<'_>, extension: Extension) -> Vec<(i64, f64)> {
    let Some((mut first, mut last)) = edges(window.times, window.start, window.end, extension) else {
        return Vec::new();
    };
    let left = left_edge(window, first, extension, false);
    let right = right_edge(window, last, extension, false);
    if window.times[first] <= window.start {
        first += 1;
    }
    if window.times[last] < window.end {
        last += 1;
    }
    let inner = (first..last.max(first)).map(|at| (window.times[at], window.values[at]));
    [(window.start, left)].into_iter().chain(inner).chain([(window.end, right)]).collect()
}
