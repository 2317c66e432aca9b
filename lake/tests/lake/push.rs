//! From a pushed request to its segment: acknowledged means stored once, whatever is repeated or fails in between.

use std::time::Duration;

use crate::support::{BUCKET, Fault, Lake, gauge, log_bodies, logs, logs_at, now};
use tidemill_lake::receive::{PushRequest, ReceiverOptions};
use tidemill_store::metastore::ClaimRequest;
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::{Action, ErrorKind, Signal, WorkQueue};

fn options() -> ReceiverOptions {
    ReceiverOptions { gather: Duration::from_millis(1), ..ReceiverOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_records_become_rows() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    let outcome = lake.push_logs(&receiver, 0..100).await.expect("is acknowledged");
    assert_eq!((outcome.accepted, outcome.rejected), (100, 0));
    lake.drain().await;
    let bodies = log_bodies(&lake, &lake.segments().await);
    assert_eq!(bodies.len(), 100);
    assert!(bodies.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_acknowledged_and_stored_once() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    let body = logs(0..10);
    for _ in 0..3 {
        let outcome = receiver.push(lake.request(Signal::Logs, body.clone())).await.expect("is acknowledged");
        assert_eq!(outcome.accepted, 10);
    }
    lake.drain().await;
    receiver.push(lake.request(Signal::Logs, body)).await.expect("is acknowledged after it was ingested, too");
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_in_one_group_are_stored_once() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(ReceiverOptions { gather: Duration::from_millis(50), ..ReceiverOptions::default() });
    let body = logs(0..10);
    let pushes = (0..8).map(|_| receiver.push(lake.request(Signal::Logs, body.clone())));
    for outcome in futures::future::join_all(pushes).await {
        assert_eq!(outcome.expect("is acknowledged").accepted, 10);
    }
    assert_eq!(lake.keys("raw/").await.len(), 1);
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_gather_into_one_object_by_signal() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(ReceiverOptions { gather: Duration::from_millis(100), ..ReceiverOptions::default() });
    let mut requests: Vec<PushRequest> =
        (0..20).map(|n| lake.request(Signal::Logs, logs(n * 10..n * 10 + 10))).collect();
    requests.push(lake.request(Signal::Metrics, gauge(&[now().0 as u64])));
    let outcomes = futures::future::join_all(requests.into_iter().map(|request| receiver.push(request))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let objects = lake.keys("raw/").await;
    assert!(objects.len() < 20, "requests were gathered: {objects:?}");
    lake.drain().await;
    assert_eq!(lake.rows().await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_the_identity() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    for bodies in [0..10, 10..20] {
        let mut request = lake.request(Signal::Logs, logs(bodies));
        request.idempotency_key = Some("batch-7".to_owned());
        receiver.push(request).await.expect("is acknowledged");
    }
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_stored_is_not_acknowledged_and_may_be_repeated() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    lake.store.fail("put", "raw/", Fault::Unavailable, 1);
    let body = logs(0..10);
    let error = receiver.push(lake.request(Signal::Logs, body.clone())).await.expect_err("is not stored");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.retry_after().is_some());
    receiver.push(lake.request(Signal::Logs, body)).await.expect("is stored now");
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_refused_and_shown_in_the_inbox() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    let error = receiver.push(lake.request(Signal::Logs, &b"\xff\xff\xff\xff"[..])).await.expect_err("is malformed");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // The refusal goes with the next commit.
    lake.push_logs(&receiver, 0..1).await.expect("is acknowledged");
    let inbox = lake.metastore.inbox(None, 10).await.expect("is read");
    assert!(inbox.iter().any(|entry| entry.state == "refused" && entry.bucket == "push"), "{inbox:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_answer_busy_with_a_reason() {
    let lake = Lake::new().await;
    let small = lake.receiver(ReceiverOptions { memory_bytes: 2048, ..options() });
    let error = lake.push_logs(&small, 0..1000).await.expect_err("does not fit");
    assert_eq!(error.kind(), ErrorKind::Busy);
    let receiver = lake.receiver(options());
    lake.gate.close("the disk is full");
    let error = lake.push_logs(&receiver, 0..1).await.expect_err("the gate is closed");
    assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("the disk is full"), "{error}");
    lake.gate.open();
    lake.push_logs(&receiver, 0..1).await.expect("the gate is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_download_is_repeated_and_loses_nothing() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    lake.push_logs(&receiver, 0..100).await.expect("is acknowledged");
    lake.store.fail("get", "raw/", Fault::Torn, 2);
    lake.drain().await;
    assert_eq!(log_bodies(&lake, &lake.segments().await).len(), 100);
    assert!(lake.store.gets.load(std::sync::atomic::Ordering::SeqCst) >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_for_longer_than_one_attempt_costs_no_dead_letter() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    lake.push_logs(&receiver, 0..10).await.expect("is acknowledged");
    lake.store.fail("get", "raw/", Fault::Unavailable, 4);
    lake.store.fail("put", "db/", Fault::Unavailable, 2);
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
    let dead = lake.metastore.queue(None, true, 10).await.expect("is read");
    assert!(dead.is_empty(), "{dead:?}");
}

/// A worker that was stopped past its lease, between uploading and publishing, is refused, and nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_under_a_lost_lease_is_refused() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    lake.push_logs(&receiver, 0..10).await.expect("is acknowledged");
    let request = ClaimRequest {
        queues: vec![WorkQueue { signal: Signal::Logs, action: Action::Ingest }],
        max_items: 10,
        max_bytes: 1 << 20,
        lease: Duration::ZERO,
        worker: "stopped".to_owned(),
        after: None,
    };
    let stopped = lake.metastore.claim(&request).await.expect("is claimed").expect("has work");
    let stale = format!("db/{}/logs/20260101/t0/l0/1-{}-0.parquet", lake.organization, stopped.token.0.simple());
    let body = PutBody::Chunks(vec![bytes::Bytes::from_static(b"never published")]);
    tidemill_store::ObjectStore::put(&*lake.store, &stale, body, PutMode::IfAbsent).await.expect("is stored");
    lake.drain().await;
    let before = lake.segments().await;
    assert_eq!(lake.rows().await, 10);
    let refused = lake.metastore.publish(stopped.token, &Default::default()).await.expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(lake.segments().await, before);
    let referenced = lake.metastore.referenced(&[stale]).await.expect("is read");
    assert_eq!(referenced, [false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_work_and_count_nothing_twice() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(ReceiverOptions { group_bytes: 1, ..options() });
    for batch in 0..20 {
        lake.push_logs(&receiver, batch * 10..batch * 10 + 10).await.expect("is acknowledged");
    }
    let small = |name| tidemill_lake::worker::WorkerOptions { bundle_items: 2, ..lake.worker_options(name) };
    let (first, first_task) = lake.worker(small("first"));
    let (second, second_task) = lake.worker(small("second"));
    lake.until_drained().await;
    first.stop();
    second.stop();
    first_task.await.expect("ends");
    second_task.await.expect("ends");
    let bodies = log_bodies(&lake, &lake.segments().await);
    assert_eq!(bodies.len(), 200);
    assert!(bodies.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_two_days_become_two_segments() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(options());
    let yesterday = now().plus_ns(-tidemill_types::NANOS_PER_DAY);
    for (time, bodies) in [(now(), 0..5), (yesterday, 5..10)] {
        receiver.push(lake.request(Signal::Logs, logs_at(time.0 as u64, bodies))).await.expect("is acknowledged");
    }
    lake.drain().await;
    let days: std::collections::BTreeSet<_> = lake.segments().await.iter().map(|meta| meta.day).collect();
    assert_eq!(days.len(), 2);
    assert!(lake.segments().await.iter().all(|meta| meta.bucket == BUCKET && meta.rows == 5));
}
