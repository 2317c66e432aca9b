//! Queries for numbers: one scan over the union of what the query's parts select, gathered in parts that are merged.

use std::time::Instant;

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use tidemill_eval::logql::{MetricAnswer, MetricParams, MetricRun};
use tidemill_lang::logql::ast::Metric;
use tidemill_types::{OrganizationId, TimeRange, TimestampNs};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::batches::Lines;
use super::conditions;
use super::counted::CountedLines;
use super::detail::Detail;
use super::scan::Condition;
use super::{CountedGroups, Error, LineScan, Result, SparedColumns, add_stats};
use crate::stats::StatsHandle;
use crate::{QueryEngine, QueryLimits, QueryStats};

/// The answer to a query for numbers.
#[derive(Debug)]
pub struct NumbersAnswer {
    /// The series.
    pub answer: MetricAnswer,
    /// What was done for it.
    pub stats: QueryStats,
}

impl QueryEngine {
    /// Answers a checked query for numbers.
    ///
    /// # Errors
    /// Those of reading and of the evaluator.
    pub async fn logql_numbers(
        &self,
        organization: OrganizationId,
        metric: &Metric,
        params: MetricParams,
        limits: QueryLimits,
    ) -> Result<NumbersAnswer> {
        let (engine, metric) = (self.clone(), metric.clone());
        self.on_engine(async move { engine.numbers(organization, &metric, params, limits).await }).await
    }

    async fn numbers(
        &self,
        organization: OrganizationId,
        metric: &Metric,
        params: MetricParams,
        limits: QueryLimits,
    ) -> Result<NumbersAnswer> {
        let started = Instant::now();
        let mut run = MetricRun::new(metric, params)?;
        let mut stats = QueryStats::default();
        let Some((time, condition)) = selected(&run) else {
            return Ok(NumbersAnswer { answer: run.finish()?, stats });
        };
        // Without indexes everything is read, so that tests can compare.
        let uses_indexes = self.parts().options.uses_indexes;
        let detail = Detail::of(run.needed_labels().filter(|_| uses_indexes));
        let mut counted = CountedGroups::new();
        // Footers do not tell which rows lie inside of a narrower time.
        if limits.within.is_none() {
            let handle = StatsHandle::new();
            let counting = self.count_groups(organization, &mut run, (time, &detail), &handle);
            let late = |_| Error::Query(crate::Error::TimeLimit { limit: limits.time });
            let found = match tokio::time::timeout(limits.time, counting).await.map_err(late)? {
                // A segment was replaced since the catalog was read: the scan looks again.
                Err(Error::Query(crate::Error::SegmentMissing { .. })) => {
                    run = MetricRun::new(metric, params)?;
                    CountedLines::default()
                }
                found => found?,
            };
            add_stats(&mut stats, handle.read());
            if found.is_everything {
                stats.wall_ms = started.elapsed().as_secs_f64() * 1e3;
                return Ok(NumbersAnswer { answer: run.finish()?, stats });
            }
            counted = found.groups;
        }
        let spared =
            SparedColumns { wanted: detail.wanted().cloned(), windows: run.windows().filter(|_| uses_indexes) };
        let answer = loop {
            let mut columns = detail.columns();
            columns.retain(|column| *column != "body" || run.reads_lines());
            let scan = LineScan {
                time,
                condition: condition.clone(),
                columns,
                spared: spared.clone(),
                counted: counted.clone(),
            };
            match self.gather(organization, (metric, params), (scan, &detail), limits, &mut stats).await {
                // What was counted has been replaced by other segments since.
                Err(Error::Query(crate::Error::SegmentMissing { .. })) if !counted.is_empty() => {
                    counted.clear();
                    run = MetricRun::new(metric, params)?;
                }
                gathered => {
                    let mut whole = gathered?;
                    whole.absorb(run.take_partial())?;
                    break whole.finish()?;
                }
            }
        };
        stats.wall_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(NumbersAnswer { answer, stats })
    }

    /// Reads all rows of a scan into runs of the query, and merges those.
    async fn gather(
        &self,
        organization: OrganizationId,
        (metric, params): (&Metric, MetricParams),
        (scan, detail): (LineScan, &Detail),
        limits: QueryLimits,
        stats: &mut QueryStats,
    ) -> Result<MetricRun> {
        let mut rows = self.scan_lines(organization, scan, limits).await?;
        let mut parts = Parts::new(metric, params, detail, self.parts().options.threads)?;
        while let Some(batch) = rows.next().await {
            parts.push(batch?).await?;
        }
        add_stats(stats, rows.stats().read());
        parts.finish().await
    }
}

/// The records that any part of the query selects, and the time that all lie in; `None` where it selects none.
fn selected(run: &MetricRun) -> Option<(TimeRange, Condition)> {
    let mut time: Option<TimeRange> = None;
    let mut any = Vec::new();
    for (selection, query) in run.selections().into_iter().zip(run.queries()) {
        let own = TimeRange { start: TimestampNs(selection.start_ns), end: TimestampNs(selection.end_ns) };
        time = Some(time.map_or(own, |all| TimeRange { start: all.start.min(own.start), end: all.end.max(own.end) }));
        let Condition::All(mut all) = conditions::of_query(query) else { continue };
        all.push(Condition::Within(own));
        any.push(Condition::All(all));
    }
    Some((time?, Condition::Any(any)))
}

/// Runs of the same query, each over a part of the rows.
struct Parts {
    senders: Vec<mpsc::Sender<RecordBatch>>,
    running: JoinSet<Result<(usize, MetricRun)>>,
    next: usize,
}

impl Parts {
    fn new(metric: &Metric, params: MetricParams, detail: &Detail, count: usize) -> Result<Self> {
        let mut parts = Self { senders: Vec::new(), running: JoinSet::new(), next: 0 };
        for place in 0..count.max(1) {
            let mut run = MetricRun::new(metric, params)?;
            let (sender, mut rows) = mpsc::channel::<RecordBatch>(2);
            parts.senders.push(sender);
            let mut lines = Lines::new(detail.clone());
            parts.running.spawn(async move {
                while let Some(batch) = rows.recv().await {
                    run.push(&lines.batch(&batch)?)?;
                    tokio::task::yield_now().await;
                }
                Ok((place, run))
            });
        }
        Ok(parts)
    }

    async fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let place = self.next % self.senders.len();
        self.next += 1;
        if self.senders[place].send(batch).await.is_ok() {
            return Ok(());
        }
        // A run ended before its rows did: it says why.
        Err(self.failure().await)
    }

    async fn failure(&mut self) -> Error {
        self.senders.clear();
        while let Some(ended) = self.running.join_next().await {
            if let Ok(Err(error)) = ended {
                return error;
            }
        }
        Error::Query(crate::Error::Cancelled)
    }

    async fn finish(mut self) -> Result<MetricRun> {
        self.senders.clear();
        let mut runs = Vec::new();
        while let Some(ended) = self.running.join_next().await {
            runs.push(ended.map_err(|_| Error::Query(crate::Error::Cancelled))??);
        }
        // In their order, so that the same rows give the same sums.
        runs.sort_by_key(|(place, _)| *place);
        let mut runs = runs.into_iter().map(|(_, run)| run);
        let mut whole = runs.next().ok_or(Error::Query(crate::Error::Cancelled))?;
        for mut run in runs {
            whole.absorb(run.take_partial())?;
        }
        Ok(whole)
    }
}
