//! Which replicas are updated now, and how: due ones in their order, as far as budgets allow.

use super::policy::{ContainerRecommendation, EvictionChange, Policy, Resource, Resources, UpdateMethod, UpdateMode};
use super::step::{Observation, Replica, ResizeState};
use super::update::{
    EvictionBudget, Priority, PriorityInput, UpdateQuestion, evictable_running, is_too_small, order, priority_of,
    should_update,
};
use crate::decision::{Action, Reason, TimeMs};
use crate::hpa::Phase;

/// Older replicas are updated for changes of 10 %.
const LIFETIME_MS: i64 = 12 * 3_600_000;
const MIN_CHANGE: f64 = 0.1;
/// The share of replicas that may be missing at once.
const TOLERANCE: f64 = 0.5;
/// A resize that is put off for this long has failed.
const DEFERRED_MS: i64 = 300_000;
/// A resize that takes this long has failed.
const IN_PROGRESS_MS: i64 = 3_600_000;

/// A replica that is due.
struct Due<'a> {
    replica: &'a Replica,
    priority: Priority,
}

pub(super) fn plan_updates(
    policy: &Policy,
    recommendations: &[ContainerRecommendation],
    observation: &Observation,
    now: TimeMs,
    actions: &mut Vec<Action>,
    reasons: &mut Vec<Reason>,
) {
    if matches!(policy.update_mode, UpdateMode::Off | UpdateMode::Initial) {
        let message = format!("the update mode {:?} leaves running replicas alone", policy.update_mode);
        reasons.push(Reason::new("UpdatesOff", message));
        return;
    }
    for resource in &policy.followed_by_horizontal {
        let message =
            format!("a horizontal autoscaler follows the utilization of {}: its request stays", resource.name());
        reasons.push(Reason::new("ResourceFollowedByHorizontal", message).about(resource.name()));
    }
    let is_live = |replica: &&Replica| matches!(replica.phase, Phase::Running | Phase::Pending);
    let count =
        |phase| i32::try_from(observation.pods.iter().filter(|pod| pod.phase == phase).count()).unwrap_or(i32::MAX);
    let budget = EvictionBudget {
        replicas: observation.replicas,
        running: count(Phase::Running),
        pending: count(Phase::Pending),
        min_replicas: policy.min_replicas,
        tolerance: TOLERANCE,
    };
    if is_too_small(budget) {
        let message = format!("fewer than {} live replicas: none is disrupted", policy.min_replicas);
        reasons.push(
            Reason::new("TooFewReplicas", message).with("running", budget.running).with("pending", budget.pending),
        );
        return;
    }
    let mut due: Vec<Due<'_>> = observation
        .pods
        .iter()
        .filter(is_live)
        .filter_map(|replica| due(policy, recommendations, replica, now))
        .collect();
    due.sort_by(|a, b| order((&a.priority, &a.replica.name), (&b.priority, &b.replica.name)));
    let by_budgets = observation.disruptions_allowed.iter().copied().min().unwrap_or(i32::MAX).max(0);
    let mut running_left = evictable_running(budget).min(by_budgets);
    let mut budget_left = by_budgets;
    for Due { replica, priority } in due {
        let Some(method) = method_of(policy.update_mode, replica, now) else {
            reasons.push(Reason::new("ResizeUnderWay", "a resize is under way").about(&replica.name));
            continue;
        };
        let is_running = replica.phase == Phase::Running;
        let has_room = if is_running {
            running_left > 0 && budget_left > 0
        } else {
            budget_left > 0 || method == UpdateMethod::Resize
        };
        if !has_room {
            let message = "due, but no further replica may be disrupted now";
            reasons.push(Reason::new("DisruptionBudget", message).about(&replica.name));
            continue;
        }
        if is_running {
            running_left -= 1;
            budget_left -= 1;
        }
        actions.push(Action::UpdateReplica { replica: replica.name.clone(), method });
        let reason = Reason::new("UpdateDue", format!("{} gets its recommended resources", replica.name))
            .about(&replica.name)
            .with("resource_diff", priority.resource_diff)
            .with("scale_up", if priority.is_scale_up { "true" } else { "false" })
            .with("outside_range", if priority.is_outside_range { "true" } else { "false" });
        reasons.push(reason);
    }
}

/// A replica whose requests should change, and may.
fn due<'a>(
    policy: &Policy,
    recommendations: &[ContainerRecommendation],
    replica: &'a Replica,
    now: TimeMs,
) -> Option<Due<'a>> {
    let changes = |resource: Resource| !policy.followed_by_horizontal.contains(&resource);
    let inputs: Vec<PriorityInput> = replica
        .containers
        .iter()
        .filter_map(|container| {
            let found = recommendations.iter().find(|one| one.container == container.name)?;
            let kept = |amounts: Resources| amounts.map(|resource, amount| changes(resource).then_some(amount));
            Some(PriorityInput {
                requests: container.requests,
                target: kept(found.target),
                lower: kept(found.lower),
                upper: kept(found.upper),
            })
        })
        .collect();
    let priority = priority_of(&inputs);
    let question = UpdateQuestion {
        resource_diff: priority.resource_diff,
        is_outside_range: priority.is_outside_range,
        age_ms: replica.started_at.map(|at| now.since_ms(at)),
        lifetime_ms: LIFETIME_MS,
        min_change: MIN_CHANGE,
        oom_after_ms: replica.containers.iter().filter_map(|container| container.oom_after_ms).min(),
    };
    let is_allowed = policy.eviction_requirements.iter().all(|requirement| {
        requirement.resources.iter().any(|resource| {
            inputs.iter().any(|input| {
                match (input.target.get(*resource), input.requests.get(*resource), requirement.change) {
                    (Some(target), request, EvictionChange::TargetHigherThanRequests) => target > request.unwrap_or(0),
                    (Some(target), request, EvictionChange::TargetLowerThanRequests) => target < request.unwrap_or(0),
                    _ => false,
                }
            })
        })
    });
    (should_update(question) && is_allowed).then_some(Due { replica, priority })
}

/// How the replica is updated; none while a resize is under way.
fn method_of(mode: UpdateMode, replica: &Replica, now: TimeMs) -> Option<UpdateMethod> {
    let has_failed = match replica.resize {
        None => None,
        Some(ResizeState::Infeasible) => Some(true),
        Some(ResizeState::Deferred(since)) => Some(now.since_ms(since) > DEFERRED_MS),
        Some(ResizeState::InProgress(since)) => Some(now.since_ms(since) > IN_PROGRESS_MS),
    };
    match (mode, has_failed) {
        (UpdateMode::InPlace | UpdateMode::InPlaceOrRecreate, None) => Some(UpdateMethod::Resize),
        (UpdateMode::InPlaceOrRecreate, Some(true)) => Some(UpdateMethod::Evict),
        (UpdateMode::InPlace | UpdateMode::InPlaceOrRecreate, Some(_)) => None,
        _ => Some(UpdateMethod::Evict),
    }
}
