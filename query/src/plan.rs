//! From checked work to its first batch, planned anew where the data disagrees with the plan.
//!
//! A plan needs the types of attributes before it is known which segments it reads. It begins with the types seen last, the scans
//! check them against the footers of the segments that they chose, and on a difference the work is planned again with the right ones.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DFSchema;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SQLOptions;
use parking_lot::Mutex;
use tidemill_segment::read::AttributeType;
use tidemill_types::{OrganizationId, Signal};

use crate::attributes::{AttributeKey, join_types};
use crate::catalog::LiveCatalog;
use crate::guards::{Watch, guard};
use crate::known_plans::{KnownPlans, Tables};
use crate::logql::{LineScan, StreamTables};
use crate::promql::{KeptFloats, SeriesTables};
use crate::run::next_batch;
use crate::scan::{RowRequest, SegmentLoader, SegmentTable, SettledTypes, TableContext};
use crate::session::{new_session, task_context};
use crate::statement::QueryStatement;
use crate::stats::StatsHandle;
use crate::{Error, QueryLimits, QueryOptions, Result};

/// Types widen at most twice an attribute and a segment vanishes at most once; more replans are a fault of ours.
const MOST_PLANS: usize = 16;

/// What all queries of an engine share.
pub(crate) struct Parts {
    pub(crate) catalog: Arc<LiveCatalog>,
    pub(crate) loader: Arc<SegmentLoader>,
    pub(crate) base: SessionState,
    pub(crate) series: SeriesTables,
    pub(crate) floats: KeptFloats,
    pub(crate) streams: StreamTables,
    pub(crate) plans: KnownPlans,
    pub(crate) options: QueryOptions,
}

/// What is to be answered.
pub(crate) enum Work {
    /// A checked statement.
    Statement(QueryStatement),
    /// An evaluator's rows.
    Rows(RowRequest),
    /// Log records that LogQL asks for.
    Lines(LineScan),
}

/// One piece of work of one organization on its way to rows.
pub(crate) struct Plan {
    pub(crate) parts: Arc<Parts>,
    pub(crate) organization: OrganizationId,
    pub(crate) work: Work,
    pub(crate) limits: QueryLimits,
    pub(crate) watch: Watch,
    pub(crate) stats: StatsHandle,
}

/// Planned work whose first batch is there.
pub(crate) struct Started {
    pub(crate) schema: SchemaRef,
    pub(crate) first: Option<RecordBatch>,
    pub(crate) rest: Option<SendableRecordBatchStream>,
}

impl Started {
    /// An answer that is there already.
    pub(crate) fn ready(batch: RecordBatch, stats: &StatsHandle) -> Self {
        stats.planned();
        Self { schema: batch.schema(), first: Some(batch), rest: None }
    }
}

/// The session of a plan, and the plan.
type Planned<'a> = (Cow<'a, SessionState>, Arc<dyn ExecutionPlan>);

/// The attributes of a table that a query names, with the types that are assumed.
type TypedAttributes = Vec<(AttributeKey, AttributeType)>;

/// What is assumed of the types of attributes.
struct Types {
    settled: Arc<Mutex<SettledTypes>>,
    /// For attributes that no segment has told of.
    fallback: AttributeType,
}

impl Plan {
    /// Plans until the data agrees with the plan, and waits for the first batch.
    pub(crate) async fn start(self) -> Result<Started> {
        self.parts.catalog.refresh().await?;
        let mut types = Types { settled: Arc::default(), fallback: AttributeType::String };
        let mut has_refreshed = false;
        for _ in 0..MOST_PLANS {
            self.stats.restart();
            match self.attempt(&types).await {
                Err(Error::AttributeTypes { signal, types: wider }) => {
                    let mut settled = types.settled.lock();
                    for (key, kind) in wider {
                        let entry = settled.entry((signal, key)).or_insert(kind);
                        *entry = join_types(*entry, kind);
                    }
                }
                // Compaction replaced it, or retention removed it, since the catalog was read.
                Err(Error::SegmentMissing { .. }) if !has_refreshed => {
                    has_refreshed = true;
                    self.parts.catalog.refresh().await?;
                }
                // Text does not fit where the statement needs a number, and no segment has told the type yet.
                Err(Error::Engine(_)) if types.fallback == AttributeType::String && self.has_guesses(&types) => {
                    types.fallback = AttributeType::Double;
                }
                other => return other,
            }
        }
        Err(Error::statement("the types of its attributes did not settle; name them with CAST"))
    }

    fn tables(&self) -> BTreeSet<Signal> {
        match &self.work {
            Work::Statement(statement) => statement.tables.clone(),
            Work::Rows(request) => BTreeSet::from([request.signal]),
            Work::Lines(_) => BTreeSet::from([Signal::Logs]),
        }
    }

    fn attributes(&self) -> Vec<AttributeKey> {
        match &self.work {
            Work::Statement(statement) => statement.attributes.iter().cloned().collect(),
            Work::Rows(request) => request.named_attributes(),
            Work::Lines(scan) => scan.named_attributes(),
        }
    }

    fn has_guesses(&self, types: &Types) -> bool {
        let settled = types.settled.lock();
        let attributes = self.attributes();
        self.tables().iter().any(|signal| attributes.iter().any(|key| !settled.contains_key(&(*signal, key.clone()))))
    }

    async fn attempt(&self, types: &Types) -> Result<Started> {
        let (session, physical) = match &self.work {
            Work::Statement(statement) => self.plan_statement(statement, types).await?,
            Work::Rows(request) => self.plan_rows(request, types).await?,
            Work::Lines(scan) => self.plan_lines(scan, types).await?,
        };
        self.stats.planned();
        let schema = physical.schema();
        let task = task_context(&session, &physical, &self.parts.options, &self.limits)?;
        let mut rows = execute_stream(physical, task)?;
        match next_batch(&mut rows, self.watch.deadline, self.limits.time).await {
            None => Ok(Started { schema, first: None, rest: None }),
            Some(first) => Ok(Started { schema, first: Some(first?), rest: Some(rows) }),
        }
    }

    async fn plan_statement(&self, statement: &QueryStatement, types: &Types) -> Result<Planned<'_>> {
        // Asked for once: what other queries learn meanwhile may not come between a plan and its tables.
        let attributes: Vec<(Signal, TypedAttributes)> =
            statement.tables.iter().map(|signal| (*signal, self.typed_attributes(*signal, types))).collect();
        let table_of = |(signal, attributes): &(Signal, TypedAttributes)| -> (Signal, Arc<dyn TableProvider>) {
            (*signal, Arc::new(self.table(*signal, attributes, types)))
        };
        let tables: Tables = attributes.iter().map(table_of).collect();
        let key = (Arc::clone(&statement.text), attributes);
        let base = &self.parts.base;
        let (state, logical) = match self.parts.plans.get(&key, &tables)? {
            Some(known) => (Cow::Borrowed(base), known),
            None => {
                let named = tables.into_iter().map(|(signal, table)| (signal.table(), table));
                let state = new_session(base, named)?;
                let planned = state.statement_to_plan(statement.parsed.clone()).await?;
                let only_reads =
                    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
                only_reads.verify_plan(&planned)?;
                let optimized = state.optimize(&planned)?;
                self.parts.plans.keep(key, &planned, &optimized)?;
                (Cow::Owned(state), optimized)
            }
        };
        let physical = guard(state.query_planner().create_physical_plan(&logical, state.as_ref()).await?, &self.watch)?;
        Ok((state, physical))
    }

    async fn plan_rows(&self, request: &RowRequest, types: &Types) -> Result<Planned<'_>> {
        let attributes = self.typed_attributes(request.signal, types);
        let table = self.table(request.signal, &attributes, types);
        let names = request.columns.iter().cloned().chain(request.attributes.iter().map(AttributeKey::column_name));
        let projection: Vec<usize> = names.map(|name| table.place(&name)).collect::<Result<_>>()?;
        let predicate = request.predicate(|key| type_of(key, &attributes, types));
        let schema = DFSchema::try_from(table.all_columns())?;
        let predicate = self.parts.base.create_physical_expr(predicate, &schema)?;
        let scan = table.plan(Some(&projection), Some(predicate), request.limit).await?;
        Ok((Cow::Borrowed(&self.parts.base), table.scan_of(scan, self.parts.options.threads)))
    }

    async fn plan_lines(&self, scan: &LineScan, types: &Types) -> Result<Planned<'_>> {
        let attributes = self.typed_attributes(Signal::Logs, types);
        let table = self.table(Signal::Logs, &attributes, types);
        let projection: Vec<usize> = scan.columns.iter().map(|name| table.place(name)).collect::<Result<_>>()?;
        let predicate = scan.predicate(|key| type_of(key, &attributes, types));
        let schema = DFSchema::try_from(table.all_columns())?;
        let predicate = self.parts.base.create_physical_expr(predicate, &schema)?;
        let mut request = table.plan(Some(&projection), Some(predicate), None).await?;
        request.leave_out(&scan.counted)?;
        request.spared.clone_from(&scan.spared);
        Ok((Cow::Borrowed(&self.parts.base), table.scan_of(request, self.parts.options.threads)))
    }

    fn typed_attributes(&self, signal: Signal, types: &Types) -> TypedAttributes {
        let typed = |key: AttributeKey| {
            let kind = self.assumed(signal, &key, types);
            (key, kind)
        };
        self.attributes().into_iter().map(typed).collect()
    }

    fn table(&self, signal: Signal, attributes: &TypedAttributes, types: &Types) -> SegmentTable {
        let context = TableContext {
            organization: self.organization,
            catalog: Arc::clone(&self.parts.catalog),
            loader: Arc::clone(&self.parts.loader),
            stats: self.stats.clone(),
            uses_indexes: self.parts.options.uses_indexes,
            within: self.limits.within,
            tells_of_unknown_attributes: matches!(self.work, Work::Statement(_)),
            settled: Arc::clone(&types.settled),
        };
        SegmentTable::new(context, signal, attributes)
    }

    fn assumed(&self, signal: Signal, key: &AttributeKey, types: &Types) -> AttributeType {
        let settled = types.settled.lock().get(&(signal, key.clone())).copied();
        settled.or_else(|| self.parts.catalog.known_type(self.organization, signal, key)).unwrap_or(types.fallback)
    }
}

fn type_of(key: &AttributeKey, attributes: &TypedAttributes, types: &Types) -> AttributeType {
    attributes.iter().find(|(own, _)| own == key).map_or(types.fallback, |(_, kind)| *kind)
}
