//! From readings of triggers to activity and to what the horizontal autoscaler is given.

use super::super::fallback::FallbackBehavior;
use super::super::trigger::{Failing, Target, Trigger, TriggerReading, TriggerValue, believed, milli};
use super::policy::{CompositeType, Modifiers, Policy};
use super::{Observation, State, Tick};
use crate::decision::{Fact, Reason, TimeMs, Truth};
use crate::formula::Formula;
use crate::hpa;

/// What all triggers say.
pub(super) struct Triggers {
    /// Whether any is active or falls back.
    pub is_active: bool,
    /// Whether any failed.
    pub has_error: bool,
    /// The metrics of triggers that are active.
    pub active: Vec<String>,
    /// One reading per metric of the generated horizontal autoscaler.
    pub readings: Vec<hpa::Reading>,
}

/// One trigger from outside.
struct Seen {
    value: Result<TriggerValue, Failing>,
    /// The size that it falls back to.
    fallback: Option<i32>,
}

pub(super) fn observe(
    policy: &Policy,
    state: &mut State,
    observation: &Observation,
    scale: hpa::Scale,
    now: TimeMs,
    reasons: &mut Vec<Reason>,
) -> Triggers {
    let is_poll = observation.tick != Tick::Sync;
    let mut triggers = Triggers { is_active: false, has_error: false, active: Vec::new(), readings: Vec::new() };
    let mut seen: Vec<(&Trigger, Seen)> = Vec::new();
    let mut resources = Vec::new();
    for (index, trigger) in policy.triggers.iter().enumerate() {
        let reading = observation.triggers.get(index);
        let Some((_, activation)) = trigger.target.outside() else {
            resources.push(match reading {
                Some(TriggerReading::Usage(usage)) => usage.clone(),
                Some(TriggerReading::Failed(failing)) => hpa::Reading::failed(failing.error.clone()),
                _ => hpa::Reading::failed("the observation has no usage for it"),
            });
            continue;
        };
        let value = match (reading, trigger.target.is_cached() && !is_poll) {
            // Between polls a cached trigger gives what the last poll had, with that poll's age.
            (_, true) => state
                .cached
                .get(&trigger.metric)
                .copied()
                .ok_or_else(|| Failing { error: "nothing was polled yet".to_owned(), since: now }),
            (reading, false) => believed(reading, policy.max_age_ms, now),
        };
        let one = note(policy, state, trigger, value, scale, is_poll);
        let is_active = one.value.as_ref().is_ok_and(|value| value.is_active.unwrap_or(value.value > activation));
        let falls_back = one.fallback.is_some();
        triggers.has_error |= one.value.is_err() && !falls_back;
        if is_active || falls_back {
            triggers.active.push(trigger.metric.clone());
        }
        reasons.push(reason_of(trigger, &one, is_active, activation, now));
        seen.push((trigger, one));
    }
    triggers.is_active = !triggers.active.is_empty();
    // CPU and memory alone cannot be inactive.
    if seen.is_empty() && !policy.triggers.is_empty() {
        triggers.is_active = true;
    }
    let outside: Vec<hpa::Reading> = match &policy.modifiers {
        Some(modifiers) => {
            vec![compose(policy, modifiers, &seen, scale, observation, now, &mut triggers, reasons)]
        }
        None => seen.iter().map(|(trigger, one)| reading_of(trigger, one, observation, now)).collect(),
    };
    triggers.readings = in_order(policy, outside, resources);
    if is_poll {
        let falls_back = seen.iter().any(|(_, one)| one.fallback.is_some());
        let (reason, message) = if falls_back {
            ("FallbackExists", "a trigger falls back")
        } else {
            ("NoFallbackFound", "no trigger falls back")
        };
        state.conditions.set("Fallback", Truth::from(falls_back), reason, message, now);
    }
    triggers
}

/// Counts failures (once per poll, whatever failed) and tells whether the trigger falls back.
fn note(
    policy: &Policy,
    state: &mut State,
    trigger: &Trigger,
    value: Result<TriggerValue, Failing>,
    scale: hpa::Scale,
    is_poll: bool,
) -> Seen {
    let health = state.health.entry(trigger.metric.clone()).or_default();
    if is_poll {
        health.note(value.is_err());
    }
    let is_over = policy.fallback.is_some_and(|fallback| health.failures > fallback.failure_threshold);
    let fallback =
        policy.fallback.filter(|_| value.is_err() && is_over).map(|fallback| fallback.replicas(scale.spec_replicas));
    if let (Ok(value), true) = (&value, is_poll && trigger.target.is_cached()) {
        state.cached.insert(trigger.metric.clone(), *value);
    }
    Seen { value, fallback }
}

fn reason_of(trigger: &Trigger, one: &Seen, is_active: bool, activation: f64, now: TimeMs) -> Reason {
    let subject = if trigger.name.is_empty() { &trigger.metric } else { &trigger.name };
    match (&one.value, one.fallback) {
        (Ok(value), _) => {
            let (code, word) = if is_active { ("TriggerActive", "active") } else { ("TriggerInactive", "inactive") };
            let mut reason =
                Reason::new(code, format!("{subject} is {word}")).about(subject).with("activation", activation);
            reason.facts.insert(0, Fact::observed("value", value.value, Some(value.observed_at), now));
            reason
        }
        (Err(failing), Some(replicas)) => {
            let message = format!("{subject} keeps failing ({}): it stands for {replicas} replicas", failing.error);
            let failed_for = now.since_ms(failing.since);
            Reason::new("TriggerFallback", message)
                .about(subject)
                .with("replicas", replicas)
                .with("failed_for_ms", failed_for)
        }
        (Err(failing), None) => {
            let message = format!("{subject} failed: {}", failing.error);
            Reason::new("TriggerError", message).about(subject).with("failed_for_ms", now.since_ms(failing.since))
        }
    }
}

fn reading_of(trigger: &Trigger, one: &Seen, observation: &Observation, now: TimeMs) -> hpa::Reading {
    match (&one.value, one.fallback) {
        (Ok(value), _) => hpa::Reading::samples(vec![milli(value.value)], value.observed_at),
        (Err(_), Some(replicas)) => match &trigger.target {
            Target::Value { value, .. } => instead(milli(*value), replicas, true, observation, now),
            Target::AverageValue { value, .. } => instead(milli(*value), replicas, false, observation, now),
            Target::Resource { .. } => hpa::Reading::failed("a resource has no fallback"),
        },
        (Err(failing), None) => hpa::Reading::failed(failing.error.clone()),
    }
}

/// A value that makes the horizontal autoscaler compute `replicas`.
fn instead(target_milli: i64, replicas: i32, is_value: bool, observation: &Observation, now: TimeMs) -> hpa::Reading {
    let total = i128::from(target_milli) * i128::from(replicas);
    let ready =
        observation.pods.iter().filter(|pod| pod.phase == hpa::Phase::Running && pod.ready == Some(true)).count();
    let samples = match (is_value, i128::try_from(ready)) {
        (false, _) => total,
        (true, Ok(ready)) if ready > 0 => total / ready,
        (true, _) => return hpa::Reading::failed("no ready replica to divide the fallback by"),
    };
    hpa::Reading::samples(vec![i64::try_from(samples).unwrap_or(i64::MAX)], now)
}

/// The formula's value. Activity is then its alone.
#[expect(clippy::too_many_arguments, reason = "one private call, each argument of its own kind")]
fn compose(
    policy: &Policy,
    modifiers: &Modifiers,
    seen: &[(&Trigger, Seen)],
    scale: hpa::Scale,
    observation: &Observation,
    now: TimeMs,
    triggers: &mut Triggers,
    reasons: &mut Vec<Reason>,
) -> hpa::Reading {
    let is_value = modifiers.metric_type == CompositeType::Value;
    let mut fall_back = |replicas: i32, why: &str, triggers: &mut Triggers| {
        triggers.is_active = true;
        let message = format!("{why}: the formula stands for {replicas} replicas");
        reasons.push(Reason::new("FormulaFallback", message).with("replicas", replicas));
        instead(milli(modifiers.target), replicas, is_value, observation, now)
    };
    let sees_nil = policy.fallback.is_some_and(|fallback| fallback.behavior == FallbackBehavior::ScalingModifiers);
    let failed = seen.iter().find(|(_, one)| one.value.is_err());
    let fallen = seen.iter().find_map(|(_, one)| one.fallback);
    if let (Some(replicas), false) = (fallen, sees_nil) {
        return fall_back(replicas, "a trigger keeps failing", triggers);
    }
    if let (Some((trigger, _)), false) = (failed, sees_nil && fallen.is_some()) {
        triggers.is_active = false;
        triggers.has_error = true;
        return hpa::Reading::failed(format!("the formula needs {}, which failed", trigger.metric));
    }
    let names: Vec<&str> =
        seen.iter().map(|(trigger, _)| trigger.name.as_str()).filter(|name| !name.is_empty()).collect();
    let value_of = |name: &str| {
        let (_, one) = seen.iter().find(|(trigger, _)| trigger.name == name)?;
        one.value.as_ref().ok().map(|value| value.value)
    };
    match Formula::parse(&modifiers.formula, &names).and_then(|formula| formula.evaluate(&value_of)) {
        Ok(Some(value)) => {
            triggers.is_active = value > modifiers.activation;
            let oldest =
                seen.iter().filter_map(|(_, one)| one.value.as_ref().ok()).map(|value| value.observed_at).min();
            let message = format!("{} is {value}", modifiers.formula);
            let mut reason = Reason::new("FormulaValue", message).with("target", modifiers.target);
            reason.facts.insert(0, Fact::observed("value", value, oldest, now));
            reasons.push(reason);
            hpa::Reading { observed_at: oldest, ..hpa::Reading::samples(vec![milli(value)], now) }
        }
        Ok(None) => match policy.fallback {
            Some(fallback) => fall_back(fallback.replicas(scale.spec_replicas), "the formula is nil", triggers),
            None => formula_failed("the formula is nil and there is no fallback".to_owned(), triggers, reasons),
        },
        Err(error) => formula_failed(format!("the formula cannot be computed {error}"), triggers, reasons),
    }
}

fn formula_failed(message: String, triggers: &mut Triggers, reasons: &mut Vec<Reason>) -> hpa::Reading {
    triggers.is_active = false;
    triggers.has_error = true;
    reasons.push(Reason::new("FormulaError", message.clone()));
    hpa::Reading::failed(message)
}

/// Readings in the order of the generated metrics.
fn in_order(policy: &Policy, outside: Vec<hpa::Reading>, resources: Vec<hpa::Reading>) -> Vec<hpa::Reading> {
    if policy.modifiers.is_some() {
        return outside.into_iter().chain(resources).collect();
    }
    let (mut outside, mut resources) = (outside.into_iter(), resources.into_iter());
    let next = |trigger: &Trigger| match trigger.target {
        Target::Resource { .. } => resources.next(),
        _ => outside.next(),
    };
    policy.triggers.iter().filter_map(next).collect()
}

/// The size that the load is worth when nothing runs: the largest `ceil(value / target)`.
pub(super) fn size_from_zero(policy: &hpa::Policy, readings: &[hpa::Reading], now: TimeMs) -> Option<i32> {
    let nothing = Ok(hpa::Scale { spec_replicas: 0, status_replicas: 0 });
    let from_zero = hpa::Policy { min_replicas: 0, behavior: None, forecast: None, ..policy.clone() };
    let look = hpa::Look { scale: &nothing, selector_problem: None, pods: &[], readings };
    let outcome = hpa::step_over(&from_zero, hpa::State::default(), look, now);
    let proposals = outcome.reasons.iter().filter_map(|reason| reason.fact("proposed"));
    proposals
        .filter_map(
            |fact| if let crate::decision::FactValue::Whole(value) = fact { i32::try_from(*value).ok() } else { None },
        )
        .max()
}
