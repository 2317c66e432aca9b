//! Carrying a decision out: everything that follows from it, in one transaction.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidemill_scaling::decision::{Action, Condition};
use tidemill_scaling::keda::Target;
use tidemill_scaling::record::{Observation, Policy, State};
use tidemill_scaling::{Record, vpa};

use super::Scaler;
use super::counters::Decided;
use super::observe::GENERATION;
use super::policies::Known;
use crate::control::{VICTIMS, job_suffix, text_of};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::objects::{Object, ObjectKey, find_kind};
use crate::storage::Write;

/// How often a decision is tried to be stored while others change the same objects.
const TRIES: usize = 5;

impl Scaler {
    /// Stores state, decision and what follows from it, together or not at all.
    pub(super) async fn carry_out(&self, known: &Known, state: &State, record: &Record) -> Result<()> {
        let failed = |error: serde_json::Error| Error::Internal(error.to_string());
        let state_text = serde_json::to_string(state).map_err(failed)?;
        let record_text = serde_json::to_string(record).map_err(failed)?;
        let names: Vec<String> = (0..created(record)).map(|_| format!("{}-{}", known.key.name, job_suffix())).collect();
        for attempt in 1.. {
            let mut writes = self.consequences(known, state, record, &names)?;
            writes.push(Write::State { uid: known.uid.clone(), state: state_text.clone() });
            writes.push(Write::Record { uid: known.uid.clone(), at_ms: record.now.0, record: record_text.clone() });
            let storage = self.storage.clone();
            let committed = tokio::task::spawn_blocking(move || storage.commit(writes)).await;
            match committed.map_err(|error| Error::Internal(error.to_string()))? {
                Err(Error::Conflict(_) | Error::AlreadyExists(_)) if attempt < TRIES => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        let target = known.target.as_ref().map(|target| (target.kind.as_str(), target.name.as_str()));
        let decided = Decided { now: record.now, actions: &record.actions, jobs: &names };
        self.counters.note(&known.key, target, decided);
        self.tell(known, record);
        for action in &record.actions {
            if let Action::UpdateReplica { replica, .. } = action {
                self.evict(known, replica).await?;
            }
        }
        Ok(())
    }

    fn consequences(&self, known: &Known, state: &State, record: &Record, names: &[String]) -> Result<Vec<Write>> {
        let own = self.storage.get(&known.key).ok_or_else(|| Error::NotFound(known.key.clone()))?;
        let mut writes = Vec::new();
        let mut recommendation = None;
        for action in &record.actions {
            match action {
                Action::Scale { to, victims, .. } => {
                    let target = self.target(known).ok_or_else(|| Error::NotFound(known.key.clone()))?;
                    writes.push(scaled(&target, *to, victims));
                }
                Action::CreateJobs { .. } => writes.extend(names.iter().map(|name| create(&own, name))),
                Action::DeleteJobs { names, .. } => {
                    writes.extend(
                        names.iter().map(|name| Write::Delete(ObjectKey::new("Job", &known.key.namespace, name))),
                    );
                }
                Action::Recommend { containers } => recommendation = Some(containers.as_slice()),
                Action::UpdateReplica { .. } => {}
            }
        }
        let status = self.status(known, state, record, &own, recommendation);
        if own.body.get("status") != Some(&status) {
            let mut next = (*own).clone();
            next.body.insert("status".to_owned(), status);
            writes.push(Write::Put { object: Box::new(next), expected: Some(own.metadata.resource_version.clone()) });
        }
        Ok(writes)
    }

    fn status(
        &self,
        known: &Known,
        state: &State,
        record: &Record,
        own: &Object,
        recommendation: Option<&[vpa::ContainerRecommendation]>,
    ) -> Value {
        let mut status = own.body.get("status").and_then(Value::as_object).cloned().unwrap_or_default();
        let conditions = match state {
            State::HorizontalPodAutoscaler(state) => &state.conditions,
            State::ScaledObject(state) => &state.conditions,
            State::ScaledJob(state) => &state.conditions,
            State::VerticalPodAutoscaler(state) => &state.conditions,
        };
        status.insert("conditions".to_owned(), conditions.0.iter().map(condition).collect());
        let written = &known.written;
        if !written.triggers.is_empty() {
            let mut types: Vec<&str> = written.triggers.iter().map(|trigger| trigger.scaler.as_str()).collect();
            types.dedup();
            status.insert("triggersTypes".to_owned(), json!(types.join(",")));
            let authentications: Vec<&str> =
                written.triggers.iter().filter_map(|trigger| trigger.authentication.as_deref()).collect();
            if !authentications.is_empty() {
                status.insert("authenticationsTypes".to_owned(), json!(authentications.join(",")));
            }
        }
        match (&known.policy, &record.observation) {
            (Policy::ScaledObject(policy), Observation::ScaledObject(seen)) => {
                if let Some(target) = &known.target {
                    status.insert("scaleTargetKind".to_owned(), json!(format!("apps/v1.{}", target.kind)));
                }
                let outside: Vec<&str> = policy
                    .triggers
                    .iter()
                    .filter(|trigger| !matches!(trigger.target, Target::Resource { .. }))
                    .map(|trigger| trigger.metric.as_str())
                    .collect();
                status.insert("externalMetricNames".to_owned(), json!(outside));
                if let Ok(scale) = seen.scale {
                    status.entry("originalReplicaCount").or_insert_with(|| json!(scale.spec_replicas));
                }
            }
            (Policy::HorizontalPodAutoscaler(policy), Observation::HorizontalPodAutoscaler(seen)) => {
                if let Ok(scale) = seen.scale {
                    let wanted = record
                        .actions
                        .iter()
                        .find_map(|action| if let Action::Scale { to, .. } = action { Some(*to) } else { None });
                    status.insert("currentReplicas".to_owned(), json!(scale.status_replicas));
                    status.insert("desiredReplicas".to_owned(), json!(wanted.unwrap_or(scale.spec_replicas)));
                    if wanted.is_some() {
                        status.insert("lastScaleTime".to_owned(), text_of(record.now));
                    }
                }
                status.insert(
                    "currentMetrics".to_owned(),
                    super::metrics::current(policy, seen, own.at("/spec/metrics").unwrap_or(&Value::Null)),
                );
                status.insert("observedGeneration".to_owned(), json!(own.metadata.generation));
            }
            _ => {}
        }
        if let Some(containers) = recommendation {
            let one = |container: &vpa::ContainerRecommendation| {
                serde_json::to_value(container).map(recommended).unwrap_or_default()
            };
            let list: Vec<Value> = containers.iter().map(one).collect();
            status.insert("recommendation".to_owned(), json!({"containerRecommendations": list}));
        }
        Value::Object(status)
    }

    /// Events in upstream's words.
    fn tell(&self, known: &Known, record: &Record) {
        let Some(own) = self.storage.get(&known.key) else { return };
        for action in &record.actions {
            let (reason, message) = match action {
                Action::Scale { from, to, .. } => {
                    let reason = match (from, to) {
                        (0, _) if known.key.kind == "ScaledObject" => "KEDAScaleTargetActivated",
                        (_, 0) if known.key.kind == "ScaledObject" => "KEDAScaleTargetDeactivated",
                        _ => "SuccessfulRescale",
                    };
                    let why = record.reasons.first().map(|reason| reason.message.as_str()).unwrap_or_default();
                    (reason, format!("New size: {to}; reason: {why}"))
                }
                Action::CreateJobs { count } => ("KEDAJobsCreated", format!("Created {count} jobs")),
                Action::DeleteJobs { names, .. } => {
                    ("KEDAJobsDeleted", format!("Deleted {} jobs beyond the history", names.len()))
                }
                Action::UpdateReplica { replica, .. } => {
                    ("EvictedByVPA", format!("{replica} is replaced to get its recommended resources"))
                }
                Action::Recommend { .. } => continue,
            };
            self.events.tell(&own, EventKind::Normal, reason, &message);
        }
        let failing = record
            .reasons
            .iter()
            .filter(|reason| matches!(reason.code.as_ref(), "TriggerError" | "KEDAScalerFailed" | "TriggerFailed"));
        for reason in failing {
            self.events.tell(
                &own,
                EventKind::Warning,
                "KEDAScalerFailed",
                &format!("{}: {}", reason.subject, reason.message),
            );
        }
    }

    /// Ends a replica whose owner then starts another one with what is recommended.
    async fn evict(&self, known: &Known, name: &str) -> Result<()> {
        let Some(target) = self.target(known) else { return Ok(()) };
        let replicas = self.runtime.replicas();
        let found =
            replicas.iter().find(|replica| replica.spec.owner_uid == target.metadata.uid && replica.spec.name == name);
        if let Some(replica) = found {
            self.runtime.stop(&replica.spec.uid, None).await?;
        }
        Ok(())
    }
}

fn created(record: &Record) -> i32 {
    record.actions.iter().map(|action| if let Action::CreateJobs { count } = action { *count } else { 0 }).sum()
}

fn scaled(target: &Arc<Object>, to: i32, victims: &[String]) -> Write {
    let mut next = (**target).clone();
    next.set("spec", "replicas", json!(to));
    next.metadata.generation += 1;
    if victims.is_empty() {
        next.metadata.annotations.remove(VICTIMS);
    } else {
        next.metadata.annotations.insert(VICTIMS.to_owned(), victims.join(","));
    }
    Write::Put { object: Box::new(next), expected: Some(target.metadata.resource_version.clone()) }
}

/// A job of a ScaledJob, with the labels and annotations that KEDA gives it.
fn create(owner: &Arc<Object>, name: &str) -> Write {
    let mut job = find_kind("Job").map(|kind| Object::new(kind, &owner.metadata.namespace, name)).unwrap_or_default();
    let excluded: Vec<&str> = owner
        .metadata
        .annotations
        .get("scaledjob.keda.sh/job-excluded-labels")
        .map(|list| list.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let own = &owner.metadata;
    job.metadata.labels = own
        .labels
        .iter()
        .filter(|(key, _)| !excluded.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in [
        ("app.kubernetes.io/name", name),
        ("app.kubernetes.io/part-of", own.name.as_str()),
        ("app.kubernetes.io/managed-by", "keda-operator"),
        ("scaledjob.keda.sh/name", own.name.as_str()),
    ] {
        job.metadata.labels.insert(key.to_owned(), value.chars().take(63).collect());
    }
    job.metadata.annotations = own.annotations.clone();
    job.metadata.annotations.insert(GENERATION.to_owned(), own.generation.to_string());
    job.metadata.owner_references = vec![owner.as_owner()];
    job.metadata.uid = uuid::Uuid::new_v4().to_string();
    job.metadata.generation = 1;
    job.metadata.creation_timestamp = text_of(crate::control::now()).as_str().map(ToOwned::to_owned);
    let mut spec = owner.at("/spec/jobTargetRef").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(pod) = spec.get_mut("template").and_then(Value::as_object_mut) {
        let metadata = pod.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(members) = metadata.as_object_mut() {
            let labels = members.entry("labels").or_insert_with(|| Value::Object(Map::new()));
            labels["scaledjob.keda.sh/name"] = json!(own.name);
        }
    }
    job.body.insert("spec".to_owned(), Value::Object(spec));
    Write::Put { object: Box::new(job), expected: Some(String::new()) }
}

fn condition(condition: &Condition) -> Value {
    let status = serde_json::to_value(condition.status).unwrap_or_default();
    json!({
        "type": condition.name, "status": status, "reason": condition.reason, "message": condition.message,
        "lastTransitionTime": text_of(condition.since),
    })
}

/// `cpu_milli` and `memory_bytes` as quantities, under the names of VPA's API.
fn recommended(container: Value) -> Value {
    let amounts = |name: &str| {
        let found = container.get(name)?;
        let mut out = Map::new();
        out.extend(
            found.get("cpu_milli").and_then(Value::as_i64).map(|milli| ("cpu".to_owned(), json!(format!("{milli}m")))),
        );
        out.extend(
            found
                .get("memory_bytes")
                .and_then(Value::as_i64)
                .map(|bytes| ("memory".to_owned(), json!(bytes.to_string()))),
        );
        Some(Value::Object(out))
    };
    let mut out = Map::new();
    out.insert("containerName".to_owned(), container.get("container").cloned().unwrap_or_default());
    for (from, to) in
        [("target", "target"), ("lower", "lowerBound"), ("upper", "upperBound"), ("uncapped", "uncappedTarget")]
    {
        out.extend(amounts(from).map(|value| (to.to_owned(), value)));
    }
    Value::Object(out)
}
