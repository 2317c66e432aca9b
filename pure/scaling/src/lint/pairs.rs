//! Rules about several objects together: two scalers on one target, horizontal and vertical on one resource, labels that match nothing.

use super::{Report, find, target_of};
use crate::hpa;
use crate::manifest::{Body, Object};
use crate::vpa::{UpdateMode, shared_resources};

pub(super) fn check(objects: &[Object], report: &mut Report) {
    for (index, object) in objects.iter().enumerate() {
        if let Some(policy) = horizontal_of(object) {
            for other in &objects[..index] {
                two_scalers(object, other, report);
            }
            for other in objects {
                shared(object, &policy, other, report);
            }
        }
        if let Body::Vertical { policy, .. } = &object.body
            && matches!(policy.update_mode, UpdateMode::Auto | UpdateMode::Recreate | UpdateMode::InPlaceOrRecreate)
        {
            without_budget(object, objects, report);
        }
        selects_nothing(object, objects, report);
    }
}

/// The horizontal autoscaler that an object is, or that it generates.
fn horizontal_of(object: &Object) -> Option<hpa::Policy> {
    match &object.body {
        Body::Horizontal { policy, .. } => Some((**policy).clone()),
        Body::ScaledObject { policy, .. } => Some(policy.horizontal()),
        _ => None,
    }
}

fn same_target(one: &Object, other: &Object) -> bool {
    let (Some((a, _)), Some((b, _))) = (target_of(one), target_of(other)) else { return false };
    a == b && one.namespace == other.namespace
}

fn two_scalers(object: &Object, other: &Object, report: &mut Report) {
    if horizontal_of(other).is_none() || !same_target(object, other) {
        return;
    }
    let Some((target, path)) = target_of(object) else { return };
    let why = format!(
        "{} {} scales {} as well ({}:{}): each undoes what the other did",
        other.kind, other.name, target.name, other.file, other.line
    );
    report.error("two-scalers", object, path, why, "put all metrics into one object; the largest proposal wins there");
}

fn shared(object: &Object, policy: &hpa::Policy, other: &Object, report: &mut Report) {
    let Body::Vertical { policy: vertical, .. } = &other.body else { return };
    if !same_target(object, other) {
        return;
    }
    for shared in shared_resources(policy, vertical) {
        let name = shared.resource.name();
        let why = format!(
            "{} {} follows the utilization of {name}, a share of the request that this changes: the two chase each other",
            object.kind, object.name
        );
        let fix = format!(
            "give the horizontal one an averageValue of {name}, or take {name} out of controlledResources, or write updateMode: Off"
        );
        report.error("horizontal-and-vertical", other, "spec.targetRef", why, fix);
    }
}

fn without_budget(object: &Object, objects: &[Object], report: &mut Report) {
    let Some((target, _)) = target_of(object) else { return };
    let Some((_, workload)) = find(objects, object, target) else { return };
    let covers = |budget: &Object| match &budget.body {
        Body::Selects(labels) if budget.kind == "PodDisruptionBudget" && budget.namespace == object.namespace => {
            labels.iter().all(|(name, value)| workload.pod_labels.get(name) == Some(value))
        }
        _ => false,
    };
    if !objects.iter().any(covers) {
        let why =
            "replicas are evicted to change their size, and no PodDisruptionBudget says how many may be away at once";
        report.warn(
            "vertical-without-budget",
            object,
            "spec.updatePolicy",
            why,
            "add a PodDisruptionBudget for the target's pods",
        );
    }
}

fn selects_nothing(object: &Object, objects: &[Object], report: &mut Report) {
    let Body::Selects(labels) = &object.body else { return };
    let workloads: Vec<_> = objects
        .iter()
        .filter(|other| other.namespace == object.namespace)
        .filter_map(|other| if let Body::Workload(workload) = &other.body { Some(workload) } else { None })
        .collect();
    let matches = |labels: &std::collections::BTreeMap<String, String>| {
        workloads.iter().any(|workload| labels.iter().all(|(name, value)| workload.pod_labels.get(name) == Some(value)))
    };
    if !workloads.is_empty() && !labels.is_empty() && !matches(labels) {
        let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let why = format!("no workload of namespace {} has pods labelled {}", object.namespace, shown.join(","));
        report.error("selects-nothing", object, "spec.selector", why, "mend the labels");
    }
}
