//! Which rows of compacted logs may have the severity numbers that a predicate allows: their footers count the classes of each row group.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use parquet::file::statistics::Statistics;
use tidemill_segment::severity::SeverityClass;

use super::blocks::RowSet;
use super::open::OpenSegment;
use super::prune::pruning_predicate;

const COLUMN: &str = "severity_number";

/// The classes of severity that a predicate leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeverityClasses {
    classes: Vec<SeverityClass>,
    /// Whether rows without a number may match too: they stand where their text says.
    keeps_unnumbered: bool,
}

impl SeverityClasses {
    /// `None` when rows of any class may match.
    pub(super) fn of(predicate: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Self> {
        if !collect_columns(predicate).iter().any(|column| column.name() == COLUMN) {
            return None;
        }
        let keep = pruning_predicate(predicate, schema)?.prune(&ClassStatistics).ok()?;
        let (&keeps_unnumbered, keep) = keep.split_last()?;
        let classes = SeverityClass::ALL.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(class, _)| class);
        let classes: Vec<SeverityClass> = classes.collect();
        (classes.len() < SeverityClass::ALL.len()).then_some(Self { classes, keeps_unnumbered })
    }

    /// The rows of a row group that are of these classes; all where the segment does not tell.
    pub(super) fn rows(&self, open: &OpenSegment, group: usize) -> RowSet {
        let rows = open.row_group_rows(group);
        let counts = &open.footer.severity_rows;
        if self.keeps_unnumbered && !is_numbered(open, group) {
            return RowSet::all(rows);
        }
        match counts.get(group) {
            Some(own) if counts.len() == open.row_group_times.len() => {
                RowSet::of_ranges(self.classes.iter().map(|class| own.range(*class, rows)), rows)
            }
            _ => RowSet::all(rows),
        }
    }
}

/// Whether every row of a row group has a number that tells its class, by the statistics of the column.
fn is_numbered(open: &OpenSegment, group: usize) -> bool {
    let Some(leaf) = open.leaf(COLUMN) else { return false };
    match open.reader.metadata().row_group(group).column(leaf).statistics() {
        Some(Statistics::Int32(numbers)) => {
            numbers.null_count_opt() == Some(0) && numbers.min_opt().is_some_and(|least| *least >= 1)
        }
        _ => false,
    }
}

/// The numbers of each class, and last those that tell no class, with the rows that have none.
struct ClassStatistics;

impl ClassStatistics {
    const CONTAINERS: usize = SeverityClass::ALL.len() + 1;

    fn bounds(column: &Column, unnumbered: i32, bound: impl Fn(SeverityClass) -> i32) -> Option<ArrayRef> {
        let bounds = SeverityClass::ALL.into_iter().map(bound).chain([unnumbered]);
        (column.name == COLUMN).then(|| Arc::new(Int32Array::from_iter_values(bounds)) as ArrayRef)
    }
}

impl PruningStatistics for ClassStatistics {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        Self::bounds(column, i32::MIN, |class| *class.numbers().start())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        Self::bounds(column, 0, |class| *class.numbers().end())
    }

    fn num_containers(&self) -> usize {
        Self::CONTAINERS
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == COLUMN).then(|| Arc::new(UInt64Array::from(vec![0, 0, 0, 1])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        // As if each had two rows: none of the containers is all null, and none is empty.
        Some(Arc::new(UInt64Array::from(vec![2; Self::CONTAINERS])))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::prelude::{Expr, SessionContext, col, lit};

    use super::*;

    fn found(expr: Expr) -> Option<SeverityClasses> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new(COLUMN, DataType::Int32, true),
            Field::new("body", DataType::Utf8View, true),
        ]));
        let logical = DFSchema::try_from(Arc::clone(&schema)).expect("two columns");
        let predicate = SessionContext::new().create_physical_expr(expr, &logical).expect("a condition");
        SeverityClasses::of(&predicate, &schema)
    }

    /// The classes whose rows alone can match, whatever a row group's numbers are.
    fn classes(expr: Expr) -> Option<Vec<SeverityClass>> {
        found(expr).filter(|found| !found.keeps_unnumbered).map(|found| found.classes)
    }

    #[test]
    fn comparisons_of_the_number_leave_its_classes() {
        use SeverityClass::{Error, Plain, Warning};
        let number = || col(COLUMN);
        assert_eq!(classes(number().gt_eq(lit(17))), Some(vec![Error]));
        assert_eq!(classes(number().gt(lit(12))), Some(vec![Error, Warning]));
        assert_eq!(classes(number().eq(lit(9))), Some(vec![Plain]));
        assert_eq!(classes(number().between(lit(13), lit(16))), Some(vec![Warning]));
        assert_eq!(classes(number().eq(lit(13)).or(number().eq(lit(21)))), Some(vec![Error, Warning]));
        assert_eq!(classes(number().gt(lit(16)).and(col("body").eq(lit("x")))), Some(vec![Error]));
        // Rows without a number stand where their text says.
        for any in [number().lt(lit(5)), number().is_null(), number().gt_eq(lit(0)), col("body").eq(lit("x"))] {
            assert_eq!(classes(any.clone()), None, "{any}");
        }
        assert_eq!(classes(number().gt(lit(12)).or(col("body").eq(lit("x")))), None);
        // In a row group where every row has a number, these leave the classes of the others.
        let no_level = || number().is_null().or(number().lt(lit(1))).or(number().gt(lit(24)));
        let kept = |expr: Expr| found(expr).map(|found| (found.classes, found.keeps_unnumbered));
        assert_eq!(kept(no_level().or(number().between(lit(21), lit(24)))), Some((vec![Error], true)));
        assert_eq!(kept(no_level().or(number().between(lit(13), lit(16)))), Some((vec![Error, Warning], true)));
        assert_eq!(kept(col("body").eq(lit("x"))), None);
    }
}
