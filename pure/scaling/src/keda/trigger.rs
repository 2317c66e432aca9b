//! Triggers, what they target, and what was read of them.

use serde::{Deserialize, Serialize};

use crate::decision::TimeMs;
use crate::hpa;

/// One trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Its metric, as KEDA names it: `s0-postgresql`. Unique within the object.
    pub metric: String,
    /// Its name in formulas; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it should be.
    pub target: Target,
}

/// What a trigger's value should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// A value from outside, divided by the replicas.
    AverageValue {
        /// Per replica.
        value: f64,
        /// It is active strictly above this.
        activation: f64,
        /// Between polls the last polled value is used.
        #[serde(default)]
        is_cached: bool,
    },
    /// A value from outside as it is.
    Value {
        /// The target.
        value: f64,
        /// It is active strictly above this.
        activation: f64,
        /// Between polls the last polled value is used.
        #[serde(default)]
        is_cached: bool,
    },
    /// CPU or memory of the replicas; never active by itself.
    Resource {
        /// What the horizontal autoscaler is given.
        metric: hpa::Metric,
    },
}

impl Target {
    /// Target and activation of a value from outside.
    pub(super) fn outside(&self) -> Option<(f64, f64)> {
        match self {
            Self::AverageValue { value, activation, .. } | Self::Value { value, activation, .. } => {
                Some((*value, *activation))
            }
            Self::Resource { .. } => None,
        }
    }

    pub(super) fn is_cached(&self) -> bool {
        matches!(self, Self::AverageValue { is_cached: true, .. } | Self::Value { is_cached: true, .. })
    }
}

/// What was read of one trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerReading {
    /// A value from outside.
    Value(TriggerValue),
    /// It failed: the query, or already the building of its client.
    Failed(Failing),
    /// CPU or memory of the replicas.
    Usage(hpa::Reading),
    /// It was not asked, because its values are cached and this is no poll.
    NotAsked,
}

/// A value from outside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerValue {
    /// The value.
    pub value: f64,
    /// Items that are claimed and not finished, of the same snapshot; with it `value` counts unclaimed items only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<f64>,
    /// Whether the source says that it is active; without it, whether the value is above the activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,
    /// When the source had it.
    pub observed_at: TimeMs,
}

impl TriggerReading {
    /// A value that was read at `at`.
    pub fn value(value: f64, at: TimeMs) -> Self {
        Self::Value(TriggerValue { value, in_flight: None, is_active: None, observed_at: at })
    }

    /// A failure.
    pub fn failed(error: impl Into<String>, since: TimeMs) -> Self {
        Self::Failed(Failing { error: error.into(), since })
    }
}

/// Why there is no value, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// The source's words.
    pub error: String,
    /// Since when it fails.
    pub since: TimeMs,
}

/// A value that may be used, or why it may not: failed, stale, or no number.
pub(super) fn believed(
    reading: Option<&TriggerReading>,
    max_age_ms: Option<i64>,
    now: TimeMs,
) -> Result<TriggerValue, Failing> {
    let failing = |error: String, since| Err(Failing { error, since });
    match reading {
        Some(TriggerReading::Value(value)) => {
            let age = now.since_ms(value.observed_at);
            match max_age_ms {
                Some(limit) if age > limit => {
                    failing(format!("the value is {age} ms old, at most {limit} ms are believed"), value.observed_at)
                }
                _ if !value.value.is_finite() => failing(format!("the value is {}, no number", value.value), now),
                _ => Ok(*value),
            }
        }
        Some(TriggerReading::Failed(failure)) => Err(failure.clone()),
        Some(TriggerReading::Usage(_)) => failing("usage of replicas where a value was expected".to_owned(), now),
        Some(TriggerReading::NotAsked) | None => failing("the observation has no value for it".to_owned(), now),
    }
}

/// The value as the metrics interface carries it: whole milli-units, truncated; negative is 0.
pub(super) fn milli(value: f64) -> i64 {
    ((value * 1000.0) as i64).max(0)
}
