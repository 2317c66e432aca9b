//! Which objects may be deleted, and what is forgotten.

use std::time::Duration;

use tidemill_store::metastore::{DoomedObject, Publication, Refusal, SegmentFilter};
use tidemill_store::{Metastore, MetastoreOptions};
use tidemill_types::{Day, Level, OrganizationId, Signal, Tier, TimestampNs, keys::SegmentKey};

use crate::world::{
    Place, admit, claim, enqueue_jobs, identity, organization, publish, push, quick, segment, with_segments,
};

async fn doomed_keys(store: &dyn Metastore) -> Vec<String> {
    store.doomed_objects(10).await.expect("lists").into_iter().map(|object| object.object_key).collect()
}

/// Publishes one push, then replaces its segment.
async fn publish_and_replace(store: &dyn Metastore, owner: OrganizationId) {
    admit(store, push(owner, 1)).await;
    let bundle = claim(store, 1).await;
    store.publish(bundle.token, &with_segments(vec![segment(owner, 1)])).await.expect("is current");
    let replacing = Publication {
        segments: vec![segment(owner, 2)],
        replaces: vec![segment(owner, 1).id],
        ..Publication::default()
    };
    publish(store, owner, replacing).await;
}

pub async fn objects_are_doomed_after_their_grace(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish_and_replace(&*store, owner).await;
    assert!(doomed_keys(&*store).await.is_empty(), "both have their grace");

    let hasty = MetastoreOptions { raw_grace: Duration::ZERO, replaced_grace: Duration::ZERO, ..quick() };
    let store = place.open_with(hasty).await;
    let other = organization(&*store, 2).await;
    // The identity of the other organization's push differs.
    admit(&*store, push(other, 7)).await;
    let bundle = claim(&*store, 1).await;
    store.publish(bundle.token, &with_segments(vec![segment(other, 1)])).await.expect("is current");
    store.retire_segments(&[segment(other, 1).id]).await.expect("retires");
    let mut doomed = doomed_keys(&*store).await;
    doomed.sort_unstable();
    assert_eq!(doomed, [segment(other, 1).object_key, push(other, 7).object_key]);
    let objects: Vec<DoomedObject> = store.doomed_objects(10).await.expect("lists");
    store.forget_doomed(&objects).await.expect("forgets");
    assert!(doomed_keys(&*store).await.is_empty());
    assert_eq!(store.segments(&SegmentFilter::default()).await.expect("lists"), [segment(owner, 2)]);
}

pub async fn references_keep_objects(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish_and_replace(&*store, owner).await;
    admit(&*store, push(owner, 2)).await;
    let dead = claim(&*store, 1).await;
    store.fail(dead.token, "never", true).await.expect("is current");
    enqueue_jobs(&*store, owner, 0..1).await;
    let lease = claim(&*store, 1).await;
    admit(&*store, push(owner, 3)).await;
    let key_of = |token| {
        let (signal, day, tier, level) = (Signal::Logs, Day(1), Tier::RAW, Level(0));
        SegmentKey { organization: owner, signal, day, tier, level, work: lease.items[0].id, token, ordinal: 0 }
            .object_key()
    };
    let keys = [
        segment(owner, 2).object_key,
        segment(owner, 1).object_key,
        push(owner, 1).object_key,
        push(owner, 2).object_key,
        push(owner, 3).object_key,
        key_of(lease.token),
        key_of(dead.token),
        "raw/nobody".to_owned(),
    ];
    let expected = [true, true, true, true, true, true, false, false];
    assert_eq!(store.referenced(&keys).await.expect("answers"), expected);
    store.hand_back(lease.token).await.expect("is current");
    assert_eq!(store.referenced(&keys[5..6]).await.expect("answers"), [false], "its lease is over");
}

pub async fn pruning_keeps_what_is_remembered(place: Place) {
    let store = place.open_with(MetastoreOptions { refusal_memory: Duration::from_secs(3_600), ..quick() }).await;
    let owner = organization(&*store, 1).await;
    admit(&*store, push(owner, 1)).await;
    let now = store.now().await.expect("answers");
    let refusal = |at| Refusal {
        organization: Some(owner),
        signal: None,
        bucket: "push".to_owned(),
        object_key: "x".to_owned(),
        records_refused: 0,
        records_kept: 0,
        reason: "r".to_owned(),
        at,
    };
    store.record_refusals(&[refusal(TimestampNs(0)), refusal(now)]).await.expect("records");
    store.prune().await.expect("prunes");
    assert_eq!(store.known_identities(&[identity(1)]).await.expect("answers"), [true]);
    let shown = store.inbox(Some(owner), 10).await.expect("lists");
    let mut states: Vec<&str> = shown.iter().map(|entry| entry.state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["refused", "waiting"], "the old refusal is forgotten");
}
