//! TraceQL over the lake: which spans are read for a query, newest first, and what comes of them; and traces by their ids.
//!
//! Owns: conditions that every span of interest meets ([`conditions`]), reading whole traces where a query looks at more than single
//! spans ([`reader`]), ending a search once newer traces fill its limit. Never: what a query means (`tidemill_eval`), or which segments
//! and row groups are read (`scan`). Start with [`QueryEngine::search_traces`].
//!
//! Of a range of time a trace is found by spans that start from [`SEARCH_MARGIN_NS`] before it to the same after it, and seen with its
//! spans from [`TRACE_MARGIN_NS`] before it to the same after it.

mod columns;
mod conditions;
mod explain;
mod mentioned;
mod metrics;
mod node;
mod otlp;
mod reader;
mod search;
mod tags;
mod trace;

use std::time::Duration;

use tidemill_types::{TimeRange, TimestampNs};

pub use explain::explain;
pub use search::FoundTraces;
pub use tags::TagScopes;
pub use trace::FoundTrace;

use crate::engine::QueryEngine;
use crate::run::{AbortOnDrop, guarded};
use crate::{Error, QueryLimits, QueryStats, Result};

/// How far outside of the range of a search spans are looked at to find its traces: 15 minutes, in nanoseconds.
pub const SEARCH_MARGIN_NS: i64 = 15 * 60 * 1_000_000_000;
/// How far outside of the range of a query the spans of its traces are read: an hour, in nanoseconds.
pub const TRACE_MARGIN_NS: i64 = 3_600 * 1_000_000_000;

/// An answer with what it took.
#[derive(Debug, Clone)]
pub struct Answered<T> {
    /// The answer.
    pub answer: T,
    /// What all its scans did together.
    pub stats: QueryStats,
}

/// From one nanosecond to another, both included, widened on both sides.
fn widened(start_ns: i64, end_ns: i64, margin_ns: i64) -> TimeRange {
    TimeRange {
        start: TimestampNs(start_ns.saturating_sub(margin_ns)),
        end: TimestampNs(end_ns.saturating_add(margin_ns).saturating_add(1)),
    }
}

/// What an evaluator found wrong, as a query's error: the query asks for what it cannot have.
fn evaluation_error(error: tidemill_eval::Error) -> Error {
    Error::statement(error.to_string())
}

impl QueryEngine {
    /// Runs the parts of a query on the engine's threads, within its time.
    async fn within<T: Send + 'static>(
        &self,
        limits: QueryLimits,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        limits.check()?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let limit: Duration = limits.time;
        let task = self.runtime().spawn(async move {
            let done = guarded(tokio::time::timeout(limit, work)).await;
            let _ = tell.send(done.and_then(|it| it.unwrap_or(Err(Error::TimeLimit { limit }))));
        });
        let _task = AbortOnDrop::new(task);
        told.await.unwrap_or(Err(Error::Cancelled))
    }
}

/// Adds what one scan did to what others did.
fn absorb(stats: &mut QueryStats, more: QueryStats) {
    stats.segments_considered += more.segments_considered;
    stats.segments_pruned += more.segments_pruned;
    stats.row_groups_considered += more.row_groups_considered;
    stats.row_groups_pruned += more.row_groups_pruned;
    stats.row_groups_read += more.row_groups_read;
    stats.requests += more.requests;
    stats.bytes_read += more.bytes_read;
    stats.bytes_considered += more.bytes_considered;
    stats.rows_scanned += more.rows_scanned;
    stats.rows_matched += more.rows_matched;
    stats.cache_hits += more.cache_hits;
    stats.planning_ms += more.planning_ms;
    for warning in more.warnings {
        if !stats.warnings.contains(&warning) {
            stats.warnings.push(warning);
        }
    }
}
