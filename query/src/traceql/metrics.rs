//! Numbers over time: of single spans as they come where that is enough, else of whole traces.

use tidemill_eval::traceql::{MetricsAnswer, MetricsParams, MetricsRun};
use tidemill_lang::traceql::ast::{Query, QueryKind};
use tidemill_types::{OrganizationId, TimeRange, TimestampNs};

use super::columns::SpanColumns;
use super::mentioned::Mentioned;
use super::reader::{SpanReader, TraceId};
use super::{Answered, TRACE_MARGIN_NS, conditions, evaluation_error, widened};
use crate::engine::QueryEngine;
use crate::scan::RowCondition;
use crate::{Error, QueryLimits, Result};

/// Traces read at a time.
const TRACES_TOGETHER: usize = 10_000;

impl QueryEngine {
    /// What a metrics query says of the spans of `organization`.
    ///
    /// # Errors
    /// `Invalid` for a query for traces, or too many instants; those of a query.
    pub async fn trace_metrics(
        &self,
        organization: OrganizationId,
        query: Query,
        params: MetricsParams,
        limits: QueryLimits,
    ) -> Result<Answered<MetricsAnswer>> {
        let reader = SpanReader::new(self, organization, limits);
        self.within(limits, evaluate(reader, query, params)).await
    }
}

async fn evaluate(mut reader: SpanReader, query: Query, params: MetricsParams) -> Result<Answered<MetricsAnswer>> {
    let QueryKind::Metrics(metrics) = &query.kind else {
        return Err(Error::statement("not a metrics query: it has no function over time, such as `| rate()`"));
    };
    let mut run = MetricsRun::new(&query, params).map_err(evaluation_error)?;
    let (first, end) = run.time_range_ns();
    let window = TimeRange { start: TimestampNs(first), end: TimestampNs(end) };
    let mentioned = Mentioned::of(&query);
    let condition = conditions::of_metrics(metrics);
    let mut has_spans = false;
    if conditions::metrics_are_local(metrics) {
        let types = reader.types(window).await?;
        let columns = SpanColumns::typed(&mentioned, &types);
        reader
            .rows(window, &condition, &columns, None, |rows| {
                has_spans |= rows.num_rows() > 0;
                run.push(&columns.batch(rows)?).map_err(evaluation_error)
            })
            .await?;
    } else {
        let columns = SpanColumns::of(&mentioned);
        let mut ids: Vec<TraceId> = reader.traces(window, &condition).await?.into_keys().collect();
        ids.sort_unstable();
        let read = widened(first, end, TRACE_MARGIN_NS);
        for some in ids.chunks(TRACES_TOGETHER) {
            if let Some(batch) = reader.whole_traces(some, read, &columns).await? {
                has_spans = true;
                run.push(&batch).map_err(evaluation_error)?;
            }
        }
    }
    if !has_spans {
        // Nothing matched: whether there are spans at all tells zeros from no answer.
        let columns = SpanColumns::of(&mentioned);
        reader
            .rows(window, &RowCondition::Always, &columns, Some(1), |rows| {
                run.push(&columns.batch(rows)?).map_err(evaluation_error)
            })
            .await?;
    }
    Ok(Answered { answer: run.finish(), stats: reader.stats() })
}
