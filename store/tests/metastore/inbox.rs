//! Admission and what the inbox shows.

use std::time::Duration;

use tidemill_store::MetastoreOptions;
use tidemill_store::metastore::{Admission, NewInput, Refusal, RememberedInput};
use tidemill_types::{ErrorKind, Signal, TimestampNs};

use crate::world::{Place, admit, assert_kind, claim, identity, organization, organization_id, push, quick};

pub async fn an_input_is_admitted_once(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let input = push(owner, 1);
    admit(&*store, input.clone()).await;
    let again = NewInput { object_key: "raw/other".to_owned(), ..input.clone() };
    assert_eq!(store.admit(&[again]).await.expect("answers"), [Admission::Known(vec![0])]);
    assert_eq!(store.known_identities(&[identity(1), identity(2)]).await.expect("answers"), [true, false]);

    let bundle = claim(&*store, 10).await;
    let [item] = bundle.items.as_slice() else { panic!("{bundle:?}") };
    let claimed = item.input.as_ref().expect("is an input");
    let expected = NewInput { identities: Vec::new(), ..input };
    assert_eq!(format!("{claimed:?}"), format!("{expected:?}"), "all of it comes back but the identities");
    store.publish(bundle.token, &Default::default()).await.expect("is current");
    assert_eq!(
        store.admit(&[push(owner, 1)]).await.expect("answers"),
        [Admission::Known(vec![0])],
        "publication does not make it new"
    );
}

pub async fn repetitions_are_named_by_place(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    admit(&*store, push(owner, 1)).await;
    let group = NewInput { identities: vec![identity(2), identity(1), identity(3), identity(2)], ..push(owner, 9) };
    let fresh = push(owner, 5);
    let answers = store.admit(&[group, fresh]).await.expect("answers");
    assert_eq!(answers[0], Admission::Known(vec![1, 3]));
    assert!(matches!(answers[1], Admission::Admitted(_)), "each is admitted or known on its own");
    assert_eq!(
        store.known_identities(&[identity(2), identity(3), identity(5)]).await.expect("answers"),
        [false, false, true],
        "nothing of a group with a known request is stored"
    );
}

pub async fn admission_is_all_or_nothing(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    assert_kind(store.admit(&[push(owner, 1), push(organization_id(9), 2)]).await, ErrorKind::NotFound);
    assert_eq!(store.known_identities(&[identity(1)]).await.expect("answers"), [false]);
    assert!(store.inbox(None, 10).await.expect("lists").is_empty());
}

pub async fn concurrent_senders_of_one_identity_are_admitted_once(place: Place) {
    let stores = [place.open().await, place.open().await];
    let owner = organization(&*stores[0], 1).await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..16_u64 {
        let store = stores[(sender % 2) as usize].clone();
        senders.spawn(async move {
            let input = NewInput { object_key: format!("raw/{sender}"), ..push(owner, 1) };
            store.admit(&[push(owner, 100 + sender), input]).await.expect("answers")
        });
    }
    let answers = senders.join_all().await;
    let admitted = answers.iter().filter(|answer| matches!(answer[1], Admission::Admitted(_))).count();
    assert_eq!(admitted, 1);
    assert_eq!(stores[0].inbox(None, 100).await.expect("lists").len(), 17);
}

pub async fn identities_are_forgotten_in_time(place: Place) {
    let store = place.open_with(MetastoreOptions { push_memory: Duration::ZERO, ..quick() }).await;
    let owner = organization(&*store, 1).await;
    admit(&*store, push(owner, 1)).await;
    admit(&*store, push(owner, 1)).await;
    let object = NewInput { owned: false, ..push(owner, 2) };
    admit(&*store, object.clone()).await;
    store.prune().await.expect("prunes");
    assert_eq!(
        store.admit(&[object]).await.expect("answers"),
        [Admission::Known(vec![0])],
        "objects are remembered longer"
    );
}

pub async fn a_rebuilt_ledger_knows_what_was_taken_in(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let now = store.now().await.expect("answers");
    let two_days_ago = now.plus_ns(-2 * 24 * 3_600_000_000_000);
    let remembered = |number, arrived_at, owned| RememberedInput { identity: identity(number), arrived_at, owned };
    let all = [
        remembered(1, now, true),
        remembered(2, two_days_ago, true),
        remembered(3, two_days_ago, false),
        remembered(1, now, true),
    ];
    store.remember_inputs(&all).await.expect("remembers");
    store.remember_inputs(&[]).await.expect("remembers nothing");
    let known = store.known_identities(&[identity(1), identity(2), identity(3)]).await.expect("answers");
    assert_eq!(known, [true, false, true], "requests are remembered for a day from their arrival");
    assert_eq!(store.admit(&[push(owner, 1)]).await.expect("answers"), [Admission::Known(vec![0])]);
}

pub async fn a_claim_brings_back_the_identity_of_an_object(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let object = NewInput { owned: false, ..push(owner, 1) };
    admit(&*store, object.clone()).await;
    let bundle = claim(&*store, 10).await;
    let input = bundle.items[0].input.as_ref().expect("is an input");
    assert_eq!(input.identities, object.identities);
}

fn refusal(organization: Option<tidemill_types::OrganizationId>, at: i64) -> Refusal {
    Refusal {
        organization,
        signal: organization.map(|_| Signal::Traces),
        bucket: "push".to_owned(),
        object_key: format!("/v1/traces#{at}"),
        records_refused: 3,
        records_kept: 39,
        reason: "resourceSpans[0].scopeSpans[1].spans[2].traceId: has 3 bytes, expected 16".to_owned(),
        at: TimestampNs(at),
    }
}

pub async fn refusals_are_shown(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    store.record_refusals(&[refusal(Some(owner), 1), refusal(None, 2)]).await.expect("records");
    let all = store.inbox(None, 10).await.expect("lists");
    assert_eq!(all.iter().map(|entry| entry.at.0).collect::<Vec<_>>(), [2, 1], "newest first");
    let [entry] = &store.inbox(Some(owner), 10).await.expect("lists")[..] else { panic!("{all:?}") };
    assert_eq!((entry.state.as_str(), entry.signal, entry.work), ("refused", Some(Signal::Traces), None));
    let reason = entry.reason.as_deref().expect("has a reason");
    assert!(reason.contains("spans[2].traceId") && reason.contains("3 records refused, 39 kept"), "{reason}");
}

pub async fn the_inbox_tells_each_state(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    for number in 1..=3 {
        admit(&*store, push(owner, number)).await;
    }
    let dead = claim(&*store, 1).await;
    store.fail(dead.token, "cannot be read", true).await.expect("is current");
    let _leased = claim(&*store, 1).await;
    let entries = store.inbox(Some(owner), 10).await.expect("lists");
    let mut states: Vec<_> = entries.iter().map(|entry| (entry.state.as_str(), entry.reason.as_deref())).collect();
    states.sort_unstable();
    assert_eq!(states, [("dead", Some("cannot be read")), ("leased", None), ("waiting", None)]);
    assert_eq!(store.inbox(Some(owner), 2).await.expect("lists").len(), 2);
}
