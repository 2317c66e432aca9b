//! Which segments and row groups may hold matching rows: statistics and bloom filters under DataFusion's pruning.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column as PhysicalColumn, Literal};
use datafusion::physical_expr::utils::{Guarantee, split_conjunction};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::bloom_filter::Sbbf;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::metadata::RowGroupMetaData;
use tidemill_types::{SegmentMeta, TimeRange, TimestampNs};

use super::convert::hex_text;
use super::open::OpenSegment;
use crate::tables::{LogicalColumn, TableColumns};

/// A predicate as pruning understands it; `None` when it can rule nothing out.
pub(crate) fn pruning_predicate(
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Option<Arc<PruningPredicate>> {
    PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).build(Arc::clone(predicate))
}

/// The times that a conjunction allows, from its comparisons of `time` with constants.
pub(crate) fn time_range(predicate: &Arc<dyn PhysicalExpr>) -> TimeRange {
    split_conjunction(predicate)
        .into_iter()
        .filter_map(time_bound)
        .fold(TimeRange::ALL, |all, bound| TimeRange { start: all.start.max(bound.start), end: all.end.min(bound.end) })
}

/// The times for which a comparison of `time` with a constant holds; `None` for any other expression.
pub(super) fn time_bound(part: &Arc<dyn PhysicalExpr>) -> Option<TimeRange> {
    let binary = part.downcast_ref::<BinaryExpr>()?;
    let (operator, at) = match (is_time(binary.left()), is_time(binary.right())) {
        (true, false) => (*binary.op(), nanoseconds(binary.right())?),
        (false, true) => (binary.op().swap()?, nanoseconds(binary.left())?),
        _ => return None,
    };
    let (at, after) = (TimestampNs(at), TimestampNs(at.saturating_add(1)));
    match operator {
        Operator::Gt => Some(TimeRange { start: after, ..TimeRange::ALL }),
        Operator::GtEq => Some(TimeRange { start: at, ..TimeRange::ALL }),
        Operator::Lt => Some(TimeRange { end: at, ..TimeRange::ALL }),
        Operator::LtEq => Some(TimeRange { end: after, ..TimeRange::ALL }),
        Operator::Eq => Some(TimeRange { start: at, end: after }),
        _ => None,
    }
}

fn is_time(expr: &Arc<dyn PhysicalExpr>) -> bool {
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let keeps_nanoseconds =
            matches!(cast.cast_type(), DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some(_)));
        return keeps_nanoseconds && is_time(cast.expr());
    }
    expr.downcast_ref::<PhysicalColumn>().is_some_and(|column| column.name() == "time")
}

fn nanoseconds(expr: &Arc<dyn PhysicalExpr>) -> Option<i64> {
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::TimestampNanosecond(Some(at), Some(_)) => Some(*at),
        _ => None,
    }
}

/// The services that a predicate allows, `None` for any.
pub(crate) fn services(predicate: &PruningPredicate) -> Option<BTreeSet<String>> {
    let mut allowed: Option<BTreeSet<String>> = None;
    for guarantee in predicate.literal_guarantees() {
        let is_service = matches!(guarantee.column.name.as_str(), "service_name" | "resource('service.name')");
        if !is_service || guarantee.guarantee != Guarantee::In {
            continue;
        }
        let names: Option<BTreeSet<String>> =
            guarantee.literals.iter().map(|literal| literal.try_as_str().flatten().map(str::to_owned)).collect();
        let Some(names) = names else { continue };
        allowed = Some(match allowed {
            None => names,
            Some(before) => before.intersection(&names).cloned().collect(),
        });
    }
    allowed
}

/// The times of containers, all that a catalog row or a row group says without its footer.
pub(crate) struct TimeStatistics {
    starts: ArrayRef,
    ends: ArrayRef,
}

impl TimeStatistics {
    pub(crate) fn new(times: impl IntoIterator<Item = TimeRange>) -> Self {
        let (starts, ends): (Vec<i64>, Vec<i64>) =
            times.into_iter().map(|time| (time.start.0, time.end.0.saturating_sub(1))).unzip();
        let array =
            |values: Vec<i64>| Arc::new(TimestampNanosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
        Self { starts: array(starts), ends: array(ends) }
    }

    pub(crate) fn of_segments<'a>(segments: impl IntoIterator<Item = &'a SegmentMeta>) -> Self {
        Self::new(segments.into_iter().map(|meta| meta.time))
    }
}

impl PruningStatistics for TimeStatistics {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == "time").then(|| Arc::clone(&self.starts))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == "time").then(|| Arc::clone(&self.ends))
    }

    fn num_containers(&self) -> usize {
        self.starts.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == "time").then(|| Arc::new(UInt64Array::from(vec![0; self.starts.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Parquet statistics of row groups, by logical column.
pub(crate) struct RowGroupStatistics<'a> {
    pub(crate) open: &'a OpenSegment,
    pub(crate) table: &'a TableColumns,
    pub(crate) groups: Vec<usize>,
    /// Bloom filters by logical column and place in `groups`.
    pub(crate) blooms: HashMap<String, Vec<Option<Sbbf>>>,
}

/// How a logical column's values relate to a physical column's statistics.
enum Basis {
    /// They are the column's own.
    Column(String),
    /// Every value of this segment is null.
    AllNull,
    /// Nothing is known.
    Unknown,
}

impl Basis {
    fn of(logical: &str, table: &TableColumns, open: &OpenSegment) -> Self {
        match table.column(logical) {
            Some(LogicalColumn::Plain(name) | LogicalColumn::Hex(name)) => {
                if open.has_column(name) {
                    Self::Column(name.clone())
                } else {
                    Self::AllNull
                }
            }
            Some(LogicalColumn::Attribute(key, kind)) => {
                let place = open.place(key);
                match place.column {
                    None if !place.in_overflow => Self::AllNull,
                    Some((name, own)) if own == *kind && !place.in_overflow => Self::Column(name),
                    _ => Self::Unknown,
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// The physical column whose statistics are a logical column's own.
pub(super) fn statistics_column(logical: &str, table: &TableColumns, open: &OpenSegment) -> Option<String> {
    match Basis::of(logical, table, open) {
        Basis::Column(name) => Some(name),
        Basis::AllNull | Basis::Unknown => None,
    }
}

impl RowGroupStatistics<'_> {
    fn basis(&self, column: &Column) -> Basis {
        Basis::of(&column.name, self.table, self.open)
    }

    fn row_groups(&self) -> impl Iterator<Item = &RowGroupMetaData> {
        self.groups.iter().map(|group| self.open.reader.metadata().row_group(*group))
    }

    fn bounds(&self, column: &Column, is_max: bool) -> Option<ArrayRef> {
        let name = match self.basis(column) {
            Basis::Column(name) => name,
            Basis::AllNull | Basis::Unknown => return None,
        };
        let converter =
            StatisticsConverter::try_new(&name, self.open.reader.schema(), self.open.reader.parquet_schema()).ok()?;
        let array = if is_max {
            converter.row_group_maxes(self.row_groups())
        } else {
            converter.row_group_mins(self.row_groups())
        };
        comparable(array.ok()?)
    }

    /// The physical column whose bloom filter speaks for a logical column.
    pub(crate) fn bloom_column(&self, logical: &str) -> Option<usize> {
        self.open.leaf(&statistics_column(logical, self.table, self.open)?)
    }
}

/// Bounds that order as SQL orders values; none for floats, whose NaN Parquet leaves out of its bounds.
pub(super) fn comparable(array: ArrayRef) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::FixedSizeBinary(_) => hex_text(&array),
        DataType::Float64 | DataType::Float32 => None,
        _ => Some(array),
    }
}

impl PruningStatistics for RowGroupStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, true)
    }

    fn num_containers(&self) -> usize {
        self.groups.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        match self.basis(column) {
            Basis::Unknown => None,
            Basis::AllNull => self.row_counts(),
            Basis::Column(name) => {
                let schema = self.open.reader.parquet_schema();
                let converter = StatisticsConverter::try_new(&name, self.open.reader.schema(), schema).ok()?;
                let converter = converter.with_missing_null_counts_as_zero(false);
                converter.row_group_null_counts(self.row_groups()).ok().map(|counts| Arc::new(counts) as ArrayRef)
            }
        }
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows: Vec<u64> = self.groups.iter().map(|group| self.open.row_group_rows(*group) as u64).collect();
        Some(Arc::new(UInt64Array::from(rows)))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let blooms = self.blooms.get(&column.name)?;
        let is_hex = matches!(self.table.column(&column.name), Some(LogicalColumn::Hex(_)));
        let answers = blooms.iter().map(|bloom| {
            let bloom = bloom.as_ref()?;
            // Only "none of the values is there" is certain.
            if values.iter().any(|value| may_contain(bloom, value, is_hex)) { None } else { Some(false) }
        });
        Some(answers.collect())
    }
}

fn may_contain(bloom: &Sbbf, value: &ScalarValue, is_hex: bool) -> bool {
    match value {
        ScalarValue::Int64(Some(value)) => bloom.check(value),
        value => match value.try_as_str() {
            Some(Some(text)) if is_hex => hex::decode(text).is_ok_and(|bytes| {
                let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                is_lower && bloom.check(&FixedLenByteArray::from(ByteArray::from(bytes)))
            }),
            Some(Some(text)) => bloom.check(&ByteArray::from(text)),
            _ => true,
        },
    }
}

/// Keeps the places whose answer is `true`.
pub(crate) fn kept<T>(items: Vec<T>, keep: Result<Vec<bool>>) -> Vec<T> {
    match keep {
        Ok(keep) if keep.len() == items.len() => {
            items.into_iter().zip(keep).filter_map(|(item, keep)| keep.then_some(item)).collect()
        }
        // Pruning that fails rules nothing out.
        _ => items,
    }
}
