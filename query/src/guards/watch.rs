//! Conditions of joins that end with their query.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::utils::JoinFilter;
use tokio::time::Instant;

use crate::Error;

/// Until when a query may work, and whether anybody still waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) deadline: Instant,
    /// The time that it had in all, for its error.
    pub(crate) limit: Duration,
    /// Gone with whoever reads the answer.
    pub(crate) reader: Weak<()>,
}

impl Watch {
    /// Fails when the query is over.
    pub(super) fn check(&self) -> std::result::Result<(), Error> {
        if self.reader.strong_count() == 0 {
            return Err(Error::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(Error::TimeLimit { limit: self.limit });
        }
        Ok(())
    }
}

/// The condition of a join, which looks before each batch of pairs whether the query is over.
#[derive(Debug)]
pub(super) struct WatchedCondition {
    condition: Arc<dyn PhysicalExpr>,
    watch: Watch,
}

impl WatchedCondition {
    pub(super) fn over(filter: &JoinFilter, watch: &Watch) -> JoinFilter {
        let condition = Arc::new(Self { condition: Arc::clone(filter.expression()), watch: watch.clone() });
        JoinFilter::new(condition, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    }
}

impl PhysicalExpr for WatchedCondition {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.watch.check()?;
        self.condition.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.condition));
        Ok(Arc::new(Self { condition, watch: self.watch.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

impl fmt::Display for WatchedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PartialEq for WatchedCondition {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for WatchedCondition {}

impl Hash for WatchedCondition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_over_at_its_deadline_or_without_a_reader() {
        let reader = Arc::new(());
        let limit = Duration::from_secs(60);
        let watch = Watch { deadline: Instant::now() + limit, limit, reader: Arc::downgrade(&reader) };
        assert!(watch.check().is_ok());
        let late = Watch { deadline: Instant::now(), ..watch.clone() };
        assert!(matches!(late.check(), Err(Error::TimeLimit { limit: told }) if told == limit));
        drop(reader);
        assert!(matches!(watch.check(), Err(Error::Cancelled)));
    }
}
