//! crashes and failures, halves and blame, dead letters.

use std::time::Duration;

use tidemill_store::Metastore;
use tidemill_store::metastore::{Bundle, NewWork};
use tidemill_types::{ErrorKind, OrganizationId};

use crate::world::{
    Place, admit, assert_kind, claim, doomed_request, enqueue_jobs, identity, job, numbers, organization, push, request,
};

/// Works through the queue with leases that run out wherever the poison is part of the bundle; returns the sizes of those.
async fn work_with_poison(store: &dyn Metastore, poison: u64) -> Vec<usize> {
    let mut crashed = Vec::new();
    // One claim that crashes is settled by the next one.
    while let Some(bundle) = store.claim(&doomed_request(100)).await.expect("claims") {
        if numbers(&bundle).contains(&poison) {
            crashed.push(bundle.items.len());
            assert!(crashed.len() < 50, "goes on for ever: {crashed:?}");
        } else {
            assert!(store.complete(&[bundle.token]).await.expect("completes").is_empty());
        }
    }
    crashed
}

pub async fn a_crashed_bundle_is_halved_until_the_poison_is_alone(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..16).await;
    let crashed = work_with_poison(&*store, 5).await;
    assert_eq!(crashed.iter().filter(|size| **size == 1).count(), 3, "three times alone: {crashed:?}");
    assert!(crashed.windows(2).all(|pair| pair[1] <= pair[0].div_ceil(2).max(1)), "halves: {crashed:?}");
    let left = store.queue(None, false, 10).await.expect("lists");
    let [dead] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((dead.state.as_str(), dead.payload["number"].as_u64()), ("dead", Some(5)));
    assert!(dead.last_error.as_deref().is_some_and(|error| error.contains("crashed alone 3 times")), "{dead:?}");
    assert_eq!(dead.failures, 0, "crashes are counted apart");
}

pub async fn kills_of_processes_condemn_nobody(place: Place) {
    let first = place.open().await;
    let owner = organization(&*first, 1).await;
    enqueue_jobs(&*first, owner, 0..1).await;
    for kill in 0..12 {
        // Each process claims the same item and is killed before it reports.
        let process = place.open().await;
        let bundle = process.claim(&doomed_request(1)).await.expect("claims").expect("is claimable");
        assert_eq!(bundle.items[0].crashes, kill);
    }
    let bundle = claim(&*first, 1).await;
    assert!(first.complete(&[bundle.token]).await.expect("completes").is_empty());
    assert!(first.queue(None, true, 10).await.expect("lists").is_empty());
}

pub async fn a_crash_loop_is_given_up_where_processes_live(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    // Two hundred leases that end well say: processes do not die here.
    enqueue_jobs(&*store, owner, 0..200).await;
    let mut tokens = Vec::new();
    while let Some(bundle) = store.claim(&request(1)).await.expect("claims") {
        tokens.push(bundle.token);
    }
    assert!(store.complete(&tokens).await.expect("completes").is_empty());
    drop(store);
    let store = place.open().await;
    enqueue_jobs(&*store, owner, 500..501).await;
    for _ in 0..3 {
        let process = place.open().await;
        process.claim(&doomed_request(1)).await.expect("claims").expect("is claimable");
    }
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
    let dead = store.queue(None, true, 10).await.expect("lists");
    assert_eq!(dead.len(), 1, "{dead:?}");
}

pub async fn a_failed_bundle_is_split_without_blame(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..8).await;
    let mut sizes = Vec::new();
    loop {
        let bundle: Bundle = claim(&*store, 100).await;
        assert!(bundle.items.iter().all(|item| item.failures == 0), "{bundle:?}");
        sizes.push(bundle.items.len());
        if bundle.items.len() == 1 {
            break;
        }
        store.fail(bundle.token, "one of them is broken", true).await.expect("is current");
    }
    assert_eq!(sizes, [8, 4, 2, 1]);
    let entries = store.queue(None, false, 100).await.expect("lists");
    assert_eq!(entries.len(), 8, "nothing is dead, not even by a permanent failure");
    assert!(entries.iter().all(|entry| entry.last_error.as_deref() == Some("one of them is broken")));
}

async fn fail_until_dead(store: &dyn Metastore) -> u32 {
    let mut attempts = 0;
    while let Some(bundle) = store.claim(&request(1)).await.expect("claims") {
        assert_eq!(bundle.items[0].failures, attempts);
        attempts += 1;
        store.fail(bundle.token, &format!("attempt {attempts}"), false).await.expect("is current");
    }
    attempts
}

pub async fn an_item_is_retried_then_dead_lettered_and_redriven(place: Place) {
    let store = place.open().await;
    let owner: OrganizationId = organization(&*store, 1).await;
    let input = push(owner, 1);
    let id = admit(&*store, input.clone()).await;
    assert_eq!(fail_until_dead(&*store).await, 3);
    let dead = store.queue(None, true, 10).await.expect("lists");
    assert_eq!((dead[0].id, dead[0].last_error.as_deref(), dead[0].failures), (id, Some("attempt 3"), 3));
    assert_eq!(store.referenced(std::slice::from_ref(&input.object_key)).await.expect("answers"), [true]);
    assert_eq!(store.known_identities(&[identity(1)]).await.expect("answers"), [true], "it is acknowledged, not lost");

    assert_eq!(store.redrive(Some(&[tidemill_types::WorkId(id.0 + 1)])).await.expect("answers"), 0);
    assert_eq!(store.redrive(Some(&[id])).await.expect("redrives"), 1);
    assert_eq!(fail_until_dead(&*store).await, 3, "it has all its attempts again");
    assert_eq!(store.redrive(None).await.expect("redrives"), 1);
    let bundle = claim(&*store, 1).await;
    let item = &bundle.items[0];
    assert_eq!((item.id, item.failures, item.crashes), (id, 0, 0));
    assert_eq!(item.input.as_ref().map(|input| input.object_key.clone()), Some(input.object_key));
}

pub async fn a_permanent_failure_is_not_retried(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..1).await;
    let bundle = claim(&*store, 1).await;
    store.fail(bundle.token, "never", true).await.expect("is current");
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
    assert_kind(store.hand_back(bundle.token).await, ErrorKind::Conflict);
    assert_eq!(store.queue(None, true, 10).await.expect("lists").len(), 1);
}

pub async fn a_wish_to_run_again_survives_the_dead_letter(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let keyed = |number| NewWork { dedupe_key: Some("k".to_owned()), delay: Duration::ZERO, ..job(owner, number) };
    store.enqueue(&[keyed(1)]).await.expect("is enqueued");
    let bundle = claim(&*store, 1).await;
    store.enqueue(&[keyed(2)]).await.expect("is enqueued");
    store.fail(bundle.token, "never", true).await.expect("is current");
    assert_eq!(numbers(&claim(&*store, 1).await), [2]);
    // The live item of the same key does what the letter asked for.
    assert_eq!(store.redrive(None).await.expect("redrives"), 1);
    assert_eq!(store.queue(None, false, 10).await.expect("lists").len(), 1);
}
