//! One organization's lake over SQLite and a folder, with a clock and a store that fails on demand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::place::OnePlace;
use tidemill_lake::receive::{
    self, Compression, Gate, PushOutcome, PushRequest, Receiver, ReceiverDeps, ReceiverOptions,
};
use tidemill_lake::worker::{self, WorkerDeps, WorkerHandle, WorkerOptions};
use tidemill_segment::push::PushEncoding;
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::metastore::{NewWork, QueueEntry, SegmentFilter};
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Error, Metastore, MetastoreOptions, ObjectStore};
use tidemill_types::{Action, Day, ErrorKind, OrganizationId, SegmentMeta, Signal, Tier, TimestampNs, WorkQueue};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub const BUCKET: &str = "main";

/// What an operation of the store does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers as a store that is down.
    Unavailable,
    /// Sends half of the bytes it announced, and ends.
    Torn,
}

/// A folder that fails the next operations whose key contains a text.
#[derive(Debug)]
pub struct FaultyStore {
    pub folder: FolderStore,
    pub gets: AtomicU32,
    faults: parking_lot::Mutex<Vec<(&'static str, &'static str, Fault, u32)>>,
}

impl FaultyStore {
    /// The next `times` of `operation` on keys that contain `part` fail.
    pub fn fail(&self, operation: &'static str, part: &'static str, fault: Fault, times: u32) {
        self.faults.lock().push((operation, part, fault, times));
    }

    fn fault(&self, operation: &'static str, key: &str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let place =
            faults.iter().position(|(of, part, _, left)| *of == operation && key.contains(part) && *left > 0)?;
        faults[place].3 -= 1;
        Some(faults[place].2)
    }

    fn check(&self, operation: &'static str, key: &str) -> tidemill_store::Result<()> {
        match self.fault(operation, key) {
            Some(_) => Err(Error::new(operation, key, ErrorKind::Unavailable, "503 Slow Down")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> tidemill_store::Result<ObjectInfo> {
        self.check("put", key)?;
        self.folder.put(key, body, mode).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> tidemill_store::Result<ObjectRead> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault("get", key);
        if fault == Some(Fault::Unavailable) {
            return Err(Error::new("get", key, ErrorKind::Unavailable, "503 Slow Down"));
        }
        let read = self.folder.get(key, if_match).await?;
        if fault.is_none() {
            return Ok(read);
        }
        let half = read.info.size / 2;
        let whole: Vec<Bytes> = read.body.map(|chunk| chunk.expect("a folder reads")).collect().await;
        let torn = Bytes::from(whole.concat()).slice(..half as usize);
        Ok(ObjectRead { info: read.info, body: futures::stream::iter([Ok(torn)]).boxed() })
    }

    async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> tidemill_store::Result<Vec<Bytes>> {
        self.check("get", key)?;
        self.folder.get_ranges(key, ranges).await
    }

    async fn head(&self, key: &str) -> tidemill_store::Result<ObjectInfo> {
        self.folder.head(key).await
    }

    async fn delete(&self, key: &str) -> tidemill_store::Result<()> {
        self.check("delete", key)?;
        self.folder.delete(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, tidemill_store::Result<ObjectInfo>> {
        self.folder.list(prefix)
    }
}

/// Everything but the processes.
pub struct Lake {
    pub folder: tempfile::TempDir,
    pub metastore: Arc<dyn Metastore>,
    pub buckets: Arc<Buckets>,
    pub store: Arc<FaultyStore>,
    pub organization: OrganizationId,
    pub gate: Gate,
}

impl Lake {
    pub async fn new() -> Self {
        Self::with(MetastoreOptions::default()).await
    }

    pub async fn with(options: MetastoreOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore = SqliteMetastore::open_with(&folder.path().join("metastore.db"), options).await.expect("opens");
        let objects = FolderStore::open(&folder.path().join("objects")).expect("opens");
        let store =
            Arc::new(FaultyStore { folder: objects, gets: AtomicU32::new(0), faults: parking_lot::Mutex::default() });
        let buckets = Arc::new(Buckets::new());
        buckets.set(BUCKET, store.clone());
        let organization = OrganizationId(Uuid::from_u128(7));
        metastore.create_organization(organization, "tide").await.expect("is created");
        Self { folder, metastore: Arc::new(metastore), buckets, store, organization, gate: Gate::default() }
    }

    pub fn receiver(&self, options: ReceiverOptions) -> Receiver {
        let deps = ReceiverDeps {
            metastore: self.metastore.clone(),
            buckets: self.buckets.clone(),
            placement: Arc::new(OnePlace::new(BUCKET)),
            clock: Arc::new(SystemClock),
            gate: self.gate.clone(),
        };
        let (receiver, task) = receive::build(options, deps);
        tokio::spawn(task.run());
        receiver
    }

    pub fn request(&self, signal: Signal, body: impl Into<Bytes>) -> PushRequest {
        PushRequest {
            organization: self.organization,
            signal,
            collector: "default".to_owned(),
            encoding: PushEncoding::Protobuf,
            compression: Compression::Identity,
            body: body.into(),
            idempotency_key: None,
            arrival: now(),
            reservation: None,
        }
    }

    pub async fn push_logs(&self, receiver: &Receiver, bodies: Range<u32>) -> tidemill_lake::Result<PushOutcome> {
        receiver.push(self.request(Signal::Logs, logs(bodies))).await
    }

    pub fn worker_options(&self, name: &str) -> WorkerOptions {
        WorkerOptions {
            poll: Duration::from_millis(20),
            ..WorkerOptions::new(WorkQueue::all(), name, self.folder.path().join("spool"))
        }
    }

    pub fn worker_deps(&self) -> WorkerDeps {
        WorkerDeps {
            metastore: self.metastore.clone(),
            buckets: self.buckets.clone(),
            placement: Arc::new(OnePlace::new(BUCKET)),
            clock: Arc::new(SystemClock),
        }
    }

    pub fn worker(&self, options: WorkerOptions) -> (WorkerHandle, JoinHandle<()>) {
        let (handle, task) = worker::build(options, self.worker_deps()).expect("builds");
        (handle, tokio::spawn(task.run()))
    }

    /// Works until nothing is runnable or leased.
    pub async fn drain(&self) {
        let (handle, task) = self.worker(self.worker_options("drain"));
        self.until_drained().await;
        handle.stop();
        task.await.expect("ends");
    }

    /// Makes everything that waits for its time runnable, as if the time had come, and works it off.
    pub async fn run_due_later(&self) {
        for entry in self.metastore.queue(None, false, 1000).await.expect("is read") {
            let work = NewWork {
                queue: entry.queue,
                organization: entry.organization,
                instance_num: 1,
                priority: 0,
                delay: Duration::ZERO,
                dedupe_key: Some(self.dedupe_key(&entry)),
                range: None,
                tier: Tier::RAW,
                size_bytes: 0,
                payload: entry.payload,
            };
            self.metastore.enqueue(&[work]).await.expect("is enqueued");
        }
        self.drain().await;
    }

    /// The key under which the lake itself enqueues this work.
    fn dedupe_key(&self, entry: &QueueEntry) -> String {
        match entry.queue.action {
            Action::Rollup => format!("hour/{}", entry.payload["hour"]),
            _ => {
                let is_index = entry.payload["task"] == "trace-index";
                let day = Day(entry.payload["day"].as_i64().expect("a day") as i32);
                format!("{}/{day}/1", if is_index { "traces" } else { "day" })
            }
        }
    }

    /// Asks for the day index of traces, as compaction does once a day rests.
    pub async fn enqueue_trace_index(&self, day: Day) {
        let work = NewWork {
            queue: WorkQueue { signal: Signal::Traces, action: Action::Compact },
            organization: self.organization,
            instance_num: 1,
            priority: 10,
            delay: Duration::ZERO,
            dedupe_key: Some(format!("traces/{day}/1")),
            range: Some(day.range()),
            tier: Tier::RAW,
            size_bytes: 0,
            payload: serde_json::json!({ "day": day, "task": "trace-index" }),
        };
        self.metastore.enqueue(&[work]).await.expect("is enqueued");
    }

    pub async fn until_drained(&self) {
        loop {
            let backlog = self.metastore.backlog().await.expect("is read");
            if backlog.iter().all(|queue| queue.runnable == 0 && queue.leased == 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    pub async fn segments(&self) -> Vec<SegmentMeta> {
        self.metastore.segments(&SegmentFilter::default()).await.expect("is read")
    }

    pub async fn rows(&self) -> u64 {
        self.segments().await.iter().map(|meta| meta.rows).sum()
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        self.store.list(prefix).map(|info| info.expect("is listed").key).collect().await
    }
}

pub fn now() -> TimestampNs {
    tidemill_lake::clock::Clock::now(&SystemClock)
}

fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

/// A request of one log record for each number.
pub fn logs(bodies: Range<u32>) -> Vec<u8> {
    let time = now().0 as u64;
    logs_at(time, bodies)
}

/// The same at a given time.
pub fn logs_at(time: u64, bodies: Range<u32>) -> Vec<u8> {
    let log_records = bodies
        .map(|number| LogRecord {
            time_unix_nano: time,
            body: Some(text(format!("body {number}"))),
            ..LogRecord::default()
        })
        .collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource = ResourceLogs { scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
}

/// A request of two spans for each number, whose traces are in no order.
pub fn spans_at(time: u64, traces: Range<u32>) -> Vec<u8> {
    let spans = traces.flat_map(|number| [(number, 1_u64), (number, 2)]).map(|(number, span)| Span {
        trace_id: [u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), [7; 8]].concat(),
        span_id: span.to_be_bytes().to_vec(),
        name: "turn".to_owned(),
        start_time_unix_nano: time,
        end_time_unix_nano: time + span,
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    let resource = ResourceSpans { scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
}

/// A request of gauge points, one for each time.
pub fn gauge(times: &[u64]) -> Vec<u8> {
    let points = times.iter().map(|time| NumberDataPoint {
        time_unix_nano: *time,
        value: Some(number_data_point::Value::AsDouble(*time as f64)),
        ..NumberDataPoint::default()
    });
    let gauge = Gauge { data_points: points.collect() };
    let metric = Metric { name: "level".to_owned(), data: Some(metric::Data::Gauge(gauge)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource = opentelemetry_proto::tonic::resource::v1::Resource {
        attributes: vec![KeyValue { key: "service.name".to_owned(), value: Some(text("mill")), ..KeyValue::default() }],
        ..opentelemetry_proto::tonic::resource::v1::Resource::default()
    };
    let metrics = ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec()
}

/// The value of a Parquet column in all of a file's rows, as text.
pub fn log_bodies(lake: &Lake, segments: &[SegmentMeta]) -> HashMap<String, u32> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let mut bodies = HashMap::new();
    for meta in segments {
        let file = std::fs::File::open(lake.folder.path().join("objects").join(&meta.object_key)).expect("exists");
        let reader = SerializedFileReader::new(file).expect("is Parquet");
        let place =
            reader.metadata().file_metadata().schema_descr().columns().iter().position(|one| one.name() == "body");
        let schema = reader.metadata().file_metadata().schema().clone();
        let field = schema.get_fields().iter().position(|one| one.name() == "body").expect("has bodies");
        assert!(place.is_some());
        for row in reader.get_row_iter(None).expect("has rows") {
            let row = row.expect("is read");
            let body = row.get_string(field).expect("is text").clone();
            *bodies.entry(body).or_insert(0) += 1;
        }
    }
    bodies
}
