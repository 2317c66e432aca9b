//! The engine's TraceQL behind [`Queries`]: its limits, its spans, its errors.

use tidemill_eval::traceql::{MetricsAnswer, MetricsParams, SearchParams};
use tidemill_lang::traceql::ast::{Attribute, Query};
use tidemill_query::traceql::{Answered, FoundTrace, FoundTraces, TagScopes};
use tidemill_types::{OrganizationId, TimeRange};
use tracing::Instrument as _;

use crate::error::Result;
use crate::query::{Queries, from_query};

/// A trace of what a query does, under its own name.
macro_rules! traced {
    ($self:ident, $organization:ident, $what:literal, |$engine:ident, $limits:ident| $call:expr) => {{
        let ($engine, $limits) = $self.open_engine().await?;
        let span = tracing::info_span!("query", organization = %$organization, language = "traceql", what = $what);
        $call.instrument(span).await.map_err(from_query)
    }};
}

impl Queries {
    /// The newest traces that a query finds.
    ///
    /// # Errors
    /// Those of the engine; so for all below.
    pub async fn search_traces(
        &self,
        organization: OrganizationId,
        query: Query,
        params: SearchParams,
    ) -> Result<Answered<FoundTraces>> {
        traced!(self, organization, "search", |engine, limits| engine.search_traces(
            organization,
            query,
            params,
            limits
        ))
    }

    /// Numbers over time.
    pub async fn trace_metrics(
        &self,
        organization: OrganizationId,
        query: Query,
        params: MetricsParams,
    ) -> Result<Answered<MetricsAnswer>> {
        traced!(self, organization, "metrics", |engine, limits| engine.trace_metrics(
            organization,
            query,
            params,
            limits
        ))
    }

    /// Names of attributes of spans.
    pub async fn trace_tag_names(
        &self,
        organization: OrganizationId,
        filter: Option<Query>,
        range_ns: (i64, i64),
    ) -> Result<Answered<TagScopes>> {
        traced!(self, organization, "tag names", |engine, limits| engine.trace_tag_names(
            organization,
            filter,
            range_ns,
            limits
        ))
    }

    /// Values of an attribute of spans.
    pub async fn trace_tag_values(
        &self,
        organization: OrganizationId,
        attribute: Attribute,
        filter: Option<Query>,
        range_ns: (i64, i64),
    ) -> Result<Answered<Vec<(&'static str, String)>>> {
        traced!(self, organization, "tag values", |engine, limits| engine.trace_tag_values(
            organization,
            attribute,
            filter,
            range_ns,
            limits
        ))
    }

    /// A trace by its id.
    pub async fn trace(
        &self,
        organization: OrganizationId,
        id: [u8; 16],
        time: TimeRange,
    ) -> Result<Answered<FoundTrace>> {
        traced!(self, organization, "trace", |engine, limits| engine.trace(organization, id, time, limits))
    }

    /// The spans of a trace that a query finds.
    pub async fn trace_spans(
        &self,
        organization: OrganizationId,
        id: [u8; 16],
        time: TimeRange,
        query: Query,
    ) -> Result<Answered<Vec<Vec<u8>>>> {
        traced!(self, organization, "trace spans", |engine, limits| engine.trace_spans(
            organization,
            id,
            time,
            query,
            limits
        ))
    }
}
