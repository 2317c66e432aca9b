//! What one metric proposes.
//!
//! Formulas: upstream's `replica_calculator.go`. The ratio is multiplied by the number of pods that have metrics, real or filled in, not by the
//! current size, and a proposal that the fills turn around is no proposal.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{PodGroups, SampleTime, group_pods};
use super::metric::{Metric, ResourceTarget, ValueTarget};
use super::observation::{Look, Phase, Pod, PodUsage, PodValue, Reading, Readings, Scale};
use super::policy::{Policy, Selection, Surge, Timing, Tolerance};
use super::ratio::{Ratio, ceil_i32, plain_ratio, saturate, utilization_ratio};
use crate::decision::{Fact, TimeMs};

/// A size that one metric proposes, and what it was computed from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Proposal {
    /// The size.
    pub replicas: i32,
    /// The same before tolerance and rounding: how many replicas the load is worth. None where it cannot be told.
    pub demand: Option<f64>,
    /// What was seen.
    pub facts: Vec<Fact>,
}

/// Why a metric proposes nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub message: String,
    pub facts: Vec<Fact>,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, facts: Vec::new() }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// What every metric of one step shares.
pub(super) struct Context<'a> {
    pods: Vec<&'a Pod>,
    scale: Scale,
    tolerance: Tolerance,
    timing: Timing,
    surge: Surge,
    max_age_ms: Option<i64>,
    now: TimeMs,
}

impl<'a> Context<'a> {
    pub fn new(policy: &Policy, observation: Look<'a>, scale: Scale, now: TimeMs) -> Self {
        let counts = |pod: &&Pod| policy.selection == Selection::LabelSelector || pod.is_owned;
        Self {
            pods: observation.pods.iter().filter(counts).collect(),
            scale,
            tolerance: policy.effective_tolerance(),
            timing: policy.timing,
            surge: policy.surge,
            max_age_ms: policy.max_age_ms,
            now,
        }
    }

    /// What `metric` proposes, given its reading.
    pub fn propose(&self, metric: &Metric, reading: &Reading) -> Result<Proposal, Failure> {
        let values = reading.values.as_ref().map_err(|error| Failure::from(error.as_str()))?;
        if let (Some(limit), Some(at)) = (self.max_age_ms, reading.observed_at)
            && self.now.since_ms(at) > limit
        {
            return Err(
                format!("the value is {} ms old, at most {limit} ms are believed", self.now.since_ms(at)).into()
            );
        }
        let observed_at = reading.observed_at;
        match (metric, values) {
            (Metric::Resource { resource, target }, Readings::Usage(usage)) => {
                self.resource(resource, None, *target, usage)
            }
            (Metric::ContainerResource { resource, container, target }, Readings::Usage(usage)) => {
                self.resource(resource, Some(container), *target, usage)
            }
            (Metric::Pods { target_average_milli, .. }, Readings::PodValues(values)) => {
                if values.is_empty() {
                    return Err("no metrics returned from custom metrics API".into());
                }
                let samples = values.iter().map(|value| (value.pod.as_str(), Sample::of_value(value))).collect();
                self.by_pod(samples, "", &Measure::Average(*target_average_milli))
            }
            (Metric::Object { target, .. }, Readings::Samples(samples)) => match samples.as_slice() {
                [value] => self.value(*value, *target, observed_at),
                others => Err(format!("an object has one value, found {}", others.len()).into()),
            },
            (Metric::External { target, .. }, Readings::Samples(samples)) => {
                if samples.is_empty() {
                    return Err("no metrics returned from external metrics API".into());
                }
                let sum = saturate(samples.iter().map(|value| i128::from(*value)).sum());
                self.value(sum, *target, observed_at)
            }
            _ => Err("the reading is not of the metric's kind".into()),
        }
    }

    fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: ResourceTarget,
        usage: &[PodUsage],
    ) -> Result<Proposal, Failure> {
        let prefix = format!("unable to get metrics for resource {resource}: ");
        if usage.is_empty() {
            return Err(format!("{prefix}no metrics returned from resource metrics API").into());
        }
        let mut samples = BTreeMap::new();
        for pod in usage {
            let value = match container {
                Some(name) => match pod.containers_milli.get(name) {
                    Some(Some(value)) => Some(*value),
                    _ => {
                        let message = format!("{prefix}container {name} not present in metrics for pod {}", pod.pod);
                        return Err(message.into());
                    }
                },
                // A pod with a container that lacks the resource is taken as missing.
                None => pod.containers_milli.values().try_fold(0_i64, |sum, value| Some(sum.saturating_add((*value)?))),
            };
            if let Some(milli) = value {
                samples.insert(pod.pod.as_str(), Sample { at: pod.at, window_ms: pod.window_ms, milli });
            }
        }
        let measure = match target {
            ResourceTarget::Utilization { percent } => {
                Measure::Utilization { resource, container, percent, requests: BTreeMap::new() }
            }
            ResourceTarget::AverageValue { milli } => Measure::Average(milli),
        };
        self.by_pod(samples, resource, &measure)
    }

    /// Resource, ContainerResource and Pods metrics: groups, fills, and the guards against turning around.
    fn by_pod(&self, samples: BTreeMap<&str, Sample>, resource: &str, measure: &Measure) -> Result<Proposal, Failure> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let times = samples.iter().map(|(pod, sample)| (*pod, sample.time())).collect();
        let groups = group_pods(&self.pods, &times, resource, self.timing, self.now);
        let mut usage: BTreeMap<&str, i64> = samples.iter().map(|(pod, sample)| (*pod, sample.milli)).collect();
        usage.retain(|pod, _| !groups.ignored.contains(*pod) && !groups.unready.contains(*pod));
        let with_groups = |message: String| Failure { message, facts: groups.facts() };
        if usage.is_empty() {
            let message = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(with_groups(message.to_owned()));
        }
        let measure = measure.with_requests(&self.pods).map_err(with_groups)?;
        let first = measure.ratio(&usage).map_err(with_groups)?;
        let oldest = samples.values().map(|sample| sample.at).min();
        let mut facts = first_facts(first, oldest, self.now);
        facts.extend(groups.facts());
        let (replicas, demand) = self.settle(&measure, &groups, usage, first, &mut facts).map_err(with_groups)?;
        Ok(Proposal { replicas, demand: Some(demand), facts })
    }

    fn settle<'u>(
        &self,
        measure: &Measure<'_>,
        groups: &'u PodGroups,
        mut usage: BTreeMap<&'u str, i64>,
        first: Ratio,
        facts: &mut Vec<Fact>,
    ) -> Result<(i32, f64), String> {
        let current = self.scale.spec_replicas;
        let rebalances = !groups.unready.is_empty() && first.ratio > 1.0;
        if !rebalances && groups.missing.is_empty() {
            let demand = first.ratio * self.counted(groups.ready);
            let replicas = if self.tolerance.contains(first.ratio) { current } else { ceil_i32(demand) };
            return Ok((replicas, demand));
        }
        if first.ratio < 1.0 {
            fill(&mut usage, &groups.missing, |pod| measure.assumed_high(pod));
            facts.push(Fact::new("missing_pods_assumed", "at their request or target"));
        } else if first.ratio > 1.0 && !groups.missing.is_empty() {
            fill(&mut usage, &groups.missing, |_| 0);
            facts.push(Fact::new("missing_pods_assumed", "idle"));
        }
        if rebalances {
            fill(&mut usage, &groups.unready, |_| 0);
            facts.push(Fact::new("unready_pods_assumed", "idle"));
        }
        let filled = measure.ratio(&usage)?;
        facts.push(Fact::new("ratio_with_fills", filled.ratio));
        let demand = filled.ratio * self.counted(usage.len());
        let turned = (first.ratio < 1.0 && filled.ratio > 1.0) || (first.ratio > 1.0 && filled.ratio < 1.0);
        if self.tolerance.contains(filled.ratio) || turned {
            return Ok((current, demand));
        }
        let replicas = ceil_i32(demand);
        let is_contrary = (filled.ratio < 1.0 && replicas > current) || (filled.ratio > 1.0 && replicas < current);
        Ok((if is_contrary { current } else { replicas }, demand))
    }

    /// The number of pods that a ratio is multiplied by.
    fn counted(&self, pods: usize) -> f64 {
        let asked = usize::try_from(self.scale.spec_replicas).unwrap_or(0).max(1);
        let counted = if self.surge == Surge::LimitedToSpec { pods.min(asked) } else { pods };
        counted as f64
    }

    /// Object and External metrics.
    fn value(&self, value_milli: i64, target: ValueTarget, observed_at: Option<TimeMs>) -> Result<Proposal, Failure> {
        let value = value_milli as f64;
        let observed = |name, milli: i64| Fact::observed(name, milli, observed_at, self.now);
        match target {
            ValueTarget::Value { milli } => {
                let ratio = value / milli as f64;
                let mut facts = vec![observed("usage", value_milli), Fact::new("ratio", ratio)];
                let current = self.scale.spec_replicas;
                if current == 0 {
                    return Ok(Proposal { replicas: ceil_i32(ratio), demand: Some(ratio), facts });
                }
                let ready = self.pods.iter().filter(|pod| is_running_and_ready(pod)).count();
                facts.push(Fact::new("ready_pods", ready));
                if self.tolerance.contains(ratio) {
                    return Ok(Proposal { replicas: current, demand: Some(ratio * f64::from(current)), facts });
                }
                if self.pods.is_empty() {
                    let message =
                        "unable to calculate ready pods: no pods returned by selector while calculating replica count";
                    return Err(Failure { message: message.to_owned(), facts });
                }
                let demand = ratio * self.counted(ready);
                Ok(Proposal { replicas: ceil_i32(demand), demand: Some(demand), facts })
            }
            ValueTarget::AverageValue { milli } => {
                let current = self.scale.status_replicas;
                let demand = value / milli as f64;
                let ratio = value / (milli as f64 * f64::from(current));
                let average = (value / f64::from(current)).ceil() as i64;
                let facts = vec![observed("usage", average), observed("total", value_milli), Fact::new("ratio", ratio)];
                let replicas = if self.tolerance.contains(ratio) { current } else { ceil_i32(demand) };
                Ok(Proposal { replicas, demand: Some(demand), facts })
            }
        }
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.phase == Phase::Running && pod.ready == Some(true)
}

fn first_facts(ratio: Ratio, oldest: Option<TimeMs>, now: TimeMs) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(percent) = ratio.utilization {
        facts.push(Fact::observed("utilization_percent", percent, oldest, now));
    }
    facts.push(Fact::observed("usage", ratio.average_milli, oldest, now));
    facts.push(Fact::new("ratio", ratio.ratio));
    facts
}

fn fill<'u>(usage: &mut BTreeMap<&'u str, i64>, pods: &'u BTreeSet<String>, value: impl Fn(&str) -> i64) {
    for pod in pods {
        usage.insert(pod, value(pod));
    }
}

struct Sample {
    at: TimeMs,
    window_ms: i64,
    milli: i64,
}

impl Sample {
    fn of_value(value: &PodValue) -> Self {
        Self { at: value.at, window_ms: 0, milli: value.milli }
    }

    fn time(&self) -> SampleTime {
        SampleTime { at: self.at, window_ms: self.window_ms }
    }
}

/// What usage is compared with.
enum Measure<'a> {
    Utilization { resource: &'a str, container: Option<&'a str>, percent: i32, requests: BTreeMap<&'a str, i64> },
    Average(i64),
}

impl<'a> Measure<'a> {
    fn with_requests<'p>(&self, pods: &[&'p Pod]) -> Result<Measure<'p>, String>
    where
        'a: 'p,
    {
        match self {
            Measure::Average(milli) => Ok(Measure::Average(*milli)),
            Measure::Utilization { resource, container, percent, .. } => {
                let mut requests = BTreeMap::new();
                for pod in pods {
                    requests.insert(pod.name.as_str(), request_of(pod, resource, *container)?);
                }
                Ok(Measure::Utilization { resource, container: *container, percent: *percent, requests })
            }
        }
    }

    fn ratio(&self, usage: &BTreeMap<&str, i64>) -> Result<Ratio, String> {
        match self {
            Self::Utilization { percent, requests, .. } => utilization_ratio(usage, requests, *percent),
            Self::Average(milli) => Ok(plain_ratio(usage, *milli)),
        }
    }

    /// What a pod without metrics is taken to use when the size would go down.
    fn assumed_high(&self, pod: &str) -> i64 {
        match self {
            Self::Utilization { percent, requests, .. } => {
                let request = requests.get(pod).copied().unwrap_or(0);
                saturate(i128::from(request) * i128::from((*percent).max(100)) / 100)
            }
            Self::Average(milli) => *milli,
        }
    }
}

/// A pod's request: of the pod as a whole if it has one and no container is asked for, else the sum over its containers.
fn request_of(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    if container.is_none()
        && let Some(request) = pod.pod_requests_milli.get(resource)
    {
        return Ok(*request);
    }
    let mut sum = 0_i64;
    let mut found = false;
    for entry in pod.containers.iter().filter(|entry| container.is_none_or(|name| name == entry.name)) {
        let Some(request) = entry.requests_milli.get(resource) else {
            return Err(format!("missing request for {resource} in container {} of Pod {}", entry.name, pod.name));
        };
        sum = sum.saturating_add(*request);
        found = true;
    }
    match container {
        Some(name) if !found => Err(format!("container {name} not found in Pod {}", pod.name)),
        _ => Ok(sum),
    }
}
