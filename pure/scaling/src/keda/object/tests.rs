//! `ScaledObject`: waking, cooling down, idling, falling back, formulas and pauses.

use super::*;
use crate::keda::{Fallback, FallbackBehavior, Target, Trigger};

const START: TimeMs = TimeMs(10_000_000);

fn trigger(name: &str, target: f64, activation: f64) -> Trigger {
    let target = Target::AverageValue { value: target, activation, is_cached: false };
    Trigger { metric: format!("s0-{name}"), name: name.to_owned(), target }
}

fn policy() -> Policy {
    Policy { max_replicas: Some(20), ..Policy::with_defaults(vec![trigger("queue", 10.0, 0.0)]) }
}

fn seen(replicas: i32, triggers: Vec<TriggerReading>) -> Observation {
    let scale = hpa::Scale { spec_replicas: replicas, status_replicas: replicas };
    Observation { tick: Tick::Both, created_at: START, scale: Ok(scale), pods: Vec::new(), triggers }
}

fn at(seconds: i64) -> TimeMs {
    START.plus_ms(seconds * 1000)
}

fn value(value: f64, now: TimeMs) -> Vec<TriggerReading> {
    vec![TriggerReading::value(value, now)]
}

/// Follows `values`, one decision every 30 s from `replicas`, and returns the sizes.
fn follow(policy: &Policy, replicas: i32, readings: impl IntoIterator<Item = Vec<TriggerReading>>) -> Vec<i32> {
    let (mut state, mut size) = (State::default(), replicas);
    let mut sizes = Vec::new();
    for (index, triggers) in readings.into_iter().enumerate() {
        let outcome = step(policy, state, &seen(size, triggers), at(30 * index as i64));
        size = outcome.scaled_to().unwrap_or(size);
        state = outcome.state;
        sizes.push(size);
    }
    sizes
}

fn values(list: &[f64]) -> Vec<Vec<TriggerReading>> {
    list.iter().enumerate().map(|(index, number)| value(*number, at(30 * index as i64))).collect()
}

#[test]
fn it_wakes_to_one_in_keda_and_to_the_demand_natively() {
    let strict = Policy { profile: Profile::Strict, ..policy() };
    let mut poll = seen(0, value(70.0, START));
    poll.tick = Tick::Poll;
    assert_eq!(step(&strict, State::default(), &poll, START).scaled_to(), Some(1));
    assert_eq!(step(&policy(), State::default(), &seen(0, value(70.0, START)), START).scaled_to(), Some(7));
    assert_eq!(step(&policy(), State::default(), &seen(0, value(1e9, START)), START).scaled_to(), Some(20));
    assert_eq!(step(&policy(), State::default(), &seen(0, value(0.0, START)), START).scaled_to(), None);
}

#[test]
fn activation_is_strictly_above_and_goes_before_the_target() {
    // Threshold 10, activation 50, value 40: inactive although four replicas would be worth it.
    let policy = Policy { triggers: vec![trigger("queue", 10.0, 50.0)], ..policy() };
    assert_eq!(follow(&policy, 0, values(&[40.0, 50.0, 51.0])), [0, 0, 6]);
}

#[test]
fn it_goes_to_zero_after_the_cooldown_and_not_at_its_end() {
    let mut list = vec![50.0];
    list.extend([0.0; 12]);
    let sizes = follow(&policy(), 5, values(&list));
    // Active at 0 s; the cooldown of 300 s is over after 300 s, so at 330 s.
    assert_eq!((sizes[10], sizes[11]), (5, 0), "{sizes:?}");
}

#[test]
fn an_object_that_was_never_active_has_its_own_cooldown() {
    let never = Policy { initial_cooldown_ms: 60_000, ..policy() };
    assert_eq!(follow(&never, 1, values(&[0.0, 0.0, 0.0, 0.0])), [1, 1, 1, 0]);
    assert_eq!(follow(&policy(), 1, values(&[0.0, 0.0])), [1, 0]);
}

#[test]
fn idle_is_left_for_the_minimum_and_returned_to() {
    let idle = Policy { idle_replicas: Some(0), min_replicas: Some(3), cooldown_ms: 30_000, ..policy() };
    assert_eq!(follow(&idle, 0, values(&[0.0, 5.0, 0.0, 0.0, 0.0])), [0, 3, 3, 0, 0]);
    let low = Policy { min_replicas: Some(3), ..policy() };
    assert_eq!(follow(&low, 1, values(&[0.0])), [3]);
}

#[test]
fn a_failure_holds_and_then_falls_back() {
    let failing = || vec![TriggerReading::failed("refused", START)];
    assert_eq!(follow(&policy(), 4, std::iter::repeat_with(failing).take(20)), [4; 20]);
    let fall = |behavior| Policy {
        fallback: Some(Fallback { failure_threshold: 2, replicas: 6, behavior }),
        behavior: Some(hpa::Behavior {
            scale_down: hpa::Rules { stabilization_ms: Some(0), ..hpa::Rules::default_down() },
            ..hpa::Behavior::default()
        }),
        ..policy()
    };
    for (behavior, from, expected) in [
        (FallbackBehavior::Static, 4, [4, 4, 6]),
        (FallbackBehavior::Static, 9, [9, 9, 6]),
        (FallbackBehavior::CurrentReplicas, 9, [9, 9, 9]),
        (FallbackBehavior::CurrentReplicasIfHigher, 9, [9, 9, 9]),
        (FallbackBehavior::CurrentReplicasIfHigher, 4, [4, 4, 6]),
        (FallbackBehavior::CurrentReplicasIfLower, 9, [9, 9, 6]),
        (FallbackBehavior::CurrentReplicasIfLower, 4, [4, 4, 4]),
    ] {
        let sizes = follow(&fall(behavior), from, std::iter::repeat_with(failing).take(3));
        assert_eq!(sizes, expected, "{behavior:?} from {from}");
    }
}

#[test]
fn failures_are_counted_by_polls_alone() {
    let policy = Policy {
        fallback: Some(Fallback { failure_threshold: 3, replicas: 6, behavior: FallbackBehavior::Static }),
        ..policy()
    };
    let mut state = State::default();
    for tick in [Tick::Poll, Tick::Sync, Tick::Sync, Tick::Poll, Tick::Sync] {
        let observation = Observation { tick, ..seen(4, vec![TriggerReading::failed("refused", START)]) };
        state = step(&policy, state, &observation, START).state;
    }
    assert_eq!(state.health["s0-queue"].failures, 2);
}

#[test]
fn a_fallback_of_zero_lets_the_object_sleep() {
    let fallback = Fallback { failure_threshold: 100, replicas: 0, behavior: FallbackBehavior::Static };
    let policy = Policy { fallback: Some(fallback), cooldown_ms: 0, ..policy() };
    let failing = || vec![TriggerReading::failed("refused", START)];
    assert_eq!(follow(&policy, 4, std::iter::repeat_with(failing).take(2)), [4, 0]);
}

#[test]
fn a_formula_decides_activity_and_size() {
    let formula = |formula: &str, fallback| Policy {
        triggers: vec![trigger("one", 1.0, 0.0), Trigger { metric: "s1-two".to_owned(), ..trigger("two", 1.0, 0.0) }],
        modifiers: Some(Modifiers {
            formula: formula.to_owned(),
            target: 2.5,
            activation: 4.0,
            metric_type: CompositeType::AverageValue,
        }),
        fallback,
        ..policy()
    };
    let both = |a, b| vec![TriggerReading::value(a, START), TriggerReading::value(b, START)];
    let sized = |policy: &Policy, triggers| step(policy, State::default(), &seen(0, triggers), START).scaled_to();
    assert_eq!(sized(&formula("one + two", None), both(3.0, 7.0)), Some(4));
    assert_eq!(sized(&formula("one + two", None), both(3.0, 1.0)), None);
    let half = vec![TriggerReading::value(9.0, START), TriggerReading::failed("down", START)];
    let outcome = step(&formula("one + two", None), State::default(), &seen(3, half.clone()), START);
    assert_eq!(outcome.actions, []);
    let nil = Some(Fallback { failure_threshold: 0, replicas: 5, behavior: FallbackBehavior::ScalingModifiers });
    assert_eq!(sized(&formula("two ?? one", nil), half.clone()), Some(4));
    assert_eq!(sized(&formula("two", nil), half.clone()), Some(5));
    let fixed = Some(Fallback { failure_threshold: 0, replicas: 7, behavior: FallbackBehavior::Static });
    assert_eq!(sized(&formula("one + two", fixed), half), Some(7));
}

#[test]
fn annotations_pause_and_force() {
    let with = |annotations| Policy { annotations, cooldown_ms: 0, ..policy() };
    let sized = |policy: &Policy, replicas, number| {
        step(policy, State::default(), &seen(replicas, value(number, at(60))), at(60)).scaled_to()
    };
    let paused = with(Annotations { is_paused: true, ..Annotations::default() });
    assert_eq!(sized(&paused, 3, 900.0), None);
    let at_two = with(Annotations { paused_replicas: Some(2), ..Annotations::default() });
    assert_eq!(sized(&at_two, 3, 900.0), Some(2));
    let no_in = with(Annotations { paused_scale_in: true, ..Annotations::default() });
    assert_eq!(sized(&no_in, 3, 0.0), None);
    let no_out = with(Annotations { paused_scale_out: true, ..Annotations::default() });
    assert_eq!(sized(&no_out, 3, 900.0), None);
    assert_eq!(sized(&no_out, 0, 900.0), None);
    let forced = with(Annotations { force_activation: true, ..Annotations::default() });
    assert_eq!(sized(&forced, 0, 0.0), Some(1));
}

#[test]
fn a_cached_value_keeps_its_age_between_polls() {
    let target = Target::AverageValue { value: 10.0, activation: 0.0, is_cached: true };
    let policy = Policy {
        profile: Profile::Strict,
        triggers: vec![Trigger { metric: "s0-queue".to_owned(), name: String::new(), target }],
        ..policy()
    };
    let poll = Observation { tick: Tick::Poll, ..seen(2, value(60.0, START)) };
    let state = step(&policy, State::default(), &poll, START).state;
    let sync = Observation { tick: Tick::Sync, ..seen(2, vec![TriggerReading::NotAsked]) };
    let outcome = step(&policy, state, &sync, at(15));
    assert_eq!(outcome.scaled_to(), Some(4));
    let reason = outcome.reason("TriggerActive").expect("the value is told");
    assert_eq!(reason.facts[0].age_ms, Some(15_000));
}

#[test]
fn no_number_is_a_failure_and_no_zero() {
    for number in [f64::NAN, f64::INFINITY] {
        let outcome = step(&policy(), State::default(), &seen(4, value(number, at(9000))), at(9000));
        assert_eq!(outcome.actions, [], "{number}");
        assert!(outcome.reason("TriggerError").is_some());
    }
}
