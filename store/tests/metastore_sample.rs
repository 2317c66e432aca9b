//! A database that an earlier version wrote is opened by this one, with all that is in it.
//!
//! `TIDEMILL_REWRITE=1` writes the samples of the newest schemas again; older samples are never touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_store::Metastore;
use tidemill_store::metastore::{
    ApiKey, ClaimRequest, InputIdentity, KeyRole, NewInput, NewWork, Publication, Refusal, SegmentFilter, TraceDay,
    TraceDayChange, queues_for,
};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_types::{
    Action, ByteRange, CatalogSeq, Day, Hour, Level, OrganizationId, SegmentId, SegmentMeta, ServiceSet, Signal, Tier,
    TimestampNs, WorkQueue,
};
use uuid::Uuid;

#[path = "metastore_sample/on_postgres.rs"]
mod on_postgres;

/// The schema that this build writes.
const NEWEST: u32 = 2;

fn sample(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/samples/metastore-v{schema}.sqlite"))
}

fn organization() -> OrganizationId {
    OrganizationId(Uuid::from_u128(0xdddd_dddd_aaaa_4ff9_ae8f_3658_73c5_52f0))
}

fn segment() -> SegmentMeta {
    SegmentMeta {
        id: SegmentId(Uuid::from_u128(7)),
        organization: organization(),
        signal: Signal::Traces,
        tier: Tier::RAW,
        level: Level(1),
        day: Day(19_387),
        time: Day(19_387).range(),
        ingest_day: Day(19_388),
        rows: 12,
        bytes: 34_567,
        bucket: "lake".to_owned(),
        instance_num: 1,
        object_key: "db/o/traces/20230130/t0/l1/1-00000000000000000000000000000007-0.parquet".to_owned(),
        etag: Some("e".to_owned()),
        footer: ByteRange { offset: 30_000, len: 4_559 },
        footer_hash: [9; 32],
        index: ByteRange { offset: 20_000, len: 10_000 },
        services: ServiceSet::Names(vec!["cart".to_owned(), "größe".to_owned()]),
        covers_ingest_seq: 0,
    }
}

/// Since schema 2.
fn trace_day() -> TraceDay {
    TraceDay {
        organization: organization(),
        instance_num: 1,
        day: Day(19_387),
        bucket: "lake".to_owned(),
        object_key: "db/o/traces/20230130/index/1-00000000000000000000000000000007-1.tmtd".to_owned(),
        bytes: 1_234,
        tail_bytes: 200,
        segments: vec![segment().id],
    }
}

fn push(number: u8) -> NewInput {
    NewInput {
        organization: organization(),
        instance_num: 1,
        collector: "default".to_owned(),
        signal: Signal::Logs,
        bucket: "lake".to_owned(),
        object_key: format!("raw/{number}.binpb"),
        etag: None,
        size_bytes: 10,
        records: None,
        identities: vec![InputIdentity([number; 32])],
        arrived_at: TimestampNs(5),
        owned: false,
        priority: 10,
        format: Some("otlp-protobuf".to_owned()),
    }
}

fn claim(lease: Duration) -> ClaimRequest {
    ClaimRequest {
        queues: queues_for(&Signal::ALL, &Action::ALL),
        max_items: 1,
        max_bytes: 1,
        lease,
        worker: "sample".to_owned(),
        after: None,
    }
}

async fn write_sample(store: &dyn Metastore) {
    store.create_organization(organization(), "sample").await.expect("is new");
    let key = ApiKey {
        id: "tm_abc".to_owned(),
        hash: [3; 32],
        organization: Some(organization()),
        role: KeyRole::Organization,
        label: "a label".to_owned(),
        created_at: TimestampNs(1),
    };
    store.create_key(&key).await.expect("is new");
    store.store_document("storage-profiles", "- a: 1\n").await.expect("stores");
    store.admit(&[push(1)]).await.expect("is admitted");
    let bundle = store.claim(&claim(Duration::from_secs(60))).await.expect("claims").expect("has work");
    let refusals = vec![Refusal {
        organization: Some(organization()),
        signal: Some(Signal::Logs),
        bucket: "lake".to_owned(),
        object_key: "raw/1.binpb".to_owned(),
        records_refused: 1,
        records_kept: 2,
        reason: "a reason".to_owned(),
        at: TimestampNs(i64::MAX / 2),
    }];
    let publication = Publication {
        segments: vec![segment()],
        trace_days: vec![TraceDayChange { index: trace_day(), replaces: None }],
        raised_hours: vec![Hour(465_288)],
        refusals,
        enqueue: vec![NewWork {
            queue: WorkQueue { signal: Signal::Logs, action: Action::Compact },
            organization: organization(),
            instance_num: 1,
            priority: 0,
            delay: Duration::ZERO,
            dedupe_key: Some("day".to_owned()),
            range: Some(Day(19_387).range()),
            tier: Tier::RAW,
            size_bytes: 3,
            payload: serde_json::json!({"day": 19_387}),
        }],
        ..Publication::default()
    };
    store.publish(bundle.token, &publication).await.expect("is current");
    store.admit(&[push(2), push(3)]).await.expect("are admitted");
    let ingest = ClaimRequest { queues: queues_for(&Signal::ALL, &[Action::Ingest]), ..claim(Duration::from_secs(60)) };
    let dead = store.claim(&ingest).await.expect("claims").expect("has work");
    store.fail(dead.token, "cannot be read", true).await.expect("is current");
    // A lease that is over when the sample is opened, and whose holder is gone.
    let over = ClaimRequest { lease: Duration::ZERO, ..ingest };
    store.claim(&over).await.expect("claims").expect("has work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_schema_1_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_sample(folder.path(), 1).await;
    assert_eq!(store.trace_days(organization(), Day(i32::MIN), Day(i32::MAX)).await.expect("lists"), []);
    check_sample(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_schema_2_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    if std::env::var_os("TIDEMILL_REWRITE").is_some() {
        let written = folder.path().join("new.sqlite");
        write_sample(&SqliteMetastore::open(&written).await.expect("opens")).await;
        let compact = rusqlite::Connection::open(&written).expect("opens");
        compact.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("is written into the file");
        std::fs::copy(&written, sample(NEWEST)).expect("is copied");
    }
    let store = open_sample(folder.path(), 2).await;
    assert_eq!(store.trace_days(organization(), Day(i32::MIN), Day(i32::MAX)).await.expect("lists"), [trace_day()]);
    check_sample(&store).await;
}

async fn open_sample(folder: &Path, schema: u32) -> SqliteMetastore {
    let path = folder.join("metastore.sqlite");
    std::fs::copy(sample(schema), &path).expect("the sample is committed");
    // The sample may be older than the memory of identities.
    let aged = rusqlite::Connection::open(&path).expect("opens");
    aged.execute("UPDATE identities SET forget_at = ?1", [i64::MAX / 2]).expect("is remembered");
    drop(aged);
    SqliteMetastore::open(&path).await.expect("opens")
}

/// What every sample holds.
async fn check_sample(store: &dyn Metastore) {
    assert_eq!(store.organizations().await.expect("lists")[0].name, "sample");
    assert_eq!(store.keys(None).await.expect("lists")[0].hash, [3; 32]);
    assert_eq!(store.document("storage-profiles").await.expect("reads").as_deref(), Some("- a: 1\n"));
    assert_eq!(store.segments(&SegmentFilter::default()).await.expect("lists"), [segment()]);
    assert_eq!(store.ingest_seqs(organization(), Signal::Logs, &[Hour(465_288)]).await.expect("reads"), [1]);
    let delta = store.catalog_changes(CatalogSeq(0), 10).await.expect("reads");
    assert_eq!((delta.seq, delta.added.len()), (CatalogSeq(1), 1));
    let known = [InputIdentity([1; 32]), InputIdentity([4; 32])];
    assert_eq!(store.known_identities(&known).await.expect("answers"), [true, false]);
    let mut states: Vec<String> =
        store.inbox(None, 10).await.expect("lists").into_iter().map(|entry| entry.state).collect();
    states.sort_unstable();
    assert_eq!(states, ["dead", "refused", "waiting"]);
    assert_eq!(store.redrive(None).await.expect("redrives"), 1);
    let backlog = store.backlog().await.expect("counts");
    let compact =
        backlog.iter().find(|backlog| backlog.queue.action == Action::Compact && backlog.queue.signal == Signal::Logs);
    assert_eq!(compact.map(|backlog| backlog.runnable), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_writes_is_a_whole_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metastore.sqlite");
    let store = std::sync::Arc::new(SqliteMetastore::open(&path).await.expect("opens"));
    store.create_organization(organization(), "sample").await.expect("is new");
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..60 {
                store.admit(&[push(number)]).await.expect("is admitted");
            }
        })
    };
    let copy = folder.path().join("backup.sqlite");
    store.back_up(&copy).await.expect("is copied");
    assert!(store.back_up(&copy).await.is_err(), "a backup is never overwritten");
    writer.await.expect("wrote");
    let restored = SqliteMetastore::open(&copy).await.expect("opens");
    let inbox = restored.inbox(None, 100).await.expect("lists");
    let identities: Vec<InputIdentity> = (0..60).map(|number| InputIdentity([number; 32])).collect();
    let known = restored.known_identities(&identities).await.expect("answers");
    assert_eq!(inbox.len(), known.iter().filter(|known| **known).count(), "rows and identities are of one moment");
}
