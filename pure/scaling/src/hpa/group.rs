//! Which pods count for a metric: ready, unready, missing or ignored.
//!
//! The rules and their order are upstream's `groupPods` (replica_calculator.go). A pod that was ready once and is not now counts.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::{Phase, Pod};
use super::policy::Timing;
use crate::decision::{Fact, TimeMs};

/// The pods of a workload, by what they are to one metric.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodGroups {
    /// How many count with their metrics.
    pub ready: usize,
    /// Too young or not ready: their metrics do not count.
    pub unready: BTreeSet<String>,
    /// Without metrics.
    pub missing: BTreeSet<String>,
    /// Ending or failed.
    pub ignored: BTreeSet<String>,
}

impl PodGroups {
    pub(super) fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![Fact::new("ready_pods", self.ready)];
        for (name, pods) in
            [("unready_pods", &self.unready), ("missing_pods", &self.missing), ("ignored_pods", &self.ignored)]
        {
            if !pods.is_empty() {
                facts.push(Fact::new(name, pods.iter().cloned().collect::<Vec<_>>()));
            }
        }
        facts
    }
}

/// The time and window of a pod's sample.
#[derive(Debug, Clone, Copy)]
pub struct SampleTime {
    /// The window's end.
    pub at: TimeMs,
    /// Its length.
    pub window_ms: i64,
}

/// Groups `pods` for a metric of `resource` (empty for anything but a resource); `samples` are the pods that have metrics.
pub fn group_pods(
    pods: &[&Pod],
    samples: &BTreeMap<&str, SampleTime>,
    resource: &str,
    timing: Timing,
    now: TimeMs,
) -> PodGroups {
    let mut groups = PodGroups::default();
    for pod in pods {
        let name = pod.name.clone();
        if pod.is_deleting || pod.phase == Phase::Failed {
            groups.ignored.insert(name);
        } else if pod.phase == Phase::Pending {
            groups.unready.insert(name);
        } else {
            match samples.get(pod.name.as_str()) {
                None => {
                    groups.missing.insert(name);
                }
                Some(sample) if resource == "cpu" && !is_cpu_believed(pod, *sample, timing, now) => {
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

fn is_cpu_believed(pod: &Pod, sample: SampleTime, timing: Timing, now: TimeMs) -> bool {
    let (Some(is_ready), Some(started_at)) = (pod.ready, pod.started_at) else { return false };
    if started_at.plus_ms(timing.cpu_initialization_ms) > now {
        // The whole window must lie after the pod became ready.
        is_ready && sample.at >= pod.ready_changed_at.plus_ms(sample.window_ms)
    } else {
        // Not ready and never was: the change to "not ready" came with the start.
        is_ready || started_at.plus_ms(timing.initial_readiness_delay_ms) <= pod.ready_changed_at
    }
}
