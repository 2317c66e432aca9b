//! What a policy sees of the world.

use std::collections::BTreeMap;

use tidemill_scaling::hpa::{self, Container, Metric, Phase, Pod, PodUsage, PodValue, Reading, Readings, Scale};
use tidemill_scaling::keda::job::{self, Job};
use tidemill_scaling::keda::{StrategyKind, Target, Trigger, TriggerReading, TriggerValue, object};
use tidemill_scaling::record::{Observation, Policy};
use tidemill_scaling::vpa;

use crate::Counts;
use crate::clock::Clock;
use crate::replica::Replica;
use crate::world::{MEASURE_MS, START, World};

impl World<'_> {
    /// One look, of the policy's kind.
    pub(crate) fn observe(&self, policy: &Policy, clock: Clock) -> Observation {
        match policy {
            Policy::HorizontalPodAutoscaler(policy) => {
                Observation::HorizontalPodAutoscaler(self.horizontal(&policy.metrics))
            }
            Policy::ScaledObject(policy) => Observation::ScaledObject(object::Observation {
                tick: clock.tick(),
                created_at: START,
                scale: Ok(self.scale()),
                pods: self
                    .pods(policy.triggers.iter().any(|trigger| matches!(trigger.target, Target::Resource { .. }))),
                triggers: policy.triggers.iter().map(|trigger| self.trigger(trigger, None)).collect(),
            }),
            Policy::ScaledJob(policy) => {
                let in_flight = (policy.strategy.kind == StrategyKind::Exact).then_some(self.working + self.orphans);
                Observation::ScaledJob(job::Observation {
                    jobs: Ok(self.replicas.iter().map(|(id, replica)| job_of(*id, replica)).collect()),
                    triggers: policy.triggers.iter().map(|trigger| self.trigger(trigger, in_flight)).collect(),
                })
            }
            Policy::VerticalPodAutoscaler(_) => Observation::VerticalPodAutoscaler(vpa::Observation::default()),
        }
    }

    fn scale(&self) -> Scale {
        let status = i32::try_from(self.replicas.len()).unwrap_or(i32::MAX);
        Scale { spec_replicas: self.asked, status_replicas: status }
    }

    fn waiting(&self) -> f64 {
        let working = if self.setup.counts == Counts::Unfinished { self.working + self.orphans } else { 0 };
        (self.queue.len() + working) as f64
    }

    fn trigger(&self, trigger: &Trigger, in_flight: Option<usize>) -> TriggerReading {
        match &trigger.target {
            Target::Resource { metric } => TriggerReading::Usage(self.reading(metric)),
            _ => {
                let value = if in_flight.is_some() { self.queue.len() as f64 } else { self.waiting() };
                let in_flight = in_flight.map(|count| count as f64);
                TriggerReading::Value(TriggerValue { value, in_flight, is_active: None, observed_at: self.at() })
            }
        }
    }

    fn horizontal(&self, metrics: &[Metric]) -> hpa::Observation {
        hpa::Observation {
            scale: Ok(self.scale()),
            selector_problem: None,
            pods: self.pods(
                metrics
                    .iter()
                    .any(|metric| matches!(metric, Metric::Resource { .. } | Metric::ContainerResource { .. })),
            ),
            readings: metrics.iter().map(|metric| self.reading(metric)).collect(),
        }
    }

    /// CPU and memory are what was measured of the replicas; any other metric is the queue.
    fn reading(&self, metric: &Metric) -> Reading {
        let values = match metric {
            Metric::Resource { resource, .. } | Metric::ContainerResource { resource, .. } => {
                let container = self.container_of(metric);
                let usage = self.replicas.iter().filter_map(|(id, replica)| {
                    let measured = replica.measured?;
                    let milli =
                        if resource == "cpu" { measured.cpu_milli } else { measured.memory_bytes.saturating_mul(1000) };
                    let containers_milli = BTreeMap::from([(container.clone(), Some(milli))]);
                    let at = START.plus_ms(measured.at_ms);
                    Some(PodUsage { pod: name_of(*id), at, window_ms: MEASURE_MS, containers_milli })
                });
                Readings::Usage(usage.collect())
            }
            Metric::Pods { .. } => {
                let ready = self.replicas.iter().filter(|(_, replica)| replica.ready_ms.is_some());
                let count = ready.clone().count().max(1) as f64;
                let milli = (self.waiting() * 1000.0 / count) as i64;
                Readings::PodValues(ready.map(|(id, _)| PodValue { pod: name_of(*id), at: self.at(), milli }).collect())
            }
            Metric::Object { .. } | Metric::External { .. } | Metric::Unsupported { .. } => {
                Readings::Samples(vec![(self.waiting() * 1000.0) as i64])
            }
        };
        Reading { observed_at: Some(self.at()), values: Ok(values) }
    }

    /// The container that a metric names; there is only one that works.
    fn container_of(&self, metric: &Metric) -> String {
        match metric {
            Metric::ContainerResource { container, .. } => container.clone(),
            _ => self.contender.size.container.clone(),
        }
    }

    /// The replicas; what they request only for a policy that asks for it, because a look comes as often as an arrival.
    fn pods(&self, with_requests: bool) -> Vec<Pod> {
        let container = |replica: &Replica| {
            let mut requests_milli = BTreeMap::new();
            requests_milli.extend(replica.requests.cpu_milli.map(|milli| ("cpu".to_owned(), milli)));
            let memory = replica.requests.memory_bytes.map(|bytes| ("memory".to_owned(), bytes.saturating_mul(1000)));
            requests_milli.extend(memory);
            Container { name: self.contender.size.container.clone(), requests_milli }
        };
        let pod = |(id, replica): (&u64, &Replica)| Pod {
            ready: Some(replica.ready_ms.is_some()),
            ready_changed_at: START.plus_ms(replica.ready_ms.unwrap_or(replica.started_ms)),
            phase: if replica.ready_ms.is_some() { Phase::Running } else { Phase::Pending },
            is_deleting: replica.is_leaving,
            live_leases: u32::from(replica.item.is_some()),
            containers: with_requests.then(|| container(replica)).into_iter().collect(),
            ..Pod::ready_since(name_of(*id), START.plus_ms(replica.started_ms))
        };
        self.replicas.iter().map(pod).collect()
    }
}

pub(crate) fn name_of(id: u64) -> String {
    format!("replica-{id}")
}

/// The replica that a decision names.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    name.strip_prefix("replica-")?.parse().ok()
}

fn job_of(id: u64, replica: &Replica) -> Job {
    Job::active(name_of(id), if replica.ready_ms.is_some() { Phase::Running } else { Phase::Pending })
}
