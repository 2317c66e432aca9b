//! A small lake to ask questions of: a folder, an embedded metastore, and telemetry made from numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_query::{QueryEngine, QueryLimits, QueryOptions, QueryStats};
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription, InputFormat};
use tidemill_segment::merge::{MergeInput, MergeOptions, merge_segments};
use tidemill_segment::push::{PushEncoding, check_push};
use tidemill_segment::rollup::{RollupOptions, rollup_hour};
use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::metastore::{ClaimRequest, NewWork, Publication, SegmentFilter};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Metastore, ObjectStore};
use tidemill_types::keys::SegmentKey;
use tidemill_types::{
    Action, Hour, LeaseToken, Level, OrganizationId, SegmentMeta, Signal, Tier, TimestampNs, WorkId, WorkQueue,
};

/// 2024-05-01T00:00:00Z.
pub const START_NS: i64 = 1_714_521_600_000_000_000;
pub const SECOND_NS: i64 = 1_000_000_000;
const BUCKET: &str = "lake";

pub struct World {
    pub folder: Arc<TempDir>,
    pub store: Arc<FolderStore>,
    pub metastore: Arc<SqliteMetastore>,
    pub engine: QueryEngine,
    pub organization: OrganizationId,
    works: i64,
}

pub fn organization(number: u8) -> OrganizationId {
    format!("{number:08}-0000-4000-8000-000000000000").parse().expect("a UUID")
}

pub fn engine(
    folder: &TempDir,
    store: &Arc<impl ObjectStore>,
    metastore: &Arc<SqliteMetastore>,
    uses_indexes: bool,
) -> QueryEngine {
    let buckets = Buckets::new();
    buckets.set(BUCKET, Arc::clone(store) as Arc<dyn ObjectStore>);
    let mut options = QueryOptions::new(folder.path().join("spill"));
    options.threads = 2;
    options.coalesce_gap_bytes = 4 << 10;
    options.uses_indexes = uses_indexes;
    let metastore: Arc<dyn Metastore> = Arc::clone(metastore) as Arc<dyn Metastore>;
    QueryEngine::new(metastore, Arc::new(buckets), options).expect("an engine")
}

impl World {
    pub async fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = Arc::new(FolderStore::open(&folder.path().join("objects")).expect("a folder store"));
        let metastore =
            Arc::new(SqliteMetastore::open(&folder.path().join("metastore.db")).await.expect("an embedded metastore"));
        for number in [1, 2] {
            let name = format!("organization {number}");
            metastore.create_organization(organization(number), &name).await.expect("it is created");
        }
        let folder = Arc::new(folder);
        let engine = engine(&folder, &store, &metastore, true);
        Self { folder, store, metastore, engine, organization: organization(1), works: 0 }
    }

    /// The same lake, asked by an engine that has read nothing yet.
    pub fn cold(&self) -> Self {
        self.with_engine(true)
    }

    /// The same lake, asked by an engine that reads everything.
    pub fn without_indexes(&self) -> Self {
        self.with_engine(false)
    }

    fn with_engine(&self, uses_indexes: bool) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            store: Arc::clone(&self.store),
            metastore: Arc::clone(&self.metastore),
            engine: engine(&self.folder, &self.store, &self.metastore, uses_indexes),
            organization: self.organization,
            works: self.works,
        }
    }

    pub async fn metastore_has(&self, meta: &SegmentMeta) -> bool {
        let live = self.metastore.segments(&SegmentFilter::default()).await.expect("it answers");
        live.iter().any(|other| other.id == meta.id)
    }

    /// Stores one OTLP/JSON request as a level 0 segment a day.
    pub async fn ingest(&mut self, signal: Signal, request: &Value) -> Vec<SegmentMeta> {
        self.ingest_for(self.organization, signal, request, START_NS + 3_600 * SECOND_NS * 24).await
    }

    pub async fn ingest_for(
        &mut self,
        owner: OrganizationId,
        signal: Signal,
        request: &Value,
        arrival_ns: i64,
    ) -> Vec<SegmentMeta> {
        let body = serde_json::to_vec(request).expect("it is JSON");
        let check = check_push(signal, PushEncoding::Json, &body).expect("a well-formed request");
        assert_eq!(check.rejected, 0, "{:?}", check.issues);
        let protobuf = check.protobuf.expect("JSON becomes protobuf");
        self.ingest_protobuf(owner, signal, &protobuf, arrival_ns).await
    }

    pub async fn ingest_protobuf(
        &mut self,
        owner: OrganizationId,
        signal: Signal,
        protobuf: &[u8],
        arrival_ns: i64,
    ) -> Vec<SegmentMeta> {
        let options = IngestOptions { signal, promote: Vec::new(), spool: self.spool(), memory_bytes: 64 << 20 };
        let mut encoder = BundleEncoder::new(options).expect("the options are fine");
        let input = InputDescription {
            label: "request.binpb".to_owned(),
            format: Some(InputFormat::OtlpProtobuf),
            arrival: TimestampNs(arrival_ns),
        };
        let report = encoder.read_input(&input, &mut std::io::Cursor::new(protobuf)).expect("it is read");
        assert_eq!((report.rejected, report.failure), (0, None), "{:?}", report.issues);
        let drafts = encoder.finish().expect("segments");
        self.publish(owner, drafts).await
    }

    /// Merges live segments into indexed ones and retires the inputs, leaving their objects.
    pub async fn compact(&mut self, inputs: &[SegmentMeta], level: u8) -> Vec<SegmentMeta> {
        let metas = self.merge(inputs, level).await;
        replace(&self.metastore, inputs, &metas).await;
        metas
    }

    /// Stores merged segments that nobody knows yet.
    pub async fn merge(&mut self, inputs: &[SegmentMeta], level: u8) -> Vec<SegmentMeta> {
        let file = |meta: &SegmentMeta| self.object_path(&meta.object_key);
        let merge = inputs.iter().map(|meta| MergeInput { meta: meta.clone(), file: file(meta) }).collect();
        let options =
            MergeOptions { level: Level(level), promote: Vec::new(), spool: self.spool(), target_bytes: 1 << 30 };
        let drafts = merge_segments(merge, options).expect("they merge");
        self.put(inputs[0].organization, drafts).await
    }

    /// Computes the rollup of an hour from all live segments of the finer tier.
    pub async fn roll_up(&mut self, tier: Tier, hour: Hour) {
        let live = self.metastore.segments(&SegmentFilter::default()).await.expect("it answers");
        let finer = live.into_iter().filter(|meta| meta.signal == Signal::Metrics && Some(meta.tier) == tier.finer());
        let range = hour.range();
        let inside = finer.filter(|meta| meta.tier == Tier::RAW || meta.time.start.hour() == hour);
        let inputs: Vec<MergeInput> = inside
            .filter(|meta| meta.time.start <= range.end && meta.time.end > range.start)
            .map(|meta| MergeInput { file: self.object_path(&meta.object_key), meta })
            .collect();
        let seqs = self.metastore.ingest_seqs(self.organization, Signal::Metrics, &[hour]).await.expect("it answers");
        let options =
            RollupOptions { tier, hour, covers_ingest_seq: seqs[0], replaces: Vec::new(), spool: self.spool() };
        let draft = rollup_hour(inputs, options).expect("is computed").expect("has rows");
        let segments = self.put(self.organization, vec![draft]).await;
        let token = self.claim_job(Signal::Metrics).await;
        let publication = Publication { segments, ..Publication::default() };
        self.metastore.publish(token, &publication).await.expect("is current");
    }

    /// Work that is held: what publishes needs some.
    pub async fn claim_job(&self, signal: Signal) -> LeaseToken {
        let queue = WorkQueue { signal, action: Action::Job };
        let work = NewWork {
            queue,
            organization: self.organization,
            instance_num: 1,
            priority: 0,
            delay: Duration::ZERO,
            dedupe_key: None,
            range: None,
            tier: Tier::RAW,
            size_bytes: 0,
            payload: json!({}),
        };
        self.metastore.enqueue(&[work]).await.expect("is enqueued");
        let claim = ClaimRequest {
            queues: vec![queue],
            max_items: 1,
            max_bytes: 1,
            lease: Duration::from_secs(60),
            worker: "test".to_owned(),
            after: None,
        };
        self.metastore.claim(&claim).await.expect("claims").expect("has work").token
    }

    async fn publish(&mut self, owner: OrganizationId, drafts: Vec<DraftSegment>) -> Vec<SegmentMeta> {
        let metas = self.put(owner, drafts).await;
        replace(&self.metastore, &[], &metas).await;
        metas
    }

    async fn put(&mut self, owner: OrganizationId, drafts: Vec<DraftSegment>) -> Vec<SegmentMeta> {
        let mut metas = Vec::new();
        for draft in drafts {
            self.works += 1;
            let key = SegmentKey {
                organization: owner,
                signal: draft.signal,
                day: draft.day,
                tier: draft.tier,
                level: draft.level,
                work: WorkId(self.works),
                token: LeaseToken(organization(7).0),
                ordinal: 0,
            };
            let body = match &draft.body {
                DraftBody::Memory(bytes) => PutBody::Chunks(vec![bytes.clone()]),
                DraftBody::File(file) => PutBody::File(file.path().to_owned()),
            };
            self.store.put(&key.object_key(), body, PutMode::IfAbsent).await.expect("it is stored");
            metas.push(draft.meta(&key, BUCKET, 1, None));
        }
        metas
    }

    fn spool(&self) -> PathBuf {
        let spool = self.folder.path().join("spool");
        fs::create_dir_all(&spool).expect("a folder");
        spool
    }

    pub fn object_path(&self, object_key: &str) -> PathBuf {
        fn find(folder: &Path, name: &str) -> Option<PathBuf> {
            fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
                let path = entry.path();
                if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
            })
        }
        find(&self.folder.path().join("objects"), object_key).expect("the object is a file")
    }

    pub async fn sql(&self, text: &str) -> (Vec<Vec<String>>, QueryStats) {
        self.sql_for(self.organization, text).await
    }

    pub async fn sql_for(&self, owner: OrganizationId, text: &str) -> (Vec<Vec<String>>, QueryStats) {
        let stream = match self.engine.sql(owner, text, QueryLimits::default()).await {
            Ok(stream) => stream,
            Err(error) => panic!("{text}: {error}"),
        };
        let stats = stream.stats();
        let batches = stream.collect().await.unwrap_or_else(|error| panic!("{text}: {error}"));
        (rows(&batches), stats.read())
    }

    /// The only value of the only row.
    pub async fn value(&self, text: &str) -> String {
        let (rows, _) = self.sql(text).await;
        assert!(rows.len() == 1 && rows[0].len() == 1, "{text}: {rows:?}");
        rows[0][0].clone()
    }

    pub async fn problem(&self, text: &str) -> tidemill_query::Error {
        match self.engine.sql(self.organization, text, QueryLimits::default()).await {
            Err(error) => error,
            Ok(stream) => stream.collect().await.expect_err(text),
        }
    }
}

/// Makes `outputs` live instead of `inputs`.
pub async fn replace(metastore: &SqliteMetastore, inputs: &[SegmentMeta], outputs: &[SegmentMeta]) {
    let ids: Vec<_> = inputs.iter().map(|meta| meta.id).collect();
    assert_eq!(metastore.retire_segments(&ids).await.expect("they are retired"), ids.len() as u64);
    assert_eq!(metastore.adopt_segments(outputs).await.expect("they are adopted"), outputs.len() as u64);
}

/// Every value as text, null as `NULL`.
pub fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("it has a text"))
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    rows
}

pub fn attribute(key: &str, value: Value) -> Value {
    let value = match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        other => other,
    };
    json!({ "key": key, "value": value })
}

pub fn log(time_ns: i64, body: &str, attributes: Vec<Value>) -> Value {
    json!({
        "timeUnixNano": time_ns.to_string(),
        "severityNumber": 9,
        "severityText": "INFO",
        "body": { "stringValue": body },
        "attributes": attributes,
    })
}

pub fn logs(service: &str, records: Vec<Value>) -> Value {
    json!({ "resourceLogs": [{
        "resource": { "attributes": [attribute("service.name", json!(service)), attribute("region", json!("eu"))] },
        "scopeLogs": [{ "scope": { "name": "test" }, "logRecords": records }],
    }] })
}
