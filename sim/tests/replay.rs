//! Recorded incidents: decided again, asked again, and their load taken out.

use tidemill_scaling::keda::{Target, Trigger, TriggerReading, object};
use tidemill_scaling::record::{Observation, Policy, step};
use tidemill_scaling::{Record, TimeMs, hpa};
use tidemill_sim::replay::Incident;
use tidemill_sim::{Contender, Setup, simulate};

const START: TimeMs = TimeMs(1_700_000_000_000);

fn policy(target: f64) -> Policy {
    let target = Target::AverageValue { value: target, activation: 0.0, is_cached: false };
    let trigger = Trigger { metric: "s0-queue".to_owned(), name: String::new(), target };
    Policy::ScaledObject(Box::new(object::Policy::with_defaults(vec![trigger])))
}

/// Ten minutes of a queue that holds what one replica per item works on, 10 s each.
fn records() -> Vec<Record> {
    let policy = policy(1.0);
    let (mut state, mut size) = (policy.first_state(), 0);
    let backlog = |tick: i64| if (10..40).contains(&tick) { 6.0 } else { 0.0 };
    let mut records = Vec::new();
    for tick in 0..60 {
        let now = START.plus_ms(tick * 10_000);
        let observation = Observation::ScaledObject(object::Observation {
            tick: object::Tick::Both,
            created_at: START,
            scale: Ok(hpa::Scale { spec_replicas: size, status_replicas: size }),
            pods: Vec::new(),
            triggers: vec![TriggerReading::value(backlog(tick), now)],
        });
        let outcome = step(&policy, state.clone(), &observation, now).expect("one kind");
        size = outcome.scaled_to().unwrap_or(size);
        let (policy, actions, reasons) = (policy.clone(), outcome.actions, outcome.reasons);
        records.push(Record { now, policy, state, observation, actions, reasons });
        state = outcome.state;
    }
    records
}

fn lines(records: &[Record]) -> String {
    records.iter().map(|record| serde_json::to_string(record).expect("JSON") + "\n").collect()
}

#[test]
fn what_was_decided_is_decided_again_or_told() {
    let mut records = records();
    let incident = Incident::read("incident.jsonl", &lines(&records)).expect("records");
    let again = incident.again();
    assert_eq!((again.decisions, again.reproduced), (60, 60), "{:?}", again.differences);
    let changed = records.iter().position(|record| !record.actions.is_empty()).expect("it scaled");
    records[changed].actions.clear();
    let again = Incident::read("incident.jsonl", &lines(&records)).expect("records").again();
    assert_eq!((again.reproduced, again.differences.len()), (59, 1));
    assert_eq!(again.differences[0].place, changed + 1);
    assert_eq!(again.differences[0].what, ["the actions differ"]);
}

#[test]
fn other_policies_are_asked_about_the_same_observations() {
    let incident = Incident::read("incident.jsonl", &lines(&records())).expect("records");
    let same = incident.ask("same", &policy(1.0)).expect("one kind");
    assert_eq!((same.observations, same.different), (60, 0), "{:?}", same.differences);
    let halved = incident.ask("halved", &policy(2.0)).expect("one kind");
    assert!(halved.different > 0 && !halved.differences[0].what.is_empty());
    let other = Policy::HorizontalPodAutoscaler(hpa::Policy::strict(1, 2, Vec::new()));
    assert_eq!(incident.ask("other", &other), None);
}

#[test]
fn the_load_is_what_was_there_and_what_was_worked_off() {
    let incident = Incident::read("incident.jsonl", &lines(&records())).expect("records");
    let setup = Setup::default();
    let load = incident.load(&setup).expect("a load");
    // Six items at 100 s, and while they are kept at six for 290 s, six replicas take one each 10 s.
    assert!((150..=190).contains(&load.arrivals_ms.len()), "{} items", load.arrivals_ms.len());
    assert!(load.arrivals_ms.iter().all(|at| (90_000..=400_000).contains(at)), "{:?}", load.arrivals_ms);
    assert_eq!(load, incident.load(&setup).expect("a load"), "the same seed gives the same load");
    let recorded = incident.recorded(&setup);
    assert_eq!(recorded.minutes.len(), 10);
    assert!(recorded.replica_hours > 0.3 && recorded.changes >= 1, "{recorded:?}");
    let outcome = simulate(&setup, &load, &Contender::by_profile("recorded", incident.policy().expect("one").clone()));
    assert_eq!((outcome.items, outcome.unfinished), (load.arrivals_ms.len(), 0));
}

#[test]
fn files_of_every_form_are_read_or_refused() {
    let records = records();
    let list = serde_json::to_string(&records).expect("JSON");
    let items = format!("{{\"items\":{list}}}");
    let wrapped: String =
        lines(&records).lines().map(|line| format!("{{\"object\":\"o\",\"record\":{line}}}\n")).collect();
    for text in [list, items, wrapped] {
        assert_eq!(Incident::read("i", &text).expect("records").entries.len(), 60);
    }
    let bare: String = records
        .iter()
        .map(|record| {
            let observation = serde_json::to_string(&record.observation).expect("JSON");
            format!("{{\"now\":{},\"observation\":{observation}}}\n", record.now.0)
        })
        .collect();
    let bare = Incident::read("i", &bare).expect("observations");
    assert_eq!((bare.entries.len(), bare.again().decisions), (60, 0));
    assert!(bare.load(&Setup::default()).is_ok());
    for (text, part) in [
        ("", "holds no record"),
        ("[]", "holds no record"),
        ("{", "EOF"),
        ("{\"now\":1}", "entry 1: missing field `observation`"),
        ("3", "entry 1"),
    ] {
        let error = Incident::read("i", text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let one = Incident::read("i", &lines(&records[..1])).expect("a record");
    assert!(one.load(&Setup::default()).expect_err("one look").message.contains("at least two"));
}
