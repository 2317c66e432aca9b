//! Searches: candidates by slices of time, newest first, then whole traces, until newer traces fill the limit.

use std::collections::HashSet;

use tidemill_eval::traceql::{SearchParams, SearchRun, TraceAnswer};
use tidemill_lang::traceql::ast::{Query, QueryKind};
use tidemill_types::{OrganizationId, SegmentMeta, TimeRange, TimestampNs};

use super::columns::SpanColumns;
use super::mentioned::Mentioned;
use super::reader::{SpanReader, TraceId};
use super::{Answered, SEARCH_MARGIN_NS, TRACE_MARGIN_NS, conditions, widened};
use crate::engine::QueryEngine;
use crate::{Error, QueryLimits, Result};

/// Rows of the newest slice; each further one may have twice as many.
const FIRST_SLICE_ROWS: u64 = 200_000;
/// Traces read at first; each further time twice as many. So many ids still rule out pages by their bounds.
const FIRST_TRACES: usize = 20;
/// The most traces read at a time.
const MOST_TRACES: usize = 640;

/// The traces that a search found, newest first.
pub type FoundTraces = Vec<TraceAnswer>;

impl QueryEngine {
    /// The newest traces of `organization` that a query finds, at most `params.limit`.
    ///
    /// # Errors
    /// `Invalid` for a metrics query; those of a query.
    pub async fn search_traces(
        &self,
        organization: OrganizationId,
        query: Query,
        params: SearchParams,
        limits: QueryLimits,
    ) -> Result<Answered<FoundTraces>> {
        let reader = SpanReader::new(self, organization, limits);
        self.within(limits, search(reader, query, params)).await
    }
}

async fn search(mut reader: SpanReader, query: Query, params: SearchParams) -> Result<Answered<FoundTraces>> {
    let QueryKind::Search(pipeline) = &query.kind else {
        return Err(Error::statement("a metrics query is asked at /api/metrics/query_range, not at /api/search"));
    };
    let mut run = SearchRun::new(&query, params).map_err(super::evaluation_error)?;
    let columns = SpanColumns::of(&Mentioned::of(&query));
    let condition = conditions::of_traces(pipeline);
    let looked_at = widened(params.start_ns, params.end_ns, SEARCH_MARGIN_NS);
    let read = widened(params.start_ns, params.end_ns, TRACE_MARGIN_NS);
    let mut seen: HashSet<TraceId> = HashSet::new();
    for slice in slices(looked_at, &reader.segments(looked_at).await?) {
        let found = reader.traces(slice, &condition).await?;
        let mut candidates: Vec<(i64, TraceId)> =
            found.into_iter().filter(|(id, _)| !seen.contains(id)).map(|(id, start)| (start, id)).collect();
        // A trace starts at the latest with the span by which it was found.
        candidates.sort_unstable_by(|one, other| other.cmp(one));
        let (mut rest, mut count) = (&candidates[..], FIRST_TRACES);
        while let Some((latest, _)) = rest.first() {
            if run.is_settled(*latest) {
                break;
            }
            let (now, later) = rest.split_at(count.min(rest.len()));
            let ids: Vec<TraceId> = now.iter().map(|(_, id)| *id).collect();
            if let Some(batch) = reader.whole_traces(&ids, read, &columns).await? {
                run.push(&batch).map_err(super::evaluation_error)?;
            }
            seen.extend(ids);
            (rest, count) = (later, (count * 2).min(MOST_TRACES));
        }
        if run.is_settled(slice.start.0) {
            break;
        }
    }
    Ok(Answered { answer: run.finish(), stats: reader.stats() })
}

/// Splits a range of time where segments start, newest part first, so that each has about as many rows as it may.
fn slices(time: TimeRange, segments: &[SegmentMeta]) -> Vec<TimeRange> {
    let mut starts: Vec<(TimestampNs, u64)> = segments.iter().map(|meta| (meta.time.start, meta.rows)).collect();
    starts.sort_unstable_by(|one, other| other.cmp(one));
    let (mut slices, mut end, mut rows, mut most) = (Vec::new(), time.end, 0_u64, FIRST_SLICE_ROWS);
    for (start, own) in starts {
        rows = rows.saturating_add(own);
        if rows >= most && start > time.start && start < end {
            slices.push(TimeRange { start, end });
            (end, rows, most) = (start, 0, most.saturating_mul(2));
        }
    }
    slices.push(TimeRange { start: time.start, end });
    slices
}
