//! What holds over many seeds, loads and failures.

use tidemill_scaling::keda::{Strategy, StrategyKind, Target, Trigger, job};
use tidemill_scaling::record::Policy;
use tidemill_sim::{Contender, Load, Outcome, Setup, simulate};

fn exact(max_replicas: i32) -> Contender {
    let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
    let trigger = Trigger { metric: "s0-queue".to_owned(), name: String::new(), target };
    let strategy = Strategy { kind: StrategyKind::Exact, ..Strategy::default() };
    let policy =
        job::Policy { strategy, max_replicas: Some(max_replicas), ..job::Policy::with_defaults(vec![trigger]) };
    Contender::native("exact", Policy::ScaledJob(policy))
}

fn run(setup: &Setup, load: &str, contender: &Contender) -> Outcome {
    let load = Load::generate(load, 1_800_000, setup.seed).expect("a load");
    simulate(setup, &load, contender)
}

const LOADS: [&str; 4] = ["poisson:0.3", "burst:0.05,4,600,45", "batch:40,300", "step:0.1,1.5,900"];

#[test]
fn never_one_too_many_and_never_starved() {
    for seed in 0..25 {
        for load in LOADS {
            let setup = Setup { seed, service_ms: 3_000 + 700 * seed as i64, startup_ms: 12_000, ..Setup::default() };
            let calm = run(&setup, load, &exact(20));
            assert_eq!((calm.wasted, calm.unfinished), (0, 0), "{load} seed {seed}");
            assert_eq!(calm.starts, calm.items as u64, "{load} seed {seed}: one job for each item");
            assert_eq!(calm.orphan_reports, 0, "{load} seed {seed}: no claim is without its job");
            let highest = calm.minutes.iter().map(|minute| minute.replicas).max();
            assert!(highest <= Some(20), "{load} seed {seed}: {highest:?}");
        }
    }
}

#[test]
fn after_crashes_nothing_starves_and_orphan_claims_are_reported() {
    let mut reports = 0;
    for seed in 0..25 {
        for lease_ms in [0, 45_000] {
            let setup = Setup { seed, service_ms: 4_000, failure: 0.15, lease_ms, ..Setup::default() };
            let outcome = run(&setup, "poisson:0.3", &exact(20));
            assert_eq!(outcome.unfinished, 0, "seed {seed}, lease {lease_ms}: every item is worked on in the end");
            let highest = outcome.minutes.iter().map(|minute| minute.replicas).max();
            assert!(highest <= Some(20), "seed {seed}, lease {lease_ms}: {highest:?}");
            if lease_ms == 0 {
                // A claim that is given up at once leaves nothing behind: one job for each item and each crash.
                assert_eq!((outcome.wasted, outcome.orphan_reports), (0, 0), "seed {seed}");
            }
            reports += outcome.orphan_reports;
        }
    }
    assert!(reports > 0, "claims of crashed jobs are reported");
}

#[test]
fn no_replica_with_a_live_lease_goes_before_an_idle_one() {
    for seed in 0..10 {
        for load in LOADS {
            let setup = Setup { seed, service_ms: 8_000, failure: 0.02, ..Setup::default() };
            for contender in Contender::comparison(20, 10_000) {
                let outcome = run(&setup, load, &contender);
                assert_eq!(outcome.leased_before_idle, 0, "{} on {load}, seed {seed}", contender.name);
            }
        }
    }
}

#[test]
fn a_burst_is_recovered_from_in_bounded_time() {
    // 160 items of 5 s at once, 20 replicas at most: 40 s of work, and the time to see, to start and to grow.
    for seed in 0..10 {
        let setup = Setup { seed, service_ms: 5_000, ..Setup::default() };
        let load = Load { name: "burst".to_owned(), arrivals_ms: vec![600_000; 160], duration_ms: 1_200_000 };
        for contender in Contender::comparison(20, 10_000).iter().filter(|one| one.name != "CPU HPA") {
            let outcome = simulate(&setup, &load, contender);
            let bound = if contender.name == "exact jobs" { 200.0 } else { 180.0 };
            assert!(outcome.max_wait_s < bound, "{}: {}", contender.name, outcome.max_wait_s);
            assert_eq!(outcome.unfinished, 0, "{}", contender.name);
        }
    }
}

#[test]
fn constant_load_is_not_chased() {
    for seed in 0..10 {
        let setup = Setup { seed, service_ms: 10_000, ..Setup::default() };
        let load = Load::generate("constant:1", 7_200_000, seed).expect("a load");
        let contenders = Contender::comparison(40, 10_000);
        for name in ["CPU HPA", "KEDA defaults"] {
            let contender = contenders.iter().find(|one| one.name == name).expect("it is among them");
            let outcome = simulate(&setup, &load, contender);
            // Service times are random, so the queue breathes: at most one step up and one down for each window of 300 s.
            assert!(outcome.flaps <= 48, "{name}, seed {seed}: {} flaps in two hours", outcome.flaps);
        }
    }
}
