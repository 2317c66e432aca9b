//! The entry: one organization's statement in, a stream of batches out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionContext};
use futures::stream::TryStreamExt;
use parking_lot::Mutex;
use tidemill_plan::prune::SegmentQuery;
use tidemill_segment::read::AttributeType;
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_types::{OrganizationId, Signal, TimeRange};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::attributes::{AttributeInfo, AttributeKey, Cardinality, KnownAttributes, join_types, type_name};
use crate::catalog::LiveCatalog;
use crate::run::{AbortOnDrop, channel, forward, next_batch};
use crate::scan::{SegmentLoader, SegmentTable, SettledTypes, TableContext};
use crate::session::{base_state, new_session};
use crate::statement::{QueryStatement, Statement, parse_statement};
use crate::stats::StatsHandle;
use crate::{Error, QueryLimits, QueryOptions, QueryStream, Result, describe};

/// Types widen at most twice an attribute and a segment vanishes at most once; more replans are a fault of ours.
const MOST_PLANS: usize = 16;

/// Runs queries. Clones share everything.
#[derive(Debug, Clone)]
pub struct QueryEngine {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Arc<LiveCatalog>,
    loader: Arc<SegmentLoader>,
    options: QueryOptions,
    base: SessionState,
    slots: Arc<Semaphore>,
    /// Decoding and computing stay off the threads that answer requests. `None` only while dropping.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryEngine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A planned query whose first batch is there.
struct Started {
    schema: SchemaRef,
    first: Option<RecordBatch>,
    rest: Option<SendableRecordBatchStream>,
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
            .enable_all()
            .build()
            .map_err(io)?;
        let shared = Shared {
            catalog: Arc::new(LiveCatalog::new(metastore)),
            loader: Arc::new(SegmentLoader::new(buckets, options.footer_cache_bytes, options.coalesce_gap_bytes)),
            base: base_state()?,
            slots: Arc::new(Semaphore::new(options.concurrent_queries)),
            options,
            runtime: Some(runtime),
        };
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
        let stats = StatsHandle::new();
        match parse_statement(text)? {
            Statement::ShowTables => Ok(self.ready(describe::show_tables(), stats)),
            Statement::Describe(signal) => Ok(self.ready(describe::describe_table(signal), stats)),
            Statement::Query(statement) => {
                let plan = Plan { engine: self.clone(), organization, statement, limits, stats: stats.clone() };
                self.start(plan, limits, stats).await
            }
        }
    }

    /// What is known of the attributes of a signal in a time range, from the segments' footers.
    ///
    /// # Errors
    /// As for a query.
    pub async fn attributes(&self, organization: OrganizationId, signal: Signal, time: TimeRange) -> Result<Vec<AttributeInfo>> {
        let stats = StatsHandle::new();
        self.shared.catalog.refresh().await?;
        let query = SegmentQuery { time, ..SegmentQuery::everything(signal) };
        let plan = self.shared.catalog.plan(organization, &query);
        let mut known = KnownAttributes::default();
        let mut footers = self.shared.loader.open_all(plan.segments, &stats);
        while let Some(open) = footers.try_next().await? {
            known.add(&open.footer);
        }
        let describe = |(key, attribute): (&AttributeKey, &crate::attributes::KnownAttribute)| AttributeInfo {
            scope: key.scope,
            key: key.key.clone(),
            expression: key.column_name(),
            kind: type_name(attribute.kind.unwrap_or(AttributeType::String)).to_owned(),
            rows: attribute.rows,
            promoted_in: attribute.promoted_in,
            overflow_in: attribute.overflow_in,
            cardinality: Cardinality::Unknown,
        };
        Ok(known.iter().map(describe).collect())
    }

    fn ready(&self, batch: RecordBatch, stats: StatsHandle) -> QueryStream {
        stats.planned();
        let (_, rest) = channel();
        let task = AbortOnDrop(self.runtime().spawn(async {}));
        QueryStream::new(batch.schema(), Some(batch), rest, task, stats)
    }

    async fn start(&self, plan: Plan, limits: QueryLimits, stats: StatsHandle) -> Result<QueryStream> {
        let slot = self.take_slot()?;
        let deadline = Instant::now() + limits.time;
        let (sender, rest) = channel();
        let (tell, told) = oneshot::channel();
        let task = self.runtime().spawn(async move {
            let _slot = slot;
            let started = tokio::time::timeout_at(deadline, plan.start(deadline)).await;
            match started.unwrap_or(Err(Error::TimeLimit { limit: limits.time })) {
                Err(error) => drop(tell.send(Err(error))),
                Ok(Started { schema, first, rest }) => {
                    if tell.send(Ok((schema, first))).is_ok()
                        && let Some(rows) = rest
                    {
                        forward(rows, sender, deadline, limits.time).await;
                    }
                }
            }
        });
        let task = AbortOnDrop(task);
        // The sender is lost only when the runtime stops.
        let (schema, first) = told.await.unwrap_or(Err(Error::Cancelled))?;
        Ok(QueryStream::new(schema, first, rest, task, stats))
    }

    fn take_slot(&self) -> Result<OwnedSemaphorePermit> {
        let slots = Arc::clone(&self.shared.slots);
        let running = self.shared.options.concurrent_queries;
        slots.try_acquire_owned().map_err(|_| Error::TooManyQueries { running })
    }

    fn runtime(&self) -> &Runtime {
        self.shared.runtime.as_ref().expect("the runtime is there until the engine is dropped")
    }
}

/// A checked statement on its way to rows.
struct Plan {
    engine: QueryEngine,
    organization: OrganizationId,
    statement: QueryStatement,
    limits: QueryLimits,
    stats: StatsHandle,
}

impl Plan {
    /// Plans until the data agrees with the plan, and waits for the first batch.
    async fn start(self, deadline: Instant) -> Result<Started> {
        let shared = &self.engine.shared;
        shared.catalog.refresh().await?;
        let settled: Arc<Mutex<SettledTypes>> = Arc::default();
        let mut fallback = AttributeType::String;
        let mut has_refreshed = false;
        for _ in 0..MOST_PLANS {
            self.stats.restart();
            match self.attempt(&settled, fallback, deadline).await {
                Err(Error::AttributeTypes { signal, types }) => {
                    let mut settled = settled.lock();
                    for (key, kind) in types {
                        let entry = settled.entry((signal, key)).or_insert(kind);
                        *entry = join_types(*entry, kind);
                    }
                }
                // Compaction replaced it, or retention removed it, since the catalog was read.
                Err(Error::SegmentMissing { .. }) if !has_refreshed => {
                    has_refreshed = true;
                    shared.catalog.refresh().await?;
                }
                // Text does not fit where the statement needs a number, and no segment has told the type yet.
                Err(Error::Engine(_)) if fallback == AttributeType::String && self.has_guesses(&settled) => {
                    fallback = AttributeType::Double;
                }
                other => return other,
            }
        }
        Err(Error::statement("the types of its attributes did not settle; name them with CAST"))
    }

    fn has_guesses(&self, settled: &Mutex<SettledTypes>) -> bool {
        let settled = settled.lock();
        self.statement.tables.iter().any(|signal| {
            self.statement.attributes.iter().any(|key| !settled.contains_key(&(*signal, key.clone())))
        })
    }

    async fn attempt(&self, settled: &Arc<Mutex<SettledTypes>>, fallback: AttributeType, deadline: Instant) -> Result<Started> {
        let shared = &self.engine.shared;
        let session = new_session(&shared.base, &shared.options, &self.limits)?;
        self.register_tables(&session, settled, fallback)?;
        let state = session.state();
        let logical = state.statement_to_plan(self.statement.parsed.clone()).await?;
        let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_reads.verify_plan(&logical)?;
        let physical = state.create_physical_plan(&logical).await?;
        self.stats.planned();
        let schema = physical.schema();
        let mut rows = execute_stream(physical, session.task_ctx())?;
        match next_batch(&mut rows, deadline, self.limits.time).await {
            None => Ok(Started { schema, first: None, rest: None }),
            Some(first) => Ok(Started { schema, first: Some(first?), rest: Some(rows) }),
        }
    }

    fn register_tables(
        &self,
        session: &SessionContext,
        settled: &Arc<Mutex<SettledTypes>>,
        fallback: AttributeType,
    ) -> Result<()> {
        let shared = &self.engine.shared;
        for &signal in &self.statement.tables {
            let known: BTreeMap<AttributeKey, AttributeType> = {
                let settled = settled.lock();
                let kind = |key: &AttributeKey| {
                    settled
                        .get(&(signal, key.clone()))
                        .copied()
                        .or_else(|| shared.catalog.known_type(self.organization, signal, key))
                        .unwrap_or(fallback)
                };
                self.statement.attributes.iter().map(|key| (key.clone(), kind(key))).collect()
            };
            let context = TableContext {
                organization: self.organization,
                catalog: Arc::clone(&shared.catalog),
                loader: Arc::clone(&shared.loader),
                stats: self.stats.clone(),
                settled: Arc::clone(settled),
            };
            let attributes: Vec<(AttributeKey, AttributeType)> = known.into_iter().collect();
            session.register_table(signal.table(), Arc::new(SegmentTable::new(context, signal, &attributes)))?;
        }
        Ok(())
    }
}
