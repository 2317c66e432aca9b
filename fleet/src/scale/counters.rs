//! What policies did since the process began, for its metrics: never read by a decision.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidemill_scaling::decision::Action;
use tidemill_scaling::{Record, TimeMs};

use crate::objects::ObjectKey;
use crate::runtime::ReplicaStatus;

/// A change of direction within this time is a flap, as in the simulator.
const FLAP_MS: i64 = 600_000;
/// A decision that no replica became ready for is let go after this.
const READY_WITHIN_MS: i64 = 3_600_000;
/// Upper bounds in seconds of the time from a decision to its last ready replica.
pub const READY_BOUNDS_S: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// What one policy did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// How often it decided.
    pub decisions: u64,
    /// How often it scaled out or created jobs.
    pub up: u64,
    /// How often it scaled in.
    pub down: u64,
    /// Changes of direction within ten minutes.
    pub flaps: u64,
    /// Decisions by how long it took until what they wanted was ready, in the buckets of [`READY_BOUNDS_S`] and one beyond.
    pub ready: [u64; READY_BOUNDS_S.len() + 1],
    /// Seconds, of all of them.
    pub ready_sum_s: f64,
    last: Option<(bool, TimeMs)>,
}

/// A decision whose replicas are awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Awaited {
    policy: ObjectKey,
    at: TimeMs,
    namespace: String,
    workload_kind: String,
    workload: String,
    /// So many of its replicas are to be ready.
    replicas: usize,
}

/// Counts what policies do.
#[derive(Debug, Default)]
pub struct Counters {
    all: Mutex<BTreeMap<ObjectKey, Counted>>,
    awaited: Mutex<Vec<Awaited>>,
}

impl Counters {
    /// What each policy did.
    pub fn all(&self) -> BTreeMap<ObjectKey, Counted> {
        self.all.lock().clone()
    }

    /// Notes a decision that was carried out: on `target`, its kind and name, or by the jobs of these names.
    pub(super) fn note(&self, policy: &ObjectKey, target: Option<(&str, &str)>, record: &Record, jobs: &[String]) {
        let mut all = self.all.lock();
        let counted = all.entry(policy.clone()).or_default();
        counted.decisions += 1;
        for action in &record.actions {
            let is_up = match action {
                Action::Scale { from, to, .. } if from != to => to > from,
                Action::CreateJobs { .. } => true,
                _ => continue,
            };
            *(if is_up { &mut counted.up } else { &mut counted.down }) += 1;
            if counted.last.is_some_and(|(was_up, at)| was_up != is_up && record.now.since_ms(at) <= FLAP_MS) {
                counted.flaps += 1;
            }
            counted.last = Some((is_up, record.now));
            let mut awaited = self.awaited.lock();
            let mut wait = |kind: &str, name: &str, replicas: usize| {
                awaited.push(Awaited {
                    policy: policy.clone(),
                    at: record.now,
                    namespace: policy.namespace.clone(),
                    workload_kind: kind.to_owned(),
                    workload: name.to_owned(),
                    replicas,
                });
            };
            match (action, target) {
                (Action::Scale { to, .. }, Some((kind, name))) => {
                    if is_up {
                        wait(kind, name, usize::try_from(*to).unwrap_or_default());
                    } else {
                        // What was wanted before is wanted no more.
                        let to = usize::try_from(*to).unwrap_or_default();
                        awaited.retain(|one| one.policy != *policy || one.replicas <= to);
                    }
                }
                (Action::CreateJobs { .. }, _) => jobs.iter().for_each(|name| wait("Job", name, 1)),
                _ => {}
            }
        }
    }

    /// Lets go of policies that are gone.
    pub(super) fn keep(&self, is_present: impl Fn(&ObjectKey) -> bool) {
        self.all.lock().retain(|key, _| is_present(key));
    }

    /// Looks whether what was decided is ready.
    pub fn observe(&self, replicas: impl FnOnce() -> Vec<ReplicaStatus>) {
        let mut awaited = self.awaited.lock();
        if awaited.is_empty() {
            return;
        }
        let mut ready: BTreeMap<(String, String, String), Vec<TimeMs>> = BTreeMap::new();
        for replica in replicas() {
            let spec = &replica.spec;
            // A job's replica may have been ready and ended between two looks.
            let at = match (replica.is_ready, spec.workload_kind.as_str()) {
                (true, _) => Some(replica.ready_changed_at),
                (false, "Job") => replica.started_at.filter(|_| replica.finished_at.is_some()),
                _ => None,
            };
            if let Some(at) = at {
                let key = (spec.namespace.clone(), spec.workload_kind.clone(), spec.workload.clone());
                ready.entry(key).or_default().push(at);
            }
        }
        ready.values_mut().for_each(|times| times.sort_unstable());
        let now = crate::control::now();
        let mut all = self.all.lock();
        awaited.retain(|one| {
            let key = (one.namespace.clone(), one.workload_kind.clone(), one.workload.clone());
            let last = ready.get(&key).and_then(|times| times.get(one.replicas.checked_sub(1)?));
            let Some(last) = last else { return now.since_ms(one.at) <= READY_WITHIN_MS };
            let seconds = last.since_ms(one.at).max(0) as f64 / 1000.0;
            if let Some(counted) = all.get_mut(&one.policy) {
                let bucket = READY_BOUNDS_S.iter().position(|bound| seconds <= *bound).unwrap_or(READY_BOUNDS_S.len());
                counted.ready[bucket] += 1;
                counted.ready_sum_s += seconds;
            }
            false
        });
    }
}
