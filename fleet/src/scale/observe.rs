//! What a policy sees.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use serde_json::Value;
use tidemill_scaling::TimeMs;
use tidemill_scaling::hpa::{self, Container, Metric, Phase, Pod, PodUsage, Reading, Readings, Scale};
use tidemill_scaling::keda::job::{self, Job, JobPhase, JobPod};
use tidemill_scaling::keda::object::{self, Tick};
use tidemill_scaling::keda::{Target, Trigger, TriggerReading};
use tidemill_scaling::manifest::TriggerSpec;
use tidemill_scaling::record::{Observation, Policy};
use tidemill_scaling::vpa;
use tidemill_source::Spec;

use super::Scaler;
use super::policies::Known;
use crate::control::{contents, hosts_of, now, trigger_environment};
use crate::events::EventKind;
use crate::objects::{LabelSelector, Object, ObjectKey};
use crate::runtime::{ReplicaPhase, ReplicaStatus, Resources};

/// Looks at which a new vertical autoscaler waits for a history that cannot be read.
const HISTORY_TRIES: u32 = 3;

/// The annotation by which KEDA's jobs tell the generation that they were made from.
pub(super) const GENERATION: &str = "scaledjob.keda.sh/generation";

impl Scaler {
    /// Looks once. Jobs and replicas are read before sources, so that what begins in between looks idle and never missing.
    /// A policy that is new has no history of its own yet.
    pub(super) async fn observe(&self, known: &Known, tick: Tick, is_new: bool) -> Observation {
        match &known.policy {
            Policy::ScaledJob(policy) => {
                let jobs = self.jobs(known);
                let triggers = self.triggers(known, &policy.triggers, &[]).await;
                Observation::ScaledJob(job::Observation { jobs: Ok(jobs), triggers })
            }
            Policy::ScaledObject(policy) => {
                let (scale, replicas) = self.scale_of(known);
                let created_at = self.storage.get(&known.key).and_then(|object| object.created_at());
                let created_at = created_at.map_or_else(now, |at| TimeMs(at.as_millisecond()));
                let triggers = self.triggers(known, &policy.triggers, &replicas).await;
                Observation::ScaledObject(object::Observation {
                    tick,
                    created_at,
                    scale,
                    pods: replicas.iter().map(pod).collect(),
                    triggers,
                })
            }
            Policy::HorizontalPodAutoscaler(policy) => {
                let (scale, replicas) = self.scale_of(known);
                let metrics = policy.metrics.iter().enumerate();
                let replicas_seen = replicas.as_slice();
                let readings = join_all(metrics.map(async |(index, metric)| match metric {
                    Metric::Pods { .. } | Metric::Object { .. } | Metric::External { .. } => {
                        self.outside(known, index, metric, replicas_seen).await
                    }
                    _ => self.reading(metric, replicas_seen),
                }))
                .await;
                let pods = replicas.iter().map(pod).collect();
                Observation::HorizontalPodAutoscaler(hpa::Observation { scale, selector_problem: None, pods, readings })
            }
            Policy::VerticalPodAutoscaler(_) => {
                let mut seen = self.vertical(known);
                if is_new {
                    self.back_fill(known, &mut seen).await;
                }
                Observation::VerticalPodAutoscaler(seen)
            }
        }
    }

    /// The scale of the target and its replicas.
    fn scale_of(&self, known: &Known) -> (Result<Scale, String>, Vec<ReplicaStatus>) {
        let Some(target) = self.target(known) else {
            let named =
                known.target.as_ref().map(|target| format!("{} {}", target.kind, target.name)).unwrap_or_default();
            return (Err(format!("there is no {named} in namespace {}", known.key.namespace)), Vec::new());
        };
        let replicas = self.replicas_of(&target.metadata.uid);
        let status = i32::try_from(replicas.len()).unwrap_or(i32::MAX);
        (Ok(Scale { spec_replicas: target.replicas(), status_replicas: status }), replicas)
    }

    fn replicas_of(&self, uid: &str) -> Vec<ReplicaStatus> {
        let mut replicas = self.runtime.replicas();
        replicas.retain(|replica| replica.spec.owner_uid == uid);
        replicas
    }

    fn jobs(&self, known: &Known) -> Vec<Job> {
        let replicas = self.runtime.replicas();
        let owned = self.storage.list("Job", Some(&known.key.namespace)).objects;
        let one = |object: &std::sync::Arc<Object>| {
            let verdict = crate::control::verdict_of(object);
            let of = replicas.iter().filter(|replica| replica.spec.owner_uid == object.metadata.uid);
            Job {
                name: object.metadata.name.clone(),
                phase: match verdict {
                    None => JobPhase::Active,
                    Some((true, _)) => JobPhase::Complete,
                    Some((false, _)) => JobPhase::Failed,
                },
                finished_at: verdict.map(|(_, at)| at),
                generation: object.metadata.annotations.get(GENERATION).and_then(|text| text.parse().ok()),
                pods: of
                    .map(|replica| JobPod {
                        phase: phase(replica),
                        conditions: BTreeMap::from([("Ready".to_owned(), replica.is_ready)]),
                    })
                    .collect(),
            }
        };
        owned.iter().filter(|object| object.is_owned_by(&known.uid)).map(one).collect()
    }

    async fn triggers(&self, known: &Known, triggers: &[Trigger], replicas: &[ReplicaStatus]) -> Vec<TriggerReading> {
        let written = &known.written.triggers;
        let one = async |(trigger, spec): (&Trigger, &TriggerSpec)| {
            if let Target::Resource { metric } = &trigger.target {
                return TriggerReading::Usage(self.reading(metric, replicas));
            }
            match self.source_of(known, spec) {
                Ok(source) => self.sources.reading(&source).await,
                Err(problem) => TriggerReading::failed(problem, now()),
            }
        };
        join_all(triggers.iter().zip(written).map(one)).await
    }

    /// The source that a trigger names, its parameters resolved.
    fn source_of(&self, known: &Known, trigger: &TriggerSpec) -> Result<Spec, String> {
        let namespace = &known.key.namespace;
        let template = match &known.policy {
            Policy::ScaledJob(_) => {
                self.storage.get(&known.key).and_then(|object| object.at("/spec/jobTargetRef/template").cloned())
            }
            _ => self.target(known).and_then(|target| target.at("/spec/template").cloned()),
        };
        let env = match template {
            Some(template) => trigger_environment(namespace, &template, known.env_container.as_deref(), &self.storage)?,
            None => BTreeMap::new(),
        };
        let mut source = self.resolved(namespace, trigger, &env)?;
        if trigger.scaler.starts_with("external") {
            // KEDA tells an external scaler who asks.
            source.parameters.set("tidemill.dev/name", &known.key.name);
            source.parameters.set("tidemill.dev/namespace", namespace);
        }
        Ok(source)
    }

    /// A source, its parameters resolved against an environment and the trigger's authentication, its hosts mapped.
    pub(super) fn resolved(
        &self,
        namespace: &str,
        trigger: &TriggerSpec,
        env: &BTreeMap<String, String>,
    ) -> Result<Spec, String> {
        let authentication = match &trigger.authentication {
            Some(name) => self.authentication(namespace, name, env)?,
            None => BTreeMap::new(),
        };
        let parameters =
            tidemill_source::resolve(&trigger.metadata, env, &authentication).map_err(|error| error.to_string())?;
        let hosts = hosts_of(&self.storage, namespace);
        let mut mapped = parameters.clone();
        for (name, value) in parameters.iter().filter(|(_, value)| *value != tidemill_source::promql::OWN) {
            if let Some(host) = hosts.unknown(name, value).into_iter().next() {
                return Err(format!(
                    "{name}: host {host} is known only to a cluster; add --host '{host}=ADDRESS:PORT'"
                ));
            }
            mapped.set(name, hosts.rewrite_value(name, value));
        }
        Ok(Spec { scaler: trigger.scaler.clone(), parameters: mapped })
    }

    /// What a TriggerAuthentication gives. A secret that is missing is an error; KEDA goes on with an empty value.
    fn authentication(
        &self,
        namespace: &str,
        name: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, String> {
        let own = self.storage.get(&ObjectKey::new("TriggerAuthentication", namespace, name));
        let Some(object) = own.or_else(|| self.storage.get(&ObjectKey::new("ClusterTriggerAuthentication", "", name)))
        else {
            return Err(format!("there is no TriggerAuthentication {name} in namespace {namespace}"));
        };
        // Secrets of the whole cluster are those of the namespace `default`, as KEDA reads its own namespace's.
        let namespace = if object.metadata.namespace.is_empty() { "default" } else { &object.metadata.namespace };
        let mut found = BTreeMap::new();
        let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(spec) = object.at("/spec").and_then(Value::as_object).cloned() else { return Ok(found) };
        for section in spec.keys() {
            let provider = spec[section].get("provider").and_then(Value::as_str);
            // Of AWS: the credentials of this process.
            let is_own = section == "podIdentity" && matches!(provider, Some("none" | "aws"));
            if !matches!(section.as_str(), "env" | "configMapTargetRef" | "secretTargetRef") && !is_own {
                return Err(format!(
                    "TriggerAuthentication {name}: {section} is not supported here; secretTargetRef, configMapTargetRef and env are"
                ));
            }
        }
        let items = |section: &str| spec.get(section).and_then(Value::as_array).cloned().unwrap_or_default();
        for item in items("env") {
            if let Some(value) = env.get(&text(&item, "name")) {
                found.insert(text(&item, "parameter"), value.clone());
            }
        }
        for (section, kind) in [("configMapTargetRef", "ConfigMap"), ("secretTargetRef", "Secret")] {
            for item in items(section) {
                let (reference, key) = (text(&item, "name"), text(&item, "key"));
                let Some(held) = self.storage.get(&ObjectKey::new(kind, namespace, &reference)) else {
                    return Err(format!(
                        "TriggerAuthentication {name}: there is no {kind} {reference} in namespace {namespace}"
                    ));
                };
                let Some(value) = contents(&held).remove(&key) else {
                    return Err(format!("TriggerAuthentication {name}: {kind} {reference} has no key {key}"));
                };
                found.insert(text(&item, "parameter"), value);
            }
        }
        Ok(found)
    }

    /// What a new vertical autoscaler can know of before. Where it cannot be had, the policy waits for it a few looks and then begins with what it sees.
    async fn back_fill(&self, known: &Known, seen: &mut vpa::Observation) {
        match self.history(known).await {
            Ok(mut history) => {
                history.append(&mut seen.samples);
                seen.samples = history;
            }
            Err(problem) => {
                if known.history_tries.fetch_add(1, Ordering::Relaxed) < HISTORY_TRIES {
                    seen.samples.clear();
                }
                if let Some(own) = self.storage.get(&known.key) {
                    let message = format!("the history of usage cannot be read: {problem}");
                    self.events.tell(&own, EventKind::Warning, "HistoryUnavailable", &message);
                }
            }
        }
    }

    /// What replicas use, as a metrics server tells it.
    fn reading(&self, metric: &Metric, replicas: &[ReplicaStatus]) -> Reading {
        let (resource, container) = match metric {
            Metric::Resource { resource, .. } => (resource, None),
            Metric::ContainerResource { resource, container, .. } => (resource, Some(container)),
            Metric::Pods { name, .. } | Metric::Object { name, .. } | Metric::External { name, .. } => {
                return Reading::failed(format!("{name} is no resource"));
            }
            Metric::Unsupported { source_type } => {
                return Reading::failed(format!("metrics of type {source_type} are not known"));
            }
        };
        let mut observed_at = None;
        let mut all = Vec::new();
        for replica in replicas {
            let Some(usage) = self.runtime.usage(&replica.spec.uid) else { continue };
            let milli = |amounts: &Resources| match resource.as_str() {
                "cpu" => amounts.cpu_milli,
                "memory" => amounts.memory_bytes.map(|bytes| bytes.saturating_mul(1000)),
                _ => None,
            };
            let containers_milli: BTreeMap<String, Option<i64>> = usage
                .containers
                .iter()
                .filter(|(name, _)| container.is_none_or(|wanted| wanted == *name))
                .map(|(name, amounts)| (name.clone(), milli(amounts)))
                .collect();
            observed_at = observed_at.max(Some(usage.at));
            let window_ms = i64::try_from(usage.window.as_millis()).unwrap_or(i64::MAX);
            all.push(PodUsage { pod: replica.spec.name.clone(), at: usage.at, window_ms, containers_milli });
        }
        Reading { observed_at, values: Ok(Readings::Usage(all)) }
    }

    fn vertical(&self, known: &Known) -> vpa::Observation {
        let Some(target) = self.target(known) else { return vpa::Observation::default() };
        let replicas = self.replicas_of(&target.metadata.uid);
        let mut seen = vpa::Observation { replicas: target.replicas(), ..vpa::Observation::default() };
        for replica in &replicas {
            if let Some(usage) = self.runtime.usage(&replica.spec.uid) {
                seen.samples.extend(usage.containers.iter().map(|(container, amounts)| vpa::Sample {
                    replica: replica.spec.name.clone(),
                    container: container.clone(),
                    at: usage.at,
                    usage: vpa_resources(*amounts),
                }));
            }
            for container in &replica.containers {
                let end = container.last_end.as_ref().filter(|end| end.reason == "OOMKilled");
                let spec = replica.spec.containers.iter().find(|spec| spec.name == container.name);
                if let (Some(end), Some(spec)) = (end, spec)
                    && now().since_ms(end.finished_at) < 60_000
                {
                    let requested_bytes = spec.requests.memory_bytes.unwrap_or_default();
                    seen.ooms.push(vpa::Oom {
                        replica: replica.spec.name.clone(),
                        container: container.name.clone(),
                        at: end.finished_at,
                        requested_bytes,
                    });
                }
            }
            seen.pods.push(vpa::Replica {
                name: replica.spec.name.clone(),
                phase: phase(replica),
                started_at: replica.started_at,
                containers: replica
                    .spec
                    .containers
                    .iter()
                    .map(|spec| vpa::ReplicaContainer {
                        name: spec.name.clone(),
                        requests: vpa_resources(spec.requests),
                        limits: vpa_resources(spec.limits),
                        oom_after_ms: None,
                    })
                    .collect(),
                resize: None,
            });
        }
        let labels = target.template_labels();
        for budget in self.storage.list("PodDisruptionBudget", Some(&known.key.namespace)).objects {
            let covers = budget
                .at("/spec/selector")
                .map(LabelSelector::of_spec)
                .and_then(Result::ok)
                .is_some_and(|selector| selector.matches(&labels));
            if covers {
                let allowed =
                    budget.whole("/status/disruptionsAllowed").and_then(|allowed| i32::try_from(allowed).ok());
                seen.disruptions_allowed.push(allowed.unwrap_or_default());
            }
        }
        seen
    }
}

fn vpa_resources(amounts: Resources) -> vpa::Resources {
    vpa::Resources { cpu_milli: amounts.cpu_milli, memory_bytes: amounts.memory_bytes }
}

fn phase(replica: &ReplicaStatus) -> Phase {
    match replica.phase {
        ReplicaPhase::Pending => Phase::Pending,
        ReplicaPhase::Running => Phase::Running,
        ReplicaPhase::Succeeded => Phase::Succeeded,
        ReplicaPhase::Failed => Phase::Failed,
    }
}

fn pod(replica: &ReplicaStatus) -> Pod {
    let container = |spec: &crate::runtime::ContainerSpec| {
        let mut requests_milli = BTreeMap::new();
        requests_milli.extend(spec.requests.cpu_milli.map(|milli| ("cpu".to_owned(), milli)));
        requests_milli
            .extend(spec.requests.memory_bytes.map(|bytes| ("memory".to_owned(), bytes.saturating_mul(1000))));
        Container { name: spec.name.clone(), requests_milli }
    };
    Pod {
        phase: phase(replica),
        is_deleting: replica.is_stopping,
        ready: Some(replica.is_ready),
        ready_changed_at: replica.ready_changed_at,
        started_at: replica.started_at,
        containers: replica.spec.containers.iter().map(container).collect(),
        ..Pod::ready_since(replica.spec.name.clone(), replica.created_at)
    }
}
