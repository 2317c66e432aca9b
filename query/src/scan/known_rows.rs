//! Which rows of row groups meet conditions on long texts, remembered since they were checked. Segments never change, so that the next
//! query that has the condition reads the texts of no other row, and of none where it needs no text itself.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use datafusion::physical_expr::PhysicalExpr;
use moka::sync::Cache;
use parking_lot::Mutex;
use tidemill_types::SegmentId;

use super::blocks::RowSet;

/// A row group of a segment, and a condition over the columns of its table.
type Key = (SegmentId, usize, Arc<dyn PhysicalExpr>);

/// Conditions with the rows that meet them: a bit for every row of the row group.
#[derive(Debug, Clone)]
pub(super) struct KnownRows(Cache<Key, BooleanBuffer>);

impl KnownRows {
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |_: &Key, rows: &BooleanBuffer| u32::try_from(rows.len() / 8 + 512).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// The rows of a row group that meet the condition, if that is known.
    pub(super) fn get(&self, segment: SegmentId, group: usize, condition: &Arc<dyn PhysicalExpr>) -> Option<RowSet> {
        let rows = self.0.get(&(segment, group, Arc::clone(condition)))?;
        Some(RowSet::of_ranges(rows.set_slices().map(|(from, until)| from..until), rows.len()))
    }

    /// Begins to note the outcomes of the condition for `checked` rows of a row group; it is known not to be met by others.
    pub(super) fn note(
        &self,
        segment: SegmentId,
        group: usize,
        condition: &Arc<dyn PhysicalExpr>,
        checked: RowSet,
    ) -> Notes {
        let outcomes = BooleanBufferBuilder::new(checked.len());
        Notes {
            known: self.clone(),
            key: (segment, group, Arc::clone(condition)),
            checked,
            outcomes: Mutex::new(outcomes),
        }
    }
}

/// Outcomes of a condition, in order of the rows; remembered once they are complete.
#[derive(Debug)]
pub(super) struct Notes {
    known: KnownRows,
    key: Key,
    checked: RowSet,
    outcomes: Mutex<BooleanBufferBuilder>,
}

impl Notes {
    /// The outcomes for the next rows.
    pub(super) fn add(&self, outcomes: &BooleanArray) {
        let mut noted = self.outcomes.lock();
        match outcomes.nulls() {
            None => noted.append_buffer(outcomes.values()),
            Some(valid) => noted.append_buffer(&(outcomes.values() & valid.inner())),
        }
        if noted.len() == self.checked.len() {
            self.known.0.insert(self.key.clone(), self.checked.spread(&noted.finish_cloned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::{Column, lit};

    use super::*;

    fn condition(name: &str) -> Arc<dyn PhysicalExpr> {
        let own: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, 0));
        datafusion::physical_expr::expressions::binary(
            own,
            datafusion::logical_expr::Operator::Eq,
            lit("x"),
            &arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
                name,
                arrow::datatypes::DataType::Utf8,
                true,
            )]),
        )
        .expect("a comparison")
    }

    #[test]
    fn outcomes_are_known_once_complete_and_of_their_condition_alone() {
        let known = KnownRows::new(1 << 20);
        let segment = "00000000-0000-0000-0000-000000000007".parse::<SegmentId>().expect("an id");
        let notes = known.note(segment, 3, &condition("a"), RowSet::of_ranges([2..5, 8..10], 12));
        notes.add(&BooleanArray::from(vec![Some(true), None]));
        assert_eq!(known.get(segment, 3, &condition("a")), None);
        notes.add(&BooleanArray::from(vec![true, true, false]));
        assert_eq!(known.get(segment, 3, &condition("a")), Some(RowSet::of_ranges([2..3, 4..5, 8..9], 12)));
        assert_eq!(known.get(segment, 3, &condition("b")), None);
        assert_eq!(known.get(segment, 2, &condition("a")), None);
    }
}
