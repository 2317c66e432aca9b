//! One decision of a `ScaledObject`: zero, idle or more, and how many more.
//!
//! KEDA asks every trigger on two clocks, its poll and the horizontal autoscaler's sync. [`Tick`] says which of them this is; natively both are
//! one, so that a value is read once and used for everything.

mod activation;
mod metrics;
mod policy;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use policy::{Annotations, CompositeType, Modifiers, Policy};

use super::Profile;
use super::fallback::Health;
use super::trigger::{TriggerReading, TriggerValue};
use crate::decision::{Action, Conditions, Outcome, Reason, TimeMs, Truth};
use crate::hpa;
use activation::Activation;

/// Which clock asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tick {
    /// KEDA's poll: activation, idle, cooldown.
    Poll,
    /// The horizontal autoscaler's sync: from one up.
    Sync,
    /// Both in one, the native way.
    #[default]
    Both,
}

/// One look at a workload and its triggers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Which clock asks.
    #[serde(default)]
    pub tick: Tick,
    /// When the object was created.
    pub created_at: TimeMs,
    /// The scale subresource, or why it cannot be read.
    pub scale: Result<hpa::Scale, String>,
    /// The replicas.
    #[serde(default)]
    pub pods: Vec<hpa::Pod>,
    /// One reading per trigger, in the policy's order.
    pub triggers: Vec<TriggerReading>,
}

/// What a `ScaledObject` remembers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// When it was last active.
    #[serde(default)]
    pub last_active_at: Option<TimeMs>,
    /// Failures by metric.
    #[serde(default)]
    pub health: BTreeMap<String, Health>,
    /// The last polled values of triggers that cache, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cached: BTreeMap<String, TriggerValue>,
    /// Whether the last poll found it active.
    #[serde(default)]
    pub is_active: bool,
    /// What the horizontal autoscaler remembers.
    #[serde(default)]
    pub hpa: hpa::State,
    /// `Ready`, `Active`, `Fallback`, `Paused`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// Decides the size of a workload.
///
/// A pause wins over everything. Then activity decides between zero (or idle) and at least one; then the horizontal autoscaler decides how
/// many. A failing trigger never reads as zero, and never stops the others.
pub fn step(policy: &Policy, mut state: State, observation: &Observation, now: TimeMs) -> Outcome<State> {
    let scale = match &observation.scale {
        Ok(scale) => *scale,
        Err(error) => {
            let message = format!("the scale cannot be read: {error}");
            state.conditions.set("Ready", Truth::False, "ErrorGettingCurrentReplicas", message.clone(), now);
            return hold(state, vec![Reason::new("ErrorGettingCurrentReplicas", message)]);
        }
    };
    if let Some(outcome) = paused(policy, &mut state, scale.spec_replicas, now) {
        return outcome;
    }
    state.conditions.set("Paused", Truth::False, "ScaledObjectUnpaused", "not paused", now);
    let mut reasons = Vec::new();
    let triggers = metrics::observe(policy, &mut state, observation, scale, now, &mut reasons);
    let mut current = scale.spec_replicas;
    let mut target = current;
    if observation.tick != Tick::Sync {
        state.is_active = triggers.is_active;
        let activation = activation::decide(policy, &mut state, &triggers, observation.created_at, current, now);
        reasons.extend(activation.reasons);
        match activation.what {
            Activation::Hold => {}
            Activation::Scale(to) => target = to,
            Activation::Rest => return finish(state, observation, scale.spec_replicas, target, reasons),
        }
        let is_down = target < current;
        if is_down || (observation.tick == Tick::Poll && target != current) {
            return finish(state, observation, scale.spec_replicas, target, reasons);
        }
    }
    let is_resting = policy.idle_replicas == Some(current) && !state.is_active && !policy.annotations.force_activation;
    if observation.tick == Tick::Poll || target == 0 || is_resting {
        return finish(state, observation, scale.spec_replicas, target, reasons);
    }
    let is_waking = target > current;
    current = target;
    let mut seen = scale;
    if is_waking {
        // The size that activation asked for does not exist yet; the rest of this decision takes it for granted.
        seen = hpa::Scale { spec_replicas: current, status_replicas: current };
    }
    let readings = triggers.readings;
    let generated = policy.horizontal();
    if is_waking && policy.profile == Profile::Native && !policy.annotations.paused_scale_out {
        let demand = metrics::size_from_zero(&generated, &readings, now);
        let to = demand.unwrap_or(target).clamp(target, generated.max_replicas.max(target));
        if let Some(demand) = demand {
            let message = format!("waking straight to the {to} replicas that the load is worth");
            reasons
                .push(Reason::new("ScaleTargetActivatedToDemand", message).with("demand", demand).with("desired", to));
        }
        return finish(state, observation, scale.spec_replicas, to, reasons);
    }
    let seen = Ok(seen);
    let look = hpa::Look { scale: &seen, selector_problem: None, pods: &observation.pods, readings: &readings };
    let outcome = hpa::step_over(&generated, std::mem::take(&mut state.hpa), look, now);
    let to = outcome.scaled_to().unwrap_or(current);
    state.hpa = outcome.state;
    reasons.extend(outcome.reasons);
    finish(state, observation, scale.spec_replicas, to, reasons)
}

fn paused(policy: &Policy, state: &mut State, current: i32, now: TimeMs) -> Option<Outcome<State>> {
    let annotations = &policy.annotations;
    if !annotations.is_paused && annotations.paused_replicas.is_none() {
        return None;
    }
    state.conditions.set("Paused", Truth::True, "ScaledObjectPaused", "paused by annotation", now);
    // A paused object has no horizontal autoscaler, so what that one remembered is gone as well.
    state.hpa = hpa::State::default();
    let to = annotations.paused_replicas.unwrap_or(current);
    let message = format!("paused by annotation at {to} replicas");
    let reason = Reason::new("ScaledObjectPaused", message).with("current", current);
    let actions =
        if to == current { Vec::new() } else { vec![Action::Scale { from: current, to, victims: Vec::new() }] };
    Some(Outcome { state: std::mem::take(state), actions, reasons: vec![reason] })
}

fn finish(state: State, observation: &Observation, from: i32, to: i32, reasons: Vec<Reason>) -> Outcome<State> {
    let leaving = usize::try_from(from.saturating_sub(to)).unwrap_or(0);
    let victims = crate::choose_victims(&observation.pods, leaving);
    let actions = if to == from { Vec::new() } else { vec![Action::Scale { from, to, victims }] };
    Outcome { state, actions, reasons }
}

fn hold(state: State, reasons: Vec<Reason>) -> Outcome<State> {
    Outcome { state, actions: Vec::new(), reasons }
}

#[cfg(test)]
mod tests;
