//! What policies did since the process began, for its metrics: never read by a decision.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidemill_scaling::TimeMs;
use tidemill_scaling::decision::Action;

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

/// What was carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decided<'a> {
    pub now: TimeMs,
    pub actions: &'a [Action],
    /// The names of the jobs that were created.
    pub jobs: &'a [String],
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

    /// Notes a decision that was carried out: on `target`, its kind and name, or by jobs.
    pub(super) fn note(&self, policy: &ObjectKey, target: Option<(&str, &str)>, decided: Decided<'_>) {
        let Decided { now, actions, jobs } = decided;
        let mut all = self.all.lock();
        let counted = all.entry(policy.clone()).or_default();
        counted.decisions += 1;
        for action in actions {
            let is_up = match action {
                Action::Scale { from, to, .. } if from != to => to > from,
                Action::CreateJobs { .. } => true,
                _ => continue,
            };
            *(if is_up { &mut counted.up } else { &mut counted.down }) += 1;
            if counted.last.is_some_and(|(was_up, at)| was_up != is_up && now.since_ms(at) <= FLAP_MS) {
                counted.flaps += 1;
            }
            counted.last = Some((is_up, now));
            let mut awaited = self.awaited.lock();
            let mut wait = |kind: &str, name: &str, replicas: usize| {
                awaited.push(Awaited {
                    policy: policy.clone(),
                    at: now,
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

#[cfg(test)]
impl Counters {
    /// A policy that did everything once.
    pub(crate) fn sample() -> Self {
        let counted = Counted { decisions: 3, up: 1, down: 1, flaps: 1, ready: [1; 15], ready_sum_s: 9.0, last: None };
        let key = ObjectKey::new("ScaledObject", "shop", "a");
        Self { all: Mutex::new(BTreeMap::from([(key, counted)])), awaited: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(counters: &Counters, now: i64, from: i32, to: i32) {
        let actions = [Action::Scale { from, to, victims: Vec::new() }];
        let decided = Decided { now: TimeMs(now), actions: &actions, jobs: &[] };
        counters.note(&key(), Some(("Deployment", "a")), decided);
    }

    fn key() -> ObjectKey {
        ObjectKey::new("ScaledObject", "shop", "a")
    }

    fn ready(uid: &str, at: i64) -> ReplicaStatus {
        let mut replica = crate::export::sample_replica();
        replica.spec.uid = uid.to_owned();
        replica.is_ready = true;
        replica.ready_changed_at = TimeMs(at);
        replica
    }

    #[test]
    fn a_turn_within_ten_minutes_is_a_flap() {
        let counters = Counters::default();
        scale(&counters, 0, 1, 3);
        scale(&counters, 1000, 3, 5);
        scale(&counters, 2000, 5, 4);
        scale(&counters, 2000 + FLAP_MS + 1, 4, 6);
        let counted = counters.all()[&key()].clone();
        assert_eq!((counted.decisions, counted.up, counted.down, counted.flaps), (4, 3, 1, 1));
    }

    #[test]
    fn the_last_wanted_replica_ends_the_wait() {
        let counters = Counters::default();
        let start = crate::control::now().0;
        scale(&counters, start, 0, 2);
        counters.observe(|| vec![ready("one", start + 100)]);
        assert_eq!(counters.all()[&key()].ready.iter().sum::<u64>(), 0);
        counters.observe(|| vec![ready("one", start + 100), ready("two", start + 700)]);
        let counted = counters.all()[&key()].clone();
        assert_eq!((counted.ready.iter().sum::<u64>(), counted.ready[4], counted.ready_sum_s), (1, 1, 0.7));
        // What is scaled in again before it was ready is awaited no more.
        scale(&counters, start + 800, 2, 5);
        scale(&counters, start + 900, 5, 2);
        counters.observe(|| panic!("nothing is awaited"));
    }
}
