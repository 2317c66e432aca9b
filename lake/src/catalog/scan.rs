//! Reading what a bucket holds: segment objects by their footers. Day indexes are left out: compaction builds them again.

use futures::{StreamExt, TryStreamExt, stream};
use tidemill_segment::identities::IDENTITIES_PART;
use tidemill_segment::read::{StoredObject, segment_meta};
use tidemill_store::ObjectStore;
use tidemill_store::object::ObjectInfo;
use tidemill_types::{ErrorKind, OrganizationId, SegmentMeta};

use super::CatalogDeps;
use super::decide::Found;
use crate::own_key::{self, OwnKey};
use crate::{Error, Result};

/// Bytes of an object's end that are read first; most footers fit.
const TAIL_BYTES: u64 = 64 << 10;
/// Footers read at the same time.
const READS_IN_FLIGHT: usize = 16;

/// A bucket's segment objects.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub found: Vec<Found>,
    pub unreadable: Vec<(String, String)>,
}

/// Lists our raw objects.
pub(super) async fn list_raw(deps: &CatalogDeps, bucket: &str) -> Result<Vec<ObjectInfo>> {
    list(deps, bucket, "raw/", |key| matches!(key, OwnKey::Raw { .. } | OwnKey::Loaded { .. })).await
}

/// Lists our segment objects.
pub(super) async fn list_segments(deps: &CatalogDeps, bucket: &str) -> Result<Vec<ObjectInfo>> {
    list(deps, bucket, "db/", |key| matches!(key, OwnKey::Segment { .. })).await
}

async fn list(
    deps: &CatalogDeps,
    bucket: &str,
    prefix: &str,
    is_wanted: impl Fn(OwnKey) -> bool,
) -> Result<Vec<ObjectInfo>> {
    let listed = deps.buckets.get(bucket)?.list(prefix);
    let ours = listed.try_filter(|info| std::future::ready(own_key::parse(&info.key).is_some_and(&is_wanted)));
    Ok(ours.try_collect().await?)
}

/// Reads the footer of every segment object.
pub(super) async fn scan_bucket(deps: &CatalogDeps, bucket: &str) -> Result<Scan> {
    let store = deps.buckets.get(bucket)?;
    let objects = list_segments(deps, bucket).await?;
    let mut reads = stream::iter(objects)
        .map(|info| {
            let store = store.clone();
            async move {
                let read = read_footer(deps, store.as_ref(), bucket, &info).await;
                (info, read)
            }
        })
        .buffer_unordered(READS_IN_FLIGHT);
    let mut scan = Scan::default();
    while let Some((info, read)) = reads.next().await {
        match read {
            Ok(found) => scan.found.push(found),
            // Deleted since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error @ Error::Segment { .. }) => scan.unreadable.push((info.key, error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(scan)
}

async fn read_footer(deps: &CatalogDeps, store: &dyn ObjectStore, bucket: &str, info: &ObjectInfo) -> Result<Found> {
    let object = StoredObject {
        bucket: bucket.to_owned(),
        instance_num: organization_of(&info.key)
            .map_or(1, |organization| deps.placement.instance_of(organization, bucket)),
        key: info.key.clone(),
        bytes: info.size,
        etag: info.etag.clone(),
    };
    let mut tail_bytes = TAIL_BYTES.min(info.size);
    loop {
        let range = info.size - tail_bytes..info.size;
        let tail = store.get_ranges(&info.key, std::slice::from_ref(&range)).await?;
        let tail = tail.first().map(|bytes| &bytes[..]).unwrap_or_default();
        match segment_meta(&object, tail).map_err(Error::segment("read a segment's footer"))? {
            Ok((meta, footer)) => {
                let identities = footer.sections.iter().find(|part| part.name == IDENTITIES_PART);
                return Ok(Found {
                    identities: identities.map(|part| part.range),
                    meta,
                    replaces: footer.replaces,
                    outputs: footer.outputs,
                    ordinal: footer.ordinal,
                    inputs: footer.inputs,
                    written_at: info.modified,
                });
            }
            Err(needed) if needed > tail_bytes && needed <= info.size => tail_bytes = needed,
            Err(needed) => {
                return Err(Error::Internal(format!(
                    "{}: {needed} more bytes are asked for after {tail_bytes}",
                    info.key
                )));
            }
        }
    }
}

/// Whose an object of ours is.
pub(super) fn organization_of(key: &str) -> Option<OrganizationId> {
    match own_key::parse(key)? {
        OwnKey::Raw { organization, .. }
        | OwnKey::Loaded { organization, .. }
        | OwnKey::Segment { organization }
        | OwnKey::TraceDay { organization } => Some(organization),
    }
}

/// How an object differs from its catalog row, by size and by the footer's hash.
pub(super) async fn compare(deps: &CatalogDeps, meta: &SegmentMeta, info: &ObjectInfo) -> Result<Option<String>> {
    if info.size != meta.bytes {
        return Ok(Some(format!("the catalog says {} bytes, the object has {}", meta.bytes, info.size)));
    }
    let range = meta.footer.offset..meta.footer.offset + meta.footer.len;
    let footer = match deps.buckets.get(&meta.bucket)?.get_ranges(&meta.object_key, &[range]).await {
        Ok(footer) => footer,
        Err(error) if error.kind().is_retryable() => return Err(error.into()),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let footer = footer.first().map(|bytes| &bytes[..]).unwrap_or_default();
    let is_equal = blake3::hash(footer).as_bytes() == &meta.footer_hash;
    Ok((!is_equal).then(|| "the footer is not the one that was published".to_owned()))
}
