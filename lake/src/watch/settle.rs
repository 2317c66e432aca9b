//! Which files have stood still for long enough. Time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::scan::Stamp;

/// Files that may still be written.
#[derive(Debug)]
pub(super) struct Settling {
    settle: Duration,
    pending: HashMap<String, Pending>,
    /// Not after the moment at which the next file may be complete.
    earliest: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    stamp: Stamp,
    since: Instant,
}

impl Settling {
    pub(super) fn new(settle: Duration) -> Self {
        Self { settle, pending: HashMap::new(), earliest: None }
    }

    /// Notes how a file looks; a change makes it wait from now on.
    pub(super) fn observe(&mut self, key: String, stamp: Stamp, now: Instant) {
        let pending = self.pending.entry(key).or_insert(Pending { stamp, since: now });
        if pending.stamp != stamp {
            *pending = Pending { stamp, since: now };
        }
        let due = pending.since + self.settle;
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
    }

    /// When to call [`Settling::take_due`]; never after the moment at which a file is complete.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.earliest
    }

    /// Files that looked the same for long enough; the caller looks once more.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, Stamp)> {
        let settle = self.settle;
        let mut due: Vec<(String, Stamp)> = self
            .pending
            .extract_if(|_, pending| pending.since + settle <= now)
            .map(|(key, pending)| (key, pending.stamp))
            .collect();
        self.earliest = self.pending.values().map(|pending| pending.since + settle).min();
        due.sort_by(|one, other| one.0.cmp(&other.0));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size_bytes: u64) -> Stamp {
        Stamp { size_bytes, modified_ns: 0, inode: 1 }
    }

    #[tokio::test]
    async fn a_file_is_due_once_it_stood_still() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut settling = Settling::new(Duration::from_secs(2));
        assert_eq!(settling.next_due(), None);
        settling.observe("a".to_owned(), stamp(1), at(0));
        settling.observe("b".to_owned(), stamp(1), at(1));
        settling.observe("a".to_owned(), stamp(2), at(1));
        settling.observe("b".to_owned(), stamp(1), at(2));
        assert_eq!(settling.next_due(), Some(at(2)));
        assert_eq!(settling.take_due(at(2)), []);
        assert_eq!(settling.next_due(), Some(at(3)));
        assert_eq!(settling.take_due(at(3)), [("a".to_owned(), stamp(2)), ("b".to_owned(), stamp(1))]);
        assert_eq!(settling.take_due(at(9)), []);
    }
}
