//! The query engine of this process: built at the first query, so that an idle server stays small; its limits; what recent queries did.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidemill_eval::{Labels, Matcher};
use tidemill_query::promql::{
    LabelSelect, MetricMetadata, Promotion, PromqlAnswer, PromqlLimits, PromqlRequest, SeriesExemplars,
};
use tidemill_query::{AttributeInfo, QueryEngine, QueryLimits, QueryOptions, QueryStats, QueryStream, StatsHandle};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_types::{ErrorKind, OrganizationId, Signal, TimeRange, TimestampNs};
use tokio::sync::OnceCell;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::Problem;
use crate::present::first_line;
use crate::stack::Stack;

type PromqlResult<T> = tidemill_eval::Result<T>;

/// Queries whose statistics are remembered.
const REMEMBERED_QUERIES: usize = 256;
/// Characters of a statement that its span carries.
const MAX_TRACED_TEXT: usize = 1000;

/// Runs queries for the API and the command line.
#[derive(Debug, Clone)]
pub struct Queries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metastore: Arc<dyn Metastore>,
    buckets: Arc<Buckets>,
    options: QueryOptions,
    most: QueryLimits,
    promql: PromqlLimits,
    /// The most lines that a query of LogQL may ask for.
    most_lines: usize,
    engine: OnceCell<QueryEngine>,
    recent: Mutex<VecDeque<Recent>>,
}

#[derive(Debug)]
struct Recent {
    id: Uuid,
    organization: OrganizationId,
    stats: StatsHandle,
    /// Why it ended early, after its first rows were sent.
    failure: Option<Problem>,
}

/// What a recent query did.
#[derive(Debug, Serialize)]
pub struct QueryReport {
    /// Its counts.
    #[serde(flatten)]
    pub stats: QueryStats,
    /// Why its answer is not complete; absent when it is, or not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// What a caller may ask of one query, below what the configuration allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedLimits {
    /// Milliseconds from its start to its last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// Memory of its sorts, joins and aggregations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Nanoseconds since 1970: tables hold no rows before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<i64>,
    /// Nanoseconds since 1970: tables hold no rows from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<i64>,
}

/// A query under way.
#[derive(Debug)]
pub struct RunningQuery {
    /// By which its statistics are found.
    pub id: Uuid,
    /// Its rows.
    pub rows: QueryStream,
    /// To be kept until the last row was read.
    pub _trace: QueryTrace,
    /// The engine, whose threads end with it.
    _queries: Queries,
}

/// The span of a query; ends when it is dropped.
#[derive(Debug)]
pub struct QueryTrace {
    span: Span,
    stats: StatsHandle,
}

impl Drop for QueryTrace {
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        let stats = self.stats.read();
        // Signed, because OpenTelemetry has no other integers.
        self.span.record("rows_scanned", stats.rows_scanned as i64).record("bytes_read", stats.bytes_read as i64);
    }
}

impl Queries {
    /// Queries over an open installation.
    pub fn new(stack: &Stack) -> Self {
        let shared = Shared {
            metastore: stack.metastore.clone(),
            buckets: stack.buckets.clone(),
            options: options(&stack.config, stack.spool.join("query")),
            most: most(&stack.config),
            promql: promql_limits(&stack.config),
            most_lines: stack.config.count("logql.max_lines").max(1),
            engine: OnceCell::new(),
            recent: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs one read-only statement for `organization`.
    ///
    /// # Errors
    /// `Invalid` for a statement or limits that may not be; those of the engine.
    pub async fn sql(&self, organization: OrganizationId, text: &str, asked: &RequestedLimits) -> Result<RunningQuery> {
        let limits = self.limits(asked)?;
        let id = Uuid::new_v4();
        let span = tracing::info_span!(
            "query",
            %id,
            %organization,
            db.query.text = first_line(text, MAX_TRACED_TEXT),
            rows_scanned = tracing::field::Empty,
            bytes_read = tracing::field::Empty,
        );
        let rows = self.engine().await?.sql(organization, text, limits).instrument(span.clone()).await;
        let rows = rows.map_err(from_query)?;
        let _trace = QueryTrace { span, stats: rows.stats() };
        let mut recent = self.shared.recent.lock();
        if recent.len() == REMEMBERED_QUERIES {
            recent.pop_front();
        }
        recent.push_back(Recent { id, organization, stats: rows.stats(), failure: None });
        drop(recent);
        Ok(RunningQuery { id, rows, _trace, _queries: self.clone() })
    }

    /// What a recent query of `scope` did.
    ///
    /// # Errors
    /// `NotFound` for one that is not remembered, or another organization's.
    pub fn report(&self, scope: Option<OrganizationId>, id: Uuid) -> Result<QueryReport> {
        let recent = self.shared.recent.lock();
        let found = recent.iter().find(|it| it.id == id && scope.is_none_or(|scope| scope == it.organization));
        let report = |it: &Recent| QueryReport { stats: it.stats.read(), error: it.failure.clone() };
        found.map(report).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no recent query {id}")))
    }

    /// Remembers why a query ended early.
    pub fn note_failure(&self, id: Uuid, error: &Error) {
        let mut recent = self.shared.recent.lock();
        if let Some(found) = recent.iter_mut().find(|it| it.id == id) {
            found.failure = Some(Problem::of(error));
        }
    }

    /// What is known of the attributes of a signal.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn attributes(
        &self,
        organization: OrganizationId,
        signal: Signal,
        time: TimeRange,
    ) -> Result<Vec<AttributeInfo>> {
        self.engine().await?.attributes(organization, signal, time).await.map_err(from_query)
    }

    /// Evaluates a query of PromQL, in at most `timeout_ms` where that is less than the configuration allows.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn promql(
        &self,
        organization: OrganizationId,
        request: PromqlRequest,
        timeout_ms: Option<i64>,
    ) -> PromqlResult<PromqlAnswer> {
        let mut limits = self.shared.promql;
        if let Some(asked) = timeout_ms.and_then(|timeout| u64::try_from(timeout).ok()).filter(|timeout| *timeout > 0) {
            limits.time = limits.time.min(Duration::from_millis(asked));
        }
        let text = first_line(&request.query, MAX_TRACED_TEXT);
        let span = tracing::info_span!("promql", %organization, db.query.text = text);
        self.metrics_engine().await?.promql(organization, request, limits).instrument(span).await
    }

    /// The series that are asked about, and warnings.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn promql_series(
        &self,
        organization: OrganizationId,
        select: LabelSelect,
    ) -> PromqlResult<(BTreeSet<Labels>, Vec<String>)> {
        self.metrics_engine().await?.promql_series(organization, select, self.shared.promql).await
    }

    /// What is known of metrics, by their names.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn promql_metadata(
        &self,
        organization: OrganizationId,
        metric: Option<String>,
        times_ms: (i64, i64),
    ) -> PromqlResult<BTreeMap<String, BTreeSet<MetricMetadata>>> {
        self.metrics_engine().await?.promql_metadata(organization, metric, times_ms, self.shared.promql).await
    }

    /// The exemplars of the series that meet one of `selectors`.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn promql_exemplars(
        &self,
        organization: OrganizationId,
        selectors: Vec<Vec<Matcher>>,
        times_ms: (i64, i64),
    ) -> PromqlResult<Vec<SeriesExemplars>> {
        self.metrics_engine().await?.promql_exemplars(organization, selectors, times_ms, self.shared.promql).await
    }

    async fn metrics_engine(&self) -> PromqlResult<&QueryEngine> {
        self.engine().await.map_err(|error| tidemill_eval::Error::Source {
            what: "metrics".to_owned(),
            kind: error.kind(),
            source: Box::new(error),
        })
    }

    /// The engine, and what one query of it may use at most.
    ///
    /// # Errors
    /// When it cannot be built.
    pub(crate) async fn open_engine(&self) -> Result<(&QueryEngine, QueryLimits)> {
        Ok((self.engine().await?, self.shared.most))
    }

    /// The most lines that a query of LogQL may ask for.
    pub(crate) fn most_lines(&self) -> usize {
        self.shared.most_lines
    }

    async fn engine(&self) -> Result<&QueryEngine> {
        let shared = &self.shared;
        let build = async || {
            QueryEngine::new(shared.metastore.clone(), shared.buckets.clone(), shared.options.clone())
                .map_err(from_query)
        };
        shared.engine.get_or_try_init(build).await
    }

    fn limits(&self, asked: &RequestedLimits) -> Result<QueryLimits> {
        let mut limits = self.shared.most;
        if let Some(ms) = asked.time_ms {
            let time = Duration::from_millis(ms);
            if time.is_zero() || time > limits.time {
                return Err(Error::invalid(format!("limits.time_ms: {ms}; from 1 to {}", limits.time.as_millis())));
            }
            limits.time = time;
        }
        if let Some(bytes) = asked.memory_bytes {
            match usize::try_from(bytes) {
                Ok(bytes) if bytes > 0 && bytes <= limits.memory_bytes => limits.memory_bytes = bytes,
                _ => {
                    return Err(Error::invalid(format!(
                        "limits.memory_bytes: {bytes}; from 1 to {}",
                        limits.memory_bytes
                    )));
                }
            }
        }
        if asked.start_ns.is_some() || asked.end_ns.is_some() {
            let start = asked.start_ns.map_or(TimeRange::ALL.start, TimestampNs);
            let end = asked.end_ns.map_or(TimeRange::ALL.end, TimestampNs);
            if start >= end {
                return Err(Error::invalid(format!("limits: start_ns {} is not before end_ns {}", start.0, end.0)));
            }
            limits.within = Some(TimeRange { start, end });
        }
        Ok(limits)
    }
}

fn options(config: &Config, spill_folder: PathBuf) -> QueryOptions {
    let mut options = QueryOptions::new(spill_folder);
    options.concurrent_queries = config.count("query.concurrency");
    options.footer_cache_bytes = config.bytes("query.cache");
    options.matches_cache_bytes = config.bytes("query.matches_cache");
    options.lines_cache_bytes = config.bytes("query.lines_cache");
    options.streams_cache_bytes = config.bytes("query.streams_cache");
    options.series_cache_bytes = config.bytes("promql.series_cache");
    options.points_cache_bytes = config.bytes("promql.points_cache");
    options.promotion = Promotion::new(config.list("promql.promote"));
    options
}

fn promql_limits(config: &Config) -> PromqlLimits {
    PromqlLimits {
        time: config.duration("query.timeout"),
        bytes: config.bytes("promql.max_bytes"),
        series: config.count("promql.max_series"),
        samples: config.count("promql.max_samples"),
        memory: usize::try_from(config.bytes("promql.memory")).unwrap_or(usize::MAX),
        concurrency: config.count("promql.concurrency"),
        lookback_ms: i64::try_from(config.duration("promql.lookback").as_millis()).unwrap_or(i64::MAX),
    }
}

fn most(config: &Config) -> QueryLimits {
    QueryLimits {
        time: config.duration("query.timeout"),
        memory_bytes: usize::try_from(config.bytes("query.memory")).unwrap_or(usize::MAX),
        ..QueryLimits::default()
    }
}

/// A query's error as the binary reports it.
pub fn from_query(error: tidemill_query::Error) -> Error {
    let kind = error.kind();
    Error::caused(kind, error.to_string(), error)
}
