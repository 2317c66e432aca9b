//! What every decision keeps, whatever it sees: bounds, repetition, the printed form, calm, recovery, and leases.

use proptest::prelude::*;
use tidemill_scaling::hpa::{
    self, Behavior, Metric, Phase, Pod, Reading, ResourceTarget, Rules, Scale, Select, ValueTarget,
};
use tidemill_scaling::keda::{
    Fallback, FallbackBehavior, Profile, Target, Trigger, TriggerReading, TriggerValue, job, object,
};
use tidemill_scaling::record::{Observation, Policy, Record, State, step};
use tidemill_scaling::{TimeMs, choose_victims};

const START: TimeMs = TimeMs(1_700_000_000_000);

fn pods(count: usize) -> impl Strategy<Value = Vec<Pod>> {
    let one = (any::<Option<bool>>(), 0_u32..3, 0_i64..900, prop::bool::ANY, 0_usize..4);
    prop::collection::vec(one, 0..count).prop_map(|pods| {
        let pod = |(index, (ready, live_leases, age, is_deleting, phase)): (usize, (_, _, i64, _, usize))| {
            let since = START.plus_ms(-age * 1000);
            let phase = [Phase::Running, Phase::Running, Phase::Pending, Phase::Failed][phase];
            Pod { ready, live_leases, is_deleting, phase, ..Pod::ready_since(format!("pod-{index}"), since) }
        };
        pods.into_iter().enumerate().map(pod).collect()
    })
}

fn behavior() -> impl Strategy<Value = Option<Behavior>> {
    let select = prop::sample::select(vec![Select::Max, Select::Min, Select::Disabled]);
    prop::option::of((select.clone(), select, 0_i64..400).prop_map(|(up, down, window)| Behavior {
        scale_up: Rules { select: up, ..Rules::default_up() },
        scale_down: Rules { select: down, stabilization_ms: Some(window * 1000), ..Rules::default_down() },
    }))
}

prop_compose! {
    fn horizontal()(
        (min, more) in (0_i32..6, 1_i32..30),
        current in 0_i32..50,
        status in 0_i32..50,
        target in 1_i64..5_000,
        value in prop_oneof![Just(0_i64), 0_i64..1_000_000, Just(i64::MAX)],
        fails in prop::bool::ANY,
        is_average in prop::bool::ANY,
        pods in pods(8),
        behavior in behavior(),
    ) -> (Policy, Observation) {
        let target = if is_average { ValueTarget::AverageValue { milli: target } } else { ValueTarget::Value { milli: target } };
        let metrics = vec![
            Metric::External { name: "queue".to_owned(), target, fallback: None },
            Metric::Pods { name: "requests".to_owned(), target_average_milli: 100 },
        ];
        let policy = hpa::Policy { behavior, ..hpa::Policy::strict(min, min + more, metrics) };
        let queue = if fails { Reading::failed("down") } else { Reading::samples(vec![value], START) };
        let requests = pods.iter().map(|pod| hpa::PodValue { pod: pod.name.clone(), at: START, milli: value / 7 }).collect();
        let requests = Reading { observed_at: Some(START), values: Ok(hpa::Readings::PodValues(requests)) };
        let scale = Ok(Scale { spec_replicas: current, status_replicas: status });
        let seen = hpa::Observation { scale, selector_problem: None, pods, readings: vec![queue, requests] };
        (Policy::HorizontalPodAutoscaler(policy), Observation::HorizontalPodAutoscaler(seen))
    }
}

prop_compose! {
    fn event_driven()(
        min in prop::option::of(1_i32..5),
        is_idle in prop::bool::ANY,
        more in 0_i32..30,
        current in 0_i32..40,
        reading in prop_oneof![
            (0.0_f64..1e6).prop_map(|value| TriggerReading::value(value, START)),
            Just(TriggerReading::value(0.0, START)),
            Just(TriggerReading::value(f64::MAX, START)),
            Just(TriggerReading::failed("down", TimeMs(0))),
        ],
        fallback in prop::option::of((0_i32..3, 0_i32..50)),
        paused in prop::option::of(0_i32..60),
        profile in prop::sample::select(vec![Profile::Strict, Profile::Native]),
        tick in prop::sample::select(vec![object::Tick::Poll, object::Tick::Sync, object::Tick::Both]),
        pods in pods(8),
        behavior in behavior(),
    ) -> (Policy, Observation) {
        let target = Target::AverageValue { value: 10.0, activation: 5.0, is_cached: false };
        let trigger = Trigger { metric: "s0-queue".to_owned(), name: String::new(), target };
        let policy = object::Policy {
            profile,
            min_replicas: min,
            idle_replicas: min.filter(|_| is_idle).map(|_| 0),
            max_replicas: Some(min.unwrap_or(0).max(1) + more),
            fallback: fallback.map(|(failure_threshold, replicas)| {
                Fallback { failure_threshold, replicas, behavior: FallbackBehavior::Static }
            }),
            annotations: object::Annotations { paused_replicas: paused, ..object::Annotations::default() },
            behavior,
            ..object::Policy::with_defaults(vec![trigger])
        };
        let scale = Ok(Scale { spec_replicas: current, status_replicas: current });
        let seen = object::Observation { tick, created_at: TimeMs(0), scale, pods, triggers: vec![reading] };
        (Policy::ScaledObject(Box::new(policy)), Observation::ScaledObject(seen))
    }
}

prop_compose! {
    fn jobs()(
        min in prop::option::of(0_i32..5),
        max in prop::option::of(1_i32..20),
        alive in 0_usize..25,
        value in prop_oneof![Just(0.0), 0.0_f64..200.0, Just(1e300)],
        in_flight in prop::option::of(0.0_f64..40.0),
        fails in prop::bool::ANY,
    ) -> (Policy, Observation) {
        let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
        let trigger = Trigger { metric: "s0-queue".to_owned(), name: String::new(), target };
        let policy = job::Policy { min_replicas: min, max_replicas: max, ..job::Policy::with_defaults(vec![trigger]) };
        let value = TriggerReading::Value(TriggerValue { value, in_flight, is_active: None, observed_at: START });
        let reading = if fails { TriggerReading::failed("down", START) } else { value };
        let jobs = (0..alive).map(|index| job::Job::active(format!("job-{index}"), Phase::Running)).collect();
        (Policy::ScaledJob(policy), Observation::ScaledJob(job::Observation { jobs: Ok(jobs), triggers: vec![reading] }))
    }
}

fn any_kind() -> impl Strategy<Value = (Policy, Observation)> {
    prop_oneof![horizontal(), event_driven(), jobs()]
}

/// The sizes that a policy may ever ask for, beside those between its bounds.
fn is_declared(policy: &Policy, seen: &Observation, to: i32) -> bool {
    match (policy, seen) {
        (Policy::HorizontalPodAutoscaler(policy), _) => (policy.min_replicas..=policy.max_replicas).contains(&to),
        (Policy::ScaledObject(policy), _) => {
            let declared =
                [Some(0).filter(|_| policy.min() == 0), policy.idle_replicas, policy.annotations.paused_replicas];
            (policy.min().max(1)..=policy.max()).contains(&to) || declared.contains(&Some(to))
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_is_within_bounds_and_has_reasons((policy, seen) in any_kind()) {
        let outcome = step(&policy, policy.first_state(), &seen, START).expect("one kind");
        prop_assert!(!outcome.reasons.is_empty());
        if let Some(to) = outcome.scaled_to() {
            prop_assert!(is_declared(&policy, &seen, to), "{to} is not declared: {:?}", outcome.reasons);
        }
        if let (Policy::ScaledJob(policy), Observation::ScaledJob(seen)) = (&policy, &seen) {
            let alive = seen.jobs.as_ref().map_or(0, Vec::len) as i64;
            prop_assert!(i64::from(outcome.created_jobs()) <= (policy.ceiling() - alive).max(0));
        }
    }

    #[test]
    fn the_same_look_gives_the_same_decision((policy, seen) in any_kind()) {
        let first = step(&policy, policy.first_state(), &seen, START).expect("one kind");
        let second = step(&policy, first.state.clone(), &seen, START).expect("one kind");
        let third = step(&policy, second.state.clone(), &seen, START).expect("one kind");
        // A trigger that fails is counted at each poll, so a fallback may begin at the second.
        let is_failing = format!("{seen:?}").contains("Failed(");
        if !is_failing {
            prop_assert_eq!(&first.actions, &second.actions);
            prop_assert_eq!(&second.actions, &third.actions);
        }
    }

    #[test]
    fn a_printed_decision_can_be_made_again((policy, seen) in any_kind()) {
        let first = step(&policy, policy.first_state(), &seen, START).expect("one kind");
        let later = START.plus_ms(15_000);
        let outcome = step(&policy, first.state.clone(), &seen, later).expect("one kind");
        let record = Record {
            now: later,
            policy,
            state: first.state,
            observation: seen,
            actions: outcome.actions,
            reasons: outcome.reasons,
        };
        let printed = serde_json::to_string(&record).expect("JSON");
        let read: Record = serde_json::from_str(&printed).expect("what was printed");
        prop_assert!(read.is_reproduced());
        prop_assert_eq!(serde_json::to_string(&read).expect("JSON"), printed);
    }

    #[test]
    fn an_idle_replica_goes_before_one_with_a_lease(pods in pods(12), count in 0_usize..12) {
        let victims = choose_victims(&pods, count);
        let live = |pod: &&Pod| !pod.is_deleting && pod.phase != Phase::Failed;
        let spared_idle = pods.iter().filter(live).any(|pod| pod.live_leases == 0 && !victims.contains(&pod.name));
        let took_leased = pods.iter().any(|pod| pod.live_leases > 0 && victims.contains(&pod.name));
        prop_assert!(!(spared_idle && took_leased), "{victims:?} of {pods:?}");
        prop_assert_eq!(victims.len(), count.min(pods.iter().filter(live).count()));
    }

    #[test]
    fn constant_load_is_answered_once(load in 0_i64..200_000, from in 1_i32..40) {
        let sizes = follow(from, std::iter::repeat_n(load, 120));
        // After the windows and rates of the beginning nothing moves.
        prop_assert!(sizes[60..].windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
        let flips = sizes.windows(3).filter(|three| (three[1] - three[0]) * (three[2] - three[1]) < 0).count();
        prop_assert_eq!(flips, 0, "{:?}", sizes);
    }

    #[test]
    fn a_burst_is_over_when_its_window_is(burst in 50_000_i64..200_000, length in 1_usize..20) {
        let calm = 10_000;
        let load = std::iter::repeat_n(calm, 40).chain(std::iter::repeat_n(burst, length)).chain(std::iter::repeat_n(calm, 40));
        let sizes = follow(10, load);
        let after = 40 + length;
        // 300 s of stabilization are 20 syncs; one more for the rate of 100 % in 15 s.
        prop_assert!(sizes[after + 22..].iter().all(|size| *size == 10), "{sizes:?}");
        prop_assert!(sizes[after - 1] > 10, "{sizes:?}");
    }
}

/// Sizes of a workload whose total load is worth `load / 1000` replicas, at one sync each 15 s.
fn follow(from: i32, load: impl IntoIterator<Item = i64>) -> Vec<i32> {
    let target = ValueTarget::AverageValue { milli: 1000 };
    let metrics = vec![Metric::External { name: "load".to_owned(), target, fallback: None }];
    let policy = hpa::Policy::strict(1, 100, metrics);
    let (mut state, mut size) = (hpa::State::default(), from);
    let mut sizes = Vec::new();
    for (index, milli) in load.into_iter().enumerate() {
        let now = START.plus_ms(15_000 * index as i64);
        let scale = Ok(Scale { spec_replicas: size, status_replicas: size });
        let readings = vec![Reading::samples(vec![milli], now)];
        let seen = hpa::Observation { scale, selector_problem: None, pods: Vec::new(), readings };
        let outcome = hpa::step(&policy, state, &seen, now);
        size = outcome.scaled_to().unwrap_or(size);
        state = outcome.state;
        sizes.push(size);
    }
    sizes
}

#[test]
fn kinds_do_not_mix() {
    let policy = Policy::ScaledJob(job::Policy::with_defaults(Vec::new()));
    let seen = Observation::ScaledJob(job::Observation { jobs: Ok(Vec::new()), triggers: Vec::new() });
    assert!(step(&policy, State::HorizontalPodAutoscaler(Box::default()), &seen, START).is_err());
    let utilization = ResourceTarget::Utilization { percent: 50 };
    assert_eq!(utilization, serde_json::from_str(r#"{"type":"utilization","percent":50}"#).expect("a target"));
}
