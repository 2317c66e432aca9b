//! The work of one scan, shared by its partitions: segments and row groups, the one that can hold the next rows first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_types::{SegmentMeta, TimeRange};
use tokio::sync::Notify;

use super::blocks::RowSet;
use super::segment_plan::SegmentPlan;

/// Which end of time a scan begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeOrder {
    /// Newest rows first.
    NewestFirst,
    /// Oldest rows first.
    OldestFirst,
}

/// One piece of work.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most of a heap are row groups, so boxing them would save nothing")]
pub(super) enum Unit {
    /// A segment that is not open yet.
    Segment(SegmentMeta),
    /// A row group whose rows may match.
    RowGroup(RowGroupUnit),
    /// Rows of a segment of which nothing is read.
    Counted(CountedUnit),
}

/// A row group to read.
#[derive(Debug, Clone)]
pub(super) struct RowGroupUnit {
    pub(super) plan: Arc<SegmentPlan>,
    pub(super) group: usize,
    /// The rows of it that an index left.
    pub(super) rows: RowSet,
}

/// So many rows of a segment that are known to match.
#[derive(Debug, Clone)]
pub(super) struct CountedUnit {
    pub(super) plan: Arc<SegmentPlan>,
    pub(super) rows: usize,
}

impl Unit {
    pub(super) fn time(&self) -> TimeRange {
        match self {
            Self::Segment(meta) => meta.time,
            Self::RowGroup(unit) => unit.plan.open.row_group_times[unit.group],
            Self::Counted(unit) => unit.plan.open.meta.time,
        }
    }
}

/// The open work; what is taken may bring more.
#[derive(Debug)]
pub(super) struct WorkHeap {
    order: TimeOrder,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    heap: BinaryHeap<Entry>,
    serial: u64,
    /// Segments being opened, which may bring row groups.
    opening: usize,
}

#[derive(Debug)]
struct Entry {
    urgency: i64,
    serial: Reverse<u64>,
    unit: Unit,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.urgency, self.serial).cmp(&(other.urgency, other.serial))
    }
}

/// What a partition does next.
pub(super) enum Next {
    /// Open these; then say what they brought through the guard.
    Open(Vec<SegmentMeta>, Opening),
    /// Read this.
    Read(RowGroupUnit),
    /// Tell of these.
    Count(CountedUnit),
}

/// Segments being opened; until it is dropped, other partitions wait for what they bring.
pub(super) struct Opening(Arc<WorkHeap>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.state.lock().opening -= 1;
        self.0.changed.notify_waiters();
    }
}

impl WorkHeap {
    pub(super) fn new(order: TimeOrder, segments: impl IntoIterator<Item = SegmentMeta>) -> Arc<Self> {
        let heap = Self { order, state: Mutex::default(), changed: Notify::new() };
        heap.push(segments.into_iter().map(Unit::Segment));
        Arc::new(heap)
    }

    pub(super) fn push(&self, units: impl IntoIterator<Item = Unit>) {
        let mut state = self.state.lock();
        for unit in units {
            let time = unit.time();
            let urgency = match self.order {
                TimeOrder::NewestFirst => time.end.0,
                TimeOrder::OldestFirst => time.start.0.saturating_neg(),
            };
            state.serial += 1;
            let serial = Reverse(state.serial);
            state.heap.push(Entry { urgency, serial, unit });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The most urgent work; at most `together` segments when they come first. `None` when nothing is left.
    pub(super) async fn next(self: &Arc<Self>, together: usize) -> Option<Next> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change is missed in between.
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                match state.heap.pop().map(|entry| entry.unit) {
                    Some(Unit::RowGroup(unit)) => return Some(Next::Read(unit)),
                    Some(Unit::Counted(unit)) => return Some(Next::Count(unit)),
                    Some(Unit::Segment(first)) => {
                        let mut segments = vec![first];
                        while segments.len() < together
                            && matches!(state.heap.peek(), Some(Entry { unit: Unit::Segment(_), .. }))
                        {
                            if let Some(Entry { unit: Unit::Segment(meta), .. }) = state.heap.pop() {
                                segments.push(meta);
                            }
                        }
                        state.opening += 1;
                        return Some(Next::Open(segments, Opening(Arc::clone(self))));
                    }
                    None if state.opening == 0 => return None,
                    None => {}
                }
            }
            changed.await;
        }
    }
}
