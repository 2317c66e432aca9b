//! The streams of a range of time, with their lines and bytes: for labels, their values, series and volumes.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use futures::{StreamExt as _, TryStreamExt as _};
use tidemill_eval::logql::{StreamLabels, StreamSelector};
use tidemill_lang::logql::ast::Matcher;
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, Signal, Tier, TimeRange};

use super::batches::Lines;
use super::detail::Detail;
use super::scan::Condition;
use super::{CountedGroups, CountedRows, SparedColumns};
use super::{Error, LineScan, Result, add_stats, conditions};
use crate::stats::StatsHandle;
use crate::{QueryEngine, QueryLimits, QueryStats};

/// Streams that one answer may have.
const MOST_STREAMS: usize = 100_000;

/// A stream with its totals by bucket.
type Counted = (StreamLabels, BTreeMap<i64, StreamTotal>);

/// Which totals of streams are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTotals {
    /// None: only which streams there are.
    Unneeded,
    /// Of all the time, as bucket 0.
    Whole,
    /// Of buckets so many nanoseconds wide, numbered from the start.
    Every(i64),
}

impl StreamTotals {
    /// The bucket of a time; `None` where there are no totals.
    fn bucket(self, time: TimeRange, at_ns: i64) -> Option<i64> {
        match self {
            Self::Unneeded => None,
            Self::Whole => Some(0),
            Self::Every(width) => Some((at_ns - time.start.0).div_euclid(width.max(1))),
        }
    }
}

/// The lines of one stream in one bucket of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamTotal {
    /// How many.
    pub lines: u64,
    /// Bytes of the lines.
    pub bytes: u64,
}

/// Streams with their totals, by bucket.
#[derive(Debug)]
pub struct StreamsAnswer {
    /// Labels of each stream, and totals for each bucket that has any; no totals where none are asked for.
    pub streams: Vec<(StreamLabels, BTreeMap<i64, StreamTotal>)>,
    /// What was done for it.
    pub stats: QueryStats,
}

impl QueryEngine {
    /// The streams that meet one of the selectors; all where there is none.
    ///
    /// # Errors
    /// Those of reading; `Invalid` for a pattern that is too large, or too many streams.
    pub async fn logql_streams(
        &self,
        organization: OrganizationId,
        selectors: Vec<Vec<Matcher>>,
        time: TimeRange,
        totals: StreamTotals,
        limits: QueryLimits,
    ) -> Result<StreamsAnswer> {
        let engine = self.clone();
        self.on_engine(async move { engine.streams(organization, &selectors, (time, totals), limits).await }).await
    }

    async fn streams(
        &self,
        organization: OrganizationId,
        selectors: &[Vec<Matcher>],
        (time, totals): (TimeRange, StreamTotals),
        limits: QueryLimits,
    ) -> Result<StreamsAnswer> {
        let mut stats = QueryStats::default();
        let mut known = Known { found: Found::new(selectors)?, ..Known::default() };
        if self.parts().options.uses_indexes && limits.within.is_none() {
            let handle = StatsHandle::new();
            let learning = self.known_streams(organization, (time, totals, selectors), &handle);
            let late = |_| Error::Query(crate::Error::TimeLimit { limit: limits.time });
            match tokio::time::timeout(limits.time, learning).await.map_err(late)? {
                // A segment was replaced since the catalog was read: the scan looks again.
                Err(Error::Query(crate::Error::SegmentMissing { .. })) => {}
                found => known = found?,
            }
            add_stats(&mut stats, handle.read());
        }
        if known.is_everything {
            return Ok(StreamsAnswer { streams: known.found.streams(), stats });
        }
        let any: Vec<Condition> =
            selectors.iter().map(|matchers| Condition::All(conditions::of_matchers(matchers))).collect();
        let condition = if any.is_empty() { Condition::All(Vec::new()) } else { Condition::Any(any) };
        let mut columns = Detail::Streams.columns();
        columns.retain(|column| totals != StreamTotals::Unneeded || !matches!(*column, "body" | "time"));
        let spared = SparedColumns::default();
        let mut scan = LineScan { time, condition, columns, spared, counted: known.groups };
        let mut found = known.found;
        let mut rows = match self.scan_lines(organization, scan.clone(), limits).await {
            // What is known has been replaced by other segments since.
            Err(Error::Query(crate::Error::SegmentMissing { .. })) if !scan.counted.is_empty() => {
                scan.counted.clear();
                found = Found::new(selectors)?;
                self.scan_lines(organization, scan, limits).await?
            }
            rows => rows?,
        };
        let mut lines = Lines::new(Detail::Streams);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let streams = lines.stream_of_rows(&batch)?;
            if totals == StreamTotals::Unneeded {
                let once: BTreeSet<u32> = streams.values().iter().copied().collect();
                once.into_iter().for_each(|stream| found.add(&lines.labels()[stream as usize], None));
            } else {
                let body = batch.column_by_name("body").and_then(|body| body.as_string_view_opt());
                let times = super::batches::times_of(&batch)?;
                let mut sums: BTreeMap<(u32, i64), StreamTotal> = BTreeMap::new();
                for (row, stream) in streams.values().iter().enumerate() {
                    let total = sums.entry((*stream, totals.bucket(time, times.value(row)).unwrap_or(0))).or_default();
                    total.lines += 1;
                    total.bytes +=
                        body.filter(|body| body.is_valid(row)).map_or(0, |body| body.value(row).len() as u64);
                }
                for ((stream, bucket), total) in sums {
                    found.add(&lines.labels()[stream as usize], Some((bucket, total)));
                }
            }
            found.check()?;
        }
        let read = rows.stats().read();
        stats.wall_ms = read.wall_ms;
        add_stats(&mut stats, read);
        Ok(StreamsAnswer { streams: found.streams(), stats })
    }

    /// The streams of row groups that lie in the time, as far as stream tables tell them.
    async fn known_streams(
        &self,
        organization: OrganizationId,
        (time, totals, selectors): (TimeRange, StreamTotals, &[Vec<Matcher>]),
        stats: &StatsHandle,
    ) -> Result<Known> {
        let parts = self.parts();
        parts.catalog.refresh().await?;
        let services = Some(selectors).filter(|selectors| !selectors.is_empty());
        let services = services.and_then(|selectors| conditions::services_of(selectors.iter().map(Vec::as_slice)));
        let query = SegmentQuery { signal: Signal::Logs, tier: Tier::RAW, time, services };
        let planned = parts.catalog.plan(organization, &query);
        let kept_from = parts.catalog.first_kept_day(organization, Signal::Logs).map(|day| day.range().start);
        // What may be past its retention is told of where rows are read.
        let is_everything = kept_from.is_none_or(|from| from <= time.start);
        let mut known = Known { found: Found::new(selectors)?, groups: CountedGroups::new(), is_everything };
        let mut lines = Lines::new(Detail::Streams);
        let mut opened = parts.streams.open_all(&parts.loader, planned.segments, |_| true, stats);
        while let Some((open, streams)) = opened.try_next().await? {
            let is_inside = |group: &usize| {
                let own = open.row_group_times[*group];
                let (first, last) = (own.start.0, own.end.0.saturating_sub(1));
                let is_one = totals.bucket(time, first) == totals.bucket(time, last);
                time.start <= own.start && own.end <= time.end && is_one
            };
            let Some(streams) = streams else {
                known.is_everything = false;
                continue;
            };
            let inside: BTreeSet<usize> = (0..open.row_group_times.len()).filter(is_inside).collect();
            known.is_everything &= inside.len() == open.row_group_times.len();
            let places = lines.stream_of_rows(&streams.heads)?;
            for group in &inside {
                let bucket = totals.bucket(time, open.row_group_times[*group].start.0);
                let mut sums: BTreeMap<u32, StreamTotal> = BTreeMap::new();
                for entry in &streams.groups[*group] {
                    let sum = sums.entry(places.value(entry.head as usize)).or_default();
                    sum.lines += entry.rows;
                    sum.bytes += entry.body_bytes;
                }
                for (stream, sum) in sums {
                    known.found.add(&lines.labels()[stream as usize], bucket.map(|bucket| (bucket, sum)));
                }
                known.found.check()?;
            }
            if !inside.is_empty() {
                known.groups.insert(open.meta.id, CountedRows::Groups(inside));
            }
        }
        Ok(known)
    }
}

/// What is known without reading all rows.
#[derive(Default)]
struct Known {
    found: Found,
    /// Where it is from.
    groups: CountedGroups,
    /// Whether there is nothing else.
    is_everything: bool,
}

/// The streams of an answer, each once, by their labels.
#[derive(Default)]
struct Found {
    tests: Vec<StreamSelector>,
    streams: BTreeMap<Vec<(String, String)>, Counted>,
}

impl Found {
    fn new(selectors: &[Vec<Matcher>]) -> Result<Self> {
        let tests = selectors.iter().map(|matchers| Ok(StreamSelector::new(matchers)?)).collect::<Result<_>>()?;
        Ok(Self { tests, streams: BTreeMap::new() })
    }

    /// Adds a stream, if it is asked for, with a total of one bucket.
    fn add(&mut self, labels: &StreamLabels, total: Option<(i64, StreamTotal)>) {
        if !self.tests.is_empty() && !self.tests.iter().any(|test| test.meets(labels)) {
            return;
        }
        let key = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (_, buckets) = self.streams.entry(key).or_insert_with(|| (labels.clone(), BTreeMap::new()));
        if let Some((bucket, total)) = total {
            let own = buckets.entry(bucket).or_default();
            own.lines += total.lines;
            own.bytes += total.bytes;
        }
    }

    fn check(&self) -> Result<()> {
        if self.streams.len() <= MOST_STREAMS {
            return Ok(());
        }
        let message = format!("more than {MOST_STREAMS} streams: narrow the selector or the range of time");
        Err(Error::from(tidemill_eval::Error::Limit(message)))
    }

    fn streams(self) -> Vec<Counted> {
        self.streams.into_values().collect()
    }
}
