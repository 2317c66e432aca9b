//! How a scan reads one segment: by which conditions, into which columns. It is the same for all row groups of the segment.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, conjunction, reassign_expr_columns, split_conjunction};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, RowFilter};
use tidemill_types::TimeRange;

use super::ScanRequest;
use super::convert::Conversion;
use super::open::{KEPT_COLUMN_BYTES, OpenSegment};
use super::prune::time_bound;
use crate::tables::LogicalColumn;
use crate::{Error, Result};

/// Short columns of a segment's row groups are fetched together up to this size.
const TOGETHER_BYTES: u64 = 4 << 20;

/// Where the first failure of a reader goes, in our own words.
pub(super) type Failure = Arc<Mutex<Option<Error>>>;

/// The conditions and columns of a scan, for one segment.
#[derive(Debug)]
pub(super) struct SegmentPlan {
    pub(super) open: Arc<OpenSegment>,
    /// Into the columns asked for.
    pub(super) conversion: Arc<Conversion>,
    /// Conditions, cheap columns before long ones.
    matchers: Vec<Matcher>,
    /// The leaves that any of them reads.
    pub(super) leaves: Vec<usize>,
}

impl SegmentPlan {
    pub(super) fn new(open: Arc<OpenSegment>, request: &ScanRequest) -> Result<Self> {
        let conversion = Conversion::of_outputs(&open, &request.output_columns(&open), Arc::clone(&request.schema));
        let stages = stages(request, open.meta.time).into_iter();
        let matchers = stages.map(|stage| Matcher::new(&open, request, stage)).collect::<Result<Vec<_>>>()?;
        let masks: Vec<&ProjectionMask> =
            matchers.iter().map(|matcher| &matcher.conversion.mask).chain([&conversion.mask]).collect();
        let all = 0..open.reader.parquet_schema().num_columns();
        let leaves = all.filter(|leaf| masks.iter().any(|mask| mask.leaf_included(*leaf))).collect();
        Ok(Self { conversion: Arc::new(conversion), matchers, leaves, open })
    }

    /// Whether every row matches.
    pub(super) fn has_conditions(&self) -> bool {
        !self.matchers.is_empty()
    }

    /// The conditions for the reader of one row group.
    pub(super) fn row_filter(&self, failure: &Failure) -> RowFilter {
        let matchers = self.matchers.iter().map(|matcher| {
            Box::new(RowMatcher { matcher: matcher.clone(), failure: Arc::clone(failure) }) as Box<dyn ArrowPredicate>
        });
        RowFilter::new(matchers.collect())
    }

    /// Stored bytes of the columns that are read of a row group.
    pub(super) fn bytes(&self, group: usize) -> u64 {
        let group = self.open.reader.metadata().row_group(group);
        self.leaves.iter().map(|leaf| group.column(*leaf).byte_range().1).sum()
    }

    /// Where the columns of these row groups lie, as far as they are short enough to be kept in memory.
    pub(super) fn short_columns(&self, groups: impl IntoIterator<Item = usize>) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut left = TOGETHER_BYTES;
        for group in groups {
            let bytes = self.bytes(group);
            if bytes > KEPT_COLUMN_BYTES || bytes > left {
                continue;
            }
            left -= bytes;
            let columns = self.open.reader.metadata().row_group(group);
            ranges.extend(self.leaves.iter().map(|leaf| {
                let (start, length) = columns.column(*leaf).byte_range();
                start..start.saturating_add(length)
            }));
        }
        ranges
    }
}

/// The parts of the predicate by what reading their columns costs: short columns, attributes, long texts. Without those that hold for
/// every row of a segment by its times.
fn stages(request: &ScanRequest, times: TimeRange) -> Vec<Arc<dyn PhysicalExpr>> {
    let always_holds = |part: &Arc<dyn PhysicalExpr>| {
        let bound = time_bound(part).filter(|_| request.uses_indexes);
        bound.is_some_and(|bound| bound.start <= times.start && times.end <= bound.end)
    };
    let mut stages: [Vec<Arc<dyn PhysicalExpr>>; 3] = Default::default();
    stages[0].extend(request.dynamic.iter().cloned());
    for part in request.predicate.iter().flat_map(|predicate| split_conjunction(predicate)) {
        if !always_holds(part) {
            stages[cost_of(part, request)].push(Arc::clone(part));
        }
    }
    stages.into_iter().filter(|parts| !parts.is_empty()).map(conjunction).collect()
}

fn cost_of(part: &Arc<dyn PhysicalExpr>, request: &ScanRequest) -> usize {
    let costs = collect_columns(part).into_iter().map(|column| match request.table.columns.get(column.index()) {
        Some(LogicalColumn::Plain(name)) if name == "body" => 2,
        Some(LogicalColumn::Object(_)) | None => 2,
        Some(LogicalColumn::Attribute(..)) => 1,
        Some(_) => 0,
    });
    costs.max().unwrap_or(0)
}

/// A condition on columns of the segment.
#[derive(Debug, Clone)]
struct Matcher {
    conversion: Arc<Conversion>,
    predicate: Arc<dyn PhysicalExpr>,
}

impl Matcher {
    fn new(open: &Arc<OpenSegment>, request: &ScanRequest, predicate: Arc<dyn PhysicalExpr>) -> Result<Self> {
        let mut places: Vec<usize> = collect_columns(&predicate).into_iter().map(|column| column.index()).collect();
        places.sort_unstable();
        places.dedup();
        let columns: Vec<LogicalColumn> = places.iter().map(|place| request.table.columns[*place].clone()).collect();
        let schema: SchemaRef = Arc::new(Schema::new(
            places.iter().map(|place| request.table.schema.field(*place).clone()).collect::<Vec<_>>(),
        ));
        let predicate = reassign_expr_columns(predicate, &schema)?;
        Ok(Self { conversion: Arc::new(Conversion::new(open, &columns, schema)), predicate })
    }

    fn matches(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let batch = self.conversion.convert(batch)?;
        let answer = self.predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
        Ok(as_boolean_array(&answer)?.clone())
    }
}

/// Rechecks the rows of one row group.
struct RowMatcher {
    matcher: Matcher,
    failure: Failure,
}

impl ArrowPredicate for RowMatcher {
    fn projection(&self) -> &ProjectionMask {
        &self.matcher.conversion.mask
    }

    fn evaluate(&mut self, batch: RecordBatch) -> std::result::Result<BooleanArray, ArrowError> {
        self.matcher.matches(&batch).map_err(|error| {
            let text = error.to_string();
            self.failure.lock().get_or_insert(error);
            ArrowError::ComputeError(text)
        })
    }
}
