//! What a policy sees of the world.

use std::collections::BTreeMap;

use tidemill_scaling::hpa::{self, Container, Metric, Phase, Pod, PodUsage, PodValue, Reading, Readings, Scale};
use tidemill_scaling::keda::job::{self, Job};
use tidemill_scaling::keda::{StrategyKind, Target, Trigger, TriggerReading, TriggerValue, object};
use tidemill_scaling::record::{Observation, Policy};
use tidemill_scaling::{TimeMs, vpa};

use crate::Counts;
use crate::clock::Clock;
use crate::world::{MEASURE_MS, Replica, START, World};

/// What a container requests in this world, in millicores and in bytes × 1000.
const REQUEST_MILLI: i64 = 1000;

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
                pods: self.pods(),
                triggers: policy.triggers.iter().map(|trigger| self.trigger(trigger, None)).collect(),
            }),
            Policy::ScaledJob(policy) => {
                let in_flight = (policy.strategy.kind == StrategyKind::Exact).then_some(self.working);
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

    fn at(&self) -> TimeMs {
        START.plus_ms(self.now)
    }

    fn waiting(&self) -> f64 {
        let working = if self.setup.counts == Counts::Unfinished { self.working } else { 0 };
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
            pods: self.pods(),
            readings: metrics.iter().map(|metric| self.reading(metric)).collect(),
        }
    }

    /// CPU is the share of time that a replica works; memory stays at half; any other metric is the queue.
    fn reading(&self, metric: &Metric) -> Reading {
        let values = match metric {
            Metric::Resource { resource, .. } | Metric::ContainerResource { resource, .. } => {
                let usage = self.replicas.iter().filter_map(|(id, replica)| {
                    let (share, at) = replica.measured?;
                    let milli =
                        if resource == "cpu" { (share * REQUEST_MILLI as f64) as i64 } else { REQUEST_MILLI / 2 };
                    let containers_milli = BTreeMap::from([(container_of(metric), Some(milli))]);
                    Some(PodUsage { pod: name_of(*id), at: START.plus_ms(at), window_ms: MEASURE_MS, containers_milli })
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

    fn pods(&self) -> Vec<Pod> {
        let pod = |(id, replica): (&u64, &Replica)| {
            let requests_milli =
                BTreeMap::from([("cpu".to_owned(), REQUEST_MILLI), ("memory".to_owned(), REQUEST_MILLI)]);
            Pod {
                ready: Some(replica.ready_ms.is_some()),
                ready_changed_at: START.plus_ms(replica.ready_ms.unwrap_or(replica.started_ms)),
                phase: if replica.ready_ms.is_some() { Phase::Running } else { Phase::Pending },
                is_deleting: replica.is_leaving(),
                live_leases: u32::from(replica.item.is_some()),
                containers: vec![Container { name: "worker".to_owned(), requests_milli }],
                ..Pod::ready_since(name_of(*id), START.plus_ms(replica.started_ms))
            }
        };
        self.replicas.iter().map(pod).collect()
    }
}

fn container_of(metric: &Metric) -> String {
    match metric {
        Metric::ContainerResource { container, .. } => container.clone(),
        _ => "worker".to_owned(),
    }
}

fn name_of(id: u64) -> String {
    format!("replica-{id}")
}

/// The replica that a decision names.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    name.strip_prefix("replica-")?.parse().ok()
}

fn job_of(id: u64, replica: &Replica) -> Job {
    Job::active(name_of(id), if replica.ready_ms.is_some() { Phase::Running } else { Phase::Pending })
}
