//! Scans of spans for one query: what its evaluation asks for, one scan after the other, and what they cost together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use futures::{StreamExt, TryStreamExt};
use tidemill_eval::traceql::SpanBatch;
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, SegmentMeta, Signal, Tier, TimeRange};

use super::absorb;
use super::columns::{SpanColumns, UniformTypes};
use crate::attributes::AttributeKey;
use crate::engine::QueryEngine;
use crate::scan::{Comparison, Matcher, MatcherTarget, RowCondition, RowRequest, RowValue};
use crate::stats::StatsHandle;
use crate::{Error, QueryLimits, QueryStats, QueryStream, Result};

/// The id of a trace.
pub(super) type TraceId = [u8; 16];

/// More traces than this are not asked for by name, but by their range and then sorted out: an engine compares so many at once.
const NAMED_TRACES: usize = 1_000;
/// The most traces that a query remembers.
const MOST_TRACES: usize = 5_000_000;
/// More footers than this are not opened only to choose columns.
const TYPED_SEGMENTS: usize = 1_024;

/// Reads spans of one organization.
pub(super) struct SpanReader {
    engine: QueryEngine,
    organization: OrganizationId,
    limits: QueryLimits,
    started: Instant,
    stats: QueryStats,
}

impl SpanReader {
    pub(super) fn new(engine: &QueryEngine, organization: OrganizationId, limits: QueryLimits) -> Self {
        let stats = QueryStats::default();
        Self { engine: engine.clone(), organization, limits, started: Instant::now(), stats }
    }

    /// What all scans did.
    pub(super) fn stats(mut self) -> QueryStats {
        self.stats.wall_ms = self.started.elapsed().as_secs_f64() * 1e3;
        self.stats
    }

    /// The segments that may have spans of a range of time.
    pub(super) async fn segments(&self, time: TimeRange) -> Result<Vec<SegmentMeta>> {
        let catalog = &self.engine.parts().catalog;
        catalog.refresh().await?;
        let query = SegmentQuery { signal: Signal::Traces, tier: Tier::RAW, time, services: None };
        Ok(catalog.plan(self.organization, &query).segments)
    }

    /// What the footers of a range of time tell of attributes' types.
    pub(super) async fn types(&mut self, time: TimeRange) -> Result<UniformTypes> {
        let segments = self.segments(time).await?;
        if segments.len() > TYPED_SEGMENTS {
            return Ok(UniformTypes::unknown());
        }
        let mut types = UniformTypes::default();
        let stats = StatsHandle::new();
        let mut opening = self.engine.parts().loader.open_all(segments, &stats);
        while let Some(open) = opening.next().await {
            match open {
                Ok(open) => types.add(&open.footer),
                // Compaction replaced it just now; the scan will know better.
                Err(Error::SegmentMissing { .. }) => return Ok(UniformTypes::unknown()),
                Err(error) => return Err(error),
            }
        }
        absorb(&mut self.stats, stats.read());
        Ok(types)
    }

    /// The attributes that footers know to occur in a range of time, and the parts of it where rows have to tell: where a segment
    /// reaches beyond it, or has too many attributes to list them.
    pub(super) async fn names(&mut self, time: TimeRange) -> Result<(BTreeSet<AttributeKey>, Vec<TimeRange>)> {
        let segments = self.segments(time).await?;
        let (inside, beyond): (Vec<SegmentMeta>, Vec<SegmentMeta>) =
            segments.into_iter().partition(|meta| meta.time.start >= time.start && meta.time.end <= time.end);
        let mut unknown: Vec<TimeRange> = beyond.into_iter().map(|meta| meta.time).collect();
        let mut names = BTreeSet::new();
        let stats = StatsHandle::new();
        let mut opening = self.engine.parts().loader.open_all(inside, &stats);
        while let Some(open) = opening.next().await {
            let open = open?;
            if open.footer.attributes_truncated {
                unknown.push(open.meta.time);
            }
            let entries = open.footer.attributes.iter();
            names.extend(entries.map(|entry| AttributeKey { scope: entry.scope, key: entry.key.clone() }));
        }
        absorb(&mut self.stats, stats.read());
        Ok((names, joined(unknown, time)))
    }

    /// Hands the rows of a range of time that may meet the condition to `visit`, in no order.
    pub(super) async fn rows(
        &mut self,
        time: TimeRange,
        condition: &RowCondition,
        columns: &SpanColumns,
        limit: Option<usize>,
        mut visit: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let matchers = match condition {
            RowCondition::Always => Vec::new(),
            other => vec![Matcher::Condition(other.clone())],
        };
        let mut rows = self.scan(time, matchers, columns, limit).await?;
        while let Some(batch) = rows.try_next().await? {
            visit(&batch)?;
        }
        absorb(&mut self.stats, rows.stats().read());
        Ok(())
    }

    async fn scan(
        &self,
        time: TimeRange,
        matchers: Vec<Matcher>,
        columns: &SpanColumns,
        limit: Option<usize>,
    ) -> Result<QueryStream> {
        let request = RowRequest {
            signal: Signal::Traces,
            time,
            matchers,
            columns: columns.fixed.clone(),
            attributes: columns.attributes.clone(),
            limit,
        };
        self.engine.rows(self.organization, request, self.limits).await
    }

    /// The traces with a span of that time that may meet the condition, each with the earliest such start.
    pub(super) async fn traces(&mut self, time: TimeRange, condition: &RowCondition) -> Result<HashMap<TraceId, i64>> {
        let columns = SpanColumns { fixed: vec!["trace_id".to_owned(), "time".to_owned()], attributes: Vec::new() };
        let mut traces: HashMap<TraceId, i64> = HashMap::new();
        self.rows(time, condition, &columns, None, |batch| {
            let (ids, times) = (batch.column(0).as_string_view(), batch.column(1));
            let times = times.as_primitive::<TimestampNanosecondType>();
            for row in (0..batch.num_rows()).filter(|row| ids.is_valid(*row)) {
                let mut id = TraceId::default();
                if hex::decode_to_slice(ids.value(row), &mut id).is_err() {
                    continue;
                }
                let start = traces.entry(id).or_insert(i64::MAX);
                *start = times.value(row).min(*start);
            }
            if traces.len() > MOST_TRACES {
                return Err(too_much(format!("more than {MOST_TRACES} traces")));
            }
            Ok(())
        })
        .await?;
        Ok(traces)
    }

    /// All spans of these traces that start within a range of time, each trace as a whole in one batch.
    pub(super) async fn whole_traces(
        &mut self,
        ids: &[TraceId],
        time: TimeRange,
        columns: &SpanColumns,
    ) -> Result<Option<SpanBatch>> {
        let rows = self.rows_of_traces(ids, time, columns).await?;
        rows.map(|rows| columns.batch(&rows)).transpose()
    }

    /// The rows of these traces, sorted by start.
    pub(super) async fn rows_of_traces(
        &mut self,
        ids: &[TraceId],
        time: TimeRange,
        columns: &SpanColumns,
    ) -> Result<Option<RecordBatch>> {
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(None) };
        let target = || MatcherTarget::Column("trace_id".to_owned());
        let matcher = if ids.len() <= NAMED_TRACES {
            Matcher::In(target(), ids.iter().map(hex::encode).collect())
        } else {
            let bound = |comparison, id: &TraceId| RowCondition::Column {
                name: "trace_id".to_owned(),
                comparison,
                value: RowValue::Text(hex::encode(id)),
                or_null: false,
            };
            let range = [bound(Comparison::GreaterOrEqual, first), bound(Comparison::LessOrEqual, last)];
            Matcher::Condition(RowCondition::All(range.into()))
        };
        let is_sorted_out = ids.len() > NAMED_TRACES;
        let wanted: HashSet<String> =
            if is_sorted_out { ids.iter().map(hex::encode).collect() } else { HashSet::new() };
        let mut rows = self.scan(time, vec![matcher], columns, None).await?;
        let schema = rows.schema();
        let place = schema.index_of("trace_id").map_err(|error| Error::from(DataFusion::from(error)))?;
        let (mut batches, mut bytes) = (Vec::new(), 0_usize);
        while let Some(mut batch) = rows.try_next().await? {
            if is_sorted_out {
                let ids = batch.column(place).as_string_view();
                let keep = ids.iter().map(|id| id.is_some_and(|id| wanted.contains(id))).collect::<Vec<bool>>();
                batch =
                    filter_record_batch(&batch, &keep.into()).map_err(|error| Error::from(DataFusion::from(error)))?;
            }
            bytes = bytes.saturating_add(batch.get_array_memory_size());
            if bytes > self.limits.memory_bytes {
                return Err(too_much(format!("more than {} MiB of spans at a time", self.limits.memory_bytes >> 20)));
            }
            batches.push(batch);
        }
        absorb(&mut self.stats, rows.stats().read());
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        concat_batches(&schema, &batches)
            .and_then(|rows| sorted(&rows))
            .map(Some)
            .map_err(|error| Error::from(DataFusion::from(error)))
    }
}

/// The parts of `within` that these ranges cover, each once.
fn joined(mut ranges: Vec<TimeRange>, within: TimeRange) -> Vec<TimeRange> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<TimeRange> = Vec::new();
    for range in ranges {
        let (start, end) = (range.start.max(within.start), range.end.min(within.end));
        match joined.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => joined.push(TimeRange { start, end }),
        }
    }
    joined
}

/// The rows by start and span id, so that an answer does not depend on which segment was read first.
fn sorted(rows: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let by = ["time", "span_id"].into_iter().filter_map(|name| rows.column_by_name(name));
    let by: Vec<SortColumn> = by.map(|column| SortColumn { values: Arc::clone(column), options: None }).collect();
    take_record_batch(rows, &lexsort_to_indices(&by, None)?)
}

type DataFusion = datafusion::common::DataFusionError;

fn too_much(what: String) -> Error {
    Error::Engine(Arc::new(DataFusion::ResourcesExhausted(what)))
}

#[cfg(test)]
mod tests {
    use tidemill_types::TimestampNs;

    use super::*;

    #[test]
    fn ranges_are_joined_within_what_is_asked() {
        let range = |start, end| TimeRange { start: TimestampNs(start), end: TimestampNs(end) };
        let parts = joined(vec![range(15, 30), range(0, 12), range(11, 14), range(50, 99)], range(10, 60));
        assert_eq!(parts, [range(10, 14), range(15, 30), range(50, 60)]);
    }
}
