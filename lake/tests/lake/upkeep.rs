//! What happens to segments afterwards: merges, sweeping, retention, and a catalog made anew from the bucket.

use std::time::Duration;

use crate::support::{BUCKET, Lake, gauge, log_bodies, now};
use tidemill_lake::catalog::{self, CatalogDeps};
use tidemill_lake::loaded::loaded_object_key;
use tidemill_lake::place::OnePlace;
use tidemill_lake::receive::ReceiverOptions;
use tidemill_lake::sweep::{self, SweeperDeps, SweeperHandle, SweeperOptions};
use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::InputIdentity;
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{MetastoreOptions, ObjectStore};
use tidemill_types::{Hour, Level, NANOS_PER_HOUR, NANOS_PER_SECOND, SegmentMeta, Signal, Tier};

fn one_object_a_request() -> ReceiverOptions {
    ReceiverOptions { gather: Duration::ZERO, group_bytes: 1, ..ReceiverOptions::default() }
}

fn without_grace() -> MetastoreOptions {
    MetastoreOptions { replaced_grace: Duration::ZERO, raw_grace: Duration::ZERO, ..MetastoreOptions::default() }
}

fn sweeper(lake: &Lake) -> SweeperHandle {
    let options = SweeperOptions { orphan_age: Duration::ZERO, ..SweeperOptions::default() };
    let deps = SweeperDeps { metastore: lake.metastore.clone(), buckets: lake.buckets.clone() };
    sweep::build(options, deps).0
}

fn catalog_deps(lake: &Lake) -> CatalogDeps {
    CatalogDeps {
        metastore: lake.metastore.clone(),
        buckets: lake.buckets.clone(),
        placement: std::sync::Arc::new(OnePlace::new(BUCKET)),
    }
}

/// Forty requests, each ingested alone; the thirty-second L0 segment asks for compaction at once.
async fn compacted(options: MetastoreOptions) -> Lake {
    let lake = Lake::with(options).await;
    let receiver = lake.receiver(one_object_a_request());
    for batch in 0..40 {
        lake.push_logs(&receiver, batch * 10..batch * 10 + 10).await.expect("is acknowledged");
    }
    let one_by_one = tidemill_lake::worker::WorkerOptions { bundle_items: 1, ..lake.worker_options("one by one") };
    let (handle, task) = lake.worker(one_by_one);
    lake.until_drained().await;
    handle.stop();
    task.await.expect("ends");
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_every_row() {
    let lake = compacted(MetastoreOptions::default()).await;
    let segments = lake.segments().await;
    assert!(segments.iter().any(|meta| meta.level == Level(1)), "{segments:?}");
    assert!(segments.len() < 40);
    let bodies = log_bodies(&lake, &segments);
    assert_eq!(bodies.len(), 400);
    assert!(bodies.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweeper_deletes_what_is_replaced_or_orphaned_and_nothing_else() {
    let lake = compacted(without_grace()).await;
    let orphan = format!("db/{}/logs/20260101/t0/l0/1-{}-0.parquet", lake.organization, uuid::Uuid::new_v4().simple());
    let body = PutBody::Chunks(vec![bytes::Bytes::from_static(b"an upload whose lease was lost")]);
    lake.store.put(&orphan, body, PutMode::IfAbsent).await.expect("is stored");
    let foreign =
        [format!("db/{}/default/20260101/logs/00/tbl_1.parquet", lake.organization), "raw/app.log".to_owned()];
    for key in &foreign {
        let body = PutBody::Chunks(vec![bytes::Bytes::from_static(b"not ours")]);
        lake.store.put(key, body, PutMode::IfAbsent).await.expect("is stored");
    }
    let sweeper = sweeper(&lake);
    sweeper.sweep_doomed().await.expect("sweeps");
    sweeper.sweep_fully().await.expect("sweeps");
    for key in &foreign {
        lake.store.head(key).await.expect("what is not ours is left alone");
        lake.store.delete(key).await.expect("is deleted");
    }
    let mut live: Vec<String> = lake.segments().await.into_iter().map(|meta| meta.object_key).collect();
    live.sort();
    let left: Vec<String> = lake.keys("db/").await.into_iter().filter(|key| key.ends_with(".parquet")).collect();
    assert_eq!(left, live);
    assert_eq!(lake.keys("raw/").await, Vec::<String>::new());
    assert_eq!(log_bodies(&lake, &lake.segments().await).len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_rebuilt_from_the_bucket() {
    // Graces are long, so the bucket still holds what was replaced.
    let mut lake = compacted(MetastoreOptions::default()).await;
    let receiver = lake.receiver(one_object_a_request());
    lake.push_logs(&receiver, 1000..1010).await.expect("is acknowledged and not ingested");
    let before = lake.segments().await;
    let fresh = SqliteMetastore::open(&lake.folder.path().join("second.db")).await.expect("opens");
    lake.metastore = std::sync::Arc::new(fresh);
    let refused = sweeper(&lake);
    refused.sweep_fully().await.expect("sweeps nothing of what it does not know");
    let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
    assert!(report.unreadable.is_empty(), "{report:?}");
    assert_eq!(lake.segments().await, before, "{report:?}");
    assert_eq!(report.readmitted, 1, "{report:?}");
    lake.drain().await;
    let bodies = log_bodies(&lake, &lake.segments().await);
    assert_eq!(bodies.len(), 410);
    assert!(bodies.values().all(|count| *count == 1));
    let again = catalog::rebuild(&catalog_deps(&lake)).await.expect("may be repeated");
    assert_eq!((again.adopted, again.readmitted, again.retired), (0, 0, 0), "{again:?}");
    assert!(catalog::verify(&catalog_deps(&lake)).await.expect("is verified").is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_missing_and_changed_objects() {
    let lake = compacted(MetastoreOptions::default()).await;
    // The merge may have taken all that there was.
    lake.push_logs(&lake.receiver(one_object_a_request()), 400..410).await.expect("is acknowledged");
    lake.drain().await;
    let segments = lake.segments().await;
    let objects = lake.folder.path().join("objects");
    let sound = catalog::verify(&catalog_deps(&lake)).await.expect("is verified");
    assert!(sound.is_sound() && sound.unknown.is_empty(), "{sound:?}");
    std::fs::remove_file(objects.join(&segments[0].object_key)).expect("is removed");
    let path = objects.join(&segments[1].object_key);
    let mut bytes = std::fs::read(&path).expect("is read");
    let place = segments[1].footer.offset as usize + 10;
    bytes[place] ^= 0xff;
    std::fs::write(&path, bytes).expect("is written");
    let report = catalog::verify(&catalog_deps(&lake)).await.expect("is verified");
    assert_eq!(report.missing, [format!("{BUCKET}/{}", segments[0].object_key)]);
    assert_eq!(report.different.len(), 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_retires_what_is_past_its_days() {
    let lake = Lake::with(without_grace()).await;
    let receiver = lake.receiver(one_object_a_request());
    lake.push_logs(&receiver, 0..10).await.expect("is acknowledged");
    lake.drain().await;
    let mut organization = lake.metastore.organizations().await.expect("is read").remove(0);
    organization.retention_days = [Some(7), None, None];
    lake.metastore.update_organization(&organization).await.expect("is changed");
    let sweeper = sweeper(&lake);
    sweeper.sweep_fully().await.expect("sweeps");
    assert_eq!(lake.rows().await, 10, "today's rows are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_hour_is_rolled_up_and_late_samples_replace_its_rollups() {
    let lake = Lake::new().await;
    let receiver = lake.receiver(one_object_a_request());
    let hour = now().plus_ns(-3 * NANOS_PER_HOUR).hour();
    let at = |seconds: i64| hour.range().start.plus_ns(seconds * NANOS_PER_SECOND).0 as u64;
    receiver.push(lake.request(Signal::Metrics, gauge(&[at(5), at(15), at(3000)]))).await.expect("is acknowledged");
    lake.drain().await;
    lake.run_due_later().await;
    let first = rollups(&lake, hour).await;
    assert_eq!(first.iter().map(|meta| meta.tier).collect::<Vec<_>>(), Tier::ROLLUPS);
    assert!(first.iter().all(|meta| meta.covers_ingest_seq == 1), "{first:?}");
    assert_eq!(first[0].rows, 3);
    receiver.push(lake.request(Signal::Metrics, gauge(&[at(25)]))).await.expect("is acknowledged");
    lake.drain().await;
    lake.run_due_later().await;
    let second = rollups(&lake, hour).await;
    assert_eq!(second.len(), Tier::ROLLUPS.len());
    assert!(second.iter().all(|meta| meta.covers_ingest_seq == 2));
    assert_eq!(second[0].rows, 4);
}

async fn rollups(lake: &Lake, hour: Hour) -> Vec<SegmentMeta> {
    let mut found = lake.segments().await;
    found.retain(|meta| meta.tier != Tier::RAW && meta.time.start.hour() == hour);
    found.sort_by_key(|meta| meta.tier);
    found
}

/// A second database over the same bucket, as after the first one was lost.
async fn lose_the_database(lake: &mut Lake, times: u32) {
    let fresh = SqliteMetastore::open(&lake.folder.path().join(format!("lost-{times}.db"))).await.expect("opens");
    lake.metastore = std::sync::Arc::new(fresh);
}

async fn copy_object(from: &Lake, to: &Lake, key: &str) -> String {
    let bytes = std::fs::read(from.folder.path().join("objects").join(key)).expect("is read");
    let (folder, _) = key.rsplit_once('/').expect("has a folder");
    let copy = format!("{folder}/{}.binpb", uuid::Uuid::now_v7().simple());
    to.store.put(&copy, PutBody::Chunks(vec![bytes.into()]), PutMode::IfAbsent).await.expect("is stored");
    copy
}

/// The receiver was killed between the raw object and its admission; the sender came again, and was ingested.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_stored_twice_is_rebuilt_once() {
    let mut lake = Lake::with(without_grace()).await;
    let receiver = lake.receiver(one_object_a_request());
    let body = crate::support::logs(0..10);
    receiver.push(lake.request(Signal::Logs, body.clone())).await.expect("is acknowledged");
    let raw = lake.keys("raw/").await.remove(0);
    copy_object(&lake, &lake, &raw).await;
    lake.drain().await;
    sweeper(&lake).sweep_doomed().await.expect("sweeps the one that was ingested");
    assert_eq!(lake.keys("raw/").await.len(), 1, "the orphan is left");
    lose_the_database(&mut lake, 1).await;
    let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
    assert_eq!((report.adopted, report.readmitted, report.repeated), (1, 0, 1), "{report:?}");
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
    // The sender that never got its answer comes once more.
    let receiver = lake.receiver(one_object_a_request());
    receiver.push(lake.request(Signal::Logs, body)).await.expect("is acknowledged");
    lake.drain().await;
    assert_eq!(lake.rows().await, 10, "the ledger was filled again");
}

/// A file was loaded and acknowledged, and the database is lost before it is ingested, and once more after it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_file_is_not_lost_with_the_database() {
    let mut lake = Lake::new().await;
    let identity = InputIdentity([7; 32]);
    let owner = (lake.organization, Signal::Logs, now().day());
    let key = loaded_object_key(owner, &identity, InputFormat::Csv, "app.txt");
    let body = PutBody::Chunks(vec![bytes::Bytes::from_static(b"data\n1\n2\n3\n")]);
    lake.store.put(&key, body, PutMode::IfAbsent).await.expect("is stored");
    for (round, expected) in [(1, (0, 1)), (2, (1, 0))] {
        lose_the_database(&mut lake, round).await;
        let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
        assert_eq!((report.adopted, report.readmitted), expected, "{report:?}");
        assert_eq!(lake.metastore.known_identities(&[identity]).await.expect("answers"), [true], "round {round}");
        lake.drain().await;
        assert_eq!(log_bodies(&lake, &lake.segments().await).len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_of_two_raw_objects_of_one_request_is_ingested_yet() {
    let mut lake = Lake::new().await;
    let receiver = lake.receiver(one_object_a_request());
    lake.push_logs(&receiver, 0..10).await.expect("is acknowledged");
    let raw = lake.keys("raw/").await.remove(0);
    copy_object(&lake, &lake, &raw).await;
    lose_the_database(&mut lake, 1).await;
    let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
    assert_eq!((report.readmitted, report.repeated), (1, 1), "{report:?}");
    lake.drain().await;
    assert_eq!(lake.rows().await, 10);
}

/// A lake whose one raw object holds two requests.
async fn two_in_one(first: Vec<u8>, second: Vec<u8>) -> Lake {
    let lake = Lake::new().await;
    let group_bytes = first.len() + second.len();
    let gather = Duration::from_secs(60);
    let receiver = lake.receiver(ReceiverOptions { gather, group_bytes, ..ReceiverOptions::default() });
    let pushes = [first, second].map(|body| receiver.push(lake.request(Signal::Logs, body)));
    for pushed in futures::future::join_all(pushes).await {
        pushed.expect("is acknowledged");
    }
    assert_eq!(lake.keys("raw/").await.len(), 1);
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_raw_object_that_is_partly_known_the_rest_is_ingested() {
    let mut lake = Lake::with(without_grace()).await;
    let receiver = lake.receiver(one_object_a_request());
    let known = crate::support::logs(0..10);
    receiver.push(lake.request(Signal::Logs, known.clone())).await.expect("is acknowledged");
    lake.drain().await;
    sweeper(&lake).sweep_doomed().await.expect("sweeps");
    let other = two_in_one(known, crate::support::logs(10..25)).await;
    let orphan = copy_object(&other, &lake, &other.keys("raw/").await[0]).await;
    lose_the_database(&mut lake, 1).await;
    let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
    assert_eq!((report.adopted, report.readmitted, report.repeated), (1, 1, 0), "{report:?}");
    lake.drain().await;
    let bodies = log_bodies(&lake, &lake.segments().await);
    assert_eq!(bodies.len(), 25);
    assert!(bodies.values().all(|count| *count == 1), "{bodies:?}");
    let again = catalog::rebuild(&catalog_deps(&lake)).await.expect("may be repeated");
    assert_eq!((again.adopted, again.readmitted), (0, 0), "{again:?}");
    assert_eq!(lake.keys("raw/").await.iter().filter(|key| **key == orphan).count(), 1, "left to the sweeper");
}

/// Merges list the requests behind their inputs, and a database is lost after the inputs were swept.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_merged_is_still_known() {
    let mut lake = Lake::with(without_grace()).await;
    let receiver = lake.receiver(one_object_a_request());
    lake.push_logs(&receiver, 0..10).await.expect("is acknowledged");
    let raw = lake.keys("raw/").await.remove(0);
    copy_object(&lake, &lake, &raw).await;
    for batch in 1..40 {
        lake.push_logs(&receiver, batch * 10..batch * 10 + 10).await.expect("is acknowledged");
    }
    let one_by_one = tidemill_lake::worker::WorkerOptions { bundle_items: 1, ..lake.worker_options("one by one") };
    let (handle, task) = lake.worker(one_by_one);
    lake.until_drained().await;
    handle.stop();
    task.await.expect("ends");
    sweeper(&lake).sweep_doomed().await.expect("sweeps");
    assert!(lake.segments().await.iter().any(|meta| meta.level == Level(1)));
    assert_eq!(lake.keys("raw/").await.len(), 1, "the orphan is left");
    lose_the_database(&mut lake, 1).await;
    let report = catalog::rebuild(&catalog_deps(&lake)).await.expect("is rebuilt");
    assert_eq!((report.readmitted, report.repeated), (0, 1), "{report:?}");
    assert_eq!(lake.rows().await, 400);
}
