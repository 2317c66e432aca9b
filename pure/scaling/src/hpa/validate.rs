//! What a horizontal autoscaler must satisfy before it is used: upstream's validation, every problem at once.

use super::metric::{Metric, ResourceTarget, ValueTarget};
use super::policy::{Policy, Rules, Select};

/// The longest stabilization window, in milliseconds.
const MAX_WINDOW_MS: i64 = 3_600_000;
/// The longest period of a rate policy, in milliseconds.
const MAX_PERIOD_MS: i64 = 1_800_000;

/// Everything that is wrong with a policy, as (path, message).
pub fn validate(policy: &Policy) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut note = |path: &str, message: String| problems.push((path.to_owned(), message));
    if policy.max_replicas < 1 {
        note("maxReplicas", format!("must be greater than 0, found {}", policy.max_replicas));
    }
    if policy.min_replicas < 0 {
        note("minReplicas", format!("must be 0 or greater, found {}", policy.min_replicas));
    }
    if policy.max_replicas < policy.min_replicas {
        note("maxReplicas", format!("{} is below minReplicas {}", policy.max_replicas, policy.min_replicas));
    }
    let has_outside =
        policy.metrics.iter().any(|metric| matches!(metric, Metric::Object { .. } | Metric::External { .. }));
    if policy.min_replicas == 0 && !has_outside {
        note(
            "metrics",
            "must specify at least one Object or External metric to support scaling to zero replicas".to_owned(),
        );
    }
    for (index, metric) in policy.metrics.iter().enumerate() {
        if target_of(metric) <= 0 {
            note(&format!("metrics[{index}]"), "the target must be greater than 0".to_owned());
        }
    }
    if let Some(behavior) = &policy.behavior {
        validate_rules("behavior.scaleUp", &behavior.scale_up, &mut note);
        validate_rules("behavior.scaleDown", &behavior.scale_down, &mut note);
    }
    problems
}

fn target_of(metric: &Metric) -> i64 {
    match metric {
        Metric::Resource { target, .. } | Metric::ContainerResource { target, .. } => match target {
            ResourceTarget::Utilization { percent } => i64::from(*percent),
            ResourceTarget::AverageValue { milli } => *milli,
        },
        Metric::Pods { target_average_milli, .. } => *target_average_milli,
        Metric::Object { target, .. } | Metric::External { target, .. } => match target {
            ValueTarget::Value { milli } | ValueTarget::AverageValue { milli } => *milli,
        },
        Metric::Unsupported { .. } => 1,
    }
}

fn validate_rules(path: &str, rules: &Rules, note: &mut impl FnMut(&str, String)) {
    if let Some(window) = rules.stabilization_ms
        && !(0..=MAX_WINDOW_MS).contains(&window)
    {
        note(&format!("{path}.stabilizationWindowSeconds"), format!("must be 0 to 3600, found {}", window / 1000));
    }
    if rules.policies.is_empty() && rules.select != Select::Disabled {
        note(&format!("{path}.policies"), "must specify at least one policy".to_owned());
    }
    for (index, policy) in rules.policies.iter().enumerate() {
        if policy.value <= 0 {
            note(&format!("{path}.policies[{index}].value"), format!("must be greater than 0, found {}", policy.value));
        }
        if !(1000..=MAX_PERIOD_MS).contains(&policy.period_ms) {
            let seconds = policy.period_ms / 1000;
            note(&format!("{path}.policies[{index}].periodSeconds"), format!("must be 1 to 1800, found {seconds}"));
        }
    }
    if let Some(tolerance) = rules.tolerance
        && (tolerance.is_nan() || tolerance < 0.0)
    {
        note(&format!("{path}.tolerance"), format!("must be 0 or greater, found {tolerance}"));
    }
}
