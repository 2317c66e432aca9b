//! Objects under `db/` and `raw/` that nothing refers to.

use futures::StreamExt;
use tidemill_store::metastore::DoomedObject;
use tidemill_store::object::ObjectInfo;
use tidemill_types::TimestampNs;

use super::Shared;
use super::ownership::{BucketOwner, claim_bucket};
use crate::{Result, own_key};

/// Everything that we ever write.
const PREFIXES: [&str; 2] = ["db/", "raw/"];

/// Deletes a bucket's orphans; returns how many.
pub(super) async fn sweep_bucket(shared: &Shared, bucket: &str, now: TimestampNs) -> Result<u64> {
    let store = shared.deps.buckets.get(bucket)?;
    let age_ns = i64::try_from(shared.options.orphan_age.as_nanos()).unwrap_or(i64::MAX);
    let before = now.plus_ns(-age_ns);
    let mut deleted = 0;
    let mut is_ours = false;
    for prefix in PREFIXES {
        let mut listing = store.list(prefix).chunks(shared.options.batch.max(1));
        while let Some(page) = listing.next().await {
            let page = page.into_iter().collect::<tidemill_store::Result<Vec<ObjectInfo>>>()?;
            let old = page.into_iter().filter(|info| info.modified < before && own_key::parse(&info.key).is_some());
            let keys: Vec<String> = old.map(|info| info.key).collect();
            if keys.is_empty() {
                continue;
            }
            // Asked only now, so that a bucket without objects of ours, such as a watched folder, gets no marker.
            if !is_ours && !is_our_bucket(shared, bucket).await? {
                return Ok(0);
            }
            is_ours = true;
            deleted += sweep_page(shared, bucket, keys).await?;
            if shared.stopping.is_cancelled() {
                return Ok(deleted);
            }
        }
    }
    Ok(deleted)
}

async fn is_our_bucket(shared: &Shared, bucket: &str) -> Result<bool> {
    let owner = claim_bucket(&shared.deps, bucket).await?;
    if owner == BucketOwner::Other {
        tracing::warn!(
            bucket,
            "the bucket's objects were written under another catalog, or under a later state of this one; nothing is swept. \
             Run `tidemill catalog rebuild` to take them over"
        );
    }
    Ok(owner == BucketOwner::Us)
}

async fn sweep_page(shared: &Shared, bucket: &str, keys: Vec<String>) -> Result<u64> {
    let referenced = shared.deps.metastore.referenced(&keys).await?;
    let unwanted = keys.into_iter().zip(referenced).filter(|(_, is_referenced)| !is_referenced);
    let orphans: Vec<DoomedObject> =
        unwanted.map(|(object_key, _)| DoomedObject { bucket: bucket.to_owned(), object_key }).collect();
    for orphan in &orphans {
        tracing::info!(bucket, key = orphan.object_key, "an orphan is deleted");
    }
    Ok(shared.delete(orphans).await.len() as u64)
}
