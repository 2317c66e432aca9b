//! CPU and memory of containers under the names of cAdvisor, as a kubelet tells them.

use super::families::{Families, Labels};
use crate::runtime::{ContainerState, ReplicaStatus, Usage};

/// The quota's period that cAdvisor tells, in microseconds.
const CPU_PERIOD_US: f64 = 100_000.0;

pub(super) fn add(families: &mut Families, replicas: &[ReplicaStatus], usage_of: impl Fn(&str) -> Option<Usage>) {
    for replica in replicas.iter().filter(|replica| replica.finished_at.is_none()) {
        let usage = usage_of(&replica.spec.uid);
        let specs = replica.spec.init_containers.iter().chain(&replica.spec.containers);
        for (status, spec) in replica.containers.iter().zip(specs) {
            let ContainerState::Running { since, .. } = status.state else { continue };
            let labels = Labels::new(&[
                ("namespace", &replica.spec.namespace),
                ("pod", &replica.spec.name),
                ("container", &spec.name),
                ("image", &spec.image),
            ]);
            families.gauge("container_start_time_seconds", &labels, &[], since.0 as f64 / 1000.0);
            if let Some(milli) = spec.limits.cpu_milli {
                families.gauge("container_spec_cpu_period", &labels, &[], CPU_PERIOD_US);
                families.gauge("container_spec_cpu_quota", &labels, &[], milli as f64 * CPU_PERIOD_US / 1000.0);
            }
            if let Some(bytes) = spec.limits.memory_bytes {
                families.gauge("container_spec_memory_limit_bytes", &labels, &[], bytes as f64);
            }
            let Some(usage) = &usage else { continue };
            let first = replica.started_at.unwrap_or(since);
            if let Some(seconds) = usage.cpu_seconds.get(&spec.name) {
                families.counter("container_cpu_usage_seconds_total", &labels, &[("cpu", "total")], (*seconds, first));
            }
            if let Some(bytes) = usage.containers.get(&spec.name).and_then(|amounts| amounts.memory_bytes) {
                families.gauge("container_memory_working_set_bytes", &labels, &[], bytes as f64);
                families.gauge("container_last_seen", &labels, &[], usage.at.0 as f64 / 1000.0);
            }
        }
    }
}
