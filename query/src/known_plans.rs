//! Optimized plans of statements, in memory: a dashboard asks the same ones again and again, and most of a small query is its planning.
//!
//! A plan follows from the statement, its attributes' types and the functions, and from nothing that changes: statements with a function that
//! may answer otherwise another time, as `now()`, are planned every time. Tables are put in anew for each query.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::plan_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};
use moka::sync::Cache;
use tidemill_segment::read::AttributeType;
use tidemill_types::Signal;

use crate::attributes::AttributeKey;
use crate::scan::SegmentTable;

/// Plans that are kept.
const MOST_PLANS: u64 = 256;
/// Longer statements are planned every time.
const LONGEST_STATEMENT_BYTES: usize = 16 << 10;

/// A statement with the types that its attributes have.
pub(crate) type PlanKey = (Arc<str>, Vec<(Signal, Vec<(AttributeKey, AttributeType)>)>);

/// The tables of a query.
pub(crate) type Tables = BTreeMap<Signal, Arc<dyn TableProvider>>;

/// Plans by their statements.
#[derive(Debug)]
pub(crate) struct KnownPlans(Cache<PlanKey, Arc<LogicalPlan>>);

impl Default for KnownPlans {
    fn default() -> Self {
        Self(Cache::new(MOST_PLANS))
    }
}

impl KnownPlans {
    /// The optimized plan of a statement over these tables.
    ///
    /// # Errors
    /// A table is missing that the statement reads.
    pub(crate) fn get(&self, key: &PlanKey, tables: &Tables) -> Result<Option<LogicalPlan>> {
        self.0.get(key).map(|plan| with_tables(&plan, tables)).transpose()
    }

    /// Keeps the optimized plan of a statement, where `planned`, as it was before, says the same every time.
    ///
    /// # Errors
    /// Those of walking a plan.
    pub(crate) fn keep(&self, key: PlanKey, planned: &LogicalPlan, optimized: &LogicalPlan) -> Result<()> {
        if key.0.len() <= LONGEST_STATEMENT_BYTES && lasts(planned)? {
            self.0.insert(key, Arc::new(optimized.clone()));
        }
        Ok(())
    }
}

/// Whether every part of a plan means the same every time.
fn lasts(plan: &LogicalPlan) -> Result<bool> {
    let mut lasts = !matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                lasts &= match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::ScalarVariable(..) | Expr::Placeholder(_) => false,
                    _ => true,
                };
                Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    })?;
    Ok(lasts)
}

/// A plan with other tables.
fn with_tables(plan: &LogicalPlan, tables: &Tables) -> Result<LogicalPlan> {
    let replaced = plan.clone().transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        // Rows that stand in the statement stay as they are.
        let own = source_as_provider(&scan.source)?;
        let Some(own) = own.downcast_ref::<SegmentTable>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let table = tables.get(&own.signal()).map(Arc::clone);
        let table = table.ok_or_else(|| plan_datafusion_err!("no table {}", own.signal().table()))?;
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source: provider_as_source(table), ..scan })))
    });
    Ok(replaced?.data)
}
