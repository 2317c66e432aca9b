//! The day index of traces: built anew over a day's merged segments once they rest, and published in place of the one before.
//!
//! Only footers and trace ids are read, a few row groups at a time. An index speaks for the segments from which it was built and for
//! no others, so it is never wrong, only behind: what was merged or arrived since is found without it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_segment::index::trace_day::{ENTRY_BYTES, TRAILER_BYTES, TraceDayBuilder, TraceDayIndex};
use tidemill_segment::read::TraceColumn;
use tidemill_store::metastore::{Bundle, TraceDay, TraceDayChange};
use tidemill_types::{ByteRange, Day, Level, SegmentId, SegmentMeta};

use super::Shared;
use super::compact::live_segments;
use super::upload::Uploads;
use crate::{Error, Result};

/// Row groups whose trace ids are fetched and decoded together, at most 1 MiB each.
const GROUPS_TOGETHER: usize = 16;

/// A day index that is not stored yet.
#[derive(Debug)]
pub(super) struct TraceDayDraft {
    pub(super) day: Day,
    pub(super) bytes: Bytes,
    /// Bytes at its end that a reader keeps.
    pub(super) tail_bytes: u64,
    /// What it covers.
    pub(super) segments: Vec<SegmentId>,
}

/// Builds and stores the index of a day; `None` when the current one covers all that it could.
pub(super) async fn index_day(
    shared: &Shared,
    bundle: &Bundle,
    day: Day,
    uploads: &mut Uploads<'_>,
) -> Result<Option<TraceDayChange>> {
    let current = shared.deps.metastore.trace_days(bundle.organization, day, day).await?;
    let current = current.into_iter().find(|index| index.instance_num == bundle.instance_num);
    let live = live_segments(shared, bundle, day).await?;
    let merged: Vec<SegmentMeta> = live.into_values().filter(|meta| meta.level > Level(0)).collect();
    if merged.is_empty() || current.as_ref().is_some_and(|index| covers_exactly(index, &merged)) {
        return Ok(None);
    }
    let index = uploads.store_trace_day(build(shared, day, &merged).await?).await?;
    Ok(Some(TraceDayChange { index, replaces: current.map(|index| index.object_key) }))
}

/// Both are in the order of their ids.
fn covers_exactly(index: &TraceDay, segments: &[SegmentMeta]) -> bool {
    index.segments.iter().eq(segments.iter().map(|meta| &meta.id))
}

async fn build(shared: &Shared, day: Day, segments: &[SegmentMeta]) -> Result<TraceDayDraft> {
    // What is encoded takes about as much as the entries.
    let most_entries = shared.options.memory_bytes / (2 * ENTRY_BYTES);
    let mut builder = TraceDayBuilder::default();
    let mut covered = Vec::with_capacity(segments.len());
    for meta in segments {
        if builder.entries() >= most_entries {
            let (covered, segments) = (covered.len(), segments.len());
            tracing::info!(%day, covered, segments, "a day has more traces than a worker holds; its index covers a part");
            break;
        }
        builder = add_segment(shared, meta, builder).await?;
        covered.push(meta.id);
    }
    let encoding = tokio::task::spawn_blocking(move || Bytes::from(builder.encode()));
    let bytes = encoding.await.map_err(|error| Error::Internal(format!("encoding a day index: {error}")))?;
    let trailer = &bytes[bytes.len().saturating_sub(TRAILER_BYTES)..];
    let tail = TraceDayIndex::tail_bytes(trailer).map_err(Error::segment("encode a day index"))?;
    Ok(TraceDayDraft { day, bytes, tail_bytes: tail + TRAILER_BYTES as u64, segments: covered })
}

/// Adds the traces of one segment: its footer in one request, then its trace ids.
async fn add_segment(shared: &Shared, meta: &SegmentMeta, mut builder: TraceDayBuilder) -> Result<TraceDayBuilder> {
    let store = shared.deps.buckets.get(&meta.bucket)?;
    let footer = store.get_ranges(&meta.object_key, &[bounds(meta.footer)]).await?.concat();
    let column = TraceColumn::decode(meta, &footer).map_err(Error::segment("read a segment's footer"))?;
    let column = Arc::new(column);
    let ranges: Vec<Range<u64>> = column.ranges().into_iter().map(bounds).collect();
    for (chunk, wanted) in ranges.chunks(GROUPS_TOGETHER).enumerate() {
        let parts = store.get_ranges(&meta.object_key, wanted).await?;
        let (column, object_key) = (Arc::clone(&column), meta.object_key.clone());
        let decoding = tokio::task::spawn_blocking(move || {
            for (group, part) in (chunk * GROUPS_TOGETHER..).zip(parts) {
                for id in column.trace_ids(group, part)? {
                    builder.add(&id, &object_key, group as u32);
                }
            }
            Ok(builder)
        });
        builder = decoding
            .await
            .map_err(|error| Error::Internal(format!("reading trace ids: {error}")))?
            .map_err(Error::segment("read trace ids"))?;
    }
    Ok(builder)
}

fn bounds(range: ByteRange) -> Range<u64> {
    range.offset..range.offset.saturating_add(range.len)
}
