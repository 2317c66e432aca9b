//! What a horizontal autoscaler's status says of its metrics.

use serde_json::{Value, json};
use tidemill_scaling::hpa::{Metric, Observation, Policy, Readings};

/// A metric of pods, of an object or from outside, with what it says of itself.
fn outside(metric: &Metric, reading: &Readings, written: &Value) -> Option<Value> {
    let (section, kind) = match metric {
        Metric::Pods { .. } => ("pods", "Pods"),
        Metric::Object { .. } => ("object", "Object"),
        Metric::External { .. } => ("external", "External"),
        _ => return None,
    };
    let current = match reading {
        Readings::PodValues(values) => {
            let total: i64 = values.iter().map(|value| value.milli).sum();
            let count = i64::try_from(values.len()).ok().filter(|count| *count > 0)?;
            json!({"averageValue": format!("{}m", total / count)})
        }
        Readings::Samples(samples) => json!({"value": format!("{}m", samples.iter().sum::<i64>())}),
        Readings::Usage(_) => return None,
    };
    let mut told = json!({"metric": written[section]["metric"], "current": current});
    if kind == "Object" {
        told["describedObject"] = written[section]["describedObject"].clone();
    }
    Some(json!({"type": kind, section: told}))
}

/// `currentMetrics`, in the order of the policy's metrics.
pub(super) fn current(policy: &Policy, seen: &Observation, written: &Value) -> Value {
    let one = |(index, metric): (usize, &Metric)| {
        let reading = seen.readings.get(index)?.values.as_ref().ok()?;
        let Metric::Resource { resource, .. } = metric else { return outside(metric, reading, &written[index]) };
        let Readings::Usage(usage) = reading else { return None };
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
