//! Jobs: `parallelism` replicas at a time until `completions` of them succeeded, or too many failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidemill_scaling::TimeMs;

use super::template::{self, Identity};
use super::{Controller, Plan, Seen, hosts_of, random_suffix, surroundings, text_of};
use crate::events::EventKind;
use crate::objects::Object;
use crate::runtime::{ReplicaPhase, ReplicaStatus};
use crate::storage::Write;

/// The wait before a failed replica is replaced: doubles from 10 s up to 6 min (Kubernetes, "Pod backoff failure policy").
const BACK_OFF_MS: i64 = 10_000;
const BACK_OFF_MOST_MS: i64 = 360_000;

/// How a job is, in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    active: usize,
    ready: usize,
    succeeded: usize,
    failed: usize,
    /// Restarts of containers in active replicas, which count as failures too.
    restarts: usize,
    last_failure: Option<TimeMs>,
}

impl Controller {
    pub(super) fn plan_job(&self, seen: &Seen, job: &Arc<Object>, plan: &mut Plan) {
        let replicas: Vec<&ReplicaStatus> = seen.owned_by(&job.metadata.uid).collect();
        let counts = count(&replicas);
        if let Some(finished) = finished_at(job) {
            // What still runs of a job that is over is stopped; its end is not waited for.
            stop_all(&replicas, plan);
            if let Some(ttl) = job.whole("/spec/ttlSecondsAfterFinished") {
                let due = finished.plus_ms(ttl.saturating_mul(1000));
                if due <= seen.now {
                    plan.writes.push(Write::Delete(job.key()));
                } else {
                    plan.wake_at(due);
                }
            }
            return;
        }
        let whole = |path: &str| job.whole(path).and_then(|value| usize::try_from(value).ok());
        let is_suspended = job.at("/spec/suspend").and_then(Value::as_bool).unwrap_or(false);
        let parallelism = if is_suspended { 0 } else { whole("/spec/parallelism").unwrap_or(1) };
        // Without `completions` one success ends it, and the others are let run out.
        let completions =
            whole("/spec/completions").unwrap_or(1).max(if job.at("/spec/completions").is_some() { 0 } else { 1 });
        let limit = whole("/spec/backoffLimit").unwrap_or(6);
        let started_at = job
            .text("/status/startTime")
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map_or(seen.now, |at| TimeMs(at.as_millisecond()));
        let deadline =
            job.whole("/spec/activeDeadlineSeconds").map(|seconds| started_at.plus_ms(seconds.saturating_mul(1000)));
        let failures = counts.failed + counts.restarts;
        let verdict = if failures > limit {
            Some(("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))
        } else if deadline.is_some_and(|deadline| deadline <= seen.now) {
            Some(("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"))
        } else if counts.succeeded >= completions && (job.at("/spec/completions").is_some() || counts.active == 0) {
            Some(("Complete", "CompletionsReached", "Reached expected number of succeeded pods"))
        } else {
            None
        };
        if let Some((condition, reason, message)) = verdict {
            stop_all(&replicas, plan);
            let kind = if condition == "Complete" { EventKind::Normal } else { EventKind::Warning };
            self.events.tell(job, kind, if condition == "Complete" { "Completed" } else { reason }, message);
            write_status(seen, job, counts, started_at, Some((condition, reason, message)), plan);
            return;
        }
        if let Some(deadline) = deadline {
            plan.wake_at(deadline);
        }
        let is_over_already = counts.succeeded > 0 && job.at("/spec/completions").is_none();
        let wanted = if is_over_already {
            0
        } else {
            parallelism.min(
                completions.saturating_sub(counts.succeeded).max(if job.at("/spec/completions").is_none() {
                    parallelism
                } else {
                    0
                }),
            )
        };
        let due = counts.last_failure.map(|at| at.plus_ms(back_off_ms(counts.failed)));
        if let Some(due) = due.filter(|due| *due > seen.now && counts.active < wanted) {
            plan.wake_at(due);
        } else {
            self.start_more(seen, job, replicas.len(), wanted.saturating_sub(counts.active), plan);
        }
        let surplus = if is_suspended {
            counts.active
        } else {
            counts.active.saturating_sub(wanted.max(usize::from(is_over_already) * counts.active))
        };
        for replica in replicas.iter().filter(|replica| is_active(replica)).take(surplus) {
            plan.stop.push((replica.spec.uid.clone(), None));
        }
        write_status(seen, job, counts, started_at, None, plan);
    }

    /// Replicas are numbered by how many there were: after a crash the same number gets the same uid, and no second copy.
    fn start_more(&self, seen: &Seen, job: &Arc<Object>, known: usize, count: usize, plan: &mut Plan) {
        let Some(template) = job.at("/spec/template") else { return };
        let namespace = &job.metadata.namespace;
        let (hosts, services) = (hosts_of(&self.storage, namespace), seen.service_variables(namespace));
        for number in known..known + count {
            let address = match plan.take_address() {
                Ok(address) => address,
                Err(missing) => return self.tell_missing(job, &missing),
            };
            let identity = Identity {
                uid: format!("{}-{number}", job.metadata.uid),
                name: format!("{}-{}", job.metadata.name, random_suffix()),
                template: String::new(),
                attempt: u32::try_from(number + 1).unwrap_or(u32::MAX),
                address,
                env: BTreeMap::new(),
            };
            match template::replica(job, template, identity, &surroundings(&self.storage, seen, &hosts, &services, job))
            {
                Ok(replica) => {
                    self.events.tell(
                        job,
                        EventKind::Normal,
                        "SuccessfulCreate",
                        &format!("Created pod: {}", replica.name),
                    );
                    plan.start.push(replica);
                }
                Err(missing) => {
                    self.tell_missing(job, &missing);
                    return;
                }
            }
        }
    }
}

fn is_active(replica: &ReplicaStatus) -> bool {
    matches!(replica.phase, ReplicaPhase::Pending | ReplicaPhase::Running) && !replica.is_stopping
}

fn stop_all(replicas: &[&ReplicaStatus], plan: &mut Plan) {
    for replica in replicas.iter().filter(|replica| is_active(replica)) {
        plan.stop.push((replica.spec.uid.clone(), None));
    }
}

fn count(replicas: &[&ReplicaStatus]) -> Counts {
    let mut counts = Counts::default();
    for replica in replicas {
        match replica.phase {
            ReplicaPhase::Succeeded => counts.succeeded += 1,
            ReplicaPhase::Failed => {
                counts.failed += 1;
                counts.last_failure = counts.last_failure.max(replica.finished_at);
            }
            ReplicaPhase::Pending | ReplicaPhase::Running => {
                counts.active += usize::from(!replica.is_stopping);
                counts.ready += usize::from(replica.is_ready);
                counts.restarts +=
                    replica.containers.iter().map(|container| container.restarts as usize).sum::<usize>();
            }
        }
    }
    counts
}

fn back_off_ms(failures: usize) -> i64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (BACK_OFF_MS << doublings).min(BACK_OFF_MOST_MS)
}

/// When a job completed or failed.
pub(crate) fn finished_at(job: &Object) -> Option<TimeMs> {
    let (_, at) = verdict_of(job)?;
    Some(at)
}

/// Whether it completed (or failed), and when.
pub(crate) fn verdict_of(job: &Object) -> Option<(bool, TimeMs)> {
    let conditions = job.at("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find_map(|condition| {
        let is_true = condition.get("status").and_then(Value::as_str) == Some("True");
        let at = condition.get("lastTransitionTime").and_then(Value::as_str)?.parse::<jiff::Timestamp>().ok()?;
        match condition.get("type").and_then(Value::as_str) {
            Some("Complete") if is_true => Some((true, TimeMs(at.as_millisecond()))),
            Some("Failed") if is_true => Some((false, TimeMs(at.as_millisecond()))),
            _ => None,
        }
    })
}

fn write_status(
    seen: &Seen,
    job: &Arc<Object>,
    counts: Counts,
    started_at: TimeMs,
    verdict: Option<(&str, &str, &str)>,
    plan: &mut Plan,
) {
    let mut status = Map::new();
    status.insert("startTime".to_owned(), text_of(started_at));
    for (name, value) in
        [("active", counts.active), ("ready", counts.ready), ("succeeded", counts.succeeded), ("failed", counts.failed)]
    {
        let value = if verdict.is_some() && matches!(name, "active" | "ready") { 0 } else { value };
        if value > 0 || name == "ready" {
            status.insert(name.to_owned(), json!(value));
        }
    }
    if let Some((condition, reason, message)) = verdict {
        status.insert(
            "conditions".to_owned(),
            json!([{"type": condition, "status": "True", "reason": reason, "message": message, "lastTransitionTime": text_of(seen.now), "lastProbeTime": text_of(seen.now)}]),
        );
        if condition == "Complete" {
            status.insert("completionTime".to_owned(), text_of(seen.now));
        }
    }
    super::status::put(job, Value::Object(status), plan);
}
