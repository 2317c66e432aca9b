//! Which rows of a row group are read: by the segment's own index, and by the statistics of Parquet pages.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, UInt64Array};
use arrow::buffer::BooleanBuffer;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, split_conjunction};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection};

use super::open::OpenSegment;
use super::prune::{comparable, pruning_predicate, statistics_column};
use crate::tables::TableColumns;

/// Rows of one row group, sorted, disjoint, counted from its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowSet {
    ranges: Vec<Range<usize>>,
    rows: usize,
}

impl RowSet {
    pub(super) fn all(rows: usize) -> Self {
        Self { ranges: if rows == 0 { Vec::new() } else { std::iter::once(0..rows).collect() }, rows }
    }

    /// These ranges, which are sorted and disjoint.
    pub(super) fn of_ranges(ranges: impl IntoIterator<Item = Range<usize>>, rows: usize) -> Self {
        Self { ranges: ranges.into_iter().filter(|range| !range.is_empty()).collect(), rows }
    }

    /// The part of a segment's rows that lies in the row group whose first row is `first`.
    pub(super) fn of_segment(ranges: &[Range<u64>], first: u64, rows: usize) -> Self {
        let end = first.saturating_add(rows as u64);
        let inside = ranges.iter().filter_map(|range| {
            let (from, until) = (range.start.max(first), range.end.min(end));
            (from < until).then(|| (from - first) as usize..(until - first) as usize)
        });
        Self { ranges: inside.collect(), rows }
    }

    /// Whether any of these rows is in the set.
    pub(super) fn has_any_of(&self, rows: Range<usize>) -> bool {
        let next = self.ranges.partition_point(|range| range.end <= rows.start);
        self.ranges.get(next).is_some_and(|range| range.start < rows.end)
    }

    pub(super) fn intersect(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
            let both = one.start.max(two.start)..one.end.min(two.end);
            if both.start < both.end {
                ranges.push(both);
            }
            if one.end <= two.end {
                left.next();
            } else {
                right.next();
            }
        }
        Self { ranges, rows: self.rows }
    }

    /// All rows but those of `places`, which are sorted.
    pub(super) fn without(rows: usize, places: &[usize]) -> Self {
        let mut ranges = Vec::new();
        let mut from = 0;
        for &place in places.iter().chain([&rows]) {
            if from < place {
                ranges.push(from..place);
            }
            from = place + 1;
        }
        Self { ranges, rows }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn is_all(&self) -> bool {
        self.len() == self.rows
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// A bit for every row: for the rows of the set the next of `bits`, false for others.
    pub(super) fn spread(&self, bits: &BooleanBuffer) -> BooleanBuffer {
        let mut all = BooleanBufferBuilder::new(self.rows);
        let mut taken = 0;
        for range in &self.ranges {
            all.append_n(range.start - all.len(), false);
            all.append_buffer(&bits.slice(taken, range.len()));
            taken += range.len();
        }
        all.append_n(self.rows - all.len(), false);
        all.finish()
    }

    pub(super) fn selection(&self) -> RowSelection {
        RowSelection::from_consecutive_ranges(self.ranges.iter().cloned(), self.rows)
    }
}

/// The rows of a row group that the bounds of its pages do not rule out.
pub(super) fn rows_by_pages(
    predicate: &Arc<dyn PhysicalExpr>,
    table: &TableColumns,
    open: &OpenSegment,
    pages: &ArrowReaderMetadata,
    group: usize,
) -> RowSet {
    let mut rows = RowSet::all(open.row_group_rows(group));
    for part in split_conjunction(predicate) {
        let columns = collect_columns(part);
        let mut columns = columns.iter();
        let (Some(column), None) = (columns.next(), columns.next()) else { continue };
        let Some(statistics) = PageStatistics::load(column.name(), table, open, pages) else { continue };
        let Some(pruning) = pruning_predicate(part, &table.schema) else { continue };
        let Ok(keep) = pruning.prune(&statistics) else { continue };
        rows = rows.intersect(&statistics.kept_rows(&keep, rows.rows));
    }
    rows
}

/// Bounds of the pages of one column in one row group.
struct PageStatistics {
    column: String,
    mins: Option<ArrayRef>,
    maxes: Option<ArrayRef>,
    nulls: Option<ArrayRef>,
    counts: Vec<u64>,
}

impl PageStatistics {
    /// From metadata whose only row group it is.
    fn load(logical: &str, table: &TableColumns, open: &OpenSegment, pages: &ArrowReaderMetadata) -> Option<Self> {
        let name = statistics_column(logical, table, open)?;
        let (columns, offsets) = (pages.metadata().column_index()?, pages.metadata().offset_index()?);
        let converter = StatisticsConverter::try_new(&name, pages.schema(), pages.parquet_schema()).ok()?;
        let groups = [0];
        let leaf = open.leaf(&name)?;
        if columns.first()?.len() <= leaf || offsets.first()?.get(leaf)?.page_locations().is_empty() {
            return None;
        }
        let counts = converter.data_page_row_counts(offsets, pages.metadata().row_groups(), &groups).ok()??;
        Some(Self {
            column: logical.to_owned(),
            mins: converter.data_page_mins(columns, offsets, &groups).ok().and_then(comparable),
            maxes: converter.data_page_maxes(columns, offsets, &groups).ok().and_then(comparable),
            nulls: converter
                .data_page_null_counts(columns, offsets, &groups)
                .ok()
                .map(|nulls| Arc::new(nulls) as ArrayRef),
            counts: counts.iter().map(|count| count.unwrap_or(0)).collect(),
        })
    }

    fn kept_rows(&self, keep: &[bool], rows: usize) -> RowSet {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut from = 0;
        for (count, keep) in self.counts.iter().zip(keep) {
            let until = from + usize::try_from(*count).unwrap_or(rows);
            match ranges.last_mut() {
                _ if !keep => {}
                Some(last) if last.end == from => last.end = until,
                _ => ranges.push(from..until),
            }
            from = until;
        }
        if from == rows { RowSet { ranges, rows } } else { RowSet::all(rows) }
    }
}

impl PruningStatistics for PageStatistics {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.mins.clone().filter(|_| column.name == self.column)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.maxes.clone().filter(|_| column.name == self.column)
    }

    fn num_containers(&self) -> usize {
        self.counts.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.nulls.clone().filter(|_| column.name == self.column)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from(self.counts.clone())))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_rows_intersect() {
        let one = RowSet::of_segment(&[5..12, 20..30], 10, 15);
        assert_eq!(one, RowSet { ranges: vec![0..2, 10..15], rows: 15 });
        let two = RowSet::without(15, &[1, 2, 14]);
        assert_eq!(two.ranges, [0..1, 3..14]);
        assert_eq!(one.intersect(&two).ranges, [0..1, 10..14]);
        assert!(RowSet::all(15).is_all() && !two.is_all());
        assert!(RowSet::of_segment(&[0..3, 4..5], 10, 15).is_empty());
    }
}
