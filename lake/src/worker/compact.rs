//! Compaction: the merges that `tidemill_plan::compaction` asks for, published as a compare-and-set; and, once a day of traces rests,
//! its index (`trace_day`).
//!
//! Another worker, retention or a deleted organization may retire an input meanwhile; the catalog then refuses the
//! publication, what was written becomes orphans, and the plan is made anew under the same lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tidemill_plan::compaction::{Candidate, CompactionPlan, CompactionPolicy, Merge, solve};
use tidemill_segment::DraftSegment;
use tidemill_segment::merge::{MergeInput, MergeOptions, merge_segments_since};
use tidemill_store::metastore::{Bundle, NewWork, Publication, SegmentFilter};
use tidemill_store::step::{Step, reach};
use tidemill_types::{Day, ErrorKind, Level, NANOS_PER_HOUR, SegmentId, SegmentMeta, Signal, Tier, TimestampNs};

use super::download::{SpoolDownload, Wanted, download_to_file};
use super::trigger::{self, CompactPayload, CompactTask};
use super::upload::Uploads;
use super::{Ending, Shared, trace_day};
use crate::{Error, Result};

/// Segments downloaded at the same time.
const DOWNLOADS_AHEAD: usize = 8;
/// Plans made under one lease before the days are left to a later trigger.
const PLANS: u32 = 3;
/// One publication merges at most this many bytes, but at least one merge; the rest follows at once.
const BUNDLE_BYTES: u64 = 512 << 20;

/// Merges list the requests of the last hours only: by then the sweeper has deleted a raw object that was never admitted.
const REQUESTS_LISTED_NS: i64 = 6 * NANOS_PER_HOUR;

/// Compacts the days of a bundle.
pub(super) async fn compact(shared: &Arc<Shared>, bundle: &Bundle) -> Result<Ending> {
    reach(Step::CompactClaimed);
    let days = Days::of(bundle)?;
    let place = shared.deps.placement.for_segments(bundle.organization, bundle.instance_num)?;
    let mut uploads = Uploads::new(shared, bundle, &place);
    for _ in 0..PLANS {
        match compact_once(shared, bundle, &days, &mut uploads).await {
            Ok(Ending::Lost) => {
                if !uploads.lease_is_ours().await? {
                    return Ok(Ending::Lost);
                }
            }
            // An input's object is gone: it was replaced more than a grace ago.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        tracing::debug!(token = %bundle.token, "the segments changed meanwhile; planning again");
    }
    let later = Duration::from_secs(60);
    let merges = days.merged.iter().map(|day| trigger::compaction(bundle, *day, later));
    let enqueue = merges.chain(days.indexed.iter().map(|day| trigger::trace_index(bundle, *day, later))).collect();
    let publication = Publication { enqueue, orphans: uploads.take_orphans(), ..Publication::default() };
    uploads.publish(&publication).await
}

/// The days of a bundle, by what is made of their segments.
struct Days {
    merged: BTreeSet<Day>,
    indexed: BTreeSet<Day>,
}

impl Days {
    fn of(bundle: &Bundle) -> Result<Self> {
        let mut days = Self { merged: BTreeSet::new(), indexed: BTreeSet::new() };
        for item in &bundle.items {
            let CompactPayload { day, task } = super::payload(item)?;
            match task {
                CompactTask::Merge => days.merged.insert(day),
                CompactTask::TraceIndex => days.indexed.insert(day),
            };
        }
        Ok(days)
    }
}

async fn compact_once(shared: &Arc<Shared>, bundle: &Bundle, days: &Days, uploads: &mut Uploads<'_>) -> Result<Ending> {
    let policy = CompactionPolicy::default();
    let orphans = uploads.take_orphans();
    let now = shared.deps.metastore.now().await?;
    let mut publication = Publication { orphans, ..Publication::default() };
    let mut left_bytes = BUNDLE_BYTES;
    for day in &days.merged {
        let live = live_segments(shared, bundle, *day).await?;
        let candidates: Vec<Candidate> = live.values().map(|meta| Candidate::of(meta, None)).collect();
        let plan = solve(&policy, &candidates, now);
        let chosen = choose(&plan, &mut left_bytes);
        let mut outputs = Vec::new();
        for merge in chosen {
            let drafts = run_merge(shared, bundle, merge, &live, policy.target_max_bytes).await?;
            outputs.extend(uploads.store(drafts).await?);
            publication.replaces.extend(&merge.inputs);
        }
        publication.enqueue.extend(follow_ups(&policy, bundle, *day, &candidates, chosen, &outputs, now));
        publication.segments.extend(outputs);
    }
    for day in &days.indexed {
        if days.merged.contains(day) {
            // It is about to change.
            publication.enqueue.push(trigger::trace_index(bundle, *day, Duration::ZERO));
        } else {
            publication.trace_days.extend(trace_day::index_day(shared, bundle, *day, uploads).await?);
        }
    }
    if !publication.segments.is_empty() || !publication.trace_days.is_empty() {
        reach(Step::CompactUploaded);
    }
    uploads.publish(&publication).await
}

/// The raw segments of a day that the bundle's storage profile instance wrote.
pub(super) async fn live_segments(
    shared: &Shared,
    bundle: &Bundle,
    day: Day,
) -> Result<BTreeMap<SegmentId, SegmentMeta>> {
    let filter = SegmentFilter {
        organization: Some(bundle.organization),
        signal: Some(bundle.queue.signal),
        tier: Some(Tier::RAW),
        day: Some(day),
        ..SegmentFilter::default()
    };
    let live = shared.deps.metastore.segments(&filter).await?;
    let ours = live.into_iter().filter(|meta| meta.instance_num == bundle.instance_num);
    Ok(ours.map(|meta| (meta.id, meta)).collect())
}

/// The first merges of a plan that fit what is left of the bundle's bytes; at least one while nothing was chosen.
fn choose<'a>(plan: &'a CompactionPlan, left_bytes: &mut u64) -> &'a [Merge] {
    let mut count = 0;
    for merge in &plan.merges {
        let is_first = *left_bytes == BUNDLE_BYTES;
        if merge.bytes > *left_bytes && !is_first {
            break;
        }
        *left_bytes = left_bytes.saturating_sub(merge.bytes.max(1));
        count += 1;
    }
    &plan.merges[..count]
}

/// Downloads the inputs and merges them on the blocking pool.
async fn run_merge(
    shared: &Shared,
    bundle: &Bundle,
    merge: &Merge,
    live: &BTreeMap<SegmentId, SegmentMeta>,
    target_bytes: u64,
) -> Result<Vec<DraftSegment>> {
    let metas: Vec<&SegmentMeta> = merge.inputs.iter().filter_map(|id| live.get(id)).collect();
    let files = fetch_segments(shared, &metas).await?;
    let options = MergeOptions {
        level: merge.level,
        promote: shared.deps.placement.promoted(bundle.organization, bundle.queue.signal),
        spool: shared.options.spool.clone(),
        target_bytes,
    };
    let requests_from = shared.deps.metastore.now().await?.plus_ns(-REQUESTS_LISTED_NS);
    let expected_rows: u64 = metas.iter().map(|meta| meta.rows).sum();
    let inputs = merge_inputs(&metas, &files);
    let merging = tokio::task::spawn_blocking(move || {
        let drafts = merge_segments_since(inputs, options, requests_from);
        // The inputs' files live until the merge is over, even when nobody waits for it any more.
        drop(files);
        drafts
    });
    let drafts = merging
        .await
        .map_err(|error| Error::Internal(format!("merging segments: {error}")))?
        .map_err(Error::segment("merge segments"))?;
    let rows: u64 = drafts.iter().map(|draft| draft.rows).sum();
    if rows != expected_rows {
        // I-2: nothing is published, the inputs stay live.
        return Err(Error::Internal(format!("a merge of {expected_rows} rows gave {rows}; inputs {:?}", merge.inputs)));
    }
    Ok(drafts)
}

/// The files of segments in the order given, for as long as the result lives.
pub(super) async fn fetch_segments(shared: &Shared, metas: &[&SegmentMeta]) -> Result<Vec<SpoolDownload>> {
    let fetches: Vec<_> = metas.iter().map(|meta| fetch_segment(shared, meta)).collect();
    stream::iter(fetches).buffered(DOWNLOADS_AHEAD).try_collect().await
}

async fn fetch_segment(shared: &Shared, meta: &SegmentMeta) -> Result<SpoolDownload> {
    let store = shared.deps.buckets.get(&meta.bucket)?;
    // A segment's key is never written twice, so its size tells torn from whole; the footer's hash is checked on reading.
    let wanted = Wanted { key: &meta.object_key, etag: None, size_bytes: Some(meta.bytes) };
    download_to_file(store.as_ref(), wanted, &shared.options.spool).await
}

/// What merges and rollups read: catalog rows with their local files.
pub(super) fn merge_inputs(metas: &[&SegmentMeta], files: &[SpoolDownload]) -> Vec<MergeInput> {
    let pairs = metas.iter().zip(files);
    pairs.map(|(meta, file)| MergeInput { meta: (*meta).clone(), file: file.path().to_owned() }).collect()
}

/// When the day must be looked at again: at once if merges are left, else when something becomes due. When nothing is due now, traces
/// are indexed.
fn follow_ups(
    policy: &CompactionPolicy,
    bundle: &Bundle,
    day: Day,
    before: &[Candidate],
    chosen: &[Merge],
    outputs: &[SegmentMeta],
    now: TimestampNs,
) -> Vec<NewWork> {
    let replaced: BTreeSet<SegmentId> = chosen.iter().flat_map(|merge| merge.inputs.iter().copied()).collect();
    let mut after: Vec<Candidate> = before.iter().filter(|one| !replaced.contains(&one.id)).cloned().collect();
    after.extend(outputs.iter().map(|meta| Candidate::of(meta, None)));
    let plan = solve(policy, &after, now);
    if !plan.merges.is_empty() {
        return vec![trigger::compaction(bundle, day, Duration::ZERO)];
    }
    let mut work = Vec::new();
    if let Some(at) = plan.next_at {
        let delay = Duration::from_nanos(at.0.saturating_sub(now.0).max(0).unsigned_abs());
        work.push(trigger::compaction(bundle, day, delay));
    }
    if bundle.queue.signal == Signal::Traces && after.iter().any(|one| one.level > Level(0)) {
        work.push(trigger::trace_index(bundle, day, trigger::trace_index_delay(day, now)));
    }
    work
}
