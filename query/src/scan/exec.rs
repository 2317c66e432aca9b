//! The scan as a node of a physical plan.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, config::ConfigOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;
use tidemill_types::Signal;

use super::ScanRequest;
use super::open::SegmentLoader;
use super::rows::ScanRun;
use super::work::TimeOrder;
use crate::stats::StatsHandle;

/// A row group's worth of rows keeps one partition busy.
const ROWS_PER_PARTITION: u64 = 64 << 10;

/// Reads the rows of one table.
pub(crate) struct SegmentScan {
    request: Arc<ScanRequest>,
    loader: Arc<SegmentLoader>,
    stats: StatsHandle,
    properties: Arc<PlanProperties>,
    run: OnceLock<Arc<ScanRun>>,
}

impl SegmentScan {
    pub(crate) fn new(
        request: ScanRequest,
        loader: Arc<SegmentLoader>,
        stats: StatsHandle,
        most_partitions: usize,
    ) -> Self {
        let rows: u64 = request.segments.iter().map(|meta| meta.rows).sum();
        let useful = usize::try_from(rows.div_ceil(ROWS_PER_PARTITION)).unwrap_or(usize::MAX);
        let partitions = useful.clamp(1, most_partitions.max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&request.schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { request: Arc::new(request), loader, stats, properties: Arc::new(properties), run: OnceLock::new() }
    }

    fn with_request(&self, request: ScanRequest) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self {
            request: Arc::new(request),
            loader: Arc::clone(&self.loader),
            stats: self.stats.clone(),
            properties: Arc::clone(&self.properties),
            run: OnceLock::new(),
        })
    }
}

impl fmt::Debug for SegmentScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentScan").field("request", &self.request).finish_non_exhaustive()
    }
}

impl DisplayAs for SegmentScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        write!(f, "SegmentScan: table={}, segments={}", request.table.signal.table(), request.segments.len())?;
        let names: Vec<&str> = request.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", names.join(", "))?;
        if let Some(predicate) = &request.predicate {
            write!(f, ", predicate={predicate}")?;
        }
        if let Some(limit) = request.limit {
            write!(f, ", limit={limit}")?;
        }
        if request.order == TimeOrder::OldestFirst {
            f.write_str(", oldest first")?;
        }
        if !request.dynamic.is_empty() {
            f.write_str(", bounded by the plan above")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SegmentScan {
    fn name(&self) -> &str {
        "SegmentScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_request(ScanRequest::clone(&self.request)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.request.predicate.iter().chain(&self.request.dynamic) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = self.run.get_or_init(|| {
            ScanRun::new(Arc::clone(&self.request), Arc::clone(&self.loader), self.stats.clone(), &context)
        });
        let rows = Arc::clone(run).rows().map_err(DataFusionError::from);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.request.schema), rows)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.request.schema);
        if args.partition().is_none() {
            let rows: u64 = self.request.segments.iter().map(|meta| meta.rows).sum();
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            // The catalog's counts are exact, but metrics drop repeated samples while reading.
            let is_exact = self.request.predicate.is_none()
                && self.request.limit.is_none()
                && self.request.dynamic.is_empty()
                && self.request.table.signal != Signal::Metrics;
            statistics.num_rows = if is_exact { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        }
        Ok(Arc::new(statistics))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut request = ScanRequest::clone(&self.request);
        let mut has_more = false;
        for pushed in &result.parent_filters {
            let is_dynamic = DynamicFilterTracking::classify(&pushed.filter).contains_dynamic_filter();
            if is_dynamic && let Ok(filter) = reassign_expr_columns(Arc::clone(&pushed.filter), &request.table.schema) {
                request.dynamic.push(filter);
                has_more = true;
            }
        }
        // Whoever pushed them down checks them again; here they only spare work.
        let answer =
            FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; result.parent_filters.len()]);
        Ok(if has_more { answer.with_updated_node(self.with_request(request)) } else { answer })
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let first = order.first();
        let is_time = first.and_then(|sort| sort.expr.downcast_ref::<Column>()).is_some_and(|column| {
            let field = self.request.schema.field(column.index());
            field.name() == "time" && matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _))
        });
        let Some(first) = first.filter(|_| is_time) else { return Ok(SortOrderPushdownResult::Unsupported) };
        let order = if first.options.descending { TimeOrder::NewestFirst } else { TimeOrder::OldestFirst };
        let inner = self.with_request(ScanRequest { order, ..ScanRequest::clone(&self.request) });
        Ok(SortOrderPushdownResult::Inexact { inner })
    }
}
