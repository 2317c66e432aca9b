//! The store of test scripts that is a lake: samples become segments that are late, overlap, repeat each other and are partly compacted,
//! and queries read them as a server does.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tidemill_eval::promql::script::{Loaded, LoadedSample, Store};
use tidemill_eval::promql::{Histogram, ResetHint, Sample, Samples, Select, Series, Source};
use tidemill_eval::{Error as EvalError, Result as EvalResult};
use tidemill_query::promql::PromqlLimits;
use tidemill_query::{QueryEngine, QueryOptions};
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription, InputFormat};
use tidemill_segment::merge::{MergeInput, MergeOptions, merge_segments};
use tidemill_segment::remote_write::{WrittenHistogram, WrittenSample, WrittenSeries, encode_otlp};
use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Metastore, ObjectStore};
use tidemill_types::keys::SegmentKey;
use tidemill_types::{ErrorKind, LeaseToken, Level, OrganizationId, SegmentMeta, Signal, TimestampNs, WorkId};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Scripts begin in 1970, from when no segment holds anything: their time 0 is 2024-05-01 here.
const SHIFT_MS: i64 = 1_714_521_600_000;
/// 2200-01-01: later than any sample of a script.
const FIRST_ARRIVAL_NS: i64 = 7_258_118_400_000_000_000;
const BUCKET: &str = "scripts";
/// A query ends before that.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// A lake in a folder of its own, which goes with it.
pub struct SegmentStore {
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
    metastore: Arc<SqliteMetastore>,
    objects: Arc<FolderStore>,
    engine: QueryEngine,
    organization: OrganizationId,
    random: StdRng,
    works: i64,
    source: Option<Shifted>,
}

impl Drop for SegmentStore {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the folder of a script");
        }
    }
}

/// A live segment and a file with its bytes.
#[derive(Clone)]
struct Live {
    meta: SegmentMeta,
    file: PathBuf,
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> EvalError {
    EvalError::Source { what: what.to_owned(), kind: ErrorKind::Internal, source: Box::new(error) }
}

fn told(error: impl std::fmt::Display) -> EvalError {
    EvalError::Data(format!("the store of the script: {error}"))
}

impl SegmentStore {
    /// An empty lake; `seed` decides how samples are spread over segments.
    ///
    /// # Errors
    /// The folder or the database cannot be made.
    pub fn new(seed: u64) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tidemill-scripts-{}", Uuid::new_v4()));
        for part in ["spool", "spill", "files"] {
            fs::create_dir_all(folder.join(part))
                .map_err(|error| Error::io("making a folder for the script", error))?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::caused(ErrorKind::Internal, "starting the runtime", error))?;
        let objects = Arc::new(FolderStore::open(&folder.join("objects"))?);
        let metastore = Arc::new(runtime.block_on(SqliteMetastore::open(&folder.join("metastore.sqlite")))?);
        let buckets = Buckets::new();
        buckets.set(BUCKET, Arc::clone(&objects) as Arc<dyn ObjectStore>);
        let shared: Arc<dyn Metastore> = Arc::clone(&metastore) as Arc<dyn Metastore>;
        let engine = QueryEngine::new(shared, Arc::new(buckets), QueryOptions::new(folder.join("spill")))
            .map_err(crate::query::from_query)?;
        let organization = OrganizationId(Uuid::new_v4());
        let random = StdRng::seed_from_u64(seed);
        let mut made =
            Self { runtime, folder, metastore, objects, engine, organization, random, works: 0, source: None };
        made.begin().map_err(|error| Error::caused(ErrorKind::Internal, "the store of the script", error))?;
        Ok(made)
    }

    /// Begins an organization without data.
    fn begin(&mut self) -> EvalResult<()> {
        self.organization = OrganizationId(Uuid::new_v4());
        let name = format!("script {}", self.organization);
        let created = self.metastore.create_organization(self.organization, &name);
        self.runtime.block_on(created).map_err(told)?;
        self.look()
    }

    /// Sees what is stored now.
    fn look(&mut self) -> EvalResult<()> {
        let limits = PromqlLimits {
            time: LONGEST,
            bytes: u64::MAX,
            series: usize::MAX,
            samples: usize::MAX,
            ..PromqlLimits::default()
        };
        let source = self.runtime.block_on(self.engine.promql_source(self.organization, limits))?;
        self.source = Some(Shifted(source));
        Ok(())
    }

    /// Spreads samples over pushes; some samples come before with another value, which the later one replaces.
    fn pushes(&mut self, data: &Loaded) -> Vec<Vec<LoadedSample>> {
        let count = self.random.random_range(1..5_usize);
        let mut pushes: Vec<Vec<LoadedSample>> = vec![Vec::new(); count + 1];
        for sample in &data.samples {
            if self.random.random_bool(0.2) {
                let decoy = LoadedSample { value: Sample::Float(-1e9), ..sample.clone() };
                let early = self.random.random_range(0..2_usize);
                pushes[early * usize::from(count > 1)].push(decoy);
                pushes[count].push(sample.clone());
                continue;
            }
            let place = self.random.random_range(0..count);
            pushes[place].push(sample.clone());
            if self.random.random_bool(0.1) {
                pushes[count].push(sample.clone());
            }
        }
        pushes.retain(|push| !push.is_empty());
        pushes
    }

    async fn ingest(&mut self, push: &[LoadedSample], arrival_ns: i64) -> EvalResult<Vec<Live>> {
        let otlp = encode_otlp(&written(push)).map_err(told)?;
        let options = IngestOptions {
            signal: Signal::Metrics,
            promote: Vec::new(),
            spool: self.folder.join("spool"),
            memory_bytes: 64 << 20,
        };
        let mut encoder = BundleEncoder::new(options).map_err(|error| failed("a script's data", error))?;
        let input = InputDescription {
            label: "script".to_owned(),
            format: Some(InputFormat::OtlpProtobuf),
            arrival: TimestampNs(arrival_ns),
        };
        let report = encoder
            .read_input(&input, &mut std::io::Cursor::new(otlp))
            .map_err(|error| failed("a script's data", error))?;
        if report.rejected > 0 || report.failure.is_some() {
            return Err(told(format!("{} samples are refused: {:?}", report.rejected, report.issues)));
        }
        let drafts = encoder.finish().map_err(|error| failed("a script's data", error))?;
        self.publish(drafts, &[]).await
    }

    async fn merge(&mut self, inputs: &[Live], level: u8) -> EvalResult<Vec<Live>> {
        let inputs_of = inputs.iter().map(|live| MergeInput { meta: live.meta.clone(), file: live.file.clone() });
        let options = MergeOptions {
            level: Level(level),
            promote: Vec::new(),
            spool: self.folder.join("spool"),
            target_bytes: 1 << 30,
        };
        let drafts =
            merge_segments(inputs_of.collect(), options).map_err(|error| failed("merging a script's data", error))?;
        self.publish(drafts, inputs).await
    }

    async fn publish(&mut self, drafts: Vec<DraftSegment>, inputs: &[Live]) -> EvalResult<Vec<Live>> {
        let mut all = Vec::new();
        for draft in drafts {
            self.works += 1;
            let key = SegmentKey {
                organization: self.organization,
                signal: draft.signal,
                day: draft.day,
                tier: draft.tier,
                level: draft.level,
                work: WorkId(self.works),
                token: LeaseToken(Uuid::new_v4()),
                ordinal: 0,
            };
            let file = self.folder.join("files").join(self.works.to_string());
            match &draft.body {
                DraftBody::Memory(bytes) => fs::write(&file, bytes),
                DraftBody::File(spooled) => fs::copy(spooled.path(), &file).map(drop),
            }
            .map_err(told)?;
            let (object_key, body) = (key.object_key(), PutBody::File(file.clone()));
            self.objects.put(&object_key, body, PutMode::IfAbsent).await.map_err(told)?;
            all.push(Live { meta: draft.meta(&key, BUCKET, 1, None), file });
        }
        let replaced: Vec<_> = inputs.iter().map(|live| live.meta.id).collect();
        if !replaced.is_empty() {
            self.metastore.retire_segments(&replaced).await.map_err(told)?;
        }
        let metas: Vec<SegmentMeta> = all.iter().map(|live| live.meta.clone()).collect();
        self.metastore.adopt_segments(&metas).await.map_err(told)?;
        Ok(all)
    }

    async fn store(&mut self, pushes: Vec<Vec<LoadedSample>>) -> EvalResult<()> {
        let mut live: Vec<Live> = Vec::new();
        for push in &pushes {
            let arrival = FIRST_ARRIVAL_NS + self.works * 1_000_000_000;
            self.works += 1;
            live.extend(self.ingest(push, arrival).await?);
        }
        for level in [1, 2] {
            let days: std::collections::BTreeSet<_> = live.iter().map(|one| one.meta.day).collect();
            for day in days {
                let chosen: Vec<Live> = live
                    .iter()
                    .filter(|one| one.meta.day == day && one.meta.level == Level(level - 1))
                    .filter(|_| self.random.random_bool(0.7))
                    .cloned()
                    .collect();
                if chosen.is_empty() {
                    continue;
                }
                let merged = self.merge(&chosen, level).await?;
                live.retain(|one| chosen.iter().all(|gone| gone.meta.id != one.meta.id));
                live.extend(merged);
            }
        }
        Ok(())
    }
}

impl Store for SegmentStore {
    fn clear(&mut self) -> EvalResult<()> {
        self.begin()
    }

    fn load(&mut self, data: &Loaded) -> EvalResult<()> {
        let pushes = self.pushes(data);
        let handle = self.runtime.handle().clone();
        handle.block_on(self.store(pushes))?;
        self.look()
    }

    fn sources(&self) -> Vec<&dyn Source> {
        self.source.iter().map(|source| source as &dyn Source).collect()
    }
}

/// The samples as a sender of remote write tells them.
fn written(push: &[LoadedSample]) -> Vec<WrittenSeries> {
    let mut all: std::collections::BTreeMap<&tidemill_eval::Labels, WrittenSeries> = std::collections::BTreeMap::new();
    for sample in push {
        let labels = sample.labels.iter().map(|label| (label.name.to_string(), label.value.to_string()));
        let series = all
            .entry(&sample.labels)
            .or_insert_with(|| WrittenSeries { labels: labels.collect(), ..WrittenSeries::default() });
        let time_ms = sample.time + SHIFT_MS;
        let start_ms = if sample.start == 0 { 0 } else { sample.start + SHIFT_MS };
        match &sample.value {
            Sample::Float(value) => series.samples.push(WrittenSample { time_ms, start_ms, value: *value }),
            Sample::Histogram(histogram) => series.histograms.push(written_histogram(histogram, time_ms, start_ms)),
        }
    }
    all.into_values().collect()
}

fn written_histogram(histogram: &Histogram, time_ms: i64, start_ms: i64) -> WrittenHistogram {
    WrittenHistogram {
        time_ms,
        start_ms,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: histogram.zero_count,
        count: histogram.count,
        sum: histogram.sum,
        positive: histogram.positive.iter().collect(),
        negative: histogram.negative.iter().collect(),
        bounds: histogram.custom.as_slice().to_vec(),
        reset_hint: match histogram.hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3,
        },
    }
}

/// A lake whose time 0 is that of scripts.
struct Shifted(Box<dyn Source + Send>);

impl Source for Shifted {
    fn select(&self, select: &Select) -> EvalResult<Vec<Series>> {
        let shifted = Select {
            matchers: select.matchers.clone(),
            start_ms: select.start_ms.saturating_add(SHIFT_MS),
            end_ms: select.end_ms.saturating_add(SHIFT_MS),
            // Scripts compare with what the points themselves say.
            windows: None,
        };
        let back = |series: Series| {
            let mut samples: Samples = series.samples;
            let times: Vec<i64> = samples.times.iter().map(|time| time - SHIFT_MS).collect();
            let begun = |start: i64| if start == 0 { 0 } else { start - SHIFT_MS };
            let starts: Vec<i64> = samples.starts.iter().map(|start| begun(*start)).collect();
            samples.times = times.into();
            samples.starts = starts.into();
            for sample in &mut samples.histograms {
                sample.time -= SHIFT_MS;
                sample.start = begun(sample.start);
            }
            Series { labels: series.labels, samples }
        };
        Ok(self.0.select(&shifted)?.into_iter().map(back).collect())
    }
}
