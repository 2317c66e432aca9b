//! Looking up traces by id: the day indexes spare opening segments, and change no answer.

use std::sync::Arc;

use crate::world::{SECOND_NS, START_NS, World, attribute, engine, organization, rows};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_query::{QueryEngine, QueryLimits, QueryStats};
use tidemill_segment::index::trace_day::{TRAILER_BYTES, TraceDayBuilder, TraceDayIndex};
use tidemill_segment::read::TraceColumn;
use tidemill_store::folder::FolderStore;
use tidemill_store::metastore::{Publication, TraceDay, TraceDayChange};
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::{Metastore, ObjectStore};
use tidemill_types::keys::TraceDayKey;
use tidemill_types::{Day, SegmentMeta, Signal, TimeRange, WorkId};

const DAY_NS: i64 = 86_400 * SECOND_NS;

/// The ids of traces are in no order.
fn trace_id(number: u32) -> String {
    let number = u64::from(number) + 1;
    format!("{:016x}{number:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn span(time_ns: i64, trace: u32, number: u32) -> Value {
    json!({
        "traceId": trace_id(trace),
        "spanId": format!("{:016x}", number + 1),
        "name": "turn",
        "startTimeUnixNano": time_ns.to_string(),
        "endTimeUnixNano": (time_ns + SECOND_NS).to_string(),
        "attributes": [attribute("number", json!(number))],
    })
}

/// A request with two spans of each trace.
fn spans(time_ns: i64, traces: impl IntoIterator<Item = u32>) -> Value {
    let both =
        traces.into_iter().flat_map(|trace| [span(time_ns, trace, 2 * trace), span(time_ns, trace, 2 * trace + 1)]);
    let spans: Vec<Value> = both.collect();
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] })
}

/// One merged segment of these traces.
async fn merged(world: &mut World, time_ns: i64, traces: impl IntoIterator<Item = u32>) -> SegmentMeta {
    let metas = world.ingest_for(world.organization, Signal::Traces, &spans(time_ns, traces), time_ns + DAY_NS).await;
    world.compact(&metas, 1).await.remove(0)
}

/// Builds the day index of these segments and makes it current.
async fn index(world: &World, segments: &[SegmentMeta]) -> TraceDay {
    let mut builder = TraceDayBuilder::default();
    for meta in segments {
        let object = Bytes::from(std::fs::read(world.object_path(&meta.object_key)).expect("is read"));
        let part = |offset: u64, len: u64| object.slice(offset as usize..(offset + len) as usize);
        let column = TraceColumn::decode(meta, &part(meta.footer.offset, meta.footer.len)).expect("is a segment");
        for (group, range) in column.ranges().into_iter().enumerate() {
            for id in column.trace_ids(group, part(range.offset, range.len)).expect("are trace ids") {
                builder.add(&id, &meta.object_key, group as u32);
            }
        }
    }
    let bytes = Bytes::from(builder.encode());
    let tail = TraceDayIndex::tail_bytes(&bytes[bytes.len() - TRAILER_BYTES..]).expect("is an index");
    let owner = world.organization;
    let token = world.claim_job(Signal::Traces).await;
    let day = segments[0].day;
    let key = TraceDayKey { organization: owner, day, work: WorkId(1), token, ordinal: 0 };
    let index = TraceDay {
        organization: owner,
        instance_num: 1,
        day,
        bucket: segments[0].bucket.clone(),
        object_key: key.object_key(),
        bytes: bytes.len() as u64,
        tail_bytes: tail + TRAILER_BYTES as u64,
        segments: segments.iter().map(|meta| meta.id).collect(),
    };
    world.store.put(&index.object_key, PutBody::Chunks(vec![bytes]), PutMode::IfAbsent).await.expect("is stored");
    let current = world.metastore.trace_days(owner, day, day).await.expect("lists").pop();
    let replaces = current.map(|current| current.object_key);
    let change = TraceDayChange { index: index.clone(), replaces };
    let publication = Publication { trace_days: vec![change], ..Publication::default() };
    world.metastore.publish(token, &publication).await.expect("is current");
    index
}

/// Remembers which objects are read.
#[derive(Debug)]
struct Recording {
    inner: Arc<FolderStore>,
    reads: Mutex<Vec<String>>,
}

#[async_trait]
impl ObjectStore for Recording {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> tidemill_store::Result<ObjectInfo> {
        self.inner.put(key, body, mode).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> tidemill_store::Result<ObjectRead> {
        self.inner.get(key, if_match).await
    }

    async fn get_ranges(&self, key: &str, ranges: &[std::ops::Range<u64>]) -> tidemill_store::Result<Vec<Bytes>> {
        self.reads.lock().extend(ranges.iter().map(|_| key.to_owned()));
        self.inner.get_ranges(key, ranges).await
    }

    async fn head(&self, key: &str) -> tidemill_store::Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn delete(&self, key: &str) -> tidemill_store::Result<()> {
        self.inner.delete(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, tidemill_store::Result<ObjectInfo>> {
        self.inner.list(prefix)
    }
}

/// An engine that has read nothing yet, and what it reads.
struct Watched {
    engine: QueryEngine,
    store: Arc<Recording>,
}

impl Watched {
    fn new(world: &World) -> Self {
        let store = Arc::new(Recording { inner: Arc::clone(&world.store), reads: Mutex::default() });
        Self { engine: engine(&world.folder, &store, &world.metastore, true), store }
    }

    /// The rows, the counters, and the object of each request.
    async fn sql(&self, text: &str) -> (Vec<Vec<String>>, QueryStats, Vec<String>) {
        let stream = self.engine.sql(organization(1), text, QueryLimits::default()).await.expect("is planned");
        let stats = stream.stats();
        let found = rows(&stream.collect().await.expect("ends"));
        (found, stats.read(), std::mem::take(&mut *self.store.reads.lock()))
    }
}

fn lookup(trace: u32) -> String {
    format!("SELECT span_id FROM spans WHERE trace_id = '{}' ORDER BY span_id", trace_id(trace))
}

#[tokio::test]
async fn a_trace_is_read_from_the_segment_that_has_it_alone() {
    let mut world = World::new().await;
    let mut segments = Vec::new();
    for hour in 0..12 {
        let time = START_NS + i64::from(hour) * 3_600 * SECOND_NS;
        segments.push(merged(&mut world, time, hour * 100..hour * 100 + 100).await);
    }
    let text = lookup(5 * 100 + 17);
    let (before, without, read) = Watched::new(&world).sql(&text).await;
    assert_eq!((before.len(), without.segments_pruned), (2, 0));
    assert!(segments.iter().all(|meta| read.contains(&meta.object_key)), "without an index every segment is opened");

    let index = index(&world, &segments).await;
    let watched = Watched::new(&world);
    let (after, with, read) = watched.sql(&text).await;
    assert_eq!(after, before);
    assert_eq!((with.segments_considered, with.segments_pruned), (12, 11));
    let of_index = read.iter().filter(|key| **key == index.object_key).count();
    assert_eq!(of_index, 2, "its tail and one block");
    assert!(read.iter().all(|key| [&index.object_key, &segments[5].object_key].contains(&key)), "{read:?}");
    assert_eq!(with.requests, read.len() as u64, "requests for the index are counted");
    assert!(with.requests < without.requests && with.bytes_read < without.bytes_read, "{with:?} {without:?}");

    // The tail is kept, and so is the block that both traces need.
    let (found, _, read) = watched.sql(&lookup(7 * 100)).await;
    assert_eq!(found.len(), 2);
    assert!(read.iter().all(|key| *key == segments[7].object_key), "{read:?}");
    let (found, nowhere, read) = watched.sql(&lookup(1_000_000)).await;
    assert_eq!((found.len(), nowhere.segments_pruned, read.len()), (0, 12, 0), "known to be in none");
}

#[tokio::test]
async fn a_trace_without_a_time_costs_two_requests_and_one_a_day() {
    let mut world = World::new().await;
    let days = 3;
    for day in 0..days {
        let mut segments = Vec::new();
        for part in 0..4_u32 {
            let time = START_NS + i64::from(day) * DAY_NS + i64::from(part) * 3_600 * SECOND_NS;
            // Several blocks of the index, so that no lookup warms the next one.
            let first = (day * 4 + part) * 3_000;
            segments.push(merged(&mut world, time, first..first + 3_000).await);
        }
        index(&world, &segments).await;
    }
    let watched = Watched::new(&world);
    // Footers and the tails of the indexes are warm, no row is.
    watched.sql("SELECT count(*) FROM spans WHERE attr('number') = -1").await;
    watched.sql(&lookup(1_000_000)).await;
    for trace in [17, 5 * 3_000 + 1, 11 * 3_000 + 2_999] {
        let mut id = [0; 16];
        hex::decode_to_slice(trace_id(trace), &mut id).expect("an id");
        let found = watched.engine.trace(organization(1), id, TimeRange::ALL, QueryLimits::default()).await;
        let found = found.expect("answers");
        let spans = found.answer.expect("is there").resource_spans.remove(0).scope_spans.remove(0).spans;
        assert_eq!(spans.len(), 2);
        let read = std::mem::take(&mut *watched.store.reads.lock());
        let of_indexes = read.iter().filter(|key| key.ends_with(".tmtd")).count();
        assert!(of_indexes <= days as usize, "a block of each day: {read:?}");
        assert!(read.len() - of_indexes <= 2, "the segment that has it: {read:?}");
        assert_eq!(found.stats.requests, read.len() as u64);
    }
}

#[tokio::test]
async fn only_row_groups_that_have_the_trace_are_read() {
    let mut world = World::new().await;
    let one = merged(&mut world, START_NS, 0..40_000).await;
    let two = merged(&mut world, START_NS + SECOND_NS, 40_000..40_010).await;
    index(&world, &[one, two]).await;
    let cold = world.cold();
    let mut read = 0;
    // One after another all over the segment, as ids are in no order.
    for trace in 0..16 {
        let (found, stats) = cold.sql(&lookup(trace)).await;
        assert_eq!((found.len(), stats.segments_pruned, stats.row_groups_considered), (2, 1, 2), "{trace}: {stats:?}");
        read += stats.row_groups_read;
    }
    assert!((16..=17).contains(&read), "{read}: one row group each, two for the trace between them");
}

#[tokio::test]
async fn what_an_index_does_not_cover_is_opened() {
    let mut world = World::new().await;
    let covered = [merged(&mut world, START_NS, 0..50).await, merged(&mut world, START_NS + SECOND_NS, 50..100).await];
    index(&world, &covered).await;
    // The same trace in a segment of level 0, and in one that was merged since.
    world.ingest(Signal::Traces, &spans(START_NS + 2 * SECOND_NS, [7])).await;
    merged(&mut world, START_NS + 3 * SECOND_NS, [7, 8]).await;
    let (found, stats) = world.cold().sql(&lookup(7)).await;
    assert_eq!((found.len(), stats.segments_pruned), (6, 1));
    // The index is behind: one of its segments is gone into another.
    world.compact(&covered[..1], 2).await;
    let (found, stats) = world.cold().sql(&lookup(7)).await;
    assert_eq!((found.len(), stats.segments_pruned), (6, 1));
    let (found, _) = world.cold().sql(&lookup(60)).await;
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn a_missing_or_damaged_index_is_left_aside() {
    let mut world = World::new().await;
    let segments = [merged(&mut world, START_NS, 0..50).await, merged(&mut world, START_NS + SECOND_NS, 50..100).await];
    let index = index(&world, &segments).await;
    let path = world.object_path(&index.object_key);
    let whole = std::fs::read(&path).expect("is read");
    let answer = async || world.cold().sql(&lookup(60)).await;
    let (expected, stats) = answer().await;
    assert_eq!((expected.len(), stats.segments_pruned), (2, 1));
    for place in [10, whole.len() - index.tail_bytes as usize + 3, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        std::fs::write(&path, damaged).expect("is written");
        let (found, stats) = answer().await;
        assert_eq!((&found, stats.segments_pruned), (&expected, 0), "damaged at {place}");
        assert!(stats.warnings.is_empty(), "the answer is whole: {:?}", stats.warnings);
    }
    std::fs::remove_file(&path).expect("is removed");
    let (found, stats) = answer().await;
    assert_eq!((found, stats.segments_pruned), (expected, 0));
}

#[tokio::test]
async fn another_organizations_index_says_nothing() {
    let mut world = World::new().await;
    let segments = [merged(&mut world, START_NS, 0..50).await, merged(&mut world, START_NS + SECOND_NS, 50..100).await];
    index(&world, &segments).await;
    world.organization = organization(2);
    let theirs = [merged(&mut world, START_NS, 0..50).await, merged(&mut world, START_NS + SECOND_NS, 50..100).await];
    let (found, stats) = world.cold().sql(&lookup(60)).await;
    assert_eq!((found.len(), stats.segments_considered, stats.segments_pruned), (2, theirs.len() as u64, 0));
}

fn condition(random: &mut StdRng) -> String {
    let mut id = || format!("'{}'", trace_id(random.random_range(0..45)));
    let (one, other) = (id(), id());
    match random.random_range(0..9) {
        0 | 1 => format!("trace_id = {one}"),
        2 => format!("trace_id IN ({one}, {other})"),
        3 => format!("trace_id = {one} OR trace_id = {other}"),
        4 => format!("trace_id = {one} AND attr('number') > {}", random.random_range(0..90)),
        5 => format!("trace_id = {one} OR attr('number') = {}", random.random_range(0..90)),
        6 => format!("trace_id <> {one} AND trace_id = {other}"),
        7 => format!("trace_id = upper({one})"),
        _ => {
            let at = format!("2024-05-0{}T00:00:0{}Z", random.random_range(1..4), random.random_range(0..6));
            format!("trace_id = {one} AND time >= '{at}'")
        }
    }
}

#[tokio::test]
async fn indexes_change_no_answer() {
    let seed: u64 = std::env::var("TIDEMILL_TEST_SEED").map_or(7, |seed| seed.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    // Three days; a trace may be anywhere, also where no index covers it.
    let mut days: Vec<Vec<SegmentMeta>> = Vec::new();
    for day in 0..3 {
        let mut segments = Vec::new();
        for part in 0..4 {
            let traces: Vec<u32> = (0..12).map(|_| random.random_range(0..40)).collect();
            segments.push(merged(&mut world, START_NS + day * DAY_NS + part * SECOND_NS, traces).await);
        }
        let covered = random.random_range(2..=4);
        index(&world, &segments[..covered]).await;
        world
            .ingest(Signal::Traces, &spans(START_NS + day * DAY_NS + 5 * SECOND_NS, [random.random_range(0..40)]))
            .await;
        days.push(segments);
    }
    // The second day's index is behind.
    world.compact(&days[1][..2], 2).await;
    let (plain, mut pruned) = (world.without_indexes(), 0);
    let mut found = 0;
    for _ in 0..60 {
        let condition = condition(&mut random);
        let text =
            format!("SELECT time, trace_id, span_id, attr('number') FROM spans WHERE {condition} ORDER BY 1, 2, 3, 4");
        let (expected, _) = plain.sql(&text).await;
        let (rows, stats) = world.sql(&text).await;
        assert_eq!(rows, expected, "seed {seed}: {condition}");
        found += rows.len();
        pruned += stats.segments_pruned;
    }
    assert!(found > 60 && pruned > 60, "seed {seed}: {found} rows, {pruned} segments");
    assert_eq!(days[0][0].day, Day((START_NS / DAY_NS) as i32));
}
