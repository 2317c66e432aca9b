//! What the alert rules and the dashboard of `examples/fleet` name is what is told.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_scaling::TimeMs;

use super::families::Families;
use super::{otlp, pods, scaling, states, usage};
use crate::objects::Object;
use crate::runtime::{
    ContainerEnd, ContainerSpec, ContainerState, ContainerStatus, ReplicaPhase, ReplicaSpec, ReplicaStatus, Resources,
    RestartPolicy, Usage,
};

fn container() -> ContainerSpec {
    let amounts = Resources { cpu_milli: Some(500), memory_bytes: Some(1 << 20) };
    ContainerSpec {
        name: "c".to_owned(),
        image: "shop:1".to_owned(),
        program: "sh".into(),
        args: Vec::new(),
        env: std::collections::BTreeMap::from([("PASSWORD".to_owned(), "hush".to_owned())]),
        working_dir: None,
        requests: amounts,
        limits: amounts,
        liveness: None,
        readiness: None,
        startup: None,
        pre_stop: None,
    }
}

pub(crate) fn replica(state: ContainerState) -> ReplicaStatus {
    let end = ContainerEnd {
        exit_code: 126,
        signal: None,
        reason: "CannotStart: no such file".to_owned(),
        started_at: TimeMs(1000),
        finished_at: TimeMs(2000),
    };
    let spec = ReplicaSpec {
        uid: "u".to_owned(),
        namespace: "shop".to_owned(),
        name: "a-1".to_owned(),
        workload_kind: "Deployment".to_owned(),
        workload: "a".to_owned(),
        owner_uid: "o".to_owned(),
        template: String::new(),
        attempt: 1,
        address: Ipv4Addr::LOCALHOST,
        labels: std::collections::BTreeMap::new(),
        init_containers: Vec::new(),
        containers: vec![container()],
        restart_policy: RestartPolicy::Always,
        grace_period: Duration::ZERO,
        active_deadline: None,
    };
    let container = ContainerStatus { name: "c".to_owned(), state, last_end: Some(end), is_ready: false, restarts: 3 };
    ReplicaStatus {
        spec,
        phase: ReplicaPhase::Running,
        is_stopping: false,
        is_ready: false,
        ready_changed_at: TimeMs(0),
        created_at: TimeMs(0),
        started_at: Some(TimeMs(1000)),
        finished_at: None,
        reason: None,
        message: None,
        containers: vec![container],
    }
}

fn object(value: Value) -> Arc<Object> {
    let mut value = value;
    value["metadata"] = json!({"name": "a", "namespace": "shop", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"kind": "ScaledJob", "name": "a", "uid": "o"}]});
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// All that a fleet can tell.
fn everything() -> Families {
    let mut families = Families::new(TimeMs(0), TimeMs(60_000));
    let waiting = ContainerState::Waiting { reason: "CrashLoopBackOff".to_owned(), message: String::new() };
    let running = ContainerState::Running { since: TimeMs(1000), pid: 7 };
    let replicas = [replica(waiting), replica(running)];
    let used = Usage {
        at: TimeMs(60_000),
        window: Duration::from_secs(1),
        containers: [("c".to_owned(), Resources { cpu_milli: Some(5), memory_bytes: Some(4096) })].into(),
        cpu_seconds: [("c".to_owned(), 1.5)].into(),
    };
    usage::add(&mut families, &replicas, |_| Some(used.clone()));
    pods::add(&mut families, &replicas);
    let conditions = json!([{"type": "ScalingActive", "status": "False"}, {"type": "Failed", "status": "True"}, {"type": "Complete", "status": "False"}]);
    let metric = |side: &str| json!([{"type": "Resource", "resource": {"name": "cpu", side: {"averageUtilization": 70, "averageValue": "70m"}}}]);
    let objects = [
        object(
            json!({"kind": "Deployment", "spec": {"replicas": 3}, "status": {"readyReplicas": 2, "conditions": conditions}}),
        ),
        object(json!({"kind": "StatefulSet", "spec": {"replicas": 1}})),
        object(json!({"kind": "Job", "spec": {}, "status": {"succeeded": 1, "conditions": conditions}})),
        object(json!({
            "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 5, "metrics": metric("target")},
            "status": {"conditions": conditions, "currentMetrics": metric("current")},
        })),
        object(json!({"kind": "ScaledObject", "spec": {}, "status": {"conditions": conditions}})),
        object(json!({"kind": "PodDisruptionBudget", "spec": {}, "status": {"disruptionsAllowed": 1}})),
        object(json!({
            "kind": "VerticalPodAutoscaler", "spec": {},
            "status": {"recommendation": {"containerRecommendations": [{"containerName": "c", "target": {"cpu": "250m", "memory": "1Mi"}}]}},
        })),
    ];
    states::add(&mut families, &objects);
    scaling::add(&mut families, &crate::scale::Counters::sample(), &BTreeSet::new());
    families
}

/// Names in a text that look like those of metrics of a fleet.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    let is_ours = |word: &&str| ["kube_", "container_", "tidemill_fleet_"].iter().any(|start| word.starts_with(start));
    words.filter(is_ours).map(ToOwned::to_owned).collect()
}

#[test]
fn rules_and_dashboard_name_what_is_told() {
    let families = everything();
    let mut told: BTreeSet<String> = families.samples.keys().map(|name| (*name).to_owned()).collect();
    for histogram in &families.histograms {
        told.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", histogram.name)));
    }
    // The reader of lines tells these of itself.
    for name in ["records", "records_refused", "gaps", "replicas_unread"] {
        told.insert(format!("tidemill_fleet_log_{name}_total"));
    }
    for (file, text) in [
        ("alerts.yaml", include_str!("../../../examples/fleet/alerts.yaml")),
        ("alerts-test.yaml", include_str!("../../../examples/fleet/alerts-test.yaml")),
        ("dashboard.json", include_str!("../../../examples/fleet/dashboard.json")),
        ("fleet-telemetry.md", include_str!("../../../docs/fleet-telemetry.md")),
    ] {
        let unknown: Vec<String> = named(text).difference(&told).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}; there are {told:#?}");
    }
}

#[test]
fn numbers_stand_as_kube_state_metrics_writes_them() {
    let families = everything();
    let value = |name: &str, label: (&str, &str)| {
        let (_, samples) = &families.samples[name];
        let has = |labels: &[(&'static str, String)]| labels.iter().any(|(n, v)| (*n, v.as_str()) == label);
        samples.iter().find(|sample| has(&sample.labels)).unwrap_or_else(|| panic!("{name} {label:?}")).value
    };
    assert_eq!(value("kube_deployment_spec_replicas", ("deployment", "a")), 3.0);
    assert_eq!(value("kube_deployment_status_replicas_unavailable", ("deployment", "a")), 0.0);
    assert_eq!(value("kube_horizontalpodautoscaler_spec_target_metric", ("metric_target_type", "average")), 0.07);
    assert_eq!(value("kube_horizontalpodautoscaler_status_target_metric", ("metric_target_type", "utilization")), 70.0);
    assert_eq!(value("kube_pod_container_resource_limits", ("unit", "byte")), 1_048_576.0);
    assert_eq!(value("kube_pod_container_status_last_terminated_reason", ("reason", "CannotStart")), 1.0);
    let target = "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_target";
    assert_eq!(value(target, ("resource", "cpu")), 0.25);
    assert_eq!(value("kube_job_failed", ("condition", "true")), 1.0);
}

#[test]
fn requests_are_bounded_and_hold_no_secret() {
    let all = otlp::metrics(everything(), usize::MAX);
    assert_eq!(all.len(), 1);
    let split = otlp::metrics(everything(), 1);
    let names = |requests: &[bytes::Bytes]| {
        let mut names = Vec::new();
        for request in requests {
            let request: Value = serde_json::from_slice(request).expect("JSON");
            let metrics =
                request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("metrics").clone();
            names.extend(metrics.iter().map(|metric| metric["name"].to_string()));
        }
        names
    };
    assert!(split.len() > 10);
    assert_eq!(names(&split), names(&all));
    assert!(!String::from_utf8_lossy(&all[0]).contains("hush"));
}
