//! Reads what a selector names: catalog, series tables, points.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::FutureExt as _;
use tidemill_eval::Labels;
use tidemill_eval::promql::{Samples, Select, Series};
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, SegmentMeta, Signal, Tier, TimeRange, TimestampNs};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::PromqlLimits;
use super::assemble::{Entries, assemble, check_names};
use super::budget::Budget;
use super::conditions::Conditions;
use super::points::{NS_PER_MS, PointRequest, Points};
use super::rollups::RolledUp;
use super::series::{Kind, SegmentSeries};
use super::source::SharedParts;
use crate::scan::OpenSegment;
use crate::stats::{Counter, StatsHandle};
use crate::{Error, Result};

/// Segments read at a time.
pub(super) const SEGMENTS_TOGETHER: usize = 16;
/// More segments are read on a thread that may take its time.
const FEW_SEGMENTS: usize = 64;
/// More series of a segment are read on a thread of their own.
const FEW_SERIES: usize = 32;
/// More entries are put together on a thread that may take its time.
const FEW_ENTRIES: usize = 256;
/// Of the times of a resource so many milliseconds apart are told by its info series; its first and last, and those around gaps, all.
const INFO_GAP_MS: i64 = 10_000;

/// What reads for one query.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) parts: SharedParts,
    organization: OrganizationId,
    pub(super) limits: PromqlLimits,
    pub(super) stats: StatsHandle,
    pub(super) deadline: Instant,
    pub(super) budget: Arc<Budget>,
}

/// How long before the time asked for a histogram is looked for that tells whether the first one began anew: Prometheus's lookback.
const HINT_LOOKBACK_MS: i64 = 300_000;

/// The samples from `start_ms` on.
fn since(samples: &Samples, start_ms: i64) -> Samples {
    let first = samples.times.partition_point(|time| *time < start_ms);
    let count = samples.times.len() - first;
    let starts = if samples.starts.is_empty() { samples.starts.clone() } else { samples.starts.slice(first, count) };
    let after = samples.histograms.partition_point(|sample| sample.time < start_ms);
    Samples {
        times: samples.times.slice(first, count),
        values: samples.values.slice(first, count),
        starts,
        weights: if samples.weights.is_empty() { samples.weights.clone() } else { samples.weights.slice(first, count) },
        histograms: samples.histograms[after..].to_vec(),
        is_delta: samples.is_delta,
        is_unbroken: samples.is_unbroken,
    }
}

/// The time from `start_ms` to `end_ms`, both inclusive.
pub(super) fn time_range(start_ms: i64, end_ms: i64) -> TimeRange {
    let start = TimestampNs(start_ms.saturating_mul(NS_PER_MS));
    TimeRange { start, end: TimestampNs(end_ms.saturating_add(1).saturating_mul(NS_PER_MS)) }
}

impl Reader {
    pub(super) fn new(
        parts: SharedParts,
        organization: OrganizationId,
        limits: PromqlLimits,
        stats: StatsHandle,
    ) -> Self {
        let deadline = Instant::now() + limits.time;
        let budget = Arc::new(Budget::new(&limits));
        Self { parts, organization, limits, stats, deadline, budget }
    }

    /// The segments of a tier that may hold rows of `time`. Says what retention may have removed.
    pub(super) fn segments(&self, tier: Tier, time: TimeRange) -> Vec<SegmentMeta> {
        let signal = Signal::Metrics;
        if let Some(first_day) = self.parts.catalog.first_kept_day(self.organization, signal)
            && time.start < first_day.range().start
        {
            self.stats.warn(format!("metrics before {first_day} are past their retention and may be gone"));
        }
        let query = SegmentQuery { signal, tier, time, services: None };
        let plan = self.parts.catalog.plan(self.organization, &query);
        self.stats.add(Counter::SegmentsConsidered, plan.considered as u64);
        self.stats.add(Counter::SegmentsPruned, (plan.considered - plan.segments.len()) as u64);
        self.stats.add(Counter::BytesConsidered, plan.considered_bytes);
        plan.segments
    }

    /// The series of a selector with their samples.
    ///
    /// # Errors
    /// A segment cannot be read, or a limit was met.
    pub(super) async fn select(&self, select: &Select) -> Result<Vec<Series>> {
        if select.start_ms > select.end_ms {
            return Ok(Vec::new());
        }
        let series = self.select_again(select).await?;
        if series.iter().all(|series| series.samples.histograms.is_empty()) {
            return Ok(series);
        }
        // Whether a histogram began anew is told by the one before it, which may lie before the time asked for.
        let earlier = Select { start_ms: select.start_ms.saturating_sub(HINT_LOOKBACK_MS), ..select.clone() };
        let mut series = self.select_again(&earlier).await?;
        series.iter_mut().for_each(|series| series.samples = since(&series.samples, select.start_ms));
        series.retain(|series| !series.samples.is_empty());
        Ok(series)
    }

    async fn select_again(&self, select: &Select) -> Result<Vec<Series>> {
        match self.select_once(select).await {
            // Compaction replaced it, or retention removed it, since the catalog was read.
            Err(Error::SegmentMissing { .. }) => {
                self.parts.catalog.refresh().await?;
                self.select_once(select).await
            }
            answer => answer,
        }
    }

    async fn select_once(&self, select: &Select) -> Result<Vec<Series>> {
        let conditions = Arc::new(Conditions::new(&select.matchers));
        let span = (select.start_ms, select.end_ms);
        let mut rolled = match &select.windows {
            Some(windows) => self.rolled_up(windows, span, &conditions).await?,
            None => RolledUp::default(),
        };
        self.stats.add(Counter::RolledUpHours, rolled.hours() as u64);
        for moment in rolled.last_moments().into_iter().filter(|moment| *moment <= select.end_ms) {
            let there = self.entries(time_range(moment, moment), &conditions, None).await?;
            rolled.leave(moment, there.iter().flat_map(|(_, entries)| entries.labels()).cloned());
        }
        let mut read = Vec::new();
        for (start_ms, end_ms) in rolled.gaps(span) {
            read.extend(self.entries(time_range(start_ms, end_ms), &conditions, None).await?);
        }
        for ((start_ms, end_ms), series) in rolled.left(span) {
            read.extend(self.entries(time_range(start_ms, end_ms), &conditions, Some(series)).await?);
        }
        // The order decides between samples that arrived at the same time.
        read.sort_by_key(|(meta, _)| (meta.time.start, meta.id));
        let mut all = vec![self.no_entries()];
        for (labels, is_delta, columns) in rolled.into_series() {
            all[0].add_columns(labels, is_delta, columns);
        }
        all.extend(read.into_iter().map(|(_, entries)| entries));
        check_names(&all)?;
        let series = match all.iter().map(Entries::len).sum() {
            0..=FEW_ENTRIES => assemble(all),
            _ => tokio::task::spawn_blocking(move || assemble(all)).await.map_err(|_| Error::Cancelled)?,
        };
        self.check_series(series.len())?;
        Ok(series)
    }

    fn no_entries(&self) -> Entries {
        Entries::new(self.parts.options.threads)
    }

    /// Refuses more series than a selector may have.
    pub(super) fn check_series(&self, series: usize) -> Result<()> {
        if series <= self.limits.series {
            return Ok(());
        }
        let problem = format!(
            "a selector meets more than {} series; name more labels, or raise promql.max_series",
            self.limits.series
        );
        Err(Error::QueryLimit { problem })
    }

    /// What segments have; of the series `only` alone, where they are named.
    async fn entries(
        &self,
        time: TimeRange,
        conditions: &Arc<Conditions>,
        only: Option<Arc<HashSet<Labels>>>,
    ) -> Result<Vec<(SegmentMeta, Entries)>> {
        let (mut all, mut reads) = (Vec::new(), JoinSet::new());
        let together = Arc::new(Semaphore::new(SEGMENTS_TOGETHER));
        let segments = self.segments(Tier::RAW, time);
        if segments.len() > FEW_SEGMENTS {
            tokio::task::yield_now().await;
        }
        for meta in segments {
            let (reader, conditions, together) = (self.clone(), Arc::clone(conditions), Arc::clone(&together));
            let only = only.clone();
            let mut read = Box::pin(async move {
                let _turn = together.acquire_owned().await.map_err(|_| Error::Cancelled)?;
                let entries = reader.entries_of(&meta, time, &conditions, only.as_deref()).await?;
                Ok::<_, Error>((meta, entries))
            });
            // What is in memory and little is there at once; a thread of its own would take longer to begin.
            match read.as_mut().now_or_never() {
                Some(read) => all.push(read?),
                None => drop(reads.spawn(read)),
            }
        }
        while let Some(read) = reads.join_next().await {
            all.push(read.map_err(|_| Error::Cancelled)??);
        }
        all.retain(|(_, entries)| !entries.is_empty());
        Ok(all)
    }

    /// What a segment has.
    async fn entries_of(
        &self,
        meta: &SegmentMeta,
        time: TimeRange,
        conditions: &Conditions,
        only: Option<&HashSet<Labels>>,
    ) -> Result<Entries> {
        let mut entries = self.no_entries();
        let (open, series) = self.open(meta).await?;
        let mut found = series.find(conditions);
        if let Some(only) = only {
            for found in &mut found {
                let stored = &series.series[found.series as usize];
                let metric = &series.metrics[stored.metric as usize];
                found.parts.retain(|(_, name)| only.contains(stored.named(metric, name).labels()));
            }
            found.retain(|found| !found.parts.is_empty());
        }
        let infos = series.find_infos(conditions);
        if found.is_empty() && infos.is_empty() {
            return Ok(entries);
        }
        self.check_series(found.len())?;
        if found.len() + infos.len() > FEW_SERIES {
            // To be gone on with elsewhere.
            tokio::task::yield_now().await;
        }
        let informed = infos.iter().flat_map(|(_, series)| series.iter().copied());
        let wanted: BTreeSet<u32> = informed.chain(found.iter().map(|found| found.series)).collect();
        let wanted: Vec<u32> = wanted.into_iter().collect();
        let points = self.points(&open, &series, &wanted, time).await?;
        let points: Vec<(u32, Points)> = wanted.into_iter().zip(points).collect();
        for found in &found {
            let Ok(place) = points.binary_search_by_key(&found.series, |(series, _)| *series) else { continue };
            let stored = &series.series[found.series as usize];
            let metric = &series.metrics[stored.metric as usize];
            entries.add((metric, stored), &found.parts, &points[place].1, (conditions, &self.budget))?;
        }
        for (labels, of) in infos {
            entries.add_info(labels, info_times(of, &points), &self.budget)?;
        }
        Ok(entries)
    }

    /// A segment and its series.
    pub(super) async fn open(&self, meta: &SegmentMeta) -> Result<(Arc<OpenSegment>, Arc<SegmentSeries>)> {
        let open = self.parts.loader.open(meta, &self.stats).await?;
        let series = self.parts.series.get(&self.parts.loader, &open, &self.stats).await?;
        self.check_bytes()?;
        Ok((open, series))
    }

    async fn points(
        &self,
        open: &Arc<OpenSegment>,
        series: &SegmentSeries,
        wanted: &[u32],
        time: TimeRange,
    ) -> Result<Vec<Points>> {
        let mut points: Vec<Points> = wanted.iter().map(|_| Points::default()).collect();
        // Each kind has columns of its own.
        for kind in [Kind::Float, Kind::Histogram, Kind::Exponential, Kind::Summary] {
            let is_of =
                |series_place: u32| series.metrics[series.series[series_place as usize].metric as usize].kind == kind;
            let places: Vec<usize> = (0..wanted.len()).filter(|at| is_of(wanted[*at])).collect();
            if places.is_empty() {
                continue;
            }
            let of_kind: Vec<u32> = places.iter().map(|at| wanted[*at]).collect();
            let request = PointRequest {
                loader: &self.parts.loader,
                kept: &self.parts.floats,
                open,
                series,
                wanted: &of_kind,
                time,
                stats: &self.stats,
                budget: &self.budget,
            };
            for (place, read) in places.into_iter().zip(request.read().await?) {
                points[place] = read;
            }
            self.check_bytes()?;
        }
        Ok(points)
    }

    fn check_bytes(&self) -> Result<()> {
        if self.stats.read().bytes_read <= self.limits.bytes {
            return Ok(());
        }
        let problem = format!(
            "the query reads more than {} bytes; narrow its time range or name more labels, or raise promql.max_bytes",
            self.limits.bytes
        );
        Err(Error::QueryLimit { problem })
    }
}

/// The times at which the info series of a resource has a sample: those of its points, thinned out where they are dense.
fn info_times(of: &[u32], points: &[(u32, Points)]) -> Vec<i64> {
    let own = of.iter().filter_map(|series| {
        let at = points.binary_search_by_key(series, |(series, _)| *series).ok()?;
        Some(points[at].1.times())
    });
    let mut times: Vec<i64> = own.flatten().collect();
    times.sort_unstable();
    times.dedup();
    let mut kept: Vec<i64> = Vec::new();
    for (at, time) in times.iter().enumerate() {
        let is_far = kept.last().is_none_or(|last| time - last >= INFO_GAP_MS);
        let is_before_gap = times.get(at + 1).is_none_or(|next| next - time >= INFO_GAP_MS);
        if is_far || is_before_gap {
            kept.push(*time);
        }
    }
    kept
}
