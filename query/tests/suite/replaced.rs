//! A segment that is replaced and deleted between a query's look at the catalog and its first read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{SECOND_NS, START_NS, World, attribute, engine, log, logs, replace, rows};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use tidemill_eval::logql::MetricParams;
use tidemill_lang::logql::{ast::Query, parse};
use tidemill_query::logql::StreamTotals;
use tidemill_query::{QueryEngine, QueryLimits};
use tidemill_store::ObjectStore;
use tidemill_store::folder::FolderStore;
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_types::{SegmentMeta, Signal, TimeRange, TimestampNs};

/// Replaces and deletes a segment the moment that it is first read.
#[derive(Debug)]
struct Compacting {
    inner: Arc<FolderStore>,
    metastore: Arc<SqliteMetastore>,
    inputs: Vec<SegmentMeta>,
    outputs: Vec<SegmentMeta>,
    is_done: AtomicBool,
}

#[async_trait]
impl ObjectStore for Compacting {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> tidemill_store::Result<ObjectInfo> {
        self.inner.put(key, body, mode).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> tidemill_store::Result<ObjectRead> {
        self.inner.get(key, if_match).await
    }

    async fn get_ranges(&self, key: &str, ranges: &[std::ops::Range<u64>]) -> tidemill_store::Result<Vec<Bytes>> {
        if !self.is_done.swap(true, Ordering::SeqCst) {
            replace(&self.metastore, &self.inputs, &self.outputs).await;
            for meta in &self.inputs {
                self.inner.delete(&meta.object_key).await?;
            }
        }
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

/// Three segments with thirty records, and a store that replaces them by one at the first read.
async fn compacting() -> (World, Arc<Compacting>, QueryEngine) {
    let mut world = World::new().await;
    let mut inputs = Vec::new();
    for part in 0..3 {
        let records = (0..10).map(|number: i64| {
            let number = part * 10 + number;
            log(START_NS + number * SECOND_NS, "x", vec![attribute("number", json!(number))])
        });
        inputs.extend(world.ingest(Signal::Logs, &logs("api", records.collect())).await);
    }
    let outputs = world.merge(&inputs, 1).await;
    let store = Arc::new(Compacting {
        inner: Arc::clone(&world.store),
        metastore: Arc::clone(&world.metastore),
        inputs,
        outputs,
        is_done: AtomicBool::new(false),
    });
    let engine = engine(&world.folder, &store, &world.metastore, true);
    (world, store, engine)
}

#[tokio::test]
async fn the_query_is_planned_anew_and_loses_nothing() {
    let (world, store, engine) = compacting().await;
    let text = "SELECT count(body), sum(attr('number')) FROM logs";
    let stream = engine.sql(world.organization, text, QueryLimits::default()).await.expect("it is planned anew");
    assert!(store.is_done.load(Ordering::SeqCst));
    assert_eq!(rows(&stream.collect().await.expect("it ends")), [["30", "435"]]);
}

/// What counts or lists streams ahead of a scan opens segments too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_ahead_of_the_scan_is_counted_anew() {
    let end_ns = START_NS + 3_600 * SECOND_NS;
    let (world, store, engine) = compacting().await;
    let query = "sum by (service_name) (count_over_time({service_name=~\".+\"}[2h]))";
    let Ok(Query::Metric(metric)) = parse(query) else { panic!("no query for numbers") };
    let params = MetricParams { start_ns: end_ns, end_ns, step_ns: None, now_ns: end_ns };
    let found = engine.logql_numbers(world.organization, &metric, params, QueryLimits::default()).await;
    assert!(store.is_done.load(Ordering::SeqCst));
    let answer = found.expect("it is counted anew").answer.to_json().to_string();
    assert!(answer.contains("\"30\""), "{answer}");

    let (world, store, engine) = compacting().await;
    let time = TimeRange { start: TimestampNs(START_NS), end: TimestampNs(end_ns) };
    let found =
        engine.logql_streams(world.organization, vec![], time, StreamTotals::Whole, QueryLimits::default()).await;
    assert!(store.is_done.load(Ordering::SeqCst));
    let totals: Vec<u64> = found
        .expect("they are read anew")
        .streams
        .iter()
        .flat_map(|(_, all)| all.values())
        .map(|own| own.lines)
        .collect();
    assert_eq!(totals, [30]);
}
