//! Which labels a record has, as a user of Loki expects them.
//!
//! What Loki's push brought has exactly the labels of its stream, and its structured metadata. Of what OTLP brought, the resource
//! attributes of [`INDEX_LABELS`] are the stream's labels; everything else is structured metadata under names of letters, digits and
//! underscores. The rules are those of Loki's documentation, "Ingesting logs to Loki using OpenTelemetry Collector".

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

/// Resource attributes that are labels of the stream, sorted; the defaults of Loki's `distributor.otlp.default_resource_attributes_as_index_labels`.
pub(super) const INDEX_LABELS: [&str; 18] = [
    "cloud.availability_zone",
    "cloud.region",
    "container.name",
    "deployment.environment",
    "deployment.environment.name",
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.cronjob.name",
    "k8s.daemonset.name",
    "k8s.deployment.name",
    "k8s.job.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.replicaset.name",
    "k8s.statefulset.name",
    "service.instance.id",
    "service.name",
    "service.namespace",
];
/// The label of the service.
pub(super) const SERVICE_NAME: &str = "service_name";
/// The label of the level.
pub(super) const DETECTED_LEVEL: &str = "detected_level";
/// What OTLP records of no named service have as `service_name`.
pub(super) const UNKNOWN_SERVICE: &str = "unknown_service";

/// The labels that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedLabels(Arc<[String]>);

impl WantedLabels {
    pub(super) fn new(labels: Vec<String>) -> Self {
        Self(labels.into())
    }

    pub(super) fn hold(&self, label: &str) -> bool {
        self.0.iter().any(|own| own == label)
    }

    /// Whether an attribute may give one of them: as itself, or as a map that has it.
    pub(crate) fn may_come_from(&self, key: &str) -> bool {
        // Every record has the service's name already, in a column of its own.
        if key == "service.name" {
            return false;
        }
        let name = label_name(key);
        self.0.iter().any(|own| own.strip_prefix(&*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
    }
}

impl fmt::Display for WantedLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The name of the label for an attribute: other characters than letters, digits and underscores become underscores.
pub(super) fn label_name(key: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_with_digit = key.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if !starts_with_digit && key.bytes().all(is_plain) {
        return Cow::Borrowed(key);
    }
    let plain = key.chars().map(|letter| if letter.is_ascii() && is_plain(letter as u8) { letter } else { '_' });
    let prefix = if starts_with_digit { "key_" } else { "" };
    Cow::Owned(prefix.chars().chain(plain).collect())
}

/// Whether a resource attribute is a label of an OTLP stream.
pub(super) fn is_index_label(key: &str) -> bool {
    INDEX_LABELS.binary_search(&key).is_ok()
}

/// Calls `take` with name and text of every label that an attribute gives: maps are flattened, arrays are their JSON.
pub(super) fn flatten(name: &str, value: &Value, take: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::Null => {}
        Value::String(text) => take(name, text),
        Value::Bool(value) => take(name, if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => take(name, &tidemill_eval::format_number(value)),
            None => take(name, &number.to_string()),
        },
        Value::Array(_) => take(name, &value.to_string()),
        Value::Object(members) => {
            if let Some((key @ ("doubleValue" | "bytesValue"), text)) = special(members) {
                let text = match (key, text) {
                    ("doubleValue", "Infinity") => "+Inf",
                    ("doubleValue", "-Infinity") => "-Inf",
                    (_, text) => text,
                };
                return take(name, text);
            }
            for (key, value) in members {
                flatten(&format!("{name}_{}", label_name(key)), value, take);
            }
        }
    }
}

fn special(members: &serde_json::Map<String, Value>) -> Option<(&str, &str)> {
    let (key, value) = members.iter().next().filter(|_| members.len() == 1)?;
    Some((key, value.as_str()?))
}

/// The levels that OTLP's severity numbers tell.
const LEVELS: [(RangeInclusive<i32>, &str); 6] =
    [(1..=4, "trace"), (5..=8, "debug"), (9..=12, "info"), (13..=16, "warn"), (17..=20, "error"), (21..=24, "fatal")];

/// The severity numbers of levels.
pub(super) fn numbers_of_levels(levels: &[String]) -> Vec<RangeInclusive<i32>> {
    LEVELS.iter().filter(|(_, level)| levels.iter().any(|own| own == level)).map(|(range, _)| range.clone()).collect()
}

/// The level of an OTLP record, from its severity.
pub(super) fn detected_level(number: Option<i32>, text: Option<&str>) -> &'static str {
    if let Some((_, level)) = LEVELS.iter().find(|(range, _)| number.is_some_and(|number| range.contains(&number))) {
        return level;
    }
    let text = text.unwrap_or_default().to_ascii_lowercase();
    match text.as_str() {
        "trace" | "trc" => "trace",
        "debug" | "dbg" => "debug",
        "info" | "inf" | "information" | "informational" => "info",
        "warn" | "wrn" | "warning" => "warn",
        "error" | "err" | "eror" => "error",
        "critical" => "critical",
        "fatal" => "fatal",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_labels() {
        assert!(INDEX_LABELS.is_sorted());
        assert_eq!(label_name("k8s.pod.name"), "k8s_pod_name");
        assert_eq!(label_name("env"), "env");
        assert_eq!(label_name("1st"), "key_1st");
        assert_eq!(label_name("größe"), "gr__e");
    }

    #[test]
    fn wanted_labels_come_from_attributes_and_maps() {
        let wanted = WantedLabels::new(vec!["http_route".to_owned(), "service_name".to_owned()]);
        let may = |key: &str| wanted.may_come_from(key);
        assert!(may("http.route") && may("http") && may("http_route") && may("service_name") && may("service"));
        assert!(!may("service.name") && !may("httpr") && !may("route") && !may("http.route.id"));
    }

    #[test]
    fn nested_attributes_are_flat() {
        let value =
            serde_json::json!({"b": {"c.d": 1, "e": [1, "x"]}, "f": 7.0, "g": null, "h": {"doubleValue": "NaN"}});
        let mut labels = Vec::new();
        flatten("a", &value, &mut |name, text| labels.push(format!("{name}={text}")));
        assert_eq!(labels, ["a_b_c_d=1", "a_b_e=[1,\"x\"]", "a_f=7", "a_h=NaN"]);
    }

    #[test]
    fn levels_are_detected_from_severities() {
        assert_eq!(detected_level(Some(18), None), "error");
        assert_eq!(detected_level(Some(0), Some("WARNING")), "warn");
        assert_eq!(detected_level(None, None), "unknown");
    }
}
