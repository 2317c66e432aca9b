//! What a horizontal autoscaler's status says of its metrics.

use serde_json::{Value, json};
use tidemill_scaling::hpa::{Metric, Observation, Policy, Readings};

/// `currentMetrics`, in the order of the policy's metrics.
pub(super) fn current(policy: &Policy, seen: &Observation) -> Value {
    let one = |(index, metric): (usize, &Metric)| {
        let Metric::Resource { resource, .. } = metric else { return None };
        let Some(Ok(Readings::Usage(usage))) = seen.readings.get(index).map(|reading| &reading.values) else {
            return None;
        };
        let used: Vec<i64> = usage.iter().map(|pod| pod.containers_milli.values().flatten().sum()).collect();
        let count = i64::try_from(used.len()).ok().filter(|count| *count > 0)?;
        let total: i64 = used.iter().sum();
        let requested: i64 = seen
            .pods
            .iter()
            .filter(|pod| usage.iter().any(|usage| usage.pod == pod.name))
            .flat_map(|pod| pod.containers.iter().filter_map(|container| container.requests_milli.get(resource)))
            .sum();
        let average = total / count;
        let quantity = if resource == "memory" { (average / 1000).to_string() } else { format!("{average}m") };
        let mut current = json!({"averageValue": quantity});
        if let Some(percent) = (total.saturating_mul(100)).checked_div(requested) {
            current["averageUtilization"] = json!(percent);
        }
        Some(json!({"type": "Resource", "resource": {"name": resource, "current": current}}))
    };
    Value::Array(policy.metrics.iter().enumerate().filter_map(one).collect())
}
