//! Checks before an object is stored: every problem at once, each with its field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Object, find_kind};

/// Something wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// `spec.template.spec.containers[0].image`
    pub field: String,
    /// What is wrong and what may stand there.
    pub message: String,
}

/// The largest object that is stored, as JSON.
const MAX_BYTES: usize = 1 << 20;
/// The longest name of most kinds (RFC 1123 subdomains).
const MAX_NAME: usize = 253;
/// Most containers of a pod.
const MAX_CONTAINERS: usize = 32;

/// Every problem of an object; nothing is stored while there is one.
pub fn validate(object: &Object) -> Vec<FieldProblem> {
    let mut problems = Problems::default();
    if serde_json::to_vec(object).map_or(usize::MAX, |bytes| bytes.len()) > MAX_BYTES {
        problems.note("", format!("has more than {MAX_BYTES} bytes"));
        return problems.found;
    }
    metadata(object, &mut problems);
    match object.kind.as_str() {
        "Deployment" | "StatefulSet" => workload(object, &mut problems),
        "Job" => {
            for field in
                ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
            {
                problems.whole(object, &format!("/spec/{field}"), 0);
            }
            pod_template(object.at("/spec/template"), "spec.template", &["Never", "OnFailure"], &mut problems);
        }
        "ScaledJob" => {
            policy(object, &mut problems);
            pod_template(
                object.at("/spec/jobTargetRef/template"),
                "spec.jobTargetRef.template",
                &["Never", "OnFailure"],
                &mut problems,
            );
        }
        "ScaledObject" | "HorizontalPodAutoscaler" | "VerticalPodAutoscaler" => policy(object, &mut problems),
        "Service" => service(object, &mut problems),
        "Secret" | "ConfigMap" => contents(object, &mut problems),
        "ExternalMetric" => published(object, &mut problems),
        "PodDisruptionBudget" => selector(object, &mut problems),
        _ => {}
    }
    problems.found
}

#[derive(Default)]
struct Problems {
    found: Vec<FieldProblem>,
}

impl Problems {
    fn note(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.found.push(FieldProblem { field: field.into(), message: message.into() });
    }

    /// A whole number from `least` to the largest of 32 bits, where it is written.
    fn whole(&mut self, object: &Object, path: &str, least: i64) {
        if let Some(value) = object.at(path).filter(|value| !value.is_null()) {
            let is_good = value.as_i64().is_some_and(|value| (least..=i64::from(i32::MAX)).contains(&value));
            if !is_good {
                self.note(
                    path.trim_start_matches('/').replace('/', "."),
                    format!("{value} is no whole number from {least} to {}", i32::MAX),
                );
            }
        }
    }
}

/// A metric under a name and labels, and the source that has it.
fn published(object: &Object, problems: &mut Problems) {
    if object.at("/spec/metric/name").and_then(Value::as_str).unwrap_or_default().is_empty() {
        problems.note("spec.metric.name", "is missing: the name that a horizontal autoscaler asks for");
    }
    let known = tidemill_source::TYPES;
    match object.at("/spec/source/type").and_then(Value::as_str) {
        Some(found) if known.contains(&found) => {}
        found => problems.note("spec.source.type", format!("{found:?} is none of {}", known.join(", "))),
    }
    for field in ["/spec/metric/labels", "/spec/source/metadata"] {
        let is_texts = |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if object.at(field).is_some_and(|value| !is_texts(value)) {
            let path = field.trim_start_matches('/').replace('/', ".");
            problems.note(path, "names and texts are expected; put numbers in quotes");
        }
    }
}

fn metadata(object: &Object, problems: &mut Problems) {
    let name = &object.metadata.name;
    if let Err(why) = check_name(name) {
        problems.note("metadata.name", format!("{name:?} {why}"));
    }
    let is_namespaced = find_kind(&object.kind).is_some_and(|kind| kind.is_namespaced);
    if is_namespaced && (object.metadata.namespace.len() > 63 || check_name(&object.metadata.namespace).is_err()) {
        problems.note(
            "metadata.namespace",
            format!("{:?} is no namespace: at most 63 of a-z, 0-9 and -", object.metadata.namespace),
        );
    }
    for (key, value) in &object.metadata.labels {
        if value.len() > 63 {
            problems.note(format!("metadata.labels.{key}"), "is longer than 63 characters");
        }
    }
}

/// RFC 1123: lower-case letters, digits, `-` and `.`, first and last a letter or digit.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() {
        return Err("is missing");
    }
    if name.len() > MAX_NAME {
        return Err("is longer than 253 characters");
    }
    let is_good = name.chars().all(|c| is_edge(c) || matches!(c, '-' | '.'))
        && name.starts_with(is_edge)
        && name.ends_with(is_edge);
    if is_good {
        Ok(())
    } else {
        Err("is no name: lower-case letters, digits, - and ., first and last a letter or digit")
    }
}

fn workload(object: &Object, problems: &mut Problems) {
    problems.whole(object, "/spec/replicas", 0);
    let labels = object.template_labels();
    match object.at("/spec/selector").map(super::LabelSelector::of_spec) {
        Some(Ok(selector)) if selector.is_empty() => {
            problems.note("spec.selector", "selects everything; name a label of the template")
        }
        Some(Ok(selector)) if !selector.matches(&labels) => {
            problems.note("spec.template.metadata.labels", "do not match spec.selector");
        }
        Some(Ok(_)) | None => {}
        Some(Err(error)) => problems.note("spec.selector", error.problem),
    }
    if object.at("/spec/selector").is_none() {
        problems.note("spec.selector", "is missing");
    }
    pod_template(object.at("/spec/template"), "spec.template", &["Always"], problems);
}

fn selector(object: &Object, problems: &mut Problems) {
    if let Some(Err(error)) = object.at("/spec/selector").map(super::LabelSelector::of_spec) {
        problems.note("spec.selector", error.problem);
    }
}

fn pod_template(template: Option<&Value>, path: &str, policies: &[&str], problems: &mut Problems) {
    let Some(pod) = template.and_then(|template| template.get("spec")) else {
        problems.note(format!("{path}.spec"), "is missing");
        return;
    };
    let path = format!("{path}.spec");
    if let Some(policy) = pod.get("restartPolicy").and_then(Value::as_str)
        && !policies.contains(&policy)
    {
        problems.note(format!("{path}.restartPolicy"), format!("{policy:?} is none of {}", policies.join(", ")));
    }
    let mut names = BTreeSet::new();
    for (list, is_needed) in [("initContainers", false), ("containers", true)] {
        let containers = pod.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if is_needed && containers.is_empty() {
            problems.note(format!("{path}.{list}"), "at least one container is needed");
        }
        if containers.len() > MAX_CONTAINERS {
            problems.note(format!("{path}.{list}"), format!("at most {MAX_CONTAINERS} containers"));
        }
        for (index, container) in containers.iter().enumerate().take(MAX_CONTAINERS) {
            let path = format!("{path}.{list}[{index}]");
            match container.get("name").and_then(Value::as_str) {
                Some(name) if !names.insert(name.to_owned()) => {
                    problems.note(format!("{path}.name"), format!("two containers are named {name:?}"))
                }
                Some(name) if name.len() > 63 || check_name(name).is_err() => {
                    problems.note(format!("{path}.name"), format!("{name:?} is no name"));
                }
                Some(_) => {}
                None => problems.note(format!("{path}.name"), "is missing"),
            }
            one_container(container, &path, problems);
        }
    }
}

fn one_container(container: &Value, path: &str, problems: &mut Problems) {
    if container.get("image").and_then(Value::as_str).is_none_or(str::is_empty) {
        problems.note(format!("{path}.image"), "is missing");
    }
    for list in ["command", "args"] {
        let items = container.get(list).filter(|value| !value.is_null());
        if items.is_some_and(|items| !items.as_array().is_some_and(|items| items.iter().all(Value::is_string))) {
            problems.note(format!("{path}.{list}"), "is no list of texts");
        }
    }
    for (index, variable) in container.get("env").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        if variable.get("name").and_then(Value::as_str).is_none_or(|name| name.is_empty() || name.contains('=')) {
            problems.note(format!("{path}.name"), "is missing, empty or has a =");
        }
        if variable.get("value").is_some_and(|value| !value.is_string() && !value.is_null()) {
            problems.note(format!("{path}.value"), "is no text; put numbers and booleans in quotes");
        }
    }
    for amounts in ["requests", "limits"] {
        let named = container.get("resources").and_then(|resources| resources.get(amounts)).and_then(Value::as_object);
        for (resource, amount) in named.into_iter().flatten() {
            let text = amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned);
            if let Err(error) = tidemill_scaling::quantity::parse_milli(&text) {
                problems.note(format!("{path}.resources.{amounts}.{resource}"), error.to_string());
            }
        }
    }
}

fn policy(object: &Object, problems: &mut Problems) {
    let text = serde_json::to_string(object).unwrap_or_default();
    if let Err(found) = tidemill_scaling::manifest::read("object", &text) {
        for problem in found {
            problems.note(problem.path, problem.message);
        }
    }
}

fn service(object: &Object, problems: &mut Problems) {
    let ports = object.at("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() {
        problems.note("spec.ports", "at least one port is needed");
    }
    for (index, port) in ports.iter().enumerate() {
        if !port.get("port").and_then(Value::as_i64).is_some_and(|port| (1..=65535).contains(&port)) {
            problems.note(format!("spec.ports[{index}].port"), "is no port from 1 to 65535");
        }
        if let Some(protocol) = port.get("protocol").and_then(Value::as_str).filter(|protocol| *protocol != "TCP") {
            problems
                .note(format!("spec.ports[{index}].protocol"), format!("{protocol} is not balanced here; only TCP is"));
        }
    }
}

fn contents(object: &Object, problems: &mut Problems) {
    let sections: BTreeMap<&str, Option<&Value>> = ["data", "stringData", "binaryData"]
        .map(|name| (name, object.body.get(name).filter(|value| !value.is_null())))
        .into();
    for (name, section) in sections {
        let Some(section) = section else { continue };
        let Some(members) = section.as_object() else {
            problems.note(name, "is no mapping");
            continue;
        };
        for (key, value) in members {
            let is_encoded = (object.kind == "Secret" && name == "data") || name == "binaryData";
            match value.as_str() {
                None => problems.note(format!("{name}.{key}"), "is no text; put numbers and booleans in quotes"),
                Some(text) if is_encoded && decode_base64(text).is_none() => {
                    problems.note(format!("{name}.{key}"), "is no base64; plain text goes under stringData");
                }
                Some(_) => {}
            }
        }
    }
}

/// Base64 as secrets are written, with or without line breaks.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(compact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: Value) -> Vec<String> {
        let object: Object = serde_json::from_value(json).expect("an object");
        validate(&object).into_iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_field() {
        let found = problems(serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "Web", "namespace": "default"},
            "spec": {"replicas": -1, "selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "b"}}, "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "env": [{"name": "A", "value": 1}], "resources": {"limits": {"cpu": "x"}}}, {"name": "c", "image": "i", "args": "x"}]}}}
        }));
        let fields: Vec<&str> = found.iter().filter_map(|line| line.split(':').next()).collect();
        for field in [
            "metadata.name",
            "spec.replicas",
            "spec.template.metadata.labels",
            "spec.template.spec.restartPolicy",
            "spec.template.spec.containers[0].image",
            "spec.template.spec.containers[0].env[0].value",
            "spec.template.spec.containers[0].resources.limits.cpu",
            "spec.template.spec.containers[1].name",
            "spec.template.spec.containers[1].args",
        ] {
            assert!(fields.contains(&field), "{field} is not among {found:#?}");
        }
    }

    #[test]
    fn a_secret_that_is_no_base64_is_refused() {
        let secret = |data: &str| serde_json::json!({"kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"k": data}});
        assert_eq!(problems(secret("YQ==")), Vec::<String>::new());
        assert_eq!(problems(secret("plain!")).len(), 1);
    }
}
