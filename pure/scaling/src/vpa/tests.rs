//! Whole decisions: history to recommendation, update modes, budgets, resizes, and what a horizontal autoscaler follows.

use super::*;
use crate::decision::{Action, Outcome, TimeMs};
use crate::hpa::{self, Metric, Phase, ResourceTarget};

const NOW: TimeMs = TimeMs(1_700_000_000_000);
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

fn amounts(cpu: i64, memory: i64) -> Resources {
    Resources { cpu_milli: Some(cpu), memory_bytes: Some(memory) }
}

fn replica(name: &str, requests: Resources) -> Replica {
    let container =
        ReplicaContainer { name: "app".to_owned(), requests, limits: Resources::default(), oom_after_ms: None };
    Replica {
        name: name.to_owned(),
        phase: Phase::Running,
        started_at: Some(NOW.plus_ms(-DAY)),
        containers: vec![container],
        resize: None,
    }
}

/// Two days of samples, one a minute: half a core and 300 MiB.
fn history() -> Vec<Sample> {
    let sample = |minute: i64| Sample {
        replica: "a".to_owned(),
        container: "app".to_owned(),
        at: NOW.plus_ms(minute * MINUTE - 2 * DAY),
        usage: amounts(500, 300 << 20),
    };
    (0..2880).map(sample).collect()
}

fn seen(pods: Vec<Replica>) -> Observation {
    let replicas = i32::try_from(pods.len()).expect("few");
    Observation { samples: history(), replicas, pods, ..Observation::default() }
}

fn four(requests: Resources) -> Vec<Replica> {
    ["a", "b", "c", "d"].map(|name| replica(name, requests)).to_vec()
}

fn recommended(outcome: &Outcome<State>) -> ContainerRecommendation {
    let found = outcome.actions.iter().find_map(|action| match action {
        Action::Recommend { containers } => containers.first().cloned(),
        _ => None,
    });
    found.expect("a recommendation")
}

fn updated(outcome: &Outcome<State>) -> Vec<(String, UpdateMethod)> {
    let of = |action: &Action| match action {
        Action::UpdateReplica { replica, method } => Some((replica.clone(), *method)),
        _ => None,
    };
    outcome.actions.iter().filter_map(of).collect()
}

fn policy(update_mode: UpdateMode) -> Policy {
    Policy { update_mode, ..Policy::default() }
}

#[test]
fn a_history_becomes_a_recommendation_with_bounds() {
    let outcome = step(&policy(UpdateMode::Off), State::default(), &seen(four(amounts(100, 1 << 30))), NOW);
    let found = recommended(&outcome);
    // Half a core, at most one bucket of 5 % above, and 15 %.
    let cpu = found.target.cpu_milli.expect("cpu");
    assert!((575..=604).contains(&cpu), "{cpu}");
    let memory = found.target.memory_bytes.expect("memory");
    assert!((345..=363).contains(&(memory >> 20)), "{memory}");
    // The last sample is one minute before two days.
    assert!((1.9..2.0).contains(&found.confidence), "{}", found.confidence);
    let (lower, upper) = (found.lower.cpu_milli.expect("lower"), found.upper.cpu_milli.expect("upper"));
    assert!(lower <= cpu && upper > cpu && upper < cpu * 2, "{lower} {upper}");
    assert_eq!(updated(&outcome), []);
}

#[test]
fn nothing_is_recommended_without_a_history() {
    let nothing = Observation { samples: Vec::new(), ..seen(four(amounts(100, 1 << 30))) };
    let outcome = step(&policy(UpdateMode::Recreate), State::default(), &nothing, NOW);
    assert_eq!(outcome.actions, []);
    assert!(outcome.reason("NotEnoughHistory").is_some());
    let young = Observation { samples: history().split_off(2700), ..nothing };
    let outcome = step(&policy(UpdateMode::Off), State::default(), &young, NOW);
    let low = outcome.state.conditions.get("LowConfidence").map(|condition| condition.status);
    assert_eq!(low, Some(crate::decision::Truth::True));
}

#[test]
fn a_restart_changes_nothing() {
    let seen = seen(four(amounts(100, 1 << 30)));
    let first = step(&policy(UpdateMode::Recreate), State::default(), &seen, NOW);
    let printed = serde_json::to_string(&first.state).expect("JSON");
    let read: State = serde_json::from_str(&printed).expect("what was printed");
    let later = Observation { samples: Vec::new(), ..seen };
    let (kept, restarted) = (
        step(&policy(UpdateMode::Recreate), first.state, &later, NOW.plus_ms(MINUTE)),
        step(&policy(UpdateMode::Recreate), read, &later, NOW.plus_ms(MINUTE)),
    );
    assert_eq!(kept, restarted);
}

#[test]
fn modes_and_budgets_decide_who_is_updated() {
    let seen = seen(four(amounts(100, 1 << 30)));
    let run = |policy: &Policy, seen: &Observation| updated(&step(policy, State::default(), seen, NOW));
    let evicted =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), UpdateMethod::Evict)).collect::<Vec<_>>();
    // Half of four may be away at once.
    assert_eq!(run(&policy(UpdateMode::Recreate), &seen), evicted(&["a", "b"]));
    assert_eq!(run(&policy(UpdateMode::Initial), &seen), []);
    let budget = Observation { disruptions_allowed: vec![3, 1], ..seen.clone() };
    assert_eq!(run(&policy(UpdateMode::Recreate), &budget), evicted(&["a"]));
    let closed = Observation { disruptions_allowed: vec![0], ..seen.clone() };
    assert_eq!(run(&policy(UpdateMode::Recreate), &closed), []);
    let many = Policy { min_replicas: 5, ..policy(UpdateMode::Recreate) };
    assert_eq!(run(&many, &seen), []);
    let resized = run(&policy(UpdateMode::InPlace), &seen);
    assert!(resized.iter().all(|(_, method)| *method == UpdateMethod::Resize) && resized.len() == 2, "{resized:?}");
    let lower = EvictionRequirement { resources: vec![Resource::Cpu], change: EvictionChange::TargetLowerThanRequests };
    let required = Policy { eviction_requirements: vec![lower], ..policy(UpdateMode::Recreate) };
    assert_eq!(run(&required, &seen), []);
}

#[test]
fn a_resize_that_fails_becomes_an_eviction_only_where_that_is_allowed() {
    let with = |resize| {
        let mut pods = four(amounts(100, 1 << 30));
        pods[0].resize = Some(resize);
        seen(pods)
    };
    let method = |mode, resize| {
        let outcome = step(&policy(mode), State::default(), &with(resize), NOW);
        updated(&outcome).into_iter().find(|(name, _)| name == "a").map(|(_, method)| method)
    };
    let since = |ms: i64| NOW.plus_ms(-ms);
    for (resize, expected) in [
        (ResizeState::Infeasible, Some(UpdateMethod::Evict)),
        (ResizeState::Deferred(since(300_000)), None),
        (ResizeState::Deferred(since(300_001)), Some(UpdateMethod::Evict)),
        (ResizeState::InProgress(since(3_600_000)), None),
        (ResizeState::InProgress(since(3_600_001)), Some(UpdateMethod::Evict)),
    ] {
        assert_eq!(method(UpdateMode::InPlaceOrRecreate, resize), expected, "{resize:?}");
        assert_eq!(method(UpdateMode::InPlace, resize), None, "{resize:?}");
    }
}

#[test]
fn a_kill_raises_memory_and_a_cap_holds_it() {
    let oom = Oom { replica: "a".to_owned(), container: "app".to_owned(), at: NOW, requested_bytes: 1 << 30 };
    let killed = Observation { ooms: vec![oom], ..seen(four(amounts(600, 1 << 30))) };
    let outcome = step(&policy(UpdateMode::Off), State::default(), &killed, NOW);
    assert!(recommended(&outcome).target.memory_bytes.expect("memory") > (1 << 30) * 6 / 5);
    assert!(outcome.reason("OutOfMemory").is_some());
    let bounded = ContainerPolicy { max_allowed: amounts(400, 1 << 30), ..ContainerPolicy::with_defaults("*") };
    let capped = Policy { containers: vec![bounded], ..policy(UpdateMode::Off) };
    let found = recommended(&step(&capped, State::default(), &killed, NOW));
    assert_eq!(found.target, amounts(400, 1 << 30));
    assert!(found.uncapped.cpu_milli > Some(400));
}

#[test]
fn what_a_horizontal_autoscaler_follows_stays() {
    let cpu = |target| Metric::Resource { resource: "cpu".to_owned(), target };
    let utilization = hpa::Policy::strict(1, 9, vec![cpu(ResourceTarget::Utilization { percent: 70 })]);
    let absolute = hpa::Policy::strict(1, 9, vec![cpu(ResourceTarget::AverageValue { milli: 350 })]);
    let vertical = policy(UpdateMode::Recreate);
    assert_eq!(shared_resources(&utilization, &vertical), [SharedResource { resource: Resource::Cpu }]);
    assert_eq!(shared_resources(&absolute, &vertical), []);
    assert_eq!(shared_resources(&utilization, &policy(UpdateMode::Off)), []);
    let memory_only = ContainerPolicy { controlled: vec![Resource::Memory], ..ContainerPolicy::with_defaults("*") };
    assert_eq!(shared_resources(&utilization, &Policy { containers: vec![memory_only], ..vertical.clone() }), []);
    // Only cpu is far from its target, and only cpu is followed: nobody is updated.
    let followed = Policy { followed_by_horizontal: vec![Resource::Cpu], ..vertical };
    let requests = amounts(100, 370 << 20);
    let outcome = step(&followed, State::default(), &seen(four(requests)), NOW);
    assert_eq!(updated(&outcome), []);
    let found = recommended(&outcome);
    let (target, _) = applied(&followed, &found, requests, Resources::default());
    assert_eq!(target.cpu_milli, Some(100));
}

#[test]
fn replicas_that_are_gone_are_forgotten() {
    let mut state = State::default();
    for day in 0..6 {
        let sample = Sample {
            replica: format!("replica-{day}"),
            container: "app".to_owned(),
            at: NOW.plus_ms(day * DAY),
            usage: amounts(500, 300 << 20),
        };
        let look = Observation { samples: vec![sample], ..Observation::default() };
        state = step(&policy(UpdateMode::Off), state, &look, NOW.plus_ms(day * DAY)).state;
    }
    assert!(state.containers["app"].replicas.len() <= 3, "{:?}", state.containers["app"].replicas.keys());
    let late = step(&policy(UpdateMode::Off), state, &Observation::default(), NOW.plus_ms(14 * DAY));
    assert!(late.state.containers.is_empty(), "eight days without a sample");
}
