//! Metrics of pods, of objects and from outside, as a horizontal autoscaler asks for them.
//!
//! They come from objects of kind ExternalMetric, which publish any source under a name and labels, and from the rules of prometheus-adapter in a ConfigMap.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value;
use tidemill_scaling::TimeMs;
use tidemill_scaling::hpa::{Metric, PodValue, Reading, Readings};
use tidemill_scaling::keda::TriggerReading;
use tidemill_scaling::manifest::TriggerSpec;
use tidemill_scaling::manifest::adapter::{self, Adapter, LabelMatch, Rule};
use tidemill_source::promql::{Promql, Sample};

use super::Scaler;
use super::policies::Known;
use crate::control::{contents, now};
use crate::objects::{LabelSelector, Object, texts};
use crate::runtime::ReplicaStatus;

/// The kind that publishes a source under a name.
pub(crate) const EXTERNAL_METRIC: &str = "ExternalMetric";

/// A rule that serves a metric, and the series that it is made of.
struct Served {
    rule: Rule,
    series: Vec<String>,
}

impl Scaler {
    /// The reading of the `index`th metric of a horizontal autoscaler.
    pub(super) async fn outside(
        &self,
        known: &Known,
        index: usize,
        metric: &Metric,
        replicas: &[ReplicaStatus],
    ) -> Reading {
        let written = self.storage.get(&known.key);
        let written = written.as_ref().and_then(|object| object.at(&format!("/spec/metrics/{index}")));
        let Some(written) = written else { return Reading::failed("the metric is gone from the object") };
        let found = match metric {
            Metric::Pods { .. } => self.of_pods(&written["pods"], replicas).await,
            Metric::Object { .. } => self.of_object(&known.key.namespace, &written["object"]).await,
            _ => self.of_outside(&known.key.namespace, &written["external"]).await,
        };
        match found {
            Ok((values, at)) => Reading { observed_at: Some(at), values: Ok(values) },
            Err(problem) => Reading::failed(problem),
        }
    }

    async fn of_pods(&self, written: &Value, replicas: &[ReplicaStatus]) -> Result<(Readings, TimeMs), String> {
        let (name, selector) = named(written)?;
        let Some(first) = replicas.first() else { return Ok((Readings::PodValues(Vec::new()), now())) };
        let served = self.served(&name, |adapter| adapter.rules).await?;
        let label = served.rule.label_of("pod");
        let label = label.ok_or_else(|| format!("the rule of {name} names no label of pods (resources.overrides)"))?;
        let mut matches = in_namespace(&served.rule, &first.spec.namespace);
        matches.push(LabelMatch::one_of(&label, replicas.iter().map(|replica| replica.spec.name.as_str()), false));
        matches.extend(selector.label_matches());
        let samples = self.samples(&served, &matches, &label).await?;
        let value = |sample: &Sample| {
            let pod = sample.labels.get(&label)?.clone();
            Some(PodValue { pod, at: TimeMs(sample.at.as_millisecond()), milli: milli(sample.value)? })
        };
        let at = oldest(&samples);
        Ok((Readings::PodValues(samples.iter().filter_map(value).collect()), at))
    }

    async fn of_object(&self, namespace: &str, written: &Value) -> Result<(Readings, TimeMs), String> {
        let (name, selector) = named(written)?;
        let text = |field: &str| written.pointer(field).and_then(Value::as_str).unwrap_or_default();
        let (kind, object) = (text("/describedObject/kind"), text("/describedObject/name"));
        let served = self.served(&name, |adapter| adapter.rules).await?;
        let label = served.rule.label_of(&kind.to_lowercase());
        let label =
            label.ok_or_else(|| format!("the rule of {name} names no label of {kind} (resources.overrides)"))?;
        let mut matches = if kind == "Namespace" { Vec::new() } else { in_namespace(&served.rule, namespace) };
        matches.push(LabelMatch::one_of(&label, [object], false));
        matches.extend(selector.label_matches());
        let samples = self.samples(&served, &matches, &label).await?;
        match samples.as_slice() {
            [] => Err(format!("{kind} {object} has no metric {name} now")),
            all => {
                Ok((Readings::Samples(all.iter().take(1).filter_map(|one| milli(one.value)).collect()), oldest(all)))
            }
        }
    }

    async fn of_outside(&self, namespace: &str, written: &Value) -> Result<(Readings, TimeMs), String> {
        let (name, selector) = named(written)?;
        let published = self.published(namespace, &name, &selector);
        if !published.is_empty() {
            let readings = join_all(published.iter().map(|object| self.read_published(object))).await;
            let mut values = Vec::new();
            let mut at = now();
            for reading in readings {
                let (value, seen) = reading?;
                values.extend(milli(value));
                at = at.min(seen);
            }
            return Ok((Readings::Samples(values), at));
        }
        let served = self.served(&name, |adapter| adapter.external).await.map_err(|problem| {
            format!("{problem}; {EXTERNAL_METRIC} objects of {name} in namespace {namespace} with these labels: none")
        })?;
        let mut matches = in_namespace(&served.rule, namespace);
        matches.extend(selector.label_matches());
        let samples = self.samples(&served, &matches, "").await?;
        if samples.is_empty() {
            return Err(format!("{name} has no series now"));
        }
        Ok((Readings::Samples(samples.iter().filter_map(|one| milli(one.value)).collect()), oldest(&samples)))
    }

    /// Published metrics of a name whose labels match.
    pub(crate) fn published(&self, namespace: &str, name: &str, selector: &LabelSelector) -> Vec<Arc<Object>> {
        let mut objects = self.storage.list(EXTERNAL_METRIC, Some(namespace)).objects;
        objects.retain(|object| {
            object.at("/spec/metric/name").and_then(Value::as_str) == Some(name)
                && selector.matches(&texts(object.at("/spec/metric/labels")))
        });
        objects
    }

    /// The value of a published metric, and when its source had it.
    pub(crate) async fn read_published(&self, object: &Object) -> Result<(f64, TimeMs), String> {
        let spec = object.at("/spec/source");
        let text = |path: &str| spec.and_then(|spec| spec.pointer(path)).and_then(Value::as_str).map(ToOwned::to_owned);
        let trigger = TriggerSpec {
            scaler: text("/type").unwrap_or_default(),
            metadata: texts(spec.and_then(|spec| spec.get("metadata"))),
            path: "spec.source".to_owned(),
            authentication: text("/authenticationRef/name"),
            is_cached: false,
            ignored: Vec::new(),
        };
        let source = self.resolved(&object.metadata.namespace, &trigger, &BTreeMap::new());
        let source = source.map_err(|problem| format!("{}: {problem}", object.key()))?;
        match self.sources.reading(&source).await {
            // What is claimed still waits for its end, and the name promises a depth and no snapshot.
            TriggerReading::Value(value) => Ok((value.value, value.observed_at)),
            TriggerReading::Failed(failing) => Err(format!(
                "{}: {} (failing since {})",
                object.key(),
                failing.error,
                crate::control::text_of(failing.since).as_str().unwrap_or_default()
            )),
            TriggerReading::Usage(_) | TriggerReading::NotAsked => {
                Err(format!("{}: its source has no value", object.key()))
            }
        }
    }

    /// The rule that serves a metric, by what series there are.
    async fn served(&self, name: &str, of: impl Fn(Adapter) -> Vec<Rule>) -> Result<Served, String> {
        let mut problems = Vec::new();
        let mut rules = Vec::new();
        for object in self.storage.list("ConfigMap", None).objects {
            let Some(text) = contents(&object).remove(adapter::KEY).filter(|text| adapter::is_adapter(text)) else {
                continue;
            };
            match Adapter::read(adapter::KEY, &text) {
                Ok(adapter) => rules.extend(of(adapter)),
                Err(found) => problems.extend(found.iter().map(|problem| {
                    format!(
                        "{}: {} line {}: {}: {}",
                        object.key(),
                        problem.file,
                        problem.line,
                        problem.path,
                        problem.message
                    )
                })),
            }
        }
        if rules.is_empty() && problems.is_empty() {
            return Err(format!(
                "nobody serves the metric {name} here: no ConfigMap has rules of prometheus-adapter for it"
            ));
        }
        for rule in rules {
            let samples = self.ask(&rule.discovery()).await?;
            let mut series: Vec<String> = samples
                .into_iter()
                .filter_map(|mut sample| sample.labels.remove("__name__"))
                .filter(|series| rule.name_of(series).as_deref() == Some(name))
                .collect();
            series.sort();
            if !series.is_empty() {
                return Ok(Served { rule, series });
            }
        }
        problems
            .insert(0, format!("no series of the last ten minutes becomes the metric {name} by the adapter's rules"));
        Err(problems.join("; "))
    }

    async fn samples(&self, served: &Served, matches: &[LabelMatch], group_by: &str) -> Result<Vec<Sample>, String> {
        let mut all = Vec::new();
        for series in &served.series {
            all.extend(self.ask(&served.rule.query(series, matches, group_by)).await?);
        }
        Ok(all)
    }

    async fn ask(&self, query: &str) -> Result<Vec<Sample>, String> {
        let server = self.metrics()?;
        let limit = self.sources.timeout();
        match tokio::time::timeout(limit, server.instant(query, Timestamp::now())).await {
            Ok(answer) => answer.map_err(|error| format!("{error}, asked for {query}")),
            Err(_) => Err(format!("no answer within {} ms to {query}", limit.as_millis())),
        }
    }

    /// Who answers for metrics.
    pub(super) fn metrics(&self) -> Result<Arc<dyn Promql>, String> {
        self.sources
            .metrics()
            .ok_or_else(|| "nobody answers PromQL here; name a server by fleet.prometheus_url".to_owned())
    }
}

/// Name and selector of a metric.
fn named(written: &Value) -> Result<(String, LabelSelector), String> {
    let name = written.pointer("/metric/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let selector = written.pointer("/metric/selector").map(LabelSelector::of_spec).transpose();
    Ok((name, selector.map_err(|error| error.to_string())?.unwrap_or_default()))
}

fn in_namespace(rule: &Rule, namespace: &str) -> Vec<LabelMatch> {
    rule.namespace_label().map(|label| LabelMatch::one_of(&label, [namespace], false)).into_iter().collect()
}

/// Milli-units, rounded up as quantities are.
fn milli(value: f64) -> Option<i64> {
    let milli = (value * 1000.0).ceil();
    (milli.is_finite() && milli.abs() < 9e18).then_some(milli as i64)
}

fn oldest(samples: &[Sample]) -> TimeMs {
    samples.iter().map(|sample| TimeMs(sample.at.as_millisecond())).min().unwrap_or_else(now)
}
