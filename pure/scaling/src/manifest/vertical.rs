//! `VerticalPodAutoscaler`, `autoscaling.k8s.io/v1`.

use std::collections::BTreeMap;

use super::place::Place;
use super::workload::amounts;
use super::{Body, target_ref};
use crate::vpa::{
    ContainerPolicy, ControlledValues, EvictionChange, EvictionRequirement, Policy, Resource, Resources, UpdateMode,
};

const MODES: [(&str, UpdateMode); 6] = [
    ("Off", UpdateMode::Off),
    ("Initial", UpdateMode::Initial),
    ("Recreate", UpdateMode::Recreate),
    ("Auto", UpdateMode::Auto),
    ("InPlaceOrRecreate", UpdateMode::InPlaceOrRecreate),
    ("InPlace", UpdateMode::InPlace),
];
const RESOURCES: [(&str, Resource); 2] = [("cpu", Resource::Cpu), ("memory", Resource::Memory)];

pub(super) fn read(spec: &Place<'_>, lines: &mut BTreeMap<String, usize>) -> Option<Body> {
    spec.only(&["targetRef", "updatePolicy", "resourcePolicy", "recommenders"]);
    let target = spec.need("targetRef").and_then(|place| target_ref(&place, lines));
    let update = spec.get("updatePolicy");
    let mut policy = Policy::default();
    if let Some(update) = &update {
        lines.insert(update.path.clone(), update.line);
        update.only(&["updateMode", "minReplicas", "evictionRequirements"]);
        policy.update_mode = update.get("updateMode").and_then(|place| place.word(&MODES)).unwrap_or_default();
        policy.min_replicas = update.whole_at("minReplicas", 1).unwrap_or(policy.min_replicas);
        let requirements = update.get("evictionRequirements").map(|place| place.items()).unwrap_or_default();
        policy.eviction_requirements = requirements.iter().filter_map(requirement).collect();
    }
    if let Some(resource) = spec.get("resourcePolicy") {
        resource.only(&["containerPolicies"]);
        let containers = resource.get("containerPolicies").map(|place| place.items()).unwrap_or_default();
        policy.containers = containers.iter().filter_map(|place| container(place, lines)).collect();
    }
    Some(Body::Vertical { target: target?, policy: Box::new(policy) })
}

fn requirement(place: &Place<'_>) -> Option<EvictionRequirement> {
    let changes = [
        ("TargetHigherThanRequests", EvictionChange::TargetHigherThanRequests),
        ("TargetLowerThanRequests", EvictionChange::TargetLowerThanRequests),
    ];
    let change = place.need("changeRequirement")?.word(&changes);
    let resources = place.need("resources")?.items().iter().filter_map(|place| place.word(&RESOURCES)).collect();
    Some(EvictionRequirement { resources, change: change? })
}

fn container(place: &Place<'_>, lines: &mut BTreeMap<String, usize>) -> Option<ContainerPolicy> {
    place.only(&["containerName", "mode", "minAllowed", "maxAllowed", "controlledResources", "controlledValues"]);
    lines.insert(place.path.clone(), place.line);
    let name = place.need("containerName")?.text()?;
    let mut policy = ContainerPolicy::with_defaults(&name);
    policy.is_scaled =
        place.get("mode").and_then(|place| place.word(&[("Auto", true), ("Off", false)])).unwrap_or(true);
    let bounds = |name: &str| place.get(name).map(|place| amounts(&place)).unwrap_or_default();
    policy.min_allowed = bounds("minAllowed");
    policy.max_allowed = bounds("maxAllowed");
    let (least, largest): (Resources, Resources) = (policy.min_allowed, policy.max_allowed);
    for resource in Resource::ALL {
        if let (Some(least), Some(largest)) = (least.get(resource), largest.get(resource))
            && least > largest
        {
            place.note(format!("minAllowed of {} is above its maxAllowed", resource.name()));
        }
    }
    if let Some(list) = place.get("controlledResources") {
        policy.controlled = list.items().iter().filter_map(|place| place.word(&RESOURCES)).collect();
    }
    let values =
        [("RequestsAndLimits", ControlledValues::RequestsAndLimits), ("RequestsOnly", ControlledValues::RequestsOnly)];
    policy.controlled_values = place.get("controlledValues").and_then(|place| place.word(&values)).unwrap_or_default();
    Some(policy)
}
