//! Zero, idle, or at least one: KEDA's decision table (`scale_scaledobjects.go`, `RequestScale`), in its order.

use super::State;
use super::metrics::Triggers;
use super::policy::Policy;
use crate::decision::{Reason, TimeMs, Truth};

/// What activity asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Nothing; the horizontal autoscaler may go on.
    Hold,
    /// This size.
    Scale(i32),
    /// Nothing, and the horizontal autoscaler must not act either.
    Rest,
}

/// What activity asks for and why.
pub(super) struct Decision {
    pub what: Activation,
    pub reasons: Vec<Reason>,
}

pub(super) fn decide(
    policy: &Policy,
    state: &mut State,
    triggers: &Triggers,
    created_at: TimeMs,
    current: i32,
    now: TimeMs,
) -> Decision {
    if triggers.is_active || policy.annotations.force_activation {
        active(policy, state, triggers, current, now)
    } else {
        inactive(policy, state, triggers, created_at, current, now)
    }
}

fn active(policy: &Policy, state: &mut State, triggers: &Triggers, current: i32, now: TimeMs) -> Decision {
    let min = policy.min();
    state.conditions.set("Active", Truth::True, "ScalerActive", "something is active", now);
    let is_asleep = (policy.idle_replicas.is_some() && current < min) || current == 0;
    if triggers.has_error {
        state.conditions.set("Ready", Truth::Unknown, "PartialTriggerError", "a trigger fails, another is active", now);
    } else {
        state.conditions.set("Ready", Truth::True, "ScaledObjectReady", "every trigger answers", now);
    }
    if is_asleep && policy.annotations.paused_scale_out {
        return decision(Activation::Rest, Reason::new("PausedScaleOut", "scaling out is paused by annotation"));
    }
    if is_asleep {
        state.last_active_at = Some(now);
        let to = min.max(1);
        let what = if triggers.active.is_empty() { "force-activation".to_owned() } else { triggers.active.join(";") };
        let reason =
            Reason::new("ScaleTargetActivated", format!("woken by {what}")).with("from", current).with("to", to);
        return decision(Activation::Scale(to), reason);
    }
    // In KEDA one failing trigger freezes this clock although another is active; only the strict profile does.
    if !triggers.has_error || policy.profile == super::super::Profile::Native {
        state.last_active_at = Some(now);
    }
    decision(Activation::Hold, Reason::new("ScalerActive", "active: the metrics decide how many"))
}

fn inactive(
    policy: &Policy,
    state: &mut State,
    triggers: &Triggers,
    created_at: TimeMs,
    current: i32,
    now: TimeMs,
) -> Decision {
    let min = policy.min();
    if triggers.has_error {
        let falls_to_zero = policy.fallback.is_some_and(|fallback| fallback.replicas == 0);
        if policy.fallback.is_none() {
            state.conditions.set("Ready", Truth::False, "TriggerError", "a trigger fails and none is active", now);
        }
        if !falls_to_zero {
            state.conditions.set("Active", Truth::Unknown, "UnknownState", "a trigger fails and none is active", now);
            let message = "a trigger fails and none is active: nothing changes, because a failure is no zero";
            return decision(Activation::Rest, Reason::new("TriggerError", message).with("current", current));
        }
    } else {
        state.conditions.set("Ready", Truth::True, "ScaledObjectReady", "every trigger answers", now);
    }
    state.conditions.set("Active", Truth::False, "ScalerNotActive", "nothing is active", now);
    let is_above_rest = policy.idle_replicas.is_some_and(|idle| current > idle) || (current > 0 && min == 0);
    if is_above_rest {
        return cool_down(policy, state, created_at, current, now);
    }
    if policy.idle_replicas.is_none() && current < min {
        let reason = Reason::new("BelowMinimum", "below the minimum").with("current", current).with("min", min);
        return decision(Activation::Scale(min), reason);
    }
    let what = if policy.idle_replicas == Some(current) { Activation::Rest } else { Activation::Hold };
    decision(what, Reason::new("ScalerNotActive", "nothing is active"))
}

fn cool_down(policy: &Policy, state: &mut State, created_at: TimeMs, current: i32, now: TimeMs) -> Decision {
    if policy.annotations.paused_scale_in {
        return decision(Activation::Hold, Reason::new("PausedScaleIn", "scaling in is paused by annotation"));
    }
    let (since, period) = match state.last_active_at {
        Some(at) => (at, policy.cooldown_ms),
        None => (created_at, policy.initial_cooldown_ms),
    };
    let ends_at = since.plus_ms(period);
    if ends_at < now {
        let to = policy.idle_replicas.unwrap_or(policy.min());
        let reason = Reason::new("ScaleTargetDeactivated", "inactive for longer than the cooldown")
            .with("from", current)
            .with("to", to)
            .with("inactive_for_ms", now.since_ms(since));
        return decision(Activation::Scale(to), reason);
    }
    state.conditions.set("Active", Truth::False, "ScalerCooldown", "inactive, cooling down", now);
    let reason = Reason::new("ScalerCooldown", "inactive, cooling down")
        .with("inactive_for_ms", now.since_ms(since))
        .with("cooldown_ms", period);
    decision(Activation::Hold, reason)
}

fn decision(what: Activation, reason: Reason) -> Decision {
    Decision { what, reasons: vec![reason] }
}
