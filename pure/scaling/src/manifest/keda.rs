//! `ScaledObject` and `ScaledJob`, `keda.sh/v1alpha1`.

use std::collections::BTreeMap;

use super::place::Place;
use super::trigger::{self, TriggerSpec};
use super::{Body, forecast, horizontal, target_ref, workload};
use crate::formula::Formula;
use crate::keda::object::{self, Annotations, CompositeType, Modifiers};
use crate::keda::{Calculation, Fallback, FallbackBehavior, StrategyKind, Target, Trigger, job};

/// What was written, beyond what the policy holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KedaSpec {
    /// The triggers.
    pub triggers: Vec<TriggerSpec>,
    /// Fields of `spec` that were written.
    pub written: Vec<String>,
}

impl KedaSpec {
    /// Whether a field of `spec` was written.
    pub fn has(&self, name: &str) -> bool {
        self.written.iter().any(|written| written == name)
    }
}

fn triggers(spec: &Place<'_>, lines: &mut BTreeMap<String, usize>, is_job: bool) -> (Vec<Trigger>, KedaSpec) {
    let written = spec.entries();
    for (_, place) in &written {
        lines.insert(place.path.clone(), place.line);
    }
    let items = spec.need("triggers").map(|list| list.items()).unwrap_or_default();
    if items.is_empty() && spec.get("triggers").is_some() {
        spec.note_at("spec.triggers", "at least one trigger is needed");
    }
    let mut found = Vec::new();
    let mut specs = Vec::new();
    for (index, place) in items.iter().enumerate() {
        lines.insert(place.path.clone(), place.line);
        for (_, field) in place.get("metadata").map(|metadata| metadata.entries()).unwrap_or_default() {
            lines.insert(field.path.clone(), field.line);
        }
        if let Some((trigger, spec)) = trigger::read(place, index, is_job) {
            if !trigger.name.is_empty() && found.iter().any(|known: &Trigger| known.name == trigger.name) {
                place.note(format!("two triggers are named {}", trigger.name));
            }
            found.push(trigger);
            specs.push(spec);
        }
    }
    (found, KedaSpec { triggers: specs, written: written.into_iter().map(|(name, _)| name).collect() })
}

pub(super) fn scaled_object(
    spec: &Place<'_>,
    annotations: &BTreeMap<String, String>,
    lines: &mut BTreeMap<String, usize>,
) -> Option<Body> {
    spec.only(&[
        "scaleTargetRef",
        "pollingInterval",
        "initialCooldownPeriod",
        "cooldownPeriod",
        "idleReplicaCount",
        "minReplicaCount",
        "maxReplicaCount",
        "fallback",
        "advanced",
        "triggers",
    ]);
    let target = spec.need("scaleTargetRef").and_then(|place| target_ref(&place, lines));
    let (triggers, written) = triggers(spec, lines, false);
    let mut policy = object::Policy::with_defaults(triggers);
    policy.polling_interval_ms = spec.seconds_at("pollingInterval", 1).unwrap_or(policy.polling_interval_ms);
    policy.cooldown_ms = spec.seconds_at("cooldownPeriod", 0).unwrap_or(policy.cooldown_ms);
    policy.initial_cooldown_ms = spec.seconds_at("initialCooldownPeriod", 0).unwrap_or(policy.initial_cooldown_ms);
    policy.idle_replicas = spec.whole_at("idleReplicaCount", 0);
    policy.min_replicas = spec.whole_at("minReplicaCount", 0);
    policy.max_replicas = spec.whole_at("maxReplicaCount", 1);
    policy.fallback = spec.get("fallback").and_then(|place| fallback(&place));
    if let Some(advanced) = spec.get("advanced") {
        advanced.only(&["restoreToOriginalReplicaCount", "horizontalPodAutoscalerConfig", "scalingModifiers"]);
        if let Some(config) = advanced.get("horizontalPodAutoscalerConfig") {
            config.only(&["name", "behavior"]);
            policy.behavior = config.get("behavior").map(|place| horizontal::behavior(&place));
        }
        policy.modifiers = advanced.get("scalingModifiers").and_then(|place| modifiers(&place, &policy.triggers));
    }
    policy.annotations = pauses(spec, annotations);
    policy.forecast = forecast::read(spec, annotations);
    check_bounds(spec, &policy);
    for (path, message) in
        crate::hpa::validate(&policy.horizontal()).into_iter().filter(|(path, _)| path.starts_with("behavior"))
    {
        spec.note_at(&format!("spec.advanced.horizontalPodAutoscalerConfig.{path}"), message);
    }
    Some(Body::ScaledObject { target: target?, policy: Box::new(policy), spec: written })
}

/// KEDA's webhook rules over the whole object.
fn check_bounds(spec: &Place<'_>, policy: &object::Policy) {
    if policy.min() > policy.max() {
        spec.note_at("spec.minReplicaCount", format!("{} is above maxReplicaCount {}", policy.min(), policy.max()));
    }
    if let Some(idle) = policy.idle_replicas
        && idle >= policy.min()
    {
        spec.note_at("spec.idleReplicaCount", format!("{idle} must be below minReplicaCount {}", policy.min()));
    }
    let has_outside = policy.triggers.iter().any(|trigger| !matches!(trigger.target, Target::Resource { .. }));
    if !has_outside && !policy.triggers.is_empty() && policy.min() == 0 {
        spec.note_at(
            "spec.minReplicaCount",
            "with cpu and memory triggers alone nothing wakes the workload: it must be at least 1",
        );
    }
    if policy.fallback.is_some() && !has_outside && policy.modifiers.is_none() {
        spec.note_at("spec.fallback", "needs a trigger that is not cpu or memory");
    }
    if policy.fallback.is_some_and(|fallback| fallback.behavior == FallbackBehavior::ScalingModifiers)
        && policy.modifiers.is_none()
    {
        spec.note_at("spec.fallback.behavior", "scalingModifiers needs a formula");
    }
}

fn fallback(place: &Place<'_>) -> Option<Fallback> {
    place.only(&["failureThreshold", "replicas", "behavior"]);
    let behaviors = [
        ("static", FallbackBehavior::Static),
        ("currentReplicas", FallbackBehavior::CurrentReplicas),
        ("currentReplicasIfHigher", FallbackBehavior::CurrentReplicasIfHigher),
        ("currentReplicasIfLower", FallbackBehavior::CurrentReplicasIfLower),
        ("scalingModifiers", FallbackBehavior::ScalingModifiers),
    ];
    let failure_threshold = place.need("failureThreshold").and_then(|place| place.whole(0));
    let replicas = place.need("replicas").and_then(|place| place.whole(0));
    let behavior = place.get("behavior").and_then(|place| place.word(&behaviors)).unwrap_or_default();
    Some(Fallback { failure_threshold: failure_threshold?, replicas: replicas?, behavior })
}

fn modifiers(place: &Place<'_>, triggers: &[Trigger]) -> Option<Modifiers> {
    place.only(&["formula", "target", "activationTarget", "metricType"]);
    let formula_place = place.need("formula")?;
    let formula = formula_place.text()?;
    let names: Vec<&str> =
        triggers.iter().map(|trigger| trigger.name.as_str()).filter(|name| !name.is_empty()).collect();
    if let Err(error) = Formula::parse(&formula, &names) {
        formula_place.note(error.to_string());
    }
    let number = |place: Place<'_>| {
        let text = place.text()?;
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        if value.is_none() {
            place.note(format!("expected a number, found {text:?}"));
        }
        value
    };
    let target_place = place.need("target")?;
    let target = number(target_place.clone())?;
    if target <= 0.0 {
        target_place.note(format!("must be greater than 0, found {target}"));
    }
    let activation = place.get("activationTarget").and_then(number).unwrap_or(0.0);
    let types = [("AverageValue", CompositeType::AverageValue), ("Value", CompositeType::Value)];
    let metric_type = place.get("metricType").and_then(|place| place.word(&types)).unwrap_or_default();
    Some(Modifiers { formula, target, activation, metric_type })
}

/// What annotations ask for. Text that is no truth value pauses, as in KEDA; a replica count that is no number is a problem.
fn pauses(spec: &Place<'_>, annotations: &BTreeMap<String, String>) -> Annotations {
    let is_set = |name: &str| {
        let key = format!("autoscaling.keda.sh/{name}");
        annotations
            .get(&key)
            .is_some_and(|text| !matches!(text.as_str(), "false" | "False" | "FALSE" | "f" | "F" | "0"))
    };
    let paused_replicas = annotations.get("autoscaling.keda.sh/paused-replicas").and_then(|text| {
        let parsed = text.parse::<i32>().ok().filter(|replicas| *replicas >= 0);
        if parsed.is_none() {
            let path = "metadata.annotations.autoscaling.keda.sh/paused-replicas";
            spec.note_at(path, format!("expected a whole number from 0, found {text:?}"));
        }
        parsed
    });
    Annotations {
        is_paused: is_set("paused"),
        paused_replicas,
        paused_scale_in: is_set("paused-scale-in"),
        paused_scale_out: is_set("paused-scale-out"),
        force_activation: is_set("force-activation"),
    }
}

pub(super) fn scaled_job(
    spec: &Place<'_>,
    annotations: &BTreeMap<String, String>,
    lines: &mut BTreeMap<String, usize>,
) -> Option<Body> {
    spec.only(&[
        "jobTargetRef",
        "pollingInterval",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
        "rolloutStrategy",
        "rollout",
        "envSourceContainerName",
        "minReplicaCount",
        "maxReplicaCount",
        "scalingStrategy",
        "triggers",
    ]);
    let template = spec.need("jobTargetRef");
    let (triggers, written) = triggers(spec, lines, true);
    let mut policy = job::Policy::with_defaults(triggers);
    policy.polling_interval_ms = spec.seconds_at("pollingInterval", 1).unwrap_or(policy.polling_interval_ms);
    policy.min_replicas = spec.whole_at("minReplicaCount", 0);
    policy.max_replicas = spec.whole_at("maxReplicaCount", 1);
    let history = |name: &str, default: usize| {
        spec.whole_at(name, 0).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default)
    };
    policy.successful_history = history("successfulJobsHistoryLimit", policy.successful_history);
    policy.failed_history = history("failedJobsHistoryLimit", policy.failed_history);
    policy.is_paused = pauses(spec, annotations).is_paused;
    let rollouts = [
        ("gradual", job::Rollout::Gradual),
        ("immediate", job::Rollout::Immediate),
        ("default", job::Rollout::Gradual),
    ];
    let rollout = spec.get("rolloutStrategy").or_else(|| spec.get("rollout").and_then(|place| place.get("strategy")));
    policy.rollout = rollout.and_then(|place| place.word(&rollouts)).unwrap_or_default();
    if let Some(place) = spec.get("scalingStrategy") {
        strategy(&place, &mut policy);
    }
    let workload = workload::read(&template?);
    Some(Body::ScaledJob { policy: Box::new(policy), spec: written, workload })
}

fn strategy(place: &Place<'_>, policy: &mut job::Policy) {
    place.only(&[
        "strategy",
        "customScalingQueueLengthDeduction",
        "customScalingRunningJobPercentage",
        "pendingPodConditions",
        "multipleScalersCalculation",
    ]);
    let kinds = [
        ("default", StrategyKind::Default),
        ("custom", StrategyKind::Custom),
        ("accurate", StrategyKind::Accurate),
        ("eager", StrategyKind::Eager),
        ("exact", StrategyKind::Exact),
    ];
    let calculations =
        [("max", Calculation::Max), ("min", Calculation::Min), ("avg", Calculation::Avg), ("sum", Calculation::Sum)];
    policy.strategy.kind = place.get("strategy").and_then(|place| place.word(&kinds)).unwrap_or_default();
    policy.strategy.custom_deduction = place.whole_at("customScalingQueueLengthDeduction", i32::MIN);
    if let Some(share) = place.get("customScalingRunningJobPercentage") {
        policy.strategy.custom_percentage = share.text();
        if policy.strategy.custom_percentage.as_deref().is_some_and(|text| text.parse::<f64>().is_err()) {
            share.note("expected a number: KEDA would silently use the default strategy");
        }
    }
    if let Some(list) = place.get("pendingPodConditions") {
        policy.pending_pod_conditions = list.items().iter().filter_map(Place::text).collect();
    }
    policy.calculation =
        place.get("multipleScalersCalculation").and_then(|place| place.word(&calculations)).unwrap_or_default();
}
