//! A segment that is replaced and deleted between a query's look at the catalog and its first read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{SECOND_NS, START_NS, World, attribute, engine, log, logs, replace, rows};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use tidemill_query::QueryLimits;
use tidemill_store::ObjectStore;
use tidemill_store::folder::FolderStore;
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_types::{SegmentMeta, Signal};

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

#[tokio::test]
async fn the_query_is_planned_anew_and_loses_nothing() {
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
    let text = "SELECT count(body), sum(attr('number')) FROM logs";
    let stream = engine.sql(world.organization, text, QueryLimits::default()).await.expect("it is planned anew");
    assert!(store.is_done.load(Ordering::SeqCst));
    assert_eq!(rows(&stream.collect().await.expect("it ends")), [["30", "435"]]);
}
