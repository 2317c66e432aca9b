//! The day index of traces: that it says where each trace is, follows the day's segments, and goes when nobody refers to it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{BUCKET, Lake, now, spans_at};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use tidemill_lake::catalog::{self, CatalogDeps};
use tidemill_lake::place::OnePlace;
use tidemill_lake::receive::{PushRequest, ReceiverOptions};
use tidemill_lake::sweep::{self, SweeperDeps, SweeperHandle, SweeperOptions};
use tidemill_lake::worker::WorkerOptions;
use tidemill_segment::index::trace_day::TraceDayIndex;
use tidemill_store::metastore::TraceDay;
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{MetastoreOptions, ObjectStore};
use tidemill_types::{Day, Level, NANOS_PER_DAY, SegmentMeta, Signal};

/// Where spans are: trace id, object key of the segment, row group.
type Places = BTreeSet<(Vec<u8>, String, usize)>;

async fn hasty_lake() -> Lake {
    let options =
        MetastoreOptions { replaced_grace: Duration::ZERO, raw_grace: Duration::ZERO, ..MetastoreOptions::default() };
    Lake::with(options).await
}

fn sweeper(lake: &Lake) -> SweeperHandle {
    let options = SweeperOptions { orphan_age: Duration::ZERO, ..SweeperOptions::default() };
    let deps = SweeperDeps { metastore: lake.metastore.clone(), buckets: lake.buckets.clone() };
    sweep::build(options, deps).0
}

/// A day that is closed.
fn closed_day() -> Day {
    now().plus_ns(-3 * NANOS_PER_DAY).day()
}

/// Ingests requests of ten traces of the closed day each, half of which arrived a day earlier: what arrives on different days is never
/// merged.
async fn ingest(lake: &Lake, batches: std::ops::Range<u32>) {
    let receiver =
        lake.receiver(ReceiverOptions { gather: Duration::ZERO, group_bytes: 1, ..ReceiverOptions::default() });
    let time = closed_day().range().start.0 as u64;
    for batch in batches {
        let body = spans_at(time + u64::from(batch), batch * 10..batch * 10 + 10);
        let arrival = now().plus_ns(-i64::from(batch % 2) * NANOS_PER_DAY);
        let request = PushRequest { arrival, ..lake.request(Signal::Traces, body) };
        receiver.push(request).await.expect("is acknowledged");
    }
    lake.drain().await;
}

/// Merges what can be merged, then builds the index.
async fn compact_and_index(lake: &Lake) {
    lake.run_due_later().await;
    lake.run_due_later().await;
}

async fn indexes(lake: &Lake) -> Vec<TraceDay> {
    lake.metastore.trace_days(lake.organization, Day(i32::MIN), Day(i32::MAX)).await.expect("lists")
}

async fn the_index(lake: &Lake) -> TraceDay {
    let mut all = indexes(lake).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// All that Parquet says of the segments that the index covers.
fn stored_places(lake: &Lake, segments: &[SegmentMeta]) -> Places {
    let mut places = Places::new();
    for meta in segments {
        let file = std::fs::File::open(lake.folder.path().join("objects").join(&meta.object_key)).expect("exists");
        let reader = SerializedFileReader::new(file).expect("is Parquet");
        let schema = reader.metadata().file_metadata().schema().clone();
        let field = schema.get_fields().iter().position(|one| one.name() == "trace_id").expect("has trace ids");
        for group in 0..reader.num_row_groups() {
            let rows = reader.get_row_group(group).expect("exists");
            for row in rows.get_row_iter(None).expect("has rows") {
                let id = row.expect("is read").get_bytes(field).expect("has an id").data().to_vec();
                places.insert((id, meta.object_key.clone(), group));
            }
        }
    }
    places
}

/// What the index says of these traces.
fn told_places(lake: &Lake, index: &TraceDay, traces: &BTreeSet<Vec<u8>>) -> Places {
    let object = std::fs::read(lake.folder.path().join("objects").join(&index.object_key)).expect("exists");
    assert_eq!(object.len() as u64, index.bytes);
    let decoded = TraceDayIndex::decode(&object[object.len() - index.tail_bytes as usize..]).expect("is whole");
    let mut places = Places::new();
    for trace in traces {
        let id: &[u8; 16] = trace.as_slice().try_into().expect("16 bytes");
        let blocks: Vec<&[u8]> = decoded
            .needed(id)
            .iter()
            .map(|range| &object[range.offset as usize..(range.offset + range.len) as usize])
            .collect();
        for place in decoded.places(id, &blocks).expect("is whole") {
            let segment = decoded.segments()[place.segment as usize].clone();
            places.insert((trace.clone(), segment, place.row_group as usize));
        }
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_tells_where_every_trace_of_a_closed_day_is() {
    let lake = hasty_lake().await;
    ingest(&lake, 0..6).await;
    lake.run_due_later().await;
    let merged = lake.segments().await;
    assert_eq!(merged.iter().map(|meta| (meta.level, meta.rows)).collect::<Vec<_>>(), [(Level(1), 60); 2]);
    assert_eq!(indexes(&lake).await, [], "it waits for company");
    lake.run_due_later().await;
    let index = the_index(&lake).await;
    assert_eq!((index.day, index.instance_num, index.bucket.as_str()), (closed_day(), 1, BUCKET));
    let ids = |segments: &[SegmentMeta]| segments.iter().map(|meta| meta.id).collect::<BTreeSet<_>>();
    assert_eq!(index.segments.iter().copied().collect::<BTreeSet<_>>(), ids(&merged));
    let stored = stored_places(&lake, &merged);
    let traces: BTreeSet<Vec<u8>> = stored.iter().map(|(trace, ..)| trace.clone()).collect();
    assert_eq!(traces.len(), 60);
    assert_eq!(told_places(&lake, &index, &traces), stored);
    // What arrives later is not covered until it is merged.
    ingest(&lake, 6..7).await;
    assert_eq!(the_index(&lake).await, index);
    assert_eq!(lake.segments().await.iter().filter(|meta| !index.segments.contains(&meta.id)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_replaced_when_the_day_changes_and_only_then() {
    let lake = hasty_lake().await;
    ingest(&lake, 0..4).await;
    compact_and_index(&lake).await;
    let first = the_index(&lake).await;
    // A request to look again changes nothing.
    ingest(&lake, 4..5).await;
    lake.run_due_later().await;
    let waiting = lake.metastore.queue(None, false, 10).await.expect("is read");
    assert!(waiting.iter().any(|entry| entry.payload["task"] == "trace-index"), "{waiting:?}");
    lake.run_due_later().await;
    let second = the_index(&lake).await;
    assert_ne!(second.object_key, first.object_key);
    let live: BTreeSet<_> = lake.segments().await.iter().map(|meta| meta.id).collect();
    assert_eq!(second.segments.iter().copied().collect::<BTreeSet<_>>(), live);
    lake.enqueue_trace_index(closed_day()).await;
    lake.drain().await;
    assert_eq!(the_index(&lake).await, second, "nothing changed, so nothing is written");

    let stray = format!("db/{}/traces/20260101/index/1-{}-0.tmtd", lake.organization, uuid::Uuid::new_v4().simple());
    let body = PutBody::Chunks(vec![bytes::Bytes::from_static(b"an upload whose lease was lost")]);
    lake.store.put(&stray, body, PutMode::IfAbsent).await.expect("is stored");
    let indexes = async || lake.keys("db/").await.into_iter().filter(|key| key.ends_with(".tmtd")).collect::<Vec<_>>();
    assert_eq!(indexes().await.len(), 3);
    let sweeper = sweeper(&lake);
    sweeper.sweep_doomed().await.expect("sweeps");
    sweeper.sweep_fully().await.expect("sweeps");
    assert_eq!(indexes().await, [second.object_key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_with_its_day() {
    let lake = hasty_lake().await;
    ingest(&lake, 0..2).await;
    compact_and_index(&lake).await;
    let index = the_index(&lake).await;
    let ids: Vec<_> = lake.segments().await.iter().map(|meta| meta.id).collect();
    lake.metastore.retire_segments(&ids).await.expect("retires");
    let sweeper = sweeper(&lake);
    sweeper.sweep_fully().await.expect("sweeps");
    assert_eq!(indexes(&lake).await, []);
    sweeper.sweep_doomed().await.expect("sweeps");
    assert!(lake.store.head(&index.object_key).await.is_err(), "its object is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_little_memory_covers_a_part() {
    let lake = hasty_lake().await;
    ingest(&lake, 0..6).await;
    lake.run_due_later().await;
    lake.enqueue_trace_index(closed_day()).await;
    let (handle, task) = lake.worker(WorkerOptions { memory_bytes: 64, ..lake.worker_options("small") });
    lake.until_drained().await;
    handle.stop();
    task.await.expect("ends");
    let index = the_index(&lake).await;
    assert_eq!((index.segments.len(), lake.segments().await.len()), (1, 2));
    let segments = lake.segments().await;
    let covered: Vec<SegmentMeta> = segments.into_iter().filter(|meta| index.segments.contains(&meta.id)).collect();
    let stored = stored_places(&lake, &covered);
    let traces = stored.iter().map(|(trace, ..)| trace.clone()).collect();
    assert_eq!(told_places(&lake, &index, &traces), stored, "all traces of what it covers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_catalog_has_its_indexes_built_anew() {
    let mut lake = hasty_lake().await;
    ingest(&lake, 0..4).await;
    compact_and_index(&lake).await;
    sweeper(&lake).sweep_doomed().await.expect("sweeps what was merged");
    let lost = the_index(&lake).await;
    let fresh = SqliteMetastore::open(&lake.folder.path().join("second.db")).await.expect("opens");
    lake.metastore = std::sync::Arc::new(fresh);
    let deps = CatalogDeps {
        metastore: lake.metastore.clone(),
        buckets: lake.buckets.clone(),
        placement: std::sync::Arc::new(OnePlace::new(BUCKET)),
    };
    let report = catalog::rebuild(&deps).await.expect("is rebuilt");
    assert!(report.unreadable.is_empty(), "{report:?}");
    assert_eq!((report.adopted, indexes(&lake).await.len()), (2, 0), "{report:?}");
    let verified = catalog::verify(&deps).await.expect("is verified");
    assert!(verified.is_sound() && verified.unknown.is_empty(), "{verified:?}");
    compact_and_index(&lake).await;
    let index = the_index(&lake).await;
    assert_ne!(index.object_key, lost.object_key);
    assert_eq!(index.segments, lost.segments);
    sweeper(&lake).sweep_fully().await.expect("sweeps");
    let left: Vec<String> = lake.keys("db/").await.into_iter().filter(|key| key.ends_with(".tmtd")).collect();
    assert_eq!(left, [index.object_key]);
}
