//! Which replicas are updated, in which order, and how many may be disrupted.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::policy::{Resource, Resources};

/// A container that was killed for memory this soon after its start is updated at once.
const QUICK_OOM_MS: i64 = 600_000;

/// Requests and recommendation of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityInput {
    /// What it requests.
    pub requests: Resources,
    /// What it should.
    pub target: Resources,
    /// The bounds.
    pub lower: Resources,
    /// The bounds.
    pub upper: Resources,
}

/// How much an update of a replica would bring.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Priority {
    /// Over the resources, how far the sum of requests is from the sum of targets.
    pub resource_diff: f64,
    /// Whether anything is requested less than it should.
    pub is_scale_up: bool,
    /// Whether anything is requested outside its bounds.
    pub is_outside_range: bool,
}

/// The priority of a replica with these containers.
pub fn priority_of(containers: &[PriorityInput]) -> Priority {
    let mut priority = Priority { resource_diff: 0.0, is_scale_up: false, is_outside_range: false };
    for resource in Resource::ALL {
        // Upstream adds in milli-units, and takes a missing request for one of them.
        let unit = if resource == Resource::Memory { 1000.0 } else { 1.0 };
        let (mut requested, mut recommended, mut is_recommended) = (0.0, 0.0, false);
        for container in containers {
            let Some(target) = container.target.get(resource) else { continue };
            is_recommended = true;
            recommended += target as f64 * unit;
            let Some(request) = container.requests.get(resource) else {
                priority.is_scale_up = true;
                priority.is_outside_range = true;
                continue;
            };
            requested += request as f64 * unit;
            priority.is_scale_up |= target > request;
            priority.is_outside_range |= container.lower.get(resource).is_some_and(|lower| request < lower)
                || container.upper.get(resource).is_some_and(|upper| request > upper);
        }
        if is_recommended {
            let requested = f64::max(requested, 1.0);
            priority.resource_diff += (requested - recommended).abs() / requested;
        }
    }
    priority
}

/// What decides whether a replica is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateQuestion {
    /// See [`Priority::resource_diff`].
    pub resource_diff: f64,
    /// See [`Priority::is_outside_range`].
    pub is_outside_range: bool,
    /// How long the replica has run; none if it has not started.
    pub age_ms: Option<i64>,
    /// Older replicas are updated for smaller changes.
    pub lifetime_ms: i64,
    /// The least change that older replicas are updated for.
    pub min_change: f64,
    /// How long a container ran before it was killed for memory.
    pub oom_after_ms: Option<i64>,
}

/// Whether a replica is due.
pub fn should_update(question: UpdateQuestion) -> bool {
    let is_quick_oom = question.oom_after_ms.is_some_and(|ran| ran < QUICK_OOM_MS);
    if is_quick_oom && question.resource_diff == 0.0 {
        return false;
    }
    let is_old = question.age_ms.is_some_and(|age| age >= question.lifetime_ms);
    question.is_outside_range || is_quick_oom || (is_old && question.resource_diff >= question.min_change)
}

/// Replicas that raise their requests first, then those with the larger change, then by name.
pub(super) fn order(a: (&Priority, &str), b: (&Priority, &str)) -> Ordering {
    b.0.is_scale_up
        .cmp(&a.0.is_scale_up)
        .then(b.0.resource_diff.total_cmp(&a.0.resource_diff))
        .then_with(|| a.1.cmp(b.1))
}

/// How many replicas may be disrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvictionBudget {
    /// Replicas that the workload should have.
    pub replicas: i32,
    /// Replicas that run.
    pub running: i32,
    /// Replicas that have not started.
    pub pending: i32,
    /// With fewer live replicas nothing is disrupted.
    pub min_replicas: i32,
    /// The share that may be missing at once.
    pub tolerance: f64,
}

/// How many running replicas may be disrupted now; pending ones always may, unless the workload is too small.
pub fn evictable_running(budget: EvictionBudget) -> i32 {
    if is_too_small(budget) {
        return 0;
    }
    let tolerance = (budget.tolerance * f64::from(budget.replicas)) as i32;
    if tolerance == 0 {
        return i32::from(budget.running == budget.replicas && budget.running > 0);
    }
    (budget.running - (budget.replicas - tolerance)).clamp(0, budget.running.max(0))
}

/// How many replicas that have not started may be replaced: all of them, unless the workload is too small.
pub fn evictable_pending(budget: EvictionBudget) -> i32 {
    if is_too_small(budget) { 0 } else { budget.pending.max(0) }
}

/// Whether the workload has too few replicas to disrupt any.
pub(super) fn is_too_small(budget: EvictionBudget) -> bool {
    budget.running + budget.pending < budget.min_replicas
}
