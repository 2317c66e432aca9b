//! Rules about single autoscalers: missing targets and requests, targets out of the usual range, missing behavior, bounds, flapping.

use super::{Report, find, has_workloads, target_of};
use crate::hpa::{Metric, Policy, ResourceTarget, Select};
use crate::manifest::{Body, Object, Workload};
use crate::vpa::{self, UpdateMode};

/// Utilization targets that leave room for a burst and waste little, in percent.
const CPU_RANGE: std::ops::RangeInclusive<i32> = 60..=80;
const MEMORY_RANGE: std::ops::RangeInclusive<i32> = 70..=85;

pub(super) fn check(object: &Object, objects: &[Object], report: &mut Report) {
    forecast(object, report);
    let Some((target, path)) = target_of(object) else { return };
    let found = find(objects, object, target);
    if found.is_none() && has_workloads(objects, object) {
        let why =
            format!("no {} {} is among the manifests of namespace {}", target.kind, target.name, object.namespace);
        report.error("missing-target", object, path, why, "add it, or mend kind, name and namespace");
    }
    match &object.body {
        Body::Horizontal { policy, .. } => horizontal(object, policy, found.map(|(_, workload)| workload), report),
        Body::ScaledObject { policy, .. } => {
            let generated = policy.horizontal();
            requests(object, &generated, found.map(|(_, workload)| workload), "spec.triggers", report);
            ranges(object, &generated, "spec.triggers", report);
            flapping(object, &generated, "spec.advanced", report);
        }
        Body::Vertical { policy, .. } => vertical(object, policy, found, report),
        _ => {}
    }
}

/// A forecast that nothing reads, or that may not raise anything.
fn forecast(object: &Object, report: &mut Report) {
    const KEY: &str = "tidemill.dev/forecast";
    let path = "metadata.annotations";
    let written: Vec<&String> = object.annotations.keys().filter(|name| name.starts_with(KEY)).collect();
    let Some(first) = written.first() else { return };
    let (behavior, fixed) = match &object.body {
        Body::Horizontal { policy, .. } => (&policy.behavior, policy.min_replicas == policy.max_replicas),
        Body::ScaledObject { policy, .. } => (&policy.behavior, policy.min() == policy.max()),
        _ => {
            let why = format!("{first}: only a ScaledObject or a HorizontalPodAutoscaler has a forecast");
            report.warn("no-effect", object, path, why, "leave it out");
            return;
        }
    };
    if !object.annotations.contains_key(KEY) {
        let why = format!("{first} does nothing without {KEY}");
        report.warn("no-effect", object, path, why, format!("write {KEY}: preview, or leave it out"));
    } else if fixed || behavior.as_ref().is_some_and(|behavior| behavior.scale_up.select == Select::Disabled) {
        let why = "a forecast only raises the size, and this object may not grow";
        report.warn("no-effect", object, path, why, "leave the forecast out, or let the object grow");
    }
}

fn horizontal(object: &Object, policy: &Policy, workload: Option<&Workload>, report: &mut Report) {
    requests(object, policy, workload, "spec.metrics", report);
    ranges(object, policy, "spec.metrics", report);
    if policy.behavior.is_none() {
        let why = "without behavior the size may double every 15 s and falls to any size at once after 300 s";
        report.warn("missing-behavior", object, "spec", why, "write behavior with a scaleDown policy");
    }
    flapping(object, policy, "spec.behavior", report);
    if policy.min_replicas == policy.max_replicas {
        let why = "minReplicas and maxReplicas are the same: nothing can scale";
        report.warn("fixed-size", object, "spec", why, "raise maxReplicas, or leave the autoscaler out");
    }
}

/// A utilization is a share of a request that somebody must have written.
fn requests(object: &Object, policy: &Policy, workload: Option<&Workload>, path: &str, report: &mut Report) {
    let Some(workload) = workload else { return };
    for (index, metric) in policy.metrics.iter().enumerate() {
        let (resource, only) = match metric {
            Metric::Resource { resource, target: ResourceTarget::Utilization { .. } } => (resource, None),
            Metric::ContainerResource { resource, container, target: ResourceTarget::Utilization { .. } } => {
                (resource, Some(container))
            }
            _ => continue,
        };
        let place = format!("{path}[{index}]");
        if let Some(container) = only
            && !workload.containers.iter().any(|known| known.name == *container)
        {
            let why = format!("the target has no container {container}: the whole metric fails");
            report.error("missing-container", object, &place, why, "mend the container's name");
        }
        for container in workload.containers.iter().filter(|known| only.is_none_or(|only| *only == known.name)) {
            let amount = if resource == "cpu" { container.requests.cpu_milli } else { container.requests.memory_bytes };
            if amount.is_none() {
                let why = format!(
                    "container {} requests no {resource}: one missing request fails the whole metric",
                    container.name
                );
                report.error("missing-requests", object, &place, why, format!("write resources.requests.{resource}"));
            }
        }
    }
}

fn ranges(object: &Object, policy: &Policy, path: &str, report: &mut Report) {
    for (index, metric) in policy.metrics.iter().enumerate() {
        let (Metric::Resource { resource, target: ResourceTarget::Utilization { percent } }
        | Metric::ContainerResource { resource, target: ResourceTarget::Utilization { percent }, .. }) = metric
        else {
            continue;
        };
        let range = if resource == "cpu" { CPU_RANGE } else { MEMORY_RANGE };
        if !range.contains(percent) {
            let effect = if percent < range.start() {
                "much of what is paid for stays idle"
            } else {
                "a burst finds no room while replicas start"
            };
            let why = format!("{percent} % of {resource} is outside {} to {} %: {effect}", range.start(), range.end());
            report.warn(
                "target-range",
                object,
                &format!("{path}[{index}]"),
                why,
                format!("choose {} to {} %", range.start(), range.end()),
            );
        }
    }
}

/// A size that may fall as fast as it rises, with no window between, follows every wave of its metric.
fn flapping(object: &Object, policy: &Policy, path: &str, report: &mut Report) {
    let Some(behavior) = &policy.behavior else { return };
    let window = behavior.scale_down.stabilization_ms.unwrap_or(policy.timing.downscale_stabilization_ms);
    let is_closed = behavior.scale_down.select == Select::Disabled || behavior.scale_up.select == Select::Disabled;
    if window < 60_000 && !is_closed {
        let why =
            format!("scaleDown looks back {} s: one low sample takes away what the next one needs", window / 1000);
        report.warn("flapping", object, path, why, "write scaleDown.stabilizationWindowSeconds of 60 or more");
    }
    let tolerance = policy.effective_tolerance();
    if tolerance.up == 0.0 && tolerance.down == 0.0 {
        let why = "with a tolerance of 0 in both directions every rounding of the metric is a step";
        report.warn("flapping", object, path, why, "leave some tolerance in at least one direction");
    }
}

fn vertical(object: &Object, policy: &vpa::Policy, found: Option<(&Object, &Workload)>, report: &mut Report) {
    let acts = !matches!(policy.update_mode, UpdateMode::Off);
    let replaces =
        matches!(policy.update_mode, UpdateMode::Auto | UpdateMode::Recreate | UpdateMode::InPlaceOrRecreate);
    let has_bounds = !policy.containers.is_empty()
        && policy.containers.iter().filter(|container| container.is_scaled).all(|container| {
            container.controlled.iter().all(|resource| {
                container.min_allowed.get(*resource).is_some() && container.max_allowed.get(*resource).is_some()
            })
        });
    if acts && !has_bounds {
        let why = "without minAllowed and maxAllowed one odd day decides the size, up to more than any node has";
        report.warn("vertical-without-bounds", object, "spec.resourcePolicy", why, "write both for cpu and memory");
    }
    if policy.update_mode == UpdateMode::Auto {
        let why = "Auto is an old word for Recreate";
        report.warn("auto-mode", object, "spec.updatePolicy", why, "write Recreate, or InPlaceOrRecreate");
    }
    if let Some((target, workload)) = found {
        if replaces && target.kind == "StatefulSet" {
            let why = "replacing replicas of a StatefulSet takes its members away one after the other";
            report.warn("vertical-on-statefulset", object, "spec.updatePolicy", why, "write Initial, or InPlace");
        }
        for (index, container) in policy.containers.iter().enumerate().filter(|(_, container)| container.name != "*") {
            if !workload.containers.iter().any(|known| known.name == container.name) {
                let why = format!("{} has no container {}", target.name, container.name);
                let path = format!("spec.resourcePolicy.containerPolicies[{index}]");
                report.error("missing-container", object, &path, why, "mend the container's name");
            }
        }
    }
}
