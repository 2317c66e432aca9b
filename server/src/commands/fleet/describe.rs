//! `tidemill describe`: an object in full, with what happened to it.

use clap::Args;
use serde_json::Value;

use super::{Client, Place, age_of, columns, events, kind_named, named, text};
use crate::error::Result;
use crate::output::{print_text, say};

/// Where values stand.
const COLUMN: usize = 20;
/// The annotation that repeats the whole manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Options of `describe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill describe deploy/web
  tidemill describe scaledjob postgres-batch -n keda-with-postgresql")]
pub struct DescribeOptions {
    /// A kind and names, or kind/name
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    words: Vec<String>,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Runs it.
///
/// # Errors
/// `NotFound`; the server's.
pub async fn run(client: Client, options: DescribeOptions) -> Result<()> {
    let mut shown = Vec::new();
    for one in named(&options.words)? {
        let objects = match &one.name {
            Some(name) => vec![client.get(one.kind, options.place.name(), name).await?],
            None => client.list(one.kind, options.place.scope(), options.selector.as_deref()).await?,
        };
        for object in objects {
            let about = format!("involvedObject.uid={}", text(&object, "/metadata/uid"));
            let namespace = text(&object, "/metadata/namespace");
            let within = if namespace.is_empty() { "default" } else { namespace };
            let mut happened = client.list_by(kind_named("events")?, Some(within), &[("fieldSelector", about)]).await?;
            events::sort(&mut happened);
            shown.push(describe(one.kind.kind, &object, &happened));
        }
    }
    if shown.is_empty() {
        say!("No resources found in {} namespace.", options.place.name());
    }
    print_text(&shown.join("\n\n"))
}

fn describe(kind: &str, object: &Value, happened: &[Value]) -> String {
    let mut out = String::new();
    line(&mut out, "Name", text(object, "/metadata/name"));
    if !text(object, "/metadata/namespace").is_empty() {
        line(&mut out, "Namespace", text(object, "/metadata/namespace"));
    }
    if !text(object, "/metadata/creationTimestamp").is_empty() {
        line(&mut out, "CreationTimestamp", text(object, "/metadata/creationTimestamp"));
    }
    pairs(&mut out, "Labels", object.pointer("/metadata/labels"));
    pairs(&mut out, "Annotations", object.pointer("/metadata/annotations"));
    if let Some(owner) = object.pointer("/metadata/ownerReferences/0") {
        line(&mut out, "Controlled By", &format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    match kind {
        "Deployment" | "StatefulSet" => workload(&mut out, object),
        "Job" => {
            line(&mut out, "Parallelism", &number(object, "/spec/parallelism", "1"));
            line(&mut out, "Completions", &number(object, "/spec/completions", "<unset>"));
            let count = |name: &str| number(object, &format!("/status/{name}"), "0");
            line(
                &mut out,
                "Pods Statuses",
                &format!("{} Active / {} Succeeded / {} Failed", count("active"), count("succeeded"), count("failed")),
            );
            containers(&mut out, object.pointer("/spec/template/spec"));
        }
        "Pod" => {
            line(&mut out, "Status", &columns::pod_status(object));
            line(&mut out, "IP", text(object, "/status/podIP"));
            if !text(object, "/status/message").is_empty() {
                line(&mut out, "Message", text(object, "/status/message"));
            }
            containers(&mut out, object.get("spec"));
            section(&mut out, "Container States", object.pointer("/status/containerStatuses"));
        }
        "Secret" | "ConfigMap" => data(&mut out, kind, object),
        _ => {
            section(&mut out, "Spec", object.get("spec"));
            section(&mut out, "Status", object.get("status").map(without_conditions).as_ref());
        }
    }
    conditions(&mut out, object);
    if happened.is_empty() {
        line(&mut out, "Events", "<none>");
    } else {
        out.push_str("Events:\n");
        let row = |event: &Value| {
            let count = event.pointer("/count").and_then(Value::as_i64).unwrap_or(1);
            let age = age_of(text(event, "/lastTimestamp"));
            let age = if count > 1 {
                format!("{age} (x{count} over {})", age_of(text(event, "/firstTimestamp")))
            } else {
                age
            };
            let message = text(event, "/message").replace('\n', "; ");
            vec![text(event, "/type").to_owned(), text(event, "/reason").to_owned(), age, message]
        };
        let rows: Vec<Vec<String>> = happened.iter().map(row).collect();
        indented(&mut out, &columns::align(&["Type", "Reason", "Age", "Message"], &rows, false));
    }
    out
}

fn line(out: &mut String, name: &str, value: &str) {
    out.push_str(&format!("{:COLUMN$}{value}\n", format!("{name}:")));
}

fn indented(out: &mut String, text: &str) {
    text.lines().for_each(|line| out.push_str(&format!("  {line}\n")));
}

fn pairs(out: &mut String, name: &str, members: Option<&Value>) {
    let members = members.and_then(Value::as_object);
    let all: Vec<String> = members
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let shown = if all.is_empty() { "<none>".to_owned() } else { all.join(&format!("\n{:COLUMN$}", "")) };
    line(out, name, &shown);
}

fn number(object: &Value, pointer: &str, default: &str) -> String {
    object.pointer(pointer).filter(|value| !value.is_null()).map_or_else(|| default.to_owned(), ToString::to_string)
}

fn workload(out: &mut String, object: &Value) {
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    line(out, "Selector", &selector.join(","));
    let count = |name: &str| number(object, &format!("/status/{name}"), "0");
    let shown = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        number(object, "/spec/replicas", "1"),
        count("updatedReplicas"),
        count("replicas"),
        count("availableReplicas"),
        count("unavailableReplicas")
    );
    line(out, "Replicas", &shown);
    containers(out, object.pointer("/spec/template/spec"));
}

fn containers(out: &mut String, pod: Option<&Value>) {
    for (title, list) in [("Init Containers", "initContainers"), ("Containers", "containers")] {
        let Some(items) = pod.and_then(|pod| pod.get(list)).and_then(Value::as_array) else { continue };
        out.push_str(&format!("{title}:\n"));
        for item in items {
            out.push_str(&format!("  {}:\n", text(item, "/name")));
            let mut rest = item.clone();
            if let Some(members) = rest.as_object_mut() {
                members.remove("name");
            }
            let mut inner = String::new();
            nested(&mut inner, &rest, 0);
            inner.lines().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
    }
}

fn without_conditions(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(members) = status.as_object_mut() {
        members.remove("conditions");
    }
    status
}

fn section(out: &mut String, name: &str, value: Option<&Value>) {
    let Some(value) =
        value.filter(|value| !value.is_null() && value.as_object().is_none_or(|members| !members.is_empty()))
    else {
        return;
    };
    out.push_str(&format!("{name}:\n"));
    nested(out, value, 1);
}

/// Members as `Name:  value`, their own below them.
fn nested(out: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let title = title(key);
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        out.push_str(&format!("{pad}{title}:\n"));
                        nested(out, value, depth + 1);
                    }
                    scalar => {
                        out.push_str(&format!("{pad}{title}:  {}\n", show(scalar).replace('\n', &format!("\n{pad}  "))))
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(_) | Value::Array(_) => {
                        let mut inner = String::new();
                        nested(&mut inner, item, 0);
                        for (index, line) in inner.lines().enumerate() {
                            out.push_str(&format!("{pad}{}{line}\n", if index == 0 { "- " } else { "  " }));
                        }
                    }
                    scalar => out.push_str(&format!("{pad}{}\n", show(scalar))),
                }
            }
        }
        scalar => out.push_str(&format!("{pad}{}\n", show(scalar))),
    }
}

fn show(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// `maxReplicaCount` as `Max Replica Count`; keys that are no words stay.
fn title(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphabetic())
        || key.chars().next().is_none_or(|first| first.is_ascii_uppercase())
    {
        return key.to_owned();
    }
    let mut shown = String::new();
    for (index, c) in key.chars().enumerate() {
        if index == 0 {
            shown.push(c.to_ascii_uppercase());
        } else {
            if c.is_ascii_uppercase() {
                shown.push(' ');
            }
            shown.push(c);
        }
    }
    shown
}

/// Keys, and values where they are no secrets.
fn data(out: &mut String, kind: &str, object: &Value) {
    out.push_str("\nData\n====\n");
    for section in ["data", "stringData", "binaryData"] {
        for (key, value) in object.get(section).and_then(Value::as_object).into_iter().flatten() {
            let written = value.as_str().unwrap_or_default();
            if kind == "ConfigMap" && section == "data" {
                out.push_str(&format!("{key}:\n----\n{written}\n\n"));
            } else {
                let is_encoded = section != "stringData";
                let padding = written.bytes().rev().take_while(|byte| *byte == b'=').count();
                let bytes = if is_encoded { (written.len() / 4 * 3).saturating_sub(padding) } else { written.len() };
                out.push_str(&format!("{key}:  {bytes} bytes\n"));
            }
        }
    }
}

fn conditions(out: &mut String, object: &Value) {
    let Some(all) = object.pointer("/status/conditions").and_then(Value::as_array).filter(|all| !all.is_empty()) else {
        return;
    };
    out.push_str("Conditions:\n");
    let row = |condition: &Value| {
        ["type", "status", "reason", "message"]
            .map(|name| text(condition, &format!("/{name}")).replace('\n', "; "))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    indented(out, &columns::align(&["Type", "Status", "Reason", "Message"], &rows, false));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_told_by_its_size_and_never_by_its_value() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGVsbG8="}});
        let shown = describe("Secret", &secret, &[]);
        assert!(shown.contains("k:  5 bytes") && !shown.contains("aGVsbG8"), "{shown}");
    }

    #[test]
    fn what_no_kind_has_of_its_own_is_told_by_its_fields() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"maxReplicaCount": 3, "triggers": [{"type": "cron", "metadata": {"start": "0 8 * * *"}}]}});
        let shown = describe("ScaledJob", &object, &[]);
        for line in [
            "Name:               x",
            "  Max Replica Count:  3",
            "    - Metadata:",
            "        Start:  0 8 * * *",
            "      Type:  cron",
            "Events:             <none>",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
        }
    }
}
