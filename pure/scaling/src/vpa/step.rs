//! One decision of a vertical autoscaler: take samples, recommend, plan updates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cap::{cap, limits_for};
use super::container::ContainerState;
use super::estimate::estimate;
use super::plan::plan_updates;
use super::policy::{ContainerRecommendation, Policy, Resource, Resources};
use super::round_up;
use crate::decision::{Action, Conditions, Outcome, Reason, TimeMs, Truth};
use crate::hpa::Phase;

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
    state.containers.values_mut().for_each(|container| container.forget_replicas(now));
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
