//! States of objects under the names of kube-state-metrics (its `docs/metrics`).

use std::sync::Arc;

use serde_json::Value;

use super::families::{Families, Labels};
use crate::objects::Object;
use crate::runtime::{ContainerSpec, ContainerState, ContainerStatus, ReplicaPhase, ReplicaStatus};

/// What replicas run on.
const NODE: &str = "local";

/// Pods and their containers.
pub(super) fn pods(families: &mut Families, replicas: &[ReplicaStatus]) {
    for replica in replicas {
        let spec = &replica.spec;
        let labels = Labels::new(&[("namespace", &spec.namespace), ("pod", &spec.name), ("uid", &spec.uid)]);
        let address = spec.address.to_string();
        let (kind, name) = (spec.workload_kind.as_str(), spec.workload.as_str());
        let info = [("node", NODE), ("pod_ip", address.as_str()), ("created_by_kind", kind), ("created_by_name", name)];
        families.gauge("kube_pod_info", &labels, &info, 1.0);
        let owner = [("owner_kind", kind), ("owner_name", name), ("owner_is_controller", "true")];
        families.gauge("kube_pod_owner", &labels, &owner, 1.0);
        families.gauge("kube_pod_created", &labels, &[], seconds(replica.created_at.0));
        if let Some(at) = replica.started_at {
            families.gauge("kube_pod_start_time", &labels, &[], seconds(at.0));
        }
        if let Some(at) = replica.finished_at {
            families.gauge("kube_pod_completion_time", &labels, &[], seconds(at.0));
        }
        for (phase, name) in [
            (Some(ReplicaPhase::Pending), "Pending"),
            (Some(ReplicaPhase::Running), "Running"),
            (Some(ReplicaPhase::Succeeded), "Succeeded"),
            (Some(ReplicaPhase::Failed), "Failed"),
            (None, "Unknown"),
        ] {
            families.truth("kube_pod_status_phase", &labels, &[("phase", name)], phase == Some(replica.phase));
        }
        for (condition, is_so) in [("true", replica.is_ready), ("false", !replica.is_ready), ("unknown", false)] {
            families.truth("kube_pod_status_ready", &labels, &[("condition", condition)], is_so);
        }
        let (init, main) = replica.containers.split_at(spec.init_containers.len().min(replica.containers.len()));
        for (status, container) in init.iter().zip(&spec.init_containers) {
            let labels = labels.and("container", &status.name);
            families.gauge("kube_pod_init_container_info", &labels, &[("image", &container.image)], 1.0);
            let count = (f64::from(status.restarts), replica.created_at);
            families.counter("kube_pod_init_container_status_restarts_total", &labels, &[], count);
        }
        for (status, container) in main.iter().zip(&spec.containers) {
            container_states(families, replica, &labels.and("container", &status.name), status, container);
        }
    }
}

fn container_states(
    families: &mut Families,
    replica: &ReplicaStatus,
    labels: &Labels,
    status: &ContainerStatus,
    container: &ContainerSpec,
) {
    families.gauge("kube_pod_container_info", labels, &[("image", &container.image)], 1.0);
    let restarts = (f64::from(status.restarts), replica.created_at);
    families.counter("kube_pod_container_status_restarts_total", labels, &[], restarts);
    families.truth("kube_pod_container_status_ready", labels, &[], status.is_ready);
    let (is_running, is_waiting) = (
        matches!(status.state, ContainerState::Running { .. }),
        matches!(status.state, ContainerState::Waiting { .. }),
    );
    families.truth("kube_pod_container_status_running", labels, &[], is_running);
    families.truth("kube_pod_container_status_waiting", labels, &[], is_waiting);
    families.truth("kube_pod_container_status_terminated", labels, &[], !is_running && !is_waiting);
    match &status.state {
        ContainerState::Waiting { reason, .. } => {
            families.gauge("kube_pod_container_status_waiting_reason", labels, &[("reason", reason)], 1.0);
        }
        ContainerState::Ended(end) => {
            let reason = [("reason", word(&end.reason))];
            families.gauge("kube_pod_container_status_terminated_reason", labels, &reason, 1.0);
        }
        ContainerState::Running { since, .. } => {
            families.gauge("kube_pod_container_state_started", labels, &[], seconds(since.0));
        }
    }
    if let Some(end) = &status.last_end {
        let reason = [("reason", word(&end.reason))];
        families.gauge("kube_pod_container_status_last_terminated_reason", labels, &reason, 1.0);
        let exit_code = f64::from(end.exit_code);
        families.gauge("kube_pod_container_status_last_terminated_exitcode", labels, &[], exit_code);
    }
    for (name, amounts) in [
        ("kube_pod_container_resource_requests", container.requests),
        ("kube_pod_container_resource_limits", container.limits),
    ] {
        let cpu = amounts.cpu_milli.map(|milli| ("cpu", "core", milli as f64 / 1000.0));
        let memory = amounts.memory_bytes.map(|bytes| ("memory", "byte", bytes as f64));
        for (resource, unit, value) in cpu.into_iter().chain(memory) {
            families.gauge(name, labels, &[("node", NODE), ("resource", resource), ("unit", unit)], value);
        }
    }
}

/// What was applied, by kind.
pub(super) fn objects(families: &mut Families, objects: &[Arc<Object>]) {
    for object in objects {
        match object.kind.as_str() {
            "Deployment" => workload(families, object, "deployment", &DEPLOYMENT),
            "StatefulSet" => workload(families, object, "statefulset", &STATEFUL_SET),
            "Job" => job(families, object),
            "HorizontalPodAutoscaler" => horizontal(families, object),
            "VerticalPodAutoscaler" => vertical(families, object),
            "PodDisruptionBudget" => budget(families, object),
            _ => {}
        }
    }
}

/// A metric, the number of the object that it tells, and what stands for a number that is not there: Kubernetes omits zeros.
type Numbers = [(&'static str, &'static str, Option<f64>)];

const DEPLOYMENT: [(&str, &str, Option<f64>); 8] = [
    ("kube_deployment_spec_replicas", "/spec/replicas", Some(1.0)),
    ("kube_deployment_status_replicas", "/status/replicas", Some(0.0)),
    ("kube_deployment_status_replicas_ready", "/status/readyReplicas", Some(0.0)),
    ("kube_deployment_status_replicas_available", "/status/availableReplicas", Some(0.0)),
    ("kube_deployment_status_replicas_unavailable", "/status/unavailableReplicas", Some(0.0)),
    ("kube_deployment_status_replicas_updated", "/status/updatedReplicas", Some(0.0)),
    ("kube_deployment_status_observed_generation", "/status/observedGeneration", Some(0.0)),
    ("kube_deployment_metadata_generation", "/metadata/generation", Some(1.0)),
];

const STATEFUL_SET: [(&str, &str, Option<f64>); 7] = [
    ("kube_statefulset_replicas", "/spec/replicas", Some(1.0)),
    ("kube_statefulset_status_replicas", "/status/replicas", Some(0.0)),
    ("kube_statefulset_status_replicas_ready", "/status/readyReplicas", Some(0.0)),
    ("kube_statefulset_status_replicas_available", "/status/availableReplicas", Some(0.0)),
    ("kube_statefulset_status_replicas_current", "/status/currentReplicas", Some(0.0)),
    ("kube_statefulset_status_replicas_updated", "/status/updatedReplicas", Some(0.0)),
    ("kube_statefulset_status_observed_generation", "/status/observedGeneration", Some(0.0)),
];

const JOB: [(&str, &str, Option<f64>); 6] = [
    ("kube_job_spec_parallelism", "/spec/parallelism", Some(1.0)),
    ("kube_job_spec_completions", "/spec/completions", Some(1.0)),
    ("kube_job_spec_active_deadline_seconds", "/spec/activeDeadlineSeconds", None),
    ("kube_job_status_active", "/status/active", Some(0.0)),
    ("kube_job_status_succeeded", "/status/succeeded", Some(0.0)),
    ("kube_job_status_failed", "/status/failed", Some(0.0)),
];

const HORIZONTAL: [(&str, &str, Option<f64>); 4] = [
    ("kube_horizontalpodautoscaler_spec_min_replicas", "/spec/minReplicas", Some(1.0)),
    ("kube_horizontalpodautoscaler_spec_max_replicas", "/spec/maxReplicas", None),
    ("kube_horizontalpodautoscaler_status_current_replicas", "/status/currentReplicas", Some(0.0)),
    ("kube_horizontalpodautoscaler_status_desired_replicas", "/status/desiredReplicas", Some(0.0)),
];

const BUDGET: [(&str, &str, Option<f64>); 5] = [
    ("kube_poddisruptionbudget_status_current_healthy", "/status/currentHealthy", Some(0.0)),
    ("kube_poddisruptionbudget_status_desired_healthy", "/status/desiredHealthy", Some(0.0)),
    ("kube_poddisruptionbudget_status_pod_disruptions_allowed", "/status/disruptionsAllowed", Some(0.0)),
    ("kube_poddisruptionbudget_status_expected_pods", "/status/expectedPods", Some(0.0)),
    ("kube_poddisruptionbudget_status_observed_generation", "/status/observedGeneration", Some(0.0)),
];

fn numbers(families: &mut Families, object: &Object, labels: &Labels, numbers: &Numbers) {
    for (metric, path, without) in numbers {
        let found = match *path {
            "/metadata/generation" => Some(object.metadata.generation as f64),
            path => object.at(path).and_then(Value::as_f64).or(*without),
        };
        if let Some(value) = found {
            families.gauge(metric, labels, &[], value);
        }
    }
}

fn conditions(families: &mut Families, object: &Object, labels: &Labels, metric: &'static str) {
    for condition in object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default();
        let now = text("status").to_ascii_lowercase();
        for status in ["true", "false", "unknown"] {
            let more = [("condition", text("type")), ("status", status)];
            families.truth(metric, labels, &more, now == status);
        }
    }
}

fn labels_of(object: &Object, label: &'static str) -> Labels {
    Labels::new(&[("namespace", &object.metadata.namespace), (label, &object.metadata.name)])
}

fn created(families: &mut Families, object: &Object, labels: &Labels, metric: &'static str) {
    if let Some(at) = object.metadata.creation_timestamp.as_deref().and_then(second_of) {
        families.gauge(metric, labels, &[], at);
    }
}

fn workload(families: &mut Families, object: &Object, label: &'static str, all: &Numbers) {
    let labels = labels_of(object, label);
    numbers(families, object, &labels, all);
    if object.kind == "Deployment" {
        created(families, object, &labels, "kube_deployment_created");
        conditions(families, object, &labels, "kube_deployment_status_condition");
        let is_paused = object.at("/spec/paused").and_then(Value::as_bool).unwrap_or_default();
        families.truth("kube_deployment_spec_paused", &labels, &[], is_paused);
    } else {
        created(families, object, &labels, "kube_statefulset_created");
    }
}

fn job(families: &mut Families, object: &Object) {
    let labels = labels_of(object, "job_name");
    families.gauge("kube_job_info", &labels, &[], 1.0);
    created(families, object, &labels, "kube_job_created");
    numbers(families, object, &labels, &JOB);
    for owner in &object.metadata.owner_references {
        let more =
            [("owner_kind", owner.kind.as_str()), ("owner_name", owner.name.as_str()), ("owner_is_controller", "true")];
        families.gauge("kube_job_owner", &labels, &more, 1.0);
    }
    for (metric, path) in [
        ("kube_job_status_start_time", "/status/startTime"),
        ("kube_job_status_completion_time", "/status/completionTime"),
    ] {
        if let Some(at) = object.text(path).and_then(second_of) {
            families.gauge(metric, &labels, &[], at);
        }
    }
    for condition in object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let is_so = condition.get("status").and_then(Value::as_str) == Some("True");
        let metric = match condition.get("type").and_then(Value::as_str) {
            Some("Complete") => "kube_job_complete",
            Some("Failed") => "kube_job_failed",
            _ => continue,
        };
        for (name, value) in [("true", is_so), ("false", !is_so), ("unknown", false)] {
            families.truth(metric, &labels, &[("condition", name)], value);
        }
    }
}

fn horizontal(families: &mut Families, object: &Object) {
    let labels = labels_of(object, "horizontalpodautoscaler");
    let target = [
        ("scaletargetref_api_version", object.text("/spec/scaleTargetRef/apiVersion").unwrap_or_default()),
        ("scaletargetref_kind", object.text("/spec/scaleTargetRef/kind").unwrap_or_default()),
        ("scaletargetref_name", object.text("/spec/scaleTargetRef/name").unwrap_or_default()),
    ];
    families.gauge("kube_horizontalpodautoscaler_info", &labels, &target, 1.0);
    let generation = object.metadata.generation as f64;
    families.gauge("kube_horizontalpodautoscaler_metadata_generation", &labels, &[], generation);
    numbers(families, object, &labels, &HORIZONTAL);
    conditions(families, object, &labels, "kube_horizontalpodautoscaler_status_condition");
    for (metric, path, side) in [
        ("kube_horizontalpodautoscaler_spec_target_metric", "/spec/metrics", "target"),
        ("kube_horizontalpodautoscaler_status_target_metric", "/status/currentMetrics", "current"),
    ] {
        for item in object.at(path).and_then(Value::as_array).into_iter().flatten() {
            let Some((name, amounts)) = metric_of(item, side) else { continue };
            for (member, kind) in
                [("value", "value"), ("averageValue", "average"), ("averageUtilization", "utilization")]
            {
                if let Some(value) = amounts.get(member).and_then(amount) {
                    let more = [("metric_name", name), ("metric_target_type", kind)];
                    families.gauge(metric, &labels, &more, value);
                }
            }
        }
    }
}

/// The name of an autoscaler's metric, and its amounts on one side.
fn metric_of<'a>(item: &'a Value, side: &str) -> Option<(&'a str, &'a Value)> {
    let source =
        ["resource", "containerResource", "pods", "object", "external"].iter().find_map(|kind| item.get(*kind))?;
    let name = source.get("name").or_else(|| source.get("metric")?.get("name"))?.as_str()?;
    Some((name, source.get(side)?))
}

fn vertical(families: &mut Families, object: &Object) {
    let labels = labels_of(object, "verticalpodautoscaler");
    let (kind, name) = (
        object.text("/spec/targetRef/kind").unwrap_or_default(),
        object.text("/spec/targetRef/name").unwrap_or_default(),
    );
    let list = object.at("/status/recommendation/containerRecommendations").and_then(Value::as_array);
    for item in list.into_iter().flatten() {
        let container = item.get("containerName").and_then(Value::as_str).unwrap_or_default();
        for (side, metric) in [
            ("target", "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_target"),
            ("lowerBound", "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_lowerbound"),
            ("upperBound", "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_upperbound"),
            (
                "uncappedTarget",
                "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_uncappedtarget",
            ),
        ] {
            for (resource, unit) in [("cpu", "core"), ("memory", "byte")] {
                let Some(value) = item.get(side).and_then(|side| side.get(resource)).and_then(amount) else { continue };
                let more = [
                    ("container", container),
                    ("resource", resource),
                    ("unit", unit),
                    ("target_kind", kind),
                    ("target_name", name),
                ];
                families.gauge(metric, &labels, &more, value);
            }
        }
    }
}

fn budget(families: &mut Families, object: &Object) {
    let labels = labels_of(object, "poddisruptionbudget");
    created(families, object, &labels, "kube_poddisruptionbudget_created");
    numbers(families, object, &labels, &BUDGET);
}

/// A number, or a quantity as text.
fn amount(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => Some(tidemill_scaling::quantity::parse_milli(text).ok()? as f64 / 1000.0),
        other => other.as_f64(),
    }
}

fn second_of(text: &str) -> Option<f64> {
    Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond() as f64 / 1000.0)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// The stable word of a reason.
fn word(reason: &str) -> &str {
    reason.split_once(": ").map_or(reason, |(word, _)| word)
}
