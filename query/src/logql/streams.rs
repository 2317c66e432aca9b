//! The streams of a range of time, with their lines and bytes: for labels, their values, series and volumes.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use futures::StreamExt as _;
use tidemill_eval::logql::{StreamLabels, StreamSelector};
use tidemill_lang::logql::ast::Matcher;
use tidemill_types::{OrganizationId, TimeRange};

use super::batches::{Detail, Lines};
use super::scan::Condition;
use super::{CountedGroups, SparedColumns};
use super::{Error, LineScan, Result, add_stats, conditions};
use crate::{QueryEngine, QueryLimits, QueryStats};

/// A stream with its totals by their times.
type Counted = (StreamLabels, BTreeMap<i64, StreamTotal>);

/// Streams that one answer may have.
const MOST_STREAMS: usize = 100_000;

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
    /// Labels of each stream, and totals for each bucket that has any.
    pub streams: Vec<(StreamLabels, BTreeMap<i64, StreamTotal>)>,
    /// What was done for it.
    pub stats: QueryStats,
}

impl QueryEngine {
    /// The streams that meet one of the selectors; all where there is none. Buckets are numbered from the start of `time`.
    ///
    /// # Errors
    /// Those of reading; `Invalid` for a pattern that is too large, or too many streams.
    pub async fn logql_streams(
        &self,
        organization: OrganizationId,
        selectors: Vec<Vec<Matcher>>,
        time: TimeRange,
        bucket_ns: Option<i64>,
        limits: QueryLimits,
    ) -> Result<StreamsAnswer> {
        let engine = self.clone();
        self.on_engine(async move { engine.streams(organization, &selectors, time, bucket_ns, limits).await }).await
    }

    async fn streams(
        &self,
        organization: OrganizationId,
        selectors: &[Vec<Matcher>],
        time: TimeRange,
        bucket_ns: Option<i64>,
        limits: QueryLimits,
    ) -> Result<StreamsAnswer> {
        let tests = selectors.iter().map(|matchers| Ok(StreamSelector::new(matchers)?)).collect::<Result<Vec<_>>>()?;
        let any: Vec<Condition> =
            selectors.iter().map(|matchers| Condition::All(conditions::of_matchers(matchers))).collect();
        let condition = if any.is_empty() { Condition::All(Vec::new()) } else { Condition::Any(any) };
        let columns = Detail::Streams.columns();
        let (spared, counted) = (SparedColumns::default(), CountedGroups::new());
        let scan = LineScan { time, condition, columns, spared, counted };
        let mut rows = self.scan_lines(organization, scan, limits).await?;
        let mut lines = Lines::new(Detail::Streams);
        let mut found: BTreeMap<Vec<(String, String)>, Counted> = BTreeMap::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let streams = lines.stream_of_rows(&batch)?;
            let body = batch.column_by_name("body").and_then(|body| body.as_string_view_opt());
            let times = super::batches::times_of(&batch)?;
            let mut totals: BTreeMap<(u32, i64), StreamTotal> = BTreeMap::new();
            for (row, stream) in streams.values().iter().enumerate() {
                let bucket = bucket_ns.map_or(0, |width| (times.value(row) - time.start.0).div_euclid(width.max(1)));
                let total = totals.entry((*stream, bucket)).or_default();
                total.lines += 1;
                total.bytes += body.filter(|body| body.is_valid(row)).map_or(0, |body| body.value(row).len() as u64);
            }
            for ((stream, bucket), total) in totals {
                let labels = &lines.labels()[stream as usize];
                if !tests.is_empty() && !tests.iter().any(|test| test.meets(labels)) {
                    continue;
                }
                let key = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                let (_, buckets) = found.entry(key).or_insert_with(|| (labels.clone(), BTreeMap::new()));
                let own = buckets.entry(bucket).or_default();
                own.lines += total.lines;
                own.bytes += total.bytes;
            }
            if found.len() > MOST_STREAMS {
                let message = format!("more than {MOST_STREAMS} streams: narrow the selector or the range of time");
                return Err(Error::from(tidemill_eval::Error::Limit(message)));
            }
        }
        let mut stats = QueryStats::default();
        let read = rows.stats().read();
        stats.wall_ms = read.wall_ms;
        add_stats(&mut stats, read);
        Ok(StreamsAnswer { streams: found.into_values().collect(), stats })
    }
}
