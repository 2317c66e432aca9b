//! Organizations, keys, documents, the schema.

use tidemill_store::metastore::{ApiKey, KeyRole, Organization, Publication};
use tidemill_types::{CatalogSeq, ErrorKind, OrganizationId, TimestampNs};

use crate::world::{
    Place, admit, assert_kind, claim, enqueue_jobs, job, organization, organization_id, publish, push, quick, segment,
    with_segments,
};

pub async fn organizations_are_created_listed_and_changed(place: Place) {
    let store = place.open().await;
    let first = organization(&*store, 2).await;
    let second = organization(&*store, 1).await;
    assert_kind(store.create_organization(organization_id(3), "organization-1").await, ErrorKind::Conflict);
    assert_kind(store.create_organization(first, "other").await, ErrorKind::Conflict);

    let listed = store.organizations().await.expect("lists");
    assert_eq!(listed.iter().map(|organization| organization.id).collect::<Vec<_>>(), [second, first], "by name");
    let changed = Organization {
        retention_days: [Some(7), None, Some(30)],
        ingest_bytes_per_second: Some(1_000_000),
        ..listed[0].clone()
    };
    store.update_organization(&changed).await.expect("exists");
    assert_eq!(place.open().await.organizations().await.expect("lists")[0], changed);
    let unknown = Organization { id: organization_id(9), name: "nobody".to_owned(), ..changed };
    assert_kind(store.update_organization(&unknown).await, ErrorKind::NotFound);
}

fn key(id: &str, organization: Option<OrganizationId>) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        hash: *blake3::hash(id.as_bytes()).as_bytes(),
        organization,
        role: if organization.is_some() { KeyRole::Organization } else { KeyRole::Operator },
        label: "for people".to_owned(),
        created_at: TimestampNs(5),
    }
}

pub async fn keys_are_listed_and_revoked(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let other = organization(&*store, 2).await;
    let keys = [key("a", Some(owner)), key("b", Some(other)), key("c", None)];
    for key in &keys {
        store.create_key(key).await.expect("is new");
    }
    assert_kind(store.create_key(&keys[0]).await, ErrorKind::Conflict);
    assert_kind(store.create_key(&key("d", Some(organization_id(9)))).await, ErrorKind::NotFound);
    assert_eq!(store.keys(None).await.expect("lists"), keys);
    assert_eq!(store.keys(Some(owner)).await.expect("lists"), keys[..1]);
    store.revoke_key("a").await.expect("exists");
    assert_kind(store.revoke_key("a").await, ErrorKind::NotFound);
    assert_eq!(store.keys(None).await.expect("lists"), keys[1..]);
}

pub async fn documents_are_replaced(place: Place) {
    let store = place.open().await;
    assert_eq!(store.document("storage-profiles").await.expect("reads"), None);
    store.store_document("storage-profiles", "one").await.expect("stores");
    store.store_document("storage-profiles", "two").await.expect("stores");
    assert_eq!(place.open().await.document("storage-profiles").await.expect("reads").as_deref(), Some("two"));
}

pub async fn deleting_an_organization_takes_all_it_has(place: Place) {
    let store = place.open().await;
    let gone = organization(&*store, 1).await;
    let stays = organization(&*store, 2).await;
    store.create_key(&key("gone", Some(gone))).await.expect("is new");
    for owner in [gone, stays] {
        publish(&*store, owner, with_segments(vec![segment(owner, 1)])).await;
        admit(&*store, push(owner, owner.0.as_u128() as u64 ^ (owner.0.as_u128() >> 64) as u64)).await;
    }
    let before = store.catalog_changes(CatalogSeq(0), 100).await.expect("reads").seq;
    enqueue_jobs(&*store, gone, 0..1).await;
    let leased = loop {
        let bundle = claim(&*store, 1).await;
        if bundle.organization == gone {
            break bundle;
        }
    };

    store.delete_organization(gone).await.expect("exists");
    assert_kind(store.publish(leased.token, &Publication::default()).await, ErrorKind::Conflict);
    assert_kind(store.admit(&[push(gone, 99)]).await, ErrorKind::NotFound);
    assert_kind(store.enqueue(&[job(gone, 1)]).await, ErrorKind::NotFound);
    assert!(store.keys(Some(gone)).await.expect("lists").is_empty());
    assert!(store.inbox(Some(gone), 10).await.expect("lists").is_empty());
    let live = store.segments(&Default::default()).await.expect("lists");
    assert_eq!(live, [segment(stays, 1)]);
    let delta = store.catalog_changes(before, 100).await.expect("reads");
    assert_eq!(delta.removed, [segment(gone, 1).id]);

    let doomed = store.doomed_objects(10).await.expect("lists");
    assert_eq!(doomed.len(), 2, "its segment and its raw object: {doomed:?}");
    assert!(doomed.iter().all(|object| object.object_key.contains(&gone.to_string())), "{doomed:?}");
    let names = |list: Vec<Organization>| list.into_iter().map(|one| (one.id, one.deleting)).collect::<Vec<_>>();
    assert_eq!(names(store.organizations().await.expect("lists")), [(gone, true), (stays, false)]);
    // With the last of its objects it is gone itself: its name is free.
    store.forget_doomed(&doomed).await.expect("forgets");
    assert_eq!(names(store.organizations().await.expect("lists")), [(stays, false)]);
    assert_kind(store.delete_organization(gone).await, ErrorKind::NotFound);
}

pub async fn a_newer_schema_is_refused(place: Place) {
    drop(place.open().await);
    let applied_at = if matches!(place, Place::Sqlite(_)) { "0" } else { "now()" };
    place
        .execute(&format!(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', 'x', {applied_at})"
        ))
        .await;
    let error = place.try_open(quick()).await.err().expect("is refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("made by a newer tidemill"), "{error}");
}

pub async fn many_processes_migrate_once(place: Place) {
    let stores = futures::future::join_all((0..8).map(|_| place.open())).await;
    organization(&*stores[0], 1).await;
    for store in stores {
        assert_eq!(store.organizations().await.expect("lists").len(), 1);
    }
}
