//! What a horizontal autoscaler is told: bounds, metrics, behavior, and the controller's own constants.

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::forecast;

/// A horizontal autoscaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The least number of replicas; 0 only with an Object or External metric.
    #[serde(default = "one")]
    pub min_replicas: i32,
    /// The largest number of replicas.
    pub max_replicas: i32,
    /// The metrics; the largest proposal wins.
    pub metrics: Vec<Metric>,
    /// Rate policies and windows; without them the controller's defaults hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
    /// How far from its target a metric may be; a direction of `behavior` may override it.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// The controller's windows.
    #[serde(default)]
    pub timing: Timing,
    /// How far one step goes up without `behavior`.
    #[serde(default)]
    pub scale_up_limit: ScaleUpLimit,
    /// Which pods count.
    #[serde(default)]
    pub selection: Selection,
    /// What pods beyond the asked size do to the count.
    #[serde(default)]
    pub surge: Surge,
    /// A reading older than this is an error. The strict profile sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<i64>,
    /// Raises the floor ahead of the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<forecast::Policy>,
}

fn one() -> i32 {
    1
}

impl Policy {
    /// A policy in the strict upstream profile, with every constant at its shipped value.
    pub fn strict(min_replicas: i32, max_replicas: i32, metrics: Vec<Metric>) -> Self {
        Self {
            min_replicas,
            max_replicas,
            metrics,
            behavior: None,
            tolerance: Tolerance::default(),
            timing: Timing::default(),
            scale_up_limit: ScaleUpLimit::default(),
            selection: Selection::default(),
            surge: Surge::default(),
            max_age_ms: None,
            forecast: None,
        }
    }

    /// The tolerance of each direction after the overrides of `behavior`.
    pub fn effective_tolerance(&self) -> Tolerance {
        let behavior = self.behavior.as_ref();
        Tolerance {
            up: behavior.and_then(|behavior| behavior.scale_up.tolerance).unwrap_or(self.tolerance.up),
            down: behavior.and_then(|behavior| behavior.scale_down.tolerance).unwrap_or(self.tolerance.down),
        }
    }
}

/// How far a ratio may be from 1, per direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Above 1.
    pub up: f64,
    /// Below 1.
    pub down: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { up: 0.1, down: 0.1 }
    }
}

impl Tolerance {
    /// Whether `ratio` is near enough to 1; the ends belong to it, and NaN does not.
    pub fn contains(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// The controller's windows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// How long a higher recommendation holds a workload up.
    pub downscale_stabilization_ms: i64,
    /// How long after its start a pod's CPU is not believed unless it is ready.
    pub cpu_initialization_ms: i64,
    /// How soon after its start a change of readiness is the first one.
    pub initial_readiness_delay_ms: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { downscale_stabilization_ms: 300_000, cpu_initialization_ms: 300_000, initial_readiness_delay_ms: 30_000 }
    }
}

/// Without `behavior`, one step goes up to `max(factor × current, minimum)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleUpLimit {
    /// Times the current size.
    pub factor: f64,
    /// At least this many replicas.
    pub minimum: f64,
}

impl Default for ScaleUpLimit {
    fn default() -> Self {
        Self { factor: 2.0, minimum: 4.0 }
    }
}

/// Which pods count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// All that the selector matches, as upstream.
    #[default]
    LabelSelector,
    /// Those that the target owns (KEP-5325).
    OwnerReference,
}

/// What pods beyond the asked size do to the count that a ratio is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surge {
    /// They count, as upstream.
    #[default]
    Counted,
    /// At most as many pods count as the specification asks for, so that a rolling update cannot inflate the size.
    LimitedToSpec,
}

/// Rate policies of both directions, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behavior {
    /// Up.
    #[serde(default = "Rules::default_up")]
    pub scale_up: Rules,
    /// Down.
    #[serde(default = "Rules::default_down")]
    pub scale_down: Rules,
}

impl Default for Behavior {
    fn default() -> Self {
        Self { scale_up: Rules::default_up(), scale_down: Rules::default_down() }
    }
}

/// The rules of one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// How far back recommendations are looked at; down, none means the controller's own window.
    #[serde(default)]
    pub stabilization_ms: Option<i64>,
    /// Which proposal wins.
    pub select: Select,
    /// The rate policies.
    pub policies: Vec<ScalingPolicy>,
    /// Overrides the tolerance of this direction (KEP-4951).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

impl Rules {
    /// What a direction up is filled with: no window, the larger of 4 pods and 100 % in 15 s.
    pub fn default_up() -> Self {
        let policies = vec![
            ScalingPolicy { kind: ScalingPolicyKind::Pods, value: 4, period_ms: 15_000 },
            ScalingPolicy { kind: ScalingPolicyKind::Percent, value: 100, period_ms: 15_000 },
        ];
        Self { stabilization_ms: Some(0), select: Select::Max, policies, tolerance: None }
    }

    /// What a direction down is filled with: the controller's window, 100 % in 15 s.
    pub fn default_down() -> Self {
        let policies = vec![ScalingPolicy { kind: ScalingPolicyKind::Percent, value: 100, period_ms: 15_000 }];
        Self { stabilization_ms: None, select: Select::Max, policies, tolerance: None }
    }
}

/// Which of several rate policies wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Select {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// The direction is closed.
    Disabled,
}

/// At most `value` in `period_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingPolicy {
    /// What `value` counts.
    pub kind: ScalingPolicyKind,
    /// Pods, or percent of the size at the period's start.
    pub value: i32,
    /// The period.
    pub period_ms: i64,
}

/// What a rate policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingPolicyKind {
    /// Replicas.
    Pods,
    /// Percent of the size at the period's start.
    Percent,
}
