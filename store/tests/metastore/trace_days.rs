//! Day indexes of traces: what is kept of them, replacing one, and when they go.

use std::time::Duration;

use tidemill_store::metastore::{DoomedObject, Publication, TraceDay, TraceDayChange};
use tidemill_store::{Metastore, MetastoreOptions};
use tidemill_types::keys::TraceDayKey;
use tidemill_types::{Day, ErrorKind, LeaseToken, OrganizationId, SegmentId, SegmentMeta, Signal, WorkId};
use uuid::Uuid;

use crate::world::{
    JOBS, Place, assert_kind, claim, enqueue_jobs, organization, publish, quick, request, segment, with_segments,
};

const DAY: Day = Day(19_387);

fn index(organization: OrganizationId, number: u128) -> TraceDay {
    let token = LeaseToken(Uuid::from_u128(number));
    let key = TraceDayKey { organization, day: DAY, work: WorkId(1), token, ordinal: 0 };
    TraceDay {
        organization,
        instance_num: 1,
        day: DAY,
        bucket: "lake".to_owned(),
        object_key: key.object_key(),
        bytes: 1_000,
        tail_bytes: 100,
        segments: vec![SegmentId(Uuid::from_u128(number)), SegmentId(Uuid::from_u128(u128::MAX))],
    }
}

fn replacing(index: TraceDay, replaces: Option<&TraceDay>) -> Publication {
    let replaces = replaces.map(|index| index.object_key.clone());
    Publication { trace_days: vec![TraceDayChange { index, replaces }], ..Publication::default() }
}

fn traces(organization: OrganizationId, number: u64) -> SegmentMeta {
    SegmentMeta { signal: Signal::Traces, ..segment(organization, number) }
}

async fn of_day(store: &dyn Metastore, organization: OrganizationId) -> Vec<TraceDay> {
    store.trace_days(organization, DAY, DAY).await.expect("lists")
}

fn hasty() -> MetastoreOptions {
    MetastoreOptions { replaced_grace: Duration::ZERO, ..quick() }
}

fn objects(indexes: &[&TraceDay]) -> Vec<DoomedObject> {
    let object =
        |index: &&TraceDay| DoomedObject { bucket: index.bucket.clone(), object_key: index.object_key.clone() };
    indexes.iter().map(object).collect()
}

pub async fn every_field_of_a_day_index_is_kept(place: Place) {
    let store = place.open().await;
    let (one, two) = (organization(&*store, 1).await, organization(&*store, 2).await);
    let odd = TraceDay {
        instance_num: -7,
        day: Day(-3),
        bytes: 1 << 40,
        tail_bytes: 1 << 33,
        segments: Vec::new(),
        ..index(one, 2)
    };
    publish(&*store, one, replacing(index(one, 1), None)).await;
    publish(&*store, one, replacing(odd.clone(), None)).await;
    publish(&*store, two, replacing(index(two, 3), None)).await;
    let store = place.open().await;
    let listed = async |first, last| store.trace_days(one, Day(first), Day(last)).await.expect("lists");
    assert_eq!(listed(i32::MIN, i32::MAX).await, [odd.clone(), index(one, 1)], "by day");
    assert_eq!(listed(-3, 19_386).await, [odd]);
    assert_eq!(listed(19_387, 19_387).await, [index(one, 1)]);
    assert_eq!(listed(19_388, i32::MAX).await, []);
}

pub async fn replacing_a_day_index_is_a_compare_and_set(place: Place) {
    let store = place.open_with(hasty()).await;
    let owner = organization(&*store, 1).await;
    let (first, second, third) = (index(owner, 1), index(owner, 2), index(owner, 3));
    publish(&*store, owner, replacing(first.clone(), None)).await;
    enqueue_jobs(&*store, owner, 0..1).await;
    let bundle = claim(&*store, 1).await;
    for wrong in [None, Some(&third)] {
        let publication = Publication { segments: vec![traces(owner, 1)], ..replacing(second.clone(), wrong) };
        assert_kind(store.publish(bundle.token, &publication).await, ErrorKind::Conflict);
    }
    let other = Publication {
        trace_days: vec![TraceDayChange { index: TraceDay { day: Day(5), ..third }, replaces: Some("x".to_owned()) }],
        ..Publication::default()
    };
    assert_kind(store.publish(bundle.token, &other).await, ErrorKind::Conflict);
    assert_eq!(of_day(&*store, owner).await, std::slice::from_ref(&first));
    assert!(store.segments(&Default::default()).await.expect("lists").is_empty(), "nothing happened");
    assert!(store.doomed_objects(10).await.expect("lists").is_empty());
    store.publish(bundle.token, &replacing(second.clone(), Some(&first))).await.expect("the lease is still current");
    assert_eq!(of_day(&*store, owner).await, [second]);
    assert_eq!(store.doomed_objects(10).await.expect("lists"), objects(&[&first]));
}

pub async fn of_two_that_replace_a_day_index_one_does(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..4).await;
    let mut current: Option<TraceDay> = None;
    for round in [0, 2] {
        let (one, two) = (claim(&*store, 1).await, claim(&*store, 1).await);
        let ours = [index(owner, round + 1), index(owner, round + 2)];
        let publications = ours.clone().map(|index| replacing(index, current.as_ref()));
        let (first, second) =
            tokio::join!(store.publish(one.token, &publications[0]), store.publish(two.token, &publications[1]));
        assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
        let (winner, refused) = if first.is_ok() { (&ours[0], second) } else { (&ours[1], first) };
        assert_kind(refused, ErrorKind::Conflict);
        assert_eq!(of_day(&*store, owner).await, std::slice::from_ref(winner));
        current = Some(winner.clone());
    }
}

pub async fn a_day_index_goes_with_its_day(place: Place) {
    let store = place.open_with(hasty()).await;
    let owner = organization(&*store, 1).await;
    let other_instance = TraceDay { instance_num: 2, ..index(owner, 2) };
    let not_traces = segment(owner, 2);
    publish(&*store, owner, with_segments(vec![traces(owner, 1), not_traces])).await;
    publish(&*store, owner, replacing(index(owner, 1), None)).await;
    publish(&*store, owner, replacing(other_instance.clone(), None)).await;
    store.prune().await.expect("prunes");
    assert_eq!(of_day(&*store, owner).await, [index(owner, 1)], "the other instance has no traces of that day");
    store.retire_segments(&[traces(owner, 1).id]).await.expect("retires");
    let retired: Vec<DoomedObject> = store.doomed_objects(10).await.expect("lists");
    store.prune().await.expect("prunes");
    assert_eq!(of_day(&*store, owner).await, []);
    let mut doomed = store.doomed_objects(10).await.expect("lists");
    doomed.retain(|object| !retired.contains(object));
    assert_eq!(doomed, objects(&[&index(owner, 1)]));
    assert!(retired.contains(&objects(&[&other_instance])[0]), "{retired:?}");
}

pub async fn a_doomed_day_index_keeps_its_grace(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let (first, second, gone) = (index(owner, 1), index(owner, 2), TraceDay { day: Day(7), ..index(owner, 3) });
    publish(&*store, owner, with_segments(vec![traces(owner, 1)])).await;
    publish(&*store, owner, replacing(first.clone(), None)).await;
    publish(&*store, owner, replacing(gone.clone(), None)).await;
    publish(&*store, owner, replacing(second.clone(), Some(&first))).await;
    store.prune().await.expect("prunes");
    assert_eq!(of_day(&*store, owner).await, std::slice::from_ref(&second));
    assert!(store.doomed_objects(10).await.expect("lists").is_empty(), "running queries may still read them");
    let nobodys = index(owner, 99);
    let keys = [&first, &second, &gone, &nobodys].map(|index| index.object_key.clone());
    assert_eq!(store.referenced(&keys).await.expect("answers"), [true, true, true, false]);
}

pub async fn a_lease_keeps_the_day_index_it_may_publish(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..1).await;
    let lease = claim(&*store, 1).await;
    let key = index(owner, lease.token.0.as_u128()).object_key;
    assert_eq!(store.referenced(std::slice::from_ref(&key)).await.expect("answers"), [true]);
    store.hand_back(lease.token).await.expect("is current");
    assert_eq!(store.referenced(&[key]).await.expect("answers"), [false]);
}

pub async fn deleting_an_organization_takes_its_day_indexes(place: Place) {
    let store = place.open().await;
    let (gone, stays) = (organization(&*store, 1).await, organization(&*store, 2).await);
    for owner in [gone, stays] {
        publish(&*store, owner, replacing(index(owner, 1), None)).await;
    }
    publish(&*store, gone, replacing(index(gone, 2), Some(&index(gone, 1)))).await;
    enqueue_jobs(&*store, gone, 0..1).await;
    let lease = store.claim(&tidemill_store::metastore::ClaimRequest { queues: vec![JOBS], ..request(1) }).await;
    let lease = lease.expect("claims").expect("has work");
    store.delete_organization(gone).await.expect("exists");
    assert_kind(store.publish(lease.token, &replacing(index(gone, 3), None)).await, ErrorKind::Conflict);
    assert_eq!(of_day(&*store, gone).await, []);
    assert_eq!(of_day(&*store, stays).await, [index(stays, 1)]);
    let mut doomed = store.doomed_objects(10).await.expect("lists");
    doomed.sort_by(|one, other| one.object_key.cmp(&other.object_key));
    assert_eq!(doomed, objects(&[&index(gone, 1), &index(gone, 2)]), "at once, whatever grace they had");
    store.forget_doomed(&doomed).await.expect("forgets");
    store.prune().await.expect("prunes");
    assert_eq!(store.organizations().await.expect("lists").len(), 1);
}
