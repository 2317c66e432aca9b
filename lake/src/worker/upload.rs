//! Storing drafts of segments and day indexes as objects, and publishing them.
//!
//! Keys carry the lease token and are put only if absent, so nobody else ever writes or reads them before they are published.
//! That is also why they may be deleted here while publishing was not yet attempted, and never after: a publication whose
//! answer got lost may have been committed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_store::metastore::{Bundle, DoomedObject, Publication, TraceDay};
use tidemill_store::object::{ObjectInfo, PutBody, PutMode};
use tidemill_types::keys::{SegmentKey, TraceDayKey};
use tidemill_types::{ErrorKind, SegmentMeta};

use super::trace_day::TraceDayDraft;
use super::{Ending, Shared};
use crate::Result;
use crate::place::Place;

/// Attempts to commit before the bundle is reported as failed.
const PUBLISH_ATTEMPTS: u32 = 4;

/// The objects written under one lease.
#[derive(Debug)]
pub(crate) struct Uploads<'a> {
    shared: &'a Shared,
    bundle: &'a Bundle,
    place: &'a Place,
    next_ordinal: u32,
    /// Written and part of no publication yet.
    unpublished: Vec<DoomedObject>,
}

impl<'a> Uploads<'a> {
    pub(crate) fn new(shared: &'a Shared, bundle: &'a Bundle, place: &'a Place) -> Self {
        Self { shared, bundle, place, next_ordinal: 0, unpublished: Vec::new() }
    }

    /// Stores drafts; their catalog rows come back in the same order.
    pub(crate) async fn store(&mut self, drafts: Vec<DraftSegment>) -> Result<Vec<SegmentMeta>> {
        let mut metas = Vec::with_capacity(drafts.len());
        for draft in drafts {
            metas.push(self.store_one(draft).await?);
        }
        Ok(metas)
    }

    async fn store_one(&mut self, draft: DraftSegment) -> Result<SegmentMeta> {
        let key = SegmentKey {
            organization: self.bundle.organization,
            signal: draft.signal,
            day: draft.day,
            tier: draft.tier,
            level: draft.level,
            work: self.bundle.items[0].id,
            token: self.bundle.token,
            ordinal: self.take_ordinal(),
        };
        let body = match &draft.body {
            DraftBody::Memory(bytes) => PutBody::Chunks(vec![bytes.clone()]),
            DraftBody::File(file) => PutBody::File(file.path().to_owned()),
        };
        let put = self.put(&key.object_key(), body).await?;
        Ok(draft.meta(&key, &self.place.bucket, self.place.instance_num, put.etag))
    }

    /// Stores a day index; its row comes back.
    pub(super) async fn store_trace_day(&mut self, draft: TraceDayDraft) -> Result<TraceDay> {
        let key = TraceDayKey {
            organization: self.bundle.organization,
            day: draft.day,
            work: self.bundle.items[0].id,
            token: self.bundle.token,
            ordinal: self.take_ordinal(),
        };
        let object_key = key.object_key();
        let bytes = draft.bytes.len() as u64;
        self.put(&object_key, PutBody::Chunks(vec![draft.bytes])).await?;
        Ok(TraceDay {
            organization: key.organization,
            instance_num: self.place.instance_num,
            day: key.day,
            bucket: self.place.bucket.clone(),
            object_key,
            bytes,
            tail_bytes: draft.tail_bytes,
            segments: draft.segments,
        })
    }

    fn take_ordinal(&mut self) -> u32 {
        self.next_ordinal += 1;
        self.next_ordinal - 1
    }

    /// Writes an object of ours; when that fails, gives up all that was written so far.
    async fn put(&mut self, object_key: &str, body: PutBody) -> Result<ObjectInfo> {
        self.unpublished.push(DoomedObject { bucket: self.place.bucket.clone(), object_key: object_key.to_owned() });
        let put = self.put_once(object_key, body).await;
        if put.is_err() {
            self.discard().await;
        }
        put
    }

    async fn put_once(&self, object_key: &str, body: PutBody) -> Result<ObjectInfo> {
        let store = self.shared.deps.buckets.get(&self.place.bucket)?;
        match store.put(object_key, body, PutMode::IfAbsent).await {
            // The token is ours alone: what is there is our own put, whose answer was lost on the way.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(store.head(object_key).await?),
            other => Ok(other?),
        }
    }

    /// Gives up what was written so far; only before publishing was attempted.
    pub(crate) async fn discard(&mut self) {
        for object in std::mem::take(&mut self.unpublished) {
            let Ok(store) = self.shared.deps.buckets.get(&object.bucket) else { continue };
            if let Err(error) = store.delete(&object.object_key).await {
                tracing::debug!(%error, "an unpublished object is left to the sweeper");
            }
        }
    }

    /// Objects written for a plan that was overtaken: they go with the next publication as orphans.
    pub(crate) fn take_orphans(&mut self) -> Vec<DoomedObject> {
        std::mem::take(&mut self.unpublished)
    }

    /// Whether the lease is still ours, after a publication was refused: then it was a replaced segment that is not live.
    pub(crate) async fn lease_is_ours(&self) -> Result<bool> {
        let lease = self.shared.options.lease;
        match self.shared.deps.metastore.extend_lease(self.bundle.token, lease).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Commits the bundle's result.
    ///
    /// A broken connection may hide a commit, so the call is repeated; a `Conflict` then means that it was committed or that
    /// the lease is another's, and both end the work here.
    pub(crate) async fn publish(&mut self, publication: &Publication) -> Result<Ending> {
        let mut attempt = 1;
        loop {
            match self.shared.deps.metastore.publish(self.bundle.token, publication).await {
                Ok(_) => {
                    self.unpublished.clear();
                    let segments = publication.segments.len() as u64;
                    self.shared.counters.segments.fetch_add(segments, Ordering::Relaxed);
                    return Ok(Ending::Published);
                }
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(Ending::Lost),
                Err(error) if error.kind().is_retryable() && attempt < PUBLISH_ATTEMPTS => {
                    tracing::warn!(token = %self.bundle.token, attempt, %error, "publishing is repeated");
                    tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
