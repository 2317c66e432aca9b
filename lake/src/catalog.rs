//! The catalog against the bucket: rebuild it from what is stored, and verify that the two agree.
//!
//! Owns: reading footers, deciding which found segments are live ([`decide`]), adopting them, and ingesting again what was
//! acknowledged and is in no segment ([`readmit`]). Never: deleting anything. Rollups are not adopted but computed again, because a rebuilt
//! catalog counts the ingests of an hour from nothing. Start with [`rebuild`] and [`verify`].

mod decide;
mod readmit;
mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidemill_segment::footer::input_name;
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{NewWork, SegmentFilter};
use tidemill_store::object::ObjectInfo;
use tidemill_types::{Action, Hour, NANOS_PER_HOUR, OrganizationId, SegmentId, SegmentMeta, Signal, Tier, WorkQueue};

use crate::place::Placement;
use crate::sweep::SweeperDeps;
use crate::worker::{CompactPayload, CompactTask, RollupPayload};
use crate::{Result, sweep};

pub use decide::{Decision, Found, Surroundings, decide_live};

/// Rows adopted in one transaction.
const ADOPTED_AT_ONCE: usize = 500;
/// By then the sweeper has deleted what a lost lease left behind.
const SWEPT_AFTER_NS: i64 = 3 * NANOS_PER_HOUR;
/// Problems listed in a report; more are counted.
const LISTED: usize = 1000;

/// What rebuilding and verifying stand on.
#[derive(Debug, Clone)]
pub struct CatalogDeps {
    /// The catalog.
    pub metastore: Arc<dyn Metastore>,
    /// Where segments lie.
    pub buckets: Arc<Buckets>,
    /// Which storage profile instance a bucket is.
    pub placement: Arc<dyn Placement>,
}

/// What a rebuild did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RebuildReport {
    /// Segment objects read.
    pub objects: u64,
    /// Segments that the catalog did not know.
    pub adopted: u64,
    /// Segments that others replace; they are left to the sweeper.
    pub replaced: u64,
    /// Segments of uploads that were never finished or lost their lease; they are left to the sweeper.
    pub unpublished: u64,
    /// Segments of the catalog that were replaced after its backup.
    pub retired: u64,
    /// Rollups, which are computed again.
    pub rollups: u64,
    /// Raw objects of pushes that no segment covers; they are ingested now.
    pub readmitted: u64,
    /// Raw objects that no segment covers and whose requests are all known from others: their senders had come again.
    pub repeated: u64,
    /// Organizations that were created because the bucket has data of theirs.
    pub organizations: Vec<OrganizationId>,
    /// Objects that are no readable segments, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// How the catalog and the buckets differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Live segments checked.
    pub segments: u64,
    /// Live segments whose object is missing.
    pub missing: Vec<String>,
    /// Live segments whose object is not what the catalog says, with the difference.
    pub different: Vec<(String, String)>,
    /// Segment objects that nothing refers to (the sweeper's, unless a catalog was lost).
    pub unknown: Vec<String>,
    /// Differences beyond those listed.
    pub unlisted: u64,
}

impl VerifyReport {
    /// Whether every live segment is stored as the catalog says.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty()
    }
}

/// Recreates the catalog from the buckets. What it knows already is left alone, so it may be run again, and beside a running
/// system.
///
/// # Errors
/// What the metastore or a store answers. Objects that are no segments are reported, not errors.
pub async fn rebuild(deps: &CatalogDeps) -> Result<RebuildReport> {
    let mut report = RebuildReport::default();
    for bucket in deps.buckets.names() {
        let scan = scan::scan_bucket(deps, &bucket).await?;
        let raw_objects = scan::list_raw(deps, &bucket).await?;
        report.unreadable.extend(scan.unreadable.into_iter().take(LISTED));
        if scan.found.is_empty() && raw_objects.is_empty() {
            continue;
        }
        report.objects += scan.found.len() as u64;
        rebuild_bucket(deps, &bucket, scan.found, &raw_objects, &mut report).await?;
        let sweeper = SweeperDeps { metastore: deps.metastore.clone(), buckets: deps.buckets.clone() };
        sweep::take_bucket(&sweeper, &bucket).await?;
    }
    Ok(report)
}

async fn rebuild_bucket(
    deps: &CatalogDeps,
    bucket: &str,
    found: Vec<Found>,
    raw_objects: &[ObjectInfo],
    report: &mut RebuildReport,
) -> Result<()> {
    create_organizations(deps, &found, raw_objects, report).await?;
    let (rollups, raw): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|one| one.meta.tier != Tier::RAW);
    report.rollups += rollups.len() as u64;
    let around = Surroundings {
        known: known_live(deps).await?,
        raw_inputs: raw_objects.iter().map(|info| input_name(&info.key)).collect(),
        pending_inputs: pending_inputs(deps).await?,
        swept_before: deps.metastore.now().await?.plus_ns(-SWEPT_AFTER_NS),
    };
    let decision = decide_live(&raw, &around);
    report.replaced += decision.replaced.len() as u64;
    report.unpublished += decision.unpublished.len() as u64;
    let live = raw.iter().filter(|one| decision.live.contains(&one.meta.id) && !around.known.contains(&one.meta.id));
    let live = unreferenced(deps, live.map(|one| one.meta.clone()).collect()).await?;
    for chunk in live.chunks(ADOPTED_AT_ONCE) {
        report.adopted += deps.metastore.adopt_segments(chunk).await?;
    }
    // A catalog restored from a backup still has what was replaced since.
    let outdated: Vec<SegmentId> = decision.consumed.intersection(&around.known).copied().collect();
    for chunk in outdated.chunks(ADOPTED_AT_ONCE) {
        report.retired += deps.metastore.retire_segments(chunk).await?;
    }
    enqueue_upkeep(deps, &live).await?;
    let published: Vec<&Found> = raw.iter().filter(|one| !decision.unpublished.contains(&one.meta.id)).collect();
    let covered: HashSet<&str> = published.iter().flat_map(|one| one.inputs.iter().map(String::as_str)).collect();
    let open: Vec<&ObjectInfo> =
        raw_objects.iter().filter(|info| !covered.contains(input_name(&info.key).as_str())).collect();
    report.unreadable.extend(readmit::remember(deps, bucket, &published).await?);
    let readmitted = readmit::readmit(deps, bucket, &open).await?;
    report.readmitted += readmitted.admitted;
    report.repeated += readmitted.repeated;
    Ok(())
}

/// What the inbox still holds. A catalog restored from a backup ingests it again, so what was made of it since is not adopted.
async fn pending_inputs(deps: &CatalogDeps) -> Result<HashSet<String>> {
    let inbox = deps.metastore.inbox(None, usize::MAX).await?;
    let pending = inbox.iter().filter(|entry| entry.work.is_some());
    Ok(pending.map(|entry| input_name(&entry.object_key)).collect())
}

/// Leaves out what is doomed, and what a worker is about to publish.
async fn unreferenced(deps: &CatalogDeps, metas: Vec<SegmentMeta>) -> Result<Vec<SegmentMeta>> {
    let mut left = Vec::with_capacity(metas.len());
    for chunk in metas.chunks(ADOPTED_AT_ONCE) {
        let keys: Vec<String> = chunk.iter().map(|meta| meta.object_key.clone()).collect();
        let referenced = deps.metastore.referenced(&keys).await?;
        left.extend(
            chunk.iter().zip(referenced).filter(|(_, is_referenced)| !is_referenced).map(|(meta, _)| meta.clone()),
        );
    }
    Ok(left)
}

/// A lost database has lost its organizations, too: their data is kept under their ids, without keys.
async fn create_organizations(
    deps: &CatalogDeps,
    found: &[Found],
    raw_objects: &[ObjectInfo],
    report: &mut RebuildReport,
) -> Result<()> {
    let known: BTreeSet<OrganizationId> = deps.metastore.organizations().await?.into_iter().map(|one| one.id).collect();
    let of_raw = raw_objects.iter().filter_map(|info| scan::organization_of(&info.key));
    let needed: BTreeSet<OrganizationId> = found.iter().map(|one| one.meta.organization).chain(of_raw).collect();
    for id in needed.difference(&known) {
        deps.metastore.create_organization(*id, &id.to_string()).await?;
        report.organizations.push(*id);
    }
    Ok(())
}

async fn known_live(deps: &CatalogDeps) -> Result<HashSet<SegmentId>> {
    let live = deps.metastore.segments(&SegmentFilter::default()).await?;
    Ok(live.into_iter().map(|meta| meta.id).collect())
}

/// Days with segments are compacted on, and hours with metrics rolled up.
async fn enqueue_upkeep(deps: &CatalogDeps, metas: &[SegmentMeta]) -> Result<()> {
    let mut work: BTreeMap<(OrganizationId, String), NewWork> = BTreeMap::new();
    for meta in metas {
        let day = format!("day/{}/{}", meta.day, meta.instance_num);
        let payload = serde_json::to_value(CompactPayload { day: meta.day, task: CompactTask::Merge })
            .expect("a plain struct is JSON");
        let compact = upkeep(meta, Action::Compact, day.clone(), meta.day.range(), payload);
        work.entry((meta.organization, format!("{}/{day}", meta.signal))).or_insert(compact);
        if meta.signal != Signal::Metrics {
            continue;
        }
        let last = meta.time.end.plus_ns(-1).hour();
        for hour in (meta.time.start.plus_ns(-1).hour().0..=last.0).map(Hour) {
            let payload = serde_json::to_value(RollupPayload { hour }).expect("a plain struct is JSON");
            let rollup = upkeep(meta, Action::Rollup, format!("hour/{}", hour.0), hour.range(), payload);
            work.entry((meta.organization, format!("hour/{}", hour.0))).or_insert(rollup);
        }
    }
    let work: Vec<NewWork> = work.into_values().collect();
    for chunk in work.chunks(ADOPTED_AT_ONCE) {
        deps.metastore.enqueue(chunk).await?;
    }
    Ok(())
}

fn upkeep(
    meta: &SegmentMeta,
    action: Action,
    dedupe_key: String,
    range: tidemill_types::TimeRange,
    payload: serde_json::Value,
) -> NewWork {
    NewWork {
        queue: WorkQueue { signal: meta.signal, action },
        organization: meta.organization,
        instance_num: meta.instance_num,
        priority: 0,
        delay: Duration::from_secs(60),
        dedupe_key: Some(dedupe_key),
        range: Some(range),
        tier: if action == Action::Rollup { Tier::ROLLUPS[0] } else { Tier::RAW },
        size_bytes: 0,
        payload,
    }
}

/// Compares the catalog with the buckets: every live segment's object, size and footer hash, and what nothing refers to.
///
/// # Errors
/// What the metastore or a store answers.
pub async fn verify(deps: &CatalogDeps) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut live: BTreeMap<String, Vec<SegmentMeta>> = BTreeMap::new();
    for meta in deps.metastore.segments(&SegmentFilter::default()).await? {
        live.entry(meta.bucket.clone()).or_default().push(meta);
    }
    for bucket in deps.buckets.names() {
        let metas = live.remove(&bucket).unwrap_or_default();
        verify_bucket(deps, &bucket, metas, &mut report).await?;
    }
    for (bucket, metas) in live {
        for meta in metas {
            report.segments += 1;
            report.note_different(
                format!("{bucket}/{}", meta.object_key),
                "no storage profile has this bucket".to_owned(),
            );
        }
    }
    Ok(report)
}

async fn verify_bucket(
    deps: &CatalogDeps,
    bucket: &str,
    metas: Vec<SegmentMeta>,
    report: &mut VerifyReport,
) -> Result<()> {
    let objects = scan::list_segments(deps, bucket).await?;
    let mut stored: HashMap<&str, &ObjectInfo> = objects.iter().map(|info| (info.key.as_str(), info)).collect();
    for meta in &metas {
        report.segments += 1;
        let Some(info) = stored.remove(meta.object_key.as_str()) else {
            report.note_missing(format!("{bucket}/{}", meta.object_key));
            continue;
        };
        if let Some(difference) = scan::compare(deps, meta, info).await? {
            report.note_different(format!("{bucket}/{}", meta.object_key), difference);
        }
    }
    let unknown: Vec<String> = stored.into_keys().map(str::to_owned).collect();
    for chunk in unknown.chunks(ADOPTED_AT_ONCE) {
        let referenced = deps.metastore.referenced(chunk).await?;
        for (key, is_referenced) in chunk.iter().zip(referenced) {
            if !is_referenced {
                report.note_unknown(format!("{bucket}/{key}"));
            }
        }
    }
    Ok(())
}

impl VerifyReport {
    fn note_missing(&mut self, key: String) {
        if self.missing.len() < LISTED { self.missing.push(key) } else { self.unlisted += 1 }
    }

    fn note_different(&mut self, key: String, difference: String) {
        if self.different.len() < LISTED { self.different.push((key, difference)) } else { self.unlisted += 1 }
    }

    fn note_unknown(&mut self, key: String) {
        if self.unknown.len() < LISTED { self.unknown.push(key) } else { self.unlisted += 1 }
    }
}
