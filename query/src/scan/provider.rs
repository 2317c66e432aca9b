//! A table of one organization, as DataFusion sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt};
use datafusion::physical_plan::ExecutionPlan;
use futures::stream::TryStreamExt;
use parking_lot::Mutex;
use tidemill_plan::prune::SegmentQuery;
use tidemill_segment::read::AttributeType;
use tidemill_types::{OrganizationId, SegmentMeta, Signal, Tier, TimeRange};

use super::ScanRequest;
use super::exec::SegmentScan;
use super::open::SegmentLoader;
use super::prune::{TimeStatistics, kept, pruning_predicate, services, time_range};
use super::trace_days::find_traces;
use super::work::TimeOrder;
use crate::Error;
use crate::attributes::{AttributeKey, KnownAttributes};
use crate::catalog::LiveCatalog;
use crate::logql::SparedColumns;
use crate::stats::{Counter, StatsHandle};
use crate::tables::{LogicalColumn, TableColumns};

/// Footers read to learn the types of attributes before a query starts; older segments are checked as they are read.
const TYPED_SEGMENTS: usize = 1_024;

/// What the tables of one query share.
#[derive(Debug, Clone)]
pub(crate) struct TableContext {
    pub(crate) organization: OrganizationId,
    pub(crate) catalog: Arc<LiveCatalog>,
    pub(crate) loader: Arc<SegmentLoader>,
    pub(crate) stats: StatsHandle,
    /// Whether anything may be ruled out unread.
    pub(crate) uses_indexes: bool,
    /// Rows of other times do not exist for this query.
    pub(crate) within: Option<TimeRange>,
    /// Whether an attribute that does not occur is worth a warning: evaluators also ask where a name is only one of several meanings.
    pub(crate) tells_of_unknown_attributes: bool,
    /// What earlier plans of this query found out; types only widen, so replanning ends.
    pub(crate) settled: Arc<Mutex<SettledTypes>>,
}

/// Types of attributes that segments have confirmed for this query.
pub(crate) type SettledTypes = BTreeMap<(Signal, AttributeKey), AttributeType>;

/// One table of one organization, with the attribute columns of one query.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    context: TableContext,
    columns: Arc<TableColumns>,
}

impl SegmentTable {
    pub(crate) fn new(context: TableContext, signal: Signal, attributes: &[(AttributeKey, AttributeType)]) -> Self {
        Self { context, columns: Arc::new(TableColumns::new(signal, attributes)) }
    }

    /// Plans a scan whose filters are already physical.
    pub(crate) async fn plan(
        &self,
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> crate::Result<ScanRequest> {
        let within = self.context.within.map(|within| inside(within, &self.columns.schema)).transpose()?;
        let predicate = conjunction_opt(within.into_iter().chain(predicate));
        let ruling = predicate.as_ref().filter(|_| self.context.uses_indexes);
        let pruning = ruling.and_then(|predicate| pruning_predicate(predicate, &self.columns.schema));
        let query = SegmentQuery {
            signal: self.columns.signal,
            tier: Tier::RAW,
            time: ruling.map_or(TimeRange::ALL, time_range),
            services: pruning.as_ref().and_then(|pruning| services(pruning)),
        };
        self.warn_of_retention(query.time);
        let plan = self.context.catalog.plan(self.context.organization, &query);
        let mut segments = plan.segments;
        if let Some(pruning) = &pruning {
            let keep = pruning.prune(&TimeStatistics::of_segments(&segments));
            segments = kept(segments, keep);
        }
        self.context.stats.add(Counter::SegmentsConsidered, plan.considered as u64);
        self.context.stats.add(Counter::SegmentsPruned, (plan.considered - segments.len()) as u64);
        self.context.stats.add(Counter::BytesConsidered, plan.considered_bytes);
        let (segments, traces) = find_traces(&self.context, self.columns.signal, pruning.as_deref(), segments).await;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.columns.columns.len()).collect());
        let compared = predicate.iter().flat_map(collect_columns).map(|column| column.index());
        let used: BTreeSet<usize> = projection.iter().copied().chain(compared).collect();
        self.settle_types(&segments, &used, !traces.is_empty()).await?;
        let schema: SchemaRef =
            Arc::new(self.columns.schema.project(&projection).map_err(datafusion::error::DataFusionError::from)?);
        Ok(ScanRequest {
            table: Arc::clone(&self.columns),
            projection,
            schema,
            segments: Arc::new(segments),
            traces: Arc::new(traces),
            left_out: Arc::default(),
            spared: SparedColumns::default(),
            predicate,
            pruning,
            dynamic: Vec::new(),
            limit,
            uses_indexes: self.context.uses_indexes,
            order: TimeOrder::NewestFirst,
        })
    }

    /// Says that rows asked for may be gone. A statement without a first time asks for what there is.
    fn warn_of_retention(&self, time: TimeRange) {
        let signal = self.columns.signal;
        let Some(first_day) = self.context.catalog.first_kept_day(self.context.organization, signal) else { return };
        let kept_from = first_day.range().start;
        if time.start != TimeRange::ALL.start && time.start < kept_from {
            let table = signal.table();
            self.context.stats.warn(format!("{table} before {first_day} are past their retention and may be gone"));
        }
    }

    /// What its rows are.
    pub(crate) fn signal(&self) -> Signal {
        self.columns.signal
    }

    /// Every column that a predicate may name.
    pub(crate) fn all_columns(&self) -> SchemaRef {
        Arc::clone(&self.columns.schema)
    }

    /// The place of a column.
    pub(crate) fn place(&self, name: &str) -> crate::Result<usize> {
        let table = self.columns.signal.table();
        self.columns
            .schema
            .index_of(name)
            .map_err(|_| Error::statement(format!("table {table} has no column {name:?}")))
    }

    /// The plan's node for a request.
    pub(crate) fn scan_of(&self, request: ScanRequest, most_partitions: usize) -> Arc<dyn ExecutionPlan> {
        let loader = Arc::clone(&self.context.loader);
        Arc::new(SegmentScan::new(request, loader, self.context.stats.clone(), most_partitions))
    }

    /// Checks that the attribute columns in use have the types that the segments' footers tell. `is_part` says that segments of the
    /// same time were left out, so that an attribute may well occur.
    async fn settle_types(&self, segments: &[SegmentMeta], used: &BTreeSet<usize>, is_part: bool) -> crate::Result<()> {
        let wanted: Vec<(&AttributeKey, AttributeType)> = used
            .iter()
            .filter_map(|place| match &self.columns.columns[*place] {
                LogicalColumn::Attribute(key, kind) => Some((key, *kind)),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut known = KnownAttributes::default();
        let looked_at = segments[..segments.len().min(TYPED_SEGMENTS)].to_vec();
        let is_complete = looked_at.len() == segments.len();
        let mut footers = self.context.loader.open_all(looked_at, &self.context.stats);
        while let Some(open) = footers.try_next().await? {
            known.add(&open.footer);
        }
        let signal = self.columns.signal;
        self.context.catalog.learn(self.context.organization, signal, &known);
        let is_complete = is_complete && !is_part && !known.is_partial;
        let mut settled = self.context.settled.lock();
        let mut changed = Vec::new();
        for (key, planned) in wanted {
            let found = known.get(key);
            if found.is_none() && is_complete && self.context.tells_of_unknown_attributes {
                self.context.stats.warn(unknown_attribute(signal, key, &known));
            }
            let Some(kind) = found.and_then(|found| found.kind) else { continue };
            let entry = settled.entry((signal, key.clone())).or_insert(kind);
            *entry = crate::attributes::join_types(*entry, kind);
            if *entry != planned {
                changed.push((key.clone(), *entry));
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(Error::AttributeTypes { signal, types: changed }) }
    }
}

/// `time` is in `range`.
fn inside(range: TimeRange, schema: &SchemaRef) -> crate::Result<Arc<dyn PhysicalExpr>> {
    let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema("time", schema)?);
    let at = |at: i64| -> Arc<dyn PhysicalExpr> {
        Arc::new(Literal::new(ScalarValue::TimestampNanosecond(Some(at), Some("UTC".into()))))
    };
    let from: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(Arc::clone(&time), Operator::GtEq, at(range.start.0)));
    let until: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(time, Operator::Lt, at(range.end.0)));
    Ok(Arc::new(BinaryExpr::new(from, Operator::And, until)))
}

fn unknown_attribute(signal: Signal, key: &AttributeKey, known: &KnownAttributes) -> String {
    let name = key.column_name();
    let table = signal.table();
    let nearest: Vec<String> = known.nearest(key).into_iter().map(AttributeKey::column_name).collect();
    let hint = if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) };
    format!("{name} does not occur in the {table} of this time range, so it is null everywhere{hint}")
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Every row is checked against every filter while it is read.
        Ok(filters
            .iter()
            .map(|filter| {
                if filter.is_volatile() {
                    TableProviderFilterPushDown::Unsupported
                } else {
                    TableProviderFilterPushDown::Exact
                }
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = DFSchema::try_from(Arc::clone(&self.columns.schema))?;
        let filters = filters.iter().map(|filter| state.create_physical_expr(filter.clone(), &schema));
        let predicate = conjunction_opt(filters.collect::<Result<Vec<_>>>()?);
        let request = self.plan(projection, predicate, limit).await?;
        Ok(self.scan_of(request, state.config().target_partitions()))
    }
}
