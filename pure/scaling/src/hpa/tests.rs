//! What the case files do not reach: reconciliation around the metrics, history across steps, and the options beyond upstream.

use std::collections::BTreeMap;

use super::*;
use crate::decision::{TimeMs, Truth};

const NOW: TimeMs = TimeMs(1_000_000_000);

fn queue(target: i64) -> Metric {
    Metric::External { name: "queue".to_owned(), target: ValueTarget::AverageValue { milli: target }, fallback: None }
}

fn seen(replicas: i32, readings: Vec<Reading>) -> Observation {
    let scale = Ok(Scale { spec_replicas: replicas, status_replicas: replicas });
    Observation { scale, selector_problem: None, pods: Vec::new(), readings }
}

fn value(milli: i64) -> Vec<Reading> {
    vec![Reading::samples(vec![milli], NOW)]
}

fn condition(state: &State, name: &str) -> (Truth, String) {
    let condition = state.conditions.get(name).expect("set");
    (condition.status, condition.reason.to_string())
}

#[test]
fn a_scale_that_cannot_be_read_and_a_bad_selector_change_nothing() {
    let policy = Policy::strict(1, 10, vec![queue(1000)]);
    let unread = Observation { scale: Err("timeout".to_owned()), ..seen(3, value(9000)) };
    let outcome = step(&policy, State::default(), &unread, NOW);
    assert_eq!(outcome.actions, []);
    assert_eq!(condition(&outcome.state, "AbleToScale"), (Truth::False, "FailedGetScale".to_owned()));
    let ambiguous = Observation { selector_problem: Some(SelectorProblem::AmbiguousSelector), ..seen(3, value(9000)) };
    let outcome = step(&policy, State::default(), &ambiguous, NOW);
    assert_eq!(outcome.actions, []);
    assert_eq!(condition(&outcome.state, "ScalingActive"), (Truth::False, "AmbiguousSelector".to_owned()));
}

#[test]
fn a_size_of_zero_is_a_pause_unless_zero_is_allowed() {
    let paused = step(&Policy::strict(1, 10, vec![queue(1000)]), State::default(), &seen(0, value(9000)), NOW);
    assert_eq!(paused.actions, []);
    assert_eq!(condition(&paused.state, "ScalingActive"), (Truth::False, "ScalingDisabled".to_owned()));
    let allowed = step(&Policy::strict(0, 10, vec![queue(1000)]), State::default(), &seen(0, value(3000)), NOW);
    assert_eq!(allowed.scaled_to(), Some(3));
}

#[test]
fn an_event_counts_once_the_new_size_is_seen() {
    let policy = Policy { behavior: Some(Behavior::default()), ..Policy::strict(1, 100, vec![queue(1000)]) };
    let first = step(&policy, State::default(), &seen(10, value(90_000)), NOW);
    assert_eq!(first.scaled_to(), Some(20));
    // Not carried out: nothing is remembered, and the same is asked again.
    let again = step(&policy, first.state.clone(), &seen(10, value(90_000)), NOW.plus_ms(1000));
    assert_eq!((again.scaled_to(), again.state.history.up_events.len()), (Some(20), 0));
    // Carried out: the rate of 100 % in 15 s is used up.
    let done = step(&policy, first.state, &seen(20, value(90_000)), NOW.plus_ms(1000));
    assert_eq!((done.scaled_to(), done.state.history.up_events.len()), (None, 1));
    let later = step(&policy, done.state, &seen(20, value(90_000)), NOW.plus_ms(16_000));
    assert_eq!(later.scaled_to(), Some(40));
}

#[test]
fn a_failing_metric_blocks_the_way_down_and_not_the_way_up() {
    let policy = Policy::strict(
        1,
        20,
        vec![
            queue(1000),
            Metric::External {
                name: "other".to_owned(),
                target: ValueTarget::AverageValue { milli: 1000 },
                fallback: None,
            },
        ],
    );
    let half = |milli| vec![Reading::samples(vec![milli], NOW), Reading::failed("down")];
    assert_eq!(step(&policy, State::default(), &seen(5, half(8000)), NOW).scaled_to(), Some(8));
    let outcome = step(&policy, State::default(), &seen(5, half(1000)), NOW);
    assert_eq!(outcome.actions, []);
    assert_eq!(condition(&outcome.state, "ScalingActive"), (Truth::False, "FailedGetExternalMetric".to_owned()));
    assert!(outcome.reason("FailedGetExternalMetric").is_some_and(|reason| reason.message.contains("down")));
}

#[test]
fn an_external_metric_falls_back_after_its_time() {
    let fallback = Some(ExternalFallback { failure_duration_ms: 180_000, replicas: 7 });
    let target = ValueTarget::AverageValue { milli: 1000 };
    let policy = Policy::strict(1, 20, vec![Metric::External { name: "queue".to_owned(), target, fallback }]);
    let failing = || seen(3, vec![Reading::failed("down")]);
    let first = step(&policy, State::default(), &failing(), NOW);
    assert_eq!(first.actions, []);
    let early = step(&policy, first.state, &failing(), NOW.plus_ms(179_999));
    assert_eq!(early.actions, []);
    let late = step(&policy, early.state, &failing(), NOW.plus_ms(180_000));
    assert_eq!(late.scaled_to(), Some(6), "the fallback of 7, as far as one step goes");
    let back = step(&policy, late.state, &seen(3, value(3000)), NOW.plus_ms(181_000));
    assert!(back.state.failing_since.is_empty());
}

#[test]
fn a_stale_value_is_an_error_where_an_age_is_set() {
    let policy = Policy { max_age_ms: Some(60_000), ..Policy::strict(1, 10, vec![queue(1000)]) };
    let old = |age: i64| vec![Reading::samples(vec![9000], NOW.plus_ms(-age))];
    assert_eq!(step(&policy, State::default(), &seen(5, old(60_000)), NOW).scaled_to(), Some(9));
    let outcome = step(&policy, State::default(), &seen(5, old(60_001)), NOW);
    assert_eq!(outcome.actions, []);
    assert!(outcome.reason("FailedGetExternalMetric").is_some_and(|reason| reason.message.contains("60001 ms old")));
}

fn cpu_pods(count: usize, owned: usize) -> (Vec<Pod>, Reading) {
    let pod = |index: usize| Pod {
        is_owned: index < owned,
        containers: vec![Container {
            name: "c".to_owned(),
            requests_milli: BTreeMap::from([("cpu".to_owned(), 1000)]),
        }],
        ..Pod::ready_since(format!("pod-{index}"), TimeMs(0))
    };
    let pods: Vec<Pod> = (0..count).map(pod).collect();
    let usage = |pod: &Pod| PodUsage {
        pod: pod.name.clone(),
        at: NOW,
        window_ms: 60_000,
        containers_milli: BTreeMap::from([("c".to_owned(), Some(900))]),
    };
    let usage = pods.iter().map(usage).collect();
    (pods, Reading { observed_at: Some(NOW), values: Ok(Readings::Usage(usage)) })
}

#[test]
fn surge_pods_and_pods_of_others_need_not_count() {
    let target = ResourceTarget::Utilization { percent: 60 };
    let strict = Policy::strict(1, 100, vec![Metric::Resource { resource: "cpu".to_owned(), target }]);
    // 90 % of 60 %: half as many again. Four pods are asked for; six exist while a new version is rolled out.
    let (pods, reading) = cpu_pods(6, 6);
    let scale = Ok(Scale { spec_replicas: 4, status_replicas: 6 });
    let rolling = Observation { scale, selector_problem: None, pods, readings: vec![reading] };
    assert_eq!(step(&strict, State::default(), &rolling, NOW).scaled_to(), Some(8), "9, as far as one step goes");
    let limited = Policy { surge: Surge::LimitedToSpec, ..strict.clone() };
    assert_eq!(step(&limited, State::default(), &rolling, NOW).scaled_to(), Some(6));
    let (pods, reading) = cpu_pods(4, 2);
    let scale = Ok(Scale { spec_replicas: 2, status_replicas: 2 });
    let mixed = Observation { scale, selector_problem: None, pods, readings: vec![reading] };
    let owned = Policy { selection: Selection::OwnerReference, ..strict };
    let outcome = step(&owned, State::default(), &mixed, NOW);
    assert_eq!(outcome.scaled_to(), Some(3));
}

#[test]
fn a_forecast_raises_and_never_lowers() {
    let forecast = crate::forecast::Policy {
        mode: crate::forecast::Mode::On,
        method: crate::forecast::Method::Linear { window_ms: 600_000 },
        interval_ms: 60_000,
        lookahead_ms: 120_000,
        max_error: 0.5,
        error_window: 10,
    };
    let policy = Policy { forecast: Some(forecast), ..Policy::strict(1, 100, vec![queue(1000)]) };
    let plain = Policy { forecast: None, ..policy.clone() };
    let follow = |policy: &Policy, load: &dyn Fn(i64) -> i64| {
        let (mut state, mut size, mut sizes) = (State::default(), 1, Vec::new());
        for minute in 0..40 {
            let now = NOW.plus_ms(minute * 60_000);
            let reading = Reading::samples(vec![load(minute) * 1000], now);
            let outcome = step(policy, state, &seen(size, vec![reading]), now);
            size = outcome.scaled_to().unwrap_or(size);
            state = outcome.state;
            sizes.push(size);
        }
        sizes
    };
    let rising = |minute: i64| 2 + minute;
    let (ahead, behind) = (follow(&policy, &rising), follow(&plain, &rising));
    assert!(ahead[35] >= behind[35] + 2, "{} and {}", ahead[35], behind[35]);
    let falling = |minute: i64| 80 - 2 * minute;
    let (with, without) = (follow(&policy, &falling), follow(&plain, &falling));
    assert!(with.iter().zip(&without).all(|(with, without)| with >= without));
}

#[test]
fn what_upstream_refuses_is_refused() {
    let paths = |policy: &Policy| validate(policy).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert!(paths(&Policy::strict(1, 10, vec![queue(1000)])).is_empty());
    assert_eq!(paths(&Policy::strict(5, 4, vec![queue(1000)])), ["maxReplicas"]);
    let cpu = Metric::Resource { resource: "cpu".to_owned(), target: ResourceTarget::Utilization { percent: 50 } };
    assert_eq!(paths(&Policy::strict(0, 4, vec![cpu])), ["metrics"]);
    assert_eq!(paths(&Policy::strict(1, 4, vec![queue(0)])), ["metrics[0]"]);
    let rules = Rules { stabilization_ms: Some(3_600_001), policies: Vec::new(), ..Rules::default_up() };
    let behavior = Some(Behavior { scale_up: rules, ..Behavior::default() });
    let wrong = Policy { behavior, ..Policy::strict(1, 4, vec![queue(1000)]) };
    assert_eq!(paths(&wrong), ["behavior.scaleUp.stabilizationWindowSeconds", "behavior.scaleUp.policies"]);
}
