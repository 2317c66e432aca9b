//! `deriv`, `predict_linear`, `double_exponential_smoothing`.

use super::super::histogram::compensated;
use super::super::row::Cell;
use super::window::{Env, Window};
use crate::error::{Error, Result};
use crate::number::format_number;

/// Tells of histograms that were ignored beside floats; gives whether there are enough floats.
fn has_floats(window: &Window<'_>, env: &mut Env<'_>) -> bool {
    if !window.histograms.is_empty() && !window.times.is_empty() {
        env.notes.ignored_in_range(env.metric, env.first_span);
    }
    window.times.len() >= 2
}

/// The slope by least squares, per second.
pub(super) fn deriv(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    if !has_floats(window, env) {
        return None;
    }
    Some(Cell::Float(regression(window, window.times[0]).0))
}

/// The value that a line by least squares reaches some seconds from now.
pub(super) fn predict_linear(window: &Window<'_>, env: &mut Env<'_>) -> Option<Cell> {
    if !has_floats(window, env) {
        return None;
    }
    let (slope, intercept) = regression(window, env.time);
    Some(Cell::Float(slope * env.args[0] + intercept))
}

/// Slope per second, and the value at `origin`.
fn regression(window: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let count = window.values.len() as f64;
    let mut sums = [(0.0, 0.0); 4];
    for (time, y) in window.times.iter().zip(window.values) {
        let x = (time - origin) as f64 / 1e3;
        for ((sum, lost), term) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            (*sum, *lost) = compensated(*sum, term, *lost);
        }
    }
    let [x, y, xy, xx] = sums.map(|(sum, lost)| sum + lost);
    let slope = (xy - x * y / count) / (xx - x * x / count);
    (slope, y / count - slope * x / count)
}

/// Double exponential smoothing (Holt), with the factors for values and for their trend.
pub(super) fn smooth(window: &Window<'_>, env: &mut Env<'_>) -> Result<Option<Cell>> {
    let (value_factor, trend_factor) = (env.args[0], env.args[1]);
    for (factor, what, short) in [(value_factor, "smoothing", "sf"), (trend_factor, "trend", "tf")] {
        if factor <= 0.0 || factor >= 1.0 {
            let got = if factor.is_finite() { format!("{factor:.6}") } else { format_number(factor) };
            let message = format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {got}");
            return Err(Error::Data(message));
        }
    }
    if !has_floats(window, env) {
        return Ok(None);
    }
    let values = window.values;
    let (mut before, mut smoothed, mut trend) = (0.0, values[0], values[1] - values[0]);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
        }
        let next = value_factor * value + (1.0 - value_factor) * (smoothed + trend);
        (before, smoothed) = (smoothed, next);
    }
    Ok(Some(Cell::Float(smoothed)))
}
