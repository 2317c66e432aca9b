//! The kinds of metric that a horizontal autoscaler follows, and their targets. All values are whole milli-units.

use serde::{Deserialize, Serialize};

/// One metric and its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// A resource of whole pods.
    Resource {
        /// `cpu` or `memory`.
        resource: String,
        /// What it should be.
        target: ResourceTarget,
    },
    /// A resource of one container of each pod.
    ContainerResource {
        /// `cpu` or `memory`.
        resource: String,
        /// The container.
        container: String,
        /// What it should be.
        target: ResourceTarget,
    },
    /// A value of each pod.
    Pods {
        /// The metric.
        name: String,
        /// What the average over the pods should be.
        target_average_milli: i64,
    },
    /// One value of one object.
    Object {
        /// The metric.
        name: String,
        /// What it should be.
        target: ValueTarget,
    },
    /// Samples from outside, added up.
    External {
        /// The metric.
        name: String,
        /// What the sum should be.
        target: ValueTarget,
        /// What to do while it fails (KEP-5679).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fallback: Option<ExternalFallback>,
    },
    /// A kind that is not known: it fails, and the others go on.
    Unsupported {
        /// What was written.
        source_type: String,
    },
}

/// The target of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResourceTarget {
    /// Percent of the request.
    Utilization {
        /// At least 1.
        percent: i32,
    },
    /// An average over the pods.
    AverageValue {
        /// In milli-units: millicores, or bytes × 1000.
        milli: i64,
    },
}

/// The target of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ValueTarget {
    /// The value itself.
    Value {
        /// In milli-units.
        milli: i64,
    },
    /// The value divided by the replicas.
    AverageValue {
        /// In milli-units.
        milli: i64,
    },
}

/// Replicas to propose once an External metric has failed for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalFallback {
    /// For how long it must have failed; upstream's default is 180 s.
    pub failure_duration_ms: i64,
    /// What is proposed then.
    pub replicas: i32,
}

impl Metric {
    /// How the metric is named in reasons.
    pub fn label(&self) -> String {
        match self {
            Self::Resource { resource, target } => match target {
                ResourceTarget::Utilization { .. } => {
                    format!("{resource} resource utilization (percentage of request)")
                }
                ResourceTarget::AverageValue { .. } => format!("{resource} resource"),
            },
            Self::ContainerResource { resource, container, .. } => {
                format!("{resource} container resource of {container}")
            }
            Self::Pods { name, .. } => format!("pods metric {name}"),
            Self::Object { name, .. } => format!("object metric {name}"),
            Self::External { name, .. } => format!("external metric {name}"),
            Self::Unsupported { source_type } => format!("metric of the unknown type {source_type}"),
        }
    }

    /// The reason of `ScalingActive` when it cannot be read.
    pub fn failure_code(&self) -> &'static str {
        match self {
            Self::Resource { .. } => "FailedGetResourceMetric",
            Self::ContainerResource { .. } => "FailedGetContainerResourceMetric",
            Self::Pods { .. } => "FailedGetPodsMetric",
            Self::Object { .. } => "FailedGetObjectMetric",
            Self::External { .. } => "FailedGetExternalMetric",
            Self::Unsupported { .. } => "InvalidMetricSourceType",
        }
    }
}
