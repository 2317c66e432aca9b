//! What the world keeps, and what it shows of policies whose behaviour is known.

use tidemill_scaling::keda::{Profile, Strategy, StrategyKind, Target, Trigger, job, object};
use tidemill_scaling::record::Policy;
use tidemill_sim::{Contender, Counts, Load, Outcome, Setup, html, simulate};

const HOUR_MS: i64 = 3_600_000;

fn load(text: &str, hours: i64) -> Load {
    Load::generate(text, hours * HOUR_MS, 7).expect("a load")
}

fn queue() -> Trigger {
    let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
    Trigger { metric: "s0-queue".to_owned(), name: String::new(), target }
}

fn jobs(kind: StrategyKind) -> Policy {
    let strategy = Strategy { kind, ..Strategy::default() };
    Policy::ScaledJob(job::Policy { strategy, max_replicas: Some(100), ..job::Policy::with_defaults(vec![queue()]) })
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let setup = Setup { failure: 0.05, ..Setup::default() };
    let load = load("burst:0.1,3,1200,60", 2);
    let run = |seed| -> Vec<Outcome> {
        let setup = Setup { seed, ..setup.clone() };
        Contender::comparison(20, 10_000).iter().map(|contender| simulate(&setup, &load, contender)).collect()
    };
    let (first, again, other) = (run(1), run(1), run(2));
    let page = |outcomes: &[Outcome]| {
        let section = html::Section { workload: "queue", load: &load, outcomes, recorded: None };
        html::page(&setup, &[section])
    };
    assert_eq!(page(&first), page(&again));
    assert_eq!(serde_json::to_string(&first).expect("JSON"), serde_json::to_string(&again).expect("JSON"));
    assert_ne!(first, other);
}

#[test]
fn every_item_is_worked_on_once_whatever_crashes() {
    let setup = Setup { failure: 0.2, service_ms: 5_000, ..Setup::default() };
    let load = load("poisson:0.2", 2);
    for contender in Contender::comparison(30, 10_000) {
        let outcome = simulate(&setup, &load, &contender);
        assert_eq!(outcome.items, load.arrivals_ms.len());
        assert_eq!(outcome.unfinished, 0, "{}", contender.name);
        let highest = outcome.minutes.iter().map(|minute| minute.replicas).max();
        assert!(highest <= Some(30 + 30), "{}: {highest:?} replicas", contender.name);
    }
}

/// The reference's table: a query that counts unclaimed items starves the default strategy, and accurate over unfinished ones wastes.
#[test]
fn job_strategies_behave_as_the_reference_measured() {
    let setup = |counts| Setup { service_ms: 120_000, startup_ms: 5_000, counts, ..Setup::default() };
    let load = load("poisson:0.2", 1);
    let run = |kind, counts, is_native: bool| {
        let contender =
            if is_native { Contender::native("jobs", jobs(kind)) } else { Contender::upstream("jobs", jobs(kind)) };
        simulate(&setup(counts), &load, &contender)
    };
    let starving = run(StrategyKind::Default, Counts::Unclaimed, false);
    let fitting = run(StrategyKind::Default, Counts::Unfinished, false);
    let wasting = run(StrategyKind::Accurate, Counts::Unfinished, false);
    let accurate = run(StrategyKind::Accurate, Counts::Unclaimed, false);
    let exact = run(StrategyKind::Exact, Counts::Unclaimed, true);
    assert!(starving.p99_wait_s > 2.0 * fitting.p99_wait_s, "{} and {}", starving.p99_wait_s, fitting.p99_wait_s);
    assert!(wasting.wasted > wasting.items as u64, "{} of {}", wasting.wasted, wasting.items);
    assert_eq!((accurate.wasted, fitting.wasted), (0, 0));
    assert_eq!((exact.wasted, exact.unfinished), (0, 0));
    assert_eq!(exact.starts, exact.items as u64, "one job for each item");
    assert!(exact.p99_wait_s < fitting.p99_wait_s, "{} and {}", exact.p99_wait_s, fitting.p99_wait_s);
}

#[test]
fn keda_reacts_by_its_poll_and_a_native_policy_at_once() {
    let setup = Setup { startup_ms: 1_000, service_ms: 1_000, ..Setup::default() };
    // One item after ten minutes of nothing.
    let load = Load { name: "one".to_owned(), arrivals_ms: vec![601_000], duration_ms: 700_000 };
    let policy = |profile| {
        let policy = object::Policy { profile, max_replicas: Some(5), ..object::Policy::with_defaults(vec![queue()]) };
        Policy::ScaledObject(Box::new(policy))
    };
    let keda = simulate(&setup, &load, &Contender::upstream("keda", policy(Profile::Strict)));
    let native = simulate(&setup, &load, &Contender::native("native", policy(Profile::Native)));
    // The next poll comes at 630 s: 29 s, and up to 1.5 s to start.
    assert!((29.0..31.0).contains(&keda.max_wait_s), "{}", keda.max_wait_s);
    assert!((0.1..2.0).contains(&native.max_wait_s), "{}", native.max_wait_s);
    // Cooldown of 300 s from the last active poll, then zero at the poll after it.
    let down = keda.changes.iter().find(|change| change.action == "1 to 0 replicas").expect("it sleeps again");
    assert!((900..=990).contains(&down.at_s), "{down:?}");
}

#[test]
fn nothing_costs_nothing() {
    let load = Load { name: "nothing".to_owned(), arrivals_ms: Vec::new(), duration_ms: HOUR_MS };
    for contender in Contender::comparison(20, 10_000).iter().filter(|contender| contender.name != "CPU HPA") {
        let outcome = simulate(&Setup::default(), &load, contender);
        assert_eq!((outcome.starts, outcome.replica_hours, outcome.decisions), (0, 0.0, 0), "{}", contender.name);
    }
}

#[test]
fn cpu_is_followed_to_its_target() {
    // Half an item a second for ten seconds each keeps five replicas busy; 70 % of them is 7.1.
    let setup = Setup { service_ms: 10_000, ..Setup::default() };
    let load = load("constant:0.5", 3);
    let outcome = simulate(&setup, &load, &Contender::comparison(40, 10_000)[0]);
    let settled: Vec<usize> = outcome.minutes[60..180].iter().map(|minute| minute.replicas).collect();
    let average = settled.iter().sum::<usize>() as f64 / settled.len() as f64;
    assert!((6.0..13.0).contains(&average), "{average}: {settled:?}");
}

#[test]
fn traces_are_read_or_refused_with_their_line() {
    let read = |text: &str| Load::trace("t.csv", text, 1.0, 1);
    let counted = read("period,count\n1998-06-29 00:00:00,3\n1998-06-29 00:01:00,2\n").expect("a trace");
    assert_eq!((counted.arrivals_ms.len(), counted.duration_ms), (5, 120_000));
    assert!(counted.arrivals_ms.windows(2).all(|pair| pair[0] <= pair[1]));
    let events = read(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:50.99,396,109\n",
    );
    assert_eq!(events.expect("events").arrivals_ms, [0, 4310]);
    assert_eq!(read("0\n1.5\n").expect("seconds").arrivals_ms, [0, 1500]);
    for (text, part) in [
        ("", "holds no line"),
        ("time,count\n", "holds no line"),
        ("0,1\nsoon,2\n", "t.csv:2: \"soon\" is no time"),
        ("time,count\n0,many\n", "t.csv:2: \"many\" is no count"),
        ("5,1\n4,1\n", "t.csv:2: times go back"),
        ("0,1\n1e11,1\n", "366 days"),
        ("0,1e9\n60,1\n", "more than"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.message.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn generators_are_known_or_refused() {
    for text in ["constant:1", "poisson:1", "step:1,2,60", "sine:2,1,600", "burst:0.1,5,300,30", "batch:10,60"] {
        let load = Load::generate(text, 600_000, 1).expect(text);
        assert!(load.arrivals_ms.len() > 50, "{text}: {}", load.arrivals_ms.len());
        assert!(load.arrivals_ms.windows(2).all(|pair| pair[0] <= pair[1]), "{text}");
        assert!(load.arrivals_ms.iter().all(|at| (0..600_000).contains(at)), "{text}");
    }
    for text in [
        "",
        "poisson",
        "tides:1",
        "poisson:x",
        "poisson:-1",
        "sine:1,1,0",
        "poisson:1e9",
        "constant:1e9",
        "batch:1e9,1",
        "step:1",
    ] {
        assert!(Load::generate(text, 600_000, 1).is_err(), "{text}");
    }
    assert!(Load::generate("poisson:1", 0, 1).is_err());
}

#[test]
#[ignore = "a measurement, for an idle machine and an optimized build: cargo test --release -p tidemill-sim -- --ignored"]
fn a_day_at_one_second_takes_less_than_a_second() {
    let load = load("sine:1,0.9,86400", 24);
    let contenders = Contender::comparison(50, 10_000);
    let native = contenders.iter().find(|contender| contender.name == "backlog").expect("it is among them");
    let begun = std::time::Instant::now();
    let outcome = simulate(&Setup::default(), &load, native);
    let taken = begun.elapsed();
    assert!(outcome.minutes.len() >= 24 * 60 && outcome.items > 80_000, "{} items", outcome.items);
    assert!(taken < std::time::Duration::from_secs(1), "{taken:?}");
}

/// Reference 2.2 to 2.5: polls of 30 s decide between none and one, syncs of 15 s between one and more, and 300 s of stabilization hold a size.
#[test]
fn keda_keeps_its_clocks_and_its_windows() {
    let setup = Setup { startup_ms: 1_000, service_ms: 20_000, ..Setup::default() };
    // Twenty items at once at 61 s.
    let load = Load { name: "burst".to_owned(), arrivals_ms: vec![61_000; 20], duration_ms: 120_000 };
    let policy = object::Policy {
        profile: Profile::Strict,
        min_replicas: Some(1),
        max_replicas: Some(50),
        ..object::Policy::with_defaults(vec![queue()])
    };
    let keda = simulate(&setup, &load, &Contender::upstream("keda", Policy::ScaledObject(Box::new(policy.clone()))));
    let (first, second) = (&keda.changes[0], &keda.changes[1]);
    // The sync after 61 s is at 75 s; without a behavior at most 4, or twice as many, at each.
    assert_eq!((first.at_s, first.action.as_str()), (75, "1 to 4 replicas"), "{:?}", keda.changes);
    assert_eq!((second.at_s, second.action.as_str()), (90, "4 to 8 replicas"), "{:?}", keda.changes);
    // The largest recommendation, of 75 s, holds for 300 s.
    let down = keda.changes.iter().find(|change| is_down(&change.action)).expect("it shrinks again");
    assert!((376..=405).contains(&down.at_s), "{:?}", keda.changes);
    // Its best settings: a poll each second wakes it at once, and the sync still waits for its clock.
    let best = object::Policy { polling_interval_ms: 1_000, min_replicas: None, ..policy };
    let best = simulate(&setup, &load, &Contender::upstream("best", Policy::ScaledObject(Box::new(best))));
    assert_eq!((best.changes[0].at_s, best.changes[0].action.as_str()), (61, "0 to 1 replicas"), "{:?}", best.changes);
    assert_eq!(best.changes[1].at_s, 75, "{:?}", best.changes);
}

fn is_down(action: &str) -> bool {
    let sizes: Vec<i32> = action.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    matches!(sizes.as_slice(), [from, to] if to < from)
}
