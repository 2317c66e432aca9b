//! Jobs: exact counting in a whole decision, pending pods, history, rollout, pauses and failures.

use super::*;
use crate::hpa::Phase;
use crate::keda::Target;

const NOW: TimeMs = TimeMs(1_000_000);

fn trigger() -> Trigger {
    let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
    Trigger { metric: "s0-postgresql".to_owned(), name: String::new(), target }
}

fn policy() -> Policy {
    Policy { max_replicas: Some(10), ..Policy::with_defaults(vec![trigger()]) }
}

fn seen(jobs: Vec<Job>, value: f64, in_flight: Option<f64>) -> Observation {
    let value = TriggerValue { value, in_flight, is_active: None, observed_at: NOW };
    Observation { jobs: Ok(jobs), triggers: vec![TriggerReading::Value(value)] }
}

fn running(count: usize) -> Vec<Job> {
    (0..count).map(|index| Job::active(format!("job-{index}"), Phase::Running)).collect()
}

fn created(policy: &Policy, observation: &Observation) -> i32 {
    step(policy, State::default(), observation, NOW).created_jobs()
}

#[test]
fn unclaimed_rows_starve_by_default_and_not_exactly() {
    // Five jobs run, four rows are new: the query counts unclaimed rows only (the reference's lint case).
    assert_eq!(created(&policy(), &seen(running(5), 4.0, None)), 0);
    assert_eq!(created(&policy(), &seen(running(5), 4.0, Some(5.0))), 4);
    let accurate = Strategy { kind: StrategyKind::Accurate, ..Strategy::default() };
    assert_eq!(created(&Policy { strategy: accurate, ..policy() }, &seen(running(5), 4.0, None)), 4);
}

#[test]
fn exact_keeps_the_limit_and_reports_orphans() {
    assert_eq!(created(&policy(), &seen(running(8), 40.0, Some(8.0))), 2);
    let outcome = step(&policy(), State::default(), &seen(running(1), 0.0, Some(3.0)), NOW);
    assert_eq!(outcome.reason("OrphanClaims").and_then(|reason| reason.fact("orphans")), Some(&2_i64.into()));
    assert_eq!(outcome.created_jobs(), 0);
}

#[test]
fn exact_without_a_second_number_creates_nothing_and_says_so() {
    let exact = Policy { strategy: Strategy { kind: StrategyKind::Exact, ..Strategy::default() }, ..policy() };
    let outcome = step(&exact, State::default(), &seen(Vec::new(), 4.0, None), NOW);
    assert_eq!(outcome.created_jobs(), 0);
    assert!(outcome.reason("ExactNeedsInFlight").is_some());
}

#[test]
fn pending_is_what_the_conditions_say() {
    let accurate = Strategy { kind: StrategyKind::Accurate, ..Strategy::default() };
    let policy = Policy { strategy: accurate, ..policy() };
    let mut jobs = running(1);
    jobs.push(Job::active("waiting", Phase::Pending));
    assert_eq!(created(&policy, &seen(jobs.clone(), 4.0, None)), 3);
    let by_condition = Policy { pending_pod_conditions: vec!["Ready".to_owned()], ..policy };
    assert_eq!(created(&by_condition, &seen(jobs.clone(), 4.0, None)), 2);
    jobs[0].pods[0].conditions.insert("Ready".to_owned(), true);
    assert_eq!(created(&by_condition, &seen(jobs, 4.0, None)), 3);
}

#[test]
fn the_oldest_finished_jobs_go() {
    let finished =
        |name: &str, phase, at| Job { phase, finished_at: Some(TimeMs(at)), ..Job::active(name, Phase::Failed) };
    let jobs = vec![
        finished("f-new", JobPhase::Failed, 9),
        finished("f-old", JobPhase::Failed, 2),
        finished("c-old", JobPhase::Complete, 1),
        finished("c-new", JobPhase::Complete, 8),
    ];
    let policy = Policy { successful_history: 1, failed_history: 1, ..policy() };
    let outcome = step(&policy, State::default(), &seen(jobs, 0.0, None), NOW);
    let names = vec!["c-old".to_owned(), "f-old".to_owned()];
    assert_eq!(outcome.actions, [Action::DeleteJobs { names, why: JobDeletion::History }]);
}

#[test]
fn a_new_specification_leaves_running_jobs_unless_told() {
    let mut jobs = running(2);
    jobs[0].generation = Some(1);
    jobs[1].generation = Some(2);
    let gradual = Policy { generation: 2, ..policy() };
    assert_eq!(step(&gradual, State::default(), &seen(jobs.clone(), 0.0, None), NOW).actions, []);
    let immediate = Policy { rollout: Rollout::Immediate, ..gradual };
    let outcome = step(&immediate, State::default(), &seen(jobs, 0.0, None), NOW);
    assert_eq!(outcome.actions, [Action::DeleteJobs { names: vec!["job-0".to_owned()], why: JobDeletion::Rollout }]);
}

#[test]
fn nothing_unknown_reads_as_zero() {
    let unlisted = Observation { jobs: Err("timeout".to_owned()), ..seen(Vec::new(), 9.0, None) };
    assert_eq!(created(&policy(), &unlisted), 0);
    let failed = Observation { jobs: Ok(Vec::new()), triggers: vec![TriggerReading::failed("down", TimeMs(0))] };
    let outcome = step(&policy(), State::default(), &failed, NOW);
    assert_eq!(outcome.conditions_ready(), Some("TriggerError"));
    let stale = Policy { max_age_ms: Some(500), ..policy() };
    let mut old = seen(Vec::new(), 9.0, None);
    old.triggers = vec![TriggerReading::value(9.0, TimeMs(NOW.0 - 501))];
    assert_eq!(created(&stale, &old), 0);
    assert_eq!(created(&Policy { is_paused: true, ..policy() }, &seen(Vec::new(), 9.0, None)), 0);
}

#[test]
fn one_failing_trigger_does_not_stop_the_other() {
    let policy = Policy { triggers: vec![trigger(), trigger()], ..policy() };
    let mut observation = seen(Vec::new(), 3.0, None);
    observation.triggers.insert(0, TriggerReading::failed("down", TimeMs(0)));
    assert_eq!(created(&policy, &observation), 3);
}

#[test]
fn the_native_profile_repairs_eager_and_min() {
    let eager = Strategy { kind: StrategyKind::Eager, ..Strategy::default() };
    let native = Policy { strategy: eager, ..policy() };
    let jobs: Vec<Job> = (0..4).map(|index| Job::active(format!("job-{index}"), Phase::Pending)).collect();
    let strict = Policy { profile: Profile::Strict, ..native.clone() };
    assert_eq!(created(&strict, &seen(jobs.clone(), 20.0, None)), 2);
    assert_eq!(created(&native, &seen(jobs, 20.0, None)), 6);
    let scaler = |queue_length| Scaler { queue_length, target: 1.0, is_active: true };
    let bounds = JobBounds::new(None, None);
    let shortest =
        |queues: [f64; 2], profile| combine(&queues.map(scaler), Calculation::Min, bounds, profile).queue_length;
    assert_eq!((shortest([0.0, 5.0], Profile::Strict), shortest([5.0, 0.0], Profile::Strict)), (5, 0));
    assert_eq!((shortest([0.0, 5.0], Profile::Native), shortest([5.0, 0.0], Profile::Native)), (0, 0));
}

impl Outcome<State> {
    fn conditions_ready(&self) -> Option<&str> {
        self.state.conditions.get("Ready").map(|condition| &*condition.reason)
    }
}
