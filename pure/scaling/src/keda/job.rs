//! One decision of a `ScaledJob`: how many jobs to create, and which finished or outdated ones to delete.

mod cleanup;
mod observation;

use serde::{Deserialize, Serialize};

pub use observation::{Job, JobPhase, JobPod, Observation};

use super::Profile;
use super::strategy::{Calculation, Combined, JobBounds, Scaler, Strategy, StrategyKind, combine, decide};
use super::trigger::{Trigger, TriggerReading, TriggerValue, believed};
use crate::decision::{Action, Conditions, Fact, JobDeletion, Outcome, Reason, TimeMs, Truth};
use crate::exact::{Counts, jobs_to_create, orphan_claims};

/// A `ScaledJob`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// KEDA as it is, or repaired.
    #[serde(default)]
    pub profile: Profile,
    /// How often triggers are polled; the caller keeps to it.
    pub polling_interval_ms: i64,
    /// Jobs that always run.
    #[serde(default)]
    pub min_replicas: Option<i32>,
    /// The limit of jobs.
    #[serde(default)]
    pub max_replicas: Option<i32>,
    /// How jobs are counted against work.
    #[serde(default)]
    pub strategy: Strategy,
    /// How several triggers become one.
    #[serde(default)]
    pub calculation: Calculation,
    /// Conditions of a pod that make its job started; empty means that it runs.
    #[serde(default)]
    pub pending_pod_conditions: Vec<String>,
    /// Completed jobs that are kept.
    pub successful_history: usize,
    /// Failed jobs that are kept.
    pub failed_history: usize,
    /// What happens to jobs of an older specification.
    #[serde(default)]
    pub rollout: Rollout,
    /// The specification's generation; jobs carry the one they were made from.
    #[serde(default)]
    pub generation: i64,
    /// `autoscaling.keda.sh/paused`.
    #[serde(default)]
    pub is_paused: bool,
    /// The triggers.
    pub triggers: Vec<Trigger>,
    /// A value older than this is an error.
    #[serde(default)]
    pub max_age_ms: Option<i64>,
}

impl Policy {
    /// A policy of `triggers` with KEDA's defaults.
    pub fn with_defaults(triggers: Vec<Trigger>) -> Self {
        Self {
            profile: Profile::default(),
            polling_interval_ms: 30_000,
            min_replicas: None,
            max_replicas: None,
            strategy: Strategy::default(),
            calculation: Calculation::default(),
            pending_pod_conditions: Vec::new(),
            successful_history: 100,
            failed_history: 100,
            rollout: Rollout::default(),
            generation: 0,
            is_paused: false,
            triggers,
            max_age_ms: None,
        }
    }

    /// The most jobs that may be alive.
    pub fn ceiling(&self) -> i64 {
        let bounds = JobBounds::new(self.min_replicas, self.max_replicas);
        let written = self.max_replicas.map_or(i64::from(bounds.min) + i64::from(bounds.max), i64::from);
        written.max(0)
    }
}

/// What happens to jobs of an older specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollout {
    /// They end by themselves.
    #[default]
    Gradual,
    /// They are deleted, running ones included: KEDA's default, and only done where it is written.
    Immediate,
}

/// What a `ScaledJob` remembers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// When it was last active.
    #[serde(default)]
    pub last_active_at: Option<TimeMs>,
    /// `Ready`, `Active`, `Paused`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// Decides which jobs to create and delete.
///
/// Running jobs are never deleted, except under [`Rollout::Immediate`]. A failing trigger counts for nothing and stops no other; while the
/// jobs cannot be listed nothing is created, because an unknown number is not zero.
pub fn step(policy: &Policy, mut state: State, observation: &Observation, now: TimeMs) -> Outcome<State> {
    if policy.is_paused {
        state.conditions.set("Paused", Truth::True, "ScaledJobPaused", "paused by annotation", now);
        let reason = Reason::new("ScaledJobPaused", "paused by annotation: running jobs go on, none is created");
        return Outcome { state, actions: Vec::new(), reasons: vec![reason] };
    }
    state.conditions.set("Paused", Truth::False, "ScaledJobUnpaused", "not paused", now);
    let jobs = match &observation.jobs {
        Ok(jobs) => jobs,
        Err(error) => {
            let message = format!("the jobs cannot be listed: {error}; none is created");
            state.conditions.set("Ready", Truth::False, "ErrorGettingCurrentReplicas", message.clone(), now);
            let reasons = vec![Reason::new("ErrorGettingCurrentReplicas", message)];
            return Outcome { state, actions: Vec::new(), reasons };
        }
    };
    let mut actions = Vec::new();
    let mut reasons = Vec::new();
    let mut kept: Vec<&Job> = jobs.iter().collect();
    if policy.rollout == Rollout::Immediate {
        let outdated: Vec<String> =
            jobs.iter().filter(|job| job.generation != Some(policy.generation)).map(|job| job.name.clone()).collect();
        kept.retain(|job| job.generation == Some(policy.generation));
        if !outdated.is_empty() {
            let message = format!("{} jobs were made from an older specification", outdated.len());
            reasons.push(Reason::new("ScaledJobRolloutCleanupStarted", message).with("jobs", outdated.clone()));
            actions.push(Action::DeleteJobs { names: outdated, why: JobDeletion::Rollout });
        }
    }
    let values = read(policy, observation, now, &mut reasons);
    set_conditions(policy, &mut state, &values, now);
    let running = kept.iter().filter(|job| job.phase == JobPhase::Active).count() as i64;
    let pending = kept
        .iter()
        .filter(|job| job.phase == JobPhase::Active && job.is_pending(&policy.pending_pod_conditions))
        .count() as i64;
    let (count, is_active) = match exact_of(policy, &values) {
        Some(exact) => create_exactly(policy, exact, running, &mut reasons),
        None => create_by_strategy(policy, &values, running, pending, &mut reasons),
    };
    if is_active {
        state.last_active_at = Some(now);
        state.conditions.set("Active", Truth::True, "ScalerActive", "something is active", now);
    } else {
        state.conditions.set("Active", Truth::False, "ScalerNotActive", "nothing is active", now);
    }
    if count > 0 {
        actions.push(Action::CreateJobs { count: i32::try_from(count).unwrap_or(i32::MAX) });
        reasons.push(Reason::new("KEDAJobsCreated", format!("creating {count} jobs")).with("created", count));
    }
    if let Some((action, reason)) = cleanup::trim_history(policy, &kept) {
        actions.push(action);
        reasons.push(reason);
    }
    Outcome { state, actions, reasons }
}

/// One trigger with the value that may be believed.
struct Read<'a> {
    trigger: &'a Trigger,
    value: Option<TriggerValue>,
}

impl Read<'_> {
    fn scaler(&self) -> Option<Scaler> {
        let (target, activation) = self.trigger.target.outside()?;
        let value = self.value?;
        let is_active = value.is_active.unwrap_or(value.value > activation);
        Some(Scaler { queue_length: value.value, target, is_active })
    }
}

fn read<'a>(policy: &'a Policy, observation: &Observation, now: TimeMs, reasons: &mut Vec<Reason>) -> Vec<Read<'a>> {
    let readings =
        policy.triggers.iter().enumerate().map(|(index, trigger)| (trigger, observation.triggers.get(index)));
    readings
        .map(|(trigger, reading): (_, Option<&TriggerReading>)| match believed(reading, policy.max_age_ms, now) {
            Ok(value) => {
                let mut reason = Reason::new("TriggerValue", format!("{} is {}", trigger.metric, value.value))
                    .about(&trigger.metric);
                reason.facts.push(Fact::observed("value", value.value, Some(value.observed_at), now));
                if let Some(in_flight) = value.in_flight {
                    reason.facts.push(Fact::observed("in_flight", in_flight, Some(value.observed_at), now));
                }
                reasons.push(reason);
                Read { trigger, value: Some(value) }
            }
            Err(failing) => {
                let message = format!("{} failed: {}", trigger.metric, failing.error);
                let failed_for = now.since_ms(failing.since);
                reasons.push(
                    Reason::new("TriggerError", message).about(&trigger.metric).with("failed_for_ms", failed_for),
                );
                Read { trigger, value: None }
            }
        })
        .collect()
}

fn set_conditions(policy: &Policy, state: &mut State, values: &[Read<'_>], now: TimeMs) {
    let failing = values.iter().filter(|read| read.value.is_none()).count();
    let message = format!("{failing} of {} triggers fail", policy.triggers.len());
    match failing {
        0 => state.conditions.set("Ready", Truth::True, "ScaledJobReady", "every trigger answers", now),
        _ if failing == policy.triggers.len() => {
            state.conditions.set("Ready", Truth::False, "TriggerError", message, now)
        }
        _ => state.conditions.set("Ready", Truth::Unknown, "PartialTriggerError", message, now),
    }
}

/// The counts of an exact trigger: there is one trigger, and it reports what is in flight (or the strategy says that it does).
fn exact_of(policy: &Policy, values: &[Read<'_>]) -> Option<(i64, i64, f64)> {
    let [read] = values else { return None };
    let value = read.value?;
    let in_flight = match (value.in_flight, policy.strategy.kind) {
        (Some(in_flight), _) => in_flight,
        _ => return None,
    };
    let (target, _) = read.trigger.target.outside()?;
    let per_job = if target > 0.0 { target } else { 1.0 };
    Some(((value.value / per_job).ceil() as i64, (in_flight / per_job).ceil() as i64, per_job))
}

fn create_exactly(
    policy: &Policy,
    (unclaimed, in_flight, per_job): (i64, i64, f64),
    alive: i64,
    reasons: &mut Vec<Reason>,
) -> (i64, bool) {
    let counts = Counts { unclaimed, in_flight, alive };
    let by_work = jobs_to_create(counts, policy.ceiling());
    let minimum = i64::from(JobBounds::new(policy.min_replicas, policy.max_replicas).min);
    let count = by_work.max((minimum - alive).min(policy.ceiling() - alive)).max(0);
    let orphans = orphan_claims(counts);
    if orphans > 0 {
        let message = format!("{orphans} claims belong to no living job: they wait until their claim is given up");
        reasons.push(Reason::new("OrphanClaims", message).with("orphans", orphans));
    }
    let message = "one job for each unclaimed item that no idle job will take";
    let reason = Reason::new("ExactJobs", message)
        .with("unclaimed", unclaimed)
        .with("in_flight", in_flight)
        .with("alive", alive)
        .with("items_per_job", per_job)
        .with("max", policy.ceiling())
        .with("created", count);
    reasons.push(reason);
    (count, unclaimed > 0 || in_flight > 0 || minimum > 0)
}

fn create_by_strategy(
    policy: &Policy,
    values: &[Read<'_>],
    running: i64,
    pending: i64,
    reasons: &mut Vec<Reason>,
) -> (i64, bool) {
    let bounds = JobBounds::new(policy.min_replicas, policy.max_replicas);
    let scalers: Vec<Scaler> = values.iter().filter_map(Read::scaler).collect();
    let combined: Combined = combine(&scalers, policy.calculation, bounds, policy.profile);
    let reason =
        Reason::new("TriggersCombined", format!("{} of {} triggers answer", scalers.len(), policy.triggers.len()))
            .with("active", if combined.is_active { "true" } else { "false" })
            .with("queue_length", combined.queue_length)
            .with("max_value", combined.max_value);
    reasons.push(reason);
    if policy.strategy.kind == StrategyKind::Exact {
        let message = "the strategy is exact, and the source does not report what is in flight: nothing is created";
        reasons.push(Reason::new("ExactNeedsInFlight", message));
        return (0, combined.is_active);
    }
    let outcome = decide(&policy.strategy, bounds, combined, running, pending, policy.profile);
    let count = if combined.is_active { outcome.effective.min(outcome.scale_to).max(0) } else { 0 };
    // KEDA's sum of minimum and work can pass what is written; the native profile keeps to it.
    let room = if policy.profile == Profile::Native { (policy.ceiling() - running).max(0) } else { i64::MAX };
    let count = count.min(room);
    let name = format!("{:?}", policy.strategy.kind).to_lowercase();
    let reason = Reason::new("StrategyResult", format!("the strategy {name} allows {}", outcome.effective))
        .with("running", running)
        .with("pending", pending)
        .with("effective_max_scale", outcome.effective)
        .with("scale_to", outcome.scale_to)
        .with("created", count);
    reasons.push(reason);
    (count, combined.is_active)
}

#[cfg(test)]
mod tests;
