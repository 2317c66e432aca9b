//! What statuses say.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Plan, Seen, text_of};
use crate::objects::{LabelSelector, Object};
use crate::runtime::{ReplicaPhase, ReplicaStatus};
use crate::storage::Write;

/// Replaces an object's status, if that changes it.
pub(crate) fn put(object: &Arc<Object>, status: Value, plan: &mut Plan) {
    if object.body.get("status") == Some(&status) {
        return;
    }
    let mut next = (**object).clone();
    next.body.insert("status".to_owned(), status);
    let expected = Some(object.metadata.resource_version.clone());
    plan.writes.push(Write::Put { object: Box::new(next), expected });
}

/// How many replicas of a workload are how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkloadCounts {
    wanted: usize,
    all: usize,
    updated: usize,
    ready: usize,
}

impl WorkloadCounts {
    pub(super) fn of(alive: &[&ReplicaStatus], hash: &str, wanted: usize) -> Self {
        Self {
            wanted,
            all: alive.len(),
            updated: alive.iter().filter(|replica| replica.spec.template == hash).count(),
            ready: alive.iter().filter(|replica| replica.is_ready).count(),
        }
    }
}

/// The status of a Deployment or StatefulSet.
pub(super) fn workload(
    seen: &Seen,
    owner: &Arc<Object>,
    counts: WorkloadCounts,
    problem: Option<String>,
    plan: &mut Plan,
) {
    let mut status = Map::new();
    let mut set = |name: &str, value: usize| {
        if value > 0 || name == "replicas" {
            status.insert(name.to_owned(), json!(value));
        }
    };
    set("replicas", counts.all);
    set("updatedReplicas", counts.updated);
    set("readyReplicas", counts.ready);
    set("availableReplicas", counts.ready);
    if owner.kind == "Deployment" {
        set("unavailableReplicas", counts.wanted.saturating_sub(counts.ready));
    } else {
        set("currentReplicas", counts.updated);
    }
    status.insert("observedGeneration".to_owned(), json!(owner.metadata.generation));
    let is_available = counts.ready >= counts.wanted.saturating_sub(counts.wanted / 4);
    let is_complete = counts.updated >= counts.wanted && counts.all == counts.updated && counts.ready >= counts.wanted;
    let mut conditions = vec![
        condition(
            owner,
            seen,
            "Available",
            is_available,
            if is_available {
                ("MinimumReplicasAvailable", "Deployment has minimum availability.")
            } else {
                ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
            },
        ),
        condition(
            owner,
            seen,
            "Progressing",
            problem.is_none(),
            if is_complete {
                ("NewReplicaSetAvailable", "All replicas are of the present template and ready.")
            } else {
                ("ReplicaSetUpdated", "Replicas are on their way.")
            },
        ),
    ];
    if let Some(problem) = problem {
        conditions.push(condition(owner, seen, "ReplicaFailure", true, ("FailedCreate", &problem)));
    }
    status.insert("conditions".to_owned(), Value::Array(conditions));
    put(owner, Value::Object(status), plan);
}

/// A condition whose time moves only when its status flips.
pub(crate) fn condition(
    owner: &Object,
    seen: &Seen,
    name: &str,
    is_true: bool,
    (reason, message): (&str, &str),
) -> Value {
    let status = if is_true { "True" } else { "False" };
    let known = owner.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let since = known
        .filter(|known| {
            known.get("type").and_then(Value::as_str) == Some(name)
                && known.get("status").and_then(Value::as_str) == Some(status)
        })
        .find_map(|known| known.get("lastTransitionTime").cloned());
    json!({"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": since.unwrap_or_else(|| text_of(seen.now))})
}

/// How many of the replicas that a budget covers may go now.
pub(super) fn budget(seen: &Seen, budget: &Arc<Object>, plan: &mut Plan) {
    let selector = budget.at("/spec/selector").map(LabelSelector::of_spec).and_then(Result::ok).unwrap_or_default();
    let covered: Vec<&ReplicaStatus> = seen
        .replicas
        .iter()
        .filter(|replica| replica.spec.namespace == budget.metadata.namespace && selector.matches(&replica.spec.labels))
        .filter(|replica| matches!(replica.phase, ReplicaPhase::Pending | ReplicaPhase::Running))
        .collect();
    let expected: i64 = seen
        .objects
        .iter()
        .filter(|object| {
            matches!(object.kind.as_str(), "Deployment" | "StatefulSet")
                && object.metadata.namespace == budget.metadata.namespace
        })
        .filter(|object| selector.matches(&object.template_labels()))
        .map(|object| i64::from(object.replicas()))
        .sum();
    let healthy = covered.iter().filter(|replica| replica.is_ready && !replica.is_stopping).count() as i64;
    let number = |value: &Value| match value {
        Value::String(text) => text
            .strip_suffix('%')
            .and_then(|digits| digits.parse::<i64>().ok())
            .map(|percent| (expected * percent + 99) / 100),
        other => other.as_i64(),
    };
    let needed = match (budget.at("/spec/minAvailable"), budget.at("/spec/maxUnavailable")) {
        (Some(least), _) => number(least).unwrap_or_default(),
        (None, Some(most)) => expected - number(most).unwrap_or_default(),
        (None, None) => 0,
    };
    let allowed = (healthy - needed).max(0);
    let status = json!({
        "currentHealthy": healthy, "desiredHealthy": needed.max(0), "disruptionsAllowed": allowed, "expectedPods": expected,
        "observedGeneration": budget.metadata.generation,
    });
    put(budget, status, plan);
}
