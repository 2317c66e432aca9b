//! What autoscalers name: workloads, as far as scaling is concerned.

use std::collections::BTreeMap;

use super::place::Place;
use crate::vpa::Resources;

/// A workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    /// `spec.replicas`.
    pub replicas: Option<i32>,
    /// The labels of its pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Its containers.
    pub containers: Vec<ContainerSpec>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// What it requests.
    pub requests: Resources,
    /// Its limits.
    pub limits: Resources,
    /// Names of its environment variables.
    pub env: Vec<String>,
    /// Whether it takes more variables out of whole ConfigMaps or Secrets.
    pub has_env_from: bool,
    /// Secrets that it names.
    pub secrets: Vec<String>,
}

/// The workload under `spec`, or under a job's `jobTargetRef`.
pub(super) fn read(spec: &Place<'_>) -> Workload {
    let template = spec.get("template");
    let pod_labels = template
        .as_ref()
        .and_then(|template| template.get("metadata"))
        .map(|metadata| metadata.texts_at("labels"))
        .unwrap_or_default();
    let containers = template
        .and_then(|template| template.get("spec"))
        .and_then(|pod| pod.get("containers"))
        .map(|containers| containers.items().iter().filter_map(container).collect())
        .unwrap_or_default();
    Workload { replicas: spec.whole_at("replicas", 0), pod_labels, containers }
}

fn container(place: &Place<'_>) -> Option<ContainerSpec> {
    let resources = place.get("resources");
    let of = |name: &str| {
        resources.as_ref().and_then(|resources| resources.get(name)).map(|one| amounts(&one)).unwrap_or_default()
    };
    let mut env = Vec::new();
    let mut secrets = Vec::new();
    for variable in place.get("env").map(|env| env.items()).unwrap_or_default() {
        env.extend(variable.text_at("name"));
        let reference = variable.get("valueFrom").and_then(|from| from.get("secretKeyRef"));
        secrets.extend(reference.and_then(|reference| reference.text_at("name")));
    }
    Some(ContainerSpec {
        name: place.need("name")?.text()?,
        requests: of("requests"),
        limits: of("limits"),
        env,
        has_env_from: place.get("envFrom").is_some(),
        secrets,
    })
}

/// `cpu` and `memory` of a mapping; other resources are left out.
pub(super) fn amounts(place: &Place<'_>) -> Resources {
    Resources {
        cpu_milli: place.get("cpu").and_then(|place| place.milli()),
        memory_bytes: place.get("memory").and_then(|place| place.units()),
    }
}
