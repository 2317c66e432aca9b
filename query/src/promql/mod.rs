//! PromQL over the lake: selectors become reads of segments, evaluation is that of [`tidemill_eval::promql`].
//!
//! Owns: which segments, series and points a selector reads, the limits of a query, answers about names and labels. Names and labels are
//! those that Prometheus's OTLP receiver makes ([`series`]); series of remote write keep theirs. What a selector reads: the catalog,
//! the series tables of segments, then only the columns of its points, or rollups where these tell the same ([`rollups`]). Never: the
//! language itself, HTTP.
//! Start with [`QueryEngine::promql`].

mod answer;
mod assemble;
mod budget;
mod conditions;
mod describe;
mod exemplars;
mod explain;
mod floats;
mod gathered;
mod label_columns;
mod points;
mod rollups;
mod select;
mod series;
mod source;
mod stored_floats;
mod tables;
mod value_text;

use std::sync::Arc;
use std::time::Duration;

use tidemill_eval::promql::{Annotations, Engine, Interrupt, Options, Source, Value};
use tidemill_eval::{Error as EvalError, Result as EvalResult};
use tidemill_types::{ErrorKind, OrganizationId};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use assemble::exponential_histogram;
pub use describe::{LabelSelect, MetricMetadata};
pub use exemplars::{Exemplar, SeriesExemplars};
pub use explain::explain;
pub(crate) use floats::KeptFloats;
pub use series::Promotion;
pub(crate) use tables::SeriesTables;

use crate::run::guarded;
use crate::slots::{Slot, SlotLimits};
use crate::stats::{QueryStats, StatsHandle};
use crate::{Error, QueryEngine};
use answer::{Asked, Begun};
use select::Reader;
use source::LakeSource;

/// One query.
#[derive(Debug, Clone)]
pub struct PromqlRequest {
    /// The query's text.
    pub query: String,
    /// Its time or the first of its times, in milliseconds since 1970.
    pub start_ms: i64,
    /// The last of its times.
    pub end_ms: i64,
    /// From one time to the next; 0 for an instant query.
    pub step_ms: i64,
    /// How long a sample stays current, where it is not the default.
    pub lookback_ms: Option<i64>,
}

/// What one query of PromQL may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromqlLimits {
    /// From its start to its answer.
    pub time: Duration,
    /// Bytes that it reads from the bucket.
    pub bytes: u64,
    /// Series of one selector.
    pub series: usize,
    /// Samples that it reads, and that it holds while it evaluates.
    pub samples: usize,
    /// About how many bytes of memory its samples and values take.
    pub memory: usize,
    /// Queries of one organization that run at a time.
    pub concurrency: usize,
    /// How long a sample stays current.
    pub lookback_ms: i64,
}

impl Default for PromqlLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            bytes: 8 << 30,
            series: 500_000,
            samples: 50_000_000,
            memory: 1 << 30,
            concurrency: 20,
            lookback_ms: 300_000,
        }
    }
}

/// What a query gave.
#[derive(Debug)]
pub struct PromqlAnswer {
    /// Its value.
    pub value: Value,
    /// What there is to say of it.
    pub notes: Annotations,
    /// What was read for it. Its warnings belong to the answer.
    pub stats: QueryStats,
}

impl QueryEngine {
    /// Evaluates a query over the metrics of `organization` and of no other (T-1).
    ///
    /// # Errors
    /// The query is wrong or has no answer for the data; a limit was met; the lake cannot be read. An answer is never a part.
    pub async fn promql(
        &self,
        organization: OrganizationId,
        request: PromqlRequest,
        limits: PromqlLimits,
    ) -> EvalResult<PromqlAnswer> {
        let turn = self.turn(organization, limits)?;
        let reader = self.reader(organization, limits).await?;
        let stats = reader.stats.clone();
        let ended = EndOnDrop::default();
        let options = Options {
            interrupt: ended.0.clone(),
            lookback_ms: request.lookback_ms.unwrap_or(limits.lookback_ms),
            max_samples: limits.samples,
            ..Options::default()
        };
        let deadline = reader.deadline;
        let runtime = self.runtime().handle();
        let source = LakeSource::new(reader, runtime.clone());
        let asked = Asked { request, engine: Engine::new(options), source, threads: self.parts().options.threads };
        let begun = guarded(async { Arc::new(asked).begin() }).await.map_err(failed)?;
        let outcome = match begun {
            Begun::Answered(outcome) => outcome,
            Begun::Under(mut way) => {
                // The reading ends when its caller goes away.
                let (mut tell, told) = oneshot::channel();
                // On one thread from here on, which may wait: every way to another thread and back would show.
                runtime.spawn_blocking(move || {
                    let _turn = turn;
                    let outcome = way.finish(tell.closed());
                    drop(tell.send(outcome));
                    // What was read is let go of once the answer is on its way.
                    drop(way);
                });
                within(deadline, limits.time, told).await?.map_err(|_| failed(Error::Cancelled))?
            }
        };
        stats.ended();
        let (value, notes) = outcome?;
        Ok(PromqlAnswer { value, notes, stats: stats.read() })
    }

    /// A source over the metrics of `organization`, for an evaluation that the caller runs on a thread that may wait.
    ///
    /// # Errors
    /// The metastore does not answer.
    pub async fn promql_source(
        &self,
        organization: OrganizationId,
        limits: PromqlLimits,
    ) -> EvalResult<Box<dyn Source + Send>> {
        let reader = self.reader(organization, limits).await?;
        Ok(Box::new(LakeSource::new(reader, self.runtime().handle().clone())))
    }

    fn turn(&self, organization: OrganizationId, limits: PromqlLimits) -> EvalResult<Slot> {
        self.turns().take(organization, SlotLimits::each(limits.concurrency)).map_err(failed)
    }

    /// What reads for one query, over the catalog as it is now.
    async fn reader(&self, organization: OrganizationId, limits: PromqlLimits) -> EvalResult<Reader> {
        let parts = self.parts_shared();
        parts.catalog.refresh().await.map_err(failed)?;
        Ok(Reader::new(parts, organization, limits, StatsHandle::new()))
    }
}

/// Ends an evaluation with the future that waits for it: at its time limit, or when its caller goes away.
#[derive(Debug, Default)]
struct EndOnDrop(Interrupt);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn within<T>(deadline: Instant, limit: Duration, work: impl Future<Output = T>) -> EvalResult<T> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| failed(Error::TimeLimit { limit }))
}

/// A failure of the lake as evaluation tells it.
pub(crate) fn failed(error: Error) -> EvalError {
    match error {
        Error::QueryLimit { problem } => EvalError::Limit(problem),
        error => {
            let kind: ErrorKind = error.kind();
            EvalError::Source { what: "metrics".to_owned(), kind, source: Box::new(error) }
        }
    }
}
