//! Counts how leases end, and writes the counts now and then: a row that every completion updated would make them wait for each
//! other. What a killed process did not write makes its crashes look likelier, which condemns nobody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WRITE_EVERY: Duration = Duration::from_secs(1);
const WRITE_AT: i64 = 100;

#[derive(Debug, Default)]
pub(super) struct Outcomes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reported: BTreeMap<i16, i64>,
    written: Option<Instant>,
}

impl Outcomes {
    /// Adds leases that ended with a report; returns the counts when it is time to write them.
    pub(super) fn count(&self, queues: impl IntoIterator<Item = i16>) -> Option<BTreeMap<i16, i64>> {
        let mut state = self.state.lock();
        for queue in queues {
            *state.reported.entry(queue).or_default() += 1;
        }
        let is_due = state.written.is_none_or(|written| written.elapsed() >= WRITE_EVERY)
            || state.reported.values().sum::<i64>() >= WRITE_AT;
        if !is_due || state.reported.is_empty() {
            return None;
        }
        state.written = Some(Instant::now());
        Some(std::mem::take(&mut state.reported))
    }
}
