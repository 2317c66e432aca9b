//! A trace by its id, as it was sent: resources, scopes, spans, events and links.

use opentelemetry_proto::tonic::trace::v1::TracesData;
use tidemill_types::{OrganizationId, TimeRange};

use super::Answered;
use super::columns::SpanColumns;
use super::otlp::{COLUMNS, traces_data};
use super::reader::SpanReader;
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
}
