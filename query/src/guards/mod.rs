//! Keeps a plan within its limits where DataFusion 55 does not.
//!
//! - A `NestedLoopJoinExec` whose left side outgrows its memory executes that side again to spill it. Beneath may be a node that
//!   runs once only, which panics; and where the right side has several partitions, LEFT, SEMI, ANTI and MARK joins then give rows
//!   twice (its own comment: "similar latent issue in the fallback path"). [`Once`] refuses the second execution, as what it is: too
//!   little memory.
//! - A `WindowAggExec` holds all rows of its input and asks no memory pool for them. [`Held`] asks in its place.
//! - A join compares a batch of one side with all of the other before it gives way, so that nothing could end it: neither its time
//!   limit nor a reader who left. Its condition looks for both before each batch of pairs ([`WatchedCondition`]), and the batches
//!   that it gives count as work after which others have their turn.

mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

pub(crate) use self::watch::Watch;
use self::watch::WatchedCondition;

const RECOMPUTE: ReplaceChildrenOptions = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
/// Rows are held as they came, and joined into one batch when all are there.
const COPIES: usize = 2;

/// `plan` with a guard at every node that needs one.
pub(crate) fn guard(plan: Arc<dyn ExecutionPlan>, watch: &Watch) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        let guarded: Arc<dyn ExecutionPlan> = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            gives_way(nested_loop_join(join, watch)?)
        } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            let filter = join.filter().map(|filter| WatchedCondition::over(filter, watch));
            gives_way(join.builder().with_filter(filter).build_exec()?)
        } else if node.is::<CrossJoinExec>() {
            gives_way(node)
        } else if let ([input], true) = (node.children().as_slice(), node.is::<WindowAggExec>()) {
            let held = Arc::new(Held { input: Arc::clone(input) });
            node.replace_children(vec![held], RECOMPUTE)?
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(guarded))
    });
    Ok(guarded?.data)
}

fn nested_loop_join(join: &NestedLoopJoinExec, watch: &Watch) -> Result<Arc<dyn ExecutionPlan>> {
    let filter = join.filter().map(|filter| WatchedCondition::over(filter, watch));
    let guarded = NestedLoopJoinExecBuilder::new(Once::over(join.left()), Arc::clone(join.right()), *join.join_type())
        .with_projection_ref(join.projection().clone())
        .with_filter(filter);
    Ok(Arc::new(guarded.build()?))
}

/// A node may give many batches for one of its inputs: it counts its own.
fn gives_way(node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CooperativeExec::new(node))
}

/// Gives its input's rows, once.
#[derive(Debug)]
struct Once {
    input: Arc<dyn ExecutionPlan>,
    is_executed: AtomicBool,
}

impl Once {
    fn over(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input: Arc::clone(input), is_executed: AtomicBool::new(false) })
    }
}

/// Gives its input's rows while there is memory for all of them.
#[derive(Debug)]
struct Held {
    input: Arc<dyn ExecutionPlan>,
}

/// What both have of a node with one input, whose rows it does not change.
macro_rules! passes_through {
    ($name:literal, $with:expr) => {
        fn name(&self) -> &str {
            $name
        }

        fn properties(&self) -> &Arc<PlanProperties> {
            self.input.properties()
        }

        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![&self.input]
        }

        fn maintains_input_order(&self) -> Vec<bool> {
            vec![true]
        }

        fn replace_children(
            self: Arc<Self>,
            children: Vec<Arc<dyn ExecutionPlan>>,
            _: ReplaceChildrenOptions,
        ) -> Result<Arc<dyn ExecutionPlan>> {
            let with: fn(&Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> = $with;
            Ok(with(children.first().unwrap_or(&self.input)))
        }

        fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
            self.replace_children(children, RECOMPUTE)
        }

        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
        ) -> Result<TreeNodeRecursion> {
            Ok(TreeNodeRecursion::Continue)
        }
    };
}

impl ExecutionPlan for Once {
    passes_through!("Once", |input| Once::over(input));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.is_executed.swap(true, Ordering::SeqCst) {
            let problem = "one side of a join without equality has to fit into memory, and does not";
            return Err(DataFusionError::ResourcesExhausted(problem.to_owned()));
        }
        self.input.execute(partition, context)
    }
}

impl ExecutionPlan for Held {
    passes_through!("Held", |input| Arc::new(Held { input: Arc::clone(input) }));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // Given back with the stream, which the node above keeps until its last row is out.
        let reservation = MemoryConsumer::new("rows of a window").register(context.memory_pool());
        let rows = self.input.execute(partition, context)?.and_then(move |batch| {
            let asked = reservation.try_grow(batch.get_array_memory_size().saturating_mul(COPIES));
            std::future::ready(asked.map(|()| batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

impl DisplayAs for Once {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl DisplayAs for Held {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}
