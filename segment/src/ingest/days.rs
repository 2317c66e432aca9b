//! Which days of an input find a partition, and for which ones it is read again.
//!
//! An input that goes from day to day needs one partition after the other. One that jumps between many days would close and open them
//! for every row, and end as more segments than rows: so a day that was closed is not opened again, and once such a day comes back, no
//! partition is closed for another any more. The rows that are left out are filed when the input is read again, the next days at once.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_types::Day;

/// What is known of the days of the input that is being read.
#[derive(Debug, Default)]
pub(crate) struct Days {
    /// Days whose partition was closed, with how many of their rows it holds.
    closed: BTreeMap<Day, u64>,
    /// Days with rows that are not filed yet.
    left: BTreeSet<Day>,
    /// While the input is read again: the days that are filed now, with the rows of each that were met so far.
    taken: Option<BTreeMap<Day, u64>>,
    /// A closed day came back.
    jumps: bool,
}

impl Days {
    /// Whether a partition may be opened for `day`, and another one be closed for it if there `is_full`; else its rows are left.
    pub(crate) fn may_open(&mut self, day: Day, is_full: bool) -> bool {
        if self.taken.is_some() {
            return true;
        }
        let comes_back = self.closed.contains_key(&day);
        self.jumps |= comes_back;
        if comes_back || (is_full && self.jumps) {
            self.left.insert(day);
            return false;
        }
        true
    }

    /// Notes that the partition of `day` was closed and holds `rows` of the input.
    pub(crate) fn note_closed(&mut self, day: Day, rows: u64) {
        if self.taken.is_none() {
            self.closed.insert(day, rows);
        }
    }

    /// Whether the input has to be read again.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Files the next days, at most `most`, from now on.
    pub(crate) fn take_next(&mut self, most: usize) {
        let next: Vec<Day> = self.left.iter().copied().take(most).collect();
        self.left.retain(|day| !next.contains(day));
        self.taken = Some(next.into_iter().map(|day| (day, 0)).collect());
    }

    /// Whether the input is being read again.
    #[inline]
    pub(crate) fn is_again(&self) -> bool {
        self.taken.is_some()
    }

    /// Whether the next row of `day` is filed now, while the input is read again.
    pub(crate) fn takes_again(&mut self, day: Day) -> bool {
        let Some(met) = self.taken.as_mut().and_then(|taken| taken.get_mut(&day)) else { return false };
        *met += 1;
        *met > self.closed.get(&day).copied().unwrap_or(0)
    }
}
