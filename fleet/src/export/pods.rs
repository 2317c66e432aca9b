//! States of replicas and their containers under the names of kube-state-metrics (its `docs/metrics/workload/pod-metrics.md`).

use super::families::{Families, Labels};
use crate::runtime::{ContainerSpec, ContainerState, ContainerStatus, ReplicaPhase, ReplicaStatus};

/// What replicas run on.
const NODE: &str = "local";

pub(super) fn add(families: &mut Families, replicas: &[ReplicaStatus]) {
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

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// The stable word of a reason.
fn word(reason: &str) -> &str {
    reason.split_once(": ").map_or(reason, |(word, _)| word)
}
