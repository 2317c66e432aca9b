//! What happens next: events by time, and among equal times in the order they were set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tidemill_scaling::keda::object::Tick;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A replica is ready.
    Ready(u64),
    /// A replica has done its item.
    Done(u64),
    /// A replica goes down over its item.
    Crash(u64),
    /// The claim of a replica that is gone is given up: the item of this arrival waits again.
    GiveUp(i64),
    /// The vertical autoscaler looks.
    Size,
    /// CPU is measured.
    Measure,
    /// A clock of the policy.
    Ask(Clock),
    /// An arrival wakes the policy.
    Wake,
    /// A second is over.
    Second,
}

/// The clocks of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clock {
    Poll,
    Sync,
    Both,
}

impl Clock {
    pub fn tick(self) -> Tick {
        match self {
            Self::Poll => Tick::Poll,
            Self::Sync => Tick::Sync,
            Self::Both => Tick::Both,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Agenda {
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    set: u64,
}

impl Agenda {
    pub fn set(&mut self, at_ms: i64, event: Event) {
        self.set += 1;
        self.events.push(Reverse((at_ms, self.set, event)));
    }

    pub fn next_at(&self) -> Option<i64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    pub fn pop(&mut self) -> Option<(i64, Event)> {
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
