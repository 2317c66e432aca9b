//! Rows of the lake as record batches, for SQL and for evaluators with a language of their own.
//!
//! Owns: which segments, row groups and rows a request reads. Every index answers a superset; rows are always rechecked. Never
//! answers partially: a live segment that cannot be read fails the scan. Start with [`RowRequest`] and
//! [`QueryEngine::rows`](crate::QueryEngine::rows), the seam for evaluators; SQL comes through `provider`.

mod ahead;
mod blocks;
mod conditions;
mod convert;
mod exec;
mod known_lines;
mod known_rows;
mod open;
mod overflow;
mod pages;
mod provider;
mod prune;
mod repeats;
mod request;
mod row_condition;
mod rows;
mod segment_plan;
mod severity;
mod stored_rows;
mod trace_days;
mod work;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use tidemill_types::{SegmentId, SegmentMeta};

use crate::logql::{CountedGroups, CountedRows, SparedColumns};
use crate::tables::TableColumns;

pub(crate) use convert::{Conversion, OutputColumn, same_texts};
pub(crate) use open::{OpenSegment, SegmentLoader};
pub(crate) use provider::{SegmentTable, SettledTypes, TableContext};
pub use request::{Matcher, MatcherTarget, RowRequest};
pub use row_condition::{Comparison, RowCondition, RowValue};
pub(crate) use stored_rows::stored_rows;
pub(crate) use trace_days::TracePlaces;
pub(crate) use work::TimeOrder;

/// What one scan reads.
#[derive(Debug, Clone)]
pub(crate) struct ScanRequest {
    /// The table with all its columns.
    pub(crate) table: Arc<TableColumns>,
    /// The columns asked for, as places in the table.
    pub(crate) projection: Vec<usize>,
    /// Those columns.
    pub(crate) schema: SchemaRef,
    /// The segments that neither the catalog nor a day index ruled out.
    pub(crate) segments: Arc<Vec<SegmentMeta>>,
    /// Where day indexes know the traces asked for.
    pub(crate) traces: Arc<TracePlaces>,
    /// Row groups that are not read, as their rows are known.
    pub(crate) left_out: Arc<CountedGroups>,
    /// What the reader of log lines can do without.
    pub(crate) spared: SparedColumns,
    /// What every row must match, over the table's columns.
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// The predicate as pruning understands it.
    pub(crate) pruning: Option<Arc<PruningPredicate>>,
    /// Bounds that the plan above tightens while it runs, over the table's columns.
    pub(crate) dynamic: Vec<Arc<dyn PhysicalExpr>>,
    /// Rows wanted, of those that match.
    pub(crate) limit: Option<usize>,
    /// Whether indexes and statistics may rule rows out; the answer is the same without.
    pub(crate) uses_indexes: bool,
    /// Which end of time to begin with.
    pub(crate) order: TimeOrder,
}

impl ScanRequest {
    /// Whether a row group of a segment may have rows that are not known yet.
    pub(crate) fn may_read(&self, meta: &SegmentMeta, group: usize) -> bool {
        let is_left_out = self.left_out.get(&meta.id).is_some_and(|counted| counted.has(group));
        !is_left_out && self.traces.get(&meta.id).is_none_or(|groups| groups.contains(&group))
    }

    /// Leaves out row groups whose rows are known.
    ///
    /// # Errors
    /// `SegmentMissing` when one of their segments is not read: others have its rows.
    pub(crate) fn leave_out(&mut self, groups: &CountedGroups) -> crate::Result<()> {
        let read: HashSet<SegmentId> = self.segments.iter().map(|meta| meta.id).collect();
        if let Some(missing) = groups.keys().find(|id| !read.contains(id)) {
            return Err(crate::Error::SegmentMissing { bucket: "catalog".to_owned(), object_key: missing.to_string() });
        }
        let is_open = |meta: &&SegmentMeta| !matches!(groups.get(&meta.id), Some(CountedRows::All));
        self.segments = Arc::new(self.segments.iter().filter(is_open).cloned().collect());
        self.left_out = Arc::new(groups.clone());
        Ok(())
    }

    /// Whether a day index told which row groups of a segment have the traces asked for.
    pub(crate) fn is_told(&self, meta: &SegmentMeta) -> bool {
        self.traces.contains_key(&meta.id)
    }

    /// The columns asked for, as they are to be read of one segment.
    pub(crate) fn output_columns(&self, open: &OpenSegment) -> Vec<OutputColumn> {
        let places = self.projection.iter();
        places.map(|place| self.spared.column(self.table.columns[*place].clone(), open)).collect()
    }
}
