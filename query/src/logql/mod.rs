//! LogQL over the lake: from a checked query to scans of log segments, and their rows to the evaluator.
//!
//! Owns: which labels records have ([`labels`]), what a query tells the scan ([`conditions`]), in which pieces of time lines are read
//! ([`lines`]), and how numbers are gathered in parts ([`numbers`]). Never: what a query means, which is the evaluator's. Start with
//! [`QueryEngine::logql_lines`], [`QueryEngine::logql_numbers`] and [`QueryEngine::logql_streams`].

mod batches;
mod conditions;
mod counted;
mod detail;
mod labels;
mod lines;
mod numbers;
mod records;
mod scan;
mod spared;
mod stream_tables;
mod streams;

use std::sync::Arc;

use tidemill_eval::logql::{MetricParams, MetricRun};
use tidemill_lang::logql::ast::{LogQuery, Query};
use tidemill_lang::logql::print;
use tidemill_types::ErrorKind;

use crate::engine::Asked;
use crate::plan::Work;
use crate::{QueryEngine, QueryStats, QueryStream};

pub(crate) use counted::{CountedGroups, CountedRows};
pub use lines::LinesAnswer;
pub use numbers::NumbersAnswer;
pub(crate) use scan::LineScan;
pub(crate) use spared::SparedColumns;
pub(crate) use stream_tables::StreamTables;
pub use streams::{StreamTotal, StreamTotals, StreamsAnswer};

/// A LogQL query that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error(transparent)]
    Query(#[from] crate::Error),
    /// The evaluator refused the query, or met data for which it has no answer.
    #[error("{0}")]
    Eval(Arc<tidemill_eval::Error>),
    /// Rows are not as they should be.
    #[error("reading logs: {0}")]
    Rows(&'static str),
}

/// The result of a LogQL query.
pub type Result<T> = std::result::Result<T, Error>;

impl From<tidemill_eval::Error> for Error {
    fn from(error: tidemill_eval::Error) -> Self {
        Self::Eval(Arc::new(error))
    }
}

impl Error {
    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Query(error) => error.kind(),
            Self::Eval(error) => error.kind(),
            Self::Rows(_) => ErrorKind::Corrupt,
        }
    }
}

/// Adds what a scan did to what its query did so far. Attributes that do not occur are no news in LogQL.
fn add_stats(total: &mut QueryStats, part: QueryStats) {
    total.segments_considered += part.segments_considered;
    total.segments_pruned += part.segments_pruned;
    total.row_groups_considered += part.row_groups_considered;
    total.row_groups_pruned += part.row_groups_pruned;
    total.row_groups_read += part.row_groups_read;
    total.requests += part.requests;
    total.bytes_read += part.bytes_read;
    total.bytes_considered += part.bytes_considered;
    total.rows_scanned += part.rows_scanned;
    total.rows_matched += part.rows_matched;
    total.cache_hits += part.cache_hits;
    total.planning_ms += part.planning_ms;
    for warning in part.warnings {
        if !warning.contains(" does not occur in ") && !total.warnings.contains(&warning) {
            total.warnings.push(warning);
        }
    }
}

/// What a query reads, in words: the records that its scan asks for, and the labels that it needs of them.
pub fn explain(query: &Query) -> String {
    let mut text = String::new();
    let mut tell = |log: &LogQuery, needed: Option<Vec<String>>| {
        text.push_str(&format!("{}\n", print::print_log(log)));
        let condition = conditions::of_query(log).to_string();
        let condition = if condition.is_empty() { "every record".to_owned() } else { condition };
        text.push_str(&format!("  scan: logs where {condition}\n  recheck: every record, by the query itself\n"));
        let detail = detail::Detail::of(needed);
        text.push_str(&format!("  columns: {}\n", detail.columns().join(", ")));
        if let Some(wanted) = detail.wanted() {
            let labels = "  resource, scope, attributes: of segments where a key can give one of";
            text.push_str(&format!("{labels} {wanted}\n"));
        }
    };
    match query {
        Query::Log(log) => tell(log, None),
        Query::Metric(metric) => {
            let at = MetricParams { start_ns: 0, end_ns: 0, step_ns: None, now_ns: 0 };
            match MetricRun::new(metric, at) {
                Ok(run) => {
                    run.queries().for_each(|log| tell(log, run.needed_labels()));
                    if run.counts_by_stream() {
                        text.push_str(
                            "  counted unread: compacted row groups that lie in one window, by the stream tables of their segments\n",
                        );
                    }
                }
                Err(error) => text.push_str(&format!("refused: {error}\n")),
            }
        }
    }
    text
}

impl QueryEngine {
    async fn scan_lines(
        &self,
        organization: tidemill_types::OrganizationId,
        scan: LineScan,
        limits: crate::QueryLimits,
    ) -> Result<QueryStream> {
        limits.check()?;
        let stats = crate::StatsHandle::new();
        Ok(self.start(organization, Asked::Work(Box::new(Work::Lines(scan))), limits, stats).await?)
    }

    /// Runs a part of a query where there are threads and stack for it; it ends when its caller goes away.
    async fn on_engine<T: Send + 'static>(&self, part: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let task = self.runtime().spawn(async move {
            let outcome = crate::run::guarded(part).await;
            drop(tell.send(outcome.map_err(Error::from).and_then(|outcome| outcome)));
        });
        let _task = crate::run::AbortOnDrop::new(task);
        told.await.unwrap_or(Err(Error::Query(crate::Error::Cancelled)))
    }
}
