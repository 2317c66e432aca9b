//! Labels of a metric's series in columns, so that a condition is compared with numbers, and a pattern looked at once for each value.

use std::sync::Arc;

use tidemill_eval::{Labels, Matcher};

/// The label is absent.
const ABSENT: u32 = u32::MAX;

/// For each label that occurs, the place of its value for each series; columns end with the last series that has the label.
#[derive(Debug, Default)]
pub(super) struct LabelColumns(Vec<(Arc<str>, Vec<u32>)>);

impl LabelColumns {
    /// Adds the labels of series number `at`, whose values have these places in the order of the labels. Later series come later.
    pub(super) fn push(&mut self, at: usize, labels: &Labels, places: &[u32]) {
        for (label, place) in labels.iter().zip(places) {
            let is_own = |(name, _): &(Arc<str>, Vec<u32>)| Arc::ptr_eq(name, &label.name) || *name == label.name;
            let column = match self.0.iter().position(is_own) {
                Some(column) => column,
                None => {
                    self.0.push((Arc::clone(&label.name), Vec::new()));
                    self.0.len() - 1
                }
            };
            let column = &mut self.0[column].1;
            column.resize(at, ABSENT);
            column.push(*place);
        }
    }

    fn column(&self, name: &str) -> &[u32] {
        self.0.iter().find(|(own, _)| **own == *name).map_or(&[], |(_, column)| column)
    }
}

/// A condition on a label of series that are in columns.
pub(super) struct ColumnTest<'m> {
    matcher: &'m Matcher,
    /// Whether the condition is met where the label is absent.
    by_absence: bool,
    by_value: ByValue,
}

enum ByValue {
    /// By the value at this place alone, if by any.
    One(Option<u32>),
    /// By values of which it is known, or not yet.
    Known(Vec<Option<bool>>),
}

impl<'m> ColumnTest<'m> {
    /// A test of series whose values are `values`; `place_of` finds a text among them.
    pub(super) fn new(matcher: &'m Matcher, values: &[Arc<str>], place_of: impl Fn(&str) -> Option<u32>) -> Self {
        let by_value = match matcher.is_equality() {
            true => ByValue::One(place_of(&matcher.value)),
            false => ByValue::Known(vec![None; values.len()]),
        };
        Self { matcher, by_absence: matcher.meets(""), by_value }
    }

    /// Leaves of the series numbers in `left` those that meet the condition.
    pub(super) fn leave(&mut self, columns: &LabelColumns, values: &[Arc<str>], left: &mut Vec<u32>) {
        let column = columns.column(&self.matcher.name);
        left.retain(|at| match column.get(*at as usize).copied().unwrap_or(ABSENT) {
            ABSENT => self.by_absence,
            place => match &mut self.by_value {
                ByValue::One(wanted) => *wanted == Some(place),
                ByValue::Known(known) => {
                    let known = &mut known[place as usize];
                    *known.get_or_insert_with(|| self.matcher.meets(&values[place as usize]))
                }
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Columns tell what the labels themselves tell.
        #[test]
        fn columns_leave_what_labels_leave(
            series in proptest::collection::vec(proptest::collection::btree_map("[a-c]", "[x-z]{0,2}", 0..3), 0..20),
            conditions in proptest::collection::vec(("[a-d]", "[x-z]{0,2}", 0..4), 1..4),
        ) {
            let mut columns = LabelColumns::default();
            let mut values: Vec<Arc<str>> = Vec::new();
            let all: Vec<Labels> = series.iter().map(Labels::of).collect();
            for (at, labels) in all.iter().enumerate() {
                let mut place = |value: &Arc<str>| match values.iter().position(|own| own == value) {
                    Some(place) => place as u32,
                    None => {
                        values.push(Arc::clone(value));
                        values.len() as u32 - 1
                    }
                };
                let places: Vec<u32> = labels.iter().map(|label| place(&label.value)).collect();
                columns.push(at, labels, &places);
            }
            let matchers: Vec<Matcher> = conditions.iter().map(|(name, value, kind)| match kind {
                0 => Matcher::equal(name, value),
                1 => Matcher::not_equal(name, value),
                kind => Matcher::pattern(name, format!("{value}.*"), *kind == 3).expect("a pattern"),
            }).collect();
            let mut left: Vec<u32> = (0..all.len() as u32).collect();
            for matcher in &matchers {
                let place_of = |text: &str| values.iter().position(|own| **own == *text).map(|place| place as u32);
                ColumnTest::new(matcher, &values, place_of).leave(&columns, &values, &mut left);
            }
            let expected: Vec<u32> =
                (0..all.len() as u32).filter(|at| Matcher::all_meet(&matchers, &all[*at as usize])).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
