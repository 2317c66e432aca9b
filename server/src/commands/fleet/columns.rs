//! The columns of each kind, as kubectl and KEDA print them.

use serde_json::Value;

use super::{age_of, short_duration, text, whole};

/// The head of a kind's table; with `is_wide`, the columns that `-o wide` adds.
pub fn head(kind: &str, is_wide: bool) -> Vec<&'static str> {
    let (narrow, wide): (&[&str], &[&str]) = match kind {
        "Pod" => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], &["IP", "NODE"]),
        "Deployment" => (&["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], &["CONTAINERS", "IMAGES", "SELECTOR"]),
        "StatefulSet" => (&["NAME", "READY", "AGE"], &["CONTAINERS", "IMAGES"]),
        "Job" => (&["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"], &["CONTAINERS", "IMAGES", "SELECTOR"]),
        "Service" => (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"]),
        "Secret" => (&["NAME", "TYPE", "DATA", "AGE"], &[]),
        "ConfigMap" => (&["NAME", "DATA", "AGE"], &[]),
        "Namespace" => (&["NAME", "STATUS", "AGE"], &[]),
        "Event" => (&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], &["COUNT", "NAME"]),
        "PodDisruptionBudget" => (&["NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"], &[]),
        "HorizontalPodAutoscaler" => (&["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"], &[]),
        "VerticalPodAutoscaler" => (&["NAME", "MODE", "CPU", "MEM", "PROVIDED", "AGE"], &[]),
        "ScaledObject" => (
            &[
                "NAME",
                "SCALETARGETKIND",
                "SCALETARGETNAME",
                "MIN",
                "MAX",
                "READY",
                "ACTIVE",
                "FALLBACK",
                "PAUSED",
                "TRIGGERS",
                "AUTHENTICATIONS",
                "AGE",
            ],
            &[],
        ),
        "ScaledJob" => {
            (&["NAME", "MIN", "MAX", "READY", "ACTIVE", "PAUSED", "TRIGGERS", "AUTHENTICATIONS", "AGE"], &[])
        }
        "TriggerAuthentication" | "ClusterTriggerAuthentication" => {
            (&["NAME", "PODIDENTITY", "SECRET", "ENV", "AGE"], &[])
        }
        _ => (&["NAME", "AGE"], &[]),
    };
    narrow.iter().chain(if is_wide { wide } else { &[] }).copied().collect()
}

/// An object's cells, one for each column of its head.
pub fn cells(kind: &str, object: &Value, is_wide: bool) -> Vec<String> {
    let name = text(object, "/metadata/name").to_owned();
    let age = age_of(text(object, "/metadata/creationTimestamp"));
    let narrow = match kind {
        "Pod" => pod(object, name, age),
        "Deployment" => {
            let ready = format!("{}/{}", whole(object, "/status/readyReplicas"), replicas(object));
            vec![
                name,
                ready,
                number(object, "/status/updatedReplicas"),
                number(object, "/status/availableReplicas"),
                age,
            ]
        }
        "StatefulSet" => vec![name, format!("{}/{}", whole(object, "/status/readyReplicas"), replicas(object)), age],
        "Job" => job(object, name, age),
        "Service" => service(object, name, age),
        "Secret" => {
            let kind = some(text(object, "/type"), "Opaque");
            vec![name, kind, members(object, &["/data", "/stringData"]), age]
        }
        "ConfigMap" => vec![name, members(object, &["/data", "/binaryData"]), age],
        "Namespace" => vec![name, "Active".to_owned(), age],
        "Event" => vec![
            age_of(text(object, "/lastTimestamp")),
            text(object, "/type").to_owned(),
            text(object, "/reason").to_owned(),
            format!("{}/{}", text(object, "/involvedObject/kind").to_lowercase(), text(object, "/involvedObject/name")),
            text(object, "/message").lines().next().unwrap_or_default().to_owned(),
        ],
        "PodDisruptionBudget" => vec![
            name,
            scalar(object, "/spec/minAvailable", "N/A"),
            scalar(object, "/spec/maxUnavailable", "N/A"),
            number(object, "/status/disruptionsAllowed"),
            age,
        ],
        "HorizontalPodAutoscaler" => vec![
            name,
            format!("{}/{}", text(object, "/spec/scaleTargetRef/kind"), text(object, "/spec/scaleTargetRef/name")),
            targets(object),
            scalar(object, "/spec/minReplicas", "1"),
            scalar(object, "/spec/maxReplicas", "<unset>"),
            number(object, "/status/currentReplicas"),
            age,
        ],
        "VerticalPodAutoscaler" => {
            let first = |resource: &str| {
                scalar(object, &format!("/status/recommendation/containerRecommendations/0/target/{resource}"), "")
            };
            vec![
                name,
                some(text(object, "/spec/updatePolicy/updateMode"), "Auto"),
                first("cpu"),
                first("memory"),
                condition(object, "RecommendationProvided"),
                age,
            ]
        }
        "ScaledObject" => vec![
            name,
            text(object, "/status/scaleTargetKind").to_owned(),
            text(object, "/spec/scaleTargetRef/name").to_owned(),
            scalar(object, "/spec/minReplicaCount", ""),
            scalar(object, "/spec/maxReplicaCount", ""),
            condition(object, "Ready"),
            condition(object, "Active"),
            condition(object, "Fallback"),
            condition(object, "Paused"),
            text(object, "/status/triggersTypes").to_owned(),
            text(object, "/status/authenticationsTypes").to_owned(),
            age,
        ],
        "ScaledJob" => vec![
            name,
            scalar(object, "/spec/minReplicaCount", ""),
            scalar(object, "/spec/maxReplicaCount", ""),
            condition(object, "Ready"),
            condition(object, "Active"),
            condition(object, "Paused"),
            text(object, "/status/triggersTypes").to_owned(),
            text(object, "/status/authenticationsTypes").to_owned(),
            age,
        ],
        "TriggerAuthentication" | "ClusterTriggerAuthentication" => vec![
            name,
            text(object, "/spec/podIdentity/provider").to_owned(),
            text(object, "/spec/secretTargetRef/0/name").to_owned(),
            text(object, "/spec/env/0/name").to_owned(),
            age,
        ],
        _ => vec![name, age],
    };
    let wide = if is_wide { wide_cells(kind, object) } else { Vec::new() };
    narrow.into_iter().chain(wide).collect()
}

fn wide_cells(kind: &str, object: &Value) -> Vec<String> {
    let containers = |field: &str| {
        let list = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let named: Vec<&str> =
            list.into_iter().flatten().filter_map(|container| container.get(field)?.as_str()).collect();
        named.join(",")
    };
    let labels = |pointer: &str| {
        let members = object.pointer(pointer).and_then(Value::as_object);
        let pairs: Vec<String> = members
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        some(&pairs.join(","), "<none>")
    };
    match kind {
        "Pod" => vec![text(object, "/status/podIP").to_owned(), text(object, "/spec/nodeName").to_owned()],
        "Deployment" | "Job" => vec![containers("name"), containers("image"), labels("/spec/selector/matchLabels")],
        "StatefulSet" => vec![containers("name"), containers("image")],
        "Service" => vec![labels("/spec/selector")],
        "Event" => vec![number(object, "/count"), text(object, "/metadata/name").to_owned()],
        _ => Vec::new(),
    }
}

/// What a pod's one word is: its containers' where they have something to say.
pub fn pod_status(object: &Value) -> String {
    let statuses = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return "Terminating".to_owned();
    }
    if !text(object, "/status/reason").is_empty() {
        return text(object, "/status/reason").to_owned();
    }
    for status in statuses("/status/initContainerStatuses").iter().chain(&statuses("/status/containerStatuses")) {
        for pointer in ["/state/waiting/reason", "/state/terminated/reason"] {
            let reason = text(status, pointer);
            let is_done = reason == "Completed" && text(object, "/status/phase") == "Running";
            if !reason.is_empty() && !is_done {
                return reason.to_owned();
            }
        }
    }
    match text(object, "/status/phase") {
        "Succeeded" => "Completed".to_owned(),
        "Failed" => "Error".to_owned(),
        phase => phase.to_owned(),
    }
}

fn pod(object: &Value, name: String, age: String) -> Vec<String> {
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = statuses.iter().filter(|status| status.get("ready").and_then(Value::as_bool) == Some(true)).count();
    let restarts: i64 = statuses.iter().map(|status| whole(status, "/restartCount")).sum();
    let last = statuses.iter().map(|status| text(status, "/lastState/terminated/finishedAt")).max().unwrap_or_default();
    let restarts = if restarts > 0 && !last.is_empty() {
        format!("{restarts} ({} ago)", age_of(last))
    } else {
        restarts.to_string()
    };
    vec![name, format!("{ready}/{}", statuses.len()), pod_status(object), restarts, age]
}

fn job(object: &Value, name: String, age: String) -> Vec<String> {
    let status = match (condition(object, "Complete").as_str(), condition(object, "Failed").as_str()) {
        ("True", _) => "Complete",
        (_, "True") => "Failed",
        _ if object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) => "Suspended",
        _ => "Running",
    };
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{}/{wanted}", whole(object, "/status/succeeded")),
        None => {
            let parallelism = object.pointer("/spec/parallelism").and_then(Value::as_i64).unwrap_or(1);
            if parallelism > 1 {
                format!("{}/1 of {parallelism}", whole(object, "/status/succeeded"))
            } else {
                format!("{}/1", whole(object, "/status/succeeded"))
            }
        }
    };
    let at = |pointer: &str| text(object, pointer).parse::<jiff::Timestamp>().ok();
    let duration = at("/status/startTime").map(|start| {
        let failed = object
            .pointer("/status/conditions/0/lastTransitionTime")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        let end = at("/status/completionTime").or(failed).unwrap_or_else(jiff::Timestamp::now);
        short_duration(end.as_second() - start.as_second())
    });
    vec![name, status.to_owned(), completions, duration.unwrap_or_default(), age]
}

fn service(object: &Value, name: String, age: String) -> Vec<String> {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<String> = ports.into_iter().flatten().map(|port| format!("{}/TCP", whole(port, "/port"))).collect();
    vec![
        name,
        some(text(object, "/spec/type"), "ClusterIP"),
        text(object, "/status/address").to_owned(),
        "<none>".to_owned(),
        ports.join(","),
        age,
    ]
}

/// `cpu: 12%/70%, memory: <unknown>/80%`
fn targets(object: &Value) -> String {
    let metrics = object.pointer("/spec/metrics").and_then(Value::as_array).cloned().unwrap_or_default();
    let current = object.pointer("/status/currentMetrics").and_then(Value::as_array).cloned().unwrap_or_default();
    let one = |metric: &Value| {
        let name = text(metric, "/resource/name");
        let (label, base) = match text(metric, "/type") {
            "Resource" => (format!("{name}: "), "/resource"),
            "ContainerResource" => (format!("{}: ", text(metric, "/containerResource/name")), "/containerResource"),
            "Pods" => (String::new(), "/pods"),
            "External" => (String::new(), "/external"),
            _ => (String::new(), "/object"),
        };
        let target = |field: &str| metric.pointer(&format!("{base}/target/{field}"));
        let now = current.iter().find(|current| text(current, "/resource/name") == name && !name.is_empty());
        let (value, wanted) = match target("averageUtilization").and_then(Value::as_i64) {
            Some(percent) => {
                let now =
                    now.and_then(|now| now.pointer("/resource/current/averageUtilization")).and_then(Value::as_i64);
                (now.map(|now| format!("{now}%")), format!("{percent}%"))
            }
            None => {
                let wanted = target("averageValue")
                    .map(|value| (value, " (avg)"))
                    .or_else(|| target("value").map(|value| (value, "")));
                let now = now.map(|now| text(now, "/resource/current/averageValue").to_owned());
                let wanted = wanted.map(|(value, what)| {
                    format!("{}{what}", value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
                });
                (now, wanted.unwrap_or_default())
            }
        };
        format!("{label}{}/{wanted}", value.unwrap_or_else(|| "<unknown>".to_owned()))
    };
    let shown: Vec<String> = metrics.iter().map(one).collect();
    some(&shown.join(", "), "cpu: <unknown>/80%")
}

/// The status of a condition.
pub fn condition(object: &Value, name: &str) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == name);
    found.map(|condition| text(condition, "/status").to_owned()).unwrap_or_default()
}

fn replicas(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn number(object: &Value, pointer: &str) -> String {
    whole(object, pointer).to_string()
}

fn scalar(object: &Value, pointer: &str, default: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => default.to_owned(),
        Some(other) => other.to_string(),
    }
}

fn members(object: &Value, pointers: &[&str]) -> String {
    pointers
        .iter()
        .map(|pointer| object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len))
        .sum::<usize>()
        .to_string()
}

fn some(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

/// Rows under a head, aligned by three spaces, as kubectl aligns them.
pub fn align(head: &[&str], rows: &[Vec<String>], is_headless: bool) -> String {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let shown: Vec<&Vec<String>> = (!is_headless).then_some(&head).into_iter().chain(rows).collect();
    let width = |column: usize| {
        shown.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in shown {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 3));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
