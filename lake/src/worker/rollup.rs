//! Rollups: the ladder of an hour, each tier computed from the next finer one, all published together.
//!
//! The hour's `ingest_seq` is read before its segments are listed. What arrives in between is in the rollup and raises the
//! `ingest_seq`, so the rollup is stale at once and is computed again; it never claims rows that it does not hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_plan::rollup::{RollupStep, hour_of_rollup, plan_rollups, rollup_due_at};
use tidemill_segment::DraftSegment;
use tidemill_segment::rollup::{RollupOptions, rollup_hour};
use tidemill_store::metastore::{Bundle, Publication, SegmentFilter};
use tidemill_store::step::{Step, reach};
use tidemill_types::{ErrorKind, Hour, SegmentMeta, Signal, Tier, TimeRange};

use super::compact::{fetch_segments, merge_inputs};
use super::trigger::{self, RollupPayload};
use super::upload::Uploads;
use super::{Ending, Shared};
use crate::{Error, Result};

/// Plans made under one lease before the hours are left to a later trigger.
const PLANS: u32 = 3;

/// Recomputes what is stale of a bundle's hours.
pub(super) async fn roll_up(shared: &Arc<Shared>, bundle: &Bundle) -> Result<Ending> {
    let hours = bundle
        .items
        .iter()
        .map(|item| Ok(super::payload::<RollupPayload>(item)?.hour))
        .collect::<Result<BTreeSet<Hour>>>()?;
    let place = shared.deps.placement.for_segments(bundle.organization, bundle.instance_num)?;
    let mut uploads = Uploads::new(shared, bundle, &place);
    for _ in 0..PLANS {
        match roll_up_once(shared, bundle, &hours, &mut uploads).await {
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
    let enqueue = hours.iter().map(|hour| trigger::rollup(bundle, *hour, Duration::from_secs(60))).collect();
    let publication = Publication { enqueue, orphans: uploads.take_orphans(), ..Publication::default() };
    uploads.publish(&publication).await
}

async fn roll_up_once(
    shared: &Arc<Shared>,
    bundle: &Bundle,
    hours: &BTreeSet<Hour>,
    uploads: &mut Uploads<'_>,
) -> Result<Ending> {
    let now = shared.deps.metastore.now().await?;
    let mut publication = Publication { orphans: uploads.take_orphans(), ..Publication::default() };
    for hour in hours {
        let due_at = rollup_due_at(*hour, now);
        if due_at > now {
            let delay = Duration::from_nanos((due_at.0 - now.0).unsigned_abs());
            publication.enqueue.push(trigger::rollup(bundle, *hour, delay));
            continue;
        }
        climb(shared, bundle, *hour, uploads, &mut publication).await?;
    }
    if !publication.segments.is_empty() {
        reach(Step::RollupUploaded);
    }
    uploads.publish(&publication).await
}

async fn climb(
    shared: &Arc<Shared>,
    bundle: &Bundle,
    hour: Hour,
    uploads: &mut Uploads<'_>,
    publication: &mut Publication,
) -> Result<()> {
    let metastore = &shared.deps.metastore;
    let seqs = metastore.ingest_seqs(bundle.organization, Signal::Metrics, &[hour]).await?;
    let ingest_seq = seqs.first().copied().unwrap_or_default();
    let live: Vec<SegmentMeta> = segments_in(shared, bundle, hour.range()).await?;
    let live: Vec<SegmentMeta> =
        live.into_iter().filter(|meta| meta.tier != Tier::RAW && hour_of_rollup(meta) == hour).collect();
    let mut made: Vec<SegmentMeta> = Vec::new();
    for step in plan_rollups(&live, ingest_seq) {
        let inputs = if step.from == Tier::RAW {
            raw_inputs(shared, bundle, hour).await?
        } else if made.iter().any(|meta| meta.tier == step.from) {
            made
        } else {
            live.iter().filter(|meta| meta.tier == step.from).cloned().collect()
        };
        made = Vec::new();
        if let Some(draft) = compute(shared, &step, inputs, hour, ingest_seq).await? {
            made = uploads.store(vec![draft]).await?;
            publication.segments.extend(made.iter().cloned());
        }
        publication.replaces.extend(step.replaces);
    }
    Ok(())
}

/// Raw segments with samples in the hour's windows, which are (start, end].
async fn raw_inputs(shared: &Shared, bundle: &Bundle, hour: Hour) -> Result<Vec<SegmentMeta>> {
    let range = hour.range();
    let windows = TimeRange { start: range.start.plus_ns(1), end: range.end.plus_ns(1) };
    let found = segments_in(shared, bundle, windows).await?;
    Ok(found.into_iter().filter(|meta| meta.tier == Tier::RAW).collect())
}

async fn segments_in(shared: &Shared, bundle: &Bundle, time: TimeRange) -> Result<Vec<SegmentMeta>> {
    let filter = SegmentFilter {
        organization: Some(bundle.organization),
        signal: Some(Signal::Metrics),
        time: Some(time),
        ..SegmentFilter::default()
    };
    Ok(shared.deps.metastore.segments(&filter).await?)
}

async fn compute(
    shared: &Shared,
    step: &RollupStep,
    inputs: Vec<SegmentMeta>,
    hour: Hour,
    covers_ingest_seq: i64,
) -> Result<Option<DraftSegment>> {
    if inputs.is_empty() {
        return Ok(None);
    }
    let metas: Vec<&SegmentMeta> = inputs.iter().collect();
    let files = fetch_segments(shared, &metas).await?;
    let options = RollupOptions {
        tier: step.tier,
        hour,
        covers_ingest_seq,
        replaces: step.replaces.clone(),
        spool: shared.options.spool.clone(),
    };
    let inputs = merge_inputs(&metas, &files);
    let rolling = tokio::task::spawn_blocking(move || {
        let draft = rollup_hour(inputs, options);
        drop(files);
        draft
    });
    rolling
        .await
        .map_err(|error| Error::Internal(format!("rolling up an hour: {error}")))?
        .map_err(Error::segment("roll up an hour"))
}
