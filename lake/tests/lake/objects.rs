//! Announced objects: what was announced is what is read, and what cannot be read is told and done with.

use crate::support::{BUCKET, Lake, log_bodies, logs, now};
use tidemill_store::ObjectStore;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::Signal;

fn announced(lake: &Lake, key: &str, number: u8, etag: Option<String>, size_bytes: u64) -> NewInput {
    NewInput {
        organization: lake.organization,
        instance_num: 1,
        collector: "farm".to_owned(),
        signal: Signal::Logs,
        bucket: BUCKET.to_owned(),
        object_key: key.to_owned(),
        etag,
        size_bytes,
        records: None,
        identities: vec![InputIdentity([number; 32])],
        arrived_at: now(),
        owned: false,
        priority: 10,
        format: None,
    }
}

async fn put(lake: &Lake, key: &str, body: Vec<u8>) -> (Option<String>, u64) {
    let put = lake.store.put(key, PutBody::Chunks(vec![body.into()]), PutMode::Overwrite).await.expect("is stored");
    (put.etag, put.size)
}

/// One bundle of five objects, of which one is as it was announced.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_as_announced_is_refused_with_its_reason() {
    let lake = Lake::new().await;
    let (etag, size) = put(&lake, "in/logs_replaced.binpb", logs(0..10)).await;
    let replaced = announced(&lake, "in/logs_replaced.binpb", 1, etag, size);
    put(&lake, "in/logs_replaced.binpb", logs(100..110)).await;
    let (etag, size) = put(&lake, "in/logs_grown.binpb", logs(10..20)).await;
    let grown = announced(&lake, "in/logs_grown.binpb", 2, etag, size + 1);
    let gone = announced(&lake, "in/logs_gone.binpb", 3, None, 10);
    let unreadable = announced(&lake, "in//logs_named.binpb", 4, None, 10);
    let (etag, size) = put(&lake, "in/logs_good.binpb", logs(20..30)).await;
    let good = announced(&lake, "in/logs_good.binpb", 5, etag, size);
    let admitted = lake.metastore.admit(&[replaced, grown, gone, unreadable, good]).await.expect("is admitted");
    assert!(admitted.iter().all(|one| matches!(one, Admission::Admitted(_))));
    lake.drain().await;
    let bodies = log_bodies(&lake, &lake.segments().await);
    assert_eq!(bodies.len(), 10);
    assert!((20..30).all(|number| bodies.contains_key(&format!("body {number}"))), "{bodies:?}");
    let inbox = lake.metastore.inbox(None, 10).await.expect("is read");
    for (name, words) in [
        ("replaced", "replaced after it was announced"),
        ("grown", "expected"),
        ("gone", "deleted after it was announced"),
        ("named", "empty path component"),
    ] {
        let entry = inbox.iter().find(|entry| entry.object_key.contains(name)).expect("is shown");
        assert_eq!(entry.state, "refused", "{entry:?}");
        assert!(entry.reason.as_deref().is_some_and(|reason| reason.contains(words)), "{entry:?}");
    }
    assert_eq!(inbox.len(), 4, "{inbox:?}");
}
