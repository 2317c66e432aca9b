//! What replicas used before a vertical autoscaler began to look, from the metrics that were kept.
//!
//! Upstream's recommender reads the same two series of cAdvisor when its storage is Prometheus (`--history-length` 8 days).

use std::time::Duration;

use jiff::Timestamp;
use tidemill_scaling::TimeMs;
use tidemill_scaling::vpa::{self, Resources};
use tidemill_source::promql::Series;

use super::Scaler;
use super::policies::Known;

/// How far it reaches.
const LENGTH: Duration = Duration::from_secs(8 * 24 * 3600);
/// Between samples.
const STEP: Duration = Duration::from_secs(300);
/// Most samples that are taken; the oldest are left out.
const MAX_SAMPLES: usize = 10_000;
/// Longer than a look at a trigger may take: it is days, and once.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Scaler {
    /// Samples of the target's replicas, the oldest first; none where nobody keeps metrics.
    pub(super) async fn history(&self, known: &Known) -> Result<Vec<vpa::Sample>, String> {
        let (Ok(server), Some(target)) = (self.metrics(), &known.target) else { return Ok(Vec::new()) };
        // Of a Deployment `web`: `web-5d4f-x2x9p`; of a StatefulSet: `web-0`.
        let pods = if target.kind == "StatefulSet" { "[0-9]+" } else { "[a-z0-9]+(-[a-z0-9]+)?" };
        let of = format!("namespace={:?},pod=~\"{}-{pods}\",container!=\"\"", known.key.namespace, target.name);
        let to = Timestamp::now();
        let from = to - LENGTH;
        let queries = [
            format!("sum by (pod, container) (rate(container_cpu_usage_seconds_total{{{of}}}[5m]))"),
            format!("max by (pod, container) (max_over_time(container_memory_working_set_bytes{{{of}}}[5m]))"),
        ];
        let asked = async {
            tokio::try_join!(server.range(&queries[0], from, to, STEP), server.range(&queries[1], from, to, STEP))
        };
        let answers = tokio::time::timeout(TIMEOUT, asked).await;
        let answers = answers.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?;
        let (cpu, memory) = answers.map_err(|error| error.to_string())?;
        let mut samples = samples_of(&cpu, |value| Resources { cpu_milli: whole(value * 1000.0), memory_bytes: None });
        samples.extend(samples_of(&memory, |value| Resources { cpu_milli: None, memory_bytes: whole(value) }));
        samples.sort_by_key(|sample| sample.at);
        let surplus = samples.len().saturating_sub(MAX_SAMPLES);
        samples.drain(..surplus);
        Ok(samples)
    }
}

fn samples_of(series: &[Series], usage: impl Fn(f64) -> Resources) -> Vec<vpa::Sample> {
    let mut found = Vec::new();
    for one in series {
        let label = |name: &str| one.labels.get(name).cloned().unwrap_or_default();
        let (replica, container) = (label("pod"), label("container"));
        found.extend(one.points.iter().map(|(at, value)| vpa::Sample {
            replica: replica.clone(),
            container: container.clone(),
            at: TimeMs(at.as_millisecond()),
            usage: usage(*value),
        }));
    }
    found
}

fn whole(value: f64) -> Option<i64> {
    (value.is_finite() && (0.0..9e18).contains(&value)).then_some(value.round() as i64)
}
