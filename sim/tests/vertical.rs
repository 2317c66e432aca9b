//! The vertical autoscaler in the world.

use tidemill_scaling::hpa::{self, Metric, ResourceTarget};
use tidemill_scaling::record::Policy;
use tidemill_scaling::vpa::{self, Resources, UpdateMode};
use tidemill_sim::{Contender, Load, Outcome, Setup, Size, Usage, simulate};

const MIB: i64 = 1 << 20;

fn run(mode: UpdateMode, size: Size, usage: Usage) -> Outcome {
    let setup = Setup { usage, service_ms: 5_000, ..Setup::default() };
    let load = Load::generate("poisson:0.5", 12 * 3_600_000, 3).expect("a load");
    let policy = vpa::Policy { update_mode: mode, ..vpa::Policy::default() };
    let contender = Contender { size, ..Contender::upstream("vpa", Policy::VerticalPodAutoscaler(policy)) };
    simulate(&setup, &load, &contender)
}

fn size(cpu_milli: i64, memory: i64, limit: Option<i64>) -> Size {
    Size {
        replicas: 6,
        requests: Resources { cpu_milli: Some(cpu_milli), memory_bytes: Some(memory * MIB) },
        limits: Resources { cpu_milli: None, memory_bytes: limit.map(|limit| limit * MIB) },
        ..Size::default()
    }
}

#[test]
fn requests_follow_what_is_used() {
    let usage = Usage { cpu_milli: 300, ..Usage::default() };
    let off = run(UpdateMode::Off, size(2000, 512, None), usage);
    let evicting = run(UpdateMode::Recreate, size(2000, 512, None), usage);
    let resizing = run(UpdateMode::InPlace, size(2000, 512, None), usage);
    assert_eq!((off.evictions, off.resizes), (0, 0));
    assert!(evicting.evictions > 0 && resizing.resizes > 0 && resizing.evictions == 0);
    for outcome in [&evicting, &resizing] {
        assert!(outcome.core_hours < 0.8 * off.core_hours, "{} of {}", outcome.core_hours, off.core_hours);
        assert_eq!(outcome.unfinished, 0, "evicted replicas finish what they do");
    }
    // Nothing but size changed: as many replicas as before, and those that were replaced.
    assert!((resizing.replica_hours - off.replica_hours).abs() < 0.1);
}

#[test]
fn memory_kills_raise_what_is_requested_until_they_stop() {
    let usage = Usage { memory_bytes: 200 * MIB, item_bytes: 40 * MIB, ..Usage::default() };
    let off = run(UpdateMode::Off, size(1000, 256, Some(256)), usage);
    let on = run(UpdateMode::Recreate, size(1000, 256, Some(256)), usage);
    assert!(off.ooms > 100, "{} kills without a vertical autoscaler", off.ooms);
    assert!(on.ooms * 4 < off.ooms, "{} kills with it, {} without", on.ooms, off.ooms);
    assert!(on.memory_gib_hours > off.memory_gib_hours);
}

#[test]
fn a_combination_that_chases_itself_is_refused_and_a_stable_one_runs() {
    let horizontal = |target| {
        let metrics = vec![Metric::Resource { resource: "cpu".to_owned(), target }];
        Contender::upstream("HPA", Policy::HorizontalPodAutoscaler(hpa::Policy::strict(2, 20, metrics)))
    };
    let mut chasing = horizontal(ResourceTarget::Utilization { percent: 70 });
    chasing.join_vertical("VPA", &vpa::Policy::default());
    assert!(chasing.vertical.is_none() && chasing.notes[0].contains("cpu"), "{:?}", chasing.notes);
    let mut stable = horizontal(ResourceTarget::AverageValue { milli: 700 });
    stable.join_vertical("VPA", &vpa::Policy::default());
    assert!(stable.vertical.is_some() && stable.notes.is_empty());
    let load = Load::generate("poisson:0.5", 6 * 3_600_000, 3).expect("a load");
    let setup = Setup { service_ms: 5_000, usage: Usage { cpu_milli: 900, ..Usage::default() }, ..Setup::default() };
    let outcome = simulate(&setup, &load, &stable);
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.decisions > 0 && outcome.core_hours > 0.0);
}
