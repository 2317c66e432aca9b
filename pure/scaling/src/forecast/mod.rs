//! Forecasts of load that raise the floor before the load is there.
//!
//! Owns: a bounded series of past load, three methods, their recent error. Never: lowering a size. A prediction joins the maximum of the
//! proposals, so windows, rates and bounds hold for it too; while its recent error is high it says so and proposes nothing. Start with
//! [`step`]; the methods are in [`Method`].

mod method;
mod series;

use serde::{Deserialize, Serialize};

pub use method::{HoltWinters, Method};
pub use series::Series;

use crate::decision::{Reason, TimeMs};

/// Errors that are remembered at most.
const MAX_ERRORS: usize = 1_000;
/// A demand this little above a whole number is that number.
const NOISE: f64 = 1e-6;

/// How a forecast is made and used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether it acts.
    pub mode: Mode,
    /// How it predicts.
    pub method: Method,
    /// The length of one bucket of the series.
    pub interval_ms: i64,
    /// How far it looks ahead at least; the measured start time of a replica extends it.
    pub lookahead_ms: i64,
    /// Above this mean relative error it proposes nothing.
    pub max_error: f64,
    /// Over how many of its last predictions the error is taken.
    pub error_window: usize,
}

/// Whether a forecast acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is not computed; the series is still recorded.
    Off,
    /// It is computed and told, and does nothing.
    Preview,
    /// It raises the floor.
    On,
}

/// What a forecast remembers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Load by bucket, in replicas that it is worth.
    pub series: Series,
    /// Predictions that were made, one per bucket, oldest first.
    #[serde(default)]
    pub predictions: Vec<Prediction>,
    /// Relative errors of predictions whose bucket is over, oldest first.
    #[serde(default)]
    pub errors: Vec<f64>,
    /// Fitted parameters, and the bucket they were fitted at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<(i64, HoltWinters)>,
}

/// What was predicted for one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The bucket.
    pub bucket: i64,
    /// The load in replicas.
    pub value: f64,
}

/// What a forecast says.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the next call is given.
    pub state: State,
    /// A size to propose, in mode `On` only.
    pub floor: Option<i32>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Records `demand` (how many replicas the load is worth; none where it could not be read) and predicts.
///
/// Predictions are made once per bucket, for every bucket up to the look-ahead; the floor is the largest of those that lie ahead.
pub fn step(
    policy: &Policy,
    mut state: State,
    demand: Option<f64>,
    measured_start_ms: Option<i64>,
    now: TimeMs,
) -> Outcome {
    let bucket = now.0.div_euclid(policy.interval_ms.max(1));
    let season = policy.method.season_buckets(policy.interval_ms);
    let closed = state.series.record(bucket, demand, 4 * season + 16);
    if policy.mode == Mode::Off {
        return Outcome { state, floor: None, reasons: vec![Reason::new("ForecastOff", "the forecast is off")] };
    }
    let lookahead_ms = policy.lookahead_ms.max(measured_start_ms.unwrap_or(0));
    // The decision of this bucket takes effect one bucket later at the latest.
    let horizon = lookahead_ms.max(0).div_euclid(policy.interval_ms.max(1)) + 1;
    if closed {
        judge(&mut state, policy.error_window);
        predict(policy, &mut state, bucket, horizon);
    }
    let ahead = state.predictions.iter().filter(|known| known.bucket >= bucket && known.bucket <= bucket + horizon);
    let Some(highest) = ahead.map(|known| known.value).reduce(f64::max) else {
        let message = format!("{} of {} buckets of history", state.series.len(), policy.method.needed_buckets(season));
        let reason = Reason::new("ForecastNotEnoughHistory", message).with("buckets", state.series.len());
        return Outcome { state, floor: None, reasons: vec![reason] };
    };
    // Smoothing leaves noise behind the last digit that counts; it must not cost a replica.
    let floor = (highest - NOISE).clamp(0.0, f64::from(i32::MAX)).ceil() as i32;
    let error = mean(&state.errors);
    let facts = |reason: Reason| {
        let reason = reason.with("predicted_demand", highest).with("floor", floor).with("lookahead_ms", lookahead_ms);
        match error {
            Some(error) => reason.with("recent_error", error),
            None => reason,
        }
    };
    let is_trusted = error.is_some_and(|error| error <= policy.max_error);
    let (code, message, floor) = match (policy.mode, is_trusted) {
        (_, false) if error.is_none() => {
            ("ForecastUnproven", "no prediction could be compared with what came yet".to_owned(), None)
        }
        (_, false) => {
            ("ForecastError", format!("the recent error is above {}: only the present counts", policy.max_error), None)
        }
        (Mode::On, true) => ("ForecastFloor", format!("the load ahead is worth {floor} replicas"), Some(floor)),
        _ => ("ForecastPreview", format!("it would propose {floor} replicas"), None),
    };
    let reasons = vec![facts(Reason::new(code, message))];
    Outcome { state, floor, reasons }
}

/// Compares predictions of closed buckets with what came.
fn judge(state: &mut State, window: usize) {
    let open = state.series.open_bucket();
    let (over, ahead): (Vec<Prediction>, Vec<Prediction>) =
        state.predictions.iter().partition(|known| known.bucket < open);
    for prediction in over {
        if let Some(actual) = state.series.at(prediction.bucket) {
            // Below one replica a relative error says nothing.
            state.errors.push((prediction.value - actual).abs() / actual.max(1.0));
        }
    }
    state.predictions = ahead;
    let excess = state.errors.len().saturating_sub(window.clamp(1, MAX_ERRORS));
    state.errors.drain(..excess);
}

fn predict(policy: &Policy, state: &mut State, bucket: i64, horizon: i64) {
    let season = policy.method.season_buckets(policy.interval_ms);
    let first = state.predictions.last().map_or(bucket, |known| known.bucket + 1).max(bucket);
    for target in first..=bucket.saturating_add(horizon) {
        let steps = usize::try_from(target - bucket).unwrap_or(0) + 1;
        let Some(value) = policy.method.predict(&state.series, steps, season, &mut state.fitted) else { return };
        if value.is_finite() {
            state.predictions.push(Prediction { bucket: target, value: value.max(0.0) });
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests;
