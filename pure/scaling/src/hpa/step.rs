//! One decision of a horizontal autoscaler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{History, Recommendation};
use super::metric::Metric;
use super::normalize::{Limits, normalize};
use super::observation::{Look, Observation, Scale};
use super::policy::{Policy, Rules};
use super::proposal::{Context, Failure};
use crate::decision::{Action, Conditions, Outcome, Reason, TimeMs, Truth};
use crate::forecast;
use crate::victims::choose_victims;

/// What a horizontal autoscaler remembers between two steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Recommendations and events.
    #[serde(default)]
    pub history: History,
    /// A change that was decided and not yet seen; it becomes an event once the observed size shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingScale>,
    /// Since when each External metric with a fallback fails, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failing_since: BTreeMap<String, TimeMs>,
    /// The load seen so far, where a forecast is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<forecast::State>,
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// A decided change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingScale {
    /// The size before.
    pub from: i32,
    /// The size asked for.
    pub to: i32,
    /// When it was decided.
    pub at: TimeMs,
}

/// Decides the size of a workload (upstream's `reconcileAutoscaler`).
///
/// A size outside the bounds is brought back without asking metrics; a size of 0 with a minimum above it means that somebody paused the
/// workload; otherwise the largest proposal passes through windows, rates and bounds.
pub fn step(policy: &Policy, state: State, observation: &Observation, now: TimeMs) -> Outcome<State> {
    step_over(policy, state, observation.into(), now)
}

/// The same over what others own.
pub(crate) fn step_over(policy: &Policy, mut state: State, observation: Look<'_>, now: TimeMs) -> Outcome<State> {
    let scale = match (observation.scale, observation.selector_problem) {
        (Err(error), _) => {
            let message = format!("the scale cannot be read: {error}");
            state.conditions.set("AbleToScale", Truth::False, "FailedGetScale", message.clone(), now);
            return hold(state, Reason::new("FailedGetScale", message));
        }
        (Ok(scale), problem) => {
            state.conditions.set("AbleToScale", Truth::True, "SucceededGetScale", "the current scale was read", now);
            if let Some(problem) = problem {
                let (code, message) = selector_reason(problem);
                state.conditions.set("ScalingActive", Truth::False, code, message, now);
                return hold(state, Reason::new(code, message));
            }
            *scale
        }
    };
    let current = scale.spec_replicas;
    settle_pending(policy, &mut state, current);
    if state.history.recommendations.is_none() {
        state.history.recommendations = Some(vec![Recommendation { at: now, replicas: current }]);
    }
    let limits = Limits { min: policy.min_replicas, max: policy.max_replicas };
    if current == 0 && limits.min != 0 {
        let message = "the size is 0 and the minimum is not: somebody paused the workload";
        state.conditions.set("ScalingActive", Truth::False, "ScalingDisabled", message, now);
        return hold(state, Reason::new("ScalingDisabled", message));
    }
    if current > limits.max || current < limits.min {
        let (to, code, message) = if current > limits.max {
            (limits.max, "AboveMaximum", "Current number of replicas above Spec.MaxReplicas")
        } else {
            (limits.min, "BelowMinimum", "Current number of replicas below Spec.MinReplicas")
        };
        let reason =
            Reason::new(code, message).with("current", current).with("min", limits.min).with("max", limits.max);
        return rescale(state, observation, current, to, vec![reason], now);
    }
    decide_by_metrics(policy, state, observation, scale, now)
}

fn decide_by_metrics(
    policy: &Policy,
    mut state: State,
    observation: Look<'_>,
    scale: Scale,
    now: TimeMs,
) -> Outcome<State> {
    let current = scale.spec_replicas;
    let limits = Limits { min: policy.min_replicas, max: policy.max_replicas };
    let mut reasons = Vec::new();
    let polled = poll_metrics(policy, &mut state, observation, scale, now, &mut reasons);
    let invalid = polled.failures;
    if let Some((code, message)) = &polled.first_failure
        && (polled.best.is_none() || polled.best.as_ref().is_some_and(|best| best.replicas < current))
    {
        let message =
            format!("invalid metrics ({invalid} invalid out of {}), first error is: {message}", policy.metrics.len());
        state.conditions.set("ScalingActive", Truth::False, code, message.clone(), now);
        reasons.push(Reason::new("FailedComputeMetricsReplicas", message).with("current", current));
        return Outcome { state, actions: Vec::new(), reasons };
    }
    let Some(best) = polled.best else {
        let message = "the policy has no metrics";
        state.conditions.set("ScalingActive", Truth::False, "InvalidMetricSourceType", message, now);
        reasons.push(Reason::new("InvalidMetricSourceType", message));
        return Outcome { state, actions: Vec::new(), reasons };
    };
    let message = format!("the autoscaler was able to compute a size from {}", best.metric);
    state.conditions.set("ScalingActive", Truth::True, "ValidMetricFound", message, now);
    let (stabilized, bounded) = normalize(policy, &mut state.history, current, best.replicas, limits, now);
    state.conditions.set("AbleToScale", Truth::True, stabilized.reason, able_message(stabilized.reason), now);
    let is_limited = Truth::from(bounded.replicas != stabilized.replicas);
    state.conditions.set("ScalingLimited", is_limited, bounded.reason, limited_message(bounded.reason), now);
    let by = if best.replicas > current { "MetricAboveTarget" } else { "AllMetricsBelowTarget" };
    let message = if best.replicas > current {
        format!("{} above target", best.metric)
    } else {
        "All metrics below target".to_owned()
    };
    reasons.push(Reason::new(by, message).about(&best.metric).with("proposed", best.replicas).with("current", current));
    reasons
        .push(Reason::new(stabilized.reason, able_message(stabilized.reason)).with("stabilized", stabilized.replicas));
    reasons.push(
        Reason::new(bounded.reason, limited_message(bounded.reason))
            .with("desired", bounded.replicas)
            .with("min", limits.min)
            .with("max", limits.max),
    );
    rescale(state, observation, current, bounded.replicas, reasons, now)
}

/// The largest proposal and what failed.
struct Polled {
    best: Option<Best>,
    failures: usize,
    first_failure: Option<(&'static str, String)>,
}

struct Best {
    replicas: i32,
    metric: String,
}

fn poll_metrics(
    policy: &Policy,
    state: &mut State,
    observation: Look<'_>,
    scale: Scale,
    now: TimeMs,
    reasons: &mut Vec<Reason>,
) -> Polled {
    let context = Context::new(policy, observation, scale, now);
    let mut polled = Polled { best: None, failures: 0, first_failure: None };
    let mut demand: Option<f64> = None;
    for (index, metric) in policy.metrics.iter().enumerate() {
        let label = metric.label();
        let proposed = match observation.readings.get(index) {
            Some(reading) => context.propose(metric, reading),
            None => Err(Failure::from("the observation has no reading for it")),
        };
        match proposed {
            Ok(proposal) => {
                forget_failure(state, metric);
                let reason = Reason::new("MetricProposal", format!("{label} proposes {} replicas", proposal.replicas))
                    .about(&label)
                    .with("proposed", proposal.replicas)
                    .with_all(proposal.facts);
                reasons.push(reason);
                demand = match (demand, proposal.demand) {
                    (Some(known), Some(more)) => Some(known.max(more)),
                    (known, more) => known.or(more),
                };
                take(&mut polled.best, proposal.replicas, label);
            }
            Err(failure) => {
                let code = metric.failure_code();
                reasons.push(Reason::new(code, failure.message.clone()).about(&label).with_all(failure.facts));
                if let Some(replicas) = fallback_of(state, metric, now) {
                    let message =
                        format!("{label} has failed for long enough: its fallback proposes {replicas} replicas");
                    reasons.push(
                        Reason::new("ExternalMetricFallbackActive", message).about(&label).with("proposed", replicas),
                    );
                    take(&mut polled.best, replicas, label);
                } else {
                    polled.failures += 1;
                    polled.first_failure.get_or_insert((code, failure.message));
                }
            }
        }
    }
    if let Some(forecast_policy) = &policy.forecast {
        let known = state.forecast.take().unwrap_or_default();
        let outcome = forecast::step(forecast_policy, known, demand, measured_start_ms(observation), now);
        state.forecast = Some(outcome.state);
        reasons.extend(outcome.reasons);
        // A prediction joins the maximum: it raises, and what failed still fails.
        if let (Some(floor), true) = (outcome.floor, polled.best.is_some()) {
            take(&mut polled.best, floor, "forecast".to_owned());
        }
    }
    polled
}

/// The median time from start to ready of the pods that are ready.
fn measured_start_ms(observation: Look<'_>) -> Option<i64> {
    let ready = observation.pods.iter().filter(|pod| pod.ready == Some(true));
    let mut starts: Vec<i64> = ready.filter_map(|pod| Some(pod.ready_changed_at.since_ms(pod.started_at?))).collect();
    starts.retain(|start| *start >= 0);
    starts.sort_unstable();
    starts.get(starts.len() / 2).copied()
}

fn take(best: &mut Option<Best>, replicas: i32, metric: String) {
    if best.as_ref().is_none_or(|best| replicas > best.replicas) {
        *best = Some(Best { replicas, metric });
    }
}

fn forget_failure(state: &mut State, metric: &Metric) {
    if let Metric::External { name, .. } = metric {
        state.failing_since.remove(name);
    }
}

fn fallback_of(state: &mut State, metric: &Metric, now: TimeMs) -> Option<i32> {
    let Metric::External { name, fallback: Some(fallback), .. } = metric else { return None };
    let since = *state.failing_since.entry(name.clone()).or_insert(now);
    (now.since_ms(since) >= fallback.failure_duration_ms).then_some(fallback.replicas)
}

/// A decided change that the observed size shows becomes an event; one that it does not show was not carried out.
fn settle_pending(policy: &Policy, state: &mut State, current: i32) {
    let Some(pending) = state.pending.take() else { return };
    let Some(behavior) = &policy.behavior else { return };
    if pending.to == current {
        let (up, down): (&Rules, &Rules) = (&behavior.scale_up, &behavior.scale_down);
        state.history.store_event(pending.from, pending.to, pending.at, up, down);
    }
}

fn rescale(
    mut state: State,
    observation: Look<'_>,
    from: i32,
    to: i32,
    mut reasons: Vec<Reason>,
    now: TimeMs,
) -> Outcome<State> {
    if to == from {
        return Outcome { state, actions: Vec::new(), reasons };
    }
    state.pending = Some(PendingScale { from, to, at: now });
    let leaving = usize::try_from(from.saturating_sub(to)).unwrap_or(0);
    let victims = choose_victims(observation.pods, leaving);
    let why = reasons.last().map(|reason| reason.message.clone()).unwrap_or_default();
    let cause =
        reasons.iter().find(|reason| reason.code.contains("Target")).map_or(why, |reason| reason.message.clone());
    reasons.push(Reason::new("SuccessfulRescale", format!("New size: {to}; reason: {cause}")));
    Outcome { state, actions: vec![Action::Scale { from, to, victims }], reasons }
}

fn hold(state: State, reason: Reason) -> Outcome<State> {
    Outcome { state, actions: Vec::new(), reasons: vec![reason] }
}

fn selector_reason(problem: super::SelectorProblem) -> (&'static str, &'static str) {
    match problem {
        super::SelectorProblem::SelectorRequired => ("InvalidSelector", "the target has no selector"),
        super::SelectorProblem::InvalidSelector => ("InvalidSelector", "the target's selector cannot be parsed"),
        super::SelectorProblem::AmbiguousSelector => {
            ("AmbiguousSelector", "the selector matches pods of another autoscaler's target")
        }
    }
}

fn able_message(reason: &str) -> &'static str {
    match reason {
        "ScaleDownStabilized" => {
            "recent recommendations were higher than the current one: the highest of the window holds"
        }
        "ScaleUpStabilized" => "recent recommendations were lower than the current one: the lowest of the window holds",
        _ => "the recommended size matches the recommendations of the window",
    }
}

fn limited_message(reason: &str) -> &'static str {
    match reason {
        "TooFewReplicas" => "the desired size is below the minimum",
        "TooManyReplicas" => "the desired size is above the maximum",
        "ScaleUpLimit" => "the desired size grows faster than the rate allows",
        "ScaleDownLimit" => "the desired size shrinks faster than the rate allows",
        _ => "the desired size is within the acceptable range",
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}
