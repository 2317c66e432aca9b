//! Three ways to predict: the same time last season, a straight line, and Holt-Winters.

use serde::{Deserialize, Serialize};

use super::series::Series;

/// The least history of a straight line, in buckets.
const LINE_BUCKETS: usize = 5;
/// The values that a fit tries for each parameter.
const GRID: [f64; 4] = [0.05, 0.2, 0.5, 0.8];

/// How a forecast predicts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// What came one season ago.
    SeasonalNaive {
        /// The season's length.
        season_ms: i64,
    },
    /// A straight line through the last buckets (least squares).
    Linear {
        /// How far back it looks.
        window_ms: i64,
    },
    /// Additive Holt-Winters (Winters 1960) with these parameters.
    HoltWinters {
        /// The season's length.
        season_ms: i64,
        /// Its smoothing.
        parameters: HoltWinters,
    },
    /// Additive Holt-Winters; the parameters with the least one-step squared error on a grid are fitted anew each season.
    HoltWintersFitted {
        /// The season's length.
        season_ms: i64,
    },
}

/// Smoothing factors between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoltWinters {
    /// Of the level.
    pub alpha: f64,
    /// Of the trend.
    pub beta: f64,
    /// Of the season.
    pub gamma: f64,
}

impl Method {
    /// The length of its season or window in buckets, at least 1.
    pub(super) fn season_buckets(&self, interval_ms: i64) -> usize {
        let (Self::SeasonalNaive { season_ms: length }
        | Self::Linear { window_ms: length }
        | Self::HoltWinters { season_ms: length, .. }
        | Self::HoltWintersFitted { season_ms: length }) = *self;
        usize::try_from(length.div_euclid(interval_ms.max(1))).unwrap_or(1).clamp(1, 12_000)
    }

    /// How many closed buckets it needs.
    pub(super) fn needed_buckets(&self, season: usize) -> usize {
        match self {
            Self::SeasonalNaive { .. } => season,
            Self::Linear { .. } => LINE_BUCKETS,
            Self::HoltWinters { .. } | Self::HoltWintersFitted { .. } => 2 * season,
        }
    }

    /// The value `steps` buckets after the last closed one.
    pub(super) fn predict(
        &self,
        series: &Series,
        steps: usize,
        season: usize,
        fitted: &mut Option<(i64, HoltWinters)>,
    ) -> Option<f64> {
        let values = series.values();
        if values.len() < self.needed_buckets(season) {
            return None;
        }
        match self {
            Self::SeasonalNaive { .. } => {
                // The latest closed bucket at the same place of the season.
                let back = season - (steps - 1) % season;
                values.get(values.len().checked_sub(back)?).copied()
            }
            Self::Linear { .. } => Some(line(&values[values.len().saturating_sub(season.max(LINE_BUCKETS))..], steps)),
            Self::HoltWinters { parameters, .. } => Some(holt_winters(values, season, *parameters).0.at(steps)),
            Self::HoltWintersFitted { .. } => {
                let now = series.open_bucket();
                let is_fresh = |at: i64| now - at < i64::try_from(season).unwrap_or(i64::MAX);
                let parameters = match *fitted {
                    Some((at, parameters)) if is_fresh(at) => parameters,
                    _ => {
                        let parameters = fit(values, season);
                        *fitted = Some((now, parameters));
                        parameters
                    }
                };
                Some(holt_winters(values, season, parameters).0.at(steps))
            }
        }
    }
}

/// The least-squares line through `values`, `steps` after the last.
fn line(values: &[f64], steps: usize) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let average = values.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let distance = index as f64 - middle;
        above += distance * (value - average);
        below += distance * distance;
    }
    let slope = if below > 0.0 { above / below } else { 0.0 };
    average + slope * (count - 1.0 + steps as f64 - middle)
}

struct Smoothed {
    level: f64,
    trend: f64,
    seasons: Vec<f64>,
    next: usize,
}

impl Smoothed {
    fn at(&self, steps: usize) -> f64 {
        let place = (self.next + steps - 1) % self.seasons.len();
        self.level + self.trend * steps as f64 + self.seasons[place]
    }
}

/// Smooths `values` (at least two seasons); also the mean squared one-step error after the first two.
fn holt_winters(values: &[f64], season: usize, parameters: HoltWinters) -> (Smoothed, f64) {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let first = mean(&values[..season]);
    let second = mean(&values[season..2 * season]);
    let trend = (second - first) / season as f64;
    let middle = (season as f64 - 1.0) / 2.0;
    let seasons = (0..season)
        .map(|place| {
            let of_first = values[place] - (first + (place as f64 - middle) * trend);
            let of_second = values[season + place] - (second + (place as f64 - middle) * trend);
            f64::midpoint(of_first, of_second)
        })
        .collect();
    let mut smoothed = Smoothed { level: second + middle * trend, trend, seasons, next: 0 };
    let HoltWinters { alpha, beta, gamma } = parameters;
    let (mut squares, mut count) = (0.0, 0_usize);
    for value in &values[2 * season..] {
        let error = value - smoothed.at(1);
        squares += error * error;
        count += 1;
        let place = smoothed.next % season;
        let level = alpha * (value - smoothed.seasons[place]) + (1.0 - alpha) * (smoothed.level + smoothed.trend);
        smoothed.trend = beta * (level - smoothed.level) + (1.0 - beta) * smoothed.trend;
        smoothed.level = level;
        smoothed.seasons[place] = gamma * (value - level) + (1.0 - gamma) * smoothed.seasons[place];
        smoothed.next = (smoothed.next + 1) % season;
    }
    (smoothed, squares / count.max(1) as f64)
}

fn fit(values: &[f64], season: usize) -> HoltWinters {
    let mut best = (HoltWinters { alpha: 0.2, beta: 0.05, gamma: 0.2 }, f64::INFINITY);
    for alpha in GRID {
        for beta in GRID {
            for gamma in GRID {
                let parameters = HoltWinters { alpha, beta, gamma };
                let error = holt_winters(values, season, parameters).1;
                if error < best.1 {
                    best = (parameters, error);
                }
            }
        }
    }
    best.0
}
