//! How a scan reads one segment: by which conditions, into which columns. It is the same for all row groups of the segment.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::utils::{
    collect_columns, conjunction, conjunction_opt, reassign_expr_columns, split_conjunction,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, RowFilter};
use tidemill_types::{Signal, TimeRange};

use super::ScanRequest;
use super::convert::{Conversion, OutputColumn};
use super::known_rows::Notes;
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
    /// Conditions on columns that are cheap to read, then on long texts.
    cheap: Vec<Matcher>,
    long: Option<Matcher>,
    /// The leaves that any of them reads.
    leaves: Vec<usize>,
    /// The same without the condition on long texts.
    leaves_of_cheap: Vec<usize>,
    /// How to do without reading lines, where the lines that meet it may be in memory.
    pub(super) spared_lines: Option<SparedLines>,
}

/// The columns asked for without the lines among them.
#[derive(Debug)]
pub(super) struct SparedLines {
    pub(super) conversion: Arc<Conversion>,
    /// Where the lines stand.
    pub(super) place: usize,
    pub(super) leaves: Vec<usize>,
}

/// How much of a plan is done for a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Every condition is checked.
    All,
    /// It is known which rows meet the condition on long texts.
    Cheap,
}

impl SegmentPlan {
    /// `is_remembered` tells that the condition on long texts is.
    pub(super) fn new(open: Arc<OpenSegment>, request: &ScanRequest, is_remembered: bool) -> Result<Self> {
        let mut outputs = request.output_columns(&open);
        let conversion = Conversion::of_outputs(&open, &outputs, Arc::clone(&request.schema));
        // Bounds of the plan above only spare work, and what they spare could not be remembered.
        let dynamic = if is_remembered { &[][..] } else { &request.dynamic };
        let Stages { cheap, long } = Stages::of(request, dynamic, open.meta.time);
        let matcher = |stage| Matcher::new(&open, request, stage);
        let cheap = cheap.into_iter().map(matcher).collect::<Result<Vec<_>>>()?;
        let long = long.map(matcher).transpose()?;
        let leaves_of = |matchers: &mut dyn Iterator<Item = &Matcher>| -> Vec<usize> {
            let masks: Vec<&ProjectionMask> =
                matchers.map(|matcher| &matcher.conversion.mask).chain([&conversion.mask]).collect();
            let all = 0..open.reader.parquet_schema().num_columns();
            all.filter(|leaf| masks.iter().any(|mask| mask.leaf_included(*leaf))).collect()
        };
        let leaves = leaves_of(&mut cheap.iter().chain(&long));
        let leaves_of_cheap = leaves_of(&mut cheap.iter());
        let is_line =
            |column: &OutputColumn| matches!(column, OutputColumn::Read(LogicalColumn::Plain(name)) if name == "body");
        let place = outputs.iter().position(is_line).filter(|_| is_remembered);
        let spared_lines = place.map(|place| {
            outputs[place] = OutputColumn::Given;
            let conversion = Conversion::of_outputs(&open, &outputs, Arc::clone(&request.schema));
            let all = 0..open.reader.parquet_schema().num_columns();
            let leaves = all.filter(|leaf| conversion.mask.leaf_included(*leaf)).collect();
            SparedLines { conversion: Arc::new(conversion), place, leaves }
        });
        Ok(Self { conversion: Arc::new(conversion), cheap, long, leaves, leaves_of_cheap, spared_lines, open })
    }

    /// Whether rows may not match.
    pub(super) fn has_conditions(&self, checked: Checked) -> bool {
        !self.cheap.is_empty() || (checked == Checked::All && self.long.is_some())
    }

    /// Whether the condition on long texts is all that there is to be checked.
    pub(super) fn has_long_alone(&self) -> bool {
        self.cheap.is_empty() && self.long.is_some()
    }

    /// The leaves that are read.
    pub(super) fn leaves(&self, checked: Checked) -> &[usize] {
        match checked {
            Checked::All => &self.leaves,
            Checked::Cheap => &self.leaves_of_cheap,
        }
    }

    /// The conditions for the reader of one row group; outcomes of the one on long texts go to `notes`.
    pub(super) fn row_filter(&self, failure: &Failure, checked: Checked, notes: Option<Notes>) -> RowFilter {
        let predicate = |matcher: &Matcher, notes| {
            let (matcher, failure) = (matcher.clone(), Arc::clone(failure));
            Box::new(RowMatcher { matcher, failure, notes }) as Box<dyn ArrowPredicate>
        };
        let mut all: Vec<_> = self.cheap.iter().map(|matcher| predicate(matcher, None)).collect();
        if checked == Checked::All {
            all.extend(self.long.iter().map(|matcher| predicate(matcher, None)));
        }
        if let (Some(notes), Some(long), []) = (notes, &self.long, self.cheap.as_slice()) {
            all = vec![predicate(long, Some(notes))];
        }
        RowFilter::new(all)
    }

    /// Stored bytes of some leaves of a row group.
    pub(super) fn bytes(&self, group: usize, leaves: &[usize]) -> u64 {
        let group = self.open.reader.metadata().row_group(group);
        leaves.iter().map(|leaf| group.column(*leaf).byte_range().1).sum()
    }

    /// Where the columns of these row groups lie, as far as they are short enough to be kept in memory.
    pub(super) fn short_columns(&self, groups: impl IntoIterator<Item = usize>) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut left = TOGETHER_BYTES;
        for group in groups {
            let bytes = self.bytes(group, &self.leaves);
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

/// The parts of the predicate by what reading their columns costs.
struct Stages {
    /// Short columns, then attributes.
    cheap: Vec<Arc<dyn PhysicalExpr>>,
    /// Long texts.
    long: Option<Arc<dyn PhysicalExpr>>,
}

impl Stages {
    /// Without the parts that hold for every row of a segment by its times.
    fn of(request: &ScanRequest, dynamic: &[Arc<dyn PhysicalExpr>], times: TimeRange) -> Self {
        let always_holds = |part: &Arc<dyn PhysicalExpr>| {
            let bound = time_bound(part).filter(|_| request.uses_indexes);
            bound.is_some_and(|bound| bound.start <= times.start && times.end <= bound.end)
        };
        let mut stages: [Vec<Arc<dyn PhysicalExpr>>; 3] = Default::default();
        stages[0].extend(dynamic.iter().cloned());
        for part in request.predicate.iter().flat_map(|predicate| split_conjunction(predicate)) {
            if !always_holds(part) {
                stages[cost_of(part, request)].push(Arc::clone(part));
            }
        }
        let [short, attributes, long] = stages;
        let cheap = [short, attributes].into_iter().filter(|parts| !parts.is_empty()).map(conjunction).collect();
        Self { cheap, long: conjunction_opt(long) }
    }
}

/// The condition on long texts over the columns of the table, the same for all segments, where it has the same outcome for a row in
/// every query: the types of attributes are those of a query.
pub(super) fn rememberable(request: &ScanRequest) -> Option<Arc<dyn PhysicalExpr>> {
    if !request.uses_indexes || request.table.signal != Signal::Logs {
        return None;
    }
    let is_fixed = |place: usize| {
        request.table.columns.get(place).is_some_and(|column| !matches!(column, LogicalColumn::Attribute(..)))
    };
    let long = Stages::of(request, &[], TimeRange::ALL).long?;
    let is_fixed = collect_columns(&long).iter().all(|column| is_fixed(column.index()));
    (is_fixed && !is_volatile(&long) && says_all(&long)).then_some(long)
}

/// Whether equal expressions always have equal outcomes: what waits for another part of its query, as a subquery, does not say so.
fn says_all(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let any = expression.as_ref();
    let is_known = any.is::<Column>()
        || any.is::<Literal>()
        || any.is::<BinaryExpr>()
        || any.is::<NotExpr>()
        || any.is::<NegativeExpr>()
        || any.is::<IsNullExpr>()
        || any.is::<IsNotNullExpr>()
        || any.is::<LikeExpr>()
        || any.is::<InListExpr>()
        || any.is::<CastExpr>()
        || any.is::<TryCastExpr>()
        || any.is::<CaseExpr>()
        || any.is::<ScalarFunctionExpr>();
    is_known && expression.children().into_iter().all(says_all)
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
    notes: Option<Notes>,
}

impl ArrowPredicate for RowMatcher {
    fn projection(&self) -> &ProjectionMask {
        &self.matcher.conversion.mask
    }

    fn evaluate(&mut self, batch: RecordBatch) -> std::result::Result<BooleanArray, ArrowError> {
        let outcomes = self.matcher.matches(&batch).map_err(|error| {
            let text = error.to_string();
            self.failure.lock().get_or_insert(error);
            ArrowError::ComputeError(text)
        })?;
        if let Some(notes) = &self.notes {
            notes.add(&outcomes);
        }
        Ok(outcomes)
    }
}
