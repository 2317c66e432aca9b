//! When something falls due by itself: a lease that runs out, delayed work.
//!
//! Owns: what the last look at the database told each set of waiters, believed for a moment and corrected by what this process does,
//! so that a worker that waits often asks seldom. Never: I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidemill_types::WorkQueue;

/// A look is believed this long,
const KNOWN_FOR: Duration = Duration::from_millis(250);
/// or so many times what it took,
const KNOWN_FOR_LOOKS: u32 = 64;
/// but never longer than this.
const KNOWN_AT_MOST: Duration = Duration::from_secs(10);
/// Sets of queues that are remembered; a process has a few.
const REMEMBERED: usize = 64;
/// Leases that ran out are looked for at least this often.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// What is known to fall due.
#[derive(Debug, Default)]
pub(super) struct Dues {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looks: HashMap<Vec<WorkQueue>, Look>,
    /// When leases that ran out are looked for next; `None` for at once.
    settle_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    known_until: Instant,
    due: Option<Instant>,
}

impl Dues {
    /// The next time at which something falls due for waiters at `queues`, `Some(None)` for not at all; `None` when that is not known.
    pub(super) fn known(&self, queues: &[WorkQueue]) -> Option<Option<Instant>> {
        let state = self.state.lock();
        state.looks.get(queues).filter(|look| Instant::now() < look.known_until).map(|look| look.due)
    }

    /// A look that began at `begun` told this.
    pub(super) fn learn(&self, queues: &[WorkQueue], begun: Instant, due: Option<Instant>) {
        let mut state = self.state.lock();
        if state.looks.len() >= REMEMBERED {
            state.looks.clear();
        }
        let known_for = (begun.elapsed() * KNOWN_FOR_LOOKS).clamp(KNOWN_FOR, KNOWN_AT_MOST);
        state.looks.insert(queues.to_vec(), Look { known_until: Instant::now() + known_for, due });
    }

    /// This process made something fall due `after` this long: delayed work.
    pub(super) fn add(&self, after: Duration) {
        let at = Instant::now() + after.min(KNOWN_AT_MOST);
        for look in self.state.lock().looks.values_mut() {
            look.due = Some(look.due.map_or(at, |due| due.min(at)));
        }
    }

    /// This process has a lease that runs out after this long.
    pub(super) fn add_lease(&self, lease: Duration) {
        self.add(lease);
        let at = Instant::now() + lease.min(KNOWN_AT_MOST);
        let mut state = self.state.lock();
        state.settle_at = state.settle_at.map(|settle_at| settle_at.min(at));
    }

    /// Something unknown happened, perhaps something that falls due later.
    pub(super) fn forget(&self) {
        self.state.lock().looks.clear();
    }

    /// Something fell due, perhaps a lease.
    pub(super) fn fall_due(&self) {
        *self.state.lock() = State::default();
    }

    /// Whether leases that ran out are to be looked for now; if so, the caller looks.
    pub(super) fn is_settling_due(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_due = state.settle_at.is_none_or(|settle_at| settle_at <= now);
        if is_due {
            state.settle_at = Some(now + SETTLE_EVERY);
        }
        is_due
    }

    /// The next lease runs out in this long.
    pub(super) fn settle_in(&self, next: Duration) {
        let at = Instant::now() + next.min(SETTLE_EVERY);
        let mut state = self.state.lock();
        state.settle_at = state.settle_at.map(|settle_at| settle_at.min(at));
    }
}

#[cfg(test)]
mod tests {
    use tidemill_types::{Action, Signal};

    use super::*;

    const QUEUES: [WorkQueue; 1] = [WorkQueue { signal: Signal::Logs, action: Action::Job }];
    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn what_this_process_does_corrects_a_look() {
        let dues = Dues::default();
        assert_eq!(dues.known(&QUEUES), None);
        let begun = Instant::now();
        dues.learn(&QUEUES, begun, None);
        assert_eq!(dues.known(&QUEUES), Some(None));
        dues.add(Duration::ZERO);
        let due = dues.known(&QUEUES).flatten().expect("is due");
        assert!(due >= begun && due <= Instant::now());
        dues.add(LONG);
        assert_eq!(dues.known(&QUEUES), Some(Some(due)), "the first counts");
        assert_eq!(dues.known(&[]), None, "others wait for something else");
        dues.forget();
        assert_eq!(dues.known(&QUEUES), None);
    }

    #[test]
    fn leases_are_settled_when_the_first_runs_out() {
        let dues = Dues::default();
        assert!(dues.is_settling_due(), "nothing is known");
        assert!(!dues.is_settling_due(), "it has just been looked");
        dues.add_lease(LONG);
        assert!(!dues.is_settling_due());
        dues.add_lease(Duration::ZERO);
        assert!(dues.is_settling_due());
        dues.settle_in(Duration::ZERO);
        assert!(dues.is_settling_due(), "somebody else's");
        dues.forget();
        assert!(!dues.is_settling_due());
        dues.fall_due();
        assert!(dues.is_settling_due());
    }

    #[test]
    fn many_sets_of_queues_are_forgotten() {
        let dues = Dues::default();
        for count in 0..1_000 {
            dues.learn(&vec![QUEUES[0]; count], Instant::now(), None);
        }
        assert!(dues.state.lock().looks.len() <= REMEMBERED);
    }
}
