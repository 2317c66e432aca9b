//! `changes` and `resets`.

use std::iter::Peekable;

use tidemill_lang::promql::Extension;

use super::super::histogram::Histogram;
use super::super::row::Cell;
use super::window::{Env, Window};

enum Seen<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// How often the value changed.
pub(super) fn changes(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    count(window, env, |before, now| match (before, now) {
        (Seen::Float(before), Seen::Float(now)) => before != now && !(before.is_nan() && now.is_nan()),
        (Seen::Histogram(before), Seen::Histogram(now)) => !now.equals(before),
        _ => true,
    })
}

/// How often a counter was reset.
pub(super) fn resets(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    count(window, env, |before, now| match (before, now) {
        (Seen::Float(before), Seen::Float(now)) => now < before,
        (Seen::Histogram(before), Seen::Histogram(now)) => now.is_reset_since(before),
        _ => true,
    })
}

fn count(window: &Window<'_>, env: &Env<'_>, is_event: impl Fn(&Seen<'_>, &Seen<'_>) -> bool) -> Option<Cell> {
    let mut first = 0;
    if env.extension == Some(Extension::Anchored) {
        let last = window.times.len().checked_sub(1)?;
        if window.times[last] <= window.start {
            return None;
        }
        first = window.times[..last].partition_point(|time| *time <= window.start).saturating_sub(1);
    }
    let mut floats = window.times[first..].iter().copied().zip(window.values[first..].iter().copied()).peekable();
    let mut histograms = window.histograms.iter().map(|sample| (sample.time, sample.histogram.as_ref())).peekable();
    let mut before = next(&mut floats, &mut histograms)?;
    let mut events = 0;
    while let Some(now) = next(&mut floats, &mut histograms) {
        events += usize::from(is_event(&before, &now));
        before = now;
    }
    Some(Cell::Float(events as f64))
}

/// The earlier of the next float and the next histogram.
fn next<'a>(
    floats: &mut Peekable<impl Iterator<Item = (i64, f64)>>,
    histograms: &mut Peekable<impl Iterator<Item = (i64, &'a Histogram)>>,
) -> Option<Seen<'a>> {
    let is_float = match (floats.peek(), histograms.peek()) {
        (Some((float, _)), Some((histogram, _))) => float < histogram,
        (float, _) => float.is_some(),
    };
    if is_float {
        floats.next().map(|(_, value)| Seen::Float(value))
    } else {
        histograms.next().map(|(_, histogram)| Seen::Histogram(histogram))
    }
}
