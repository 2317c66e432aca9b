//! What a query did: counters that its scans raise while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

/// What a query has done so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueryStats {
    /// Live segments of the organization and the signals read, each once a scan.
    pub segments_considered: u64,
    /// Of those, ruled out by the catalog, or by a day index of traces.
    pub segments_pruned: u64,
    /// Row groups of the segments that were opened.
    pub row_groups_considered: u64,
    /// Of those, ruled out by statistics, blooms or an index.
    pub row_groups_pruned: u64,
    /// Row groups whose rows were read.
    pub row_groups_read: u64,
    /// Requests to object stores.
    pub requests: u64,
    /// Bytes that these requests returned.
    pub bytes_read: u64,
    /// Bytes of all segments that the catalog did not rule out by organization and signal.
    pub bytes_considered: u64,
    /// Rows of the row groups read, without those an index ruled out.
    pub rows_scanned: u64,
    /// Rows that scans gave on.
    pub rows_matched: u64,
    /// Footers and parts of indexes that were in memory.
    pub cache_hits: u64,
    /// PromQL: hours that rollups served in place of points, each once a selector.
    pub rolled_up_hours: u64,
    /// From the call to the first byte of work: catalog, parsing, planning.
    pub planning_ms: f64,
    /// From the call until now, or until the last batch.
    pub wall_ms: f64,
    /// What the reader of the answer has to know.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    SegmentsConsidered,
    SegmentsPruned,
    RowGroupsConsidered,
    RowGroupsPruned,
    RowGroupsRead,
    Requests,
    BytesRead,
    BytesConsidered,
    RowsScanned,
    RowsMatched,
    CacheHits,
    RolledUpHours,
}

const COUNTERS: usize = Counter::RolledUpHours as usize + 1;

/// A handle on the counters of one query; readable while it runs and after.
#[derive(Debug, Clone)]
pub struct StatsHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    counters: [AtomicU64; COUNTERS],
    started: Instant,
    planned: Mutex<Option<Duration>>,
    ended: Mutex<Option<Duration>>,
    warnings: Mutex<Vec<String>>,
}

impl Default for StatsHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl StatsHandle {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            started: Instant::now(),
            planned: Mutex::default(),
            ended: Mutex::default(),
            warnings: Mutex::default(),
        }))
    }

    /// What the query has done so far.
    pub fn read(&self) -> QueryStats {
        let get = |counter: Counter| self.0.counters[counter as usize].load(Ordering::Relaxed);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        QueryStats {
            segments_considered: get(Counter::SegmentsConsidered),
            segments_pruned: get(Counter::SegmentsPruned),
            row_groups_considered: get(Counter::RowGroupsConsidered),
            row_groups_pruned: get(Counter::RowGroupsPruned),
            row_groups_read: get(Counter::RowGroupsRead),
            requests: get(Counter::Requests),
            bytes_read: get(Counter::BytesRead),
            bytes_considered: get(Counter::BytesConsidered),
            rows_scanned: get(Counter::RowsScanned),
            rows_matched: get(Counter::RowsMatched),
            cache_hits: get(Counter::CacheHits),
            rolled_up_hours: get(Counter::RolledUpHours),
            planning_ms: self.0.planned.lock().map_or(0.0, milliseconds),
            wall_ms: milliseconds(self.0.ended.lock().unwrap_or_else(|| self.0.started.elapsed())),
            warnings: self.0.warnings.lock().clone(),
        }
    }

    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        self.0.counters[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// Says something once, however often a scan notices it.
    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = self.0.warnings.lock();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Forgets what a plan that is being replaced has counted; the clock goes on.
    pub(crate) fn restart(&self) {
        for counter in [
            Counter::SegmentsConsidered,
            Counter::SegmentsPruned,
            Counter::RowGroupsConsidered,
            Counter::RowGroupsPruned,
            Counter::BytesConsidered,
        ] {
            self.0.counters[counter as usize].store(0, Ordering::Relaxed);
        }
        self.0.warnings.lock().clear();
    }

    pub(crate) fn planned(&self) {
        *self.0.planned.lock() = Some(self.0.started.elapsed());
    }

    pub(crate) fn ended(&self) {
        self.0.ended.lock().get_or_insert_with(|| self.0.started.elapsed());
    }
}
