//! Reads what a selector names: catalog, series tables, points.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::FutureExt as _;
use tidemill_eval::Labels;
use tidemill_eval::promql::{Select, Series};
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, SegmentMeta, Signal, Tier, TimeRange, TimestampNs};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::PromqlLimits;
use super::assemble::Entries;
use super::budget::Budget;
use super::conditions::Conditions;
use super::gathered::{Gathered, SegmentPoints, check_series};
use super::points::{NS_PER_MS, PointRequest, Points};
use super::rollups::RolledUp;
use super::series::{Kind, SegmentSeries};
use super::source::SharedParts;
use super::stored_floats::StoredFloats;
use crate::scan::OpenSegment;
use crate::stats::{Counter, StatsHandle};
use crate::{Error, Result};

/// Segments read at a time.
pub(super) const SEGMENTS_TOGETHER: usize = 16;
/// More segments are read on a thread that may take its time.
const FEW_SEGMENTS: usize = 64;
/// More series of a segment are read on a thread of their own.
const FEW_SERIES: usize = 32;
/// The same of series that are not put together while they are read.
const FEW_PLAIN_SERIES: usize = 1_000;
/// More stretches of samples are put together on a thread that may take its time.
pub(super) const FEW_STRETCHES: usize = 256;
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
        let (gathered, runtime) = (Arc::new(self.gather(select).await?), Handle::current());
        if gathered.stretches() <= FEW_STRETCHES {
            return gathered.whole(&runtime);
        }
        let whole = runtime.clone().spawn_blocking(move || gathered.whole(&runtime));
        whole.await.map_err(|_| Error::Cancelled)?
    }

    /// What there is for a selector.
    ///
    /// # Errors
    /// A segment cannot be read, or a limit was met.
    pub(super) async fn gather(&self, select: &Select) -> Result<Gathered> {
        if select.start_ms > select.end_ms {
            return Gathered::new(Vec::new(), 1, self.limits.series);
        }
        let gathered = self.gather_again(select).await?;
        if !gathered.has_histograms() {
            return Ok(gathered);
        }
        // Whether a histogram began anew is told by the one before it, which may lie before the time asked for.
        let earlier = Select { start_ms: select.start_ms.saturating_sub(HINT_LOOKBACK_MS), ..select.clone() };
        Ok(self.gather_again(&earlier).await?.since(select.start_ms))
    }

    async fn gather_again(&self, select: &Select) -> Result<Gathered> {
        match self.gather_once(select).await {
            // Compaction replaced it, or retention removed it, since the catalog was read.
            Err(Error::SegmentMissing { .. }) => {
                self.parts.catalog.refresh().await?;
                self.gather_once(select).await
            }
            answer => answer,
        }
    }

    async fn gather_once(&self, select: &Select) -> Result<Gathered> {
        let conditions = Arc::new(Conditions::new(&select.matchers));
        let span = (select.start_ms, select.end_ms);
        let mut rolled = match &select.windows {
            Some(windows) => self.rolled_up(windows, span, &conditions).await?,
            None => RolledUp::default(),
        };
        self.stats.add(Counter::RolledUpHours, rolled.hours() as u64);
        for moment in rolled.last_moments().into_iter().filter(|moment| *moment <= select.end_ms) {
            let there = self.read(time_range(moment, moment), &conditions, None).await?;
            rolled.leave(moment, there.iter().flat_map(|(_, points)| points.labels()));
        }
        let mut read = Vec::new();
        for (start_ms, end_ms) in rolled.gaps(span) {
            read.extend(self.read(time_range(start_ms, end_ms), &conditions, None).await?);
        }
        for ((start_ms, end_ms), series) in rolled.left(span) {
            read.extend(self.read(time_range(start_ms, end_ms), &conditions, Some(series)).await?);
        }
        read.sort_by_key(|(meta, _)| (meta.time.start, meta.id));
        let mut told = self.no_entries();
        for (labels, is_delta, columns) in rolled.into_series() {
            told.add_columns(labels, is_delta, columns);
        }
        let all = std::iter::once(SegmentPoints::Made(told)).chain(read.into_iter().map(|(_, points)| points));
        Gathered::new(all.collect(), self.parts.options.threads, self.limits.series)
    }

    fn no_entries(&self) -> Entries {
        Entries::new(self.parts.options.threads)
    }

    /// Refuses more series than a selector may have.
    pub(super) fn check_series(&self, series: usize) -> Result<()> {
        check_series(series, self.limits.series)
    }

    /// What segments have; of the series `only` alone, where they are named.
    async fn read(
        &self,
        time: TimeRange,
        conditions: &Arc<Conditions>,
        only: Option<Arc<HashSet<Labels>>>,
    ) -> Result<Vec<(SegmentMeta, SegmentPoints)>> {
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
                let points = reader.points_of(&meta, time, &conditions, only.as_deref()).await?;
                Ok::<_, Error>((meta, points))
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
        all.retain(|(_, points)| !points.is_empty());
        Ok(all)
    }

    /// What a segment has.
    async fn points_of(
        &self,
        meta: &SegmentMeta,
        time: TimeRange,
        conditions: &Conditions,
        only: Option<&HashSet<Labels>>,
    ) -> Result<SegmentPoints> {
        let (open, series) = self.open(meta).await?;
        let mut found = series.find(conditions);
        if let Some(only) = only {
            for found in &mut found {
                let stored = &series.series[found.series as usize];
                let metric = &series.metrics[stored.metric as usize];
                let is_wanted = |name: &Arc<str>| only.contains(stored.named(metric, name).labels());
                if !found.parts.iter().all(|(_, name)| is_wanted(name)) {
                    found.parts = found.parts.iter().filter(|(_, name)| is_wanted(name)).cloned().collect();
                }
            }
            found.retain(|found| !found.parts.is_empty());
        }
        let infos = series.find_infos(conditions);
        if found.is_empty() && infos.is_empty() {
            return Ok(SegmentPoints::Made(self.no_entries()));
        }
        self.check_series(found.len())?;
        let is_plain = infos.is_empty() && StoredFloats::are_all(&series, &found);
        let few = if is_plain { FEW_PLAIN_SERIES } else { FEW_SERIES };
        if found.len() + infos.len() > few {
            // To be gone on with elsewhere.
            tokio::task::yield_now().await;
        }
        if is_plain {
            let wanted: Vec<u32> = found.iter().map(|found| found.series).collect();
            let request = self.points_request((&open, &series), &wanted, time);
            let (groups, time_ms) = (request.floats().await?, request.time_ms());
            self.check_bytes()?;
            return Ok(SegmentPoints::Stored(StoredFloats::new(series, found, groups, time_ms)));
        }
        let informed = infos.iter().flat_map(|(_, series)| series.iter().copied());
        let wanted: BTreeSet<u32> = informed.chain(found.iter().map(|found| found.series)).collect();
        let wanted: Vec<u32> = wanted.into_iter().collect();
        let points = self.points((&open, &series), &wanted, time).await?;
        let points: Vec<(u32, Points)> = wanted.into_iter().zip(points).collect();
        let mut entries = self.no_entries();
        for found in &found {
            let Ok(place) = points.binary_search_by_key(&found.series, |(series, _)| *series) else { continue };
            let stored = &series.series[found.series as usize];
            let metric = &series.metrics[stored.metric as usize];
            entries.add((metric, stored), &found.parts, &points[place].1, (conditions, &self.budget))?;
        }
        for (labels, of) in infos {
            entries.add_info(labels, info_times(of, &points), &self.budget)?;
        }
        Ok(SegmentPoints::Made(entries))
    }

    /// A segment and its series.
    pub(super) async fn open(&self, meta: &SegmentMeta) -> Result<(Arc<OpenSegment>, Arc<SegmentSeries>)> {
        let open = self.parts.loader.open(meta, &self.stats).await?;
        let series = self.parts.series.get(&self.parts.loader, &open, &self.stats).await?;
        self.check_bytes()?;
        Ok((open, series))
    }

    /// A request for points of series of a segment, all of one kind.
    pub(super) fn points_request<'a>(
        &'a self,
        (open, series): (&'a Arc<OpenSegment>, &'a SegmentSeries),
        wanted: &'a [u32],
        time: TimeRange,
    ) -> PointRequest<'a> {
        let (loader, kept) = (&self.parts.loader, &self.parts.floats);
        PointRequest { loader, kept, open, series, wanted, time, stats: &self.stats, budget: &self.budget }
    }

    async fn points(
        &self,
        (open, series): (&Arc<OpenSegment>, &SegmentSeries),
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
            let request = self.points_request((open, series), &of_kind, time);
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
