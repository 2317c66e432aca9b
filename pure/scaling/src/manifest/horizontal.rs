//! `HorizontalPodAutoscaler`, `autoscaling/v2`.

use std::collections::BTreeMap;

use super::place::Place;
use super::{Body, forecast, target_ref};
use crate::hpa::{
    Behavior, Metric, Policy, ResourceTarget, Rules, ScalingPolicy, ScalingPolicyKind, Select, ValueTarget, validate,
};

pub(super) fn read(
    root: &Place<'_>,
    annotations: &BTreeMap<String, String>,
    lines: &mut BTreeMap<String, usize>,
) -> Option<Body> {
    if let Some(version) = root.get("apiVersion")
        && let Some(text) = version.text()
        && text != "autoscaling/v2"
    {
        version.note(format!("expected autoscaling/v2, found {text}"));
    }
    let spec = root.need("spec")?;
    spec.only(&["scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"]);
    let target = spec.need("scaleTargetRef").and_then(|place| target_ref(&place, lines));
    let metrics = match spec.get("metrics") {
        Some(list) => list.items().iter().filter_map(|place| metric(place, lines)).collect(),
        // Upstream's default.
        None => {
            vec![Metric::Resource { resource: "cpu".to_owned(), target: ResourceTarget::Utilization { percent: 80 } }]
        }
    };
    let max = spec.need("maxReplicas").and_then(|place| place.whole(1));
    let min = spec.whole_at("minReplicas", 0).unwrap_or(1);
    if let Some(place) = spec.get("behavior") {
        lines.insert(place.path.clone(), place.line);
    }
    let behavior = spec.get("behavior").map(|place| behavior(&place));
    let forecast = forecast::read(&spec, annotations);
    let policy = Policy { behavior, forecast, ..Policy::strict(min, max?, metrics) };
    for (path, message) in validate(&policy) {
        spec.note_at(&format!("spec.{path}"), message);
    }
    Some(Body::Horizontal { target: target?, policy: Box::new(policy) })
}

fn metric(place: &Place<'_>, lines: &mut BTreeMap<String, usize>) -> Option<Metric> {
    place.only(&["type", "resource", "containerResource", "pods", "object", "external"]);
    lines.insert(place.path.clone(), place.line);
    let kind = place.need("type")?.text()?;
    let name = |place: &Place<'_>| {
        let metric = place.need("metric")?;
        let labels = metric.get("selector").map(|selector| selector.texts_at("matchLabels")).unwrap_or_default();
        let shown: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let name = metric.need("name")?.text()?;
        Some(if shown.is_empty() { name } else { format!("{name}{{{}}}", shown.join(",")) })
    };
    match kind.as_str() {
        "Resource" => {
            let place = place.need("resource")?;
            Some(Metric::Resource { resource: place.need("name")?.text()?, target: resource_target(&place)? })
        }
        "ContainerResource" => {
            let place = place.need("containerResource")?;
            let (resource, container) = (place.need("name")?.text()?, place.need("container")?.text()?);
            Some(Metric::ContainerResource { resource, container, target: resource_target(&place)? })
        }
        "Pods" => {
            let place = place.need("pods")?;
            let target_average_milli = place.need("target")?.need("averageValue")?.milli()?;
            Some(Metric::Pods { name: name(&place)?, target_average_milli })
        }
        "Object" => {
            let place = place.need("object")?;
            Some(Metric::Object { name: name(&place)?, target: value_target(&place)? })
        }
        "External" => {
            let place = place.need("external")?;
            Some(Metric::External { name: name(&place)?, target: value_target(&place)?, fallback: None })
        }
        other => {
            place.note(format!("expected type Resource, ContainerResource, Pods, Object or External, found {other}"));
            None
        }
    }
}

fn resource_target(place: &Place<'_>) -> Option<ResourceTarget> {
    let target = place.need("target")?;
    match target.need("type")?.text()?.as_str() {
        "Utilization" => Some(ResourceTarget::Utilization { percent: target.need("averageUtilization")?.whole(1)? }),
        "AverageValue" => Some(ResourceTarget::AverageValue { milli: target.need("averageValue")?.milli()? }),
        other => {
            target.note(format!("expected type Utilization or AverageValue, found {other}"));
            None
        }
    }
}

fn value_target(place: &Place<'_>) -> Option<ValueTarget> {
    let target = place.need("target")?;
    match target.need("type")?.text()?.as_str() {
        "Value" => Some(ValueTarget::Value { milli: target.need("value")?.milli()? }),
        "AverageValue" => Some(ValueTarget::AverageValue { milli: target.need("averageValue")?.milli()? }),
        other => {
            target.note(format!("expected type Value or AverageValue, found {other}"));
            None
        }
    }
}

/// `behavior`, what is not written filled in.
pub(super) fn behavior(place: &Place<'_>) -> Behavior {
    place.only(&["scaleUp", "scaleDown"]);
    let of = |name: &str, defaults: Rules| place.get(name).map_or(defaults.clone(), |place| rules(&place, defaults));
    Behavior { scale_up: of("scaleUp", Rules::default_up()), scale_down: of("scaleDown", Rules::default_down()) }
}

fn rules(place: &Place<'_>, defaults: Rules) -> Rules {
    place.only(&["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"]);
    let select = [("Max", Select::Max), ("Min", Select::Min), ("Disabled", Select::Disabled)];
    Rules {
        stabilization_ms: place.seconds_at("stabilizationWindowSeconds", 0).or(defaults.stabilization_ms),
        select: place.get("selectPolicy").and_then(|place| place.word(&select)).unwrap_or(defaults.select),
        policies: match place.get("policies") {
            Some(list) => list.items().iter().filter_map(scaling_policy).collect(),
            None => defaults.policies,
        },
        tolerance: place.get("tolerance").and_then(|place| place.milli()).map(|milli| milli as f64 / 1000.0),
    }
}

fn scaling_policy(place: &Place<'_>) -> Option<ScalingPolicy> {
    place.only(&["type", "value", "periodSeconds"]);
    let kinds = [("Pods", ScalingPolicyKind::Pods), ("Percent", ScalingPolicyKind::Percent)];
    let kind = place.need("type")?.word(&kinds);
    let value = place.need("value")?.whole(1);
    let period = place.need("periodSeconds")?.whole(1);
    Some(ScalingPolicy { kind: kind?, value: value?, period_ms: i64::from(period?) * 1000 })
}
