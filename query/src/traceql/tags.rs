//! Names and values of attributes, with which clients complete queries.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_eval::traceql::{SpanBatch, TagNamesRun, TagValuesRun};
use tidemill_lang::traceql::ast::{Attribute, Query, QueryKind, Scope};
use tidemill_types::{OrganizationId, TimeRange};

use super::columns::SpanColumns;
use super::mentioned::Mentioned;
use super::reader::{SpanReader, TraceId};
use super::{Answered, TRACE_MARGIN_NS, conditions, evaluation_error, widened};
use crate::engine::QueryEngine;
use crate::scan::RowCondition;
use crate::tables::object_column;
use crate::{AttributeScope, QueryLimits, Result};

/// Traces read at a time.
const TRACES_TOGETHER: usize = 5_000;

/// The names of each scope.
pub type TagScopes = BTreeMap<Scope, BTreeSet<String>>;

impl QueryEngine {
    /// The names of the attributes of spans that start from one nanosecond to another and match the filter.
    ///
    /// # Errors
    /// `Invalid` where the filter is a metrics query; those of a query.
    pub async fn trace_tag_names(
        &self,
        organization: OrganizationId,
        filter: Option<Query>,
        (start_ns, end_ns): (i64, i64),
        limits: QueryLimits,
    ) -> Result<Answered<TagScopes>> {
        let reader = SpanReader::new(self, organization, limits);
        self.within(limits, async move {
            let mut run = TagNamesRun::new(filter.as_ref(), start_ns, end_ns).map_err(evaluation_error)?;
            if filter.is_none() {
                return all_names(reader, run, widened(start_ns, end_ns, 0)).await;
            }
            let mut mentioned = filter.as_ref().map(Mentioned::of).unwrap_or_default();
            mentioned.all = true;
            let push = |batch: &SpanBatch| run.push(batch).map_err(evaluation_error);
            let stats = read(reader, filter.as_ref(), &mentioned, true, (start_ns, end_ns), push).await?;
            Ok(Answered { answer: run.finish(), stats })
        })
        .await
    }

    /// The values of an attribute of spans, as for names; each with its type.
    ///
    /// # Errors
    /// As for names.
    pub async fn trace_tag_values(
        &self,
        organization: OrganizationId,
        attribute: Attribute,
        filter: Option<Query>,
        (start_ns, end_ns): (i64, i64),
        limits: QueryLimits,
    ) -> Result<Answered<Vec<(&'static str, String)>>> {
        let reader = SpanReader::new(self, organization, limits);
        self.within(limits, async move {
            let is_local = conditions::attribute_is_local(&attribute);
            let mut mentioned = filter.as_ref().map(Mentioned::of).unwrap_or_default();
            mentioned.add(&attribute);
            let mut run = TagValuesRun::new(attribute, filter.as_ref(), start_ns, end_ns).map_err(evaluation_error)?;
            let push = |batch: &SpanBatch| run.push(batch).map_err(evaluation_error);
            let stats = read(reader, filter.as_ref(), &mentioned, is_local, (start_ns, end_ns), push).await?;
            Ok(Answered { answer: run.finish(), stats })
        })
        .await
    }
}

/// The names of all spans of a range of time: footers know them where a segment lies within it as a whole; of the others, and of events
/// and links everywhere, the rows are read.
async fn all_names(mut reader: SpanReader, mut run: TagNamesRun, time: TimeRange) -> Result<Answered<TagScopes>> {
    let (known, unknown) = reader.names(time).await?;
    let mentioned = Mentioned { all: true, ..Mentioned::default() };
    let mut columns = SpanColumns::of(&mentioned);
    for range in unknown {
        reader
            .rows(range, &RowCondition::Always, &columns, None, |rows| {
                run.push(&columns.batch(rows)?).map_err(evaluation_error)
            })
            .await?;
    }
    columns.fixed.retain(|name| !AttributeScope::ALL.iter().any(|scope| name == object_column(*scope)));
    reader
        .rows(time, &RowCondition::Always, &columns, None, |rows| {
            run.push(&columns.batch(rows)?).map_err(evaluation_error)
        })
        .await?;
    let mut answer = run.finish();
    for key in known {
        let scope = match key.scope {
            AttributeScope::Record => Scope::Span,
            AttributeScope::Resource => Scope::Resource,
            AttributeScope::Scope => Scope::Instrumentation,
        };
        answer.entry(scope).or_default().insert(key.key);
    }
    Ok(Answered { answer, stats: reader.stats() })
}

/// Hands the spans that the filter leaves to `push`, single ones where that is enough.
async fn read(
    mut reader: SpanReader,
    filter: Option<&Query>,
    mentioned: &Mentioned,
    is_local: bool,
    (start_ns, end_ns): (i64, i64),
    mut push: impl FnMut(&SpanBatch) -> Result<()>,
) -> Result<crate::QueryStats> {
    let time = widened(start_ns, end_ns, 0);
    let (condition, filter_is_local) = match filter.map(|query| &query.kind) {
        Some(QueryKind::Search(pipeline)) => (conditions::of_spans(pipeline), conditions::is_local(pipeline)),
        _ => (RowCondition::Always, true),
    };
    if is_local && filter_is_local {
        let types = if mentioned.all { Default::default() } else { reader.types(time).await? };
        let columns = SpanColumns::typed(mentioned, &types);
        reader.rows(time, &condition, &columns, None, |rows| push(&columns.batch(rows)?)).await?;
        return Ok(reader.stats());
    }
    let columns = SpanColumns::of(mentioned);
    let mut ids: Vec<TraceId> = reader.traces(time, &condition).await?.into_keys().collect();
    ids.sort_unstable();
    let read = widened(start_ns, end_ns, TRACE_MARGIN_NS);
    for some in ids.chunks(TRACES_TOGETHER) {
        if let Some(batch) = reader.whole_traces(some, read, &columns).await? {
            push(&batch)?;
        }
    }
    Ok(reader.stats())
}
