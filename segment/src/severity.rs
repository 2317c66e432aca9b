//! Classes of severity, by which the rows of compacted logs are sorted first, and where each class lies in a row group.
//!
//! Errors are first in a slice of time and warnings second: they are few and looked for most, and this way they share a row block or
//! two instead of a little of every block. The footer counts them, so that a reader who compares severity numbers knows the rows that can
//! match without reading any. Never decides anything for readers: ranges are a superset.

use std::ops::{Range, RangeInclusive};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use serde::{Deserialize, Serialize};

use crate::merge::text_at;

/// Where a row stands in its slice, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeverityClass {
    /// OTLP severity numbers from 17.
    Error,
    /// From 13.
    Warning,
    /// All others.
    Plain,
}

impl SeverityClass {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Plain];

    /// The numbers whose rows are all of this class. Rows with a number below 1, or with none, are of the class that their text says.
    pub fn numbers(self) -> RangeInclusive<i32> {
        match self {
            Self::Error => 17..=i32::MAX,
            Self::Warning => 13..=16,
            Self::Plain => 1..=12,
        }
    }

    pub(crate) fn of(number: i32, text: Option<&str>) -> Self {
        const ERRORS: [&str; 8] = ["err", "fatal", "crit", "emerg", "alert", "panic", "severe", "dpanic"];
        let begins_with = |word: &str| {
            text.and_then(|text| text.get(..word.len())).is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        match Self::ALL.into_iter().find(|class| class.numbers().contains(&number)) {
            Some(class) => class,
            None if ERRORS.into_iter().any(begins_with) => Self::Error,
            None if begins_with("warn") => Self::Warning,
            None => Self::Plain,
        }
    }

    /// The class of each row of a batch of logs.
    pub(crate) fn of_rows(batch: &RecordBatch) -> Vec<Self> {
        let column = |name: &str| batch.column_by_name(name).expect("the core columns have it");
        let (numbers, texts) = (column("severity_number").as_primitive::<Int32Type>(), column("severity_text"));
        let class = |row: usize| {
            let number = if numbers.is_valid(row) { numbers.value(row) } else { 0 };
            Self::of(number, if number > 0 { None } else { text_at(texts, row) })
        };
        (0..batch.num_rows()).map(class).collect()
    }
}

/// How the rows of one row group are shared between the classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverityRows {
    /// Errors: the first rows.
    pub errors: u32,
    /// Warnings: the rows that follow.
    pub warnings: u32,
}

impl SeverityRows {
    pub(crate) fn count(&mut self, classes: &[SeverityClass]) {
        for class in classes {
            match class {
                SeverityClass::Error => self.errors += 1,
                SeverityClass::Warning => self.warnings += 1,
                SeverityClass::Plain => {}
            }
        }
    }

    /// The rows of `class` in a row group of `rows` rows.
    pub fn range(&self, class: SeverityClass, rows: usize) -> Range<usize> {
        let (errors, warnings) = (self.errors as usize, self.errors as usize + self.warnings as usize);
        let range = match class {
            SeverityClass::Error => 0..errors,
            SeverityClass::Warning => errors..warnings,
            SeverityClass::Plain => warnings..rows,
        };
        range.start.min(rows)..range.end.min(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_number_and_else_the_text() {
        use SeverityClass::{Error, Plain, Warning};
        for (number, text, class) in [
            (17, Some("INFO"), Error),
            (24, None, Error),
            (13, Some("ERROR"), Warning),
            (9, Some("ERROR"), Plain),
            (0, Some("error"), Error),
            (-5, Some("Fatal"), Error),
            (0, Some("WARNING"), Warning),
            (0, Some("info"), Plain),
            (0, Some("é"), Plain),
            (0, None, Plain),
        ] {
            assert_eq!(SeverityClass::of(number, text), class, "{number} {text:?}");
        }
    }

    #[test]
    fn the_classes_share_a_row_group() {
        let rows = SeverityRows { errors: 3, warnings: 4 };
        assert_eq!(SeverityClass::ALL.map(|class| rows.range(class, 10)), [0..3, 3..7, 7..10]);
        // Counts that are too large for the row group name no row beyond it.
        assert_eq!(SeverityClass::ALL.map(|class| rows.range(class, 2)), [0..2, 2..2, 2..2]);
    }
}
