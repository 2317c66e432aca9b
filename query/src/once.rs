//! Keeps joins without equality from a way out of memory that DataFusion 55 does not have right.
//!
//! When the left side of a `NestedLoopJoinExec` outgrows its memory, the join executes that side again to spill it. Beneath may be a
//! node that runs once only, which panics; and where the right side has several partitions, LEFT, SEMI, ANTI and MARK joins then
//! give rows twice (its own comment: "similar latent issue in the fallback path"). So the second execution is refused, as what it
//! is: too little memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

const RECOMPUTE: ReplaceChildrenOptions = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);

/// `plan` with the left side of every join without equality executable once.
pub(crate) fn guard_joins(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        if !node.is::<NestedLoopJoinExec>() {
            return Ok(Transformed::no(node));
        }
        let children = node.children();
        let [left, right] = children.as_slice() else { return Ok(Transformed::no(node)) };
        let children = vec![Once::over(left), Arc::clone(right)];
        Ok(Transformed::yes(node.replace_children(children, RECOMPUTE)?))
    });
    Ok(guarded?.data)
}

/// A node that gives its input's rows, once.
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

impl DisplayAs for Once {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl ExecutionPlan for Once {
    fn name(&self) -> &str {
        "Once"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(children.first().map_or_else(|| Self::over(&self.input), Self::over))
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.is_executed.swap(true, Ordering::SeqCst) {
            let problem = "one side of a join without equality has to fit into memory, and does not";
            return Err(DataFusionError::ResourcesExhausted(problem.to_owned()));
        }
        self.input.execute(partition, context)
    }
}
