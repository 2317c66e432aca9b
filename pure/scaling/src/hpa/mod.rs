//! The horizontal autoscaler, `autoscaling/v2`, as Kubernetes computes it.
//!
//! Owns: pod grouping, ratios in whole milli-units, proposals of each metric, stabilization, rate policies, conditions. Never: reading
//! metrics or writing sizes. Formulas and constants are those of `pkg/controller/podautoscaler` (replica_calculator.go, horizontal.go);
//! what upstream does not do is a field of [`Policy`] that its strict profile leaves off. Start with [`step`].

mod group;
mod history;
mod metric;
mod normalize;
mod observation;
mod policy;
mod proposal;
mod ratio;
mod step;
mod validate;

pub use group::{PodGroups, SampleTime, group_pods};
pub use history::{History, Recommendation, ScaleEvent, changes_within, longest_period_ms};
pub use metric::{ExternalFallback, Metric, ResourceTarget, ValueTarget};
pub use normalize::{
    Bounded, Limits, Stabilized, bound_by_behavior, bound_by_default, stabilize_by_behavior, stabilize_by_default,
};
pub(crate) use observation::Look;
pub use observation::{
    Container, Observation, Phase, Pod, PodUsage, PodValue, Reading, Readings, Scale, SelectorProblem,
};
pub use policy::{
    Behavior, Policy, Rules, ScaleUpLimit, ScalingPolicy, ScalingPolicyKind, Select, Selection, Surge, Timing,
    Tolerance,
};
pub use ratio::{Ratio, plain_ratio, utilization_ratio};
pub(crate) use step::step_over;
pub use step::{State, step};
pub use validate::validate;

#[cfg(test)]
mod tests;
