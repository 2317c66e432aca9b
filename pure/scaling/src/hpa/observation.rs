//! What a horizontal autoscaler sees: the scale, the pods, and one reading per metric.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::TimeMs;

/// One look at a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The scale subresource, or why it cannot be read.
    pub scale: Result<Scale, String>,
    /// What is wrong with the target's selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector_problem: Option<SelectorProblem>,
    /// The pods that the selector matches.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// One reading per metric of the policy, in its order.
    pub readings: Vec<Reading>,
}

/// An observation whose parts somebody else owns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    pub scale: &'a Result<Scale, String>,
    pub selector_problem: Option<SelectorProblem>,
    pub pods: &'a [Pod],
    pub readings: &'a [Reading],
}

impl<'a> From<&'a Observation> for Look<'a> {
    fn from(observation: &'a Observation) -> Self {
        let Observation { scale, selector_problem, pods, readings } = observation;
        Self { scale, selector_problem: *selector_problem, pods, readings }
    }
}

/// Asked and existing replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// `spec.replicas`.
    pub spec_replicas: i32,
    /// `status.replicas`.
    pub status_replicas: i32,
}

/// Why a selector cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectorProblem {
    /// There is none.
    SelectorRequired,
    /// It cannot be parsed.
    InvalidSelector,
    /// More than one autoscaler controls pods that it matches.
    AmbiguousSelector,
}

/// The phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not all containers were started yet.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, at least one badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// A pod, or a local replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Whether it was told to end.
    #[serde(default)]
    pub is_deleting: bool,
    /// Its Ready condition, if it has one.
    pub ready: Option<bool>,
    /// When that condition last changed.
    #[serde(default)]
    pub ready_changed_at: TimeMs,
    /// When it was started.
    pub started_at: Option<TimeMs>,
    /// Its containers and restartable init containers.
    #[serde(default)]
    pub containers: Vec<Container>,
    /// Requests of the pod as a whole, in milli-units by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_requests_milli: BTreeMap<String, i64>,
    /// Whether the target owns it.
    #[serde(default = "yes")]
    pub is_owned: bool,
    /// Leases on work that it holds now.
    #[serde(default)]
    pub live_leases: u32,
}

fn yes() -> bool {
    true
}

impl Pod {
    /// A running pod that has been ready since `at`.
    pub fn ready_since(name: impl Into<String>, at: TimeMs) -> Self {
        Self {
            name: name.into(),
            phase: Phase::Running,
            is_deleting: false,
            ready: Some(true),
            ready_changed_at: at,
            started_at: Some(at),
            containers: Vec::new(),
            pod_requests_milli: BTreeMap::new(),
            is_owned: true,
            live_leases: 0,
        }
    }
}

/// A container's requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// In milli-units by resource; what is missing is not requested.
    pub requests_milli: BTreeMap<String, i64>,
}

/// What was read of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// When the source had these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<TimeMs>,
    /// The values, or why there are none.
    pub values: Result<Readings, String>,
}

impl Reading {
    /// Samples of an Object or External metric.
    pub fn samples(milli: Vec<i64>, observed_at: TimeMs) -> Self {
        Self { observed_at: Some(observed_at), values: Ok(Readings::Samples(milli)) }
    }

    /// A reading that failed.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { observed_at: None, values: Err(error.into()) }
    }
}

/// The values of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readings {
    /// A resource per pod and container.
    Usage(Vec<PodUsage>),
    /// A value per pod.
    PodValues(Vec<PodValue>),
    /// Samples of an object or from outside, in milli-units.
    Samples(Vec<i64>),
}

/// A resource of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodUsage {
    /// The pod.
    pub pod: String,
    /// The end of the window that was measured.
    pub at: TimeMs,
    /// How long that window is.
    pub window_ms: i64,
    /// In milli-units by container; `None` where the container's metrics lack the resource.
    pub containers_milli: BTreeMap<String, Option<i64>>,
}

/// A value of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodValue {
    /// The pod.
    pub pod: String,
    /// When.
    #[serde(default)]
    pub at: TimeMs,
    /// In milli-units.
    pub milli: i64,
}
