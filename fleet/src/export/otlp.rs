//! Requests of OTLP as JSON (opentelemetry.io, "OTLP Specification", JSON Protobuf encoding): 64-bit integers are text.

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_scaling::TimeMs;

use super::families::{Families, FamilyKind, Histogram, Sample};
use crate::local::{PrintedBy, Record};

const SCOPE: &str = "tidemill.fleet";
/// A sum since its start.
const CUMULATIVE: u8 = 2;

/// A text attribute.
fn text(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

fn whole(name: &str, value: u64) -> Value {
    json!({"key": name, "value": {"intValue": value.to_string()}})
}

fn nanoseconds(at: TimeMs) -> String {
    (i128::from(at.0) * 1_000_000).to_string()
}

/// The log records of one run of a container, with its resource.
pub(super) fn resource_logs(by: &PrintedBy, run: u32, records: &[Record]) -> Value {
    let spec = &by.replica;
    let kind = spec.workload_kind.to_ascii_lowercase();
    let image = spec.init_containers.iter().chain(&spec.containers).find(|container| container.name == by.container);
    let attributes = [
        text("service.name", &spec.workload),
        text("service.namespace", &spec.namespace),
        text("service.instance.id", &spec.uid),
        text("k8s.namespace.name", &spec.namespace),
        text(&format!("k8s.{kind}.name"), &spec.workload),
        text("k8s.pod.name", &spec.name),
        text("k8s.pod.uid", &spec.uid),
        text("k8s.container.name", &by.container),
        whole("k8s.container.restart_count", u64::from(run)),
        text("container.image.name", image.map_or("", |container| &container.image)),
        whole("tidemill.attempt", u64::from(spec.attempt)),
    ];
    let record = |record: &Record| {
        let time = record.time_ns.max(0).to_string();
        let stream = if record.is_stderr { "stderr" } else { "stdout" };
        json!({
            "timeUnixNano": time, "observedTimeUnixNano": time, "body": {"stringValue": record.text},
            "attributes": [text("log.iostream", stream)],
        })
    };
    let records: Vec<Value> = records.iter().map(record).collect();
    json!({"resource": {"attributes": attributes}, "scopeLogs": [{"scope": {"name": SCOPE}, "logRecords": records}]})
}

/// A request of the logs of several containers.
pub(super) fn logs(resources: Vec<Value>) -> Bytes {
    json!({"resourceLogs": resources}).to_string().into()
}

/// Requests of all metrics, none much above `most` bytes.
pub(super) fn metrics(families: Families, most: usize) -> Vec<Bytes> {
    let at = nanoseconds(families.at);
    let mut requests = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut bytes = 0;
    let all = families.samples.into_iter().map(|(name, (kind, samples))| family(name, kind, &samples, &at));
    let began = nanoseconds(families.began);
    let histograms = families.histograms.iter().map(|one| histogram(one, &began, &at));
    for metric in all.chain(histograms) {
        let metric = metric.to_string();
        if bytes + metric.len() > most && !texts.is_empty() {
            requests.push(request(&texts));
            texts.clear();
            bytes = 0;
        }
        bytes += metric.len();
        texts.push(metric);
    }
    if !texts.is_empty() {
        requests.push(request(&texts));
    }
    requests
}

fn request(metrics: &[String]) -> Bytes {
    let resource = json!({"attributes": [text("service.name", "tidemill-fleet")]});
    let scope = json!({"name": SCOPE});
    let metrics = metrics.join(",");
    format!(
        "{{\"resourceMetrics\":[{{\"resource\":{resource},\"scopeMetrics\":[{{\"scope\":{scope},\"metrics\":[{metrics}]}}]}}]}}"
    )
    .into()
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<Value> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

fn family(name: &str, kind: FamilyKind, samples: &[Sample], at: &str) -> Value {
    let point = |sample: &Sample| {
        let mut point = json!({"attributes": attributes(&sample.labels), "timeUnixNano": at, "asDouble": sample.value});
        if kind == FamilyKind::Counter {
            point["startTimeUnixNano"] = json!(nanoseconds(sample.since));
        }
        point
    };
    let points: Vec<Value> = samples.iter().map(point).collect();
    match kind {
        FamilyKind::Gauge => json!({"name": name, "gauge": {"dataPoints": points}}),
        FamilyKind::Counter => json!({
            "name": name,
            "sum": {"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true},
        }),
    }
}

fn histogram(histogram: &Histogram, began: &str, at: &str) -> Value {
    let counts: Vec<String> = histogram.counts.iter().map(ToString::to_string).collect();
    let count: u64 = histogram.counts.iter().sum();
    let point = json!({
        "attributes": attributes(&histogram.labels), "startTimeUnixNano": began, "timeUnixNano": at,
        "count": count.to_string(), "sum": histogram.sum, "bucketCounts": counts, "explicitBounds": histogram.bounds,
    });
    json!({"name": histogram.name, "histogram": {"dataPoints": [point], "aggregationTemporality": CUMULATIVE}})
}
