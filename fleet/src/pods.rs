//! Replicas as pods, for clients that ask for them.

use serde_json::{Map, Value, json};

use crate::control::text_of;
use crate::objects::{Object, OwnerReference, find_kind};
use crate::runtime::{ContainerEnd, ContainerState, ContainerStatus, ReplicaPhase, ReplicaStatus, Usage};

/// The pod that shows a replica.
pub fn pod(replica: &ReplicaStatus) -> Object {
    let spec = &replica.spec;
    let mut pod = find_kind("Pod").map(|kind| Object::new(kind, &spec.namespace, &spec.name)).unwrap_or_default();
    pod.metadata.uid = spec.uid.clone();
    pod.metadata.labels = spec.labels.clone();
    pod.metadata.creation_timestamp = text_of(replica.created_at).as_str().map(ToOwned::to_owned);
    if replica.is_stopping && replica.finished_at.is_none() {
        pod.metadata.deletion_timestamp = text_of(crate::control::now()).as_str().map(ToOwned::to_owned);
    }
    pod.metadata.owner_references = vec![OwnerReference {
        api_version: find_kind(&spec.workload_kind).map(crate::objects::Kind::api_version).unwrap_or_default(),
        kind: spec.workload_kind.clone(),
        name: spec.workload.clone(),
        uid: spec.owner_uid.clone(),
        controller: Some(true),
    }];
    let containers: Vec<Value> = spec.containers.iter().map(container).collect();
    let mut body =
        json!({"containers": containers, "nodeName": "local", "restartPolicy": format!("{:?}", spec.restart_policy)});
    if !spec.init_containers.is_empty() {
        body["initContainers"] = spec.init_containers.iter().map(container).collect();
    }
    pod.body.insert("spec".to_owned(), body);
    pod.body.insert("status".to_owned(), status(replica));
    let text = serde_json::to_string(&pod.body).unwrap_or_default();
    // A version that is another whenever what is shown is another.
    pod.metadata.resource_version =
        u64::from_le_bytes(first_eight(blake3::hash(text.as_bytes()).as_bytes())).to_string();
    pod
}

fn first_eight(bytes: &[u8; 32]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    eight
}

/// What is shown of a container: its variables are not, because secrets are among them.
fn container(spec: &crate::runtime::ContainerSpec) -> Value {
    let amounts = |amounts: &crate::runtime::Resources| {
        let mut members = Map::new();
        members.extend(amounts.cpu_milli.map(|milli| ("cpu".to_owned(), json!(format!("{milli}m")))));
        members.extend(amounts.memory_bytes.map(|bytes| ("memory".to_owned(), json!(bytes.to_string()))));
        Value::Object(members)
    };
    let command: Vec<String> =
        std::iter::once(spec.program.display().to_string()).chain(spec.args.iter().cloned()).collect();
    json!({
        "name": spec.name, "image": spec.image, "command": command,
        "resources": {"requests": amounts(&spec.requests), "limits": amounts(&spec.limits)},
    })
}

fn status(replica: &ReplicaStatus) -> Value {
    let init_count = replica.spec.init_containers.len().min(replica.containers.len());
    let (init, main) = replica.containers.split_at(init_count);
    let truth = |is_true: bool| if is_true { "True" } else { "False" };
    let conditions = [
        (
            "Initialized",
            init.iter().all(|container| matches!(&container.state, ContainerState::Ended(end) if end.exit_code == 0)),
            replica.created_at,
        ),
        ("Ready", replica.is_ready, replica.ready_changed_at),
        ("ContainersReady", replica.is_ready, replica.ready_changed_at),
        ("PodScheduled", true, replica.created_at),
    ]
    .map(
        |(name, is_true, since)| json!({"type": name, "status": truth(is_true), "lastTransitionTime": text_of(since)}),
    );
    let mut status = json!({
        "phase": format!("{:?}", replica.phase),
        "podIP": replica.spec.address.to_string(),
        "podIPs": [{"ip": replica.spec.address.to_string()}],
        "hostIP": "127.0.0.1",
        "conditions": conditions,
        "containerStatuses": main.iter().map(|one| container_status(replica, one)).collect::<Vec<_>>(),
    });
    if !init.is_empty() {
        status["initContainerStatuses"] = init.iter().map(|one| container_status(replica, one)).collect();
    }
    if let Some(started) = replica.started_at {
        status["startTime"] = text_of(started);
    }
    if let Some(reason) = replica.reason.as_ref().filter(|_| replica.phase == ReplicaPhase::Failed) {
        status["reason"] = json!(reason);
    }
    if let Some(message) = &replica.message {
        status["message"] = json!(message);
    }
    status
}

fn container_status(replica: &ReplicaStatus, container: &ContainerStatus) -> Value {
    let ended = |end: &ContainerEnd| {
        let (reason, message) = end.reason.split_once(": ").unwrap_or((&end.reason, ""));
        let mut terminated = json!({
            "exitCode": end.exit_code, "reason": reason, "startedAt": text_of(end.started_at), "finishedAt": text_of(end.finished_at),
        });
        if let Some(signal) = end.signal {
            terminated["signal"] = json!(signal);
        }
        if !message.is_empty() {
            terminated["message"] = json!(message);
        }
        json!({"terminated": terminated})
    };
    let state = match &container.state {
        ContainerState::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        ContainerState::Running { since, pid } => json!({"running": {"startedAt": text_of(*since), "pid": pid}}),
        ContainerState::Ended(end) => ended(end),
    };
    let specs = replica.spec.init_containers.iter().chain(&replica.spec.containers);
    let image =
        specs.into_iter().find(|spec| spec.name == container.name).map(|spec| spec.image.clone()).unwrap_or_default();
    json!({
        "name": container.name, "image": image, "ready": container.is_ready, "restartCount": container.restarts,
        "started": matches!(container.state, ContainerState::Running { .. }),
        "state": state, "lastState": container.last_end.as_ref().map_or_else(|| json!({}), ended),
    })
}

/// `PodMetrics` of `metrics.k8s.io/v1beta1`.
pub fn metrics(replica: &ReplicaStatus, usage: &Usage) -> Value {
    let one = |(name, amounts): (&String, &crate::runtime::Resources)| {
        json!({"name": name, "usage": {
            "cpu": format!("{}m", amounts.cpu_milli.unwrap_or_default()),
            "memory": format!("{}Ki", amounts.memory_bytes.unwrap_or_default() / 1024),
        }})
    };
    json!({
        "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": replica.spec.name, "namespace": replica.spec.namespace, "labels": replica.spec.labels},
        "timestamp": text_of(usage.at), "window": format!("{:.3}s", usage.window.as_secs_f64()),
        "containers": usage.containers.iter().map(one).collect::<Vec<_>>(),
    })
}
