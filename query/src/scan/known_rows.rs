//! Which rows of row groups meet conditions on long texts, remembered since they were checked. Segments never change, so that the next
//! query that has the condition reads the texts of no other row, and of none where it needs no text itself.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use datafusion::physical_expr::PhysicalExpr;
use moka::sync::Cache;
use parking_lot::Mutex;
use tidemill_types::SegmentId;

use super::blocks::RowSet;

/// Conditions that have numbers; beyond it they are forgotten all together, and learned anew.
const MOST_CONDITIONS: usize = 4_096;

/// A condition over the columns of its table. Conditions themselves take long to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConditionId(u64);

type Key = (SegmentId, usize, ConditionId);

/// Conditions with the rows of row groups that meet them.
#[derive(Debug, Clone)]
pub(super) struct KnownRows {
    conditions: Arc<Mutex<Conditions>>,
    rows: Cache<Key, Known>,
}

#[derive(Debug, Default)]
struct Conditions {
    numbers: HashMap<Arc<dyn PhysicalExpr>, ConditionId>,
    next: u64,
}

#[derive(Debug, Clone)]
enum Known {
    /// No row meets the condition.
    Nothing,
    /// A bit for every row, and how many of them are set.
    Bits(BooleanBuffer, usize),
}

impl KnownRows {
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |_: &Key, known: &Known| match known {
            Known::Nothing => 128,
            Known::Bits(bits, _) => u32::try_from(bits.len() / 8 + 256).unwrap_or(u32::MAX),
        };
        Self { conditions: Arc::default(), rows: Cache::builder().max_capacity(bytes).weigher(weigh).build() }
    }

    /// The number of a condition, the same for equal ones.
    pub(super) fn number(&self, condition: &Arc<dyn PhysicalExpr>) -> ConditionId {
        let mut conditions = self.conditions.lock();
        if let Some(number) = conditions.numbers.get(condition) {
            return *number;
        }
        if conditions.numbers.len() >= MOST_CONDITIONS {
            conditions.numbers.clear();
        }
        let number = ConditionId(conditions.next);
        conditions.next += 1;
        conditions.numbers.insert(Arc::clone(condition), number);
        number
    }

    /// The rows of a row group of `rows` rows that meet the condition, if that is known.
    pub(super) fn get(&self, segment: SegmentId, group: usize, condition: ConditionId, rows: usize) -> Option<RowSet> {
        Some(match self.rows.get(&(segment, group, condition))? {
            Known::Nothing => RowSet::of_ranges([], rows),
            Known::Bits(bits, _) => RowSet::of_ranges(bits.set_slices().map(|(from, until)| from..until), rows),
        })
    }

    /// How many rows of a row group meet the condition, if that is known.
    pub(super) fn count(&self, segment: SegmentId, group: usize, condition: ConditionId) -> Option<usize> {
        Some(match self.rows.get(&(segment, group, condition))? {
            Known::Nothing => 0,
            Known::Bits(_, set) => set,
        })
    }

    /// Whether it is known which rows of a row group meet the condition.
    pub(super) fn has(&self, segment: SegmentId, group: usize, condition: ConditionId) -> bool {
        self.rows.contains_key(&(segment, group, condition))
    }

    /// No row of a row group meets the condition.
    pub(super) fn put_nothing(&self, segment: SegmentId, group: usize, condition: ConditionId) {
        self.rows.insert((segment, group, condition), Known::Nothing);
    }

    /// Begins to note the outcomes of the condition for `checked` rows of a row group; it is known not to be met by others.
    pub(super) fn note(&self, segment: SegmentId, group: usize, condition: ConditionId, checked: RowSet) -> Notes {
        let outcomes = Mutex::new(BooleanBufferBuilder::new(checked.len()));
        Notes { known: self.clone(), key: (segment, group, condition), checked, outcomes }
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
            let bits = noted.finish_cloned();
            let known = match bits.count_set_bits() {
                0 => Known::Nothing,
                set => Known::Bits(self.checked.spread(&bits), set),
            };
            self.known.rows.insert(self.key, known);
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
        let number = known.number(&condition("a"));
        let notes = known.note(segment, 3, number, RowSet::of_ranges([2..5, 8..10], 12));
        notes.add(&BooleanArray::from(vec![Some(true), None]));
        assert_eq!(known.get(segment, 3, number, 12), None);
        notes.add(&BooleanArray::from(vec![true, true, false]));
        let found = known.get(segment, 3, known.number(&condition("a")), 12);
        assert_eq!(found, Some(RowSet::of_ranges([2..3, 4..5, 8..9], 12)));
        assert_eq!((known.count(segment, 3, number), known.count(segment, 4, number)), (Some(3), None));
        assert_eq!(known.get(segment, 3, known.number(&condition("b")), 12), None);
        assert_eq!(known.get(segment, 2, number, 12), None);
        known.put_nothing(segment, 2, number);
        assert_eq!(known.get(segment, 2, number, 12), Some(RowSet::of_ranges([], 12)));
    }
}
