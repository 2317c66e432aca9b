//! A fresh database of either kind, and the things that scenarios put into it.

use std::sync::Arc;
use std::time::Duration;

use tidemill_scaling::retry::RetryPolicy;
use tidemill_store::metastore::{
    Admission, Bundle, ClaimRequest, InputIdentity, NewInput, NewWork, Publication, queues_for,
};
use tidemill_store::postgres::{PostgresMetastore, PostgresOptions};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Metastore, MetastoreOptions};
use tidemill_types::{
    Action, ByteRange, Day, ErrorKind, Level, OrganizationId, SegmentId, SegmentMeta, ServiceSet, Signal, Tier,
    TimeRange, TimestampNs, WorkId, WorkQueue,
};
use uuid::Uuid;

/// Where one scenario's database lies.
pub enum Place {
    Sqlite(tempfile::TempDir),
    Postgres { dsn: String, database: String },
}

/// An open database of one of the two kinds.
pub enum Opened {
    Sqlite(SqliteMetastore),
    Postgres(Box<PostgresMetastore>),
}

impl Place {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    pub async fn postgres() -> Option<Self> {
        let Ok(dsn) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
            let is_required = ["CI", "TIDEMILL_REQUIRE_POSTGRES"].iter().any(|name| std::env::var_os(name).is_some());
            assert!(!is_required, "TIDEMILL_TEST_POSTGRES is not set");
            eprintln!("skipped: TIDEMILL_TEST_POSTGRES is not set");
            return None;
        };
        let database = format!("suite_{}", Uuid::new_v4().simple());
        execute(&dsn, None, &format!("CREATE DATABASE {database}")).await;
        Some(Self::Postgres { dsn, database })
    }

    pub async fn try_open(&self, options: MetastoreOptions) -> tidemill_store::Result<Opened> {
        Ok(match self {
            Self::Sqlite(folder) => {
                Opened::Sqlite(SqliteMetastore::open_with(&folder.path().join("metastore.sqlite"), options).await?)
            }
            Self::Postgres { dsn, database } => {
                let options = PostgresOptions {
                    database: Some(database.clone()),
                    metastore: options,
                    ..PostgresOptions::new(dsn)
                };
                Opened::Postgres(Box::new(PostgresMetastore::connect(&options).await?))
            }
        })
    }

    pub async fn open_with(&self, options: MetastoreOptions) -> Arc<dyn Metastore> {
        match self.try_open(options).await.expect("opens") {
            Opened::Sqlite(store) => Arc::new(store),
            Opened::Postgres(store) => Arc::new(*store),
        }
    }

    pub async fn open(&self) -> Arc<dyn Metastore> {
        self.open_with(quick()).await
    }

    /// Runs a statement beside the store.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("metastore.sqlite")).expect("opens");
                connection.execute_batch(sql).expect("runs");
            }
            Self::Postgres { dsn, database } => execute(dsn, Some(database), sql).await,
        }
    }

    /// The answer of a scaler's query.
    pub async fn number(&self, sql: &str) -> u64 {
        let number = match self.try_open(quick()).await.expect("opens") {
            Opened::Sqlite(store) => store.query_number(sql).await,
            Opened::Postgres(store) => store.query_number(sql).await,
        };
        number.expect("is a number") as u64
    }
}

async fn execute(dsn: &str, database: Option<&str>, sql: &str) {
    let mut config: tokio_postgres::Config = dsn.parse().expect("a PostgreSQL URL");
    if let Some(database) = database {
        config.dbname(database);
    }
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.expect("runs");
    drop(client);
    let _ = connection.await;
}

/// Options without pauses.
pub fn quick() -> MetastoreOptions {
    let retry = RetryPolicy { first_delay: Duration::ZERO, longest_delay: Duration::ZERO, max_failures: 3 };
    MetastoreOptions { retry, ..MetastoreOptions::default() }
}

pub const LOGS: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Ingest };
pub const JOBS: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Job };

pub fn organization_id(number: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(number << 64 | 0xa))
}

pub async fn organization(store: &dyn Metastore, number: u128) -> OrganizationId {
    let id = organization_id(number);
    store.create_organization(id, &format!("organization-{number}")).await.expect("is new").id
}

pub fn identity(number: u64) -> InputIdentity {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    InputIdentity(hash)
}

/// A pushed raw object with one request.
pub fn push(organization: OrganizationId, number: u64) -> NewInput {
    NewInput {
        organization,
        instance_num: 1,
        collector: "default".to_owned(),
        signal: Signal::Logs,
        bucket: "lake".to_owned(),
        object_key: format!("raw/{organization}/logs/20230130/{number}.binpb"),
        etag: Some(format!("etag-{number}")),
        size_bytes: 100,
        records: Some(7),
        identities: vec![identity(number)],
        arrived_at: TimestampNs(1_675_036_800_000_000_000),
        owned: true,
        priority: 0,
        format: Some("otlp-protobuf".to_owned()),
    }
}

pub async fn admit(store: &dyn Metastore, input: NewInput) -> WorkId {
    match store.admit(&[input]).await.expect("is admitted").as_slice() {
        [Admission::Admitted(id)] => *id,
        other => panic!("{other:?}"),
    }
}

/// A job with a number as its payload.
pub fn job(organization: OrganizationId, number: u64) -> NewWork {
    NewWork {
        queue: JOBS,
        organization,
        instance_num: 1,
        priority: 0,
        delay: Duration::ZERO,
        dedupe_key: None,
        range: None,
        tier: Tier::RAW,
        size_bytes: 1,
        payload: serde_json::json!({ "number": number }),
    }
}

pub async fn enqueue_jobs(store: &dyn Metastore, organization: OrganizationId, numbers: std::ops::Range<u64>) {
    let jobs: Vec<NewWork> = numbers.map(|number| job(organization, number)).collect();
    store.enqueue(&jobs).await.expect("are enqueued");
}

/// A minute's lease on up to `max_items` items of any queue.
pub fn request(max_items: usize) -> ClaimRequest {
    let actions = [Action::Ingest, Action::Compact, Action::Rollup, Action::Job];
    ClaimRequest {
        queues: queues_for(&Signal::ALL, &actions),
        max_items,
        max_bytes: u64::MAX >> 1,
        lease: Duration::from_secs(60),
        worker: "host/1/worker".to_owned(),
        after: None,
    }
}

/// A claim whose lease is over at once: the attempt will count as a crash.
pub fn doomed_request(max_items: usize) -> ClaimRequest {
    ClaimRequest { lease: Duration::ZERO, ..request(max_items) }
}

pub async fn claim(store: &dyn Metastore, max_items: usize) -> Bundle {
    store.claim(&request(max_items)).await.expect("claims").expect("something is claimable")
}

pub fn numbers(bundle: &Bundle) -> Vec<u64> {
    bundle.items.iter().map(|item| item.payload["number"].as_u64().expect("a number")).collect()
}

pub fn segment(organization: OrganizationId, number: u64) -> SegmentMeta {
    let start = Day(19_387).range().start;
    let object_key =
        format!("db/{organization}/logs/20230130/t0/l0/{number}-{}-0.parquet", Uuid::from_u128(number.into()).simple());
    SegmentMeta {
        id: SegmentId(Uuid::from_u128(u128::from(number) << 64 | organization.0.as_u128() >> 64)),
        organization,
        signal: Signal::Logs,
        tier: Tier::RAW,
        level: Level(0),
        day: Day(19_387),
        time: TimeRange { start, end: start.plus_ns(1_000) },
        ingest_day: Day(19_388),
        rows: 10,
        bytes: 1_000,
        bucket: "lake".to_owned(),
        instance_num: 1,
        object_key,
        etag: Some("e".to_owned()),
        footer: ByteRange { offset: 900, len: 92 },
        footer_hash: [7; 32],
        index: ByteRange { offset: 800, len: 100 },
        services: ServiceSet::Names(vec!["cart".to_owned(), "web".to_owned()]),
        covers_ingest_seq: 0,
    }
}

/// Publishes segments under a lease of their own.
pub async fn publish(store: &dyn Metastore, organization: OrganizationId, publication: Publication) {
    store.enqueue(&[job(organization, 0)]).await.expect("is enqueued");
    let request = ClaimRequest { queues: vec![JOBS], ..request(1) };
    let bundle = store.claim(&request).await.expect("claims").expect("something is claimable");
    store.publish(bundle.token, &publication).await.expect("is published");
}

pub fn with_segments(segments: Vec<SegmentMeta>) -> Publication {
    Publication { segments, ..Publication::default() }
}

#[track_caller]
pub fn assert_kind<T: std::fmt::Debug>(result: tidemill_store::Result<T>, kind: ErrorKind) {
    let error = result.expect_err("is refused");
    assert_eq!(error.kind(), kind, "{error}");
}
