//! What a `ScaledObject` is told.

use serde::{Deserialize, Serialize};

use super::super::Profile;
use super::super::fallback::Fallback;
use super::super::trigger::{Target, Trigger, milli};
use crate::forecast;
use crate::hpa::{self, Behavior, Metric, Select, Timing, Tolerance, ValueTarget};

/// The largest size where none is written.
const DEFAULT_MAX: i32 = 100;

/// A `ScaledObject`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// KEDA as it is, or repaired.
    #[serde(default)]
    pub profile: Profile,
    /// How often triggers are polled; the caller keeps to it.
    pub polling_interval_ms: i64,
    /// How long it must have been inactive before it goes to zero or idle.
    pub cooldown_ms: i64,
    /// The same for an object that was never active, from its creation.
    pub initial_cooldown_ms: i64,
    /// The size while nothing is active.
    #[serde(default)]
    pub idle_replicas: Option<i32>,
    /// The least size while something is active.
    #[serde(default)]
    pub min_replicas: Option<i32>,
    /// The largest size.
    #[serde(default)]
    pub max_replicas: Option<i32>,
    /// What replaces a trigger that keeps failing.
    #[serde(default)]
    pub fallback: Option<Fallback>,
    /// The triggers.
    pub triggers: Vec<Trigger>,
    /// A formula over the triggers.
    #[serde(default)]
    pub modifiers: Option<Modifiers>,
    /// Rates and windows of the horizontal autoscaler.
    #[serde(default)]
    pub behavior: Option<Behavior>,
    /// Its tolerance.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// Its windows.
    #[serde(default)]
    pub timing: Timing,
    /// What annotations ask for.
    #[serde(default)]
    pub annotations: Annotations,
    /// A value older than this is an error.
    #[serde(default)]
    pub max_age_ms: Option<i64>,
    /// Raises the floor ahead of the load.
    #[serde(default)]
    pub forecast: Option<forecast::Policy>,
}

/// `scalingModifiers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modifiers {
    /// The formula; see [`crate::formula`].
    pub formula: String,
    /// What its value should be.
    pub target: f64,
    /// It is active strictly above this.
    pub activation: f64,
    /// How the target is meant.
    pub metric_type: CompositeType,
}

/// How the target of a formula is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompositeType {
    /// Per replica.
    #[default]
    AverageValue,
    /// As it is.
    Value,
}

/// What annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Annotations {
    /// `autoscaling.keda.sh/paused`: keep the size.
    pub is_paused: bool,
    /// `autoscaling.keda.sh/paused-replicas`: keep this size; wins over `paused`.
    pub paused_replicas: Option<i32>,
    /// `autoscaling.keda.sh/paused-scale-in`: never smaller.
    pub paused_scale_in: bool,
    /// `autoscaling.keda.sh/paused-scale-out`: never larger.
    pub paused_scale_out: bool,
    /// `autoscaling.keda.sh/force-activation`: taken for active.
    pub force_activation: bool,
}

impl Policy {
    /// A policy of `triggers` with KEDA's defaults.
    pub fn with_defaults(triggers: Vec<Trigger>) -> Self {
        Self {
            profile: Profile::default(),
            polling_interval_ms: 30_000,
            cooldown_ms: 300_000,
            initial_cooldown_ms: 0,
            idle_replicas: None,
            min_replicas: None,
            max_replicas: None,
            fallback: None,
            triggers,
            modifiers: None,
            behavior: None,
            tolerance: Tolerance::default(),
            timing: Timing::default(),
            annotations: Annotations::default(),
            max_age_ms: None,
            forecast: None,
        }
    }

    /// The least size, 0 where none is written.
    pub fn min(&self) -> i32 {
        self.min_replicas.unwrap_or(0)
    }

    /// The largest size.
    pub fn max(&self) -> i32 {
        self.max_replicas.unwrap_or(DEFAULT_MAX)
    }

    /// The horizontal autoscaler that KEDA would generate. Its metrics are the triggers' in their order, a formula's value in place of all
    /// that come from outside.
    pub fn horizontal(&self) -> hpa::Policy {
        let mut metrics: Vec<Metric> = Vec::new();
        if let Some(modifiers) = &self.modifiers {
            let target = match modifiers.metric_type {
                CompositeType::AverageValue => ValueTarget::AverageValue { milli: milli(modifiers.target) },
                CompositeType::Value => ValueTarget::Value { milli: milli(modifiers.target) },
            };
            metrics.push(Metric::External { name: "composite-metric".to_owned(), target, fallback: None });
        }
        for trigger in &self.triggers {
            let target = match &trigger.target {
                Target::Resource { metric } => {
                    metrics.push(metric.clone());
                    continue;
                }
                _ if self.modifiers.is_some() => continue,
                Target::AverageValue { value, .. } => ValueTarget::AverageValue { milli: milli(*value) },
                Target::Value { value, .. } => ValueTarget::Value { milli: milli(*value) },
            };
            metrics.push(Metric::External { name: trigger.metric.clone(), target, fallback: None });
        }
        let mut behavior = self.behavior.clone();
        if self.annotations.paused_scale_in {
            behavior.get_or_insert_default().scale_down.select = Select::Disabled;
        }
        if self.annotations.paused_scale_out {
            behavior.get_or_insert_default().scale_up.select = Select::Disabled;
        }
        hpa::Policy {
            behavior,
            tolerance: self.tolerance,
            timing: self.timing,
            forecast: self.forecast.clone(),
            ..hpa::Policy::strict(self.min().max(1), self.max(), metrics)
        }
    }
}
