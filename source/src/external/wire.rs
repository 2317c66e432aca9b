//! KEDA's gRPC contract of an external scaler: package `externalscaler`, service `ExternalScaler` (KEDA's documentation, "External Scalers").

use std::collections::HashMap;

/// The service's path; methods follow after a slash.
pub const SERVICE: &str = "externalscaler.ExternalScaler";

/// Which object asks, and the metadata of its trigger.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScaledObjectRef {
    /// The object's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The trigger's metadata; `…FromEnv` has the value of the variable.
    #[prost(map = "string, string", tag = "3")]
    pub scaler_metadata: HashMap<String, String>,
}

/// Whether the object should run at all.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct IsActiveResponse {
    /// Whether it should.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// What is measured, and its targets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricSpecResponse {
    /// A metric and its target each.
    #[prost(message, repeated, tag = "1")]
    pub metric_specs: Vec<MetricSpec>,
}

/// A metric and its target.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The target; what servers before KEDA 2.13 set.
    #[prost(int64, tag = "2")]
    pub target_size: i64,
    /// The target.
    #[prost(double, tag = "3")]
    pub target_size_float: f64,
}

/// Asks for a metric.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetMetricsRequest {
    /// Who asks.
    #[prost(message, optional, tag = "1")]
    pub scaled_object_ref: Option<ScaledObjectRef>,
    /// Which one, without KEDA's prefix `s0-`.
    #[prost(string, tag = "2")]
    pub metric_name: String,
}

/// Values of metrics.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsResponse {
    /// Each with its name.
    #[prost(message, repeated, tag = "1")]
    pub metric_values: Vec<MetricValue>,
}

/// The value of a metric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// Its value; what servers before KEDA 2.13 set.
    #[prost(int64, tag = "2")]
    pub metric_value: i64,
    /// Its value.
    #[prost(double, tag = "3")]
    pub metric_value_float: f64,
}
