//! Triggers of KEDA: which metadata a type takes, and what it targets.

use std::collections::BTreeMap;

use super::place::Place;
use crate::hpa::{Metric, ResourceTarget};
use crate::keda::{Target, Trigger};
use crate::quantity::parse_milli;

/// A trigger as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerSpec {
    /// Its type.
    pub scaler: String,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its path.
    pub path: String,
    /// The name of its TriggerAuthentication.
    pub authentication: Option<String>,
    /// Whether `useCachedMetrics` is set.
    pub is_cached: bool,
    /// Metadata that its type does not take, where the type is known.
    pub ignored: Vec<String>,
}

/// What a type takes.
struct ScalerType {
    name: &'static str,
    /// The metadata that holds the target, and its default.
    target: (&'static str, Option<f64>),
    activation: &'static str,
    takes: &'static [&'static str],
}

/// The types whose metadata is known; others are read with the usual names.
const TYPES: &[ScalerType] = &[
    ScalerType {
        name: "postgresql",
        target: ("targetQueryValue", None),
        activation: "activationTargetQueryValue",
        takes: &[
            "query",
            "inFlightQuery",
            "connection",
            "connectionFromEnv",
            "host",
            "port",
            "userName",
            "dbName",
            "sslmode",
            "password",
            "passwordFromEnv",
        ],
    },
    ScalerType {
        name: "mysql",
        target: ("queryValue", None),
        activation: "activationQueryValue",
        takes: &["query", "connectionStringFromEnv", "host", "port", "username", "dbName", "passwordFromEnv"],
    },
    ScalerType {
        name: "sqlite",
        target: ("targetQueryValue", None),
        activation: "activationTargetQueryValue",
        takes: &["query", "inFlightQuery", "path"],
    },
    ScalerType {
        name: "prometheus",
        target: ("threshold", None),
        activation: "activationThreshold",
        takes: &[
            "serverAddress",
            "query",
            "namespace",
            "customHeaders",
            "queryParameters",
            "ignoreNullValues",
            "unsafeSsl",
            "timeout",
            "awsRegion",
            "authModes",
            "cortexOrgID",
        ],
    },
    ScalerType {
        name: "kafka",
        target: ("lagThreshold", Some(10.0)),
        activation: "activationLagThreshold",
        takes: &[
            "bootstrapServers",
            "bootstrapServersFromEnv",
            "consumerGroup",
            "consumerGroupFromEnv",
            "topic",
            "topicFromEnv",
            "partitionLimitation",
            "offsetResetPolicy",
            "allowIdleConsumers",
            "excludePersistentLag",
            "scaleToZeroOnInvalidOffset",
            "limitToPartitionsWithLag",
            "ensureEvenDistributionOfPartitions",
            "fullMetadata",
            "version",
            "tls",
            "sasl",
        ],
    },
    ScalerType {
        name: "redis",
        target: ("listLength", Some(5.0)),
        activation: "activationListLength",
        takes: &[
            "address",
            "addressFromEnv",
            "host",
            "hostFromEnv",
            "port",
            "portFromEnv",
            "listName",
            "databaseIndex",
            "enableTLS",
            "usernameFromEnv",
            "passwordFromEnv",
            "unsafeSsl",
        ],
    },
    ScalerType {
        name: "rabbitmq",
        target: ("value", Some(20.0)),
        activation: "activationValue",
        takes: &[
            "queueName",
            "mode",
            "host",
            "hostFromEnv",
            "protocol",
            "vhostName",
            "useRegex",
            "pageSize",
            "operation",
            "excludeUnacknowledged",
            "timeout",
            "usernameFromEnv",
            "passwordFromEnv",
            "unsafeSsl",
        ],
    },
    ScalerType {
        name: "aws-sqs-queue",
        target: ("queueLength", Some(5.0)),
        activation: "activationQueueLength",
        takes: &[
            "queueURL",
            "queueURLFromEnv",
            "awsRegion",
            "awsEndpoint",
            "scaleOnInFlight",
            "scaleOnDelayed",
            "identityOwner",
        ],
    },
    ScalerType {
        name: "metrics-api",
        target: ("targetValue", None),
        activation: "activationTargetValue",
        takes: &["url", "valueLocation", "format", "unsafeSsl", "timeout", "authMode", "method", "keyParamName"],
    },
    ScalerType {
        name: "cron",
        target: ("", Some(1.0)),
        activation: "",
        takes: &["timezone", "start", "end", "desiredReplicas"],
    },
    ScalerType {
        name: "tidemill",
        target: ("itemsPerReplica", Some(1.0)),
        activation: "activationItems",
        takes: &["queue", "organization"],
    },
];

/// The types whose metadata is known.
pub fn scaler_types() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|scaler| scaler.name).chain(["cpu", "memory", "external", "external-push"])
}

/// Reads one trigger.
pub(super) fn read(place: &Place<'_>, index: usize, is_job: bool) -> Option<(Trigger, TriggerSpec)> {
    place.only(&["type", "name", "metadata", "authenticationRef", "metricType", "useCachedMetrics"]);
    let scaler = place.need("type")?.text()?;
    let metadata_place = place.need("metadata")?;
    let metadata = metadata_place.texts();
    let metric_type = place.text_at("metricType");
    let is_cached = place.flag_at("useCachedMetrics").unwrap_or(false);
    let is_resource = matches!(scaler.as_str(), "cpu" | "memory");
    if is_cached && (is_resource || scaler == "cron") {
        place.note(format!("useCachedMetrics is not for {scaler}"));
    }
    if is_job && metric_type.is_some() {
        place.note("metricType is not for a ScaledJob");
    }
    let target = if is_resource {
        Target::Resource { metric: resource(&metadata_place, &scaler, &metadata, metric_type.as_deref())? }
    } else {
        outside(&metadata_place, &scaler, &metadata, metric_type.as_deref(), is_cached)?
    };
    let known = TYPES.iter().find(|known| known.name == scaler);
    let ignored = known.map_or_else(Vec::new, |known| {
        let takes = |name: &str| {
            let plain = name.strip_suffix("FromEnv").unwrap_or(name);
            known.takes.contains(&name)
                || known.takes.contains(&plain)
                || [known.target.0, known.activation].contains(&name)
        };
        metadata.keys().filter(|name| !takes(name)).cloned().collect()
    });
    let spec = TriggerSpec {
        metadata,
        path: place.path.clone(),
        authentication: place.get("authenticationRef").and_then(|place| place.text_at("name")),
        is_cached,
        ignored,
        scaler: scaler.clone(),
    };
    let name = place.text_at("name").unwrap_or_default();
    Some((Trigger { metric: format!("s{index}-{scaler}"), name, target }, spec))
}

fn number(place: &Place<'_>, metadata: &BTreeMap<String, String>, name: &str) -> Option<Option<f64>> {
    let Some(text) = metadata.get(name) else { return Some(None) };
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Some(Some(value)),
        _ => {
            place.note_at(&format!("{}.{name}", place.path), format!("expected a number, found {text:?}"));
            None
        }
    }
}

fn outside(
    place: &Place<'_>,
    scaler: &str,
    metadata: &BTreeMap<String, String>,
    metric_type: Option<&str>,
    is_cached: bool,
) -> Option<Target> {
    let known = TYPES.iter().find(|known| known.name == scaler);
    let (name, default, activation) = match known {
        Some(known) => (known.target.0, known.target.1, known.activation),
        // The names that most of the other types share; an external scaler says its target itself.
        None => {
            let usual = ["threshold", "value", "targetValue", "queueLength", "lagThreshold"];
            let name = usual.into_iter().find(|name| metadata.contains_key(*name)).unwrap_or("");
            (name, Some(1.0), "activationThreshold")
        }
    };
    let value = number(place, metadata, name)?.or(default);
    let Some(value) = value else {
        place.note(format!("{scaler} needs {name}"));
        return None;
    };
    if value <= 0.0 {
        place.note_at(&format!("{}.{name}", place.path), format!("must be greater than 0, found {value}"));
    }
    let activation = number(place, metadata, activation)?.unwrap_or(0.0);
    match metric_type {
        None | Some("AverageValue") => Some(Target::AverageValue { value, activation, is_cached }),
        Some("Value") => Some(Target::Value { value, activation, is_cached }),
        Some(other) => {
            place.note(format!("metricType: expected AverageValue or Value, found {other}"));
            None
        }
    }
}

fn resource(
    place: &Place<'_>,
    resource: &str,
    metadata: &BTreeMap<String, String>,
    metric_type: Option<&str>,
) -> Option<Metric> {
    let Some(value) = metadata.get("value") else {
        place.note(format!("{resource} needs value"));
        return None;
    };
    let target = match metric_type {
        Some("Utilization") => match value.parse::<i32>() {
            Ok(percent) if percent > 0 => ResourceTarget::Utilization { percent },
            _ => {
                place.note(format!("value: expected percent as a whole number from 1, found {value:?}"));
                return None;
            }
        },
        Some("AverageValue") => {
            let milli = parse_milli(value).map_err(|error| place.note(format!("value: {error}"))).ok()?;
            ResourceTarget::AverageValue { milli }
        }
        _ => {
            place.note(format!("{resource} needs metricType Utilization or AverageValue"));
            return None;
        }
    };
    let resource = resource.to_owned();
    Some(match metadata.get("containerName") {
        Some(container) => Metric::ContainerResource { resource, container: container.clone(), target },
        None => Metric::Resource { resource, target },
    })
}
