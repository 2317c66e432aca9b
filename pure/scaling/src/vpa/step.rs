//! One decision of a vertical autoscaler: take samples, recommend, plan updates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cap::{cap, limits_for};
use super::container::ContainerState;
use super::estimate::estimate;
use super::policy::{ContainerRecommendation, EvictionChange, Policy, Resource, Resources, UpdateMethod, UpdateMode};
use super::round_up;
use super::update::{
    EvictionBudget, Priority, PriorityInput, UpdateQuestion, evictable_running, is_too_small, order, priority_of,
    should_update,
};
use crate::decision::{Action, Conditions, Outcome, Reason, TimeMs, Truth};
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

/// One look at a workload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observation {
    /// Usage since the last look. The first look may hold days of it, from the lake.
    pub samples: Vec<Sample>,
    /// Out-of-memory kills since the last look.
    pub ooms: Vec<Oom>,
    /// Replicas that the workload should have.
    pub replicas: i32,
    /// The replicas that it has.
    pub pods: Vec<Replica>,
    /// How many disruptions each PodDisruptionBudget that covers it allows now.
    pub disruptions_allowed: Vec<i32>,
}

/// Usage of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The replica.
    pub replica: String,
    /// The container.
    pub container: String,
    /// When.
    pub at: TimeMs,
    /// How much.
    pub usage: Resources,
}

/// An out-of-memory kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oom {
    /// The replica.
    pub replica: String,
    /// The container.
    pub container: String,
    /// When.
    pub at: TimeMs,
    /// What it requested, in bytes.
    pub requested_bytes: i64,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// When it was started.
    pub started_at: Option<TimeMs>,
    /// Its containers.
    pub containers: Vec<ReplicaContainer>,
    /// A resize that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeState>,
}

/// A container of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaContainer {
    /// Its name.
    pub name: String,
    /// What it requests.
    pub requests: Resources,
    /// Its limits.
    #[serde(default)]
    pub limits: Resources,
    /// How long it ran before it was last killed for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_after_ms: Option<i64>,
}

/// Where a resize stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeState {
    /// It cannot be done on this node.
    Infeasible,
    /// It waits for room, since then.
    Deferred(TimeMs),
    /// It is being done, since then.
    InProgress(TimeMs),
}

/// What a vertical autoscaler remembers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The history of each container.
    pub containers: BTreeMap<String, ContainerState>,
    /// `RecommendationProvided`, `LowConfidence`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// Takes samples, recommends for every container with a history, and plans which replicas to update.
pub fn step(policy: &Policy, mut state: State, observation: &Observation, now: TimeMs) -> Outcome<State> {
    let mut reasons = Vec::new();
    take_samples(&mut state, observation, now, &mut reasons);
    let recommendations = recommend(policy, &state, observation, &mut reasons);
    if recommendations.is_empty() {
        let message = "no container has a history yet";
        state.conditions.set("RecommendationProvided", Truth::False, "NotEnoughHistory", message, now);
        reasons.push(Reason::new("NotEnoughHistory", message));
        return Outcome { state, actions: Vec::new(), reasons };
    }
    state.conditions.set("RecommendationProvided", Truth::True, "RecommendationProvided", "", now);
    let least = recommendations.iter().map(|one| one.confidence).fold(f64::INFINITY, f64::min);
    let is_low = least < 1.0;
    let message = format!("the shortest history reaches {least:.3} days");
    state.conditions.set(
        "LowConfidence",
        Truth::from(is_low),
        if is_low { "LowConfidence" } else { "Confident" },
        message,
        now,
    );
    let mut actions = vec![Action::Recommend { containers: recommendations.clone() }];
    plan_updates(policy, &recommendations, observation, now, &mut actions, &mut reasons);
    Outcome { state, actions, reasons }
}

fn take_samples(state: &mut State, observation: &Observation, now: TimeMs, reasons: &mut Vec<Reason>) {
    state.containers.retain(|_, container| !container.is_expired(now));
    let mut rejected = 0_usize;
    for sample in &observation.samples {
        let container = state.containers.entry(sample.container.clone()).or_insert_with(|| ContainerState::new(now));
        if let Some(milli) = sample.usage.cpu_milli {
            rejected += usize::from(container.add_cpu(&sample.replica, sample.at, milli).is_err());
        }
        if let Some(bytes) = sample.usage.memory_bytes {
            rejected += usize::from(container.add_memory(&sample.replica, sample.at, bytes).is_err());
        }
    }
    for oom in &observation.ooms {
        let container = state.containers.entry(oom.container.clone()).or_insert_with(|| ContainerState::new(now));
        if container.add_oom(&oom.replica, oom.at, oom.requested_bytes).is_ok() {
            let message = format!("{} was killed for memory: its peak is raised", oom.replica);
            reasons.push(
                Reason::new("OutOfMemory", message).about(&oom.container).with("requested_bytes", oom.requested_bytes),
            );
        } else {
            rejected += 1;
        }
    }
    if rejected > 0 {
        let message = format!("{rejected} samples were negative, doubled or too old");
        reasons.push(Reason::new("SamplesRejected", message).with("rejected", rejected));
    }
}

fn recommend(
    policy: &Policy,
    state: &State,
    observation: &Observation,
    reasons: &mut Vec<Reason>,
) -> Vec<ContainerRecommendation> {
    let scaled: Vec<(&String, &ContainerState)> = state
        .containers
        .iter()
        .filter(|(name, container)| {
            policy.container(name).is_scaled && !(container.cpu.is_empty() && container.memory.is_empty())
        })
        .collect();
    let mut recommendations = Vec::new();
    for (name, container) in &scaled {
        let rules = policy.container(name);
        let estimate = estimate(container, scaled.len());
        let limits = limits_of(observation, name);
        let known = |amounts: Resources| {
            amounts.map(|resource, amount| {
                let has_history = match resource {
                    Resource::Cpu => !container.cpu.is_empty(),
                    Resource::Memory => !container.memory.is_empty(),
                };
                (has_history && rules.controlled.contains(&resource)).then_some(amount)
            })
        };
        let bounded = |amounts: Resources| {
            let capped = cap(known(amounts), &rules, policy.global_max, limits);
            capped.map(|resource, amount| {
                let step = match resource {
                    Resource::Cpu => policy.round_cpu_milli,
                    Resource::Memory => policy.round_memory_bytes,
                };
                Some(step.and_then(|step| round_up(amount, step)).unwrap_or(amount))
            })
        };
        let recommendation = ContainerRecommendation {
            container: (*name).clone(),
            target: bounded(estimate.target),
            lower: bounded(estimate.lower),
            upper: bounded(estimate.upper),
            uncapped: known(estimate.target),
            confidence: estimate.confidence,
        };
        reasons.push(reason_of(&recommendation, container));
        recommendations.push(recommendation);
    }
    recommendations
}

fn reason_of(recommendation: &ContainerRecommendation, container: &ContainerState) -> Reason {
    let (code, message) = if recommendation.confidence < 1.0 {
        (
            "NotEnoughHistory",
            format!("less than a day of samples: the bounds are {:.3} days wide", recommendation.confidence),
        )
    } else {
        ("RecommendationProvided", "90 % of the samples were below, and a margin".to_owned())
    };
    let mut reason = Reason::new(code, message)
        .about(&recommendation.container)
        .with("samples", container.samples)
        .with("confidence_days", recommendation.confidence);
    for (name, amount) in
        [("cpu_milli", recommendation.target.cpu_milli), ("memory_bytes", recommendation.target.memory_bytes)]
    {
        if let Some(amount) = amount {
            reason = reason.with(name, amount);
        }
    }
    if recommendation.target != recommendation.uncapped {
        reason = reason.with("capped", "true");
    }
    reason
}

fn limits_of(observation: &Observation, container: &str) -> Resources {
    let all = observation.pods.iter().flat_map(|pod| &pod.containers);
    all.filter(|found| found.name == container).map(|found| found.limits).next().unwrap_or_default()
}

/// A replica that is due.
struct Due<'a> {
    replica: &'a Replica,
    priority: Priority,
}

fn plan_updates(
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

/// The requests and limits that a replica's container gets from a recommendation.
pub fn applied(
    policy: &Policy,
    recommendation: &ContainerRecommendation,
    requests: Resources,
    limits: Resources,
) -> (Resources, Resources) {
    let rules = policy.container(&recommendation.container);
    let mut target = requests;
    for resource in Resource::ALL.into_iter().filter(|resource| !policy.followed_by_horizontal.contains(resource)) {
        if let Some(amount) = cap(recommendation.target, &rules, policy.global_max, limits).get(resource) {
            target.set(resource, Some(amount));
        }
    }
    (target, limits_for(target, requests, limits, rules.controlled_values))
}
