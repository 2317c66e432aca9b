//! From a raw recommendation to a size: windows, rates and bounds.
//!
//! Two ways, as upstream has them: the controller's defaults, and `behavior`. Windows look at unlimited recommendations. A percentage up is
//! rounded up, a percentage down is truncated, and both are of the size at the period's start.

use super::history::{History, changes_within};
use super::policy::{Policy, Rules, ScaleUpLimit, ScalingPolicyKind, Select};
use crate::decision::TimeMs;

/// What the windows made of a recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stabilized {
    /// The size.
    pub replicas: i32,
    /// The reason of `AbleToScale`.
    pub reason: &'static str,
}

/// What bounds and rates made of a stabilized size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounded {
    /// The size.
    pub replicas: i32,
    /// The reason of `ScalingLimited`.
    pub reason: &'static str,
}

/// The bounds that hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The least size.
    pub min: i32,
    /// The largest size.
    pub max: i32,
}

/// Without `behavior`: the highest recommendation of the window.
pub fn stabilize_by_default(history: &mut History, desired: i32, window_ms: i64, now: TimeMs) -> Stabilized {
    let cutoff = now.plus_ms(-window_ms);
    let known = history.recommendations.get_or_insert_default();
    let replicas =
        known.iter().filter(|known| known.at >= cutoff).fold(desired, |highest, known| highest.max(known.replicas));
    history.remember(desired, now, cutoff);
    let reason = if replicas == desired { "ReadyForNewScale" } else { "ScaleDownStabilized" };
    Stabilized { replicas, reason }
}

/// Without `behavior`: between the bounds, and one step up at most to `limit`.
pub fn bound_by_default(current: i32, stabilized: i32, limits: Limits, limit: ScaleUpLimit) -> Bounded {
    let step_limit = (limit.factor * f64::from(current)).max(limit.minimum) as i32;
    let allowed = limits.max.min(step_limit);
    if stabilized < limits.min {
        Bounded { replicas: limits.min, reason: "TooFewReplicas" }
    } else if stabilized > allowed {
        let reason = if limits.max > step_limit { "ScaleUpLimit" } else { "TooManyReplicas" };
        Bounded { replicas: allowed, reason }
    } else {
        Bounded { replicas: stabilized, reason: "DesiredWithinRange" }
    }
}

/// With `behavior`: the lowest recommendation of the window up, the highest of the window down.
pub fn stabilize_by_behavior(
    history: &mut History,
    current: i32,
    desired: i32,
    up_window_ms: i64,
    down_window_ms: i64,
    now: TimeMs,
) -> Stabilized {
    let (up_cutoff, down_cutoff) = (now.plus_ms(-up_window_ms), now.plus_ms(-down_window_ms));
    let (mut up, mut down) = (desired, desired);
    for known in history.recommendations.get_or_insert_default().iter() {
        if known.at > up_cutoff {
            up = up.min(known.replicas);
        }
        if known.at > down_cutoff {
            down = down.max(known.replicas);
        }
    }
    let mut replicas = current;
    if replicas < up {
        replicas = up;
    }
    if replicas > down {
        replicas = down;
    }
    history.remember(desired, now, up_cutoff.min(down_cutoff));
    let reason = match () {
        () if replicas == desired => "ReadyForNewScale",
        () if desired >= current => "ScaleUpStabilized",
        () => "ScaleDownStabilized",
    };
    Stabilized { replicas, reason }
}

/// With `behavior`: rates of both directions, then the bounds.
pub fn bound_by_behavior(
    history: &History,
    current: i32,
    stabilized: i32,
    limits: Limits,
    (up, down): (&Rules, &Rules),
    now: TimeMs,
) -> Bounded {
    if stabilized > current {
        let limit = up_limit(history, current, up, now).max(current);
        let allowed = limits.max.min(limit);
        if stabilized > allowed {
            let reason = if limits.max > limit { "ScaleUpLimit" } else { "TooManyReplicas" };
            return Bounded { replicas: allowed, reason };
        }
    } else if stabilized < current {
        let limit = down_limit(history, current, down, now).min(current);
        let allowed = limits.min.max(limit);
        if stabilized < allowed {
            let reason = if limits.min < limit { "ScaleDownLimit" } else { "TooFewReplicas" };
            return Bounded { replicas: allowed, reason };
        }
    }
    Bounded { replicas: stabilized, reason: "DesiredWithinRange" }
}

fn up_limit(history: &History, current: i32, rules: &Rules, now: TimeMs) -> i32 {
    let proposals = rules.policies.iter().map(|policy| {
        let start = size_at_start(history, current, policy.period_ms, now);
        match policy.kind {
            ScalingPolicyKind::Pods => start.saturating_add(policy.value),
            ScalingPolicyKind::Percent => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => proposals.max().unwrap_or(i32::MIN),
        Select::Min => proposals.min().unwrap_or(i32::MAX),
    }
}

fn down_limit(history: &History, current: i32, rules: &Rules, now: TimeMs) -> i32 {
    let proposals = rules.policies.iter().map(|policy| {
        let start = size_at_start(history, current, policy.period_ms, now);
        match policy.kind {
            ScalingPolicyKind::Pods => start.saturating_sub(policy.value),
            ScalingPolicyKind::Percent => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        // The largest change goes lowest.
        Select::Max => proposals.min().unwrap_or(i32::MAX),
        Select::Min => proposals.max().unwrap_or(i32::MIN),
    }
}

/// The size when the period began: what was added since is taken away, what was removed is added back.
fn size_at_start(history: &History, current: i32, period_ms: i64, now: TimeMs) -> i32 {
    let added = changes_within(&history.up_events, period_ms, now);
    let removed = changes_within(&history.down_events, period_ms, now);
    current.saturating_sub(added).saturating_add(removed)
}

/// Both stages, by `behavior` where there is one.
pub(super) fn normalize(
    policy: &Policy,
    history: &mut History,
    current: i32,
    desired: i32,
    limits: Limits,
    now: TimeMs,
) -> (Stabilized, Bounded) {
    let default_window = policy.timing.downscale_stabilization_ms;
    match &policy.behavior {
        None => {
            let stabilized = stabilize_by_default(history, desired, default_window, now);
            (stabilized, bound_by_default(current, stabilized.replicas, limits, policy.scale_up_limit))
        }
        Some(behavior) => {
            let (up, down) = (&behavior.scale_up, &behavior.scale_down);
            let up_window = up.stabilization_ms.unwrap_or(0);
            let down_window = down.stabilization_ms.unwrap_or(default_window);
            let stabilized = stabilize_by_behavior(history, current, desired, up_window, down_window, now);
            (stabilized, bound_by_behavior(history, current, stabilized.replicas, limits, (up, down), now))
        }
    }
}
