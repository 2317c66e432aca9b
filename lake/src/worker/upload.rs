//! Storing drafts as segment objects, and publishing them.
//!
//! Keys carry the lease token and are put only if absent, so nobody else ever writes or reads them before they are published.
//! That is also why they may be deleted here while publishing was not yet attempted, and never after: a publication whose
//! answer got lost may have been committed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_store::metastore::{Bundle, DoomedObject, Publication};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::keys::SegmentKey;
use tidemill_types::{ErrorKind, SegmentMeta};

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
            match self.store_one(draft).await {
                Ok(meta) => metas.push(meta),
                Err(error) => {
                    self.discard().await;
                    return Err(error);
                }
            }
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
            ordinal: self.next_ordinal,
        };
        self.next_ordinal += 1;
        let object_key = key.object_key();
        let body = match &draft.body {
            DraftBody::Memory(bytes) => PutBody::Chunks(vec![bytes.clone()]),
            DraftBody::File(file) => PutBody::File(file.path().to_owned()),
        };
        let store = self.shared.deps.buckets.get(&self.place.bucket)?;
        self.unpublished.push(DoomedObject { bucket: self.place.bucket.clone(), object_key: object_key.clone() });
        let put = match store.put(&object_key, body, PutMode::IfAbsent).await {
            // The token is ours alone: what is there is our own put, whose answer was lost on the way.
            Err(error) if error.kind() == ErrorKind::Conflict => store.head(&object_key).await?,
            other => other?,
        };
        Ok(draft.meta(&key, &self.place.bucket, self.place.instance_num, put.etag))
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
