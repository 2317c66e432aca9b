//! The inputs of a case as policies and observations.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::{field, ms};
use crate::decision::TimeMs;
use crate::hpa::{
    Container, Metric, Phase, Pod, PodGroups, PodUsage, PodValue, Reading, Readings, ResourceTarget, SampleTime,
    ScaleEvent, Timing, ValueTarget, group_pods,
};

/// The time of every case.
pub(super) const NOW: TimeMs = TimeMs(1_000_000_000);

/// The controller's windows in every case.
pub(super) const TIMING: Timing =
    Timing { downscale_stabilization_ms: 300_000, cpu_initialization_ms: 120_000, initial_readiness_delay_ms: 10_000 };

/// The window of a sample that names none.
const WINDOW_S: f64 = 60.0;

#[derive(Deserialize)]
pub(super) struct Event {
    change: i32,
    age_s: f64,
}

impl Event {
    pub(super) fn event(&self) -> ScaleEvent {
        ScaleEvent { at: NOW.plus_ms(-ms(self.age_s)), change: self.change }
    }
}

#[derive(Deserialize)]
struct CasePod {
    name: String,
    phase: Phase,
    #[serde(default)]
    deleting: bool,
    ready: Option<bool>,
    #[serde(default)]
    ready_ltt: f64,
    start: Option<f64>,
    #[serde(default)]
    requests: BTreeMap<String, Option<i64>>,
}

#[derive(Deserialize)]
struct CaseMetric {
    pod: String,
    ts: Option<f64>,
    window: Option<f64>,
    #[serde(default)]
    usage: BTreeMap<String, Option<i64>>,
    value: Option<i64>,
}

impl CaseMetric {
    fn at(&self) -> TimeMs {
        self.ts.map_or(NOW, |seconds| TimeMs(ms(seconds)))
    }

    fn window_ms(&self) -> i64 {
        ms(self.window.unwrap_or(WINDOW_S))
    }
}

/// A metric and what was read of it.
pub(super) struct Described {
    pub metric: Metric,
    pub reading: Reading,
}

fn resource_name(input: &Value) -> Result<String, String> {
    Ok(field::<Option<String>>(input, "resource")?.unwrap_or_default())
}

/// The pods of a case, with requests for its resource.
pub(super) fn pods_of(kind: &str, input: &Value) -> Result<Vec<Pod>, String> {
    let resource = resource_name(input)?;
    let pods: Vec<CasePod> = field::<Option<_>>(input, "pods")?.unwrap_or_default();
    let has_requests = kind == "resource_utilization";
    let pod = |pod: CasePod| Pod {
        name: pod.name,
        phase: pod.phase,
        is_deleting: pod.deleting,
        ready: pod.ready,
        ready_changed_at: TimeMs(ms(pod.ready_ltt)),
        started_at: pod.start.map(|seconds| TimeMs(ms(seconds))),
        containers: if has_requests { containers(&resource, pod.requests) } else { Vec::new() },
        pod_requests_milli: BTreeMap::new(),
        is_owned: true,
        live_leases: 0,
    };
    Ok(pods.into_iter().map(pod).collect())
}

fn containers(resource: &str, requests: BTreeMap<String, Option<i64>>) -> Vec<Container> {
    let of = |(name, milli): (String, Option<i64>)| {
        let requests_milli = milli.map(|milli| (resource.to_owned(), milli)).into_iter().collect();
        Container { name, requests_milli }
    };
    requests.into_iter().map(of).collect()
}

pub(super) fn groups(pods: &[Pod], input: &Value) -> Result<PodGroups, String> {
    let metrics: Vec<CaseMetric> = field(input, "metrics")?;
    let samples = metrics
        .iter()
        .map(|metric| (metric.pod.as_str(), SampleTime { at: metric.at(), window_ms: metric.window_ms() }))
        .collect();
    Ok(group_pods(&pods.iter().collect::<Vec<_>>(), &samples, &resource_name(input)?, TIMING, NOW))
}

/// The metric that a case is about, and its reading.
pub(super) fn describe(kind: &str, input: &Value) -> Result<Described, String> {
    let name = "case".to_owned();
    let described =
        |metric, values| Described { metric, reading: Reading { observed_at: Some(NOW), values: Ok(values) } };
    let value = || Ok::<_, String>(ValueTarget::Value { milli: field(input, "target_value")? });
    let average = || Ok::<_, String>(ValueTarget::AverageValue { milli: field(input, "target_average")? });
    Ok(match kind {
        "object_value" => described(Metric::Object { name, target: value()? }, samples(input)?),
        "object_average" => described(Metric::Object { name, target: average()? }, samples(input)?),
        "external_value" => described(Metric::External { name, target: value()?, fallback: None }, samples(input)?),
        "external_average" => described(Metric::External { name, target: average()?, fallback: None }, samples(input)?),
        "pods_average" if resource_name(input)?.is_empty() => {
            let metrics: Vec<CaseMetric> = field(input, "metrics")?;
            let one = |metric: &CaseMetric| {
                let milli = metric.value.ok_or_else(|| format!("input.metrics: pod {} has no value", metric.pod))?;
                Ok(PodValue { pod: metric.pod.clone(), at: metric.at(), milli })
            };
            let values: Result<Vec<PodValue>, String> = metrics.iter().map(one).collect();
            described(
                Metric::Pods { name, target_average_milli: field(input, "target_average")? },
                Readings::PodValues(values?),
            )
        }
        "pods_average" => {
            let target = ResourceTarget::AverageValue { milli: field(input, "target_average")? };
            described(Metric::Resource { resource: resource_name(input)?, target }, usage(input)?)
        }
        "resource_utilization" => {
            let target = ResourceTarget::Utilization { percent: field(input, "target_utilization")? };
            let resource = resource_name(input)?;
            let metric = match field::<Option<String>>(input, "container")? {
                Some(container) => Metric::ContainerResource { resource, container, target },
                None => Metric::Resource { resource, target },
            };
            described(metric, usage(input)?)
        }
        other => return Err(format!("unknown kind of metric {other:?}")),
    })
}

fn samples(input: &Value) -> Result<Readings, String> {
    field(input, "values").map(Readings::Samples)
}

fn usage(input: &Value) -> Result<Readings, String> {
    let metrics: Vec<CaseMetric> = field(input, "metrics")?;
    let one = |metric: CaseMetric| {
        let (at, window_ms) = (metric.at(), metric.window_ms());
        let mut containers_milli = metric.usage;
        if let Some(value) = metric.value {
            containers_milli.insert("container".to_owned(), Some(value));
        }
        PodUsage { pod: metric.pod, at, window_ms, containers_milli }
    };
    Ok(Readings::Usage(metrics.into_iter().map(one).collect()))
}

/// One metric of a whole reconciliation: as above, or `{"kind": "error", "reason"}`.
pub(super) fn reading_of(described: &Value) -> Result<(Metric, Reading), String> {
    let kind = described["kind"].as_str().unwrap_or_default();
    if kind != "error" {
        let Described { metric, reading } = describe(kind, &described["input"])?;
        return Ok((metric, reading));
    }
    let name = "case".to_owned();
    let resource = "cpu".to_owned();
    let percent = ResourceTarget::Utilization { percent: 50 };
    let value = ValueTarget::Value { milli: 1000 };
    let metric = match described["reason"].as_str().unwrap_or_default() {
        "FailedGetExternalMetric" => Metric::External { name, target: value, fallback: None },
        "FailedGetObjectMetric" => Metric::Object { name, target: value },
        "FailedGetPodsMetric" => Metric::Pods { name, target_average_milli: 1000 },
        "FailedGetResourceMetric" => Metric::Resource { resource, target: percent },
        "FailedGetContainerResourceMetric" => Metric::ContainerResource { resource, container: name, target: percent },
        "InvalidMetricSourceType" => Metric::Unsupported { source_type: name },
        other => return Err(format!("unknown reason of a failing metric {other:?}")),
    };
    Ok((metric, Reading::failed("the case says that it fails")))
}
