//! A trace by its id, as it was sent: resources, scopes, spans, events and links.

use opentelemetry_proto::tonic::trace::v1::TracesData;
use tidemill_eval::traceql::{SearchParams, SearchRun};
use tidemill_lang::traceql::ast::Query;
use tidemill_types::{OrganizationId, TimeRange};

use super::columns::SpanColumns;
use super::mentioned::Mentioned;
use super::otlp::{COLUMNS, traces_data};
use super::reader::SpanReader;
use super::{Answered, evaluation_error};
use crate::engine::QueryEngine;
use crate::{QueryLimits, Result};

/// A trace; `None` where nothing of it is there.
pub type FoundTrace = Option<TracesData>;

impl QueryEngine {
    /// Everything of one trace, by the day indexes. `time` only spares work: it must hold the starts of all its spans.
    ///
    /// # Errors
    /// Those of a query.
    pub async fn trace(
        &self,
        organization: OrganizationId,
        id: [u8; 16],
        time: TimeRange,
        limits: QueryLimits,
    ) -> Result<Answered<FoundTrace>> {
        let mut reader = SpanReader::new(self, organization, limits);
        self.within(limits, async move {
            let columns =
                SpanColumns { fixed: COLUMNS.iter().map(|&name| name.to_owned()).collect(), attributes: Vec::new() };
            let rows = reader.rows_of_traces(&[id], time, &columns).await?;
            let answer = rows.map(|rows| traces_data(&rows)).transpose()?;
            Ok(Answered { answer, stats: reader.stats() })
        })
        .await
    }

    /// The ids of the spans of one trace that a query finds.
    ///
    /// # Errors
    /// `Invalid` for a metrics query; those of a query.
    pub async fn trace_spans(
        &self,
        organization: OrganizationId,
        id: [u8; 16],
        time: TimeRange,
        query: Query,
        limits: QueryLimits,
    ) -> Result<Answered<Vec<Vec<u8>>>> {
        let mut reader = SpanReader::new(self, organization, limits);
        self.within(limits, async move {
            let params = SearchParams { start_ns: i64::MIN, end_ns: i64::MAX, limit: 1, spans_per_spanset: 0 };
            let mut run = SearchRun::new(&query, params).map_err(evaluation_error)?;
            let columns = SpanColumns::of(&Mentioned::of(&query));
            if let Some(batch) = reader.whole_traces(&[id], time, &columns).await? {
                run.push(&batch).map_err(evaluation_error)?;
            }
            let spansets = run.finish().into_iter().flat_map(|trace| trace.spansets);
            let answer = spansets.flat_map(|own| own.spans).map(|span| span.span_id).collect();
            Ok(Answered { answer, stats: reader.stats() })
        })
        .await
    }
}
