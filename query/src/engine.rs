//! The entry: one organization's statement in, a stream of batches out.

use std::sync::Arc;

use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_types::OrganizationId;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::catalog::LiveCatalog;
use crate::guards::Watch;
use crate::known_plans::KnownPlans;
use crate::logql::StreamTables;
use crate::plan::{Parts, Plan, Started, Work};
use crate::promql::{KeptFloats, SeriesTables};
use crate::run::{AbortOnDrop, End, channel, forward, guarded};
use crate::scan::{RowRequest, SegmentLoader};
use crate::session::base_state;
use crate::slots::{SlotLimits, Slots};
use crate::statement::{Statement, parse_statement};
use crate::stats::StatsHandle;
use crate::{Error, QueryLimits, QueryOptions, QueryStream, Result, describe};

/// Planning recurses into what a statement nests, in an unoptimized build up to some 20 KiB a level. Only what is used costs memory.
const STACK_BYTES: usize = 64 << 20;

/// Runs queries. Clones share everything.
#[derive(Debug, Clone)]
pub struct QueryEngine {
    shared: Arc<Shared>,
}

/// What a query is begun with.
pub(crate) enum Asked {
    /// SQL, to be read where there is stack for whatever it nests.
    Text(String),
    Work(Box<Work>),
}

struct Shared {
    parts: Arc<Parts>,
    slots: Slots,
    /// Of PromQL.
    turns: Slots,
    /// Decoding and computing stay off the threads that answer requests. `None` only while dropping.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryEngine").field("options", &self.parts.options).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl QueryEngine {
    /// An engine over a metastore and its buckets.
    ///
    /// # Errors
    /// When threads or the session cannot be made.
    pub fn new(metastore: Arc<dyn Metastore>, buckets: Arc<Buckets>, options: QueryOptions) -> Result<Self> {
        let io = |error: std::io::Error| Error::from(datafusion::error::DataFusionError::IoError(error));
        std::fs::create_dir_all(&options.spill_folder).map_err(io)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(io)?;
        let parts = Parts {
            catalog: Arc::new(LiveCatalog::new(metastore)),
            loader: Arc::new(SegmentLoader::new(buckets, &options)),
            base: base_state(&options)?,
            series: SeriesTables::new(options.series_cache_bytes, options.promotion.clone()),
            floats: KeptFloats::new(options.points_cache_bytes),
            streams: StreamTables::new(options.streams_cache_bytes),
            plans: KnownPlans::default(),
            options,
        };
        let shared =
            Shared { parts: Arc::new(parts), slots: Slots::default(), turns: Slots::default(), runtime: Some(runtime) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs one read-only statement over the data of `organization` and of no other (T-1).
    ///
    /// Answers once the first batch is there, so that what is wrong with a statement is told before any row is.
    ///
    /// # Errors
    /// `Invalid` for a statement that may not run, `Busy` for a limit that was reached, `Corrupt` when a live segment is
    /// missing or damaged, `Unavailable`.
    pub async fn sql(&self, organization: OrganizationId, text: &str, limits: QueryLimits) -> Result<QueryStream> {
        limits.check()?;
        self.start(organization, Asked::Text(text.to_owned()), limits, StatsHandle::new()).await
    }

    /// Reads rows of one signal without SQL: the seam for evaluators of other languages.
    ///
    /// # Errors
    /// As for a query; `Invalid` for a column that does not exist.
    pub async fn rows(
        &self,
        organization: OrganizationId,
        request: RowRequest,
        limits: QueryLimits,
    ) -> Result<QueryStream> {
        limits.check()?;
        self.start(organization, Asked::Work(Box::new(Work::Rows(request))), limits, StatsHandle::new()).await
    }

    /// How many queries hold a slot.
    pub fn running_queries(&self) -> usize {
        self.shared.slots.running()
    }

    pub(crate) async fn start(
        &self,
        organization: OrganizationId,
        asked: Asked,
        limits: QueryLimits,
        stats: StatsHandle,
    ) -> Result<QueryStream> {
        let slot = self.shared.slots.take(organization, SlotLimits::shared(self.parts().options.concurrent_queries))?;
        let deadline = Instant::now() + limits.time;
        let reader = Arc::new(());
        let watch = Watch { deadline, limit: limits.time, reader: Arc::downgrade(&reader) };
        let (parts, own_stats) = (Arc::clone(&self.shared.parts), stats.clone());
        let starting = async move {
            let work = match asked {
                Asked::Work(work) => *work,
                Asked::Text(text) => match parse_statement(&text)? {
                    Statement::ShowTables => return Ok(Started::ready(describe::show_tables(), &own_stats)),
                    Statement::Describe(signal) => {
                        return Ok(Started::ready(describe::describe_table(signal), &own_stats));
                    }
                    Statement::Query(statement) => Work::Statement(statement),
                },
            };
            Plan { parts, organization, work, limits, watch, stats: own_stats }.start().await
        };
        let (sender, rest) = channel();
        let (tell, told) = oneshot::channel();
        let end = End::default();
        let told_end = end.clone();
        let task = self.runtime().spawn(async move {
            let _slot = slot;
            let started = guarded(tokio::time::timeout_at(deadline, starting)).await;
            match started.and_then(|it| it.unwrap_or(Err(Error::TimeLimit { limit: limits.time }))) {
                Err(error) => drop(tell.send(Err(error))),
                Ok(Started { schema, first, rest }) => {
                    if tell.send(Ok((schema, first))).is_ok() {
                        forward(rest, sender, told_end, deadline, limits.time).await;
                    }
                }
            }
        });
        let task = AbortOnDrop::with_reader(task, reader);
        // The sender is lost only when the runtime stops.
        let (schema, first) = told.await.unwrap_or(Err(Error::Cancelled))?;
        Ok(QueryStream::new(schema, first, rest, end, task, stats))
    }

    pub(crate) fn turns(&self) -> &Slots {
        &self.shared.turns
    }

    pub(crate) fn parts_shared(&self) -> Arc<Parts> {
        Arc::clone(&self.shared.parts)
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.shared.parts
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.shared.runtime.as_ref().expect("the runtime is there until the engine is dropped")
    }
}
